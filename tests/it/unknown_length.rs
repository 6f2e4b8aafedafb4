//! Objects whose length is told by their end alone.

use crate::support::{
    BLOCK, Edge, Ending, Framing, HOST, Origin, PIECE, Ranges, Script, Validators, Verdict, etag,
    follow, judge, until_runs,
};

const LENGTH: u64 = BLOCK + 3 * PIECE + 17;
const WHOLE: Verdict = Verdict::Whole { version: 1 };

fn framings() -> [(&'static str, Script); 2] {
    [
        ("/chunked", Script::of(LENGTH).framing(Framing::Chunked)),
        ("/close", Script::of(LENGTH).framing(Framing::Close)),
    ]
}

#[tokio::test]
async fn a_body_without_a_length_comes_whole_and_is_held() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (path, script) in framings() {
        origin.serve(path, script);
        for _ in ["cold", "warm"] {
            let whole = edge.get(path).send().await;
            assert_eq!((whole.status, judge(&origin, path, &whole)), (200, WHOLE), "{path}");
        }
        let part = edge.get(path).range(BLOCK - 1..BLOCK + 1).send().await;
        let label = part.content_range();
        assert_eq!(label, Some((BLOCK - 1, BLOCK, Some(LENGTH))), "its end has come by now");
        assert_eq!(judge(&origin, path, &part), WHOLE, "{path}");
        assert_eq!(origin.requests(path).len(), 1, "{path}");
    }
}

/// Such as a playlist of which a player has the newest already.
#[tokio::test]
async fn a_short_body_that_nobody_needs_as_it_comes_is_held_all_the_same() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for validators in [Validators::Strong, Validators::Weak] {
        let path = &format!("/{validators:?}");
        let script = Script::of(598).framing(Framing::Chunked).validators(validators);
        origin.serve(path, script.ending(Ending::HeldAt(0)));
        let has_it = edge.get(path).header("if-none-match", &etag(1)).send().await;
        assert_eq!(has_it.status, 304, "{path}");
        origin.release(path);
        origin.until_idle(path).await;
        until_runs(&edge.admin(), |runs| runs.is_empty()).await;
        let next = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &next), WHOLE, "{path}");
        assert_eq!(origin.requests(path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn ranges_of_a_body_without_a_length_are_right_while_it_is_cold() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (name, script) in framings() {
        for (number, field) in [
            "bytes=0-9",
            "bytes=65535-65536",
            "bytes=1048570-",
            "bytes=-10",
            "bytes=0-99999999",
            "bytes=1245200-1245300",
        ]
        .into_iter()
        .enumerate()
        {
            for ranges in [Ranges::Ignored, Ranges::Honoured, Ranges::UnknownComplete] {
                let path = format!("{name}/{number}/{ranges:?}");
                origin.serve(&path, script.clone().ranges(ranges));
                let part = edge.get(&path).header("range", field).send().await;
                let verdict = judge(&origin, &path, &part);
                assert_eq!(verdict, WHOLE, "{path} {field}: {}", part.status);
                let whole = edge.get(&path).send().await;
                assert_eq!(judge(&origin, &path, &whole), WHOLE, "{path} {field}: whole");
            }
        }
    }
}

#[tokio::test]
async fn a_range_beyond_an_end_nobody_knows_gets_no_bytes() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (path, script) in framings() {
        origin.serve(path, script.ranges(Ranges::Ignored));
        let beyond = edge.get(path).range_from(LENGTH + PIECE).send().await;
        match beyond.status {
            416 => assert_eq!(beyond.header("content-range"), format!("bytes */{LENGTH}")),
            200 => assert_eq!(judge(&origin, path, &beyond), WHOLE, "{path}"),
            status => panic!("{path}: {status}"),
        }
        let known = edge.get(path).range_from(LENGTH).send().await;
        assert_eq!(known.status, 416, "{path}: the end is known by now");
    }
}

