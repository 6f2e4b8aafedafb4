//! What an operator asks the binary about a running appliance, and what it answers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
#[cfg(feature = "acme")]
use std::time::Instant;

use tempfile::TempDir;

#[cfg(feature = "acme")]
use crate::support::PATIENCE;
use crate::support::{
    BLOCK, Client, Edge, Ending, HOST, Origin, PIECE, Process, Script, Validators, Verdict,
    configured, has_row, judge, status_of, text, tidegate, until_runs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_a_running_appliance_does_and_that_one_does_not_run() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).start();
    for _ in 0..2 {
        edge.get("/a").send().await;
    }
    let admin = format!("http://{}", edge.admin().address());
    let shown = tidegate(&["status", "--admin", &admin]);
    let words = text(&shown.stdout);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(words.contains(": ready, up "), "{words}");
    assert!(words.contains("sent         128.0 KiB: "), "{words}");
    assert!(words.contains("offload      50.0%; 64.0 KiB from origins in 1 request\n"), "{words}");

    let shown = tidegate(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&status["phase"], &status["requests"]), (&"ready".into(), &2.into()));
    assert!(status["ssd"].is_null(), "there is no ssd tier: {status}");

    edge.drain().await;
    let shown = tidegate(&["status", "--admin", &admin]);
    let line = text(&shown.stderr);
    assert_eq!(shown.status.code(), Some(1));
    assert!(line.ends_with("connection refused; is it running?\n"), "{line}");
    assert_eq!((line.lines().count(), shown.stdout.len()), (1, 0), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_viewers_did_not_get_is_told_by_the_status_and_why_a_body_was_cut_by_the_log() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    // What is left of it cannot be joined to what came.
    let alone = Script::of(4 * PIECE).validators(Validators::None);
    origin.serve("/broken", alone.ending(Ending::CutAt(2 * PIECE)));
    let address = origin.address();
    let site =
        format!("[[sites]]\nname = \"media\"\nhosts = {HOST:?}\norigins = \"http://{address}\"\n");
    let process = Process::start(&configured(folder.path(), &site));
    let viewer = Client::plain(process.http, HOST);
    let (_, before) = process.answers(&["status"]);
    assert!(!before.contains("\n  failed ") && !before.contains("\n  origin "), "{before}");
    let cut = judge(&origin, "/broken", &viewer.get("/broken").send().await);
    assert!(matches!(cut, Verdict::Cut { .. }), "{cut:?}");
    let logged = process.logged_until("cut short: ").await;
    assert!(logged.iter().any(|line| line.contains(" WARN ") && line.contains("cut short: ")));
    origin.refuse_connections().await;
    assert_eq!(viewer.get("/a").send().await.status, 502);
    // A body is counted when its connection has let go of it.
    let told = loop {
        let (_, told) = process.answers(&["status"]);
        if told.contains(", 1 cut short, ") {
            break told;
        }
    };
    assert!(told.contains("\n  failed       1 5xx, 1 cut short, of 2 requests\n"), "{told}");
    let line = format!("\n  origin       media: http://{address} has not answered for ");
    assert!(told.contains(&line), "{told}");
    process.stop();
}

#[tokio::test]
async fn a_congestion_control_that_the_kernel_has_not_is_told_once_and_by_check() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let more = format!(
        "listeners.congestion.http = \"no_such\"\n[[sites]]\nname = \"a\"\nhosts = {HOST:?}\n\
         origins = \"http://{}\"\n",
        origin.address()
    );
    let config = configured(folder.path(), &more);
    let told = "`listeners.congestion.http` is \"no_such\": the kernel has no no_such; ";
    let logged = Process::start(&config).stop();
    let count = logged.iter().filter(|line| line.contains(told)).count();
    assert_eq!(count, 1, "of two workers: {logged:#?}");
    let checked = tidegate(&["check", config.to_str().unwrap()]);
    assert!(checked.status.success() && text(&checked.stdout).contains(told), "{checked:?}");
}

