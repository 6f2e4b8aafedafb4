//! What is purged is not served again: by URL, prefix, tag and site, hard and soft, from ram and
//! from volumes, by a fill that began before, after a kill and by a volume that was away.

use std::fs;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BLOCK, Configured, Edge, Ending, HOST, HeadFault, Origin, Response, Script, Verdict, judge,
};

mod kept;
mod operators;
mod races;

const TOKEN: &str = "a-token-of-some-length";
const WHOLE: Verdict = Verdict::Whole { version: 1 };
const NEXT: Verdict = Verdict::Whole { version: 2 };

/// An edge of whom may be asked to purge; its token lies in `folder`.
fn purging(origin: &Origin, folder: &Path) -> Configured {
    let file = folder.join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    Edge::in_front_of(origin).setting("admin.token_file", &file.to_string_lossy())
}

/// Asks the admin listener.
async fn asked(edge: &Edge, document: &Value) -> (u16, Value) {
    let bearer = format!("Bearer {TOKEN}");
    let request = edge.admin().request(Method::POST, "/purge").json(document);
    let answer = request.header("authorization", &bearer).send().await;
    let line = answer.body.strip_suffix(b"\n").expect("a line");
    (answer.status, serde_json::from_slice(line).unwrap())
}

/// Purges; the number of the last purge.
async fn purge(edge: &Edge, document: Value) -> u64 {
    let (status, said) = asked(edge, &document).await;
    assert_eq!((status, &said["overflowed"]), (200, &json!([])), "{said}");
    said["number"].as_u64().unwrap()
}

fn url(path: &str) -> String {
    format!("https://{HOST}{path}")
}

