//! Any range of any object comes exactly, cold and warm, and what is held is not asked for again.

use crate::support::{
    BLOCK, Edge, Framing, Origin, PIECE, Ranges, Response, Script, Verdict, etag, judge,
    last_modified,
};

/// No multiple of anything.
const LENGTH: u64 = BLOCK + PIECE / 2 + 123;
const WHOLE: Verdict = Verdict::Whole { version: 1 };

/// A range field and the first and last byte it means of `LENGTH` bytes.
const SATISFIABLE: [(&str, u64, u64); 16] = [
    ("bytes=0-0", 0, 0),
    ("bytes=0-", 0, LENGTH - 1),
    ("bytes=0-65535", 0, PIECE - 1),
    ("bytes=0-65536", 0, PIECE),
    ("bytes=65535-65536", PIECE - 1, PIECE),
    ("bytes=65536-131071", PIECE, 2 * PIECE - 1),
    ("bytes=70000-200000", 70_000, 200_000),
    ("bytes=1048575-1048576", BLOCK - 1, BLOCK),
    ("bytes=1048576-", BLOCK, LENGTH - 1),
    ("bytes=1048570-99999999", BLOCK - 6, LENGTH - 1),
    ("bytes=1081466-", LENGTH - 1, LENGTH - 1),
    ("bytes=-1", LENGTH - 1, LENGTH - 1),
    ("bytes=-70000", LENGTH - 70_000, LENGTH - 1),
    ("bytes=-99999999", 0, LENGTH - 1),
    ("bytes=0-99999999999999999999999999", 0, LENGTH - 1),
    ("bytes=-99999999999999999999999999", 0, LENGTH - 1),
];

fn assert_part(origin: &Origin, path: &str, response: &Response, first: u64, last: u64) {
    let range = response.header("range");
    assert_eq!(response.status, 206, "{path} {first}-{last} {range}");
    assert_eq!(response.content_range(), Some((first, last, Some(LENGTH))), "{path}");
    assert_eq!(response.header("content-length"), (last - first + 1).to_string(), "{path}");
    assert_eq!(judge(origin, path, response), WHOLE, "{path}");
}

#[tokio::test]
async fn every_satisfiable_range_comes_exactly_cold_and_warm() {
    assert_eq!(LENGTH - 1, 1_081_466, "the table names the last byte");
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, (field, first, last)) in SATISFIABLE.into_iter().enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, Script::of(LENGTH));
        for _ in ["cold", "warm"] {
            let response = edge.get(&path).header("range", field).send().await;
            assert_part(&origin, &path, &response, first, last);
        }
        assert_eq!(origin.requests(&path).len(), 1, "{field} costs the origin one request");
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_satisfied_is_answered_416_with_the_length() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let beyond = ["bytes=1081467-", "bytes=1081467-1081468", "bytes=99999999-", "bytes=-0"];
    let huge = ["bytes=99999999999999999999999999-"];
    for (number, field) in beyond.into_iter().chain(huge).enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, Script::of(LENGTH));
        for temperature in ["cold", "warm"] {
            let response = edge.get(&path).header("range", field).send().await;
            assert_eq!(response.status, 416, "{field} {temperature}");
            let label = response.header("content-range");
            assert_eq!(label, format!("bytes */{LENGTH}"), "{field} {temperature}");
            let whole = edge.get(&path).send().await;
            assert_eq!(judge(&origin, &path, &whole), WHOLE, "{field} {temperature}");
        }
    }
}

#[tokio::test]
async fn a_range_field_that_says_nothing_is_ignored() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    for field in ["bytes=5-3", "bytes=a-b", "bytes=", "bytes=-", "items=0-5", "0-5", "bytes 0-5"] {
        let response = edge.get("/a").header("range", field).send().await;
        assert_eq!(response.status, 200, "{field}");
        assert_eq!(judge(&origin, "/a", &response), WHOLE, "{field}");
    }
}

