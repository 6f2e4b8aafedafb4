//! Whom viewers are sent to, as they ask it of the real binary: by files of routes that come,
//! change, are wrong and go, and by whatever a player reports.

mod rewritten;
mod served;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    Client, HOST, PATIENCE, Process, Response, Speaks, configured, text, tidegate,
};

/// Appliances `a`, `b` and `c`, the last for who was announced to it alone; a proxy on this machine
/// is believed, so that viewers can be anywhere.
const SETTINGS: &str = r#"
listeners.steering = ["127.0.0.1:0"]
proxies.forwarded = ["127.0.0.0/8"]
[[sites]]
name = "media"
hosts = ["media.test"]
origins = "http://127.0.0.1:9"
[[sites]]
name = "news"
hosts = ["news.test"]
origins = "http://127.0.0.1:9"
[[steering.appliances]]
name = "a"
host = "a.example:8443"
addresses = ["192.0.2.1", "2001:db8::1"]
capacity = "10 Gbit/s"
[[steering.appliances]]
name = "b"
addresses = ["192.0.2.2"]
capacity = "10 Gbit/s"
[[steering.appliances]]
name = "c"
addresses = ["192.0.2.3"]
capacity = "10 Gbit/s"
audience = "announced"
"#;

/// A process that steers by one prefix file.
struct Steered {
    process: Process,
    folder: TempDir,
    writes: u64,
    steering: Client,
}

impl Steered {
    async fn start(routes: &str, settings: &str) -> Steered {
        let folder = TempDir::new().unwrap();
        let more = format!(
            "{SETTINGS}[routes]\nreread = \"50ms\"\nhold = \"200ms\"\n[[routes.files]]\n\
             path = \"prefixes\"\n{settings}"
        );
        write(folder.path(), routes, 0);
        let process = Process::start(&configured(folder.path(), &more));
        let steering = asking(&process, " steering at ").await;
        Steered { process, folder, writes: 0, steering }
    }

    fn prefixes(&self) -> PathBuf {
        self.folder.path().join("prefixes")
    }

    /// Puts another file in the place of the one before.
    fn replace(&mut self, routes: &str) {
        self.writes += 1;
        write(self.folder.path(), routes, self.writes);
    }

    async fn ask(&self, viewer: &str, target: &str) -> Response {
        let request = self.steering.get(target).header("x-forwarded-for", viewer);
        let response = request.send().await;
        assert_eq!(response.header("access-control-allow-origin"), "*", "{target}");
        assert_eq!(response.header("cache-control"), "no-store", "{target}");
        response
    }

    async fn json(&self, viewer: &str, target: &str) -> Value {
        let response = self.ask(viewer, target).await;
        assert_eq!(response.status, 200, "{target}");
        serde_json::from_slice(&response.body).unwrap()
    }

    /// The host that a viewer is sent to.
    async fn sent_to(&self, viewer: &str) -> String {
        let response = self.ask(viewer, "/steer/v1/go/media/film/1.m4s?a=b").await;
        assert_eq!(response.status, 302);
        let location = response.header("location");
        let (host, rest) = location.strip_prefix("http://").unwrap().split_once('/').unwrap();
        assert!(rest.starts_with("film/1.m4s?a=b&tidegate-decision="), "{location}");
        host.to_owned()
    }

