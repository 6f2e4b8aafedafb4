//! Live: what an origin holds is waited for, what it flushes goes on at once, to all who watch.

mod flushing;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{
    Configured, Edge, Ending, Framing, HeadFault, Origin, Script, Speaks, Streaming, Validators,
    Verdict, follow, judge,
};
use flushing::Flushing;

const WHOLE: Verdict = Verdict::Whole { version: 1 };
const WRITTEN: u64 = 1_000;
const LENGTH: u64 = 5_000;
/// Longer than anything is waited for below that is not held on purpose.
const HELD: Duration = Duration::from_millis(2_500);
const ENDLESS: u64 = (1 << 53) - 1;

/// An edge that waits for nothing long.
fn impatient(origin: &Origin) -> Configured {
    Edge::in_front_of(origin)
        .setting("fill.connect_timeout", "300ms")
        .setting("fill.first_byte_timeout", "300ms")
        .setting("fill.progress_timeout", "300ms")
        .setting("limits.header_timeout", "1s")
        .setting("limits.idle_timeout", "1s")
        .setting("limits.slow_reader", "{ bytes = \"16 KiB\", period = \"1s\" }")
}

/// An object of which [`WRITTEN`] bytes are there, and an edge that some viewer made ask for it.
async fn being_written(validators: Validators) -> (Origin, Edge, Streaming) {
    let script = Script::of(LENGTH).framing(Framing::Chunked).validators(validators);
    let origin = Origin::serving("/7.m4s", script.ending(Ending::HeldAt(WRITTEN)));
    let edge = Edge::in_front_of(&origin).start();
    let mut first = edge.get("/7.m4s").open().await;
    first.read_exactly(WRITTEN as usize).await.unwrap();
    (origin, edge, first)
}

#[tokio::test]
async fn an_update_that_is_held_is_waited_for_and_nothing_else() {
    let held = Script::of(400).head(HeadFault::Held);
    let origin = Origin::serving("/a.m3u8?_HLS_msn=7&_HLS_part=1", held.clone());
    origin.serve("/a.m3u8", held);
    let edge = impatient(&origin).start();
    let mut viewers = JoinSet::new();
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        for _ in 0..10 {
            let asked = client.get("/a.m3u8?_HLS_msn=7&_HLS_part=1");
            viewers.spawn(async move { asked.send().await });
        }
    }
    let hangs = edge.get("/a.m3u8").send().await;
    assert_eq!(hangs.status, 504, "an origin that hangs");
    sleep(HELD).await;
    let asked = |origin: &Origin| {
        let all = origin.requests("/a.m3u8");
        all.iter().filter(|request| request.head.target.contains("_HLS_msn")).count()
    };
    assert_eq!(asked(&origin), 1, "all of them wait for one answer");
    origin.release("/a.m3u8?_HLS_msn=7&_HLS_part=1");
    for update in viewers.join_all().await {
        assert_eq!((update.status, update.body.len()), (200, 400));
    }
    assert_eq!(asked(&origin), 1);
}

#[tokio::test]
async fn a_part_that_is_held_is_waited_for_where_content_is_live() {
    for (name, script) in [
        ("head", Script::of(LENGTH).head(HeadFault::Held)),
        ("first byte", Script::of(LENGTH).framing(Framing::Chunked).ending(Ending::HeldAt(0))),
        ("last byte", Script::of(LENGTH).ending(Ending::HeldAt(LENGTH - 1))),
    ] {
        let origin = Origin::serving("/live/7.m4s", script.clone());
        origin.serve("/film/7.m4s", script);
        let edge = impatient(&origin).rule("/live/**", "content = \"live\"").start();
        let held = edge.get("/live/7.m4s");
        let held = tokio::spawn(async move { held.send().await });
        let hangs = edge.get("/film/7.m4s").send().await;
        assert_ne!(judge(&origin, "/film/7.m4s", &hangs), WHOLE, "{name}: an origin that hangs");
        sleep(HELD).await;
        assert_eq!(origin.requests("/live/7.m4s").len(), 1, "{name}");
        origin.release("/live/7.m4s");
        assert_eq!(judge(&origin, "/live/7.m4s", &held.await.unwrap()), WHOLE, "{name}");
        assert_eq!(origin.requests("/live/7.m4s").len(), 1, "{name}");
    }
}

