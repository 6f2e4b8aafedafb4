//! Any number of viewers of what is missing cost the origin one request, whoever comes and goes.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{
    BLOCK, Edge, Ending, HeadFault, Origin, PIECE, Script, Speaks, Streaming, Validators, Verdict,
    follow, judge,
};

const VIEWERS: usize = 500;
const LENGTH: u64 = 8 * BLOCK;
const WHOLE: Verdict = Verdict::Whole { version: 1 };
/// What may lie in socket buffers between the origin and the edge.
const IN_THE_KERNEL: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn five_hundred_viewers_of_a_cold_object_cost_one_request() {
    let slow = Script::of(LENGTH).first_byte_after(Duration::from_millis(200)).rate(32 << 20);
    let origin = Origin::serving("/film", slow);
    let edge = Edge::in_front_of(&origin).setting("fill.window", "16 MiB").start();

    let mut viewers = JoinSet::new();
    for _ in 0..VIEWERS {
        let (asked, content) = (edge.get("/film"), origin.content("/film", 1));
        viewers.spawn(async move {
            let mut streaming = asked.open().await;
            assert_eq!(streaming.status, 200);
            follow(&mut streaming, content, 0).await
        });
    }
    for came in viewers.join_all().await {
        assert_eq!(came, (LENGTH, true), "each viewer has every byte");
    }
    assert_eq!(origin.requests("/film").len(), 1);
    assert_eq!(origin.bytes_sent("/film"), LENGTH);
}

#[tokio::test]
async fn viewers_of_other_parts_within_the_window_share_the_run() {
    let origin = Origin::serving("/film", Script::of(LENGTH).ending(Ending::HeldAt(2 * BLOCK)));
    let edge = Edge::in_front_of(&origin).setting("fill.window", "16 MiB").start();
    let mut first = edge.get("/film").open().await;
    first.read_exactly(BLOCK as usize).await.unwrap();

    let mut others = JoinSet::new();
    for block in 0..LENGTH / BLOCK {
        let middle = block * BLOCK + BLOCK / 2;
        let asked = edge.get("/film").range(middle..middle + BLOCK / 2 + 10);
        others.spawn(async move { asked.send().await });
    }
    // The first, and the others but the one whose bytes have landed.
    edge.until_metric("tidegate_connections_open", &[], |open| open >= 8.0).await;
    origin.release("/film");
    for part in others.join_all().await {
        assert_eq!(judge(&origin, "/film", &part), WHOLE);
    }
    let rest = first.finish().await.unwrap();
    assert_eq!(rest.body.len() as u64, LENGTH - BLOCK);
    assert_eq!(origin.requests("/film").len(), 1, "all within what the run has claimed");
}