#[tokio::test]
async fn if_range_gives_the_part_only_of_the_version_it_names() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    let weak = format!("W/{}", etag(1));
    let (current, other) = (etag(1), etag(2));
    let (date, other_date) = (last_modified(1), last_modified(2));
    for (condition, status) in [
        (current.as_str(), 206),
        (&other, 200),
        (&weak, 200),
        (&date, 206),
        (&other_date, 200),
        ("nonsense", 200),
    ] {
        for _ in ["cold at first", "warm"] {
            let asked = edge.get("/a").range(10..20).header("if-range", condition);
            let response = asked.send().await;
            assert_eq!(response.status, status, "If-Range: {condition}");
            assert_eq!(judge(&origin, "/a", &response), WHOLE, "If-Range: {condition}");
        }
    }
}

#[tokio::test]
async fn a_head_request_tells_the_whole_length_and_sends_no_body() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    let mut connection = edge.client().connect().await.unwrap();
    for asked in [edge.head("/a"), edge.head("/a").range(0..10), edge.head("/a")] {
        let streaming = asked.on(connection).await.unwrap();
        assert_eq!((streaming.status, streaming.header("content-range")), (200, String::new()));
        assert_eq!(streaming.header("content-length"), LENGTH.to_string());
        assert_eq!(streaming.header("accept-ranges"), "bytes");
        assert_eq!(streaming.header("etag"), etag(1));
        let (response, kept) = streaming.finish_and_keep().await.unwrap();
        assert_eq!(response.body.len(), 0);
        connection = kept.expect("nothing followed the head, so the connection is usable");
    }
    let whole = edge.get("/a").on(connection).await.unwrap().finish().await.unwrap();
    assert_eq!(judge(&origin, "/a", &whole), WHOLE);
}

#[tokio::test]
async fn an_object_of_no_bytes_is_an_object() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for name in ["plain", "range", "open", "suffix"] {
        let path = format!("/{name}");
        origin.serve(&path, Script::of(0));
        let asked = match name {
            "range" => edge.get(&path).range(0..10),
            "open" => edge.get(&path).range_from(0),
            "suffix" => edge.get(&path).suffix(10),
            _ => edge.get(&path),
        };
        let response = asked.send().await;
        // RFC 9110 lets a range of nothing be refused or ignored.
        let allowed = if name == "plain" { &[200][..] } else { &[200, 416] };
        assert!(allowed.contains(&response.status), "{name}: {}", response.status);
        assert!(response.status == 416 || response.body.is_empty(), "{name}");
        for _ in 0..2 {
            let whole = edge.get(&path).send().await;
            assert_eq!((whole.status, whole.header("content-length").as_str()), (200, "0"));
            assert_eq!(judge(&origin, &path, &whole), WHOLE, "{name}");
        }
        let head = edge.head(&path).send().await;
        assert_eq!((head.status, head.header("content-length").as_str()), (200, "0"), "{name}");
    }
}

#[tokio::test]
async fn lengths_next_to_every_border_come_whole_and_are_held() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let borders = [PIECE / 2, PIECE, BLOCK, BLOCK + PIECE, 2 * BLOCK, 5 * BLOCK];
    let lengths = borders.into_iter().flat_map(|border| [border - 1, border, border + 1]);
    for length in lengths.chain([1, 2, 1023, 1024, 1025]) {
        let path = format!("/{length}");
        origin.serve(&path, Script::of(length));
        let cold = edge.get(&path).send().await;
        assert_eq!(judge(&origin, &path, &cold), WHOLE, "{length}");
        let sent = origin.bytes_sent(&path);
        let warm = edge.get(&path).send().await;
        assert_eq!(judge(&origin, &path, &warm), WHOLE, "{length}");
        let last = edge.get(&path).suffix(1).send().await;
        assert_eq!(last.content_range(), Some((length - 1, length - 1, Some(length))));
        assert_eq!(judge(&origin, &path, &last), WHOLE, "{length}");
        assert_eq!(origin.requests(&path).len(), 1, "{length} bytes are asked for once");
        assert_eq!((sent, origin.bytes_sent(&path)), (length, length));
    }
}

