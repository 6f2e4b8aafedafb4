//! Common Access Tokens (CTA-5007): each claim that is not met, renewals and answers, as viewers
//! get them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use tidegate::token::cat;

use super::*;

const PARAMETER: &str = "cat";
const FIELD: &str = "CTA-Common-Access-Token";

fn cat_token(claims: &Value) -> String {
    let keys = keys(&key_file());
    let mut claims = claims.clone();
    if claims.get("iss").is_none() {
        claims["iss"] = json!(ISSUER);
    }
    cat::mint(claims.as_object().unwrap(), keys.renewal(ISSUER).unwrap()).unwrap()
}

fn cat_guarded(origin: &Origin, folder: &Path) -> Configured {
    guarded(origin, folder, &format!(", cat = {PARAMETER:?}"))
}

fn in_query(path: &str, token: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}{PARAMETER}={token}")
}

fn for_an_hour() -> Value {
    json!({ "exp": now() + 3600, "catu": { "path": { "prefix-match": "/a" } } })
}

/// The same with something else.
fn with_claim(name: &str, value: Value) -> String {
    let mut claims = for_an_hour();
    claims[name] = value;
    cat_token(&claims)
}

#[tokio::test]
async fn a_claim_that_is_not_met_is_denied_by_its_name() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = cat_guarded(&origin, folder.path()).start();
    let good = cat_token(&for_an_hour());
    let strange = keys(&key_file());
    let unsigned = cat::mint(
        &Map::from_iter([("exp".to_owned(), json!(now() + 9))]),
        strange.renewal(OTHER).unwrap(),
    );
    let table = [
        ("malformed", "2D3R".to_owned()),
        ("malformed", good[..good.len() - 60].to_owned()),
        ("signature", format!("{}AAAA", &good[..good.len() - 4])),
        ("iss", unsigned.unwrap()),
        ("catv", with_claim("catv", json!(2))),
        ("unchecked", with_claim("geohash", json!("u6sc"))),
        ("aud", with_claim("aud", json!(["another"]))),
        ("exp", with_claim("exp", json!(now()))),
        ("nbf", with_claim("nbf", json!(now() + 60))),
        ("catnip", with_claim("catnip", json!(["192.0.2.0/24"]))),
        ("catnip", with_claim("catnip", json!([64500]))),
        ("catgeoiso3166", with_claim("catgeoiso3166", json!(["SE"]))),
        ("cattpk", with_claim("cattpk", json!("00"))),
        ("catalpn", with_claim("catalpn", json!(["h2"]))),
        ("catm", with_claim("catm", json!(["HEAD"]))),
        ("catu", with_claim("catu", json!({ "path": { "exact-match": "/b" } }))),
        ("cath", with_claim("cath", json!({ "x-a": { "exact-match": "1" } }))),
    ];
    for (word, token) in &table {
        let answer = edge.get(&in_query("/a", token)).send().await;
        assert_eq!(answer.status, 403, "{word}");
    }
    assert!(origin.all_requests().is_empty());
    let mut once = for_an_hour();
    (once["catreplay"], once["cti"]) = (json!(1), json!("00ff"));
    let once = in_query("/a", &cat_token(&once));
    let mut twice = for_an_hour();
    (twice["catreplay"], twice["cti"]) = (json!(2), json!("01ff"));
    let twice = in_query("/a", &cat_token(&twice));
    for (target, expected) in [(&once, 200), (&once, 403), (&twice, 200), (&twice, 200)] {
        assert_eq!(edge.get(target).send().await.status, expected);
    }
    let told = logged(folder.path(), table.len() + 4).await;
    let found: Vec<&str> = told.iter().map(|line| line["cat"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
    expected.extend(["ok", "catreplay", "ok", "reused"]);
    assert_eq!(found, expected);
    for word in ["ok", "catreplay", "reused", "aud", "unchecked"] {
        let label = format!("outcome=\"{word}\"");
        assert!(edge.metric("tidegate_cat_checks_total", &[&label]).await >= 1.0, "{word}");
    }
}

#[tokio::test]
async fn a_token_comes_in_a_header_a_cookie_or_the_query_and_goes_no_further() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = cat_guarded(&origin, folder.path()).start();
    let token = cat_token(&for_an_hour());
    let cookie = format!("u=1; {FIELD}={token}");
    let asking = [
        edge.get(&in_query("/a", &token)),
        edge.get("/a").header("cta-common-access-token", &token),
        edge.get("/a").header("cookie", &cookie),
    ];
    for asked in &asking {
        assert_eq!(asked.send().await.status, 200);
    }
    assert_eq!(edge.get("/a").send().await.status, 403);
    let twice = edge.get("/a").header(FIELD, &token).header(FIELD, &token);
    assert_eq!(twice.send().await.status, 403);
    let asked = origin.all_requests();
    assert_eq!(asked.len(), 1, "one object");
    let head = format!("{:?}", asked[0].head);
    assert!(!head.contains(&token) && !head.to_lowercase().contains("common-access"), "{head}");
    logged(folder.path(), 5).await;
    let log = fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert!(!log.contains(&token), "{log}");
}

