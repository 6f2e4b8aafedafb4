//! What one viewer was given for himself, nobody else gets, and nobody waits for it in a queue.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{
    Change, Edge, Ending, Origin, PIECE, Ranges, Request, Response, Script, Verdict, etag, judge,
};

const VIEWERS: usize = 500;
const LENGTH: u64 = 10_000;

/// Every viewer at once.
async fn all_at_once(viewers: impl Iterator<Item = Request>) -> Vec<Response> {
    let mut asking = JoinSet::new();
    for asked in viewers {
        asking.spawn(async move { asked.send().await });
    }
    asking.join_all().await
}

/// The versions of the bytes, each of which must be another.
fn assert_nothing_shared(origin: &Origin, path: &str, responses: &[Response]) {
    let versions = responses.iter().map(|response| {
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 200, "{text:.200}");
        judge(origin, path, response).version().expect("a 200 has bytes of a version")
    });
    let versions: BTreeSet<u32> = versions.collect();
    assert_eq!(versions.len(), responses.len(), "each viewer has bytes of his own");
}

/// Held by the origin until all but the first wait there together: were one served after another,
/// none of them would ever be.
fn for_each_his_own(fields: &[(&str, &str)], viewers: usize) -> [Script; 2] {
    let script = Script::of(LENGTH).without("Cache-Control").change(Change::EachRequest);
    let script = fields.iter().fold(script, |script, (name, value)| script.field(name, value));
    [script.clone(), script.together(viewers - 1)]
}

fn serve(origin: &Origin, path: &str, [first, others]: [Script; 2]) {
    origin.serve(path, others);
    origin.serve_once(path, first);
}

#[tokio::test]
async fn five_hundred_viewers_of_a_private_object_share_nothing_and_wait_for_nobody() {
    let origin = Origin::start();
    serve(&origin, "/a", for_each_his_own(&[("Cache-Control", "private")], VIEWERS));
    // Room for as many connections to the origin: each reserves what it may read ahead.
    let edge = Edge::in_front_of(&origin)
        .ram("256 MiB")
        .setting("memory.total", "1 GiB")
        .origin_setting("connections", "1000")
        .start();

    let responses = all_at_once((0..VIEWERS).map(|_| edge.get("/a"))).await;
    assert_nothing_shared(&origin, "/a", &responses);
    assert_eq!(origin.requests("/a").len(), VIEWERS);
    assert!(origin.most_at_once("/a") >= VIEWERS - 1);
}

#[tokio::test]
async fn what_sets_a_cookie_was_no_store_or_asked_for_by_name_is_released_together() {
    let viewers = 30;
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).origin_setting("connections", "100").start();
    let none: Option<&str> = None;
    for (path, fields, authorization) in [
        ("/cookie", vec![("Cache-Control", "max-age=60"), ("Set-Cookie", "viewer={n}")], none),
        ("/no-store", vec![("Cache-Control", "no-store")], none),
        ("/vary", vec![("Cache-Control", "max-age=60"), ("Vary", "*")], none),
        ("/named", vec![("Cache-Control", "max-age=60")], Some("Basic YTpi")),
    ] {
        serve(&origin, path, for_each_his_own(&fields, viewers));
        let asked = (0..viewers).map(|_| match authorization {
            Some(value) => edge.get(path).header("authorization", value),
            None => edge.get(path),
        });
        let responses = all_at_once(asked).await;
        assert_nothing_shared(&origin, path, &responses);
        for response in responses.iter().filter(|_| path == "/cookie") {
            let version = judge(&origin, path, response).version().unwrap();
            assert_eq!(response.header("set-cookie"), format!("viewer={version}"));
        }
    }
}

#[tokio::test]
async fn ranges_of_a_private_object_are_each_viewers_own() {
    let script = Script::of(4 * PIECE).cache_control("private").change(Change::EachRequest);
    let origin = Origin::serving("/a", script);
    let edge = Edge::in_front_of(&origin).start();
    for number in 1..=4 {
        let part = edge.get("/a").range(PIECE - 10..PIECE + 10).send().await;
        assert_eq!(part.status, 206);
        assert_eq!(judge(&origin, "/a", &part).version(), Some(number));
        assert_eq!(part.body.len(), 20);
    }
    let streamed: u64 = origin.requests("/a").iter().map(|request| request.bytes_sent()).sum();
    assert!(streamed <= 4 * 4 * PIECE);
}

#[tokio::test]
async fn an_object_that_becomes_private_is_shared_no_longer() {
    let shared = Script::of(LENGTH).cache_control("max-age=0");
    let origin = Origin::serving("/a", shared);
    let edge = Edge::in_front_of(&origin).start();
    edge.get("/a").send().await;

    let private = Script::of(LENGTH).version(2).cache_control("private");
    origin.serve("/a", private.clone());
    let second = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &second).version(), Some(2));
    origin.serve("/a", private.version(3));
    let third = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &third).version(), Some(3));
}

