//! What is sent at most in a second: by a rule, or as a player asks.

use tokio::task::JoinSet;

use crate::support::{Edge, Origin, PIECE, Request, Script, Verdict, judge};

/// Some seconds at the least pace there is, and a moment without one.
const LENGTH: u64 = 64 * PIECE;

/// The words of those who ask at once, in the order in which they have all of it.
async fn order(origin: &Origin, asked: Vec<(&'static str, Request)>) -> Vec<&'static str> {
    let mut asking = JoinSet::new();
    for (word, request) in asked {
        asking.spawn(async move { (word, request.send().await) });
    }
    let mut order = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (word, answer) = answer.unwrap();
        assert_eq!(judge(origin, "/a", &answer), Verdict::Whole { version: 1 }, "{word}");
        order.push(word);
    }
    order
}

#[tokio::test]
async fn a_player_is_sent_no_faster_than_it_asks_and_another_as_fast_as_it_goes() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).rule("/a", "pace = \"cmcd\"").start();
    edge.get("/a").send().await;
    let asks = |kbps: u32| edge.get("/a").header("cmcd-status", &format!("rtp={kbps}"));
    let asked = vec![("slow", asks(8_000)), ("fast", asks(800_000)), ("silent", edge.get("/a"))];
    assert_eq!(order(&origin, asked).await.last(), Some(&"slow"));
}

#[tokio::test]
async fn a_rule_sets_a_pace_for_what_it_is_about_and_the_next_request_has_its_own() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).site("other").rule("/a", "pace = \"8 Mbit/s\"").start();
    let (paced, other) = (edge.client(), edge.client().host("other.test"));
    for client in [&paced, &other] {
        client.get("/a").range(0..1).send().await;
    }
    // A connection that was paced is not any longer.
    let kept = paced.get("/a").range(0..1).on(paced.connect().await.unwrap()).await.unwrap();
    let kept = kept.finish_and_keep().await.unwrap().1.unwrap();
    let mut asking = JoinSet::new();
    let slow = paced.get("/a");
    asking.spawn(async move { ("paced", slow.send().await) });
    asking.spawn(async move {
        let answer = other.get("/a").on(kept).await.unwrap();
        ("as it goes", answer.finish().await.unwrap())
    });
    let mut order = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (word, answer) = answer.unwrap();
        assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 }, "{word}");
        order.push(word);
    }
    assert_eq!(order, ["as it goes", "paced"]);
}
