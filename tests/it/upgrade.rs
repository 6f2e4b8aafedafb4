//! Another process takes over, and nobody notices: no connection is refused, no body cut, nothing
//! that is kept is asked for again; and where it fails, nothing has changed.
//!
//! A few rounds in the usual run. As many as are asked for, of what is shipped, for viewers whose
//! bodies take up to two seconds: `TIDEGATE_ROUNDS=200 TIDEGATE_VIEWERS=2000
//! TIDEGATE_PACE='1 Mbit/s' cargo nextest run --release --test it
//! upgrade::upgrades_and_reloads_under_load_fail_nobody`

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::ioctl_fionread;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tidegate::config::available_bytes;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    BLOCK, Client, Ending, HOST, HeadFault, Origin, PATIENCE, PIECE, Process, Response, Script,
    Verdict, configured, follow, judge, keeping, mixed, text, tidegate, until_runs,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };

/// A folder with a copy of ours that may be replaced, and a configuration.
fn installed(origin: &Origin) -> (TempDir, PathBuf, PathBuf) {
    let folder = TempDir::new().unwrap();
    let binary = folder.path().join("tidegate");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &binary).unwrap();
    let site = format!("origins = [\"http://{}\"]", origin.address());
    let config = keeping(folder.path(), "256 MiB", &site);
    (folder, binary, config)
}

/// Asks for an object, all of which comes.
async fn gets(viewer: &Client, origin: &Origin, path: &str) {
    assert_eq!(judge(origin, path, &viewer.get(path).send().await), WHOLE, "{path}");
}

/// Changes an object, so that what is kept of it has ended.
async fn post(viewer: &Client, path: &str) {
    let changed = viewer.request(Method::POST, path).send().await;
    assert!(changed.status < 300, "{}", changed.status);
}

/// Begins to change an object, which its origin answers when it is released; the status then.
async fn post_held(process: &Process, origin: &Origin, path: &'static str) -> JoinHandle<u16> {
    origin.serve_once(path, Script::of(PIECE).head(HeadFault::Held));
    let (viewer, before) = (Client::plain(process.http, HOST), origin.requests(path).len());
    let changing =
        tokio::spawn(async move { viewer.request(Method::POST, path).send().await.status });
    origin.until("a change begins", |origin| origin.requests(path).len() > before).await;
    changing
}

/// Has an appliance do something, over a connection of its own.
async fn order(admin: &Client, path: &str) -> Response {
    let request = admin.request(Method::POST, path).header("content-type", "application/json");
    request.send().await
}

/// Puts another program in the place of a binary that runs.
fn replace(binary: &Path, script: &str) {
    let new = binary.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, binary).unwrap();
}

/// The same, by a copy of ours.
fn replace_by_ours(binary: &Path) {
    let ours = binary.with_extension("ours");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &ours).unwrap();
    fs::rename(ours, binary).unwrap();
}

