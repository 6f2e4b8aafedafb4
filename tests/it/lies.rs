//! Whatever is wrong with a body's end or a head, at whichever byte: no wrong byte, nothing kept.
//!
//! A fault that happens once is healed where the bytes can be gone on with. One that stays ends in
//! 502, 504 or a body cut short, after a bounded number of attempts; once the origin is honest
//! again the object comes whole.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Edge, Ending, Framing, HeadFault, Origin, PIECE, Script, Validators, Verdict, etag,
    follow, judge,
};

const LENGTH: u64 = 2 * BLOCK + PIECE + 77;
const WHOLE: Verdict = Verdict::Whole { version: 1 };
/// At, before, behind and between every kind of border.
pub(crate) const PLACES: [u64; 16] = [
    0,
    1,
    4_321,
    PIECE - 1,
    PIECE,
    PIECE + 1,
    3 * PIECE,
    BLOCK - PIECE,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    BLOCK + PIECE / 2,
    2 * BLOCK - 1,
    2 * BLOCK,
    2 * BLOCK + PIECE,
    LENGTH - 1,
];
const ATTEMPTS: usize = tidegate::limits::FILL_ATTEMPTS_MAX as usize;

/// With room for every object at once: a run that finds no memory ends and is begun again, rightly.
fn impatient(origin: &Origin) -> Edge {
    Edge::in_front_of(origin)
        .ram("512 MiB")
        .setting("memory.total", "1 GiB")
        .setting("fill.first_byte_timeout", "300ms")
        .setting("fill.progress_timeout", "300ms")
        .setting("fill.connect_timeout", "1s")
        .rule("**", "lifetime = { errors = '0s' }")
        .start()
}

/// What a viewer may be told of a fault that could not be healed.
fn is_defined(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Whole { version } | Verdict::Cut { version, .. } => version == 1,
        Verdict::Status(status) => status == 502 || status == 504,
    }
}

/// Once the origin is honest, the object comes whole, and again from what is held.
async fn assert_nothing_kept(origin: &Origin, edge: &Edge, path: &str, what: &str) {
    origin.serve(path, Script::of(LENGTH));
    for _ in 0..2 {
        let whole = edge.get(path).send().await;
        assert_eq!(judge(origin, path, &whole), WHOLE, "{what}: afterwards");
    }
}

/// Every fault at every place, each on a path of its own.
fn faults() -> Vec<(String, Ending)> {
    let at = |place| {
        [
            (format!("/cut/{place}"), Ending::CutAt(place)),
            (format!("/reset/{place}"), Ending::ResetAt(place)),
            (format!("/held/{place}"), Ending::HeldAt(place)),
        ]
    };
    PLACES.into_iter().flat_map(at).collect()
}

#[tokio::test]
async fn a_body_that_breaks_off_once_is_gone_on_with() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    let mut viewers = JoinSet::new();
    for (path, ending) in faults() {
        origin.serve(&path, Script::of(LENGTH));
        origin.serve_once(&path, Script::of(LENGTH).ending(ending));
        let asked = edge.get(&path);
        viewers.spawn(async move { (path, asked.send().await) });
    }
    for (path, response) in viewers.join_all().await {
        assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
        let requests = origin.requests(&path);
        let ranges: Vec<_> = requests.iter().map(|request| request.head.range()).collect();
        assert_eq!(requests.len(), 2, "{path}: one broke off, one went on: {ranges:?}");
        let place: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        let (first, _) = requests[1].head.range().unwrap_or((0, None));
        assert!(first <= place, "{path}: goes on from {first}");
        if first > 0 {
            assert_eq!(requests[1].head.header("if-range"), etag(1), "{path}");
        }
        // A reset may take back what was on its way; a cut may not.
        let again = origin.bytes_sent(&path) - LENGTH;
        let lost = if path.starts_with("/reset") { LENGTH } else { PIECE };
        assert!(again <= lost, "{path}: {again} bytes were asked for twice");
    }
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_cut_there_and_not_kept() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    let mut viewers = JoinSet::new();
    for (path, ending) in faults() {
        origin.serve(&path, Script::of(LENGTH).ending(ending));
        let asked = edge.get(&path);
        viewers.spawn(async move { (path, asked.send().await) });
    }
    for (path, response) in viewers.join_all().await {
        let verdict = judge(&origin, &path, &response);
        assert!(is_defined(verdict) && verdict != WHOLE, "{path}: {verdict:?}");
        let place: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        if let Verdict::Cut { bytes, .. } = verdict {
            assert!(bytes <= place, "{path}: {bytes} bytes, more than the origin ever sent");
        }
        // From one place no more often than a run may; and once more by a viewer so slow that the
        // run had ended before he came there.
        let mut attempts = BTreeMap::<u64, usize>::new();
        for request in origin.requests(&path) {
            *attempts.entry(request.head.range().map_or(0, |(first, _)| first)).or_default() += 1;
        }
        let most = attempts.values().max();
        assert!(most <= Some(&(2 * ATTEMPTS)), "{path}: {attempts:?}");
        assert_nothing_kept(&origin, &edge, &path, &path).await;
    }
}