/// Has each path in the cache, and the origin forget that it was asked.
async fn warm(origin: &Origin, edge: &Edge, paths: &[&str]) {
    for path in paths {
        assert_eq!(judge(origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    assert_eq!(asked_again(origin, edge, paths).await, vec![0; paths.len()]);
}

/// The requests the origin gets for each path when it is asked for once more.
async fn asked_again(origin: &Origin, edge: &Edge, paths: &[&str]) -> Vec<usize> {
    origin.forget_requests();
    for path in paths {
        edge.get(path).send().await;
    }
    paths.iter().map(|path| origin.requests(path).len()).collect()
}

/// What is in the cache for each kind of purge; tags by the path's last part.
const PATHS: [&str; 5] = ["/a/one", "/a/two", "/ab", "/a/three", "/b"];

fn serve_all(origin: &Origin) {
    for (path, tags) in PATHS.iter().zip(["red, blue", "blue", "green", "red", ""]) {
        origin.serve(path, Script::of(1000).field("Cache-Tag", tags));
    }
}

/// Each kind, and which of `PATHS` it covers.
fn kinds() -> Vec<(Value, [usize; 5])> {
    vec![
        (json!({ "urls": [url("/a/one")] }), [1, 0, 0, 0, 0]),
        (json!({ "urls": [url("/a/one?x=1")] }), [0; 5]),
        (json!({ "urls": ["http://MEDIA.test:81/%61/./one", url("/b#c")] }), [1, 0, 0, 0, 1]),
        (json!({ "prefixes": [url("/a/")] }), [1, 1, 0, 1, 0]),
        (json!({ "prefixes": [url("/a")] }), [1, 1, 1, 1, 0]),
        (json!({ "prefixes": [url("")] }), [1; 5]),
        (json!({ "tags": ["red"] }), [1, 0, 0, 1, 0]),
        (json!({ "tags": ["blue"], "site": "media" }), [1, 1, 0, 0, 0]),
        (json!({ "tags": ["Red"] }), [0; 5]),
        (json!({ "site": "media" }), [1; 5]),
        (json!({ "urls": [url("/b")], "tags": ["green"] }), [0, 0, 1, 0, 1]),
    ]
}

#[tokio::test]
async fn what_is_purged_hard_is_asked_for_as_if_it_had_never_been_there() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    serve_all(&origin);
    for (document, covered) in kinds() {
        let edge = purging(&origin, folder.path()).start();
        warm(&origin, &edge, &PATHS).await;
        assert_eq!(purge(&edge, document.clone()).await, purged_by(&document), "{document}");
        for (path, asked) in PATHS.iter().zip(covered) {
            let url = format!("/explain?url=http://{HOST}{path}");
            let bearer = format!("Bearer {TOKEN}");
            let told = edge.admin().get(&url).header("authorization", &bearer).send().await.body;
            let told: Value = serde_json::from_slice(&told).unwrap();
            let expected = match asked {
                0 => ("stored", false),
                _ => ("fetch", true),
            };
            let was_purged = told["answer"]["because"].as_str().unwrap().contains("was purged");
            assert_eq!((told["answer"]["how"].as_str().unwrap(), was_purged), expected, "{path}");
        }
        assert_eq!(asked_again(&origin, &edge, &PATHS).await, covered, "{document}");
        let conditional = |path: &&str| {
            origin.requests(path).iter().any(|r| !r.head.header("if-none-match").is_empty())
        };
        assert!(!PATHS.iter().any(conditional), "nothing is left to ask about: {document}");
        assert_eq!(asked_again(&origin, &edge, &PATHS).await, [0; 5], "{document}");
    }
}

/// How many purges a document stands for.
fn purged_by(document: &Value) -> u64 {
    let named = |list: &str| document[list].as_array().map_or(0, Vec::len) as u64;
    (named("urls") + named("prefixes") + named("tags")).max(1)
}

#[tokio::test]
async fn what_is_purged_softly_is_asked_about_once_and_lives_on() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    serve_all(&origin);
    for (mut document, covered) in kinds() {
        document["soft"] = json!(true);
        let edge = purging(&origin, folder.path()).start();
        warm(&origin, &edge, &PATHS).await;
        purge(&edge, document.clone()).await;
        assert_eq!(asked_again(&origin, &edge, &PATHS).await, covered, "{document}");
        for (path, covered) in PATHS.iter().zip(covered) {
            let asked = origin.requests(path);
            assert!(asked.iter().all(|r| !r.head.header("if-none-match").is_empty()), "{path}");
            assert_eq!(asked.len(), covered, "{path}");
        }
        assert_eq!(asked_again(&origin, &edge, &PATHS).await, [0; 5], "{document}");
    }
}

#[tokio::test]
async fn what_is_purged_softly_serves_where_its_origin_fails_and_is_gone_once_purged_hard() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(BLOCK + 5).cache_control("max-age=600, stale-if-error=60");
    origin.serve("/film", script.clone());
    let edge = purging(&origin, folder.path()).start();
    warm(&origin, &edge, &["/film"]).await;
    purge(&edge, json!({ "urls": [url("/film")], "soft": true })).await;
    origin.serve("/film", script.status(503));
    let stale = edge.get("/film").send().await;
    assert_eq!((stale.status, stale.body.len() as u64), (200, BLOCK + 5));
    let said = stale.header("cache-status");
    assert!(said.contains("fwd=stale") && said.contains("fwd-status=503"), "{said}");
    assert_eq!(origin.requests("/film").len(), 1);
    purge(&edge, json!({ "urls": [url("/film")] })).await;
    assert_eq!(edge.get("/film").send().await.status, 503);
}

#[tokio::test]
async fn stale_while_revalidate_counts_from_a_soft_purge() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(10).cache_control("max-age=600, stale-while-revalidate=60");
    origin.serve("/film", script.clone());
    let edge = purging(&origin, folder.path()).start();
    warm(&origin, &edge, &["/film"]).await;
    origin.serve("/film", script.version(2));
    purge(&edge, json!({ "site": "media", "soft": true })).await;
    let first = edge.get("/film").send().await;
    assert_eq!(judge(&origin, "/film", &first), WHOLE, "what there is, while the origin is asked");
    origin.until_requested("/film", 1).await;
    origin.until_idle("/film").await;
    let asked = tokio::time::Instant::now();
    while judge(&origin, "/film", &edge.get("/film").send().await) != NEXT {
        assert!(asked.elapsed().as_secs() < 20, "the new version never comes");
    }
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn viewers_see_no_tags_and_a_304_may_change_them() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(10).field("Surrogate-Key", "one two").field("xkey", "three");
    let script = script.field("Surrogate-Control", "max-age=5");
    origin.serve("/film", script.clone());
    let edge = purging(&origin, folder.path()).start();
    for answer in [edge.get("/film").send().await, edge.get("/film").send().await] {
        for field in ["surrogate-key", "xkey", "cache-tag"] {
            assert!(!answer.headers.contains_key(field), "{field}");
        }
        assert_eq!(answer.header("surrogate-control"), "max-age=5");
    }
    // Nobody had these tags, and everybody had those.
    for (tag, asked) in [("other", 0), ("two", 1), ("three", 1)] {
        purge(&edge, json!({ "tags": [tag] })).await;
        assert_eq!(asked_again(&origin, &edge, &["/film"]).await, [asked], "{tag}");
    }
    origin.serve("/film", script.without("xkey").field("Surrogate-Key", "new"));
    purge(&edge, json!({ "urls": [url("/film")], "soft": true })).await;
    let confirmed = edge.get("/film").send().await;
    assert!(confirmed.header("cache-status").contains("fwd-status=304"), "{confirmed:?}");
    for (tag, asked) in [("two", 0), ("new", 1)] {
        purge(&edge, json!({ "tags": [tag] })).await;
        assert_eq!(asked_again(&origin, &edge, &["/film"]).await, [asked], "{tag}");
    }
}