    async fn until_sent_to(&self, viewer: &str, host: &str) {
        let asked = Instant::now();
        while self.sent_to(viewer).await != host {
            assert!(asked.elapsed() < PATIENCE, "{viewer} is not sent to {host}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn metric(&self, line: &str) -> u64 {
        let metrics = Client::plain(self.process.admin, "admin").get("/metrics").send().await;
        let metrics = text(&metrics.body);
        let found = metrics.lines().find_map(|one| one.strip_prefix(line));
        found.unwrap_or_else(|| panic!("{line} is not in {metrics}")).trim().parse().unwrap()
    }
}

/// Who asks where a line of the log says that it listens.
pub(crate) async fn asking(process: &Process, words: &str) -> Client {
    let logged = process.logged_until(words).await;
    let address = logged.iter().find_map(|line| line.split_once(words)?.1.trim().parse().ok());
    Client::plain(address.unwrap(), HOST)
}

/// Moves a file into its place that was written some time ago.
fn write(folder: &Path, routes: &str, writes: u64) {
    let new = folder.join("new");
    fs::write(&new, routes).unwrap();
    let written = SystemTime::now() - Duration::from_secs(3_600 - writes);
    File::options().write(true).open(&new).unwrap().set_modified(written).unwrap();
    fs::rename(new, folder.join("prefixes")).unwrap();
}

#[tokio::test]
async fn viewers_follow_the_prefix_file_when_it_changes_is_wrong_and_is_gone() {
    let mut steered = Steered::start("198.51.100.0/24 b\n203.0.113.0/24 c\n", "").await;
    let (his, others) = ("198.51.100.7", "203.0.113.7");
    assert_eq!(steered.sent_to(his).await, "b", "routes were read before he was answered");
    assert_eq!(steered.sent_to(others).await, "c");
    assert_eq!(steered.metric("tidegate_route_prefixes{family=\"ipv4\"}").await, 2);
    let taken = steered.metric("tidegate_memory_used_bytes{use=\"routes\"}").await;
    assert_eq!(taken, steered.metric("tidegate_route_table_bytes").await);
    assert!((100..100_000).contains(&taken), "{taken}");
    let age = steered.metric("tidegate_route_age_seconds").await;
    assert!((3_600..3_700).contains(&age), "{age}");

    steered.replace("198.51.100.0/24 b\n198.51.100.0/25 a\n203.0.113.0/24 c\n");
    steered.until_sent_to(his, "a.example:8443").await;
    steered.process.logged_until("routes: 1 came, 0 are gone, 0 changed").await;

    steered.replace("198.51.100.0/24 c\n0.0.0.0/0 c\n");
    let logged = steered.process.logged_until("is the default route").await;
    let line = logged.iter().find(|line| line.contains("is the default route")).unwrap();
    assert!(
        line.contains("prefixes\": 0.0.0.0/0") && line.ends_with("; what it told before stays")
    );
    assert_eq!(steered.sent_to(his).await, "a.example:8443");
    assert_eq!(steered.metric("tidegate_route_files{state=\"kept\"}").await, 1);
    let refused = "tidegate_route_files_refused_total{reason=\"default_route\"}";
    assert_eq!(steered.metric(refused).await, 1, "it is told and counted once");

    fs::remove_file(steered.prefixes()).unwrap();
    steered.process.logged_until("what it told counts no more").await;
    assert_eq!(steered.metric("tidegate_route_files_withdrawn_total").await, 1);
    let value = steered.json(his, "/steer/v1/rank/media/film/1.m4s").await;
    assert_eq!(value["ranked"][0]["reasons"][0]["rule"], "share", "{value}");
    steered.replace("198.51.100.0/24 b\n");
    steered.until_sent_to(his, "b").await;
    steered.process.stop();
}

#[tokio::test]
async fn ranked_appliances_are_told_with_reasons_and_a_last_resort_is_flagged() {
    let steered = Steered::start("198.51.100.0/24 b\n", "").await;
    let value = steered.json("198.51.100.7", "/steer/v1/rank/media/film/1.m4s?a=b").await;
    let names: Vec<_> = value["ranked"].as_array().unwrap().iter().collect();
    assert_eq!((names.len(), &names[0]["appliance"]), (2, &json!("b")));
    let decision = value["decision"].as_str().unwrap();
    let url = format!("http://b/film/1.m4s?a=b&tidegate-decision={decision}.0c.");
    assert!(names[0]["url"].as_str().unwrap().starts_with(&url), "{}", names[0]["url"]);
    assert_eq!(names[0]["reasons"][0]["text"], "his network is announced to it (/24)");
    assert_eq!(names[1]["reasons"][0]["rule"], "not-announced");
    assert_eq!((&value["last_resort"], &value["viewer"]), (&json!(false), &json!("198.51.100.7")));
    // Of IPv6 he reaches `a` alone.
    let value = steered.json("2001:db8::7", "/steer/v1/rank/media/film/1.m4s").await;
    assert_eq!(value["ranked"].as_array().unwrap().len(), 1);
    steered.process.stop();

    let alone = "[steering]\nttl = { steady = \"1m\" }\n";
    let folder = TempDir::new().unwrap();
    let only_c = SETTINGS.split("[[steering.appliances]]\n").enumerate();
    let only_c = only_c.filter(|(n, _)| *n == 0 || *n == 3).map(|(_, part)| part);
    let only_c = only_c.collect::<Vec<_>>().join(&format!("{alone}[[steering.appliances]]\n"));
    let process = Process::start(&configured(folder.path(), &only_c));
    let steering = asking(&process, " steering at ").await;
    let response = steering.get("/steer/v1/rank/media/film/1.m4s").send().await;
    let value: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&value["last_resort"], &value["ttl_seconds"]), (&json!(true), &json!(20)));
    let rules: Vec<_> = value["ranked"][0]["reasons"].as_array().unwrap().iter().collect();
    let rules: Vec<_> = rules.iter().map(|rule| rule["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["not-for-him", "last-resort"]);
    process.stop();
}

#[tokio::test]
async fn players_are_told_where_to_go_on_whatever_they_report() {
    let steered = Steered::start("198.51.100.0/24 b\n", "").await;
    let viewer = "198.51.100.7";
    let known = "known=a,b,origin";
    for (kind, report) in [
        ("hls", ""),
        ("hls", "&_HLS_pathway=a&_HLS_throughput=5140000"),
        ("hls", "&_HLS_pathway=%22a%22&_HLS_throughput=%225140000%22"),
        ("hls", "&_HLS_pathway=elsewhere&_HLS_throughput=fast"),
        ("dash", ""),
        ("dash", "&_DASH_pathway=a&_DASH_throughput=1"),
        ("dash", "&_DASH_pathway=%22a,b%22&_DASH_throughput=1,"),
        ("dash", "&_DASH_pathway=%22a%2Cb%22&_DASH_throughput=%22,2%22"),
        ("dash", "&_DASH_pathway=a,,b&_DASH_throughput=1,,2"),
        ("dash", "&_DASH_pathway=%22a&_DASH_throughput=NaN"),
    ] {
        let target = format!("/steer/v1/{kind}/media/film/master?{known}{report}");
        let response = steered.ask(viewer, &target).await;
        assert_eq!(response.header("content-type"), "application/json", "{report}");
        let told: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((&told["VERSION"], &told["TTL"]), (&json!(1), &json!(300)), "{report}");
        assert_eq!(told["PATHWAY-PRIORITY"], json!(["b", "a", "origin"]), "{report}");
        // As a player that writes all parameters anew asks the next time.
        let uri = told["RELOAD-URI"].as_str().unwrap().replace(',', "%2C");
        let parameter = if kind == "hls" { "_HLS_pathway" } else { "_DASH_pathway" };
        let again = steered.json(viewer, &format!("{uri}&{parameter}=b")).await;
        assert_eq!(again["PATHWAY-PRIORITY"], told["PATHWAY-PRIORITY"], "{report}");
        assert_eq!(again["RELOAD-URI"], told["RELOAD-URI"], "{report}");
    }
    assert_eq!(steered.metric("tidegate_steering_sessions_total").await, 10);
    assert_eq!(steered.metric("tidegate_steering_answers_total{asked=\"dash\"}").await, 12);
    assert_eq!(steered.metric("tidegate_steering_decisions_total{by=\"stays\"}").await, 10);
    assert_eq!(steered.metric("tidegate_steering_flaws_total{flaw=\"session\"}").await, 0);
    assert_eq!(steered.metric("tidegate_steering_flaws_total{flaw=\"unknown\"}").await, 1);

    // In HLS there is none for a port of its own.
    let clones = steered.json(viewer, "/steer/v1/hls/media/m?known=origin&base=origin").await;
    assert_eq!(clones["PATHWAY-PRIORITY"], json!(["b", "origin"]));
    let clones = steered.json(viewer, "/steer/v1/dash/media/m?known=origin&base=origin").await;
    let clone = &clones["PATHWAY-CLONES"][1];
    assert_eq!((&clone["ID"], &clone["BASE-ID"]), (&json!("a"), &json!("origin")));
    assert_eq!(clone["URI-REPLACEMENT"]["HOST"], "a.example:8443");
    steered.process.stop();
}

/// Some players go by a whole URI alone, and resolve no path.
#[tokio::test]
async fn players_are_told_to_ask_again_at_a_whole_uri_unless_a_proxy_asks_for_them() {
    let proxies = "proxies.forwarded = [\"127.0.0.0/8\"]\n";
    for (settings, begins) in [
        (SETTINGS.replace(proxies, ""), format!("http://{HOST}/steer/v1/")),
        (SETTINGS.to_owned(), "/steer/v1/".to_owned()),
    ] {
        let folder = TempDir::new().unwrap();
        let process = Process::start(&configured(folder.path(), &settings));
        let steering = asking(&process, " steering at ").await;
        for kind in ["hls", "dash"] {
            let target = format!("/steer/v1/{kind}/media/m?known=a,b");
            let told: Value =
                serde_json::from_slice(&steering.get(&target).send().await.body).unwrap();
            let uri = told["RELOAD-URI"].as_str().unwrap();
            let rest = uri.strip_prefix(&begins).unwrap_or_else(|| panic!("{uri}"));
            let target = format!("/steer/v1/{rest}");
            let again: Value =
                serde_json::from_slice(&steering.get(&target).send().await.body).unwrap();
            assert_eq!(again["RELOAD-URI"], uri, "the session goes on");
        }
        process.stop();
    }
}

#[tokio::test]
async fn a_reload_ends_the_steering_of_a_site_and_too_much_to_do_only_makes_it_slower() {
    let settings = "[steering]\nanswers = 3\n";
    let folder = TempDir::new().unwrap();
    let more = SETTINGS.replacen("[[sites]]", &format!("{settings}[[sites]]"), 1);
    let path = configured(folder.path(), &more);
    let process = Process::start(&path);
    let steering = asking(&process, " steering at ").await;
    let target = "/steer/v1/dash/news/m?known=a,b";
    let mut ttls = Vec::new();
    for _ in 0..40 {
        let response = steering.get(target).send().await;
        assert_eq!(response.status, 200);
        let told: Value = serde_json::from_slice(&response.body).unwrap();
        ttls.push(told["TTL"].as_u64().unwrap());
    }
    assert!(ttls.contains(&300) && ttls.iter().any(|ttl| *ttl >= 480), "{ttls:?}");

    let off = fs::read_to_string(&path).unwrap().replace("answers = 3", "off = [\"news\"]");
    fs::write(&path, off).unwrap();
    let (code, said) = process.answers(&["reload"]);
    assert!(code == 0 && said.contains("steering.off"), "{said}");
    assert!(!said.contains("needs a restart"), "{said}");
    let response = steering.get(target).send().await;
    assert_eq!((response.status, response.body.len()), (410, 0));
    let response = steering.get("/steer/v1/dash/media/m?known=a,b").send().await;
    assert_eq!(response.status, 200);
    let refused = process.answers(&["status"]);
    assert_eq!(refused.0, 0, "operators are answered elsewhere");
    process.stop();
}

#[tokio::test]
async fn players_ask_over_tls_too_and_go_on_when_another_process_takes_over() {
    let folder = TempDir::new().unwrap();
    let certified = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    fs::write(folder.path().join("secret"), "0123456789abcdef\n").unwrap();
    let more = SETTINGS.replacen(
        "[[sites]]",
        "listeners.steering_tls = [\"127.0.0.1:0\"]\n[steering]\nurl = \"https://s.example\"\n\
         secret_file = \"secret\"\n[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
         [[sites]]",
        1,
    );
    let process = Process::start(&configured(folder.path(), &more));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let address = asking(&process, " steering_tls at ").await.address();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let client = Client::tls(address, HOST, roots.clone(), speaks);
        let response = client.get("/steer/v1/go/media/film/1.m4s").send().await;
        assert_eq!(response.status, 302);
        assert!(response.header("location").starts_with("https://"));
    }
    let client = Client::tls(address, HOST, roots, Speaks::Http1);
    let response = client.get("/steer/v1/hls/media/m?known=a,b").send().await;
    let told: Value = serde_json::from_slice(&response.body).unwrap();
    let uri = told["RELOAD-URI"].as_str().unwrap();
    let target = uri.strip_prefix("https://s.example").unwrap();

    assert_eq!(process.upgrade().0, 0);
    let response = client.get(target).send().await;
    let again: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(again["RELOAD-URI"], uri, "the other one knows the session by the secret");
    process.stop();
}

#[tokio::test]
async fn one_client_has_no_more_connections_than_he_may_and_a_reload_changes_that() {
    let folder = TempDir::new().unwrap();
    let proxies = "proxies.forwarded = [\"127.0.0.0/8\"]";
    let more = SETTINGS.replace(proxies, "limits.client = { connections = 2 }");
    let path = configured(folder.path(), &more);
    let process = Process::start(&path);
    let address = asking(&process, " steering at ").await.address();
    let connected = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let asked = b"GET /steer/v1/go/media/a HTTP/1.1\r\nhost: a\r\n\r\n";
        // One that is closed at once may be so before this.
        let _ = stream.write_all(asked).await;
        let mut start = [0; 12];
        let is_answered = stream.read_exact(&mut start).await.is_ok();
        is_answered.then(|| assert_eq!(&start, b"HTTP/1.1 302")).map(|()| stream)
    };
    let until_refused = async || {
        let mut held = Vec::new();
        while held.len() < 20 {
            match connected().await {
                Some(stream) => held.push(stream),
                None => break,
            }
        }
        held.len()
    };
    // One that is idle for seconds makes room for another.
    let few = until_refused().await;
    assert!((2..5).contains(&few), "{few}");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("connections = 2", "connections = 9")).unwrap();
    let (code, said) = process.answers(&["reload"]);
    assert_eq!(code, 0, "{said}");
    let more = until_refused().await;
    assert!((5..20).contains(&more), "{more}");
    process.stop();
}

