//! Tokens of people who want to be let in and should not: each is denied by its code, and nobody
//! else notices.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Signed well, whatever it says: in bytes, as JSON cannot say all of it.
fn signed(header: &str, claims: &str) -> String {
    let keys = keys(&key_file());
    let signed = [encoded(header), encoded(claims)].join(".");
    let signature = keys.renewal(ISSUER).unwrap().sign(signed.as_bytes()).unwrap();
    [signed, encoded(signature)].join(".")
}

const HEADER: &str = r#"{"alg":"HS256","kid":"one"}"#;

/// Claims with one that is another, in JSON.
fn with_claim(name: &str, value: &str) -> String {
    let mut claims = claims("/a", &json!({}));
    claims.as_object_mut().unwrap().remove(name);
    let rest = claims.to_string();
    signed(HEADER, &format!("{{\"{name}\":{value},{}", &rest[1..]))
}

/// The code by which it is denied, the claim, and what it says.
const WRONG_CLAIMS: &str = r#"
401 iss ""
401 iss "Publisher"
401 iss "stranger"
401 iss 1
401 iss null
401 iss ["publisher"]
401 iss {}
402 sub ""
402 sub "a"
402 sub ".."
402 sub "a.b.c.d.e"
402 sub "e30...."
402 sub 1
402 sub null
402 sub []
402 sub {}
403 aud ""
403 aud "Edge"
403 aud "edge "
403 aud []
403 aud [""]
403 aud [1]
403 aud [["edge"]]
403 aud {}
403 aud 1
403 aud null
403 aud {"edge":1}
403 aud ["other","one"]
404 exp NOW
404 exp PAST
404 exp 0
404 exp -1
404 exp -1e300
404 exp 0.0
404 exp 1e-300
404 exp "9999999999"
404 exp null
404 exp true
404 exp [9999999999]
404 exp {}
405 nbf 9999999999
405 nbf 1e300
405 nbf 1.7976931348623157e308
405 nbf 18446744073709551615
405 nbf "0"
405 nbf null
405 nbf true
405 nbf []
405 nbf {}
407 jti 1
407 jti null
407 jti []
407 jti {}
407 jti true
408 cdniv 0
408 cdniv 2
408 cdniv -1
408 cdniv 1.5
408 cdniv "1"
408 cdniv null
408 cdniv true
408 cdniv 18446744073709551615
408 cdniv [1]
409 cdnicrit ""
409 cdnicrit "x"
409 cdnicrit "exp"
409 cdnicrit "x,y"
409 cdnicrit ","
409 cdnicrit 1
409 cdnicrit null
409 cdnicrit []
409 cdnicrit ["x"]
409 cdnicrit {}
410 cdniip ""
410 cdniip "127.0.0.1"
410 cdniip "127.0.0.0/8"
410 cdniip "a.b.c.d.e"
410 cdniip 1
410 cdniip null
410 cdniip []
410 cdniip {}
411 cdniuc ""
411 cdniuc 1
411 cdniuc null
411 cdniuc []
411 cdniuc {}
411 cdniuc "http://media.test/a"
411 cdniuc "hash:"
411 cdniuc "hash:sha-256;"
411 cdniuc "hash:md5;abc"
411 cdniuc "hash:sha-256;AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
411 cdniuc "regex:"
411 cdniuc "regex:http://media.test/"
411 cdniuc "regex:a"
411 cdniuc "regex:http://media.test/a|b)"
411 cdniuc "regex:("
411 cdniuc "regex:["
411 cdniuc "regex:\\"
411 cdniuc "regex:(?i)http://MEDIA.test/a"
411 cdniuc "regex:((a{1000}){1000}){1000}"
411 cdniuc "regex:(h+t+)+(t+p+)+(:.*)+x"
411 cdniuc "regex:http://media.test/b"
411 cdniuc "regex:https://media.test/a"
411 cdniuc "regex:http://other.test/a"
411 cdniuc "prefix:http://media.test/"
406 cdniets 0
406 cdniets -1
406 cdniets 30
406 cdniets "30"
406 cdniets null
406 cdniets 1e300
406 cdnistt 1
406 cdnistt 2
406 cdnistt 3
406 cdnistt -1
406 cdnistt "1"
406 cdnistt null
406 cdnistt 1.5
"#;

fn wrong_claims() -> Vec<(u16, String)> {
    let now = now();
    let line = |line: &str| {
        let [code, name, value] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!() };
        let value = match value {
            "NOW" => now.to_string(),
            "PAST" => (now - 1).to_string(),
            value => value.to_owned(),
        };
        (code.parse().unwrap(), with_claim(name, &value))
    };
    WRONG_CLAIMS.trim().lines().map(line).collect()
}

