//! What players tell of themselves (CMCD): written into the log and counted, whatever they make up.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Edge, Origin, PIECE, Script};

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
        ("CMCD-Request", "bl=2100,dl=1800,mtp=48100,su,nor=\"..%2Fb.m4s\",nrr=\"0-99\""),
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
        ("tidegate_cmcd_throughput_bits_per_second_sum", &[], 48_100_000.0),
    ] {
        assert_eq!(edge.metric(name, labels).await, count, "{name} {labels:?}");
    }
}
