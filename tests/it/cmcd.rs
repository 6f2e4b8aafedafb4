//! What players tell of themselves (CMCD): written into the log and counted, whatever they make up.

use std::time::Duration;

use serde_json::{Value, json};

use tempfile::TempDir;

use crate::support::{BLOCK, Edge, Origin, PIECE, Script, Verdict, judge};

/// What the log says of each request, in the order they were made.
async fn logged(asked: &[(&str, &[(&str, &str)])]) -> (Vec<Value>, Edge) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).setting("log.access", &log.to_string_lossy()).start();
    let mut lines: Vec<Value> = Vec::new();
    for (number, (query, fields)) in asked.iter().enumerate() {
        let request = edge.get(&format!("/a{query}"));
        let request =
            fields.iter().fold(request, |asking, (name, value)| asking.header(name, value));
        assert_eq!(request.send().await.status, 200);
        let written = async {
            while lines.len() <= number {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                lines = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.expect("it is logged");
    }
    (lines, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_player_tells_is_logged_as_what_it_is() {
    let fields: &[(&str, &str)] = &[
        (
            "CMCD-Request",
            "bl=2100,dl=1800,mtp=48100,su,nor=\"..%2Fb.m4s%3Ftoken%3Dsecret\",nrr=\"0-99\"",
        ),
        ("CMCD-Object", "br=3200,d=4004,ot=v,tb=6000,com.example-own=\"secret\""),
        ("CMCD-Status", "bs,rtp=15000"),
        ("CMCD-Session", "cid=\"film\",pr=1.08,sf=h,sid=\"6e2fb550\",st=v"),
    ];
    let (lines, edge) = logged(&[
        ("", fields),
        ("?CMCD=bl%3D%28100%29%2Cot%3Da%2Cv%3D2", &[]),
        ("?CMCD=bl%3D5", &[("CMCD-Object", "ot=i")]),
        ("?CMCD=bl%3D5%2Cv%3D3", &[]),
        ("", &[("CMCD-Session", "sid=6e2fb550")]),
        ("", &[]),
    ])
    .await;
    let told: Vec<_> = lines.iter().map(|line| line["cmcd"].clone()).collect();
    let expected = [
        json!({
            "sid": "6e2fb550", "cid": "film", "ot": "v", "br": 3200, "tb": 6000, "bl": 2100,
            "bs": true, "su": true, "rtp": 15000, "mtp": 48100, "dl": 1800, "d": 4004, "sf": "h",
            "st": "v", "pr": 1.08, "nor": "../b.m4s", "nrr": "0-99",
        }),
        json!({ "ot": "a", "bl": 100, "v": 2 }),
        json!({ "ot": "i" }),
        Value::Null,
        Value::Null,
        Value::Null,
    ];
    assert_eq!(told, expected);
    assert!(lines.iter().all(|line| line["path"] == "/a"), "{lines:?}");

    for (name, labels, count) in [
        ("tidegate_cmcd_requests_total", &["object_type=\"v\""][..], 1.0),
        ("tidegate_cmcd_requests_total", &["object_type=\"a\""], 1.0),
        ("tidegate_cmcd_requests_total", &["object_type=\"i\""], 1.0),
        ("tidegate_cmcd_requests_total", &["object_type=\"none\""], 0.0),
        ("tidegate_cmcd_starvations_total", &[], 1.0),
        ("tidegate_cmcd_startups_total", &[], 1.0),
        ("tidegate_cmcd_buffer_seconds_bucket", &["le=\"0.5\""], 1.0),
        ("tidegate_cmcd_buffer_seconds_bucket", &["le=\"5\""], 2.0),
        ("tidegate_cmcd_throughput_bytes_per_second_sum", &[], 6_012_500.0),
    ] {
        assert_eq!(edge.metric(name, labels).await, count, "{name} {labels:?}");
    }
}

const PREFETCHES: &str = "tidegate_cmcd_prefetches_total";

/// Waits until so many fills have brought what they were to bring.
async fn until_filled(edge: &Edge, fills: f64) {
    let complete = ["outcome=\"complete\""];
    edge.until_metric("tidegate_fill_runs_finished_total", &complete, |count| count == fills).await;
}

async fn prefetched(edge: &Edge, outcome: &str) -> f64 {
    edge.metric(PREFETCHES, &[&format!("outcome=\"{outcome}\"")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_player_says_it_will_ask_for_is_there_when_it_does() {
    let origin = Origin::start();
    for path in ["/x/1", "/x/2", "/y/3", "/x/4"] {
        origin.serve(path, Script::of(3 * PIECE));
    }
    let edge = Edge::in_front_of(&origin).rule("**", "prefetch = 'cmcd'\nquery = 'none'").start();
    let telling = async |path: &str, next: &str| {
        edge.get(path).header("CMCD-Request", &format!("nor={next}")).send().await
    };
    for (fills, path, next, there) in [
        (2.0, "/x/1", "\"2\"", "/x/2"),
        (3.0, "/x/2", "(\"..%2Fy%2F3?CMCD=x\"),v=2", "/y/3"),
        (4.0, "/y/3?CMCD=z", "\"/x/./4\"", "/x/4"),
    ] {
        assert_eq!(telling(path, next).await.status, 200);
        until_filled(&edge, fills).await;
        assert_eq!(origin.requests(there).len(), 1, "{next}");
        let asked = edge.get(there).send().await;
        assert!(asked.header("cache-status").contains("hit"), "{next}");
        assert_eq!(judge(&origin, there, &asked), Verdict::Whole { version: 1 });
        assert_eq!(origin.requests(there).len(), 1, "{next}");
    }
    assert_eq!(prefetched(&edge, "started").await, 3.0);
    telling("/x/1", "\"2\"").await;
    assert_eq!((prefetched(&edge, "started").await, prefetched(&edge, "known").await), (3.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_volume_holds_is_not_asked_for_ahead() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = Edge::in_front_of(&origin).rule("**", "prefetch = 'cmcd'");
    let edge = edge.setting("ssd.admission", "all").volume(folder.path(), "a").start();
    for path in ["/x/1", "/x/2"] {
        origin.serve(path, Script::of(BLOCK));
        edge.get(path).send().await;
    }
    // A head and a block of each.
    edge.until_metric("tidegate_ssd_index_entries", &[], |records| records == 4.0).await;
    edge.evict(100);
    edge.forget_heads();
    edge.get("/x/1").header("CMCD-Request", "nor=\"2\"").send().await;
    assert_eq!((prefetched(&edge, "known").await, prefetched(&edge, "started").await), (1.0, 0.0));
    let held = edge.get("/x/2").send().await;
    assert_eq!(judge(&origin, "/x/2", &held), Verdict::Whole { version: 1 });
    assert_eq!(origin.requests("/x/2").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_part_of_the_same_object_is_there_when_it_is_asked_for() {
    let length = 4 * BLOCK;
    let origin = Origin::serving("/a", Script::of(length));
    let edge = Edge::in_front_of(&origin).rule("**", "prefetch = 'cmcd'").start();
    let next = format!("nrr=\"{}-{}\"", 2 * BLOCK, 2 * BLOCK + PIECE - 1);
    let first = edge.get("/a").range(0..100).header("CMCD-Request", &next);
    assert_eq!(first.send().await.status, 206);
    until_filled(&edge, 2.0).await;
    assert_eq!((origin.requests("/a").len(), prefetched(&edge, "started").await), (2, 1.0));
    let part = edge.get("/a").range(2 * BLOCK..2 * BLOCK + PIECE).send().await;
    assert!(part.header("cache-status").contains("hit"));
    assert_eq!(judge(&origin, "/a", &part), Verdict::Whole { version: 1 });
    assert_eq!(origin.requests("/a").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_brought_ahead_that_he_could_not_ask_for_or_that_no_rule_lets_be() {
    let origin = Origin::start();
    for path in ["/a", "/b", "/c", "/d", "/e", "/off/b"] {
        origin.serve(path, Script::of(PIECE));
    }
    let edge = Edge::in_front_of(&origin).rule("/off/**", "").rule("**", "prefetch = 'cmcd'");
    let edge = edge.start();
    let asks = |path: &str, next: &str| edge.get(path).header("CMCD-Request", next);
    for (number, refused) in [
        asks("/a", "nor=\"//evil.test/b\""),
        asks("/a", "nor=\"http://media.test/b\""),
        asks("/a", "nor=\"/off/b\""),
        asks("/a", "nor=\"a\""),
        asks("/a", "nor=\"b#c\""),
        asks("/a", "nor=\"b\"").header("Cookie", "a=b"),
        asks("/a", "nor=\"b\"").header("Authorization", "Basic x"),
    ]
    .into_iter()
    .enumerate()
    {
        refused.send().await;
        assert_eq!(prefetched(&edge, "refused").await, number as f64 + 1.0, "{refused}");
    }
    for ignored in [asks("/off/b", "nor=\"../b\""), asks("/a", "nor=\"b\",v=3")] {
        ignored.send().await;
    }
    until_filled(&edge, 2.0).await;
    assert_eq!((origin.requests("/b").len(), prefetched(&edge, "started").await), (0, 0.0));

    // Of a list a few.
    asks("/a", "nor=(\"b\" \"c\" \"d\" \"e\"),v=2").send().await;
    until_filled(&edge, 4.0).await;
    let requests = ["/b", "/c", "/d", "/e"].map(|path| origin.requests(path).len());
    assert_eq!((requests, prefetched(&edge, "started").await), ([1, 1, 0, 0], 2.0));
}
