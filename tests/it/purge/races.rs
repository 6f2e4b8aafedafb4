//! Purges that come while something is on its way.

use tokio::task::JoinSet;

use super::*;

/// Asks for `/film` once the origin holds it back; the answer is still to come.
async fn held_back(origin: &Origin, edge: &Edge, viewers: usize) -> JoinSet<Response> {
    let mut waiting = JoinSet::new();
    for _ in 0..viewers {
        let request = edge.get("/film");
        waiting.spawn(async move { request.send().await });
    }
    origin.until_requested("/film", 1).await;
    waiting
}

#[tokio::test]
async fn who_comes_after_a_purge_gets_nothing_that_was_asked_for_before() {
    for document in [
        json!({ "urls": [url("/film")] }),
        json!({ "urls": [url("/film")], "soft": true }),
        json!({ "prefixes": [url("/fi")] }),
        json!({ "site": "media", "soft": true }),
    ] {
        let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
        let script = Script::of(2 * BLOCK);
        origin.serve("/film", script.clone());
        origin.serve_once("/film", script.clone().head(HeadFault::Held));
        let edge = purging(&origin, folder.path()).start();
        let before = held_back(&origin, &edge, 1).await;
        origin.serve("/film", script.version(2));
        purge(&edge, document.clone()).await;

        // He does not even wait for it: it is held back still.
        let after = edge.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &after), NEXT, "{document}");

        origin.release("/film");
        let before = before.join_all().await;
        assert_eq!(judge(&origin, "/film", &before[0]), WHOLE, "he came before: {document}");
        let later = edge.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &later), NEXT, "it takes no one's place: {document}");
        assert_eq!(origin.requests("/film").len(), 2, "{document}");
    }
}

#[tokio::test]
async fn what_was_asked_for_before_a_purge_puts_out_nothing_that_came_after_it() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(1000);
    origin.serve("/film", script.clone());
    origin.serve_once("/film", script.clone().cache_control("private").head(HeadFault::Held));
    let edge = purging(&origin, folder.path()).start();
    let before = held_back(&origin, &edge, 1).await;
    origin.serve("/film", script.version(2));
    purge(&edge, json!({ "urls": [url("/film")] })).await;
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), NEXT);
    origin.release("/film");
    assert_eq!(judge(&origin, "/film", &before.join_all().await[0]), WHOLE);
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), NEXT);
    assert_eq!(origin.requests("/film").len(), 2, "what is fresh stays");
}

#[tokio::test]
async fn a_tag_is_known_when_the_head_comes_and_counts_for_those_who_waited_for_it() {
    for soft in [false, true] {
        let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
        let script = Script::of(2 * BLOCK).field("Cache-Tag", "old");
        origin.serve("/film", script.clone());
        origin.serve_once("/film", script.clone().head(HeadFault::Held));
        let edge = purging(&origin, folder.path()).start();
        let mut waiting = held_back(&origin, &edge, 1).await;
        origin.serve("/film", script.version(2));
        purge(&edge, json!({ "tags": ["old"], "soft": soft })).await;
        for _ in 0..50 {
            let request = edge.get("/film");
            waiting.spawn(async move { request.send().await });
        }
        edge.until_metric("tidegate_connections_open", &[], |open| open >= 51.0).await;
        origin.release("/film");
        let answers = waiting.join_all().await;
        let verdicts: Vec<_> = answers.iter().map(|a| judge(&origin, "/film", a)).collect();
        let old = verdicts.iter().filter(|verdict| **verdict == WHOLE).count();
        assert!(old <= 1, "the one who came before: {verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == NEXT).count(), 51 - old, "{verdicts:?}");
        assert_eq!(origin.requests("/film").len(), 2, "one question for all of them");
    }
}

#[tokio::test]
async fn a_304_that_was_asked_for_before_a_purge_confirms_nothing_after_it() {
    for (soft, is_conditional) in [(false, false), (true, true)] {
        let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
        let script = Script::of(1000).cache_control("max-age=600, stale-if-error=0");
        origin.serve("/film", script.clone());
        let edge = purging(&origin, folder.path()).start();
        warm(&origin, &edge, &["/film"]).await;
        purge(&edge, json!({ "site": "media", "soft": true })).await;
        origin.serve_once("/film", script.clone().head(HeadFault::Held));
        let before = held_back(&origin, &edge, 1).await;
        purge(&edge, json!({ "urls": [url("/film")], "soft": soft })).await;
        origin.release("/film");
        assert_eq!(judge(&origin, "/film", &before.join_all().await[0]), WHOLE);
        origin.forget_requests();
        let after = edge.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &after), WHOLE);
        let asked = origin.requests("/film");
        assert_eq!(asked.len(), 1, "{soft}");
        let conditional = !asked[0].head.header("if-none-match").is_empty();
        assert_eq!(conditional, is_conditional, "what is gone cannot be asked about");
    }
}

#[tokio::test]
async fn a_body_on_its_way_goes_on_for_who_came_before_and_is_not_found_by_others() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(3 * BLOCK);
    origin.serve("/film", script.clone());
    origin.serve_once("/film", script.clone().ending(Ending::HeldAt(BLOCK)));
    let edge = purging(&origin, folder.path()).start();
    let mut before = edge.get("/film").open().await;
    let first = before.read_exactly(BLOCK as usize).await.unwrap();
    assert_eq!(first.len() as u64, BLOCK);
    origin.serve("/film", script.version(2));
    purge(&edge, json!({ "urls": [url("/film")] })).await;
    let after = edge.get("/film").send().await;
    assert_eq!(judge(&origin, "/film", &after), NEXT);
    origin.release("/film");
    let rest = before.finish().await.unwrap();
    assert!(rest.complete && rest.body.len() as u64 == 2 * BLOCK);
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), NEXT);
    assert_eq!(origin.requests("/film").len(), 2);
}
