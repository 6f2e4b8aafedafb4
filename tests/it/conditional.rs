//! Preconditions are decided by the edge, from the validators it holds, cold and warm.

use crate::support::{
    Edge, Origin, PIECE, Request, Script, Validators, Verdict, etag, judge, last_modified,
};

const LENGTH: u64 = 3 * PIECE + 11;

/// Fields of a request, and the status it must get of version 1.
fn cases() -> Vec<(Vec<(&'static str, String)>, u16)> {
    let (current, other) = (etag(1), etag(2));
    let (date, earlier) = (last_modified(1), last_modified(0));
    let later = last_modified(9);
    let range = ("range", "bytes=10-19".to_owned());
    vec![
        (vec![("if-none-match", current.clone())], 304),
        (vec![("if-none-match", format!("W/{current}"))], 304),
        (vec![("if-none-match", format!("{other}, {current}"))], 304),
        (vec![("if-none-match", "*".to_owned())], 304),
        (vec![("if-none-match", other.clone())], 200),
        (vec![("if-modified-since", date.clone())], 304),
        (vec![("if-modified-since", later)], 304),
        (vec![("if-modified-since", earlier.clone())], 200),
        (vec![("if-modified-since", "yesterday".to_owned())], 200),
        // If-None-Match counts and If-Modified-Since does not (RFC 9110, 13.1.3).
        (vec![("if-none-match", other.clone()), ("if-modified-since", date.clone())], 200),
        (vec![("if-match", current.clone())], 200),
        (vec![("if-match", "*".to_owned())], 200),
        (vec![("if-match", other.clone())], 412),
        (vec![("if-match", format!("W/{current}"))], 412),
        (vec![("if-unmodified-since", date.clone())], 200),
        (vec![("if-unmodified-since", earlier)], 412),
        // A precondition comes before the range.
        (vec![("if-none-match", current.clone()), range.clone()], 304),
        (vec![("if-none-match", other.clone()), range.clone()], 206),
        (vec![("if-match", current), range.clone()], 206),
        (vec![("if-match", other), range], 412),
    ]
}

fn asked(request: Request, fields: &[(&str, String)]) -> Request {
    fields.iter().fold(request, |request, (name, value)| request.header(name, value))
}

#[tokio::test]
async fn every_precondition_is_decided_as_rfc_9110_says_cold_and_warm() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, (fields, status)) in cases().into_iter().enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, Script::of(LENGTH));
        for temperature in ["cold", "warm"] {
            let response = asked(edge.get(&path), &fields).send().await;
            assert_eq!(response.status, status, "{fields:?} {temperature}");
            if status == 304 {
                assert_eq!(response.header("etag"), etag(1), "{fields:?} {temperature}");
                assert_eq!(response.body.len(), 0);
            }
            let expected = match status {
                200 | 206 => Verdict::Whole { version: 1 },
                status => Verdict::Status(status),
            };
            assert_eq!(judge(&origin, &path, &response), expected, "{fields:?} {temperature}");
            // What a viewer did not get, others do.
            let whole = edge.get(&path).send().await;
            let verdict = judge(&origin, &path, &whole);
            assert_eq!((whole.status, verdict), (200, Verdict::Whole { version: 1 }));
        }
    }
}

#[tokio::test]
async fn a_viewers_condition_is_not_the_origins_to_answer() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, (fields, _)) in cases().into_iter().enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, Script::of(LENGTH));
        asked(edge.get(&path), &fields).send().await;
        for request in origin.requests(&path) {
            let range = request.head.header("range").to_owned();
            for (name, _) in fields.iter().filter(|(name, _)| *name != "range") {
                assert_eq!(request.head.header(name), "", "{fields:?} went on, {range}");
            }
        }
    }
}

#[tokio::test]
async fn a_head_request_is_conditional_too() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    for _ in ["cold", "warm"] {
        let same = edge.head("/a").header("if-none-match", &etag(1)).send().await;
        assert_eq!(same.status, 304);
        let other = edge.head("/a").header("if-none-match", &etag(2)).send().await;
        assert_eq!((other.status, other.header("content-length")), (200, LENGTH.to_string()));
    }
}

#[tokio::test]
async fn without_validators_nothing_matches() {
    let origin = Origin::serving("/a", Script::of(LENGTH).validators(Validators::None));
    let edge = Edge::in_front_of(&origin).start();
    for _ in ["cold", "warm"] {
        for (name, value) in [("if-none-match", etag(1)), ("if-modified-since", last_modified(9))] {
            let response = edge.get("/a").header(name, &value).send().await;
            assert_eq!(response.status, 200, "{name}");
            assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
        }
        let none = edge.get("/a").header("if-match", &etag(1)).send().await;
        assert_eq!(none.status, 412);
    }
}

#[tokio::test]
async fn a_weak_etag_makes_304_but_no_parts() {
    let origin = Origin::serving("/a", Script::of(LENGTH).validators(Validators::Weak));
    let edge = Edge::in_front_of(&origin).start();
    for _ in ["cold", "warm"] {
        let same = edge.get("/a").header("if-none-match", &etag(1)).send().await;
        assert_eq!(same.status, 304);
        let weak = format!("W/{}", etag(1));
        let part = edge.get("/a").range(0..10).header("if-range", &weak).send().await;
        assert_eq!(part.status, 200);
        let refused = edge.get("/a").header("if-match", &weak).send().await;
        assert_eq!(refused.status, 412);
    }
}

#[tokio::test]
async fn conditions_hold_for_what_is_passed_to_one_viewer_too() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let whole = Verdict::Whole { version: 1 };
    for (number, (mut fields, status)) in cases().into_iter().enumerate() {
        // No precondition: what `If-Range` says of the range counts.
        if fields.len() == 1 {
            fields.push(("if-range", etag(2)));
            fields.push(("range", "bytes=10-19".to_owned()));
        }
        let path = format!("/{number}");
        origin.serve(&path, Script::of(LENGTH).cache_control("private"));
        for turn in ["unknown", "known to be private"] {
            let response = asked(edge.get(&path), &fields).send().await;
            let told = format!("{fields:?}, {turn}");
            assert_eq!(response.status, status, "{told}");
            let expected = if status < 300 { whole } else { Verdict::Status(status) };
            assert_eq!(judge(&origin, &path, &response), expected, "{told}");
        }
    }
    origin.serve("/same", Script::of(LENGTH).cache_control("private"));
    for _ in ["unknown", "known to be private"] {
        let part = edge.get("/same").range(10..20).header("if-range", &etag(1)).send().await;
        assert_eq!((part.status, part.body.len()), (206, 10));
        assert_eq!(judge(&origin, "/same", &part), whole);
    }
}
