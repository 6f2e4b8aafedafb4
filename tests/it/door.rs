//! Who is let in to what is behind a token: by which, for what, for how long; and that nobody but
//! the door ever sees one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidegate::token::jwk::{Jwk, SealingKey};
use tidegate::token::key::Key;
use tidegate::token::key_file::{KeyFile, Keys};
use tidegate::token::uri_signing::{Matching, hash_of, mint};

use crate::support::{
    Configured, Edge, HOST, Origin, PATIENCE, PIECE, Response, Script, Speaks, text, tidegate,
};

mod cat;
mod hostile;

const NAME: &str = "URISigningPackage";
/// Whose tokens are let in, and one who is known and not trusted.
const ISSUER: &str = "publisher";
const OTHER: &str = "stranger";

fn key(id: &str) -> Value {
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
    json!({ "kty": "oct", "kid": id, "alg": "HS256", "k": secret })
}

/// A sealing key, and one that signs, of the publisher; one of the stranger.
fn key_file() -> Value {
    let sealing = json!({ "kty": "oct", "kid": "box", "use": "enc", "alg": "A128GCM",
        "k": "4uFxxV7fhNmrtiah2d1fFg" });
    let mut strange = key("strange");
    strange["k"] = json!("b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI");
    json!({
        ISSUER: { "renewal_kid": "one", "id": "edge", "keys": [key("one"), sealing],
            "auth_directives": [
                { "auth": "allow", "uri": "regex:http://media\\.test/free/.*" },
                { "auth": "allow", "uri": "regex:http://media\\.test:8443/.*/here" },
                { "auth": "deny", "uri": "regex:http://media\\.test/never/.*" } ] },
        OTHER: { "renewal_kid": "strange", "keys": [strange] },
    })
}

fn keys(file: &Value) -> Keys {
    KeyFile::parse(file.to_string().as_bytes()).unwrap().keys(Matching::Full).unwrap()
}

fn minted(claims: &Value, key: &Key) -> String {
    let claims: Map<String, Value> = claims.as_object().unwrap().clone();
    mint(&claims, key).unwrap()
}

/// A token of the publisher.
fn token(claims: &Value) -> String {
    minted(claims, keys(&key_file()).renewal(ISSUER).unwrap())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn url(path: &str) -> String {
    format!("http://{HOST}{path}")
}

/// What lets in to one path for a minute, and what else is said.
fn claims(path: &str, more: &Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "exp": now() + 60, "cdniuc": hash_of(&url(path)) });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn with(path: &str, token: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}{NAME}={token}")
}

/// An edge whose site asks for tokens, and logs to a file.
fn guarded(origin: &Origin, folder: &Path, more: &str) -> Configured {
    let file = folder.join("keys.json");
    if !file.exists() {
        fs::write(&file, key_file().to_string()).unwrap();
    }
    let log = folder.join("access.log");
    Edge::in_front_of(origin)
        .setting("log.access", &log.to_string_lossy())
        .setting("ssd.state", &folder.join("volumes.json").to_string_lossy())
        .site_setting(&format!("tokens = {{ keys = {file:?}, issuers = [{ISSUER:?}]{more} }}"))
}