/// What is no token, or is signed by nobody we know.
fn forged() -> Vec<(u16, String)> {
    let good = token(&claims("/a", &json!({})));
    let said = claims("/a", &json!({})).to_string();
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let mut all = Vec::new();
    for alg in
        ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "ES256", "RS256", "EdDSA", "HS256 "]
    {
        let header = format!("{{\"alg\":{alg:?},\"kid\":\"one\"}}");
        all.push((400, signed(&header, &said)));
        let unsigned = [encoded(&header), encoded(&said), String::new()].join(".");
        all.push((400, unsigned));
    }
    for header in [
        r#"{"kid":"one"}"#,
        r#"{"alg":1}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":"two"}"#,
        r#"{"alg":"HS256","kid":"box"}"#,
        r#"{"alg":"HS256","kid":"strange"}"#,
        r#"{"alg":"HS256","kid":"one","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","kid":"one","crit":[]}"#,
    ] {
        all.push((400, signed(header, &said)));
    }
    for header in
        ["", "{", "[]", "1", "null", r#"{"alg":"HS256","alg":"none"}"#, "{\"alg\":\"HS256\"}x"]
    {
        all.push((500, signed(header, &said)));
    }
    for claims in
        ["", "{", "[]", "1", "null", "\"a\"", r#"{"exp":1e999}"#, r#"{"exp":1,"exp":9999999999}"#]
    {
        all.push((500, signed(HEADER, claims)));
    }
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
    all.push((500, signed(HEADER, &nested)));
    all.push((400, "e30.e30.".to_owned()));
    all.push((400, [header, body, &encoded(b"")].join(".")));
    all.push((400, [header, body, &encoded([0; 32])].join(".")));
    all.push((400, [header, body, &signature[..40]].join(".")));
    all.push((400, [header, &encoded(r#"{"cdniuc":"regex:.*"}"#), signature].join(".")));
    // An expression that others would take for ever about is not even read.
    let pattern = format!(r#"{{"cdniuc":"regex:{}"}}"#, "(a*)*".repeat(300));
    all.push((400, [header, &encoded(pattern), signature].join(".")));
    for token in ["", ".", "..", "a", "a.b", "a.b.c", "a.b.c.d", "----", "_", "...", "e30"] {
        all.push((500, token.to_owned()));
    }
    let cut = (1..good.len()).step_by(7).map(|length| &good[..length]);
    all.extend(
        cut.map(|cut| (if cut.matches('.').count() == 2 { 0 } else { 500 }, cut.to_owned())),
    );
    all
}

/// A key file whose publisher signs by ES256: its public key is known to all.
fn public_key_as_secret() -> (Value, Vec<String>) {
    let x = "be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8";
    let y = "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA";
    let file = json!({ ISSUER: { "keys": [
        { "kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256", "x": x, "y": y } ] } });
    let point = [x, y].map(|half| BASE64_URL_SAFE_NO_PAD.decode(half).unwrap());
    let whole = [&[4][..], &point[0], &point[1]].concat();
    let secrets =
        [point[0].clone(), point[1].clone(), point.concat(), whole, x.as_bytes().to_vec()];
    let said = claims("/a", &json!({}));
    let signed = |secret: &Vec<u8>| {
        let known = json!({ ISSUER: { "renewal_kid": "ec", "keys": [
            { "kty": "oct", "kid": "ec", "alg": "HS256", "k": encoded(secret) } ] } });
        minted(&said, keys(&known).renewal(ISSUER).unwrap())
    };
    (file, secrets.iter().map(signed).collect())
}

#[tokio::test]
async fn hundreds_of_hostile_tokens_are_denied_each_by_its_code() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let client = edge.client();
    let mut table: Vec<(u16, String)> = wrong_claims();
    table.extend(forged());
    let good = token(&claims("/a", &json!({})));
    let mut targets: Vec<(u16, String)> =
        table.into_iter().map(|(code, token)| (code, with("/a", &token))).collect();
    // Two of them, of which neither counts.
    for (path, query) in [
        ("/a", format!("{NAME}={good}&{NAME}={good}")),
        ("/a", format!("{NAME}={good}&x=1&{NAME}=")),
        ("/a", format!("{NAME}=&{NAME}={good}")),
        ("/a", format!("{NAME}={good},{NAME}={good}")),
        ("/a", format!("{NAME}={good}%41")),
        ("/a", format!("{NAME}={good}/../b")),
    ] {
        targets.push((500, format!("{path}?{query}")));
    }
    targets.push((500, format!("/a;{NAME}={good}?{NAME}={good}")));
    // One that looks like it.
    targets.push((500, format!("/a?x{NAME}={good}")));
    targets.push((500, format!("/a?{}={good}", NAME.to_lowercase())));
    assert!(targets.len() > 200, "{}", targets.len());
    for (code, target) in &targets {
        let answer = client.get(target).send().await;
        assert_eq!(answer.status, 403, "{code} {target}");
    }
    let told = logged(folder.path(), targets.len()).await;
    for ((code, target), line) in targets.iter().zip(&told) {
        let found = line["uri_signing"].as_u64().unwrap();
        // A signature that is cut is one that does not verify, or none.
        let is_right = found == u64::from(*code) || (*code == 0 && [400, 500].contains(&found));
        assert!(is_right, "{code} {found} {target}");
    }
    assert!(origin.all_requests().is_empty());
    assert_eq!(client.get(&with("/a", &good)).send().await.status, 200, "and who may is let in");
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let (file, tokens) = public_key_as_secret();
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    fs::write(folder.path().join("keys.json"), file.to_string()).unwrap();
    let edge = guarded(&origin, folder.path(), "").start();
    for token in &tokens {
        assert_eq!(edge.get(&with("/a", token)).send().await.status, 403);
    }
    let told = logged(folder.path(), tokens.len()).await;
    assert!(told.iter().all(|line| line["uri_signing"] == 400), "{told:?}");
}

#[tokio::test]
async fn a_second_decides_when_a_token_ends() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = guarded(&origin, folder.path(), "").start();
    let ends = with("/a", &token(&claims("/a", &json!({ "exp": now() + 2 }))));
    let begins = with("/a", &token(&claims("/a", &json!({ "nbf": now() + 2 }))));
    assert_eq!(edge.get(&ends).send().await.status, 200);
    assert_eq!(edge.get(&begins).send().await.status, 403);
    let asked = Instant::now();
    while edge.get(&ends).send().await.status != 403 {
        assert!(asked.elapsed() < PATIENCE, "a verdict that is kept ends with its token");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while edge.get(&begins).send().await.status != 200 {
        assert!(asked.elapsed() < PATIENCE, "and begins with it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