#[tokio::test]
async fn commands_tell_of_routes_and_of_steering_from_the_configuration_alone() {
    let folder = TempDir::new().unwrap();
    let more = format!(
        "{SETTINGS}[[routes.files]]\npath = \"prefixes\"\n[[routes.files]]\npath = \"gone\"\n"
    );
    let config = configured(folder.path(), &more);
    let (config, prefixes) = (config.to_str().unwrap(), folder.path().join("prefixes"));
    write(folder.path(), "198.51.100.0/24 b as-path=2\n198.51.0.0/16 a c\n", 0);
    let run = |words: &[&str]| {
        let done = tidegate(&[words, &["--config", config]].concat());
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    };
    let (code, shown, said) = run(&["routes", "show"]);
    assert!(shown.contains("198.51.100.0/24          2        igp         0      b"), "{shown}");
    assert!(shown.contains("\n2 prefixes, ASes and countries, of 1 files; "), "{shown}");
    assert!(code == 1 && said.contains("gone\": cannot be read: No such file"), "{said}");
    fs::write(folder.path().join("gone"), "203.0.113.0/24 a\n").unwrap();
    let (code, shown, _) = run(&["routes", "show", "--box", "c", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["count"]), (0, &json!(1)));
    assert_eq!(shown["routes"][0]["routes"][0]["boxes"], json!(["a", "c"]));

    let (code, shown, _) = run(&["routes", "explain", "198.51.100.7"]);
    assert!(code == 0 && shown.contains("\n198.51.100.0/24\n  b: AS path 2"), "{shown}");
    let (_, shown, _) = run(&["routes", "explain", "192.0.2.1", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["matches"], json!([]));

    let new = folder.path().join("prefixes.new");
    fs::write(&new, "198.51.100.0/24 b as-path=3\n198.51.0.0/16 c a\n10.0.0.0/8 a\n").unwrap();
    let files = [prefixes.to_str().unwrap(), new.to_str().unwrap()];
    let (code, shown, _) = run(&[&["routes", "diff"], &files[..]].concat());
    let expected = "+ 10.0.0.0/8 a as-path=0 med=0\n- 198.51.100.0/24 b as-path=2 med=0\n\
        + 198.51.100.0/24 b as-path=3 med=0\n1 would come, 0 go, 1 change\n";
    assert_eq!((code, &*shown), (0, expected));
    fs::write(&new, "::/0 a\n").unwrap();
    let (code, _, said) = run(&[&["routes", "diff"], &files[..]].concat());
    assert!(code == 1 && said.contains("::/0 is the default route"), "{said}");

    let asked = ["steer", "explain", "--viewer", "198.51.100.7", "--path", "/film/1.m4s"];
    let (code, _, said) = run(&asked);
    assert!(code == 64 && said.contains("--site: media, news"), "{said}");
    let (code, shown, _) = run(&[&asked[..], &["--site", "media"]].concat());
    assert_eq!(code, 0);
    for words in [
        "announced    198.51.100.0/24, 198.51.0.0/16\n",
        "\n1    b  at b\n     up     his network is announced to it (/24)\n",
        "     down   a larger network is announced to it: /16, not /24\n",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let other = ["steer", "explain", "--viewer", "192.0.2.7", "--path", "/a", "--site", "news"];
    let (_, shown, _) = run(&other);
    assert!(shown.contains("\nout  c  at c\n     out    it is for those alone"), "{shown}");
    let (_, shown, _) = run(&[&other[..], &["--json"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["answer"]["left_out"][0]["reasons"][0]["rule"], "not-for-him");
    assert!(shown["notice"].is_null());
    // Beside a control plane others count.
    let more =
        format!("{}[control]\nlisten = [\"127.0.0.1:0\"]\n", fs::read_to_string(config).unwrap());
    fs::write(config, more).unwrap();
    let (_, shown, _) = run(&other);
    assert!(shown.contains("\nnotice: `control` is written, so viewers are sent to"), "{shown}");
}