/// Waits until a file is there.
async fn until_there(file: &Path) {
    let asked = Instant::now();
    while !file.exists() {
        assert!(asked.elapsed() < PATIENCE, "{file:?} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets viewers change what there is.
fn let_post(config: &Path) {
    let rule = "\n[[sites.rules]]\npath = \"*\"\nmethods = [\"POST\"]\n";
    fs::write(config, fs::read_to_string(config).unwrap() + rule).unwrap();
}

/// Hears of the sockets.
const HEARS: &str = "while :; do said=$(dd bs=262144 count=1 2>&-)\n\
                     case $said in *'\"listeners\"'*) break;; esac; done\n";

/// A process that hears of the sockets, wants the volumes, and does `then` when it has them.
fn given_volumes(then: &str) -> String {
    format!(
        "{HEARS}printf '{{\"say\":\"checked\"}}' >&0\n\
         dd bs=262144 count=1 >&- 2>&-\n{then}"
    )
}

/// Has one follow that has the volumes then, and ends when there is the file that this tells of.
async fn given_to_who_fails(folder: &TempDir, binary: &Path, process: &Process) -> PathBuf {
    let [given, go] = ["given", "go"].map(|name| folder.path().join(name));
    let waits = format!(": >{given:?}; while [ ! -e {go:?} ]; do sleep 0.01; done\nexit 7");
    replace(binary, &given_volumes(&waits));
    process.signal(Signal::USR2);
    until_there(&given).await;
    go
}

fn status(process: &Process) -> serde_json::Value {
    let admin = format!("http://{}", process.admin);
    let shown = tidegate(&["status", "--json", "--admin", &admin]);
    serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{}", text(&shown.stderr)))
}

#[tokio::test]
async fn another_process_takes_over_and_nobody_notices() {
    let origin = Origin::serving("/kept", Script::of(3 * BLOCK));
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    origin.serve("/held", held);
    let (_folder, binary, config) = installed(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/kept").await;
    process.until_entries(4).await;
    let kept = viewer.get("/kept").range(0..9).on(viewer.connect().await.unwrap()).await.unwrap();
    let kept = kept.finish_and_keep().await.unwrap().1.unwrap();
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();

    assert_eq!(process.upgrade().0, 0);
    // A new process, by its count of requests; the volume is there, and takes what is written.
    let now = status(&process);
    assert_eq!((&now["phase"], &now["requests"]), (&json!("ready"), &json!(0)));
    assert_eq!(now["ssd"]["volumes"][0]["state"], "online");
    let response = viewer.get("/kept").send().await;
    assert_eq!(judge(&origin, "/kept", &response), WHOLE);
    assert!(response.header("cache-status").starts_with("tidegate; hit"));
    assert_eq!(origin.requests("/kept").len(), 1);

    // Who was connected is answered there, once, and told to come again.
    let response = viewer.get("/kept").on(kept).await.unwrap();
    assert_eq!(response.header("connection"), "close");
    let response = response.finish().await.unwrap();
    assert_eq!(judge(&origin, "/kept", &response), WHOLE);
    assert_eq!(origin.requests("/kept").len(), 1, "what was handed over is read on");
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains("the process before this one still serves"), "{said}");
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    drop(under_way);
    process.until_left().await;

    assert_eq!(process.upgrade().0, 0, "and again, from the one that has taken over");
    gets(&viewer, &origin, "/kept").await;
    assert_eq!(origin.requests("/kept").len(), 1);
    let logged = process.stop();
    let errors = logged.iter().filter(|line| line.contains(" ERROR "));
    let expected = |line: &String| line.contains("not upgraded: the process before this one");
    assert_eq!(errors.map(expected).collect::<Vec<_>>(), [true], "{logged:#?}");
}

/// Waits until the status says so of the process before.
async fn until_before_is(process: &Process, expected: serde_json::Value) {
    let asked = Instant::now();
    loop {
        let before = &status(process)["predecessor"];
        if *before == expected {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "{before}, not {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_status_tells_of_a_process_that_leaves_until_it_is_gone() {
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    let origin = Origin::serving("/held", held);
    let (_folder, binary, config) = installed(&origin);
    let mut process = Process::start_from(&binary, &config);
    assert_eq!(status(&process)["predecessor"], json!(null));
    let viewer = Client::plain(process.http, HOST);
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(process.upgrade().0, 0);
    until_before_is(&process, json!({ "connections": 1 })).await;
    let admin = format!("http://{}", process.admin);
    let shown = text(&tidegate(&["status", "--admin", &admin]).stdout);
    assert!(shown.contains("taken over from is leaving, 1 connection left"), "{shown}");
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    drop(under_way);
    process.until_left().await;
    until_before_is(&process, json!(null)).await;
}

#[tokio::test]
async fn who_is_told_of_an_upgrade_asks_the_process_that_follows() {
    let (_folder, binary, config) = installed(&Origin::start());
    let mut process = Process::start_from(&binary, &config);
    let admin = Client::plain(process.admin, "127.0.0.1");
    for round in 0..8 {
        let asked = Instant::now();
        while order(&admin, "/upgrade").await.status != 200 {
            assert!(round > 0 && asked.elapsed() < PATIENCE, "round {round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..4 {
            let reloaded = order(&admin, "/reload").await;
            assert_eq!(reloaded.status, 200, "round {round}: {}", text(&reloaded.body));
        }
    }
    // The one that serves is told to stop, and not the one before it.
    process.logged_times(" serves, version ", 8).await;
    process.until_left().await;
    process.stop();
}

#[tokio::test]
async fn a_process_that_does_not_take_over_changes_nothing() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (_folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let right = fs::read_to_string(&config).unwrap();

    fs::write(&config, right.replace("hosts", "hots")).unwrap();
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains("hots"), "{said}");
    fs::write(&config, &right).unwrap();
    replace(&binary, "exit 3");
    let (code, said) = process.upgrade();
    let it = format!("not upgraded, and served as before: the new process ({})", binary.display());
    assert_eq!((code, said), (1, format!("{it} ended with exit code 3\n")));
    fs::remove_file(&binary).unwrap();
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.starts_with(&format!("{it} cannot be started: No such")), "{said}");

    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    let logged = process.stop();
    let faults = logged.iter().filter(|line| line.contains("ERROR not upgraded: "));
    let faults = faults.filter(|line| line.contains("hots`") || line.contains("hosts`")).count();
    assert_eq!(faults, 2, "a line for each fault: {logged:#?}");
    for line in &logged {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line:?} in {logged:#?}");
    }
}

#[tokio::test]
async fn what_memory_does_not_bear_is_refused_before_anything_is_handed_over() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (_folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let right = fs::read_to_string(&config).unwrap();
    let more = right.replace("ram = \"80 MiB\"", "ram = \"100 TiB\"");
    fs::write(&config, more.replace("total = \"256 MiB\"", "total = \"200 TiB\"")).unwrap();
    let (code, said) = process.upgrade();
    let refused = "not upgraded, and served as before: tidegate: two processes at once would need \
                   100.0 TiB of memory more, and ";
    assert!(code == 1 && said.starts_with(refused) && said.lines().count() == 1, "{said}");
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    let response = Client::plain(process.http, HOST).get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &response), WHOLE);
    process.stop();
}

#[tokio::test]
async fn what_cannot_be_bound_or_trusted_is_found_before_anything_is_handed_over() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let right = fs::read_to_string(&config).unwrap();
    let listeners = "listeners.http = [\"127.0.0.1:0\"]\nlisteners.admin = [\"127.0.0.1:0\"]";
    let right = right.replace(listeners, &listeners.replace("127.0.0.1", "0.0.0.0"));
    fs::write(&config, &right).unwrap();
    let nowhere = folder.path().join("nowhere");
    let mut command = Command::new(&binary);
    command.args(["serve", "--config"]).arg(&config);
    command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere);
    let process = Process::start_by(command);

    let (http, admin) = (process.http, process.admin.port());
    let wanted = |http: String, admin: String| {
        let now = format!("listeners.http = {http:?}\nlisteners.admin = {admin:?}");
        right.replace(&listeners.replace("127.0.0.1", "0.0.0.0"), &now)
    };
    let shipped = "[log.ship]\nurl = \"https://127.0.0.1:1/\"\nfolder =";
    for (written, expected) in [
        (
            wanted(http.to_string(), format!("127.0.0.1:{admin}")),
            format!("`listeners.admin` 127.0.0.1:{admin} cannot be had while the process before"),
        ),
        (
            wanted(format!("0.0.0.0:{admin}"), http.to_string()),
            format!("while the process before this one listens at 0.0.0.0:{admin} for admin: "),
        ),
        (right.replace("http://127.0.0.1", "https://127.0.0.1"), "TLS cannot be set up".to_owned()),
        (
            format!("{right}\n{shipped} {:?}\n", folder.path().join("spool")),
            "TLS cannot be set up".to_owned(),
        ),
    ] {
        fs::write(&config, written).unwrap();
        let (code, said) = process.upgrade();
        assert!(code == 1 && said.contains(&expected), "{said}");
        assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online", "{said}");
    }
    gets(&Client::plain(http, HOST), &origin, "/a").await;
    let logged = process.stop();
    assert!(!logged.iter().any(|line| line.contains("handed over")), "{logged:#?}");
}

#[tokio::test]
async fn a_volume_that_is_not_handed_over_in_time_is_left_out_and_keeps_no_other_one_back() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let one = fs::read_to_string(&config).unwrap();
    let late = folder.path().join("late");
    let volume = format!("[[ssd.volumes]]\npath = {late:?}\nsize = \"256 MiB\"\n\n[[sites]]");
    let two = one.replace("[[sites]]", &volume);
    fs::write(&config, &two).unwrap();
    Process::start_from(&binary, &config).stop();
    fs::write(&config, &one).unwrap();
    let mut process = Process::start_from(&binary, &config);
    // As a process does whose disk has not answered yet.
    let locked = fs::File::open(&late).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();

    fs::write(&config, &two).unwrap();
    let (code, said) = process.upgrade();
    assert_eq!(code, 0, "{said}");
    process.until_left().await;
    let volumes = &status(&process)["ssd"]["volumes"];
    let states = [0, 1].map(|volume| volumes[volume]["state"].clone());
    assert_eq!(states, ["online", "offline"], "{volumes}");
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    let logged = process.stop();
    assert!(logged.iter().any(|line| line.contains("was not handed over in time")), "{logged:#?}");
}

#[tokio::test]
async fn who_follows_serves_only_when_volumes_that_are_slow_are_online() {
    let (_folder, binary, config) = installed(&Origin::start());
    let mut process = Process::start_from(&binary, &config);
    let size = "size = \"256 MiB\"\n";
    let slow = fs::read_to_string(&config).unwrap();
    let slow = slow.replace(size, &format!("{size}simulate = \"stall-reads=2s\"\n"));
    fs::write(&config, slow).unwrap();
    let (code, said) = process.upgrade();
    assert_eq!(code, 0, "{said}");
    let volume = &status(&process)["ssd"]["volumes"][0];
    assert_eq!(volume["state"], "online", "{volume}");
    process.until_left().await;
    process.stop();
}

