//! An origin that sends the edge elsewhere: it is followed so far, and tells no secrets there.

use crate::support::{BLOCK, Edge, Origin, Script, Verdict, judge};

const SECRETS: [&str; 3] = ["authorization", "cookie", "x-edge-key"];

#[tokio::test]
async fn what_one_origin_is_trusted_with_is_not_told_to_where_it_redirects() {
    let elsewhere = Origin::serving("/film", Script::of(BLOCK));
    let origin = Origin::serving("/film", Script::of(BLOCK));
    let away = format!("http://{}/film", elsewhere.address());
    origin.serve("/away", Script::of(0).status(302).field("Location", &away));
    origin.serve("/here", Script::of(0).status(307).field("Location", "/film"));
    let edge = Edge::in_front_of(&origin)
        .origin_setting("redirects", "follow")
        .origin_setting("fields", "{ 'X-Edge-Key' = 'a secret' }")
        .start();
    let get = |path: &str| {
        let asked = edge.get(path).header("cookie", "viewer=1");
        asked.header("authorization", "Basic YTpi").header("x-other", "kept").range(5..10)
    };
    for (path, asked, trusted) in [("/away", &elsewhere, false), ("/here", &origin, true)] {
        let part = get(path).send().await;
        assert_eq!(judge(asked, "/film", &part), Verdict::Whole { version: 1 }, "{path}");
        let asked = asked.requests("/film").pop().unwrap().head;
        for name in SECRETS {
            assert_eq!(!asked.header(name).is_empty(), trusted, "{path}: {name}");
        }
        assert_eq!((asked.header("x-other"), asked.range().is_some()), ("kept", true), "{path}");
    }
    for path in ["/away", "/here"] {
        let first = origin.requests(path).pop().unwrap().head;
        assert!(SECRETS.iter().all(|name| !first.header(name).is_empty()), "{path}");
    }
}

#[tokio::test]
async fn redirects_without_end_are_given_up() {
    let origin = Origin::serving("/a", Script::of(0).status(302).field("Location", "/a"));
    let edge = Edge::in_front_of(&origin).origin_setting("redirects", "follow").start();
    let given_up = edge.get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &given_up), Verdict::Status(502));
    let most = tidegate::limits::REDIRECTS_MAX as usize + 1;
    assert_eq!(origin.requests("/a").len(), most);
}