#[tokio::test]
async fn who_is_behind_when_a_body_breaks_off_gets_all_that_came_and_asks_nobody_again() {
    let cut = BLOCK - 1;
    let origin = Origin::serving("/film", Script::of(LENGTH).ending(Ending::CutAt(cut)));
    let edge = Edge::in_front_of(&origin).start();
    let mut behind = edge.client().receive_buffer(4 << 10).get("/film").open().await;
    behind.read_exactly(10).await.unwrap();
    let failed = ["outcome=\"failed\""];
    edge.until_metric("tidegate_fill_runs_finished_total", &failed, |count| count == 1.0).await;
    let came = follow(&mut behind, origin.content("/film", 1), 10).await;
    assert_eq!(came, (cut - 10, false));
    assert_eq!(origin.requests("/film").len(), ATTEMPTS);
}

#[tokio::test]
async fn ranges_beside_the_place_where_a_body_breaks_off_are_right() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    let mut viewers = JoinSet::new();
    for (path, ending) in faults() {
        origin.serve(&path, Script::of(LENGTH).ending(ending));
        let place: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        let (before, behind) = (place.saturating_sub(10), (place + 10).min(LENGTH));
        for range in [before..behind, 0..behind, place..LENGTH] {
            let asked = edge.get(&path).range(range);
            let path = path.clone();
            viewers.spawn(async move { (path, asked.send().await) });
        }
    }
    for (path, response) in viewers.join_all().await {
        let verdict = judge(&origin, &path, &response);
        assert!(is_defined(verdict), "{path}: {verdict:?}");
    }
    for (path, _) in faults() {
        assert_nothing_kept(&origin, &edge, &path, &path).await;
    }
}

#[tokio::test]
async fn a_body_without_validators_that_breaks_off_is_not_patched_from_another() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    for validators in [Validators::None, Validators::Weak] {
        for place in PLACES {
            let path = format!("/{validators:?}/{place}");
            let script = Script::of(LENGTH).validators(validators);
            // Were it gone on with, the rest would be of version 2 and no one could tell.
            origin.serve(&path, script.clone().version(2));
            origin.serve_once(&path, script.ending(Ending::CutAt(place)));
            let response = edge.get(&path).send().await;
            let verdict = judge(&origin, &path, &response);
            assert!(!matches!(verdict, Verdict::Whole { version: 1 }), "{path}: {verdict:?}");
            let after = edge.get(&path).send().await;
            assert_eq!(judge(&origin, &path, &after), Verdict::Whole { version: 2 }, "{path}");
        }
    }
}

#[tokio::test]
async fn more_bytes_than_were_told_reach_nobody() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    let ends = [Ending::Surplus, Ending::SurplusDeclared];
    for (kind, ending) in ends.into_iter().enumerate() {
        for more in [1, 100, PIECE, 3 * BLOCK] {
            for range in [None, Some(0..100), Some(PIECE - 1..PIECE + 1), Some(BLOCK..LENGTH)] {
                let path = format!("/{kind}/{more}/{range:?}");
                let path = path.replace(['(', ')', ' '], "");
                origin.serve(&path, Script::of(LENGTH).ending(ending(more)));
                let asked = match range {
                    None => edge.get(&path),
                    Some(range) => edge.get(&path).range(range),
                };
                let response = asked.send().await;
                // Without a range, more bytes and a larger length are one longer object.
                if kind == 1 && response.status == 200 {
                    continue;
                }
                let verdict = judge(&origin, &path, &response);
                assert!(is_defined(verdict), "{path}: {verdict:?}");
                assert_nothing_kept(&origin, &edge, &path, &path).await;
            }
        }
    }
}