#[tokio::test]
async fn who_gets_the_volumes_back_is_not_refused_for_want_of_memory() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (_folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let right = fs::read_to_string(&config).unwrap();
    let more = available_bytes().unwrap() / BLOCK * 2;
    let more = right.replace("ram = \"80 MiB\"", &format!("ram = \"{more} MiB\""));
    fs::write(&config, more.replace("total = \"256 MiB\"", "total = \"200 TiB\"")).unwrap();
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains("two processes at once would need"), "{said}");
    replace(&binary, &given_volumes("exit 7"));
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains(") ended with exit code 7"), "{said}");
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    process.stop();
}

#[tokio::test]
async fn what_a_failed_process_leaves_behind_stops_no_other_one_from_taking_over() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (_folder, binary, config) = installed(&origin);
    let mut process = Process::start_from(&binary, &config);
    // A child of its own holds the channel open until its other end is shut.
    let holds = "exec 3<&0\n\
                 sleep 5 >/dev/null 2>&1 &\n\
                 printf '{\"say\":\"failed\",\"why\":\"not today\"}' >&0\n\
                 exit 1";
    replace(&binary, &format!("{HEARS}{holds}"));
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains("not today"), "{said}");
    replace_by_ours(&binary);
    assert_eq!(process.upgrade().0, 0);
    process.until_left().await;
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
}

/// Does what a command says, which must succeed.
fn command(process: &Process, words: &[&str]) {
    let (code, said) = process.answers(words);
    assert_eq!(code, 0, "{words:?}: {said}");
}

#[tokio::test]
async fn volumes_and_purges_are_taken_back_from_a_process_that_fails_with_them() {
    let origin = Origin::start();
    for path in ["/a", "/purged", "/later"] {
        origin.serve(path, Script::of(BLOCK));
    }
    let (folder, binary, config) = installed(&origin);
    let token = &with_token(&folder, &config);
    let mut process = Process::start_from(&binary, &config);
    let own = process.id();
    let viewer = Client::plain(process.http, HOST);
    for path in ["/a", "/purged"] {
        gets(&viewer, &origin, path).await;
    }
    process.until_entries(4).await;
    // Hears of the sockets, wants the volumes, gets them, and ends.
    replace(&binary, &given_volumes("exit 7"));
    for _ in 0..2 {
        let (code, said) = process.answers(&["upgrade", "--token-file", token]);
        assert!(code == 1 && said.contains(") ended with exit code 7"), "{said}");
        assert!(!said.contains("restart the service"), "{said}");
        assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    }
    assert_eq!(process.id(), own, "nobody follows");
    // What is on the volume is known, and more is written to it; purges last.
    let before = process.entries().await;
    gets(&viewer, &origin, "/later").await;
    process.until_entries(before + 2).await;
    let purged = format!("http://{HOST}/purged");
    command(&process, &["purge", "--token-file", token, &purged]);

    replace_by_ours(&binary);
    command(&process, &["upgrade", "--token-file", token]);
    process.until_left().await;
    assert_ne!(process.id(), own);
    let bodies = |path: &str| origin.requests(path).len();
    let before = ["/a", "/purged", "/later"].map(bodies);
    for path in ["/a", "/purged", "/later"] {
        gets(&viewer, &origin, path).await;
    }
    let asked = ["/a", "/purged", "/later"].map(bodies);
    let asked: Vec<_> = asked.iter().zip(before).map(|(after, before)| after - before).collect();
    // Of what was there when they were away its origin is asked once, whether it has changed.
    assert_eq!(asked, [1, 1, 0]);
    let answered = |path: &str| origin.requests(path).pop().unwrap().answered().map(|it| it.0);
    assert_eq!(["/a", "/purged"].map(answered), [Some(304), Some(200)]);
    process.stop();
}

#[tokio::test]
async fn what_another_process_wrote_and_purged_before_it_failed_is_known_when_it_is_taken_back() {
    let origin = Origin::start();
    for path in ["/kept", "/purged", "/new"] {
        origin.serve(path, Script::of(BLOCK));
    }
    let (folder, binary, config) = installed(&origin);
    let token = with_token(&folder, &config);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    for path in ["/kept", "/purged"] {
        gets(&viewer, &origin, path).await;
    }
    process.until_entries(4).await;
    let go = given_to_who_fails(&folder, &binary, &process).await;
    // As who was to follow might, before it fails.
    let other = Process::start(&config);
    let its_viewer = Client::plain(other.http, HOST);
    gets(&its_viewer, &origin, "/kept").await;
    gets(&its_viewer, &origin, "/new").await;
    other.until_entries(6).await;
    let url = |path: &str| format!("http://{HOST}{path}");
    command(&other, &["purge", "--token-file", &token, &url("/purged")]);
    other.kill();
    fs::write(&go, "").unwrap();
    process.logged_until(") ended with exit code 7").await;
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");

    let asked = async |paths: [&str; 3]| {
        origin.forget_requests();
        let viewer = Client::plain(process.http, HOST);
        for path in paths {
            gets(&viewer, &origin, path).await;
        }
        let answered = |path: &str| origin.requests(path).pop().and_then(|one| one.answered());
        paths.map(|path| answered(path).map(|it| it.0))
    };
    // What is in ram is no older than before; of what another process wrote its origin is asked.
    assert_eq!(asked(["/kept", "/new", "/purged"]).await, [None, Some(304), Some(200)]);
    command(&process, &["purge", "--token-file", &token, &url("/new")]);
    assert_eq!(asked(["/kept", "/new", "/purged"]).await, [None, Some(200), None]);
    process.stop();
}

#[tokio::test]
async fn a_volume_that_does_not_come_back_is_told_of_and_is_well_at_the_next_start() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    process.until_entries(2).await;
    let go = given_to_who_fails(&folder, &binary, &process).await;
    let locked = fs::File::open(folder.path().join("volume")).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    fs::write(&go, "").unwrap();
    let told = "ended with exit code 7; and nothing is written to volume volume: restart the \
                service if it stays so";
    process.logged_until(told).await;
    let volume = status(&process)["ssd"]["volumes"][0].take();
    assert_eq!(volume["state"], "read-only");
    let why = volume["why"].as_str().unwrap();
    assert!(why.starts_with("left out until the next start: "), "{why}");
    gets(&viewer, &origin, "/a").await;
    process.stop();

    drop(locked);
    let process = Process::start(&config);
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online", "it has not failed");
    process.stop();
}

#[tokio::test]
async fn a_volume_that_who_had_it_frees_late_comes_back() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let go = given_to_who_fails(&folder, &binary, &process).await;
    // As the kernel does while it ends a process that was killed.
    let locked = fs::File::open(folder.path().join("volume")).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    fs::write(&go, "").unwrap();
    process.logged_until("volume volume is not free yet").await;
    drop(locked);
    let logged = process.logged_until(") ended with exit code 7").await;
    assert!(!logged.iter().any(|line| line.contains("nothing is written")), "{logged:#?}");
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    process.until_entries(2).await;
    process.stop();
}

