//! A changed configuration is served by without a restart: all of it or nothing, and nobody who has
//! begun notices.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Client, Ending, Origin, PATIENCE, Process, Response, Script, Speaks, Verdict,
    configured, follow, judge, text, tidegate,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };

/// An appliance with a configuration that changes.
struct Reloadable {
    file: PathBuf,
    before: String,
    process: Process,
}

impl Reloadable {
    /// With `sites` and what `more` says, in this order.
    fn start(folder: &Path, more: &str, sites: &str) -> Reloadable {
        let file = configured(folder, &format!("{more}\n{sites}"));
        let before = fs::read_to_string(&file).unwrap();
        let process = Process::start(&file);
        Reloadable { file, before, process }
    }

    /// Writes `to` for `from`.
    fn write(&self, from: &str, to: &str) {
        assert!(self.before.contains(from), "{from}");
        fs::write(&self.file, self.before.replace(from, to)).unwrap();
    }

    /// Has the file read again: exit code, and all that was said.
    fn reload(&self) -> (i32, String) {
        self.process.answers(&["reload"])
    }

    fn client(&self, host: &str) -> Client {
        Client::plain(self.process.http, host)
    }

    /// Waits until so many viewers are connected.
    async fn until_open(&self, count: u32) {
        self.until_told(&format!("tidegate_connections_open {count}\n")).await;
    }

    /// Waits until a line of the metrics is this.
    async fn until_told(&self, line: &str) {
        let admin = Client::plain(self.process.admin, "admin.test");
        let asked = Instant::now();
        while !text(&admin.get("/metrics").send().await.body).contains(line) {
            assert!(asked.elapsed() < PATIENCE, "no {line}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn get(&self, host: &str, path: &str) -> Response {
        self.client(host).get(path).send().await
    }
}

fn site(name: &str, origin: &Origin, more: &str) -> String {
    let origin = origin.address();
    format!(
        "[[sites]]\nname = {name:?}\nhosts = [\"{name}.test\"]\norigins = [\"http://{origin}\"]\n{more}\n"
    )
}

#[tokio::test]
async fn a_rule_counts_for_who_comes_then_and_a_body_that_has_begun_goes_on() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    origin.serve("/film", held);
    let tells = "response.add = { X-Tells = \"before\" }";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, tells));
    let mut under_way = edge.client("media.test").get("/film").open().await;
    under_way.read_exactly(BLOCK as usize).await.unwrap();
    assert_eq!(edge.reload(), (0, "nothing has changed\n".to_owned()));

    edge.write("before", "after");
    let said = "sites[media].response.add.X-Tells: \u{2026} -> \u{2026}\n";
    assert_eq!(edge.reload(), (0, said.to_owned()));
    let response = edge.get("media.test", "/a").await;
    assert_eq!(response.header("x-tells"), "after");
    origin.release("/film");
    let came = follow(&mut under_way, origin.content("/film", 1), BLOCK).await;
    assert_eq!(came, (3 * BLOCK, true));
    assert_eq!(edge.reload(), (0, "nothing has changed\n".to_owned()));
}

#[tokio::test]
async fn sites_come_and_go_and_none_is_given_what_another_had() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Origin::start(), Origin::start());
    for (origin, length) in [(&first, 10), (&second, 20)] {
        origin.serve("/a", Script::of(length));
    }
    let [one, two, three] = ["one", "two", "three"].map(|name| {
        let origin = if name == "one" { &first } else { &second };
        site(name, origin, "lifetime.given = \"1h\"")
    });
    let edge = Reloadable::start(folder.path(), "", &one);
    assert_eq!(edge.get("one.test", "/a").await.body.len(), 10);
    assert_eq!(edge.get("two.test", "/a").await.status, 421);

    // The first of the file now is the one that was not there.
    edge.write(&one, &(two.clone() + &one));
    assert_eq!(edge.reload().0, 0);
    assert_eq!(edge.get("two.test", "/a").await.body.len(), 20);
    assert_eq!(edge.get("one.test", "/a").await.body.len(), 10);
    assert_eq!((first.requests("/a").len(), second.requests("/a").len()), (1, 1));
    let counted = |site| format!("tidegate_site_requests_total{{site=\"{site}\",status=\"2xx\"}}");
    edge.until_told(&format!("{} 2\n", counted("one"))).await;
    edge.until_told(&format!("{} 1\n", counted("two"))).await;

    edge.write(&one, &three);
    assert_eq!(edge.reload().0, 0);
    for gone in ["one.test", "two.test"] {
        assert_eq!(edge.get(gone, "/a").await.status, 421, "{gone}");
    }
    assert_eq!(edge.get("three.test", "/a").await.body.len(), 20);
    assert_eq!(second.requests("/a").len(), 2, "it has none of what the others had");

    edge.write(&one, &one);
    assert_eq!(edge.reload().0, 0);
    assert_eq!(edge.get("one.test", "/a").await.body.len(), 10);
    assert_eq!(first.requests("/a").len(), 1, "what was kept of it is its own again");
}

