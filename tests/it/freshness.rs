//! What is kept, for how long, and what is asked of the origin when it is kept no longer.

use crate::support::{
    BLOCK, Change, Edge, NotModified, Origin, PIECE, Request, Script, Validators, Verdict, etag,
    judge, judge_variant,
};

const LENGTH: u64 = PIECE + 99;

/// What the second viewer costs the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// Nothing.
    Shared,
    /// A conditional request.
    Revalidated,
    /// All of it again.
    OfHisOwn,
}
use Second::{OfHisOwn, Revalidated, Shared};

/// Response fields beside the validators, and what the second viewer costs under them.
const ANSWERS: [(&[(&str, &str)], Second); 24] = [
    (&[("Cache-Control", "max-age=60")], Shared),
    (&[("Cache-Control", "MAX-AGE=60")], Shared),
    (&[("Cache-Control", "public, max-age=60, immutable")], Shared),
    (&[("Cache-Control", "max-age=0, s-maxage=60")], Shared),
    (&[("Cache-Control", "unheard-of=\"a, no-store\", max-age=60")], Shared),
    (&[("Expires", "Fri, 01 Jan 2100 00:00:00 GMT")], Shared),
    (&[("Cache-Control", "max-age=60"), ("Expires", "0")], Shared),
    (&[("Cache-Control", "max-age=60"), ("Age", "10")], Shared),
    (&[("Cache-Control", "public, max-age=60"), ("Set-Cookie", "a=b")], Shared),
    (&[("Cache-Control", "s-maxage=60"), ("Set-Cookie", "a=b")], Shared),
    (&[("Cache-Control", "max-age=0")], Revalidated),
    (&[("Cache-Control", "no-cache")], Revalidated),
    (&[("Cache-Control", "no-cache, max-age=60")], Revalidated),
    (&[("Cache-Control", "max-age=60, s-maxage=0")], Revalidated),
    (&[("Cache-Control", "max-age=60"), ("Age", "100")], Revalidated),
    (&[("Expires", "Thu, 01 Jan 2015 00:00:00 GMT")], Revalidated),
    (&[("Expires", "0")], Revalidated),
    (&[("Cache-Control", "no-store")], OfHisOwn),
    (&[("Cache-Control", "max-age=60, no-store")], OfHisOwn),
    (&[("Cache-Control", "private")], OfHisOwn),
    (&[("Cache-Control", "private, max-age=60")], OfHisOwn),
    (&[("Cache-Control", "max-age=60, private, s-maxage=60")], OfHisOwn),
    (&[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")], OfHisOwn),
    (&[("Cache-Control", "max-age=60"), ("Vary", "*")], OfHisOwn),
];

fn script(fields: &[(&str, &str)], second: Second) -> Script {
    let script = Script::of(LENGTH).without("Cache-Control");
    let script = fields.iter().fold(script, |script, (name, value)| script.field(name, value));
    // What is no one else's differs for each; what may be revalidated stays.
    match second {
        OfHisOwn => script.change(Change::EachRequest),
        Shared | Revalidated => script,
    }
}

/// Asks twice and checks what that cost.
async fn assert_second(origin: &Origin, path: &str, asked: &Request, second: Second, what: &str) {
    let mut versions = vec![];
    for _ in 0..2 {
        let response = asked.send().await;
        assert_eq!(response.status, 200, "{what}");
        versions.push(judge(origin, path, &response));
    }
    let requests = origin.requests(path);
    let conditional = |at: usize| requests[at].head.header("if-none-match").to_owned();
    match second {
        Shared => assert_eq!(requests.len(), 1, "{what}"),
        Revalidated => {
            assert_eq!((requests.len(), conditional(1)), (2, etag(1)), "{what}");
            assert_eq!(origin.bytes_sent(path), LENGTH, "{what}: 304 has no body");
        }
        OfHisOwn => assert_eq!((requests.len(), conditional(1)), (2, String::new()), "{what}"),
    }
    let expected = if second == OfHisOwn { 2 } else { 1 };
    let whole = |version| Verdict::Whole { version };
    assert_eq!(versions, [whole(1), whole(expected)], "{what}");
}

#[tokio::test]
async fn the_origins_words_decide_what_is_shared() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, (fields, second)) in ANSWERS.into_iter().enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, script(fields, second));
        assert_second(&origin, &path, &edge.get(&path), second, &format!("{fields:?}")).await;
    }
}

#[tokio::test]
async fn what_was_asked_for_with_authorization_is_shared_only_where_that_is_said() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, (value, second)) in [
        ("max-age=60", OfHisOwn),
        ("max-age=60, public", Shared),
        ("s-maxage=60", Shared),
        ("max-age=60, must-revalidate", Shared),
        ("no-store, public", OfHisOwn),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        origin.serve(&path, script(&[("Cache-Control", value)], second));
        let asked = edge.get(&path).header("authorization", "Basic YTpi");
        assert_second(&origin, &path, &asked, second, value).await;
        let first = &origin.requests(&path)[0];
        assert_eq!(first.head.header("authorization"), "Basic YTpi", "the origin decides");
    }
}

#[tokio::test]
async fn where_the_origin_is_silent_the_rule_speaks() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin)
        .rule("*.m3u8", "lifetime = { given = '0s' }")
        .rule("*.txt", "lifetime = { least = '1h' }")
        .rule("*.ts", "lifetime = { most = '0s' }")
        .rule("**", "lifetime = { given = '1h' }")
        .start();
    let silent: &[(&str, &str)] = &[];
    let short: &[(&str, &str)] = &[("Cache-Control", "max-age=0")];
    let long: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];
    for (path, fields, second) in [
        ("/silent.m4s", silent, Shared),
        ("/silent.m3u8", silent, Revalidated),
        ("/short.m4s", short, Revalidated),
        ("/short.txt", short, Shared),
        ("/long.ts", long, Revalidated),
        ("/long.m3u8", long, Shared),
    ] {
        origin.serve(path, script(fields, second));
        assert_second(&origin, path, &edge.get(path), second, path).await;
    }
}