/// Whether a process has a file open.
fn has_open(process: i32, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    open.map(|one| one.path()).any(|one| fs::read_link(one).is_ok_and(|open| open == file))
}

/// Wants a token of operators; the file that has it.
fn with_token(folder: &TempDir, config: &Path) -> String {
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let admin = format!("\n[admin]\ntoken_file = {token:?}\n");
    fs::write(config, fs::read_to_string(config).unwrap() + &admin).unwrap();
    token.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_journal_that_does_not_answer_holds_up_no_viewer_of_who_takes_its_volumes_back() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let token = with_token(&folder, &config);
    // The journal cannot be written yet: it is to be written anew with the first purge.
    let new = folder.path().join(".state.purges.new");
    fs::create_dir(&new).unwrap();
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    process.until_entries(2).await;
    // As a disk that hangs: what is written to it waits until it is read.
    fs::remove_dir(&new).unwrap();
    assert!(Command::new("mkfifo").arg(&new).status().unwrap().success());
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let mut disk = fs::File::from(open(&new, flags, Mode::empty()).unwrap());
    while disk.write(&[0; 4 << 10]).is_ok() {}
    let mut purge = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    purge.args(["purge", "--admin", &format!("http://{}", process.admin), "--token-file", &token]);
    let mut purge = purge.arg(format!("http://{HOST}/none")).stderr(Stdio::null()).spawn().unwrap();
    let asked = Instant::now();
    while !has_open(process.id(), &new) {
        assert!(asked.elapsed() < PATIENCE, "nothing is written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replace(&binary, &given_volumes("exit 7"));
    process.signal(Signal::USR2);
    let told = "the journal of purges does not end; and nothing can be purged: the disk of \
                `ssd.state` does not answer: restart the service if it stays so";
    process.logged_until(told).await;
    gets(&viewer, &origin, "/a").await;
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    assert!(!purge.wait().unwrap().success());

    // It answers again: who follows can be given the journal.
    fs::remove_file(&new).unwrap();
    drop(disk);
    replace_by_ours(&binary);
    command(&process, &["upgrade", "--token-file", &token]);
    process.until_left().await;
    command(&process, &["purge", "--token-file", &token, &format!("http://{HOST}/none")]);
    process.stop();
}

#[tokio::test]
async fn what_ends_meanwhile_does_not_come_between_a_process_and_its_volumes() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let (folder, binary, config) = installed(&origin);
    let_post(&config);
    let process = Process::start_from(&binary, &config);
    let [asked, go, heard] = ["asked", "go", "heard"].map(|name| folder.path().join(name));
    // Wants the volumes when something has ended, hears of them, and says that it is ill.
    replace(
        &binary,
        &format!(
            "{HEARS}: >{asked:?}; while [ ! -e {go:?} ]; do sleep 0.01; done\n\
             printf '{{\"say\":\"checked\"}}' >&0\n\
             dd bs=262144 count=1 >{heard:?} 2>&-\n\
             printf '{{\"say\":\"failed\",\"why\":\"it is ill\"}}' >&0\n\
             exec sleep 1000"
        ),
    );
    process.signal(Signal::USR2);
    until_there(&asked).await;
    let viewer = Client::plain(process.http, HOST);
    post(&viewer, "/a").await;
    fs::write(&go, "").unwrap();
    process.logged_until("not upgraded: it is ill").await;
    assert_eq!(fs::read_to_string(&heard).unwrap(), r#"{"say":"volumes"}"#);
    let now = status(&process);
    assert_eq!(now["ssd"]["volumes"][0]["state"], "online", "they are taken back");
    gets(&viewer, &origin, "/a").await;
    process.stop();
}

#[tokio::test]
async fn what_ends_while_one_that_fails_has_the_volumes_does_not_come_back_with_them() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (folder, binary, config) = installed(&origin);
    let_post(&config);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    process.until_entries(1).await;
    let go = given_to_who_fails(&folder, &binary, &process).await;
    post(&viewer, "/a").await;
    fs::write(&go, "").unwrap();
    process.logged_until(") ended with exit code 7").await;
    process.stop();
    let process = Process::start(&config);
    let before = origin.requests("/a").len();
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "it has ended");
    process.stop();
}

#[tokio::test]
async fn what_ends_when_nobody_has_the_volumes_does_not_come_back_with_them() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (folder, binary, config) = installed(&origin);
    let_post(&config);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    process.until_entries(1).await;
    let given = folder.path().join("given");
    replace(&binary, &given_volumes(&format!(": >{given:?}; exec sleep 1000")));
    process.signal(Signal::USR2);
    until_there(&given).await;
    post(&viewer, "/a").await;
    process.stop();

    let process = Process::start(&config);
    let viewer = Client::plain(process.http, HOST);
    let before = origin.requests("/a").len();
    gets(&viewer, &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "its origin is asked");
    process.stop();
}

#[tokio::test]
async fn what_a_later_version_says_beyond_this_one_s_words_is_passed_over() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    let [heard, go] = ["heard", "go"].map(|name| folder.path().join(name));
    let ends = r#"{"say":"end","id":3,"ending":{"moon":{"phase":"full"}}}"#;
    let waits = format!(
        "printf '{{\"say\":\"weather\",\"is\":[1,\"fair\"]}}' >&0\n\
         printf 'no words at all' >&0\n\
         printf '{ends}' >&0\n\
         dd bs=262144 count=1 >{heard:?}.new 2>&-; mv {heard:?}.new {heard:?}\n\
         while [ ! -e {go:?} ]; do sleep 0.01; done\n\
         printf '{{\"say\":\"failed\",\"why\":\"it is ill\"}}' >&0\n\
         exec sleep 1000"
    );
    replace(&binary, &given_volumes(&waits));
    process.signal(Signal::USR2);
    until_there(&heard).await;
    assert_eq!(fs::read_to_string(&heard).unwrap(), r#"{"say":"ended","id":3}"#);
    let before = origin.requests("/a").len();
    gets(&viewer, &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "whatever it is, it has ended");
    fs::write(&go, "").unwrap();
    process.logged_until("not upgraded: it is ill").await;
    assert_eq!(status(&process)["ssd"]["volumes"][0]["state"], "online");
    process.stop();
}

#[tokio::test]
async fn what_a_process_is_told_while_another_one_follows_is_done() {
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    let origin = Origin::serving("/held", held);
    let (folder, binary, config) = installed(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    let idle = viewer.get("/gone").on(viewer.connect().await.unwrap()).await.unwrap();
    let _idle = idle.finish_and_keep().await.unwrap();
    let [asked, go] = ["asked", "go"].map(|name| folder.path().join(name));
    let ours = binary.with_extension("ours");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &ours).unwrap();
    replace(
        &binary,
        &format!(": >{asked:?}; while [ ! -e {go:?} ]; do sleep 0.01; done\nexec {ours:?} \"$@\""),
    );
    let reloaded = |logged: &[String]| logged.iter().filter(|l| l.contains(" reloaded")).count();
    process.signal(Signal::USR2);
    until_there(&asked).await;
    process.signal(Signal::HUP);
    fs::write(&go, "").unwrap();
    process.logged_until("what has begun is finished").await;
    let logged = process.logged_until(" reloaded").await;
    assert_eq!(reloaded(&logged), 1, "{logged:#?}");

    process.signal_first(Signal::HUP);
    process.logged_times(" reloaded", 2).await;
    // Nobody is let go sooner than he is told, and who has begun has the drain limit.
    process.signal_first(Signal::TERM);
    process.logged_until("told to stop: what has begun").await;
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    process.until_left().await;
    process.stop();
}