#[tokio::test]
async fn a_head_that_never_comes_is_asked_for_again_and_then_given_up() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    for (fault, status) in
        [(HeadFault::Closed, 502), (HeadFault::Garbled, 502), (HeadFault::Held, 504)]
    {
        for range in [None, Some(BLOCK - 1..BLOCK + 1)] {
            let path = format!("/{fault:?}/{}", range.is_some());
            let asked = match &range {
                None => edge.get(&path),
                Some(range) => edge.get(&path).range(range.clone()),
            };
            origin.serve(&path, Script::of(LENGTH).head(fault));
            let given_up = asked.send().await;
            assert_eq!(judge(&origin, &path, &given_up), Verdict::Status(status), "{path}");
            let requests = origin.requests(&path).len();
            assert!((1..=ATTEMPTS).contains(&requests), "{path}: {requests} requests");

            origin.serve(&path, Script::of(LENGTH));
            origin.serve_once(&path, Script::of(LENGTH).head(fault));
            let healed = asked.send().await;
            // Who has waited as long as he may is told so rather than made to wait again.
            let verdict = judge(&origin, &path, &healed);
            let told = fault == HeadFault::Held && verdict == Verdict::Status(504);
            assert!(verdict == WHOLE || told, "{path}: once, {verdict:?}");
        }
    }
}

#[tokio::test]
async fn an_origin_that_is_away_is_told_as_502_and_found_again() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    origin.serve("/held", Script::of(LENGTH));
    // Held, and to be asked about at once.
    for (path, must) in [("/stale", ""), ("/stale-never", ", must-revalidate")] {
        let expired = Script::of(LENGTH).cache_control(&format!("max-age=100{must}"));
        origin.serve(path, expired.field("Age", "100"));
    }
    let edge = impatient(&origin);
    for path in ["/held", "/stale", "/stale-never"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE);
    }
    origin.refuse_connections().await;
    let away = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &away), Verdict::Status(502));
    let held = edge.get("/held").send().await;
    assert_eq!(judge(&origin, "/held", &held), WHOLE, "what is held needs no origin");
    let stale = edge.get("/stale").send().await;
    assert_eq!(judge(&origin, "/stale", &stale), WHOLE, "stale is better than nothing");
    let never = edge.get("/stale-never").send().await;
    assert_eq!(judge(&origin, "/stale-never", &never), Verdict::Status(504), "it says so");
    origin.accept_connections().await;
    for path in ["/a", "/stale", "/stale-never"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}: back");
    }
}

#[tokio::test]
async fn a_chunked_body_that_breaks_off_is_never_taken_for_whole() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    for place in PLACES.into_iter().filter(|place| *place > 0) {
        let path = format!("/{place}");
        let chunked = Script::of(LENGTH).framing(Framing::Chunked);
        origin.serve(&path, chunked.ending(Ending::CutAt(place)));
        let response = edge.get(&path).send().await;
        let verdict = judge(&origin, &path, &response);
        assert!(is_defined(verdict) && verdict != WHOLE, "{path}: {verdict:?}");
        assert_nothing_kept(&origin, &edge, &path, &path).await;
    }
}

#[tokio::test]
async fn a_status_that_answers_no_question_of_ours_is_told_as_502() {
    let origin = Origin::start();
    let edge = impatient(&origin);
    for status in [101, 304] {
        let path = format!("/{status}");
        origin.serve(&path, Script::of(0).status(status));
        for asked in [edge.get(&path), edge.get(&path).range(0..10)] {
            let told = asked.send().await;
            assert_eq!(judge(&origin, &path, &told), Verdict::Status(502), "{status}");
        }
    }
}