#[tokio::test]
async fn ranges_that_meet_make_the_whole() {
    let length = 2 * BLOCK + PIECE + 5;
    let origin = Origin::serving("/a", Script::of(length));
    let edge = Edge::in_front_of(&origin).start();
    // Backwards, and over the borders of pieces: nothing asked for follows what is held.
    let step = PIECE + PIECE / 3;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(step);
        let part = edge.get("/a").range(start..end).send().await;
        assert_eq!(judge(&origin, "/a", &part), WHOLE, "{start}..{end}");
        end = start;
    }
    let asked = origin.requests("/a");
    let ranges: Vec<_> = asked.iter().map(|request| request.head.range()).collect();
    assert_eq!(origin.bytes_sent("/a"), length, "no piece is asked for twice: {ranges:?}");
    let requests = origin.requests("/a").len();
    // A viewer has his bytes before their run has ended.
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    let whole = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &whole), WHOLE);
    assert!(whole.header("cache-status").contains("tidegate; hit"), "{:?}", whole.headers);
    assert_eq!(origin.requests("/a").len(), requests);
}

#[tokio::test]
async fn what_an_origin_that_ignores_ranges_has_sent_is_not_asked_for_again() {
    let origin = Origin::serving("/a", Script::of(20 * BLOCK).ranges(Ranges::Ignored));
    let edge = Edge::in_front_of(&origin).start();
    let part = edge.get("/a").range(0..BLOCK).send().await;
    assert_eq!(judge(&origin, "/a", &part), WHOLE);
    // Nobody waits any more: the run stops at a border, long before the object's end.
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    for range in [100..200, PIECE - 1..PIECE + 1, BLOCK - 1..BLOCK] {
        let part = edge.get("/a").range(range.clone()).send().await;
        assert_eq!(judge(&origin, "/a", &part), WHOLE, "{range:?}");
    }
    assert_eq!(origin.requests("/a").len(), 1);
    let last = edge.get("/a").suffix(10).send().await;
    assert_eq!(judge(&origin, "/a", &last), WHOLE);
}

#[tokio::test]
async fn an_origin_that_ignores_ranges_is_not_asked_for_each() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (path, framing) in [("/length", Framing::Length), ("/close", Framing::Close)] {
        origin.serve(path, Script::of(LENGTH).ranges(Ranges::Ignored).framing(framing));
        for (start, end) in [(10, 20), (BLOCK - 5, BLOCK + 5), (PIECE, LENGTH)] {
            let part = edge.get(path).range(start..end).send().await;
            // Where the length is not known yet, the range may be ignored too.
            assert!(part.status == 206 || path == "/close", "{path} {start}..{end}");
            assert_eq!(judge(&origin, path, &part), WHOLE, "{path} {start}..{end}");
        }
        let whole = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &whole), WHOLE, "{path}");
        // Between two requests nobody waits. Where nobody knows how little remains, the run may
        // have stopped at the border of the first block: the rest is asked for once more.
        let asked_max = if path == "/close" { 2 } else { 1 };
        let asked = origin.requests(path).len();
        assert!(asked <= asked_max, "{path} is asked for {asked} times");
    }
}

#[tokio::test]
async fn what_begins_in_ram_and_goes_on_at_the_origin_is_no_hit() {
    let origin = Origin::serving("/a", Script::of(20 * BLOCK));
    let edge = Edge::in_front_of(&origin).start();
    edge.get("/a").range(0..100).send().await;
    let whole = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &whole), Verdict::Whole { version: 1 });
    assert!(whole.header("cache-status").contains("fwd=partial"), "{:?}", whole.headers);
    let held = edge.get("/a").range(0..PIECE).send().await;
    assert!(held.header("cache-status").contains("; hit"), "{:?}", held.headers);
    let all = edge.get("/a").send().await;
    assert!(all.header("cache-status").contains("; hit"), "{:?}", all.headers);
}