#[tokio::test]
async fn nobody_follows_a_process_that_is_drained_or_told_to_stop() {
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    let origin = Origin::serving("/held", held);
    let (folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let admin = format!("http://{}", process.admin);
    let drained = tidegate(&["drain", "--admin", &admin]);
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    let (code, said) = process.upgrade();
    assert!(code == 1 && said.contains("`tidegate undrain` first"), "{said}");
    assert!(tidegate(&["undrain", "--admin", &admin]).status.success());

    let [given, go] = ["given", "go"].map(|name| folder.path().join(name));
    let serves = format!(
        ": >{given:?}; while [ ! -e {go:?} ]; do sleep 0.01; done\n\
         printf '{{\"say\":\"serving\",\"version\":\"2\"}}' >&0\n\
         exec sleep 1000"
    );
    replace(&binary, &given_volumes(&serves));
    let viewer = Client::plain(process.http, HOST);
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    process.signal(Signal::USR2);
    until_there(&given).await;
    process.signal(Signal::TERM);
    process.logged_until(" draining").await;
    fs::write(&go, "").unwrap();
    process.logged_until("not upgraded: this process was told to stop").await;
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    process.stop();
}

#[tokio::test]
async fn a_drain_is_refused_while_another_process_is_on_its_way() {
    let (folder, binary, config) = installed(&Origin::start());
    let process = Process::start_from(&binary, &config);
    let [heard, go] = ["heard", "go"].map(|name| folder.path().join(name));
    let waits = format!(": >{heard:?}; while [ ! -e {go:?} ]; do sleep 0.01; done\nexit 3");
    replace(&binary, &format!("{HEARS}{waits}"));
    process.signal(Signal::USR2);
    until_there(&heard).await;
    let (code, said) = process.answers(&["drain"]);
    assert!(code == 1 && said.contains("try again in a moment"), "{said}");
    assert_eq!(status(&process)["drain"], json!(null));
    fs::write(&go, "").unwrap();
    process.logged_until("not upgraded").await;
    let (code, said) = process.answers(&["drain"]);
    assert!(code == 0 && said.contains("draining"), "{said}");
    process.stop();
}

/// Says something as the process before would.
fn say(channel: &OwnedFd, message: &serde_json::Value) {
    send(channel, message.to_string().as_bytes(), SendFlags::NOSIGNAL).unwrap();
}

/// What the process that follows says next.
fn heard(channel: &OwnedFd) -> serde_json::Value {
    let mut message = [0; 4 << 10];
    let (_, length) = recv(channel, &mut message, RecvFlags::empty()).unwrap();
    serde_json::from_slice(&message[..length]).expect("it says something")
}

/// A process that follows this one, and the channel to it; it finds no more room in it than for a
/// few words.
fn following(binary: &Path, config: &Path) -> (OwnedFd, Child) {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
    set_socket_send_buffer_size(&theirs, 1).unwrap();
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(config).env("TIDEGATE_TAKEOVER", "1");
    (ours, command.stdin(theirs).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn no_signal_to_all_processes_of_a_service_ends_who_is_on_his_way() {
    let (_folder, binary, config) = with_ram_alone(&Origin::start());
    let (ours, mut child) = following(&binary, &config);
    // Nobody has told it anything yet.
    let asked = Instant::now();
    for signal in [Signal::HUP, Signal::USR2] {
        while !hears(child.id(), signal) {
            assert_eq!(child.try_wait().unwrap(), None, "{signal:?}");
            assert!(asked.elapsed() < PATIENCE, "{signal:?} would end it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    say(&ours, &json!({ "say": "hello", "version": "1" }));
    say(&ours, &json!({ "say": "listeners" }));
    assert_eq!(heard(&ours)["say"], "checked");
    drop(ours);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn what_a_service_manager_passes_is_for_the_process_that_it_has_started() {
    let (folder, binary, config) = installed(&Origin::start());
    let mut command = Command::new(&binary);
    command.args(["serve", "--config"]).arg(&config);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
    let process = Process::start_by(command);
    let told = folder.path().join("told");
    replace(&binary, &format!("env >{told:?}; exit 3"));
    assert_eq!(process.upgrade().0, 1);
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("TIDEGATE_TAKEOVER=1") && !told.contains("LISTEN_"), "{told}");
    process.stop();
}

#[tokio::test]
async fn what_ends_after_who_has_followed_was_killed_does_not_come_back() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (_folder, binary, config) = installed(&origin);
    let_post(&config);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let idle = viewer.get("/a").on(viewer.connect().await.unwrap()).await.unwrap();
    let idle = idle.finish_and_keep().await.unwrap().1.unwrap();
    process.until_entries(1).await;
    let changing = post_held(&process, &origin, "/a").await;
    process.signal(Signal::USR2);
    process.logged_until("what has begun is finished").await;
    gets(&viewer, &origin, "/a").await;
    process.signal(Signal::KILL);
    process.logged_until("the process that follows is gone").await;
    origin.release("/a");
    assert!(changing.await.unwrap() < 300);
    // Nobody serves before it has left, which is at once, whoever could still ask it.
    assert_eq!(process.left_with().await, Some(1));
    drop(idle);

    let process = Process::start(&config);
    let viewer = Client::plain(process.http, HOST);
    let before = origin.requests("/a").len();
    gets(&viewer, &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "its origin is asked");
    process.stop();
}

#[tokio::test]
async fn who_is_followed_by_a_process_that_ends_at_once_says_so_and_doubts_its_volumes() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (_folder, binary, config) = installed(&origin);
    let mut process = Process::start_from(&binary, &config);
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    process.until_entries(1).await;
    replace(&binary, &given_volumes("printf '{\"say\":\"serving\",\"version\":\"9\"}' >&0"));
    process.signal(Signal::USR2);
    assert_eq!(process.left_with().await, Some(1));

    let process = Process::start(&config);
    let before = origin.requests("/a").len();
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "its origin is asked");
    process.stop();
}

#[tokio::test]
async fn what_ends_before_a_process_has_left_does_not_come_back_although_both_are_to_stop() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (_folder, binary, config) = installed(&origin);
    let_post(&config);
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    gets(&viewer, &origin, "/a").await;
    process.until_entries(1).await;
    let changing = post_held(&process, &origin, "/a").await;
    process.signal(Signal::USR2);
    process.logged_until("what has begun is finished").await;
    // The one that serves, which has nobody to wait for but the other one.
    process.signal(Signal::TERM);
    process.logged_until("it is waited for").await;
    origin.release("/a");
    assert!(changing.await.unwrap() < 300);
    process.ended();

    let process = Process::start(&config);
    let before = origin.requests("/a").len();
    gets(&Client::plain(process.http, HOST), &origin, "/a").await;
    assert_eq!(origin.requests("/a").len(), before + 1, "it has ended");
    process.stop();
}

/// Whether a process has a handler for a signal.
fn hears(process: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[tokio::test]
async fn who_says_that_it_serves_ends_in_order_when_it_is_told_to_stop() {
    let (_folder, binary, config) = with_ram_alone(&Origin::start());
    // The process of this test, which has started it, does not end: it is waited for so long.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("limits.drain_timeout = \"1s\"\n{text}")).unwrap();
    let (ours, mut child) = following(&binary, &config);
    say(&ours, &json!({ "say": "hello", "version": "1" }));
    say(&ours, &json!({ "say": "listeners" }));
    assert_eq!(heard(&ours)["say"], "checked");
    say(&ours, &json!({ "say": "volumes" }));
    assert_eq!(heard(&ours)["say"], "listening");
    // What it answers is not read: nothing it says then has room.
    let ending = json!({ "objects": { "site": "none", "targets": [] } });
    (0..16).for_each(|id| say(&ours, &json!({ "say": "end", "id": id, "ending": ending })));
    let asked = Instant::now();
    while ioctl_fionread(&ours).unwrap() < 4 * r#"{"say":"ended","id":0}"#.len() as u64 {
        assert!(asked.elapsed() < PATIENCE, "it does not answer");
    }
    say(&ours, &json!({ "say": "told" }));
    while !hears(child.id(), Signal::TERM) {
        assert_eq!(child.try_wait().unwrap(), None, "it could not say that it serves");
        assert!(asked.elapsed() < PATIENCE, "it would be killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    while heard(&ours)["say"] != "serving" {}
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn what_ends_is_heard_while_volumes_are_on_their_way() {
    let (_folder, binary, config) = installed(&Origin::start());
    let size = "size = \"256 MiB\"\n";
    let slow = fs::read_to_string(&config).unwrap();
    // Never online while this test runs.
    let slow = slow.replace(size, &format!("{size}simulate = \"stall-reads=1000s\"\n"));
    fs::write(&config, slow).unwrap();
    let (ours, mut child) = following(&binary, &config);
    say(&ours, &json!({ "say": "hello", "version": "1" }));
    say(&ours, &json!({ "say": "listeners" }));
    assert_eq!(heard(&ours)["say"], "checked");
    set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE)).unwrap();
    say(&ours, &json!({ "say": "volumes" }));
    assert_eq!(heard(&ours)["say"], "listening");
    say(&ours, &json!({ "say": "told" }));
    let ending = json!({ "objects": { "site": "media", "targets": ["/a"] } });
    say(&ours, &json!({ "say": "end", "id": 7, "ending": ending }));
    assert_eq!(heard(&ours), json!({ "say": "ended", "id": 7 }), "before it serves");
    drop(ours);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn who_follows_does_not_wait_for_a_process_that_says_it_stops_too() {
    let (_folder, binary, config) = with_ram_alone(&Origin::start());
    let (ours, mut child) = following(&binary, &config);
    say(&ours, &json!({ "say": "hello", "version": "1" }));
    say(&ours, &json!({ "say": "listeners" }));
    assert_eq!(heard(&ours)["say"], "checked");
    say(&ours, &json!({ "say": "volumes" }));
    assert_eq!(heard(&ours)["say"], "listening");
    say(&ours, &json!({ "say": "told" }));
    while heard(&ours)["say"] != "serving" {}

    say(&ours, &json!({ "say": "hurry" }));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // The process of this test, which has started it, does not end.
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < PATIENCE, "it waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn who_was_to_follow_is_gone_when_the_process_that_was_told_to_stop_is() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let (folder, binary, config) = installed(&origin);
    let process = Process::start_from(&binary, &config);
    let given = folder.path().join("given");
    // It says nothing and does not notice that it is alone.
    let says = format!("echo $$ >{given:?}.new; mv {given:?}.new {given:?}\nexec sleep 60 2>&-");
    replace(&binary, &given_volumes(&says));
    process.signal(Signal::USR2);
    until_there(&given).await;
    process.stop();
    let id = fs::read_to_string(&given).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/comm", id.trim()));
    assert!(state.is_err(), "process {id} is there: {state:?}");
}

#[tokio::test]
async fn what_ends_in_one_process_has_ended_in_the_other() {
    let origin = Origin::start();
    for path in ["/purged", "/posted"] {
        origin.serve(path, Script::of(PIECE));
    }
    let (folder, binary, config) = installed(&origin);
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let more = format!(
        "{}\n[[sites.rules]]\npath = \"*\"\nmethods = [\"POST\"]\n\
                        [admin]\ntoken_file = {token:?}\n",
        fs::read_to_string(&config).unwrap()
    );
    fs::write(&config, more).unwrap();
    let process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let mut kept = vec![];
    for path in ["/purged", "/posted"] {
        let streaming = viewer.get(path).on(viewer.connect().await.unwrap()).await.unwrap();
        kept.push(streaming.finish_and_keep().await.unwrap().1.unwrap());
    }
    let admin = format!("http://{}", process.admin);
    let asked = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
    let command = |words: &[&str]| {
        let done = tidegate(&[words, &asked].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    process.signal(Signal::USR2);
    process.logged_until("what has begun is finished").await;
    let [purged, posted] = <[_; 2]>::try_from(kept).unwrap();
    // Both processes have it; it is purged in the new one, and asked for in the old.
    gets(&viewer, &origin, "/purged").await;
    command(&["purge", &format!("http://{HOST}/purged")]);
    let before = origin.requests("/purged").len();
    let response = viewer.get("/purged").on(purged).await.unwrap().finish().await.unwrap();
    assert_eq!(judge(&origin, "/purged", &response), WHOLE);
    assert_eq!(origin.requests("/purged").len(), before + 1);

    // It is changed through the old one, and asked for in the new.
    gets(&viewer, &origin, "/posted").await;
    let before = origin.requests("/posted").len();
    let changed = viewer.request(Method::POST, "/posted").on(posted).await.unwrap();
    assert!(changed.finish().await.unwrap().status < 300);
    gets(&viewer, &origin, "/posted").await;
    let asked_anew = origin.requests("/posted").len() - before;
    assert_eq!(asked_anew, 2, "the change, and what is there since");
}

/// As [`installed`], with ram alone.
fn with_ram_alone(origin: &Origin) -> (TempDir, PathBuf, PathBuf) {
    let (folder, binary, _) = installed(origin);
    let origin = origin.address();
    let site = format!("name = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{origin}\"]");
    let config = configured(folder.path(), &format!("[[sites]]\n{site}\n"));
    (folder, binary, config)
}

/// What a process holds of shared memory, as ram tiers are; none where it is not there.
fn shared_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// The process that `parent` has started, if it has; before it is a program of its own, it has its
/// parent's memory.
fn child_of(parent: u32) -> Option<u32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let environment = || fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
            && text(&environment()).contains("TIDEGATE_TAKEOVER")
    })
}

/// The most that a process and the one it starts hold of shared memory at one moment, up to then.
fn watch_memory(process: u32, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let (mut child, mut most) = (None, 0);
        while !stop.load(Ordering::Relaxed) {
            child = child.or_else(|| child_of(process));
            most = most.max(shared_kib(process) + child.map_or(0, shared_kib));
            thread::yield_now();
        }
        most
    })
}

const GONE_ALONG: &str = "of what ram held has gone along";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ram_holds_comes_along_where_there_are_no_volumes() {
    let origin = Origin::start();
    let large = (0..10).map(|object| (format!("/large/{object}"), 4 * BLOCK + 77 * object));
    let small = (0..OBJECTS).map(|object| (format!("/{object}"), length_of(object)));
    let objects: Vec<_> = large.chain(small).chain([("/empty".to_owned(), 0)]).collect();
    for (path, length) in &objects {
        origin.serve(path, Script::of(*length));
    }
    let (_folder, binary, config) = with_ram_alone(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    for (path, _) in &objects {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE, "{path}");
    }
    origin.forget_requests();
    let stop = Arc::new(AtomicBool::new(false));
    let before = process.id().try_into().unwrap();
    let (held_kib, watching) = (shared_kib(before), watch_memory(before, stop.clone()));
    assert_eq!(tokio::task::block_in_place(|| process.upgrade()).0, 0);
    process.logged_until(GONE_ALONG).await;
    stop.store(true, Ordering::Relaxed);
    for (path, _) in &objects {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE, "{path}");
    }
    let asked = origin.all_requests();
    assert!(asked.is_empty(), "{asked:#?}");
    let most_kib = watching.join().unwrap();
    assert!(held_kib > 40 << 10 && most_kib < held_kib / 10 * 13, "{most_kib} of {held_kib} KiB");
    println!("{held_kib} KiB before, {most_kib} KiB at most in both");
    process.until_left().await;
    let logged = process.stop();
    let bad = logged.iter().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert_eq!(bad.count(), 0, "{logged:#?}");
}

