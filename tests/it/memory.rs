//! However many read however slowly: what is pinned stays within its budget, and others are served.
//!
//! What is asserted is what the governor has reserved; resident memory is measured from outside.

use std::time::Duration;

use crate::support::{
    BLOCK, Edge, Origin, PIECE, Script, Speaks, Streaming, Validators, Verdict, judge,
};

const SLOW: usize = 300;
const LENGTH: u64 = 64 * BLOCK;
const USED: &str = "tidegate_memory_used_bytes";
const BUDGET: &str = "tidegate_memory_budget_bytes";

/// For each use: no more reserved than may be.
async fn assert_within_budget(edge: &Edge, when: &str) {
    for purpose in ["ram", "fill", "client", "heads", "connections", "origins", "requests"] {
        let label = format!("use=\"{purpose}\"");
        let used = edge.metric(USED, &[&label]).await;
        let budget = edge.metric(BUDGET, &[&label]).await;
        assert!(used <= budget, "{purpose} {when}: {used} of {budget}");
    }
}

/// Viewers of distinct objects who took one byte and read no further.
async fn slow_readers(origin: &Origin, edge: &Edge) -> Vec<Streaming> {
    let mut readers = vec![];
    for number in 0..SLOW {
        let path = format!("/slow/{number}");
        origin.serve(&path, Script::of(LENGTH));
        let client = edge.client().receive_buffer(4 << 10);
        let mut reader = client.get(&path).open().await;
        assert_eq!(reader.status, 200, "{path}");
        let first = reader.read(1).await.unwrap().expect("a first byte");
        assert_eq!(origin.content(&path, 1).first_difference(0, &first), None);
        readers.push(reader);
    }
    readers
}

#[tokio::test]
async fn slow_readers_of_distinct_objects_pin_little_and_others_are_served() {
    let origin = Origin::serving("/other", Script::of(4 * BLOCK));
    let edge = Edge::in_front_of(&origin).setting("memory.total", "192 MiB").start();
    let mut readers = slow_readers(&origin, &edge).await;
    assert_within_budget(&edge, "with all slow readers").await;
    let client = edge.metric(USED, &["use=\"client\""]).await;
    let many = (SLOW as u64 * 4 * PIECE) as f64;
    assert!(client <= many, "{client} bytes pinned for {SLOW} readers who take nothing");

    for number in 0..60 {
        let path = format!("/crawl/{number}");
        origin.serve(&path, Script::of(3 * BLOCK + number));
        let crawled = edge.get(&path).send().await;
        assert_eq!(judge(&origin, &path, &crawled), Verdict::Whole { version: 1 }, "{path}");
        assert_within_budget(&edge, &path).await;
    }
    let other = edge.get("/other").send().await;
    assert_eq!(judge(&origin, "/other", &other), Verdict::Whole { version: 1 });

    for (number, reader) in readers.iter_mut().enumerate().take(20) {
        let path = format!("/slow/{number}");
        let more = reader.read_exactly(2 * PIECE as usize).await.unwrap();
        assert_eq!(origin.content(&path, 1).first_difference(1, &more), None, "{path}");
    }
}

#[tokio::test]
async fn a_body_held_for_one_byte_has_the_piece_it_lies_in_reserved() {
    let origin = Origin::serving("/a", Script::of(BLOCK).validators(Validators::Weak));
    let edge = Edge::in_front_of(&origin).start();
    let whole = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &whole), Verdict::Whole { version: 1 });
    edge.until_metric(USED, &["use=\"client\""], |used| used == 0.0).await;

    let client = edge.client_over_tls(Speaks::Http2).stream_window(0);
    let connection = client.connect().await.unwrap();
    let mut unread = vec![];
    for number in 0..16 {
        let asked = client.get("/a").range(number * PIECE + 7..number * PIECE + 8);
        unread.push(asked.on(connection.shared().unwrap()).await.unwrap());
    }
    let used = edge.metric(USED, &["use=\"client\""]).await;
    assert!(used >= 16.0 * PIECE as f64, "{used} reserved for 16 pieces");
}

#[tokio::test]
async fn what_viewers_had_pinned_is_given_back_when_they_leave() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).setting("memory.total", "192 MiB").start();
    drop(slow_readers(&origin, &edge).await);
    // Of connections, that of whoever reads the metrics is left.
    edge.until_metric("tidegate_connections_open", &[], |open| open <= 1.0).await;
    for purpose in ["use=\"client\"", "use=\"fill\""] {
        edge.until_metric(USED, &[purpose], |used| used == 0.0).await;
    }
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |runs| runs == 0.0).await;
}

#[tokio::test]
async fn a_reader_slower_than_allowed_is_cut_off_and_counted() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin)
        .setting("limits.slow_reader", "{ bytes = '64 KiB', period = '200ms' }")
        .start();
    let mut reader = edge.client().receive_buffer(4 << 10).get("/a").open().await;
    reader.read(1).await.unwrap();
    let reason = ["reason=\"slow_reader\""];
    edge.until_metric("tidegate_connections_closed_total", &reason, |count| count >= 1.0).await;
    let cut = ["outcome=\"cut_short\""];
    edge.until_metric("tidegate_response_bodies_total", &cut, |count| count >= 1.0).await;
    let rest = reader.finish().await.unwrap();
    assert!(!rest.complete && rest.body.len() < LENGTH as usize);
    assert_eq!(origin.content("/a", 1).first_difference(1, &rest.body), None);
}

#[tokio::test]
async fn a_reader_who_keeps_the_pace_is_not_cut_off() {
    let origin = Origin::serving("/a", Script::of(BLOCK));
    let edge = Edge::in_front_of(&origin)
        .setting("limits.slow_reader", "{ bytes = '1 KiB', period = '500ms' }")
        .start();
    let reader = edge.client().receive_buffer(64 << 10).get("/a").open().await;
    let came = tokio::time::timeout(PATIENT, reader.finish_slowly(400_000)).await;
    let whole = came.expect("the body ends").unwrap();
    assert_eq!(judge(&origin, "/a", &whole), Verdict::Whole { version: 1 });
}

const PATIENT: Duration = Duration::from_secs(30);