#[tokio::test]
async fn a_token_that_ends_soon_is_renewed_as_it_says() {
    let (origin, folder) = (Origin::serving("/a?x=1", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = cat_guarded(&origin, folder.path()).start();
    let ending_in = |seconds: u64, renewal: Value| {
        let mut claims = for_an_hour();
        (claims["exp"], claims["catr"]) = (json!(now() + seconds), renewal);
        cat_token(&claims)
    };
    let ending = |renewal: Value| ending_in(30, renewal);
    // The deadline is a minute before the end, unless it is said.
    let token = ending(json!({ "type": 1, "expadd": 300, "cookie-params": ["Path=/"] }));
    let answer = edge.get(&in_query("/a?x=1", &token)).send().await;
    let cookie = answer.header("set-cookie");
    assert_eq!(answer.status, 200);
    assert!(
        cookie.starts_with("CTA-Common-Access-Token=") && cookie.ends_with("; Path=/"),
        "{cookie}"
    );
    // As a browser has it: in the place of the one it had, or beside it.
    let renewed = cookie.split(';').next().unwrap().to_owned();
    let over = with_claim("exp", json!(now() - 1));
    for cookies in [
        renewed.clone(),
        format!("u=1; {FIELD}={over}; {}", renewed.replace(FIELD, &FIELD.to_lowercase())),
    ] {
        let again = edge.get("/a?x=1").header("cookie", &cookies).send().await;
        assert_eq!((again.status, again.header("set-cookie")), (200, String::new()), "{cookies}");
    }
    assert!(answer.header("cache-control").contains("private"));
    let token = ending(json!({ "type": 0, "expadd": 300 }));
    let answer = edge.get("/a?x=1").header(FIELD, &token).send().await;
    let renewed = answer.header("cta-common-access-token");
    assert_eq!(answer.status, 200);
    let again = edge.get("/a?x=1").header(FIELD, &renewed).send().await;
    assert_eq!((again.status, again.header("cta-common-access-token")), (200, String::new()));
    // To where it is in the query, and from there nowhere else.
    let token = ending(json!({ "type": 3, "expadd": 300 }));
    let answer = edge.get(&in_query("/a?x=1", &token)).send().await;
    let location = answer.header("location");
    assert_eq!(answer.status, 307);
    assert!(location.starts_with("/a?x=1&cat="), "{location}");
    assert_eq!(edge.get(&location).send().await.status, 200);
    // Who is sent on shows the header again; and the next one is not to be renewed when it comes.
    let token = ending_in(60, json!({ "type": 3, "expadd": 300, "deadline": 1e300 }));
    let answer = edge.get("/a?x=1").header(FIELD, &token).send().await;
    assert_eq!(answer.status, 307);
    let again = edge.get(&answer.header("location")).header(FIELD, &token).send().await;
    assert_eq!(again.status, 200);
    // A player that asks for what it asked for at first has a newer one in its cookie.
    let cookie = format!("{FIELD}={renewed}");
    let asked = edge.get(&in_query("/a?x=1", &over)).header("cookie", &cookie).send().await;
    assert_eq!(asked.status, 200);
    let asked = origin.all_requests();
    assert_eq!(asked.len(), 1);
    assert!(!format!("{:?}", asked[0].head).to_lowercase().contains("common-access"));
}

#[tokio::test]
async fn what_a_token_is_good_for_is_counted_of_its_bearer_however_it_is_wrapped() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let allowed = format!(", cat = {PARAMETER:?}, limits = {{ requests = 1 }}");
    let edge = guarded(&origin, folder.path(), &allowed).start();
    let token = cat_token(&for_an_hour());
    let bytes = BASE64.decode(&token).unwrap();
    // The header that is not signed says which key: behind that, something else.
    let head = b"\xa1\x04\x43one";
    let at = bytes.windows(head.len()).position(|part| part == head).unwrap();
    let wrapped = |number: u8| {
        let more = [b"\xa2\x04\x43one\x18\x63", &[number][..]].concat();
        BASE64.encode([&bytes[..at], &more, &bytes[at + head.len()..]].concat())
    };
    let mut refused = 0;
    for number in 0..10 {
        let status = edge.get(&in_query("/a", &wrapped(number))).send().await.status;
        refused += u32::from(status == 429);
        assert!([200, 429].contains(&status), "{status}");
    }
    assert!(refused > 0, "each is of another bearer");
}

#[tokio::test]
async fn what_does_not_let_in_is_counted_of_nobody_and_hides_no_answer() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let allowed = format!(", cat = {PARAMETER:?}, limits = {{ requests = 1 }}");
    let edge = guarded(&origin, folder.path(), &allowed).start();
    let says = |exp: u64| {
        let mut claims = for_an_hour();
        (claims["exp"], claims["catr"]) = (json!(exp), json!({ "type": 0, "expadd": 300 }));
        claims
    };
    // All of one chain: two requests at once are allowed.
    let (over, good) = (cat_token(&says(now() - 1)), cat_token(&says(now() + 3600)));
    for _ in 0..10 {
        assert_eq!(edge.get(&in_query("/a", &over)).send().await.status, 403);
    }
    for _ in 0..2 {
        let cookie = format!("{FIELD}={good}");
        let asked = edge.get(&in_query("/a", &over)).header("cookie", &cookie);
        assert_eq!(asked.send().await.status, 200);
    }
    let mut answered = says(now() - 1);
    answered["catif"] = json!({ "exp": [402, {}] });
    let cookie = format!("{FIELD}={}", cat_token(&answered));
    let asked = edge.get(&in_query("/a", &over)).header("cookie", &cookie);
    assert_eq!(asked.send().await.status, 402, "what it says is answered");
}