#[tokio::test]
async fn what_has_more_tags_than_are_remembered_is_purged_by_each() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
    let most = tidegate::limits::TAGS_PER_HEAD_MAX;
    for (path, count) in [("/most", most), ("/more", most + 1)] {
        origin.serve(path, Script::of(10).field("xkey", &tags(count)));
    }
    let edge = purging(&origin, folder.path()).start();
    let paths = ["/most", "/more"];
    warm(&origin, &edge, &paths).await;
    for (tag, asked) in
        [(format!("t{most}"), [0, 1]), ("nobody's".to_owned(), [0, 1]), ("t0".to_owned(), [1, 1])]
    {
        purge(&edge, json!({ "tags": [tag] })).await;
        assert_eq!(asked_again(&origin, &edge, &paths).await, asked, "{tag}");
    }
}

#[tokio::test]
async fn all_variants_of_an_object_are_purged_with_it() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(10).varying_on("Accept-Language"));
    let edge = purging(&origin, folder.path()).start();
    let ask =
        async |language: &str| edge.get("/film").header("accept-language", language).send().await;
    for soft in [false, true] {
        for language in ["de", "en"] {
            ask(language).await;
        }
        purge(&edge, json!({ "urls": [url("/film")], "soft": soft })).await;
        for (asked, language) in [(1, "de"), (2, "en"), (2, "de"), (2, "en")] {
            if asked == 1 {
                origin.forget_requests();
            }
            ask(language).await;
            assert_eq!(origin.requests("/film").len(), asked, "{language} {soft}");
        }
    }
}

#[tokio::test]
async fn a_url_is_purged_with_the_parameters_that_count() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(10));
    let edge = purging(&origin, folder.path()).rule("/film", "query = { only = [\"a\"] }").start();
    for (asked, purged, is_covered) in [
        ("/film?a=1&b=2", "/film?b=3&a=1", true),
        ("/film?a=1", "/film?a=2", false),
        ("/film?a=1", "/film", false),
        ("/film?b=1", "/film", true),
    ] {
        edge.get(asked).send().await;
        origin.forget_requests();
        purge(&edge, json!({ "urls": [url(purged)] })).await;
        edge.get(asked).send().await;
        assert_eq!(origin.requests("/film").len(), usize::from(is_covered), "{asked} {purged}");
    }
}

#[tokio::test]
async fn what_is_purged_is_counted() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = purging(&origin, folder.path()).start();
    let count = async |hardness: &str, labels: &[&str]| {
        edge.metric(&format!("tidegate_purges_{hardness}_total"), labels).await
    };
    assert_eq!((count("hard", &[]).await, count("soft", &[]).await), (0.0, 0.0));
    let document = json!({ "urls": [url("/a"), url("/b")], "tags": ["t"] });
    assert_eq!(purge(&edge, document).await, 3);
    assert_eq!(purge(&edge, json!({ "site": "media", "soft": true })).await, 4);
    assert_eq!(count("hard", &["kind=\"url\""]).await, 2.0);
    assert_eq!(count("hard", &["kind=\"tag\""]).await, 1.0);
    assert_eq!(count("soft", &["kind=\"site\""]).await, 1.0);
    assert_eq!((count("hard", &[]).await, count("soft", &[]).await), (3.0, 1.0));
    // Both URLs, the tag and what stands for any tag, the site.
    assert_eq!(edge.metric("tidegate_purge_entries", &[]).await, 5.0);
}