#[tokio::test]
async fn another_origin_is_asked_from_then_on() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Origin::start(), Origin::start());
    for path in ["/a", "/b", "/c"] {
        first.serve(path, Script::of(10));
        second.serve(path, Script::of(10));
    }
    let edge = Reloadable::start(folder.path(), "", &site("media", &first, ""));
    assert_eq!(judge(&first, "/a", &edge.get("media.test", "/a").await), WHOLE);
    edge.write(&first.address().to_string(), &second.address().to_string());
    assert_eq!(edge.reload().0, 0);
    assert_eq!(judge(&second, "/b", &edge.get("media.test", "/b").await), WHOLE);
    assert_eq!((first.requests("/b").len(), second.requests("/b").len()), (0, 1));
    edge.write("media", "media");
    assert_eq!(edge.reload().0, 0);
    assert_eq!(judge(&first, "/c", &edge.get("media.test", "/c").await), WHOLE);
    assert_eq!(first.requests("/c").len(), 1);
}

#[tokio::test]
async fn who_has_begun_is_served_from_where_he_began_and_nobody_else_is_told_its_secrets() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Origin::start(), Origin::start());
    first.serve("/film", Script::of(40 * BLOCK));
    second.serve("/film", Script::of(7));
    let keys = "request.add = { Authorization = \"Basic b25l\" }\nlifetime.given = \"1h\"";
    let window = "fill.window = \"1 MiB\"";
    let edge = Reloadable::start(folder.path(), window, &site("media", &first, keys));
    // It began with what a reload brought.
    assert_eq!(edge.reload().0, 0);
    let mut under_way = edge.client("media.test").get("/film").open().await;
    under_way.read_exactly(BLOCK as usize).await.unwrap();
    // It waits for its reader now, and is asked for again beyond where it stopped.
    edge.until_told("tidegate_fill_runs_finished_total{outcome=\"parked\"} 1\n").await;
    edge.write(&first.address().to_string(), &second.address().to_string());
    assert_eq!(edge.reload().0, 0);
    let came = follow(&mut under_way, first.content("/film", 1), BLOCK).await;
    assert_eq!(came, (39 * BLOCK, true));
    assert!(first.requests("/film").len() > 1, "it was gone on with");
    assert_eq!(second.all_requests().len(), 0);
}

#[tokio::test]
async fn a_configuration_with_a_fault_changes_nothing_and_each_fault_is_a_line() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let tells = "response.add = { X-Tells = \"before\" }";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, tells));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fs::write(folder.path().join("text"), "no volume, but somebody's text").unwrap();
    let volume = format!(
        "[[ssd.volumes]]\npath = {:?}\nsize = \"256 MiB\"\n[[sites]]",
        folder.path().join("text")
    );
    let table: [(&str, &str, &str); 5] = [
        ("threads.workers", "threads.wrokers", "wrokers"),
        ("name = \"media\"", "name = \"media", "edge.toml:"),
        ("[\"127.0.0.1:0\"]\nlisteners.admin", &format!("[\"{taken}\"]\nlisteners.admin"), "taken"),
        ("[[sites]]", &volume, "text"),
        ("[[sites]]", "[[certificates]]\ncert = \"no.pem\"\nkey = \"no.key\"\n[[sites]]", "no.pem"),
    ];
    for (from, to, told) in table {
        edge.write(from, &to.replace("before", "after"));
        let (code, said) = edge.reload();
        assert_eq!(code, 64, "{to}: {said}");
        assert!(said.lines().next().unwrap().contains(told), "{to}: {said}");
        assert!(said.ends_with("nothing has changed: it is served by what was before\n"), "{said}");
        edge.until_told("tidegate_config_last_reload_successful 0\n").await;
        let response = edge.get("media.test", "/a").await;
        assert_eq!(
            (response.status, response.header("x-tells")),
            (200, "before".to_owned()),
            "{to}"
        );
    }
    edge.write("before", "after");
    assert_eq!(edge.reload().0, 0);
    edge.until_told("tidegate_config_last_reload_successful 1\n").await;
    assert_eq!(edge.get("media.test", "/b").await.header("x-tells"), "after");
}