#[tokio::test]
async fn bytes_reach_every_viewer_as_they_land() {
    let held = 3 * PIECE + 5;
    let origin = Origin::serving("/film", Script::of(LENGTH).ending(Ending::HeldAt(held)));
    let edge = Edge::in_front_of(&origin).start();
    let content = origin.content("/film", 1);
    let mut viewers = vec![];
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        for _ in 0..3 {
            let mut viewer = client.get("/film").open().await;
            let landed = viewer.read_exactly(3 * PIECE as usize).await.unwrap();
            assert_eq!(content.first_difference(0, &landed), None);
            viewers.push(viewer);
        }
    }
    origin.release("/film");
    for mut viewer in viewers {
        let came = follow(&mut viewer, content, 3 * PIECE).await;
        assert_eq!(came, (LENGTH - 3 * PIECE, true));
    }
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn the_first_viewer_leaving_changes_nothing_for_the_others() {
    let origin = Origin::serving("/film", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let edge = Edge::in_front_of(&origin).setting("fill.window", "16 MiB").start();
    let mut first = edge.get("/film").open().await;
    first.read_exactly(PIECE as usize).await.unwrap();
    let mut second = edge.get("/film").open().await;
    // All there is: now he waits for the run too.
    second.read_exactly(BLOCK as usize).await.unwrap();
    edge.until_followed("/film", 2).await;

    drop(first);
    let left = ["outcome=\"client_left\""];
    edge.until_metric("tidegate_response_bodies_total", &left, |count| count >= 1.0).await;
    origin.release("/film");
    let came = follow(&mut second, origin.content("/film", 1), BLOCK).await;
    assert_eq!(came, (LENGTH - BLOCK, true));
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn the_first_viewer_leaving_before_the_head_changes_nothing_for_the_others() {
    let origin = Origin::serving("/film", Script::of(LENGTH).head(HeadFault::Held));
    let edge = Edge::in_front_of(&origin).setting("fill.window", "16 MiB").start();
    let ask = || {
        let asked = edge.get("/film");
        tokio::spawn(async move { asked.send().await })
    };
    let first = ask();
    origin.until_requested("/film", 1).await;
    let others = [ask(), ask(), ask()];
    edge.until_metric("tidegate_connections_open", &[], |count| count >= 4.0).await;
    first.abort();
    edge.until_metric("tidegate_connections_open", &[], |count| count <= 4.0).await;
    origin.release("/film");
    for other in others {
        assert_eq!(judge(&origin, "/film", &other.await.unwrap()), WHOLE);
    }
    // A second one only where the first viewer was gone before any other had been seen.
    assert!(origin.requests("/film").len() <= 2);
}

const FILM: u64 = 40 * BLOCK;

/// An origin that stops behind twenty blocks until it is released, and room for all of it.
fn half_a_film() -> (Origin, Edge) {
    let held = FILM / 2 + BLOCK / 2;
    let origin = Origin::serving("/film", Script::of(FILM).ending(Ending::HeldAt(held)));
    let edge = Edge::in_front_of(&origin)
        .setting("fill.window", "64 MiB")
        .ram("256 MiB")
        .setting("memory.total", "1 GiB")
        .start();
    (origin, edge)
}

#[tokio::test]
async fn a_run_goes_on_for_who_has_not_caught_up_with_it() {
    let (origin, edge) = half_a_film();
    let mut first = edge.get("/film").open().await;
    first.read_exactly(20 * BLOCK as usize).await.unwrap();
    let mut slow = edge.get("/film").open().await;
    slow.read_exactly(PIECE as usize).await.unwrap();
    drop(first);
    let left = ["outcome=\"client_left\""];
    edge.until_metric("tidegate_response_bodies_total", &left, |count| count >= 1.0).await;
    origin.release("/film");
    // With nobody reading at its head.
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    let came = follow(&mut slow, origin.content("/film", 1), PIECE).await;
    assert_eq!(came, (FILM - PIECE, true));
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn a_run_that_began_behind_what_is_held_goes_on_for_who_reads_that() {
    let (origin, edge) = half_a_film();
    let start = edge.get("/film").range(0..20 * BLOCK).send().await;
    assert_eq!(start.body.len() as u64, 20 * BLOCK);
    let mut ahead = edge.get("/film").range_from(20 * BLOCK).open().await;
    ahead.read_exactly(PIECE as usize).await.unwrap();
    let mut slow = edge.get("/film").open().await;
    // Several slices.
    slow.read_exactly(2 * BLOCK as usize).await.unwrap();
    drop(ahead);
    let left = ["outcome=\"client_left\""];
    edge.until_metric("tidegate_response_bodies_total", &left, |count| count >= 1.0).await;
    origin.release("/film");
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    let came = follow(&mut slow, origin.content("/film", 1), 2 * BLOCK).await;
    assert_eq!(came, (FILM - 2 * BLOCK, true));
    assert_eq!(origin.requests("/film").len(), 2);
}

#[tokio::test]
async fn the_last_viewer_leaving_ends_the_run_at_the_next_block_border() {
    let length = 64 * BLOCK;
    let held = 2 * BLOCK + BLOCK / 2;
    let origin = Origin::serving("/film", Script::of(length).ending(Ending::HeldAt(held)));
    let edge = Edge::in_front_of(&origin).setting("fill.window", "64 MiB").start();
    let mut only = edge.get("/film").open().await;
    only.read_exactly(2 * BLOCK as usize).await.unwrap();
    // The third block is under way.
    edge.until_metric("tidegate_origin_body_bytes_total", &[], |bytes| bytes >= held as f64).await;
    drop(only);
    let left = ["outcome=\"client_left\""];
    edge.until_metric("tidegate_response_bodies_total", &left, |count| count >= 1.0).await;
    origin.release("/film");
    origin.until_idle("/film").await;
    let flying = "tidegate_fill_runs_in_flight";
    edge.until_metric(flying, &[], |count| count == 0.0).await;
    let sent = origin.bytes_sent("/film");
    assert!(sent <= 3 * BLOCK + IN_THE_KERNEL, "{sent} bytes for nobody");

    // The block under way was finished and is held; the next was not begun.
    origin.serve("/film", Script::of(length));
    let requests = origin.requests("/film").len();
    let finished = edge.get("/film").range(0..3 * BLOCK).send().await;
    assert_eq!(judge(&origin, "/film", &finished), WHOLE);
    assert_eq!(origin.requests("/film").len(), requests);
    let beyond = edge.get("/film").range(3 * BLOCK - 5..3 * BLOCK + 5).send().await;
    assert_eq!(judge(&origin, "/film", &beyond), WHOLE);
    let asked = origin.requests("/film");
    assert_eq!(asked.len(), requests + 1);
    assert_eq!(asked[requests].head.range().map(|(first, _)| first), Some(3 * BLOCK));
}

/// An object that cannot be joined, whose first viewer took a byte and reads no further.
async fn beside_one_who_stands_still() -> (Origin, Edge, Streaming) {
    let script = Script::of(24 * BLOCK).validators(Validators::Weak);
    let origin = Origin::serving("/a", script);
    let edge = Edge::in_front_of(&origin)
        .setting("fill.window", "1 MiB")
        .setting("fill.connect_timeout", "1s")
        .setting("fill.first_byte_timeout", "1s")
        .setting("fill.progress_timeout", "1s")
        .start();
    let mut still = edge.client().receive_buffer(4 << 10).get("/a").open().await;
    still.read(1).await.unwrap();
    (origin, edge, still)
}

#[tokio::test]
async fn a_reader_who_stands_still_cuts_nobody_short() {
    let (origin, edge, _still) = beside_one_who_stands_still().await;
    let other = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &other), WHOLE);
}

#[tokio::test]
async fn a_run_with_little_left_is_finished_though_nobody_waits() {
    let length = 2 * BLOCK + PIECE;
    let held = 2 * BLOCK - 10;
    let origin = Origin::serving("/film", Script::of(length).ending(Ending::HeldAt(held)));
    let edge = Edge::in_front_of(&origin).start();
    let mut only = edge.get("/film").open().await;
    // A byte of the second block: the run did not stop at the border before it.
    only.read_exactly(BLOCK as usize + 1).await.unwrap();
    drop(only);
    let left = ["outcome=\"client_left\""];
    edge.until_metric("tidegate_response_bodies_total", &left, |count| count >= 1.0).await;
    origin.release("/film");
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    let again = edge.get("/film").range(0..2 * BLOCK).send().await;
    assert_eq!(judge(&origin, "/film", &again), WHOLE);
    assert_eq!(origin.requests("/film").len(), 1, "the block under way was finished at least");
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_costs_few_attempts() {
    let failing = Script::of(LENGTH).status(503).without("Cache-Control").first_byte_after(LATE);
    let origin = Origin::serving("/film", failing);
    let edge = Edge::in_front_of(&origin).rule("**", "lifetime = { errors = '10s' }").start();
    let mut viewers = JoinSet::new();
    for _ in 0..50 {
        let asked = edge.get("/film");
        viewers.spawn(async move { asked.send().await.status });
    }
    for status in viewers.join_all().await {
        assert!([502, 503, 504].contains(&status), "{status}");
    }
    let attempts = tidegate::limits::FILL_ATTEMPTS_MAX as usize;
    let requests = origin.requests("/film").len();
    assert!(requests <= 2 * attempts, "{requests} requests of a failing origin");
}

const LATE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn who_waits_for_a_run_of_others_is_told_that_there_is_none() {
    let origin = Origin::serving("/a", Script::of(8 * BLOCK));
    let edge = Edge::in_front_of(&origin)
        .setting("fill.runs", "1")
        .setting("fill.first_byte_timeout", "500ms")
        .start();
    edge.get("/a").range(0..10).send().await;
    origin.serve("/held", Script::of(BLOCK).ending(Ending::HeldAt(PIECE)));
    let mut held = edge.get("/held").open().await;
    held.read_exactly(10).await.unwrap();
    let refused = edge.get("/a").range(4 * BLOCK..4 * BLOCK + 10).send().await;
    assert_eq!((refused.status, refused.header("retry-after").is_empty()), (503, false));
    let in_flight = edge.metric("tidegate_fill_runs_in_flight", &[]).await;
    assert_eq!(in_flight, 1.0, "the one that is held");
}

#[tokio::test]
async fn a_reader_who_stands_still_cuts_nobody_short_however_many_come_and_go() {
    let (origin, edge, _still) = beside_one_who_stands_still().await;
    let others = async {
        loop {
            edge.get("/a").range(0..10).send().await;
            tokio::time::sleep(LATE).await;
        }
    };
    let asked = edge.get("/a");
    let other = tokio::select! {
        other = asked.send() => other,
        () = others => unreachable!("they come for ever"),
    };
    assert_eq!(judge(&origin, "/a", &other), WHOLE);
}

#[tokio::test]
async fn who_keeps_up_is_not_cut_short_because_no_run_could_go_ahead_of_him() {
    let held = BLOCK - 10;
    let script = Script::of(4 * BLOCK);
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin)
        .setting("fill.window", "1 MiB")
        .setting("fill.runs", "1")
        .setting("fill.first_byte_timeout", "500ms")
        .start();
    let (name, failed) = ("tidegate_fill_runs_finished_total", ["outcome=\"failed\""]);
    // On a busy machine a viewer may not keep up, and no run goes ahead of him: then once more.
    for attempt in 0..10 {
        let path = format!("/{attempt}");
        origin.serve(&path, script.clone());
        edge.get(&path).range(3 * BLOCK..3 * BLOCK + 10).send().await;
        edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
        let before = edge.metric(name, &failed).await;
        origin.serve(&path, script.clone().ending(Ending::HeldAt(held)));
        let mut viewer = edge.get(&path).range(0..3 * BLOCK).open().await;
        let first = viewer.read_exactly(held as usize).await.unwrap();
        let refused = edge.until_metric(name, &failed, |count| count > before);
        let was_refused = timeout(REFUSED_WITHIN, refused).await.is_ok();
        origin.release(&path);
        let rest = viewer.read_exactly((3 * BLOCK - held) as usize).await.unwrap();
        let content = origin.content(&path, 1);
        assert_eq!(content.first_difference(0, &first), None);
        assert_eq!(content.first_difference(held, &rest), None);
        if was_refused {
            return;
        }
    }
    panic!("no run was ever refused to a viewer who kept up");
}

/// Far longer than a run waits here for those of others.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