#[tokio::test]
async fn an_object_that_becomes_public_is_shared_again_within_a_bounded_number_of_requests() {
    let origin = Origin::serving("/a", Script::of(LENGTH).cache_control("private"));
    let edge = Edge::in_front_of(&origin).start();
    edge.get("/a").send().await;
    origin.serve("/a", Script::of(LENGTH).version(2));
    // Remembered as uncacheable for a while: until then each viewer asks, and gets what is there.
    for _ in 0..3 {
        let response = edge.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response).version(), Some(2));
    }
}

#[tokio::test]
async fn what_a_304_says_for_one_viewer_is_not_told_to_those_who_wait_with_him() {
    let viewers = 8;
    let script = Script::of(LENGTH).cache_control("max-age=0");
    let origin = Origin::serving("/a", script.clone());
    let edge = Edge::in_front_of(&origin).origin_setting("connections", "100").start();
    edge.get("/a").send().await;

    let personal = script.field("Set-Cookie", "viewer={n}");
    origin.serve("/a", personal.clone());
    origin.serve_once("/a", personal.first_byte_after(Duration::from_millis(300)));
    let responses = all_at_once((0..viewers).map(|_| edge.get("/a"))).await;
    let cookies: BTreeSet<String> =
        responses.iter().map(|response| response.header("set-cookie")).collect();
    assert_eq!(cookies.len(), viewers, "each has a cookie of his own: {cookies:?}");
    for response in &responses {
        assert_eq!(judge(&origin, "/a", response).version(), Some(1));
    }
}

#[tokio::test]
async fn a_part_of_a_private_object_is_given_only_of_the_version_it_is_to_be_joined_to() {
    let length = 40 * PIECE;
    for ranges in [Ranges::Honoured, Ranges::Ignored, Ranges::Unconditional] {
        let script = Script::of(length).cache_control("private").ranges(ranges);
        let origin = Origin::serving("/a", script.clone().version(2));
        // Small, so that what is asked for together with others is less than what is wanted.
        let edge = Edge::in_front_of(&origin).setting("fill.window", "128 KiB").start();
        // The first is asked for as if it could be shared, the others are known to be private.
        for _ in 0..3 {
            for authorization in [None, Some("Basic YTpi")] {
                let asked = edge.get("/a").range_from(PIECE + 5);
                let asked = match authorization {
                    Some(value) => asked.header("authorization", value),
                    None => asked,
                };
                let stale = asked.clone().header("if-range", &etag(1)).send().await;
                assert_eq!(stale.status, 200, "{ranges:?} {authorization:?}: not of that version");
                assert_eq!(judge(&origin, "/a", &stale), Verdict::Whole { version: 2 });
                let good = asked.header("if-range", &etag(2)).send().await;
                assert_eq!(good.status, 206, "{ranges:?} {authorization:?}");
                assert_eq!(judge(&origin, "/a", &good), Verdict::Whole { version: 2 });
            }
        }
    }
}

#[tokio::test]
async fn the_conditions_of_who_is_answered_alone_count() {
    let origin = Origin::serving("/a", Script::of(LENGTH).cache_control("private"));
    let edge = Edge::in_front_of(&origin).start();
    for _ in 0..2 {
        let held = edge.get("/a").header("if-none-match", &etag(1)).send().await;
        assert_eq!(held.status, 304);
        let other = edge.get("/a").header("if-match", &etag(2)).send().await;
        assert_eq!(other.status, 412);
        let good = edge.get("/a").header("if-match", &etag(1)).send().await;
        assert_eq!(judge(&origin, "/a", &good), Verdict::Whole { version: 1 });
    }
}

#[tokio::test]
async fn the_status_page_tells_no_more_of_a_query_than_the_log() {
    for (query, told, secret) in
        [("whole", "\"/a?signature=\"", "secret"), ("off", "\"/a\"", "signature")]
    {
        let origin = Origin::serving("/a", Script::of(2 * PIECE).ending(Ending::HeldAt(PIECE)));
        let personal = format!("{{ query = {query:?} }}");
        let edge = Edge::in_front_of(&origin).setting("log.personal", &personal).start();
        let mut held = edge.get("/a?signature=secret").open().await;
        held.read_exactly(PIECE as usize).await.unwrap();
        for part in ["runs", "objects"] {
            let status = edge.admin().get("/status.json").send().await;
            let text = String::from_utf8(status.body.to_vec()).unwrap();
            assert!(text.contains(told), "{query}, {part}: {text}");
            assert!(!text.contains(secret), "{query}, {part}: {text}");
            origin.release("/a");
            held.read_exactly(PIECE as usize).await.unwrap();
        }
    }
}