#[tokio::test]
async fn what_only_a_start_can_change_is_named_and_the_rest_counts() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, ""));
    edge.write("workers = 2\nmemory.ram = \"80 MiB\"", "workers = 1\nmemory.ram = \"96 MiB\"");
    let said = "memory.ram: \"80 MiB\" -> \"96 MiB\" (needs a restart)\n\
                threads.workers: 2 -> 1 (needs a restart)\n";
    assert_eq!(edge.reload(), (0, said.to_owned()));
    edge.write("memory.ram = \"80 MiB\"", "memory.ram = \"64 MiB\"");
    let (code, said) = edge.reload();
    assert_eq!(code, 0);
    let told = "memory.ram: \"96 MiB\" -> \"64 MiB\"; what it has taken of the system stays taken \
                until a restart\n";
    assert!(said.contains(told), "{said}");
    let admin = Client::plain(edge.process.admin, "admin.test");
    let metrics = text(&admin.get("/metrics").send().await.body);
    let budget = "tidegate_memory_budget_bytes{use=\"ram\"} 62914560";
    assert!(metrics.contains(budget), "{metrics}");
}

#[tokio::test]
async fn the_warnings_that_check_gives_are_told_below_what_changes() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::start();
    let rules = "[[sites.rules]]\npath = \"**\"\n";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, rules));
    edge.write(rules, &format!("{rules}[[sites.rules]]\npath = \"*.m4s\"\n"));
    let checked = tidegate(&["check", "--without-ports", edge.file.to_str().unwrap()]);
    let checked = text(&checked.stdout);
    let (_, warnings) = checked.split_once("\nwarnings\n").unwrap();
    assert!(warnings.contains("`sites.rules.path` is never reached: "), "{warnings}");
    let (code, said) = edge.reload();
    let (changes, told) = said.split_once("\nwarnings\n").unwrap();
    assert_eq!((code, told), (0, warnings), "{said}");
    assert!(changes.starts_with("sites[media].rules") && !changes.contains("reached"), "{said}");
    let said = format!("nothing has changed\n\nwarnings\n{warnings}");
    assert_eq!(edge.reload(), (0, said));
    let admin = format!("http://{}", edge.process.admin);
    let told = tidegate(&["reload", "--json", "--admin", &admin]).stdout;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["changes"], serde_json::json!([]));
    assert_eq!(told["warnings"], serde_json::json!([warnings.trim()]), "{told}");
}

#[tokio::test]
async fn a_hangup_reloads_and_says_so_in_the_log() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let tells = "response.add = { X-Tells = \"before\" }";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, tells));
    edge.write("before", "after");
    edge.process.signal(Signal::HUP);
    edge.process.logged_until("reloaded").await;
    assert_eq!(edge.get("media.test", "/a").await.header("x-tells"), "after");
    edge.write("[[sites]]", "[[sties]]");
    edge.process.signal(Signal::HUP);
    let logged = edge.process.logged_until("sties").await;
    assert!(logged.iter().any(|line| line.contains("not reloaded: ")), "{logged:#?}");
    assert_eq!(edge.get("media.test", "/a").await.header("x-tells"), "after");
}

/// A certificate for `media.test` in the folder, until that year.
fn certify(folder: &Path, until_year: i32) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut asked = rcgen::CertificateParams::new(["media.test".to_owned()]).unwrap();
    asked.not_before = rcgen::date_time_ymd(2020, 1, 1);
    asked.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let made = asked.self_signed(&key).unwrap();
    // Renamed into place: nobody reads half of it.
    for (name, pem) in [("key.pem", key.serialize_pem()), ("cert.pem", made.pem())] {
        fs::write(folder.join("new"), pem).unwrap();
        fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
    made.der().clone()
}

