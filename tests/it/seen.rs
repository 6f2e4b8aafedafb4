//! What an operator can see of requests: each of them live, decision by decision.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BLOCK, Edge, Origin, PATIENCE, PIECE, Script, Streaming, text, tidegate, until_runs,
};

/// Somebody who follows the log, and the lines that came to him.
struct Follower {
    stream: Streaming,
    waiting: Vec<u8>,
}

impl Follower {
    async fn of(edge: &Edge, filter: &str) -> Follower {
        let stream = edge.admin().get(&format!("/log?filter={filter}")).open().await;
        assert_eq!(stream.status, 200);
        Follower { stream, waiting: Vec::new() }
    }

    /// The next line; `None` when there will be none.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.waiting.extend(self.stream.read(1 << 16).await.unwrap()?);
        }
    }
}

/// What was decided, in a word and how, in the order of the times told.
fn decisions(told: &Value) -> Vec<String> {
    let decisions = told["decisions"].as_array().unwrap();
    let at = |decision: &Value| decision["at_us"].as_u64().unwrap();
    assert!(decisions.is_sorted_by_key(at), "{told}");
    let shown = |of: &Value| format!("{}: {}", of["what"], of["how"]).replace('"', "");
    decisions.iter().map(shown).collect()
}

/// The status; what came of it is held by then.
async fn gets(edge: &Edge, path: &str) -> u16 {
    let status = edge.get(path).send().await.status;
    until_runs(&edge.admin(), <[_]>::is_empty).await;
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_told_with_what_was_decided_about_it_in_order() {
    let origin = Origin::serving("/a.m4s", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).rule("*.m4s", "lifetime = { given = '1h' }").start();
    let mut follower = Follower::of(&edge, "").await;
    for _ in 0..2 {
        assert_eq!(gets(&edge, "/a.m4s").await, 200);
    }

    let miss = follower.next().await.unwrap();
    let expected = [
        "rule: *.m4s",
        "object: is not known in ram",
        "origin: is to be asked",
        "origin: answered, and it is kept",
        "found: miss",
    ];
    assert_eq!(decisions(&miss)[..5], expected, "{miss}");
    // What has landed before he comes to it is in ram by then.
    let ends = ["sent: fill", "sent: ram"].map(str::to_owned);
    let told = decisions(&miss);
    assert_eq!(told.last().unwrap(), "end: complete", "{miss}");
    assert!(ends.contains(&told[told.len() - 2]), "{miss}");
    assert_eq!(miss["decisions"][2]["because"], "uri-miss", "{miss}");
    assert_eq!((&miss["path"], &miss["status"]), (&"/a.m4s".into(), &200.into()));

    let hit = follower.next().await.unwrap();
    let expected = [
        "rule: *.m4s",
        "object: is known",
        "variant: serves as it is",
        "found: hit",
        "head: tidegate; hit; ttl=3600",
        "sent: ram",
        "end: complete",
    ];
    let mut told = decisions(&hit);
    let version = told.remove(3);
    assert!(version.starts_with("version: "), "{hit}");
    assert_eq!(hit["decisions"][3]["length"], PIECE, "{hit}");
    assert!(decisions(&miss).contains(&version), "it is what came for the first: {miss}");
    assert_eq!(told[..4], expected[..4], "{hit}");
    assert!(told[4].starts_with("head: tidegate; hit; ttl="), "{hit}");
    assert_eq!(told[5..], expected[5..], "{hit}");
    let (sent, end) = (&hit["decisions"][6], &hit["decisions"][7]);
    assert_eq!((&sent["first"], &sent["bytes"]), (&0.into(), &PIECE.into()), "{hit}");
    assert_eq!(end["sent_bytes"], PIECE, "{hit}");
    assert_eq!(hit["decisions"][5]["status"], 200, "{hit}");
}

/// An edge that holds a film of four pieces, and who follows its log.
async fn film_held_and_followed() -> (Origin, Edge, Follower) {
    let origin = Origin::serving("/film", Script::of(4 * PIECE));
    let edge = Edge::in_front_of(&origin).start();
    assert_eq!(gets(&edge, "/film").await, 200);
    let follower = Follower::of(&edge, "").await;
    (origin, edge, follower)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_range_was_asked_for_is_told_and_where_in_the_object_the_bytes_lie_that_were_sent() {
    let (_origin, edge, mut follower) = film_held_and_followed().await;
    for (asked, status, answered, sent) in [
        ("bytes=70000-", 206, json!("70000-262143"), vec![(70_000, 192_144)]),
        ("bytes=0-9, 200000-200009", 206, Value::Null, vec![(0, 10), (200_000, 10)]),
        ("bytes=900000-", 416, Value::Null, vec![]),
    ] {
        let request = edge.get("/film").header("range", asked);
        assert_eq!(request.send().await.status, status);
        let told = follower.next().await.unwrap();
        assert_eq!((&told["range_asked"], &told["range"]), (&asked.into(), &answered), "{told}");
        let decisions = told["decisions"].as_array().unwrap();
        let lies = |of: &&Value| of["what"] == "sent";
        let lies = decisions.iter().filter(lies).map(|of| (&of["first"], &of["bytes"]));
        let sent: Vec<(Value, Value)> = sent
            .into_iter()
            .map(|(first, bytes): (u64, u64)| (first.into(), bytes.into()))
            .collect();
        assert!(lies.eq(sent.iter().map(|(first, bytes)| (first, bytes))), "{told}");
    }
    assert_eq!(gets(&edge, "/film").await, 200);
    assert!(follower.next().await.unwrap().get("range_asked").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_called_alike_by_the_log_and_by_what_explains_it() {
    let origin = Origin::serving("/film", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).start();
    let mut follower = Follower::of(&edge, "").await;
    assert_eq!(gets(&edge, "/film").await, 200);
    let told = follower.next().await.unwrap();
    let asked = edge.admin().get("/explain?url=http://media.test/film").send().await;
    let explained: Value = serde_json::from_slice(&asked.body).unwrap();
    let version = explained["variants"][0]["version"].as_str().unwrap();
    assert!(decisions(&told).contains(&format!("version: {version}")), "{told} {explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_refused_is_told_and_counted_with_the_site_it_named() {
    let edge = Edge::in_front_of(&Origin::start()).start();
    let mut follower = Follower::of(&edge, "").await;
    for (method, target, host, status, site) in [
        ("POST", "/a", "media.test", 405, "media".into()),
        ("OPTIONS", "/a", "media.test", 405, "media".into()),
        ("TRACE", "/a", "media.test", 405, "media".into()),
        ("PURGE", "/a", "media.test", 405, "media".into()),
        ("GET", "/%zz", "media.test", 400, "media".into()),
        ("POST", "/a", "other.test", 405, Value::Null),
        ("GET", "/a", "other.test", 421, Value::Null),
    ] {
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let request = edge.client().host(host).request(method, target);
        assert_eq!(request.send().await.status, status);
        let told = follower.next().await.unwrap();
        assert_eq!((&told["site"], &told["status"]), (&site, &status.into()), "{told}");
        assert!(decisions(&told).contains(&"head: no Cache-Status".to_owned()), "{told}");
    }
    let refused = edge.metric("tidegate_site_requests_total", &["media", "status=\"4xx\""]).await;
    assert_eq!(refused, 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_a_body_are_told_whosever_words_they_are() {
    let (_origin, edge, mut follower) = film_held_and_followed().await;
    let sent = edge.metric("tidegate_response_body_bytes_total", &[]).await;
    let parts = edge.get("/film").header("range", "bytes=0-9, 200000-200009");
    for (request, status) in [
        (parts, 206),
        (edge.client().request(http::Method::POST, "/film"), 405),
        (edge.client().host("other.test").get("/film"), 421),
        (edge.head("/film"), 200),
    ] {
        let answer = request.send().await;
        let told = follower.next().await.unwrap();
        let bytes: Value = answer.body.len().into();
        assert_eq!((answer.status, &told["bytes"]), (status, &bytes), "{told}");
    }
    let more = edge.metric("tidegate_response_body_bytes_total", &[]).await - sent;
    assert_eq!(more, 20.0, "of an object");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_volume_brings_and_who_joins_whom_is_told() {
    let (origin, folder) = (Origin::serving("/a", Script::of(2 * BLOCK)), TempDir::new().unwrap());
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .volume(folder.path(), "ssd")
        .start();
    assert_eq!(edge.get("/a").send().await.status, 200);
    edge.until_metric("tidegate_ssd_index_entries", &[], |entries| entries >= 2.0).await;
    edge.evict(100);
    let mut follower = Follower::of(&edge, "tier%20%3D%20ssd").await;
    assert_eq!(edge.get("/a").send().await.status, 200);
    let told = follower.next().await.unwrap();
    let decisions = decisions(&told);
    assert!(decisions.contains(&"volume: brought what was missing".to_owned()), "{told}");
    assert!(decisions.contains(&"sent: ssd".to_owned()), "{told}");
    assert!(!decisions.contains(&"sent: fill".to_owned()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_the_requests_that_his_filter_names() {
    let origin = Origin::serving("/seg-1", Script::of(PIECE));
    origin.serve("/other", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).setting("log.client_bits_v4", "24").start();
    let mut wanted = Follower::of(&edge, "status%3E%3D400%20or%20path%20~%20seg").await;
    let mut of_his_net = Follower::of(&edge, "client%20=%20127.0.0.0/24").await;
    let mut of_him = Follower::of(&edge, "client%20=%20127.0.0.1").await;
    for path in ["/other", "/seg-1", "/none", "/other", "/seg-1"] {
        edge.get(path).send().await;
    }
    for expected in ["/seg-1", "/none", "/seg-1"] {
        assert_eq!(wanted.next().await.unwrap()["path"], expected);
    }
    // What the log keeps back cannot be asked for.
    let told = of_his_net.next().await.unwrap();
    assert_eq!((&told["path"], &told["client"]), (&"/other".into(), &"127.0.0.0".into()));
    edge.drain().await;
    assert_eq!(of_him.next().await, None);
    assert_eq!(wanted.next().await, None, "it ends with the appliance");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_follow_and_one_who_leaves_makes_room() {
    let edge = Edge::in_front_of(&Origin::start()).start();
    let mut readers = Vec::new();
    for _ in 0..tidegate::limits::LOG_READERS_MAX {
        readers.push(Follower::of(&edge, "").await);
    }
    let refused = edge.admin().get("/log").send().await;
    let line = "{\"error\":\"not followed: 4 follow the log, and no more may\"}\n";
    assert_eq!((refused.status, text(&refused.body)), (503, line.to_owned()));
    readers.pop();
    let left = tokio::time::Instant::now();
    while edge.admin().get("/log").open().await.status != 200 {
        assert!(left.elapsed() < PATIENCE, "there is no room");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_a_token_it_is_shown() {
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let token = token.to_str().unwrap();
    let edge = Edge::in_front_of(&Origin::start()).setting("admin.token_file", token).start();
    assert_eq!(edge.admin().get("/log").send().await.status, 401);
    let admin = edge.admin().address().to_string();
    let refused = tidegate(&["log", "--admin", &admin]);
    assert_eq!(refused.status.code(), Some(1));
    let words = ["log", "--admin", &admin, "--token-file", token, "--number", "1", "--json"];
    let shown = asking_meanwhile(&edge, &words).await;
    let told: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((shown.status.code(), &told["path"]), (Some(0), &"/none".into()), "{told}");
}

/// What the command says while requests come by.
async fn asking_meanwhile(edge: &Edge, words: &[&str]) -> Output {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let shown = tokio::task::spawn_blocking(move || {
        tidegate(&words.iter().map(String::as_str).collect::<Vec<_>>())
    });
    while !shown.is_finished() {
        edge.get("/none").send().await;
    }
    shown.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_a_block_for_each_request_and_a_wrong_filter_is_one_clear_line() {
    let origin = Origin::start();
    let mut edge = Edge::in_front_of(&origin).start();
    let admin = edge.admin().address().to_string();
    let shown = asking_meanwhile(&edge, &["log", "--admin", &admin, "--number", "2"]).await;
    let told = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert_eq!(told.matches("GET media.test/none  404 ").count(), 2, "{told}");
    assert_eq!(told.matches("end      complete").count(), 2, "{told}");

    let wrong = tidegate(&["log", "--admin", &admin, "--filter", "status ~ 5"]);
    let line = "filter, column 8: `status` is compared by = != < <= > >=\n";
    assert_eq!((wrong.status.code(), text(&wrong.stderr)), (Some(64), line.to_owned()));

    let viewers = edge.client().address().to_string();
    let stranger = tidegate(&["log", "--admin", &viewers]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger.stderr).contains("is no admin listener of Tidegate"), "{stranger:?}");
    edge.drain().await;
    let silent = tidegate(&["log", "--admin", &admin]);
    assert_eq!(silent.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_playback_are_told_in_order_with_where_their_time_went() {
    let origin = Origin::serving("/1.m4s", Script::of(3 * PIECE));
    origin.serve("/2.m4s", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).start();
    let admin = edge.admin().address().to_string();
    let asked = [("/1.m4s", "a b"), ("/2.m4s", "other"), ("/2.m4s", "a b"), ("/1.m4s", "a b")];
    for (number, (path, sid)) in asked.into_iter().enumerate() {
        let (session, request) = (format!("sid=\"{sid}\""), format!("bl={number}00,su"));
        let request =
            edge.get(path).header("CMCD-Session", &session).header("CMCD-Request", &request);
        let request = if number == 3 { request.header("CMCD-Status", "bs") } else { request };
        assert_eq!(request.send().await.status, 200);
        until_runs(&edge.admin(), <[_]>::is_empty).await;
    }
    // A thread of its own writes them down.
    let told = loop {
        let shown = tidegate(&["session", "a b", "--admin", &admin, "--json"]);
        if let Ok(told) = serde_json::from_slice::<Value>(&shown.stdout)
            && told["sums"]["requests"] == 3
        {
            break told;
        }
    };
    let of = |name: &str| -> Vec<Value> {
        told["requests"].as_array().unwrap().iter().map(|told| told[name].clone()).collect()
    };
    assert_eq!(of("path"), ["/1.m4s", "/2.m4s", "/1.m4s"]);
    assert_eq!(of("lookup"), ["miss", "hit", "hit"]);
    assert_eq!(of("buffer_ms"), [0, 200, 300]);
    assert_eq!(of("is_starved"), [false, false, true]);
    assert_eq!(
        (&told["sums"]["starvations"], &told["sums"]["bytes"]),
        (&1.into(), &(7 * PIECE).into())
    );
    let waits = of("origin_wait_us");
    assert!(waits[0].as_u64().unwrap() > 0, "a miss waits for its origin: {told}");
    assert_eq!(waits[1..], [0, 0], "a hit waits for no origin");
    for request in told["requests"].as_array().unwrap() {
        let parts = ["origin_wait_us", "ssd_wait_us", "own_us", "reading_us"];
        let sum: u64 = parts.iter().map(|part| request[*part].as_u64().unwrap()).sum();
        assert_eq!(
            sum,
            request["duration_us"].as_u64().unwrap(),
            "nothing is left over: {request}"
        );
    }
    assert_eq!(told["remembered"]["requests"], 4);

    let shown = tidegate(&["session", "a b", "--admin", &admin]);
    let words = text(&shown.stdout);
    assert!(words.contains("3 requests, 0 failed, 448.0 KiB in "), "{words}");
    assert!(words.contains("4 requests of all playbacks remembered, since "), "{words}");
    let none = tidegate(&["session", "c", "--admin", &admin]);
    let line = text(&none.stderr);
    assert_eq!((none.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.starts_with("nothing is known of a session \"c\"; 4 requests of all "), "{line}");
    let long = "x".repeat(65);
    assert_eq!(tidegate(&["session", &long, "--admin", &admin]).status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hot_is_told_with_the_time_that_is_looked_at() {
    let origin = Origin::serving("/hot", Script::of(PIECE));
    origin.serve("/large", Script::of(BLOCK));
    let edge = Edge::in_front_of(&origin).start();
    let admin = edge.admin().address().to_string();
    for path in ["/hot", "/large", "/hot", "/none", "/hot"] {
        gets(&edge, path).await;
    }
    let top = |words: &[&str]| {
        let words = [&["top", "--once", "--admin", &admin], words].concat();
        let shown = tidegate(&words);
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        text(&shown.stdout)
    };
    // A thread of its own writes them down.
    let told = loop {
        let told: Value = serde_json::from_str(&top(&["--json"])).unwrap();
        if told["all"]["requests"] == 5 {
            break told;
        }
    };
    let names = |told: &Value, kind: &str| -> Vec<Value> {
        told[kind].as_array().unwrap().iter().map(|told| told["name"].clone()).collect()
    };
    assert_eq!(names(&told, "objects")[0], "media.test/hot");
    assert_eq!(
        (&told["objects"][0]["requests"], &told["objects"][0]["hits"]),
        (&3.into(), &2.into())
    );
    assert_eq!(told["objects"][0]["surplus"], 0, "nothing took another's place");
    assert_eq!(names(&told, "sites"), ["media"]);
    assert_eq!(told["sites"][0]["origin_requests"], 3, "{told}");
    assert_eq!(names(&told, "clients"), ["127.0.0.0/24"]);
    assert_eq!(names(&told, "failures"), ["media: 404"]);

    let by_bytes: Value = serde_json::from_str(&top(&["--json", "--by", "bytes"])).unwrap();
    assert_eq!(names(&by_bytes, "objects")[0], "media.test/large");
    let words = top(&["--rows", "1"]);
    assert!(words.contains(": 5 requests ("), "{words}");
    assert!(words.contains("\n(the process has run for no longer)\n"), "{words}");
    assert!(words.contains("  media.test/hot\n") && !words.contains("/large"), "{words}");
    assert!(words.contains("  requests  failure\n         1  media: 404\n"), "{words}");
    let wrong = tidegate(&["top", "--once", "--admin", &admin, "--seconds", "3601"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).starts_with("error: invalid value '3601'"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_until_ctrl_c_ends_by_it_and_has_not_failed() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let admin = edge.admin().address().to_string();
    for words in [&["log"][..], &["top"], &["log", "--json"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args([words, &["--admin", &admin]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::task::spawn_blocking(move || (lines.next(), lines));
        while !first.is_finished() {
            edge.get("/none").send().await;
        }
        let (first, _open) = first.await.unwrap();
        assert!(first.is_some_and(|line| line.is_ok()), "{words:?}");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{words:?}");
    }
}