#[cfg(feature = "acme")]
#[tokio::test]
async fn a_certificate_that_is_not_issued_is_told_in_the_status_with_why() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    // Bound and let go: nobody answers there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        "[acme]\nterms = \"agreed\"\ndirectory = \"https://{free}/dir\"\nstate = {:?}\n\
         [[certificates]]\nacme = [\"a.test\", \"b.test\"]\n[[sites]]\nname = \"a\"\n\
         hosts = {HOST:?}\norigins = \"http://{}\"\n",
        folder.path(),
        origin.address()
    );
    let process = Process::start(&configured(folder.path(), &more));
    process.logged_until("certificate for a.test, b.test: the authority cannot be asked").await;
    let admin = format!("http://{}", process.admin);
    // What is told is written down by the next look.
    let asked = Instant::now();
    let told = loop {
        assert!(asked.elapsed() < PATIENCE, "the status does not say why");
        let shown = tidegate(&["status", "--json", "--admin", &admin]);
        let mut status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(status["config"]["orders"].as_array().unwrap().len(), 1, "{status}");
        if !status["config"]["orders"][0]["why"].is_null() {
            break status["config"]["orders"][0].take();
        }
    };
    assert_eq!(told["names"], serde_json::json!(["a.test", "b.test"]));
    assert_eq!(told["is_missing"], true);
    let why = told["why"].as_str().unwrap();
    assert!(why.starts_with("the authority cannot be asked: ") && !why.contains('\n'), "{told}");
    assert!(told["again_at"].as_u64() > told["since"].as_u64(), "{told}");
    let words = text(&tidegate(&["status", "--admin", &admin]).stdout);
    let line = "\n  certificate  a.test, b.test, not issued for ";
    assert!(
        words.contains(line) && words.contains(&format!(": {why}; ordered again in ")),
        "{words}"
    );
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_asked_of_a_viewers_port_is_one_clear_line() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let viewers = edge.client().address().to_string();
    for words in [&["status", "--admin", &viewers][..], &["status", "--admin", &viewers, "--json"]]
    {
        let shown = tidegate(words);
        let line = format!(
            "{viewers} is no admin listener of Tidegate: it answers 421 Misdirected \
             Request; ask where `listeners.admin` says\n"
        );
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(1), line));
        assert_eq!(shown.stdout.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_down_is_one_line_of_the_log_and_one_when_it_is_back() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let address = origin.address().to_string();
    let config = folder.path().join("edge.toml");
    let settings = format!(
        "listeners.http = ['127.0.0.1:0']\nlisteners.admin = ['127.0.0.1:0']\nlog.access = 'off'\n\
         memory.ram = '64 MiB'\nfill.retries = 1\n[[sites]]\nname = 'media'\nhosts = [{HOST:?}]\n\
         origins = ['http://{address}']\n"
    );
    fs::write(&config, settings).unwrap();
    let edge = Process::start(&config);
    let client = Client::plain(edge.http, HOST);
    origin.refuse_connections().await;
    for number in 0..20 {
        assert_eq!(client.get(&format!("/{number}")).send().await.status, 502);
    }
    origin.accept_connections().await;
    for number in 0..20 {
        origin.serve(&format!("/{number}"), Script::of(PIECE));
        assert_eq!(client.get(&format!("/{number}")).send().await.status, 200);
    }
    let logged = edge.logged_until("answers again").await;
    let about: Vec<_> = logged.iter().filter(|line| line.contains(&address)).collect();
    assert_eq!(about.len(), 2, "{logged:#?}");
    assert!(about[0].contains("WARN") && about[0].contains("cannot be reached: "), "{about:?}");
    assert!(about[1].contains("INFO") && about[1].contains("in vain 40 times in "), "{about:?}");
    assert!(!logged.iter().any(|line| line.contains("not answered")), "{logged:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_of_each_volume_and_why_one_is_ill() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let sick = folder.path().join("sick");
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .volume(folder.path(), "well")
        .volume_with(&format!(
            "path = {sick:?}\nsize = \"256 MiB\"\nwrites_per_day = \"1x\"\nsimulate = \"\""
        ))
        .start();
    let (words, volumes) = status_of(&edge);
    assert!(has_row(&words, "well", "online") && has_row(&words, "sick", "online"), "{words}");
    assert_eq!((&volumes[1]["name"], &volumes[1]["state"]), (&"sick".into(), &"online".into()));
    assert!(volumes[1]["why"].is_null(), "{volumes}");

    edge.falls_ill("sick", "fail-writes=100%");
    let ill = ["volume=\"sick\"", "state=\"offline\""];
    for number in 0.. {
        if edge.metric("tidegate_ssd_state", &ill).await == 1.0 {
            break;
        }
        assert!(number < 1_000, "it is written to all the while");
        origin.serve(&format!("/{number}"), Script::of(BLOCK));
        assert_eq!(edge.get(&format!("/{number}")).send().await.status, 200);
    }

    let (words, volumes) = status_of(&edge);
    // Whichever it was that was to be written first.
    let why = " could not be written: the device failed: Input/output error";
    assert!(has_row(&words, "well", "online") && has_row(&words, "sick", "offline"), "{words}");
    let told = words.lines().find(|line| line.starts_with("  sick: offline: "));
    assert!(told.is_some_and(|line| line.contains(why)), "{words}");
    assert!(!words.contains("\n  well: "), "{words}");
    let [well, sick] = [0, 1].map(|n| &volumes[n]);
    assert_eq!((&well["name"], &well["state"]), (&"well".into(), &"online".into()));
    assert_eq!((&sick["name"], &sick["state"]), (&"sick".into(), &"offline".into()));
    assert!(well["why"].is_null() && sick["why"].as_str().unwrap().contains(why), "{volumes}");
}

/// Changes the first bytes of every piece of `bodies` that lies in the volume; how many.
fn spoil_pieces(volume: &Path, bodies: &[Vec<u8>]) -> usize {
    let pieces = bodies.iter().flat_map(|body| body.chunks(PIECE as usize));
    let starts: HashSet<&[u8]> = pieces.map(|piece| &piece[..16]).collect();
    let held = fs::read(volume).unwrap();
    let file = File::options().write(true).open(volume).unwrap();
    let granules = held.chunks(4096).enumerate();
    let found = granules.filter(|(_, granule)| starts.contains(&granule[..16]));
    found.map(|(n, _)| file.write_all_at(&[b'X'; 16], n as u64 * 4096).unwrap()).count()
}

/// What is remembered of the volume at `name` is found by a configuration, whether or not the rest
/// of that is right, and where nothing can be, that is said. The configuration.
fn the_state_file_is_found(folder: &Path, name: &str) -> String {
    let config = folder.join("tidegate.toml");
    fs::write(&config, "ssd = { state = 'state.json' }\nlisteners.admin = 'wrong'\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let inspected = tidegate(&["volume", "inspect", name, "--config", &config]);
    let told = text(&inspected.stdout);
    assert!(told.contains("  health       read-only since "), "{told}{}", text(&inspected.stderr));
    let nowhere = folder.join("nowhere.json");
    let nowhere = nowhere.to_str().unwrap();
    let told = text(&tidegate(&["volume", "inspect", name, "--state", nowhere]).stdout);
    assert!(told.contains(&format!("nothing remembered: there is no {nowhere} ")), "{told}");
    let forgiven = tidegate(&["volume", "forgive", name, "--state", nowhere]);
    let told = text(&forgiven.stderr);
    assert_eq!(forgiven.status.code(), Some(1), "{told}");
    assert!(told.starts_with(&format!("there is no {nowhere}, where ")), "{told}");
    config
}

/// Ill when it is opened, and forgiven at once.
async fn forgiven_just_after(start: &dyn Fn() -> Edge, volume: &str, (state, ill): (&str, &[u8])) {
    fs::write(state, ill).unwrap();
    let mut edge = start();
    let forgiven = tidegate(&["volume", "forgive", volume, "--state", state]);
    assert!(forgiven.status.success(), "{}", text(&forgiven.stderr));
    edge.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_failed_is_ill_after_a_restart_until_it_is_forgiven() {
    const COUNT: usize = 20;
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let (path, state) = (folder.path().join("disk"), folder.path().join("state.json"));
    let (name, state) = (path.to_str().unwrap(), state.to_str().unwrap());
    let start = || {
        let edge = Edge::in_front_of(&origin).setting("memory.total", "256 MiB");
        let edge = edge.setting("ssd.admission", "all").setting("ssd.state", state);
        edge.volume(folder.path(), "disk").start()
    };
    let keep = async |edge: &Edge, path: &str| {
        let before = edge.metric("tidegate_ssd_index_entries", &[]).await;
        let response = edge.get(path).send().await;
        let kept = |value| value >= before + 2.0;
        edge.until_metric("tidegate_ssd_index_entries", &[], kept).await;
        response.body.to_vec()
    };

    let mut edge = start();
    let paths: Vec<String> = (0..COUNT).map(|number| format!("/{number}")).collect();
    let mut bodies = Vec::new();
    for path in &paths {
        // All of them in the region that is open: another would be taken out of use.
        origin.serve(path, Script::of(2 * PIECE));
        bodies.push(keep(&edge, path).await);
    }
    assert_eq!(spoil_pieces(&path, &bodies), COUNT * 2, "each piece of each");
    let ill = ["volume=\"disk\"", "state=\"read-only\""];
    let mut rounds = 0;
    while edge.metric("tidegate_ssd_state", &ill).await == 0.0 {
        // Some stay in ram.
        edge.evict(100);
        for (path, body) in paths.iter().zip(&bodies) {
            assert!(edge.get(path).send().await.body[..] == body[..], "{path}");
        }
        rounds += 1;
        assert!(rounds < 20, "it is still taken for well");
    }
    let why = "read-only: 8 errors in 10 minutes, the last one: ";
    let (words, _) = status_of(&edge);
    assert!(words.contains(&format!("\n  disk: {why}")), "{words}");
    edge.drain().await;

    let (left, remembered) = (fs::read(&path).unwrap(), fs::read(state).unwrap());
    let mut edge = start();
    let (words, volumes) = status_of(&edge);
    let since = words.lines().find(|line| line.starts_with("  disk: read-only: since "));
    assert!(since.is_some_and(|line| line.contains(" GMT: 8 errors in 10 ")), "{words}");
    assert_eq!(&volumes[0]["state"], "read-only", "{volumes}");
    edge.drain().await;
    assert!(fs::read(&path).unwrap() == left, "it was written");
    assert_eq!(text(&fs::read(state).unwrap()), text(&remembered), "first reason, first time");

    let config = the_state_file_is_found(folder.path(), name);
    let forgiven = tidegate(&["volume", "forgive", name, "--config", &config]);
    let told = text(&forgiven.stdout);
    assert!(forgiven.status.success(), "{}", text(&forgiven.stderr));
    assert!(told.ends_with(" is taken for well from the next start on\n"), "{told}");
    forgiven_just_after(&start, name, (state, &remembered)).await;

    let edge = start();
    let (words, volumes) = status_of(&edge);
    assert!(has_row(&words, "disk", "online") && volumes[0]["why"].is_null(), "{words}");
    origin.serve("/later", Script::of(BLOCK));
    let body = keep(&edge, "/later").await;
    edge.evict(100);
    origin.forget_requests();
    assert!(edge.get("/later").send().await.body[..] == body[..]);
    assert_eq!(origin.all_requests().len(), 0, "it is read from the volume");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_what_is_known_of_an_object_and_what_would_become_of_a_request() {
    let script = Script::of(3 * BLOCK).cache_control("max-age=600").varying_on("x-a");
    let origin = Origin::serving("/film/1.m4s", script);
    let mut edge = Edge::in_front_of(&origin).start();
    let admin = format!("http://{}", edge.admin().address());
    let url = format!("http://{HOST}/film/1.m4s");
    let explain = |words: &[&str]| tidegate(&[&["explain", "--admin", &admin], words].concat());
    let told = |words: &[&str]| text(&explain(words).stdout);
    let nothing = told(&[&url]);
    assert!(nothing.contains("  answer        from the origin\n"), "{nothing}");
    assert!(nothing.contains("  because       nothing is stored\n"), "{nothing}");

    edge.get("/film/1.m4s").header("x-a", "1").range(0..PIECE).send().await;
    until_runs(&edge.admin(), |runs| runs.is_empty()).await;
    let held = told(&[&url, "--field", "X-A: 1", "--field", "Range: bytes=0-9"]);
    for line in [
        "  site          media\n",
        "  key           /film/1.m4s\n",
        "  answer        206, from what is stored\n",
        "  because       it is fresh: not as old as its lifetime (RFC 9111 section 4.2)\n",
        "  variant 1, the one for this request\n",
        "    chosen by   x-a:1\n",
        "    lifetime    10m 0s: its max-age, before Expires (RFC 9111 section 5.2.2.1)\n",
        "    ram         #",
        " of 48 pieces\n",
        "    ssd         nothing\n",
    ] {
        assert!(held.contains(line), "{line:?} is not in\n{held}");
    }
    let other = told(&[&url, "--field", "X-A: 2"]);
    assert!(other.contains("chosen by other fields") && other.contains("  variant 1\n"), "{other}");
    let json = explain(&[&url, "--field", "X-A: 1", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["answer"]["status"], 200);
    assert_eq!(json["variants"][0]["length_bytes"], 3 * BLOCK);

    for (words, code, line) in [
        (
            ["http://elsewhere/a"],
            1,
            "http://elsewhere/a: it would be refused: no site has the host",
        ),
        (["/film/1.m4s"], 64, "\"/film/1.m4s\" is no URL; write one such as https://"),
    ] {
        let refused = explain(&words);
        let said = text(&refused.stderr);
        assert_eq!((refused.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.starts_with(line), "{said}");
    }
    edge.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_of_a_long_object_the_pieces_that_are_asked_for() {
    const LENGTH: u64 = 100 * BLOCK;
    let origin = Origin::serving("/long", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    let first = 80 * BLOCK;
    let seek = edge.get("/long").range(first..first + PIECE);
    assert_eq!(seek.send().await.status, 206);
    until_runs(&edge.admin(), |runs| runs.is_empty()).await;
    let admin = format!("http://{}", edge.admin().address());
    let url = format!("http://{HOST}/long");
    let explain = |words: &[&str]| {
        text(&tidegate(&[&["explain", &url, "--admin", &admin], words].concat()).stdout)
    };
    let range = format!("Range: bytes={first}-{}", first + PIECE - 1);
    // As many as there are, up to its end.
    let shown = " from byte 37748736 on, of 1600 pieces\n";
    let sought = explain(&["--field", &range]);
    assert!(sought.contains("    ram         ....") && sought.contains(shown), "{sought}");
    let whole = explain(&[]);
    let none = "    ram         nothing of the first 1024 of 1600 pieces\n";
    assert!(whole.contains(none), "{whole}");
}

/// What a process says of one that serves `origin`.
async fn readiness(process: &Process) -> u16 {
    Client::plain(process.admin, "admin.test").get("/health/ready").send().await.status
}

#[tokio::test]
async fn a_process_is_ready_when_an_origin_of_each_site_is_there_or_has_been_waited_for() {
    let folder = TempDir::new().unwrap();
    let (there, later) = (Origin::serving("/a", Script::of(PIECE)), Origin::start());
    let site = |name: &str, origin: &Origin| {
        let address = origin.address();
        format!(
            "[[sites]]\nname = {name:?}\nhosts = [\"{name}.test\"]\n\
             origins = [\"http://{address}\"]\n"
        )
    };
    let config = configured(folder.path(), &(site("there", &there) + &site("later", &later)));
    later.refuse_connections().await;
    let process = Process::start(&config);
    assert_eq!(readiness(&process).await, 503);
    let viewer = Client::plain(process.http, "there.test");
    assert_eq!(viewer.get("/a").send().await.status, 200, "who comes is served");
    assert_eq!(there.all_requests().len(), 1, "nothing else was asked for");
    later.accept_connections().await;
    while readiness(&process).await != 200 {}
    let logged = process.stop();
    assert!(!logged.iter().any(|line| line.contains("has answered yet")), "{logged:#?}");

    later.refuse_connections().await;
    let process = Process::start(&config);
    let logged = process.logged_until("ready, but no origin of site later has answered yet").await;
    assert!(!logged.iter().any(|line| line.contains("site there")), "{logged:#?}");
    while readiness(&process).await != 200 {}
}