/// Where a configuration names it.
const CERT_AT: &str = "13:8";

fn with_certificate(folder: &Path, origin: &Origin) -> Reloadable {
    let more = "listeners.https = [\"127.0.0.1:0\"]\n\
                [[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"";
    Reloadable::start(folder, more, &site("media", origin, ""))
}

impl Reloadable {
    /// Whether who trusts this one alone can connect.
    async fn shows(&self, trusted: &CertificateDer<'static>) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let address = self.process.https.unwrap();
        let client = Client::tls(address, "media.test", roots, Speaks::Http2);
        client.connect().await.is_ok()
    }
}

#[tokio::test]
async fn a_certificate_takes_the_place_of_the_one_before_unless_it_is_no_good() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    certify(folder.path(), 2090);
    let edge = with_certificate(folder.path(), &origin);
    let second = certify(folder.path(), 2091);
    // Unless it was looked at meanwhile.
    let (code, said) = edge.reload();
    let told = said.starts_with("certificates[") || said == "nothing has changed\n";
    assert!(code == 0 && told, "{said}");
    assert!(edge.shows(&second).await);
    // The key of another one.
    let key = fs::read(folder.path().join("key.pem")).unwrap();
    certify(folder.path(), 2092);
    fs::write(folder.path().join("key.pem"), key).unwrap();
    let (code, said) = edge.reload();
    assert!(code == 64 && said.contains("is not the key of the certificate"), "{said}");
    certify(folder.path(), 2021);
    let (code, said) = edge.reload();
    let told = format!("{}:{CERT_AT}: certificate ", edge.file.display());
    assert!(code == 64 && said.starts_with(&told), "{said}");
    assert!(said.contains("cert.pem expired on Fri, 01 Jan 2021"), "{said}");
    let (code, said) = edge.process.upgrade();
    assert!(code == 1 && said.contains(&told) && said.contains("have it renewed"), "{said}");
    assert!(edge.shows(&second).await);
}

#[tokio::test]
async fn a_certificate_that_expired_before_the_start_is_told_of_and_keeps_nobody_from_following() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    certify(folder.path(), 2021);
    let edge = with_certificate(folder.path(), &origin);
    let checked = tidegate(&["check", "--without-ports", edge.file.to_str().unwrap()]);
    let checked = (checked.status.code(), text(&checked.stdout));
    let refused = format!(":{CERT_AT}: certificate {}", folder.path().join("cert.pem").display());
    let refused = refused + " expired on Fri, 01 Jan 2021 00:00:00 GMT, and viewers refuse it; ";
    assert!(checked.1.contains(&refused) && checked.0 == Some(0), "{checked:?}");
    assert!(checked.1.contains("have it renewed; a reload that adds it is refused"), "{checked:?}");
    let logged = edge.process.logged_until("it is shown all the same").await;
    assert!(logged.iter().any(|line| line.contains(&refused)), "{logged:#?}");
    assert!(!logged.iter().any(|line| line.contains("the one of before")), "{logged:#?}");
    let (code, said) = edge.reload();
    assert!(code == 0 && said.starts_with("nothing has changed\n"), "{said}");
    let (code, said) = edge.process.upgrade();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_unasked_and_one_that_expired_is_not() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let first = certify(folder.path(), 2090);
    let edge = with_certificate(folder.path(), &origin);
    assert!(edge.shows(&first).await);
    certify(folder.path(), 2021);
    edge.process.logged_until("cert.pem expired on Fri, 01 Jan 2021").await;
    assert!(edge.shows(&first).await);
    let renewed = certify(folder.path(), 2091);
    edge.process.logged_until("is another one now").await;
    assert!(edge.shows(&renewed).await && !edge.shows(&first).await);
    assert_eq!(edge.reload(), (0, "nothing has changed\n".to_owned()));
}