#[tokio::test]
async fn who_does_not_meet_a_claim_is_answered_as_the_token_says() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = cat_guarded(&origin, folder.path()).start();
    let mut claims = for_an_hour();
    claims["exp"] = json!(now() - 1);
    claims["catif"] =
        json!({ "exp": [307, { "Location": ["https://login.test/?t=", { "iss": null }] }] });
    let answer = edge.get(&in_query("/a", &cat_token(&claims))).send().await;
    let location = answer.header("location");
    assert_eq!((answer.status, answer.header("cache-control")), (307, "no-store".to_owned()));
    assert!(location.starts_with("https://login.test/?t=") && location.len() > 60, "{location}");
    claims["catif"] = json!({ "aud": [401, {}] });
    assert_eq!(edge.get(&in_query("/a", &cat_token(&claims))).send().await.status, 403);
    assert!(origin.all_requests().is_empty());
}

#[tokio::test]
async fn tokens_for_countries_and_ases_are_for_those_that_the_databases_say() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    // 192.0.2.0/24 is in Germany, and AS64500 announces it; where 198.51.100.1 is nobody knows.
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/places");
    let databases = ["city", "asn"].map(|name| seeds.join(name));
    let edge = cat_guarded(&origin, folder.path())
        .setting("proxies.forwarded", "[\"127.0.0.0/8\"]")
        .setting("routes.databases", &format!("{databases:?}"))
        .start();
    let german = with_claim("catgeoiso3166", json!(["FR", "DE"]));
    let of_as = with_claim("catnip", json!([64500]));
    let of_either = with_claim("catnip", json!([64500, "198.51.100.0/24"]));
    for (token, viewer, expected) in [
        (&german, "192.0.2.1", 200),
        (&german, "::ffff:192.0.2.1", 200),
        (&german, "2001:db8::1", 200),
        (&german, "198.51.100.1", 403),
        (&german, "203.0.113.1", 403),
        (&of_as, "192.0.2.1", 200),
        (&of_as, "198.51.100.1", 403),
        (&of_either, "198.51.100.1", 200),
        (&of_either, "203.0.113.1", 403),
    ] {
        let asked = edge.get(&in_query("/a", token)).header("x-forwarded-for", viewer);
        assert_eq!(asked.send().await.status, expected, "{viewer}");
    }
    let checks = "tidegate_cat_checks_total";
    assert_eq!(edge.metric(checks, &["outcome=\"catgeoiso3166\""]).await, 2.0);
    assert_eq!(edge.metric(checks, &["outcome=\"catnip\""]).await, 2.0);
}