#[tokio::test]
async fn what_has_ended_does_not_come_along_and_who_is_under_way_is_finished() {
    let origin = Origin::start();
    for path in ["/kept", "/purged", "/soft", "/read"] {
        origin.serve(path, Script::of(4 * BLOCK));
    }
    let (folder, binary, config) = with_ram_alone(&origin);
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let admin = format!("[admin]\ntoken_file = {token:?}\n");
    fs::write(&config, fs::read_to_string(&config).unwrap() + &admin).unwrap();
    let mut process = Process::start_from(&binary, &config);
    let admin = format!("http://{}", process.admin);
    let shown = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
    let command = |words: &[&str]| {
        let done = tidegate(&[words, &shown].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    let purge = |path: &str| command(&["purge", &format!("http://{HOST}{path}")]);
    let viewer = Client::plain(process.http, HOST);
    for path in ["/kept", "/purged", "/soft", "/read"] {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE, "{path}");
    }
    let mut under_way = viewer.receive_buffer(4096).get("/read").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    purge("/purged");
    command(&["purge", "--soft", &format!("http://{HOST}/soft")]);
    // It is found, and made stale.
    let found = viewer.get("/soft").header("cache-control", "only-if-cached").send().await;
    assert_eq!(found.status, 504);
    command(&["upgrade"]);
    process.logged_until(GONE_ALONG).await;
    for (path, asked) in [("/kept", 1), ("/purged", 2), ("/soft", 2)] {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE, "{path}");
        assert_eq!(origin.requests(path).len(), asked, "{path}");
    }
    purge("/kept");
    assert_eq!(judge(&origin, "/kept", &viewer.get("/kept").send().await), WHOLE);
    assert_eq!(origin.requests("/kept").len(), 2);
    let came = follow(&mut under_way, origin.content("/read", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    drop(under_way);
    process.until_left().await;
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proves_false_after_it_was_to_come_along_has_not() {
    let origin = Origin::start();
    // Of nothing.
    let wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let lying = Script::of(4 * BLOCK).field("Content-Digest", wrong);
    origin.serve("/false", lying.ending(Ending::HeldAt(3 * BLOCK)));
    let (_folder, binary, config) = with_ram_alone(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let mut under_way = viewer.get("/false").open().await;
    under_way.read_exactly(2 * BLOCK as usize).await.unwrap();
    assert_eq!(tokio::task::block_in_place(|| process.upgrade()).0, 0);
    process.logged_until(GONE_ALONG).await;
    origin.release("/false");
    let (came, is_whole) = follow(&mut under_way, origin.content("/false", 1), 2 * BLOCK).await;
    assert!(came < 2 * BLOCK && !is_whole, "{came}");
    drop(under_way);
    origin.serve("/false", Script::of(4 * BLOCK).version(2));
    let verdict = judge(&origin, "/false", &viewer.get("/false").send().await);
    assert_eq!(verdict, Verdict::Whole { version: 2 });
    process.until_left().await;
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_on_its_way_keeps_nothing_else_of_its_object_from_coming_along() {
    let film = Script::of(8 * BLOCK).ending(Ending::HeldAt(6 * BLOCK));
    let origin = Origin::serving("/film", film);
    let (_folder, binary, config) = with_ram_alone(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let first = viewer.get("/film").range(0..4 * BLOCK);
    assert_eq!(judge(&origin, "/film", &first.send().await), WHOLE);
    until_runs(&Client::plain(process.admin, "127.0.0.1"), <[_]>::is_empty).await;
    let mut under_way = viewer.get("/film").range_from(5 * BLOCK).open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    let asked = origin.requests("/film").len();
    assert_eq!(tokio::task::block_in_place(|| process.upgrade()).0, 0);
    process.logged_until(GONE_ALONG).await;
    assert_eq!(judge(&origin, "/film", &first.send().await), WHOLE);
    assert_eq!(origin.requests("/film").len(), asked, "it has come along");
    origin.release("/film");
    let came = follow(&mut under_way, origin.content("/film", 1), 5 * BLOCK + PIECE).await;
    assert_eq!(came, (3 * BLOCK - PIECE, true));
    drop(under_way);
    process.until_left().await;
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_gone_along_makes_no_room_for_others() {
    const FEW: u64 = 4;
    let origin = Origin::start();
    let first: Vec<_> = (0..10).map(|object| format!("/first/{object}")).collect();
    let later: Vec<_> = (0..15).map(|object| format!("/later/{object}")).collect();
    for path in first.iter().chain(&later) {
        origin.serve(path, Script::of(FEW * BLOCK));
    }
    let (_folder, binary, config) = with_ram_alone(&origin);
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    let mut kept = vec![];
    for path in &later {
        let streaming = viewer.get("/none").on(viewer.connect().await.unwrap()).await.unwrap();
        kept.push((path, streaming.finish_and_keep().await.unwrap().1.unwrap()));
    }
    for path in &first {
        gets(&viewer, &origin, path).await;
    }
    // Takes ten batches of three blocks, and never says what became of the next.
    let takes = r#"{"format":1,"block_bytes":1048576,"bytes":1099511627776}"#;
    let serves = format!(
        "printf '{{\"say\":\"serving\",\"version\":\"2\",\"takes\":{takes}}}' >&0\n\
         for batch in 0 1 2 3 4 5 6 7 8 9; do\n\
         printf '{{\"say\":\"taken\",\"blocks\":3,\"bytes\":3145728}}' >&0; done\n\
         exec sleep 1000"
    );
    replace(&binary, &given_volumes(&serves));
    let own = process.id().try_into().unwrap();
    let (before, asked) = (shared_kib(own), Instant::now());
    process.signal(Signal::USR2);
    while shared_kib(own) > before - (30 << 10) {
        assert!(asked.elapsed() < PATIENCE, "{} of {before} KiB", shared_kib(own));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (path, connection) in kept {
        let response = viewer.get(path).on(connection).await.unwrap().finish().await.unwrap();
        assert_eq!(judge(&origin, path, &response), WHOLE, "{path}");
    }
    let held = shared_kib(own);
    assert!(held < 50 << 10, "{held} KiB, of {before} before");
    process.signal_first(Signal::TERM);
    process.until_left().await;
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

const OBJECTS: u64 = 20;
/// Of 256 MiB in all: less than connections come and go with, more than a leak leaves after 200.
const GROWN_KIB_MAX: u64 = 24 << 10;

fn length_of(object: u64) -> u64 {
    1 + mixed(object) % (4 * PIECE)
}

/// Asks for one object after the other, on a connection for as long as it is kept, until it is told
/// to stop.
async fn view(origin: Arc<Origin>, viewer: Client, mut chance: u64, stop: Arc<AtomicBool>) -> u64 {
    let (mut kept, mut answers) = (None, 0);
    while !stop.load(Ordering::Relaxed) {
        chance = mixed(chance);
        let path = format!("/{}", chance % OBJECTS);
        let connection = match kept.take() {
            Some(connection) => connection,
            None => viewer.connect().await.unwrap(),
        };
        let streaming = viewer.get(&path).on(connection).await;
        let streaming = streaming.unwrap_or_else(|error| panic!("{path}: {error}"));
        let is_last = streaming.header("connection") == "close";
        let (response, connection) = streaming.finish_and_keep().await.unwrap();
        assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
        kept = connection.filter(|_| !is_last);
        answers += 1;
        // Some sit idle for a while, and ask then.
        tokio::time::sleep(Duration::from_millis(mixed(chance + 1) % 50)).await;
    }
    answers
}

/// What a process has in memory, in KiB: it is what grows where something is left behind.
fn resident_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Waits until it has answered so many requests.
async fn until_served(process: &Process, requests: u64) {
    let asked = Instant::now();
    while status(process)["requests"].as_u64().unwrap() < requests {
        assert!(asked.elapsed() < PATIENCE, "it has not answered {requests}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Has it read a configuration that differs from the one before.
fn reload(process: &Process, (config, right): (&Path, &str), round: u64) {
    let idle = format!("limits.idle_timeout = \"{}s\"\n", 10 + round % 2);
    fs::write(config, idle + right).unwrap();
    let admin = format!("http://{}", process.admin);
    let reloaded = tidegate(&["reload", "--admin", &admin]);
    assert!(reloaded.status.success(), "{}", text(&reloaded.stderr));
}

/// Bodies of up to four pieces take two seconds at the least pace there is, if that is asked for.
fn set_pace(config: &Path) {
    if let Ok(pace) = std::env::var("TIDEGATE_PACE") {
        let rule = format!("\n[[sites.rules]]\npath = \"*\"\npace = {pace:?}\n");
        fs::write(config, fs::read_to_string(config).unwrap() + &rule).unwrap();
    }
}

/// Open files of a process.
fn open_files(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_reloads_under_load_fail_nobody() {
    let origin = Arc::new(Origin::start());
    for object in 0..OBJECTS {
        origin.serve(&format!("/{object}"), Script::of(length_of(object)));
    }
    let (_folder, binary, config) = installed(&origin);
    set_pace(&config);
    let right = fs::read_to_string(&config).unwrap();
    let mut process = Process::start_from(&binary, &config);
    let viewer = Client::plain(process.http, HOST);
    for object in 0..OBJECTS {
        viewer.get(&format!("/{object}")).send().await;
    }
    // A small body lies in its head.
    let records = |object| if length_of(object) <= PIECE { 1 } else { 2 };
    process.until_entries((0..OBJECTS).map(records).sum()).await;
    origin.forget_requests();
    let files_before = open_files(&process);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let mut resident = vec![];
    let mut viewers = JoinSet::new();
    let count = number("TIDEGATE_VIEWERS", 40);
    for seed in 0..count {
        viewers.spawn(view(origin.clone(), viewer.clone(), seed, stop.clone()));
    }
    for round in 0..number("TIDEGATE_ROUNDS", 3) {
        reload(&process, (&config, &right), round);
        let asked = Instant::now();
        loop {
            let (code, said) = tokio::task::block_in_place(|| process.upgrade());
            if code == 0 {
                break;
            }
            assert!(said.contains("the process before this one still serves"), "{said}");
            assert!(asked.elapsed() < 3 * PATIENCE, "round {round}: it never leaves");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process.until_left().await;
        resident.push(resident_kib(&process));
    }
    let files_after = open_files(&process);
    // One process for all of them: what each left behind would add up. It is measured when this
    // process has served all viewers as well, and has been told as often before.
    until_served(&process, 10 * count).await;
    let rounds = number("TIDEGATE_ROUNDS", 3);
    for _ in 0..2 {
        (0..rounds).for_each(|round| reload(&process, (&config, &right), round));
        resident.push(resident_kib(&process));
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(seen) = viewers.join_next().await {
        answers.fetch_add(seen.unwrap(), Ordering::Relaxed);
    }
    assert!(answers.load(Ordering::Relaxed) > 0);
    // One whom ram was given back under is asked for: of a hundred answers less than one.
    let (asked, answered) = (origin.all_requests(), answers.load(Ordering::Relaxed));
    let first = asked.first();
    assert!(asked.len() as u64 * 100 < answered, "{} of {answered}: {first:#?}", asked.len());
    let most = files_before + count as usize + 8;
    assert!(files_after <= most, "{files_before} before, {files_after} now");
    let [first, .., before, after] = resident[..] else { panic!("there are rounds") };
    let last = resident[resident.len() - 3];
    assert!(last < first + GROWN_KIB_MAX, "{first} KiB after one upgrade, {last} after all");
    assert!(after < before + GROWN_KIB_MAX, "{before} KiB before {rounds} reloads, {after} now");
    println!("{first} KiB after one upgrade, {last} after all; reloads: {before}, {after}");
    println!("{answered} answers, none failed; {} asked of the origin", asked.len());
    process.stop();
}