#[tokio::test]
async fn who_waits_for_what_is_held_holds_no_more_than_his_request() {
    const VIEWERS: usize = 300;
    let target = "/a.m3u8?_HLS_msn=7";
    let origin = Origin::serving(target, Script::of(400).head(HeadFault::Held));
    let edge = Edge::in_front_of(&origin).start();
    let mut viewers = JoinSet::new();
    for _ in 0..VIEWERS {
        let asked = edge.get(target);
        viewers.spawn(async move { asked.send().await.status });
    }
    let all = (VIEWERS as u64 * tidegate::limits::REQUEST_BYTES) as f64;
    let requests = ["use=\"requests\""];
    edge.until_metric("tidegate_memory_used_bytes", &requests, |used| used >= all).await;
    origin.until_requested("/a.m3u8", 1).await;
    let used = async |purpose: &str| {
        let label = format!("use=\"{purpose}\"");
        edge.metric("tidegate_memory_used_bytes", &[&label]).await
    };
    assert!(used("requests").await <= 2.0 * all, "{}", used("requests").await);
    assert_eq!((used("fill").await, used("client").await), (0.0, 0.0));
    let one = tidegate::limits::ORIGIN_READ_BYTES_MAX as f64;
    assert_eq!(used("origins").await, one, "one of them asks");
    origin.release(target);
    assert_eq!(viewers.join_all().await, [200; VIEWERS]);
    assert_eq!(origin.requests("/a.m3u8").len(), 1);
}