/// The lines of the log, when there are so many.
async fn logged(folder: &Path, lines: usize) -> Vec<Value> {
    let asked = Instant::now();
    loop {
        let text = fs::read_to_string(folder.join("access.log")).unwrap_or_default();
        let found: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if found.len() >= lines {
            return found;
        }
        assert!(asked.elapsed() < PATIENCE, "{} lines of {lines}", found.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A claim sealed by the key of the file.
fn sealed(text: &str) -> String {
    let jwk: Jwk = serde_json::from_value(key_file()[ISSUER]["keys"][1].clone()).unwrap();
    SealingKey::of(&jwk).unwrap().seal(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn every_code_is_denied_with_403_logged_and_counted_and_nothing_else_is_touched() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let of = |more: Value| token(&claims("/a", &more));
    let stranger = keys(&key_file());
    let strange =
        minted(&json!({ "cdniuc": hash_of(&url("/a")) }), stranger.renewal(OTHER).unwrap());
    let table = [
        (400, format!("{}x", of(json!({})))),
        (401, strange),
        (402, of(json!({ "sub": "viewer" }))),
        (403, of(json!({ "aud": "another" }))),
        (404, of(json!({ "exp": now() }))),
        (405, of(json!({ "nbf": now() + 60 }))),
        (406, of(json!({ "cdniets": 30 }))),
        (408, of(json!({ "cdniv": 2 }))),
        (409, of(json!({ "cdnicrit": "cdnix" }))),
        (410, of(json!({ "cdniip": sealed("192.0.2.0/24") }))),
        (411, token(&claims("/b", &json!({})))),
        (500, "no-token".to_owned()),
        (500, String::new()),
    ];
    for (code, token) in &table {
        let answer = edge.get(&with("/a", token)).send().await;
        assert_eq!((answer.status, answer.header("cache-control")), (403, "no-store".to_owned()));
        assert_eq!(
            &answer.body[..],
            b"403: it takes a token that is for this, and good now\n",
            "{code}"
        );
    }
    assert_eq!(edge.get("/a").send().await.status, 403, "without any");
    let once = of(json!({ "jti": "one" }));
    assert_eq!(edge.get(&with("/a", &once)).send().await.status, 200);
    assert_eq!(edge.get(&with("/a", &once)).send().await.status, 403);
    assert_eq!(origin.all_requests().len(), 1, "of who was let in");
    let told = logged(folder.path(), table.len() + 3).await;
    let codes: Vec<u64> = told.iter().map(|line| line["uri_signing"].as_u64().unwrap()).collect();
    let mut expected: Vec<u64> = table.iter().map(|(code, _)| *code).collect();
    expected.extend([500, 200, 407]);
    assert_eq!(codes, expected);
    for line in &told {
        let is_let = line["uri_signing"] == 200;
        assert_eq!(line["uri_signing_deny_reason"].is_null(), is_let, "{line}");
    }
    for code in expected {
        let label = format!("outcome=\"{code}\"");
        let times = if code == 500 { 3.0 } else { 1.0 };
        assert_eq!(edge.metric("tidegate_token_checks_total", &[&label]).await, times, "{code}");
    }
}

#[tokio::test]
async fn a_token_is_no_part_of_what_is_kept_logged_or_sent_to_an_origin() {
    let (origin, folder) =
        (Origin::serving("/a/b?c=d", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let of = |id: &str| token(&claims("/a/b?c=d", &json!({ "sub": sealed(id) })));
    let tokens = ["1", "2", "3", "4"].map(of);
    let referer = format!("http://{HOST}/page;{NAME}={}/x", tokens[0]);
    let paths = [
        format!("/a;{NAME}={}/b?c=d", tokens[0]),
        format!("/a/b?c=d&{NAME}={}", tokens[1]),
        format!("/a/b?{NAME}={}&c=d&CMCD=br%3D1", tokens[2]),
        "/a/b?c=d".to_owned(),
    ];
    for path in &paths {
        let cookie = format!("u=1; {NAME}={}; v=2", tokens[3]);
        let asked = edge.get(path).header("cookie", &cookie).header("referer", &referer);
        let answer = asked.send().await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let asked = origin.all_requests();
    assert_eq!(asked.len(), 1, "one object");
    let head = format!("{:?}", asked[0].head);
    assert!(!tokens.iter().any(|token| head.contains(token)), "{head}");
    assert!(!head.contains(NAME), "{head}");
    logged(folder.path(), paths.len()).await;
    let log = fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert!(!log.contains(NAME) && !tokens.iter().any(|token| log.contains(token)), "{log}");
    assert!(log.contains("/page/x"), "{log}");
}

/// What a browser would send the next time.
fn cookie_of(answer: &Response) -> (String, String) {
    let set = answer.header("set-cookie");
    let (pair, attributes) = set.split_once("; ").expect("attributes");
    (pair.to_owned(), attributes.to_owned())
}

#[tokio::test]
async fn a_cookie_renews_a_token_for_the_whole_playback_and_is_kept_nowhere() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    for number in 0..5 {
        origin.serve(&format!("/film/{number}.ts"), Script::of(1_000));
    }
    let edge = guarded(&origin, folder.path(), "").start();
    let more = json!({ "cdniuc": format!("regex:http://{}/film/.*", HOST.replace('.', "\\.")),
        "exp": now() + 2, "cdnistt": 1, "cdniets": 30, "cdnistd": 1 });
    let mut answer = edge.get(&with("/film/0.ts", &token(&claims("/", &more)))).send().await;
    for number in 1..5 {
        assert_eq!(answer.status, 200);
        let (pair, attributes) = cookie_of(&answer);
        assert_eq!(attributes, "Path=/film; Max-Age=30; HttpOnly");
        assert!(answer.header("cache-control").contains("private"));
        let asked = edge.get(&format!("/film/{number}.ts")).header("cookie", &pair);
        answer = asked.send().await;
    }
    let lasting = json!({ "cdniuc": more["cdniuc"] });
    let plain = edge.get(&with("/film/0.ts", &token(&claims("/", &lasting)))).send().await;
    assert_eq!((plain.status, plain.header("set-cookie")), (200, String::new()));
    assert!(!plain.header("cache-control").contains("private"));
    // The one of the URI has expired by the time a playlist is asked for again.
    let gone = json!({ "cdniuc": more["cdniuc"], "exp": now() - 1 });
    let (pair, _) = cookie_of(&answer);
    let again = with("/film/0.ts", &token(&claims("/", &gone)));
    assert_eq!(edge.get(&again).header("cookie", &pair).send().await.status, 200);
    assert_eq!(edge.get(&again).send().await.status, 403);
    let tls = edge.client_over_tls(Speaks::Http2);
    let more = json!({ "cdniuc": "regex:https://.*", "cdnistt": 1, "cdniets": 30 });
    let answer = tls.get(&with("/film/0.ts", &token(&claims("/", &more)))).send().await;
    let expected = "Path=/; Max-Age=30; HttpOnly; Secure; SameSite=None";
    assert_eq!(cookie_of(&answer).1, expected);
}

#[tokio::test]
async fn a_redirect_brings_a_token_for_where_it_leads() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(0).status(302).field("Location", "http://b.test/x?y=z#part");
    origin.serve("/go", script);
    let edge = guarded(&origin, folder.path(), "").origin_setting("redirects", "pass-on").start();
    let more = json!({ "cdniuc": "regex:http://.*", "cdnistt": 2, "cdniets": 30 });
    let answer = edge.get(&with("/go", &token(&claims("/", &more)))).send().await;
    let location = answer.header("location");
    let (before, rest) = location.split_once(&format!("{NAME}=")).expect("a token");
    assert_eq!((answer.status, before), (302, "http://b.test/x?y=z&"));
    let (renewed, fragment) = rest.split_once('#').unwrap();
    assert_eq!(fragment, "part");
    let shown = edge.get(&with("/go", renewed)).send().await;
    assert_eq!(shown.status, 302, "it is good here too");
}

#[tokio::test]
async fn what_is_asked_of_nobody_is_logged_without_a_token() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let elsewhere = edge.client().host("elsewhere.test");
    let asked = elsewhere.get(&format!("/a;{NAME}=secret.secret.secret/b?{NAME}=secret"));
    assert_eq!(asked.send().await.status, 421);
    logged(folder.path(), 1).await;
    let log = fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_lets_in_and_is_counted() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let mut file = key_file();
    file[ISSUER].as_object_mut().unwrap().remove("renewal_kid");
    fs::write(folder.path().join("keys.json"), file.to_string()).unwrap();
    let edge = guarded(&origin, folder.path(), ", cat = \"cat\"").start();
    let ours = with("/a", &token(&claims("/a", &json!({ "cdniets": 30, "cdnistt": 1 }))));
    let renewal = json!({ "type": 1, "expadd": 300 });
    let theirs = json!({ "iss": ISSUER, "exp": now() + 30, "catr": renewal });
    let all_keys = keys(&key_file());
    let key = all_keys.renewal(ISSUER).unwrap();
    let theirs = tidegate::token::cat::mint(theirs.as_object().unwrap(), key).unwrap();
    for target in [ours, format!("/a?cat={theirs}")] {
        let answer = edge.get(&target).send().await;
        assert_eq!((answer.status, answer.header("set-cookie")), (200, String::new()));
    }
    for series in ["tidegate_token_checks_total", "tidegate_cat_checks_total"] {
        assert_eq!(edge.metric(series, &["outcome=\"unrenewed\""]).await, 1.0, "{series}");
    }
}

#[tokio::test]
async fn what_is_open_needs_no_token_and_directives_say_the_rest() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    for path in ["/open/a", "/free/a", "/never/a", "/a"] {
        origin.serve(path, Script::of(1_000));
    }
    let edge = guarded(&origin, folder.path(), "")
        .rule("/open/**", "access = \"open\"")
        .rule("/post", "methods = [\"POST\"]\ncors = \"*\"")
        .start();
    for (path, expected) in [("/open/a", 200), ("/free/a", 200), ("/never/a", 403), ("/a", 403)] {
        assert_eq!(edge.get(path).send().await.status, expected, "{path}");
        assert_eq!(edge.head(path).send().await.status, expected, "{path}");
    }
    let by_port = [("/a/here", 200), ("/never/here", 403), ("/free/a", 200), ("/a", 403)];
    origin.serve("/a/here", Script::of(1_000));
    for (path, expected) in by_port {
        let asked = edge.client().host(&format!("{HOST}:8443")).get(path);
        assert_eq!(asked.send().await.status, expected, "{path}");
    }
    assert_eq!(edge.get("/a/here").send().await.status, 403, "of that port alone");
    let never = with("/never/a", &token(&claims("/never/a", &json!({}))));
    assert_eq!(edge.get(&never).send().await.status, 403, "whatever the token says");
    origin.forget_requests();
    let post = edge.client().request(Method::POST, "/post");
    let answer = post.header("origin", "http://p.test").send().await;
    assert_eq!(answer.status, 403, "what is passed on too");
    assert_eq!(answer.header("access-control-allow-origin"), "*", "a page can read it");
    assert_eq!(edge.client().request(Method::DELETE, "/a").send().await.status, 405);
    let asks = edge.client().request(Method::OPTIONS, "/post").header("origin", "http://p.test");
    let asks = asks.header("access-control-request-method", "POST");
    assert_eq!(asks.send().await.status, 204, "browsers show no token when they ask");
    assert_eq!(origin.all_requests().len(), 0);
    let posted =
        edge.client().request(Method::POST, &with("/post", &token(&claims("/post", &json!({})))));
    origin.serve("/post", Script::of(10));
    assert_eq!(posted.send().await.status, 200);
    assert!(!format!("{:?}", origin.all_requests()[0].head).contains(NAME));
}

#[tokio::test]
async fn keys_are_read_again_when_their_file_changes_and_a_bad_one_changes_nothing() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let file = folder.path().join("keys.json");
    let (old, mut rotated) = (token(&claims("/a", &json!({}))), key_file());
    let mut second = key("two");
    second["k"] = json!("bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldy1uZXc");
    rotated[ISSUER]["keys"].as_array_mut().unwrap().push(second);
    rotated[ISSUER]["renewal_kid"] = json!("two");
    let new = minted(&claims("/a", &json!({})), keys(&rotated).renewal(ISSUER).unwrap());
    let status = async |token: &str| edge.get(&with("/a", token)).send().await.status;
    let until = async |token: &str, expected: u16| {
        let asked = Instant::now();
        while status(token).await != expected {
            assert!(asked.elapsed() < PATIENCE, "{expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!((status(&old).await, status(&new).await), (200, 403));
    fs::write(&file, rotated.to_string()).unwrap();
    until(&new, 200).await;
    assert_eq!(status(&old).await, 200, "two keys live side by side");
    fs::write(&file, "{ \"publisher\": { \"keys\": [{ \"kty\": \"oct\" }] } }").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((status(&old).await, status(&new).await), (200, 200));
    rotated[ISSUER]["keys"].as_array_mut().unwrap().remove(0);
    fs::write(&file, rotated.to_string()).unwrap();
    until(&old, 403).await;
    assert_eq!(status(&new).await, 200);
}

#[tokio::test]
async fn what_was_used_once_is_used_after_a_restart_too() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let once = with("/a", &token(&claims("/a", &json!({ "jti": "one" }))));
    let mut edge = guarded(&origin, folder.path(), "").start();
    assert_eq!(edge.get(&once).send().await.status, 200);
    edge.drain().await;
    let edge = guarded(&origin, folder.path(), "").start();
    assert_eq!(edge.get(&once).send().await.status, 403);
    let other = with("/a", &token(&claims("/a", &json!({ "jti": "two" }))));
    assert_eq!(edge.get(&other).send().await.status, 200);
}

#[tokio::test]
async fn who_bears_a_token_has_no_more_than_it_is_good_for() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let limits = ", limits = { requests = 5, connections = 2 }";
    let edge = guarded(&origin, folder.path(), limits).start();
    let one = edge.get(&with("/a", &token(&claims("/a", &json!({})))));
    let (first, second) =
        (edge.client().connect().await.unwrap(), edge.client().connect().await.unwrap());
    let mut held = Vec::new();
    for connection in [first, second] {
        let answered = one.on(connection).await.unwrap().finish_and_keep().await.unwrap();
        assert_eq!(answered.0.status, 200);
        held.push(answered.1.expect("it stays open"));
    }
    let third = one.send().await;
    assert_eq!((third.status, third.header("retry-after")), (429, "5".to_owned()));
    let other = edge.get(&with("/a", &token(&claims("/a", &json!({ "iat": 1 })))));
    assert_eq!(other.send().await.status, 200, "another token is another bearer");
    drop(held);
    let asked = Instant::now();
    while one.send().await.status != 200 {
        assert!(asked.elapsed() < PATIENCE, "connections end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(one.send().await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let exhausted = edge.metric("tidegate_token_checks_total", &["outcome=\"exhausted\""]).await;
    assert!(exhausted >= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_takes_the_token_out_as_the_door_does_and_says_who_gets_403() {
    let (origin, folder) =
        (Origin::serving("/film/1.m4s", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").rule("/open/**", "access = \"open\"").start();
    let shown = with("/film/1.m4s", &token(&claims("/film/1.m4s", &json!({}))));
    assert_eq!(edge.get(&shown).send().await.status, 200);
    let admin = format!("http://{}", edge.admin().address());
    let told = |path: &str| text(&tidegate(&["explain", "--admin", &admin, &url(path)]).stdout);
    let with_token = told(&shown);
    assert!(with_token.contains("  key           /film/1.m4s\n"), "{with_token}");
    assert!(with_token.contains("200, from what is stored"), "{with_token}");
    assert!(with_token.contains("whether its token lets him in was not asked"), "{with_token}");
    let without = told("/film/1.m4s");
    assert!(without.contains("  answer        403, refused\n"), "{without}");
    assert!(without.contains("lets in who shows a token, and it has none"), "{without}");
    assert!(told("/open/1").contains("nothing is stored"));
}