#[tokio::test]
async fn a_304_makes_what_is_held_fresh_again() {
    let length = 3 * BLOCK + 7;
    let stale = Script::of(length).cache_control("max-age=0");
    let origin = Origin::serving("/a", stale.clone());
    let edge = Edge::in_front_of(&origin).start();
    edge.get("/a").send().await;
    origin.serve("/a", stale.cache_control("max-age=60").field("X-Seen", "later"));
    for _ in 0..3 {
        let response = edge.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
        assert_eq!(response.header("x-seen"), "later", "a 304 brings its fields");
    }
    assert_eq!(origin.requests("/a").len(), 2);
    assert_eq!(origin.bytes_sent("/a"), length, "no block is sent again");
}

#[tokio::test]
async fn what_has_changed_is_replaced() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (path, validators) in [
        ("/strong", Validators::Strong),
        ("/weak", Validators::Weak),
        ("/date", Validators::LastModified),
        ("/none", Validators::None),
    ] {
        let stale = Script::of(LENGTH).cache_control("max-age=0").validators(validators);
        origin.serve(path, stale.clone());
        let first = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &first), Verdict::Whole { version: 1 }, "{path}");
        origin.serve(path, stale.version(2));
        let second = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &second), Verdict::Whole { version: 2 }, "{path}");
        let part = edge.get(path).range(PIECE - 5..PIECE + 5).send().await;
        assert_eq!(judge(&origin, path, &part), Verdict::Whole { version: 2 }, "{path}");
    }
}

#[tokio::test]
async fn an_origin_that_knows_no_304_is_believed() {
    let stale = Script::of(LENGTH).cache_control("no-cache").not_modified(NotModified::Unknown);
    let origin = Origin::serving("/a", stale);
    let edge = Edge::in_front_of(&origin).start();
    for _ in 0..3 {
        let response = edge.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
    }
    assert_eq!(origin.requests("/a").len(), 3);
}

#[tokio::test]
async fn the_age_and_the_way_of_a_response_are_told() {
    let aged = Script::of(LENGTH).cache_control("max-age=600").field("Age", "40");
    let origin = Origin::serving("/a", aged.field("Cache-Status", "shield; hit"));
    origin.serve("/stale", Script::of(LENGTH).cache_control("max-age=0"));
    let edge = Edge::in_front_of(&origin).start();

    let miss = edge.get("/a").send().await;
    let way = miss.header("cache-status");
    assert!(way.starts_with("shield; hit, tidegate; fwd=uri-miss"), "{way}");
    // A viewer has his bytes before their run has ended.
    edge.until_metric("tidegate_fill_runs_in_flight", &[], |count| count == 0.0).await;
    let hit = edge.get("/a").send().await;
    let way = hit.header("cache-status");
    assert!(way.starts_with("shield; hit, tidegate; hit"), "{way}");
    let age: u64 = hit.header("age").parse().unwrap();
    assert!((40..100).contains(&age), "{age}");
    let not_modified = edge.get("/a").header("if-none-match", &etag(1)).send().await;
    assert!(not_modified.header("cache-status").contains("tidegate; hit"));

    edge.get("/stale").send().await;
    let revalidated = edge.get("/stale").send().await.header("cache-status");
    assert!(revalidated.contains("tidegate; fwd=stale"), "{revalidated}");
    assert!(revalidated.contains("fwd-status=304"), "{revalidated}");
    let absent = edge.get("/absent").send().await;
    assert_eq!(absent.status, 404);
}

#[tokio::test]
async fn each_variant_has_its_own_bytes() {
    let origin = Origin::serving("/a", Script::of(LENGTH).varying_on("accept-language"));
    let edge = Edge::in_front_of(&origin).start();
    let languages = ["de", "en", "fr"];
    for turn in 0..2 {
        for language in languages {
            let response = edge.get("/a").header("accept-language", language).send().await;
            let way = response.header("cache-status");
            assert_eq!(way.contains("fwd=uri-miss"), (turn, language) == (0, "de"), "{way}");
            assert_eq!(way.contains("fwd=vary-miss"), turn == 0 && language != "de", "{way}");
            let verdict = judge_variant(&origin, "/a", Some(language), &response);
            assert_eq!(verdict, Verdict::Whole { version: 1 }, "{language}");
        }
    }
    assert_eq!(origin.requests("/a").len(), languages.len());
    for number in 0..3 * tidegate::limits::VARIANTS_PER_OBJECT_MAX {
        let language = format!("x-{number}");
        let response = edge.get("/a").header("accept-language", &language).send().await;
        let verdict = judge_variant(&origin, "/a", Some(&language), &response);
        assert_eq!(verdict, Verdict::Whole { version: 1 }, "more variants than are kept");
    }
}

#[tokio::test]
async fn an_error_is_kept_as_long_as_the_rule_says() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin)
        .rule("/kept/*", "lifetime = { errors = '1h' }")
        .rule("**", "lifetime = { errors = '0s' }")
        .start();
    for (path, requests) in [("/kept/a", 1), ("/other/a", 3)] {
        origin.serve(path, Script::of(LENGTH).status(404).without("Cache-Control"));
        for _ in 0..3 {
            assert_eq!(edge.get(path).send().await.status, 404, "{path}");
        }
        assert_eq!(origin.requests(path).len(), requests, "{path}");
    }
}
