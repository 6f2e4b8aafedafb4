//! Whatever an origin writes over the bytes it sends: they are taken for what they are, or not.

use crate::support::{BLOCK, Edge, Origin, PIECE, Ranges, Response, Script, Verdict, judge};

const LENGTH: u64 = 2 * BLOCK + PIECE + 77;
const WHOLE: Verdict = Verdict::Whole { version: 1 };

fn lies() -> Vec<Ranges> {
    let shifts = [1, -1, PIECE as i64, -(PIECE as i64), BLOCK as i64, -(BLOCK as i64)];
    let completes = [0, 1, PIECE, LENGTH - 1, LENGTH + 1, 1 << 40, u64::MAX];
    let others = [(0, 99), (0, PIECE - 1), (PIECE, LENGTH - 1), (LENGTH - 1, LENGTH - 1)];
    let fewer = [1, PIECE - 1, PIECE, PIECE + 1];
    let mut lies = vec![
        Ranges::Ignored,
        Ranges::UnknownComplete,
        Ranges::Unlabelled,
        Ranges::Garbled,
        Ranges::Refused,
    ];
    lies.extend(shifts.map(Ranges::Shifted));
    lies.extend(completes.map(Ranges::WrongComplete));
    lies.extend(others.map(|(first, last)| Ranges::Other(first, last)));
    lies.extend(fewer.map(Ranges::AtMost));
    lies
}

/// Ranges beside and over the borders of pieces and blocks.
fn ranges() -> [std::ops::Range<u64>; 5] {
    [0..10, PIECE - 1..PIECE + 1, PIECE + 5..2 * PIECE + 9, BLOCK - 1..BLOCK + 1, BLOCK..LENGTH]
}

fn edge(origin: &Origin) -> Edge {
    Edge::in_front_of(origin)
        .setting("fill.progress_timeout", "1s")
        .rule("**", "lifetime = { errors = '0s' }")
        .start()
}

/// The right bytes or fewer, or an answer that has none.
fn assert_defined(origin: &Origin, path: &str, response: &Response, asked: u64) {
    match judge(origin, path, response) {
        Verdict::Whole { version: 1 } | Verdict::Cut { version: 1, .. } => {
            let start = response.content_range().map_or(0, |(first, _, _)| first);
            assert!(start == asked || response.status == 200, "{path}: bytes from {start}");
        }
        // 416 where the origin itself says so, or says a length that ends before the range.
        Verdict::Status(502 | 504 | 416) => {}
        other => panic!("{path}: {other:?}"),
    }
}

/// After `lie`, ranges and the whole are right, and of the object the origin then has.
async fn assert_honest_again(origin: &Origin, edge: &Edge, path: &str, lie: Ranges) {
    // A length told under an ETag that a 304 then confirms: nobody can know better before the next.
    let version = if matches!(lie, Ranges::WrongComplete(_)) { 2 } else { 1 };
    let whole = Verdict::Whole { version };
    origin.serve(path, Script::of(LENGTH).version(version).field("X-Honest", "yes"));
    for range in ranges() {
        let part = edge.get(path).range(range.clone()).send().await;
        let verdict = judge(origin, path, &part);
        assert_eq!((part.status, verdict), (206, whole), "{path}: {range:?} afterwards");
        let label = part.content_range().map(|(first, last, _)| first..last + 1);
        assert_eq!(label, Some(range), "{path} afterwards");
    }
    let all = edge.get(path).send().await;
    assert_eq!((all.status, judge(origin, path, &all)), (200, whole), "{path} afterwards");
}

#[tokio::test]
async fn the_first_answer_of_an_unknown_object_lies() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for (lie, what) in lies().into_iter().enumerate() {
        for (number, range) in ranges().into_iter().enumerate() {
            let path = format!("/{lie}/{number}");
            // No freshness: what it was told is asked about again once it is honest.
            let lying = Script::of(LENGTH).ranges(what).cache_control("max-age=0");
            origin.serve(&path, lying);
            let response = edge.get(&path).range(range.clone()).send().await;
            println!("{path}: {what:?} {range:?}: {}", response.status);
            assert_defined(&origin, &path, &response, range.start);
            assert_honest_again(&origin, &edge, &path, what).await;
        }
    }
}

#[tokio::test]
async fn a_later_answer_lies_about_an_object_that_is_known() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for (lie, what) in lies().into_iter().enumerate() {
        for (number, range) in ranges().into_iter().enumerate() {
            let path = format!("/{lie}/{number}");
            let honest = Script::of(LENGTH).cache_control("max-age=0");
            origin.serve(&path, honest.clone());
            // The head and one piece far from the range.
            let known = if range.start < PIECE { LENGTH - 1..LENGTH } else { 3..4 };
            let part = edge.get(&path).range(known).send().await;
            assert_eq!(judge(&origin, &path, &part), WHOLE, "{path}");

            origin.serve(&path, honest.ranges(what));
            let response = edge.get(&path).range(range.clone()).send().await;
            println!("{path}: {what:?} {range:?}: {}", response.status);
            assert_defined(&origin, &path, &response, range.start);
            assert_honest_again(&origin, &edge, &path, what).await;
        }
    }
}

#[tokio::test]
async fn an_origin_that_sends_less_than_asked_is_asked_for_the_rest() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for bytes in [PIECE / 2, PIECE, 3 * PIECE + 1, BLOCK] {
        let path = format!("/{bytes}");
        let script = Script::of(LENGTH);
        origin.serve(&path, script.clone());
        origin.serve_once(&path, script.ranges(Ranges::AtMost(bytes)));
        let part = edge.get(&path).range(0..LENGTH - 1).send().await;
        let verdict = judge(&origin, &path, &part);
        assert_eq!((part.status, verdict), (206, WHOLE), "{bytes} at first");
    }
}

#[tokio::test]
async fn an_object_longer_than_can_be_counted_with_is_not_believed() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ranges(Ranges::Endless));
    let edge = edge(&origin);
    for bytes in [1, 10, PIECE, 3 * PIECE + 5] {
        let part = edge.get("/a").suffix(bytes).send().await;
        assert_eq!(judge(&origin, "/a", &part), Verdict::Status(502), "the last {bytes}");
    }
    let honest = Script::of(LENGTH);
    origin.serve("/a", honest);
    let part = edge.get("/a").suffix(PIECE).send().await;
    assert_eq!(judge(&origin, "/a", &part), WHOLE);
}