#[tokio::test]
async fn viewers_share_a_body_that_grows() {
    let held = PIECE + PIECE / 2;
    let growing = Script::of(LENGTH).framing(Framing::Chunked).ending(Ending::HeldAt(held));
    let origin = Origin::serving("/a", growing);
    let edge = Edge::in_front_of(&origin).start();
    let content = origin.content("/a", 1);
    let mut viewers = vec![];
    for _ in 0..3 {
        let mut viewer = edge.get("/a").open().await;
        assert_eq!(viewer.header("content-length"), "");
        let landed = viewer.read_exactly(PIECE as usize).await.unwrap();
        assert_eq!(content.first_difference(0, &landed), None);
        viewers.push(viewer);
    }
    origin.release("/a");
    for mut viewer in viewers {
        assert_eq!(follow(&mut viewer, content, PIECE).await, (LENGTH - PIECE, true));
    }
    assert_eq!(origin.requests("/a").len(), 1);
}

#[tokio::test]
async fn an_empty_body_without_a_length_is_an_empty_object() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (path, framing) in [("/chunked", Framing::Chunked), ("/close", Framing::Close)] {
        origin.serve(path, Script::of(0).framing(framing));
        for _ in ["cold", "warm"] {
            let whole = edge.get(path).send().await;
            assert_eq!((whole.status, whole.body.len()), (200, 0), "{path}");
            assert!(whole.complete, "{path}");
        }
        assert_eq!(origin.requests(path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn without_length_and_validator_one_unranged_answer_makes_the_object() {
    let script = Script::of(LENGTH).framing(Framing::Chunked).validators(Validators::None);
    let origin = Origin::serving("/a", script.ranges(Ranges::Ignored));
    let edge = Edge::in_front_of(&origin).start();
    for (start, end) in [(BLOCK, BLOCK + 10), (0, 10), (PIECE - 1, PIECE + 1)] {
        let part = edge.get("/a").range(start..end).send().await;
        assert_eq!(judge(&origin, "/a", &part), WHOLE, "{start}..{end}");
    }
    assert_eq!(origin.requests("/a").len(), 1);
}

#[tokio::test]
async fn a_body_cut_short_is_not_taken_for_whole_by_who_is_told_its_end_by_closing() {
    let script = Script::of(LENGTH).framing(Framing::Chunked).validators(Validators::None);
    let origin = Origin::serving("/a", script.clone());
    origin.serve_once("/a", script.ending(Ending::CutAt(3 * PIECE)));
    let edge = Edge::in_front_of(&origin).start();
    let asked = format!("GET /a HTTP/1.0\r\nhost: {HOST}\r\n\r\n");
    let cut = edge.client().raw(asked.as_bytes()).await;
    assert!(cut.is_err(), "{} bytes and an ordinary end", cut.unwrap().len());
    let whole = edge.client().raw(asked.as_bytes()).await.unwrap();
    assert!(whole.len() as u64 > LENGTH);
}

#[tokio::test]
async fn an_origin_that_sends_less_than_asked_is_asked_for_the_rest_of_a_body_without_a_length() {
    let script = Script::of(LENGTH).framing(Framing::Chunked);
    let origin = Origin::serving("/a", script.clone().ranges(Ranges::AtMost(3 * PIECE)));
    origin.serve_once("/a", script.ending(Ending::CutAt(PIECE + 9)));
    let edge = Edge::in_front_of(&origin).start();
    let whole = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &whole), WHOLE);
}

#[tokio::test]
async fn a_body_that_breaks_off_where_it_ends_is_whole_once_its_length_is_told() {
    let script = Script::of(LENGTH).framing(Framing::Chunked);
    let origin = Origin::serving("/a", script.clone());
    origin.serve_once("/a", script.ending(Ending::CutAtEnd));
    let edge = Edge::in_front_of(&origin).start();
    for _ in ["cold", "warm"] {
        let whole = edge.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &whole), WHOLE);
    }
    assert_eq!(origin.requests("/a").len(), 2, "the last byte was asked for again");
}
