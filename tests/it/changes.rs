//! An object that changes under the viewers: every body is of one version, and the new one comes.

use tokio::task::JoinSet;

use crate::lies::PLACES;
use crate::support::{
    BLOCK, Change, Edge, Ending, NotModified, Origin, PIECE, Script, Validators, Verdict, etag,
    judge,
};

const LENGTH: u64 = 2 * BLOCK + PIECE + 77;
const VALIDATORS: [Validators; 4] =
    [Validators::Strong, Validators::Weak, Validators::LastModified, Validators::None];

/// Small windows: a whole object takes several runs, each of which may meet another version.
fn edge(origin: &Origin) -> Edge {
    Edge::in_front_of(origin)
        .setting("fill.window", "256 KiB")
        .setting("fill.progress_timeout", "1s")
        .rule("**", "lifetime = { errors = '0s' }")
        .start()
}

/// Asks until the whole new version comes, which must be soon.
async fn assert_becomes(origin: &Origin, edge: &Edge, path: &str, version: u32) {
    let mut seen = vec![];
    for _ in 0..4 {
        let verdict = judge(origin, path, &edge.get(path).send().await);
        if verdict == (Verdict::Whole { version }) {
            return;
        }
        seen.push(verdict);
    }
    panic!("{path}: never version {version} but {seen:?}");
}

#[tokio::test]
async fn a_change_at_any_byte_of_a_body_is_never_seen_in_a_body() {
    let origin = Origin::start();
    let edge = edge(&origin);
    let mut viewers = JoinSet::new();
    for validators in VALIDATORS {
        for next in [LENGTH, LENGTH - PIECE, LENGTH + BLOCK] {
            for place in PLACES {
                let path = format!("/{validators:?}/{next}/{place}");
                let script = Script::of(LENGTH).next_length(next).change(Change::AtByte(place));
                origin.serve(&path, script.validators(validators).cache_control("max-age=0"));
                let asked = edge.get(&path);
                viewers.spawn(async move { (path, asked.send().await) });
            }
        }
    }
    for (path, response) in viewers.join_all().await {
        judge(&origin, &path, &response);
        assert_becomes(&origin, &edge, &path, 2).await;
    }
}

#[tokio::test]
async fn a_change_between_two_runs_is_never_seen_in_a_body() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for validators in VALIDATORS {
        for request in 2..7 {
            let path = format!("/{validators:?}/{request}");
            let script = Script::of(LENGTH).change(Change::FromRequest(request));
            origin.serve(&path, script.validators(validators).cache_control("max-age=0"));
            for start in [LENGTH - 5, 0, BLOCK, PIECE] {
                let part = edge.get(&path).range(start..(start + BLOCK).min(LENGTH)).send().await;
                let verdict = judge(&origin, &path, &part);
                assert!(verdict.version().is_some() || verdict == Verdict::Status(502), "{path}");
            }
            assert_becomes(&origin, &edge, &path, 2).await;
        }
    }
}

#[tokio::test]
async fn servers_that_disagree_about_parts_are_never_mixed() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for validators in VALIDATORS {
        for place in PLACES {
            let path = format!("/{validators:?}/{place}");
            let script = Script::of(LENGTH).change(Change::FromOffset(place));
            origin.serve(&path, script.validators(validators).cache_control("max-age=60"));
            let ranges = [
                place.saturating_sub(PIECE + 3)..(place + PIECE + 3).min(LENGTH),
                place..LENGTH,
                0..place.max(1),
                0..LENGTH,
            ];
            for range in ranges {
                let part = edge.get(&path).range(range.clone()).send().await;
                judge(&origin, &path, &part);
            }
            judge(&origin, &path, &edge.get(&path).send().await);
        }
    }
}

#[tokio::test]
async fn a_viewer_of_the_old_version_ends_with_it_while_others_get_the_new() {
    let old = Script::of(LENGTH).cache_control("max-age=0").ending(Ending::HeldAt(BLOCK));
    let origin = Origin::serving("/a", old);
    let edge = Edge::in_front_of(&origin).setting("fill.window", "16 MiB").start();
    let mut reading = edge.get("/a").open().await;
    let start = reading.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(origin.content("/a", 1).first_difference(0, &start), None);

    let new = Script::of(LENGTH).version(2).cache_control("max-age=0");
    origin.serve_once("/a", new.clone());
    let other = edge.get("/a").send().await;
    let verdict = judge(&origin, "/a", &other);
    assert_eq!(verdict, Verdict::Whole { version: 2 });
    origin.release("/a");
    let rest = reading.finish().await.unwrap();
    let difference = origin.content("/a", 1).first_difference(PIECE, &rest.body);
    assert_eq!(difference, None, "the old version to its end, or cut short");
    origin.serve("/a", new);
    assert_becomes(&origin, &edge, "/a", 2).await;
}

#[tokio::test]
async fn many_viewers_of_an_object_that_keeps_changing_each_get_one_version() {
    let origin = Origin::start();
    let edge = edge(&origin);
    for validators in VALIDATORS {
        let path = format!("/{validators:?}");
        let script = Script::of(LENGTH).change(Change::EachRequest).cache_control("max-age=0");
        origin.serve(&path, script.validators(validators));
        let mut viewers = JoinSet::new();
        for number in 0..40u64 {
            let start = (number * 97_001) % LENGTH;
            let asked = match number % 4 {
                0 => edge.get(&path),
                1 => edge.get(&path).range_from(start),
                2 => edge.get(&path).suffix(start + 1),
                _ => edge.get(&path).range(start..start + PIECE),
            };
            viewers.spawn(async move { asked.send().await });
        }
        for response in viewers.join_all().await {
            let verdict = judge(&origin, &path, &response);
            let told = [Verdict::Status(502), Verdict::Status(504)];
            assert!(verdict.version().is_some() || told.contains(&verdict), "{verdict:?}");
        }
    }
}

#[tokio::test]
async fn a_rule_that_removes_a_validator_removes_it_from_every_answer() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin)
        .setting("fill.window", "128 KiB")
        .rule("**", "response = { remove = ['ETag'] }")
        .start();
    let part = edge.get("/a").range(5..10).send().await;
    assert_eq!(judge(&origin, "/a", &part), Verdict::Whole { version: 1 });
    let whole = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &whole), Verdict::Whole { version: 1 });
    assert!(origin.requests("/a").len() > 2, "it came in parts");
}

#[tokio::test]
async fn an_errors_text_is_not_the_object_whatever_its_entity_tag_says() {
    let text = "status 404\n";
    let script = Script::of(text.len() as u64).cache_control("max-age=0");
    let origin = Origin::serving("/a", script.clone());
    let edge = edge(&origin);
    edge.get("/a").send().await;
    origin.serve("/a", script.clone().status(404).field("ETag", &etag(1)));
    for _ in 0..2 {
        let told = edge.get("/a").send().await;
        assert_eq!((told.status, &told.body[..]), (404, text.as_bytes()));
    }
    origin.serve("/a", script.not_modified(NotModified::Unknown));
    let back = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &back), Verdict::Whole { version: 1 });
}