#[tokio::test]
async fn who_streams_through_many_reloads_has_every_byte() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/film", Script::of(24 * BLOCK).rate(16 << 20));
    let tells = "response.add = { X-Tells = \"before\" }\nlifetime.given = \"1h\"";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, tells));
    let mut viewers = JoinSet::new();
    for _ in 0..20 {
        let (asked, content) = (edge.client("media.test").get("/film"), origin.content("/film", 1));
        viewers.spawn(async move { follow(&mut asked.open().await, content, 0).await });
    }
    let client = edge.client("media.test");
    let mut kept = Some(client.connect().await.unwrap());
    for number in 0..30 {
        edge.write("before", &format!("after {number}"));
        let (code, said) = edge.reload();
        assert_eq!((code, said.lines().count()), (0, 1), "{said}");
        // A connection of before is answered by the rules of now.
        let path = format!("/{number}");
        origin.serve(&path, Script::of(10));
        let asked = client.get(&path).on(kept.unwrap()).await.unwrap();
        let (response, connection) = asked.finish_and_keep().await.unwrap();
        assert_eq!(response.header("x-tells"), format!("after {number}"));
        kept = connection;
    }
    for came in viewers.join_all().await {
        assert_eq!(came, (24 * BLOCK, true));
    }
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn the_limit_of_connections_follows_and_cuts_nobody() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let edge =
        Reloadable::start(folder.path(), "limits.connections = 2", &site("media", &origin, ""));
    let client = edge.client("media.test");
    let ask = async |connection| {
        let asked = client.get("/a").on(connection).await?;
        let (response, kept) = asked.finish_and_keep().await?;
        assert_eq!(response.status, 200);
        std::io::Result::Ok(kept.unwrap())
    };
    let first = ask(client.connect().await.unwrap()).await.unwrap();
    let second = ask(client.connect().await.unwrap()).await.unwrap();

    edge.write("connections = 2", "connections = 3");
    assert_eq!(edge.reload(), (0, "limits.connections: 2 -> 3\n".to_owned()));
    let third = ask(client.connect().await.unwrap()).await.unwrap();

    edge.write("connections = 2", "connections = 1");
    let said = "limits.connections: 3 -> 1; 3 are open, which stay\n";
    assert_eq!(edge.reload(), (0, said.to_owned()));
    for there in [first, second] {
        drop(ask(there).await.unwrap());
    }
    let third = ask(third).await.unwrap();
    edge.until_open(1).await;
    // Who comes then waits until another has left.
    let (asked, fourth) = (client.get("/a"), client.connect().await.unwrap());
    let fourth = tokio::spawn(async move { asked.on(fourth).await?.finish().await });
    let third = ask(third).await.unwrap();
    edge.until_open(1).await;
    assert!(!fourth.is_finished());
    drop(third);
    assert_eq!(fourth.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_limit_that_goes_up_and_down_takes_its_memory_once() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let site = site("media", &origin, "");
    let edge = Reloadable::start(folder.path(), "limits.connections = 2", &site);
    for connections in [100_000, 2, 100_000, 3, 100_000, 4, 100_000] {
        edge.write("connections = 2", &format!("connections = {connections}"));
        let (code, said) = edge.reload();
        assert_eq!(code, 0, "{connections}: {said}");
        let has_room = said.contains("; memory has room for ");
        assert_eq!(has_room, connections == 100_000, "{said}");
    }
    assert_eq!(edge.get("media.test", "/a").await.status, 200);
}