#[tokio::test]
async fn who_comes_just_as_the_answer_does_costs_no_second_request() {
    const ROUNDS: usize = 400;
    const VIEWERS: usize = 12;
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let mut connections = Vec::new();
    for _ in 0..VIEWERS {
        connections.push(edge.client().connect().await.unwrap());
    }
    for round in 0..ROUNDS {
        let path = format!("/{round}.m4s");
        origin.serve(&path, Script::of(400));
        let mut viewers = JoinSet::new();
        for connection in connections.drain(..) {
            let asked = edge.get(&path);
            viewers.spawn(async move {
                let answer = asked.on(connection).await.unwrap();
                answer.finish_and_keep().await.unwrap()
            });
        }
        for (part, connection) in viewers.join_all().await {
            assert_eq!(judge(&origin, &path, &part), WHOLE);
            connections.push(connection.unwrap());
        }
        assert_eq!(origin.requests(&path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn every_flush_reaches_every_viewer_before_the_next() {
    let origin = Flushing::start().await;
    let edge = Edge::at(origin.address()).start();
    let mut viewers = vec![];
    for client in
        [edge.client(), edge.client_over_tls(Speaks::Http1), edge.client_over_tls(Speaks::Http2)]
    {
        for _ in 0..3 {
            let asked = client.get("/7.m4s");
            viewers.push(tokio::spawn(async move { asked.open().await }));
        }
    }
    // A byte, less than a piece, over the border of one, all of one.
    let mut flushed = 0;
    let mut watching = vec![];
    for length in [1, 99, 65_500, 1, 65_536, 7] {
        origin.flush(length).await;
        for viewer in viewers.drain(..) {
            watching.push(viewer.await.unwrap());
        }
        for viewer in &mut watching {
            let came = viewer.read_exactly(length).await.unwrap();
            assert_eq!(came, Flushing::bytes(flushed, length), "{length} bytes at {flushed}");
        }
        flushed += length;
    }
    origin.end().await;
    for viewer in watching {
        let rest = viewer.finish().await.unwrap();
        assert!(rest.body.is_empty() && rest.complete);
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_origin_that_breaks_off_breaks_off_every_viewer_and_nothing_is_kept() {
    for validators in [Validators::Strong, Validators::None] {
        let (origin, edge, first) = being_written(validators).await;
        let mut viewers = vec![first];
        for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
            for field in ["bytes=0-", "bytes=10-9007199254740991"] {
                viewers.push(client.get("/7.m4s").header("range", field).open().await);
            }
        }
        origin.refuse_connections().await;
        for viewer in viewers {
            let rest = viewer.finish().await.unwrap();
            assert!(!rest.complete, "{validators:?}: {} bytes are no end", rest.body.len());
        }
        origin.accept_connections().await;
        origin.forget_requests();
        origin.serve("/7.m4s", Script::of(LENGTH).framing(Framing::Chunked).version(2));
        let anew = edge.get("/7.m4s").send().await;
        let verdict = judge(&origin, "/7.m4s", &anew);
        assert_eq!(verdict, Verdict::Whole { version: 2 }, "{validators:?}");
        assert!(!origin.requests("/7.m4s").is_empty(), "{validators:?}: nothing is held");
    }
}

#[tokio::test]
async fn a_range_within_what_is_written_comes_at_once() {
    for validators in [Validators::Strong, Validators::Weak, Validators::None] {
        let (origin, edge, first) = being_written(validators).await;
        for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
            for (start, end) in [(0, 100), (0, 1), (500, 510), (999, 1_000), (0, 1_000)] {
                let part = client.get("/7.m4s").range(start..end).send().await;
                assert_eq!(part.content_range(), Some((start, end - 1, None)), "{validators:?}");
                assert_eq!(part.header("content-length"), (end - start).to_string());
                assert_eq!(judge(&origin, "/7.m4s", &part), WHOLE, "{validators:?}");
            }
        }
        assert_eq!(origin.requests("/7.m4s").len(), 1, "{validators:?}");
        origin.release("/7.m4s");
        assert!(first.finish().await.unwrap().complete);
        let part = edge.get("/7.m4s").range(0..100).send().await;
        assert_eq!(part.content_range(), Some((0, 99, Some(LENGTH))), "its end has come");
        assert_eq!(origin.requests("/7.m4s").len(), 1, "{validators:?}");
    }
}

#[tokio::test]
async fn a_range_that_is_about_to_be_written_is_waited_for() {
    for validators in [Validators::Strong, Validators::None] {
        let (origin, edge, _first) = being_written(validators).await;
        let asked = [(900, 1_100, 1_099), (2_000, 2_100, 2_099), (4_900, 9_000, LENGTH - 1)];
        let mut waiting = vec![];
        for (start, end, last) in asked {
            let part = edge.get("/7.m4s").range(start..end);
            waiting.push((tokio::spawn(async move { part.send().await }), start, last));
        }
        edge.until_metric("tidegate_connections_open", &[], |open| open >= 4.0).await;
        origin.release("/7.m4s");
        for (part, start, last) in waiting {
            let part = part.await.unwrap();
            let (from, to, _) = part.content_range().unwrap();
            assert_eq!((from, to), (start, last), "{validators:?}");
            assert_eq!(judge(&origin, "/7.m4s", &part), WHOLE, "{validators:?}");
        }
        assert_eq!(origin.requests("/7.m4s").len(), 1, "{validators:?}");
    }
}

#[tokio::test]
async fn a_range_that_is_not_written_in_time_is_answered_with_what_there_is() {
    let (origin, edge, _first) = being_written(Validators::Strong).await;
    let part = edge.get("/7.m4s").range(900..1_100).send().await;
    assert_eq!(part.content_range(), Some((900, 999, None)));
    assert_eq!(judge(&origin, "/7.m4s", &part), WHOLE);
    let mut whole = edge.get("/7.m4s").range(0..1_100).open().await;
    assert_eq!((whole.status, whole.header("content-range")), (200, String::new()));
    origin.release("/7.m4s");
    assert_eq!(follow(&mut whole, origin.content("/7.m4s", 1), 0).await, (LENGTH, true));
    assert_eq!(origin.requests("/7.m4s").len(), 1);
}

#[tokio::test]
async fn an_open_range_streams_on_until_there_is_an_end() {
    for validators in [Validators::Strong, Validators::None] {
        let (origin, edge, _first) = being_written(validators).await;
        let mut viewers = vec![];
        for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
            // From the first byte on only who says so is told of a part.
            for (start, last) in [(500, ""), (500, "9007199254740991"), (0, "9007199254740991")] {
                let field = format!("bytes={start}-{last}");
                let mut viewer = client.get("/7.m4s").header("range", &field).open().await;
                assert_eq!(viewer.status, 206, "{field}");
                let label = format!("bytes {start}-{ENDLESS}/*");
                assert_eq!(viewer.header("content-range"), label);
                assert_eq!(viewer.header("content-length"), "", "{field}");
                let there = viewer.read_exactly((WRITTEN - start) as usize).await.unwrap();
                let content = origin.content("/7.m4s", 1);
                assert_eq!(content.first_difference(start, &there), None);
                viewers.push(viewer);
            }
        }
        origin.release("/7.m4s");
        for mut viewer in viewers {
            let rest = follow(&mut viewer, origin.content("/7.m4s", 1), WRITTEN).await;
            assert_eq!(rest, (LENGTH - WRITTEN, true), "{validators:?}");
        }
        assert_eq!(origin.requests("/7.m4s").len(), 1, "{validators:?}");
        let known = edge.get("/7.m4s").header("range", "bytes=500-9007199254740991").send().await;
        assert_eq!(known.content_range(), Some((500, LENGTH - 1, Some(LENGTH))));
    }
}

#[tokio::test]
async fn who_asks_from_the_live_point_on_gets_what_comes() {
    for validators in [Validators::Strong, Validators::None] {
        let (origin, edge, _first) = being_written(validators).await;
        let asked = edge.get("/7.m4s").header("range", "bytes=1000-9007199254740991");
        let asked = tokio::spawn(async move { asked.send().await });
        let beyond = edge.get("/7.m4s").range_from(LENGTH + 10);
        let beyond = tokio::spawn(async move { beyond.send().await });
        edge.until_followed("/7.m4s", 3).await;
        origin.release("/7.m4s");
        let live = asked.await.unwrap();
        assert_eq!((live.status, live.body.len() as u64), (206, LENGTH - WRITTEN));
        assert_eq!(judge(&origin, "/7.m4s", &live), WHOLE, "{validators:?}");
        let beyond = beyond.await.unwrap();
        assert_eq!(beyond.status, 416, "{validators:?}: it has ended before");
        assert_eq!(beyond.header("content-range"), format!("bytes */{LENGTH}"));
        assert_eq!(origin.requests("/7.m4s").len(), 1, "{validators:?}");
    }
}

#[tokio::test]
async fn who_asks_far_beyond_what_is_written_disturbs_nobody() {
    // Of a run without a validator too, which goes on to its end and would pace itself by him.
    for validators in [Validators::Strong, Validators::None] {
        for start in [1 << 40, u64::MAX] {
            let (origin, edge, first) = being_written(validators).await;
            let far = edge.get("/7.m4s").range_from(start).open().await;
            assert_eq!(far.status, 200, "the whole, as without a range");
            origin.release("/7.m4s");
            assert!(first.finish().await.unwrap().complete);
            assert_eq!(judge(&origin, "/7.m4s", &far.finish().await.unwrap()), WHOLE);
            assert_eq!(origin.requests("/7.m4s").len(), 1);
        }
    }
}