#[tokio::test]
async fn the_log_goes_to_another_file_and_another_token_counts() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let named = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(named("token"), "the-first-of-the-tokens").unwrap();
    fs::write(named("other"), "the-second-of-the-tokens").unwrap();
    let more = format!("admin.token_file = {:?}", named("token"));
    let edge = Reloadable::start(folder.path(), &more, &site("media", &origin, ""));
    edge.write("log.access = \"off\"", &format!("log.access = {:?}", named("access.log")));
    // Where there is a token it has to be shown, by who asks from this machine too.
    let (code, said) = edge.reload();
    assert!(code == 1 && said.contains("shows the token"), "{said}");
    let bearing = |name| edge.process.answers(&["reload", "--token-file", &named(name)]);
    assert_eq!(bearing("token").0, 0);
    assert_eq!(edge.get("media.test", "/a").await.status, 200);
    let log = || fs::read_to_string(named("access.log")).unwrap();
    let asked = Instant::now();
    while !log().contains("\"/a\"") {
        assert!(asked.elapsed() < PATIENCE, "{}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    edge.write(&named("token"), &named("other"));
    let (_, said) = bearing("other");
    assert!(said.contains("show the one of before with --token-file, or send SIGHUP"), "{said}");
    assert_eq!((bearing("token").0, bearing("token").0, bearing("other").0), (0, 1, 0));
}

/// What is read of the file does not come before somebody writes it.
fn hang(file: &Path) {
    let fifo = file.with_extension("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    fs::rename(fifo, file).unwrap();
}

/// Waits until it is read, and holds it up further.
async fn is_read(file: &Path) -> fs::File {
    let file = file.to_owned();
    let open = move || fs::OpenOptions::new().write(true).open(file).unwrap();
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(open)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_neither_the_next_log_nor_the_end() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let tells = "response.add = { X-Tells = \"before\" }";
    let edge = Reloadable::start(folder.path(), "", &site("media", &origin, tells));
    let log = folder.path().join("access.log");
    let logging = edge.before.replace("log.access = \"off\"", &format!("log.access = {log:?}"));
    fs::write(&edge.file, &logging).unwrap();
    assert_eq!(edge.reload().0, 0);

    hang(&edge.file);
    edge.process.signal(Signal::HUP);
    let mut held_up = is_read(&edge.file).await;
    fs::rename(&log, folder.path().join("access.log.1")).unwrap();
    edge.process.signal(Signal::HUP);
    let asked = Instant::now();
    while !log.exists() {
        assert!(asked.elapsed() < PATIENCE, "it writes on in the log that was moved");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Who hung up last wants what is written then.
    held_up.write_all(logging.as_bytes()).unwrap();
    drop(held_up);
    edge.process.logged_until("reloaded changes=0").await;
    let mut again = is_read(&edge.file).await;
    again.write_all(logging.replace("before", "after").as_bytes()).unwrap();
    drop(again);
    edge.process.logged_until("X-Tells").await;
    assert_eq!(edge.get("media.test", "/a").await.header("x-tells"), "after");

    // Who asks for it waits longer than for other answers.
    let words =
        ["reload".to_owned(), "--admin".to_owned(), format!("http://{}", edge.process.admin)];
    let asking =
        tokio::task::spawn_blocking(move || tidegate(&words.each_ref().map(String::as_str)));
    let mut held_up = is_read(&edge.file).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    held_up.write_all(logging.as_bytes()).unwrap();
    drop(held_up);
    let done = asking.await.unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));

    edge.process.signal(Signal::HUP);
    let _held_up = is_read(&edge.file).await;
    edge.process.stop();
}

#[tokio::test]
async fn a_disk_of_certificates_that_hangs_does_not_hold_up_the_end() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    certify(folder.path(), 2090);
    let edge = with_certificate(folder.path(), &origin);
    let file = folder.path().join("cert.pem");
    hang(&file);
    let _held_up = is_read(&file).await;
    assert_eq!(edge.get("media.test", "/a").await.status, 200);
    edge.process.stop();
}

#[tokio::test]
async fn an_origin_that_is_told_otherwise_has_no_more_connections_than_before() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::start();
    origin.serve("/film", Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK)));
    origin.serve("/a", Script::of(10));
    let address = origin.address();
    let sites = format!(
        "fill.first_byte_timeout = \"1s\"\n[[sites]]\nname = \"media\"\nhosts = [\"media.test\"]\n\
         [[sites.origins]]\nurl = \"http://{address}\"\nconnections = 1\n\
         fields = {{ X-Key = \"one\" }}\n"
    );
    let edge = Reloadable::start(folder.path(), "", &sites);
    let mut under_way = edge.client("media.test").get("/film").open().await;
    under_way.read_exactly(BLOCK as usize).await.unwrap();
    edge.write("\"one\"", "\"two\"");
    assert_eq!(edge.reload().0, 0);
    assert_eq!(edge.get("media.test", "/a").await.status, 503);
    assert_eq!(origin.requests("/a").len(), 0);
    origin.release("/film");
    let came = follow(&mut under_way, origin.content("/film", 1), BLOCK).await;
    assert_eq!(came, (3 * BLOCK, true));
    assert_eq!(edge.get("media.test", "/a").await.status, 200);
}
