//! Each claim, with requests that meet it and requests that do not; renewals and answers.

use proptest::prelude::*;

use super::*;

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const SPKI: &[u8] = b"a public key";

fn asn(address: IpAddr) -> Option<u32> {
    address.is_ipv4().then_some(64_500)
}

fn country(address: IpAddr) -> Option<[u8; 2]> {
    address.is_ipv4().then_some(*b"SE")
}

/// What is asked by whom more is known of.
fn known() -> Asked<'static> {
    static HEADERS: std::sync::OnceLock<HeaderMap> = std::sync::OnceLock::new();
    let headers = HEADERS.get_or_init(|| {
        let lines = [("user-agent", "Player/7"), ("x-a", "1"), ("x-a", "2")];
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.map(line).into_iter().collect()
    });
    let tls_public_key = Some(SPKI);
    Asked { asn: Some(&asn), country: Some(&country), tls_public_key, headers, ..asked(URI) }
}

/// The same from elsewhere, without TLS.
fn abroad() -> Asked<'static> {
    Asked { client: v6("2001:db8::7"), alpn: None, tls_public_key: None, ..known() }
}

type Row = (Value, Asked<'static>, Result<(), Denied>);

fn check(rows: impl IntoIterator<Item = Row>) {
    for (claims, asked, becomes) in rows {
        assert_eq!(judged(&token(&claims), &own(), &asked), becomes, "{claims}");
    }
}

#[test]
fn who_and_when_and_from_where_is_as_the_claims_say() {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SPKI);
    let (bare, known, abroad) = (asked(URI), known(), abroad());
    let mapped = Asked { client: v6("::ffff:192.0.2.7"), ..known };
    check([
        (json!({ "iss": "co", "sub": "s", "cti": "00ff", "iat": 9e9, "catv": 1 }), bare, Ok(())),
        (json!({ "catifdata": ["a"], "catreplay": 0 }), bare, Ok(())),
        (json!({ "aud": "us" }), bare, Ok(())),
        (json!({ "aud": ["them", "us"] }), bare, Ok(())),
        (json!({ "aud": ["them"] }), bare, Err(Denied::Audience)),
        (json!({ "aud": [] }), bare, Err(Denied::Audience)),
        (json!({ "aud": ["us", 7] }), bare, Err(Denied::Audience)),
        (json!({ "exp": NOW + 1.0 }), bare, Ok(())),
        (json!({ "exp": NOW }), bare, Err(Denied::Expired)),
        (json!({ "exp": NOW - 1.0 }), bare, Err(Denied::Expired)),
        (json!({ "nbf": NOW }), bare, Ok(())),
        (json!({ "nbf": NOW + 0.5 }), bare, Err(Denied::Early)),
        (json!({ "catnip": ["192.0.2.7"] }), bare, Ok(())),
        (json!({ "catnip": ["192.0.2.7"] }), mapped, Ok(())),
        (json!({ "catnip": ["::ffff:192.0.2.7"] }), bare, Ok(())),
        (json!({ "catnip": ["192.0.2.8", "192.0.0.0/17"] }), bare, Ok(())),
        (json!({ "catnip": ["2001:db8::/33", "0.0.0.0/0"] }), abroad, Ok(())),
        (json!({ "catnip": ["2001:db8:8000::/33"] }), abroad, Err(Denied::Network)),
        (json!({ "catnip": ["0.0.0.0/0"] }), abroad, Err(Denied::Network)),
        (json!({ "catnip": ["::/0"] }), bare, Err(Denied::Network)),
        (json!({ "catnip": [64_500] }), known, Ok(())),
        (json!({ "catnip": [64_500] }), abroad, Err(Denied::Network)),
        (json!({ "catnip": [64_500] }), bare, Err(Denied::Network)),
        (json!({ "catnip": [] }), bare, Err(Denied::Network)),
        (json!({ "catgeoiso3166": ["DE", "se"] }), known, Ok(())),
        (json!({ "catgeoiso3166": ["DE", "SE-AB", "SWE"] }), known, Err(Denied::Country)),
        (json!({ "catgeoiso3166": ["SE"] }), abroad, Err(Denied::Country)),
        (json!({ "catgeoiso3166": ["SE"] }), bare, Err(Denied::Country)),
        (json!({ "catgeoiso3166": "SE" }), known, Err(Denied::Country)),
        (json!({ "cattpk": hex(SPKI) }), known, Ok(())),
        (json!({ "cattpk": hex(digest.as_ref()) }), known, Ok(())),
        (json!({ "cattpk": ["00", hex(SPKI)] }), known, Ok(())),
        (json!({ "cattpk": "00" }), known, Err(Denied::TlsKey)),
        (json!({ "cattpk": hex(SPKI) }), abroad, Err(Denied::TlsKey)),
    ]);
    let nowhen = Asked { now: f64::NAN, ..bare };
    assert_eq!(judged(&token(&json!({})), &own(), &nowhen), Err(Denied::Expired));
}

#[test]
fn what_is_asked_for_and_how_is_as_the_claims_say() {
    let (bare, known, abroad) = (asked(URI), known(), abroad());
    let head = Asked { method: "HEAD", ..known };
    let regex = |text: &str| json!({ "stem": { "regex-match": [text] } });
    check([
        (json!({ "catalpn": ["h3", "h2"] }), bare, Ok(())),
        (json!({ "catalpn": ["h3"] }), bare, Err(Denied::Protocol)),
        (json!({ "catalpn": ["h2"] }), abroad, Err(Denied::Protocol)),
        (json!({ "catm": ["GET"] }), bare, Ok(())),
        (json!({ "catm": ["GET"] }), head, Err(Denied::Method)),
        (json!({ "catm": ["get"] }), bare, Err(Denied::Method)),
        (json!({ "catm": "GET" }), bare, Err(Denied::Method)),
        (
            json!({ "catu": { "scheme": { "exact-match": "https" },
            "host": { "suffix-match": ".test", "prefix-match": "v" },
            "port": { "exact-match": "" }, "query": { "exact-match": "" },
            "path": { "contains-match": "ilm" }, "extension": { "exact-match": ".m3u8" },
            "parent-path": { "exact-match": "/film" }, "filename": { "exact-match": "a.m3u8" },
            "stem": { "regex-match": ["^[a-c]$"] } } }),
            bare,
            Ok(()),
        ),
        (json!({ "catu": { "scheme": { "exact-match": "http" } } }), bare, Err(Denied::Uri)),
        (
            json!({ "catu": { "path": { "prefix-match": "/film", "suffix-match": ".ts" } } }),
            bare,
            Err(Denied::Uri),
        ),
        (json!({ "catu": regex("a") }), bare, Ok(())),
        (json!({ "catu": regex("(a") }), bare, Err(Denied::Uri)),
        (json!({ "catu": { "stem": { "regex-match": ["a", "i"] } } }), bare, Err(Denied::Uri)),
        (json!({ "catu": {} }), bare, Err(Denied::Uri)),
        (json!({ "catu": { "path": {} } }), bare, Err(Denied::Uri)),
        (json!({ "catu": { "path": { "exact-match": 7 } } }), bare, Err(Denied::Uri)),
        (json!({ "cath": { "User-Agent": { "prefix-match": "Player/" } } }), known, Ok(())),
        (json!({ "cath": { "X-A": { "exact-match": "1, 2" } } }), known, Ok(())),
        (json!({ "cath": { "X-A": { "exact-match": "1" } } }), known, Err(Denied::Header)),
        (json!({ "cath": { "x-b": { "contains-match": "" } } }), known, Err(Denied::Header)),
        (json!({ "cath": { "x b": { "exact-match": "1" } } }), known, Err(Denied::Header)),
    ]);
}

#[test]
fn a_claim_that_cannot_be_followed_lets_nobody_in() {
    let bare = asked(URI);
    check([
        (json!({ "catreplay": 3 }), bare, Err(Denied::Used)),
        (json!({ "catreplay": "1" }), bare, Err(Denied::Used)),
        (json!({ "catreplay": 1 }), bare, Err(Denied::Used)),
        (json!({ "catreplay": 1, "cti": "01" }), bare, Ok(())),
        (json!({ "geohash": "u6sc" }), bare, Err(Denied::Unchecked)),
        (json!({ "catpor": [0.1, "00"] }), bare, Err(Denied::Unchecked)),
        (json!({ "cnf": {}, "exp": 1 }), bare, Err(Denied::Expired)),
        (json!({ "catr": { "type": "automatic" } }), bare, Err(Denied::Renewal)),
        (json!({ "catr": { "expadd": 9 } }), bare, Err(Denied::Renewal)),
        (json!({ "catr": { "type": 4, "expadd": 9 } }), bare, Err(Denied::Renewal)),
        (json!({ "catr": { "type": 1, "expadd": -9 } }), bare, Err(Denied::Renewal)),
        (json!({ "catr": { "type": 1, "expadd": 1e18 } }), bare, Err(Denied::Renewal)),
        (json!({ "catr": { "type": 1, "expadd": 9, "code": 200 } }), bare, Err(Denied::Renewal)),
        (
            json!({ "catr": { "type": 1, "expadd": 9, "cookie-name": "a=b" } }),
            bare,
            Err(Denied::Renewal),
        ),
        (
            json!({ "catr": { "type": 1, "expadd": 9, "cookie-params": ["a\r\nb: c"] } }),
            bare,
            Err(Denied::Renewal),
        ),
        // What comes back so would be looked at by nobody, or is ours to say.
        (
            json!({ "catr": { "type": 0, "expadd": 9, "cookie-name": "c" } }),
            bare,
            Err(Denied::Renewal),
        ),
        (json!({ "catr": { "type": 2, "expadd": 9, "cookie-name": "c" } }), bare, Ok(())),
        (
            json!({ "catr": { "type": 2, "expadd": 9, "header-name": "Content-Length" } }),
            bare,
            Err(Denied::Renewal),
        ),
        (
            json!({ "catr": { "type": 2, "expadd": 9, "header-name": "connection" } }),
            bare,
            Err(Denied::Renewal),
        ),
        (json!({ "catif": { "exp": [] } }), bare, Err(Denied::Answer)),
        (json!({ "catif": { "exp": [200, {}] } }), bare, Err(Denied::Answer)),
        (
            json!({ "catif": { "exp": [307, { "Content-Length": "9" }] } }),
            bare,
            Err(Denied::Answer),
        ),
        (
            json!({ "catif": { "exp": [307, { "Location": "a\r\nb: c" }] } }),
            bare,
            Err(Denied::Answer),
        ),
    ]);
}

#[test]
fn networks_are_read_as_rfc_9164_says_and_not_otherwise() {
    let minted = |item: Cbor| {
        let claims = Cbor::Map(vec![(311.into(), Cbor::Array(vec![item]))]);
        cose::signed(written(&claims), key(&own(), "e")).unwrap()
    };
    let tagged = |tag, inside: Cbor| Cbor::Tag(tag, Box::new(inside));
    let prefix = |bits: u8, bytes: &[u8]| Cbor::Array(vec![bits.into(), bytes.into()]);
    let four = Cbor::Bytes(vec![192, 0, 2, 7]);
    for (item, is_met) in [
        (tagged(52, four.clone()), true),
        (tagged(52, prefix(24, &[192, 0, 2])), true),
        (tagged(52, prefix(9, &[192])), true),
        // What is behind the prefix says nothing, where somebody leaves it there.
        (tagged(52, prefix(24, &[192, 0, 2, 99])), true),
        (tagged(52, prefix(33, &[192, 0, 2])), false),
        (tagged(52, prefix(8, &[192, 0, 2, 7, 0])), false),
        (tagged(52, Cbor::Bytes(vec![192, 0, 2])), false),
        (tagged(54, four.clone()), false),
        (tagged(260, four.clone()), false),
        (tagged(52, Cbor::Array(vec![four.clone(), 24.into()])), false),
        (tagged(52, "192.0.2.7".into()), false),
        ("192.0.2.7".into(), false),
        (four, false),
        (u64::MAX.into(), false),
    ] {
        let becomes = if is_met { Ok(()) } else { Err(Denied::Network) };
        assert_eq!(judged(&minted(item.clone()), &own(), &asked(URI)), becomes, "{item:?}");
    }
}

#[test]
fn only_issuers_that_are_trusted_issue_and_only_with_their_own_keys() {
    let both = json!({ "a": { "keys": [published("h")] }, "b": { "keys": [published("h")] } });
    let keys = keys(&both);
    let signing = key(&keys, "h");
    let judged = |issuer: &str, trusted: &[&str]| {
        let claims = json!({ "iss": issuer, "catif": { "iss": [307, { "Location": "/" }] } });
        let token = mint(claims.as_object().unwrap(), signing).unwrap();
        let issuers = trusted.iter().map(|one| (*one).to_owned()).collect();
        let settings = Settings { issuers, ..Settings::default() };
        Verified::of(&token, &keys, &settings).map(|verified| verified.issuer().to_owned())
    };
    assert_eq!(judged("b", &[]), Ok("b".to_owned()), "one key may be of two issuers");
    assert_eq!(judged("b", &["b"]), Ok("b".to_owned()));
    assert_eq!(judged("b", &["a"]), Err(Denied::Issuer));
    assert_eq!(judged("c", &[]), Err(Denied::Issuer));
    let unsaid = mint(json!({}).as_object().unwrap(), signing).unwrap();
    let settings = Settings { issuers: vec!["b".to_owned()], ..Settings::default() };
    let verified = Verified::of(&unsaid, &keys, &settings).unwrap();
    assert_eq!(verified.issuer(), "b", "of those who could have, the one who is trusted");
}

#[test]
fn a_token_that_may_be_used_once_is_used_once() {
    let keys = own();
    let seen = RefCell::new(HashSet::new());
    let uses = |replay: u8| {
        let token = token(&json!({ "catreplay": replay, "cti": "0102", "exp": NOW + 9.0 }));
        let verified = Verified::of(&token, &keys, &Settings::default()).unwrap();
        let told = verified.admits(&asked(URI), |used| {
            assert_eq!((used.issuer, used.expires), ("co", Some(NOW + 9.0)));
            seen.borrow_mut().insert(used.id.to_owned())
        });
        told.map(drop).map_err(|refused| refused.denied)
    };
    assert_eq!([uses(1), uses(1)], [Ok(()), Err(Denied::Used)]);
    assert_eq!(uses(2), Ok(()), "it is told that it was used again, and lets in");
    assert_eq!(seen.borrow().len(), 1);
    assert_eq!(uses(0), Ok(()));
}

#[test]
fn a_token_is_renewed_near_its_end_and_says_what_it_said() {
    const NAME: &str = "cta-common-access-token";
    let keys = own();
    let claims = json!({ "iss": "co", "exp": NOW as u64, "iat": 1, "cti": "0102", "catreplay": 1,
        "catu": { "path": { "prefix-match": "/film/" } },
        "catr": { "type": "cookie", "expadd": 120, "deadline": 60, "cookie-name": NAME,
            "cookie-params": ["Secure", "Path=/film; HttpOnly"], "header-name": "x-token",
            "header-params": "a=b" } });
    let verified = Verified::of(&token(&claims), &keys, &Settings::default()).unwrap();
    let at = |now| Asked { now, ..asked(URI) };
    assert_eq!(verified.admits(&at(NOW - 60.0), |_| true), Ok(None));
    let late = at(NOW - 59.5);
    let renewal = verified.admits(&late, |_| true).unwrap().unwrap();
    assert_eq!((renewal.transport, renewal.status), (Transport::Cookie, 307));
    assert_eq!(renewal.set_cookie("T"), "cta-common-access-token=T; Secure; Path=/film; HttpOnly");
    assert_eq!(
        (renewal.header.as_str(), renewal.value("T")),
        ("x-token", "T; a=b".parse().unwrap())
    );
    let renewed = verified.renewed(renewal, &late, &keys).unwrap();
    let again = Verified::of(&renewed, &keys, &Settings::default()).unwrap();
    let mut said = again.claims();
    let id = said.insert("cti".to_owned(), "0102".into()).unwrap();
    assert_eq!(id.as_str().unwrap().len(), 32, "the id that was used up is another one");
    let mut expected = claims;
    expected["exp"] = (NOW as u64 + 60).into();
    expected["iat"] = (NOW as u64 - 60).into();
    expected["catr"]["header-params"] = "a=b".into();
    assert_eq!(Value::Object(said), expected);
    assert_eq!(again.admits(&late, |_| true), Ok(None), "not yet again");

    let lasting = json!({ "catr": { "type": "header", "expadd": 1 } });
    let lasting = Verified::of(&token(&lasting), &keys, &Settings::default()).unwrap();
    assert_eq!(lasting.admits(&late, |_| true), Ok(None), "what does not end is not renewed");
}

#[test]
fn the_next_token_is_not_due_when_it_comes_however_early_a_token_wants_it() {
    let keys = own();
    for deadline in [15.0, 60.0, 1e300] {
        let claims = json!({ "exp": NOW + 10.0,
            "catr": { "type": "redirect", "expadd": 30, "deadline": deadline } });
        let verified = Verified::of(&token(&claims), &keys, &Settings::default()).unwrap();
        let renewal = verified.admits(&asked(URI), |_| true).unwrap().unwrap();
        let renewed = verified.renewed(renewal, &asked(URI), &keys).unwrap();
        let again = Verified::of(&renewed, &keys, &Settings::default()).unwrap();
        assert_eq!(again.admits(&asked(URI), |_| true), Ok(None), "{deadline}");
    }
}

#[test]
fn who_bears_a_token_bears_what_takes_its_place_and_nobody_else_does() {
    let keys = own();
    let of = |token: &str| Verified::of(token, &keys, &Settings::default()).unwrap();
    let minted = |claims: &Value| of(&token(claims)).bearer();
    let late = asked(URI);
    for (replay, is_his) in [(0, false), (1, true), (2, false)] {
        let says = |id: &str, exp: f64| {
            json!({ "iss": "co", "exp": exp, "iat": 1, "cti": id, "catreplay": replay,
                "catr": { "type": "header", "expadd": 120 } })
        };
        let first = of(&token(&says("01", NOW + 1.0)));
        let renewal = first.admits(&late, |_| true).unwrap().unwrap();
        let renewed = first.renewed(renewal, &late, &keys).unwrap();
        assert_eq!(of(&renewed).bearer(), first.bearer(), "{replay}");
        let other = minted(&says("02", NOW + 1.0)) == first.bearer();
        assert_eq!(other, is_his, "the id is another one in each of a chain: {replay}");
    }
    let lasting = |exp: u64| minted(&json!({ "iss": "co", "exp": exp, "sub": "a" }));
    assert_ne!(lasting(1), lasting(2), "what nothing takes the place of is one by itself");
}

#[test]
fn of_nine_issuers_with_a_key_of_one_id_each_has_his_tried() {
    let secret = |number: usize| encoded(&[number as u8; 32]);
    let issuer = |number: usize| {
        let key = json!({ "kty": "oct", "kid": "1", "alg": "HS256", "k": secret(number) });
        (number.to_string(), json!({ "renewal_kid": "1", "keys": [key] }))
    };
    let keys = keys(&Value::Object((0..9).map(issuer).collect()));
    for number in (0..9).map(|number| number.to_string()) {
        let claims = json!({ "iss": number });
        let token = mint(claims.as_object().unwrap(), keys.renewal(&number).unwrap()).unwrap();
        assert_eq!(judged(&token, &keys, &asked(URI)), Ok(()), "{number}");
    }
}

/// The example of `node-cat`'s README.
#[test]
fn who_does_not_meet_a_claim_is_answered_as_the_token_says() {
    let keys = own();
    let minted = json!({ "iss": null, "iat": null, "sub": null, "nbf": null, "catifdata": null,
        "catu": { "host": { "exact-match": "auth.example.net" } } });
    let answer = |key: &str| {
        json!([307, { "Location": ["https://auth.example.net/?CAT=", minted],
        "x-why": "it is over" }, key])
    };
    let claims = json!({ "iss": "co", "exp": NOW as u64 - 60, "sub": "jonas",
        "catm": ["GET"], "catif": { "exp": answer("h"), "catm": answer("x"), "geohash": [404] } });
    let verified = Verified::of(&token(&claims), &keys, &Settings::default()).unwrap();
    assert_eq!(Value::Object(verified.claims()), claims);
    let refused = verified.admits(&asked(URI), |_| true).unwrap_err();
    let answer = refused.answer.unwrap();
    assert_eq!((refused.denied, answer.status), (Denied::Expired, 307));
    let fields = verified.answered(answer, &asked(URI), &keys).unwrap();
    let field = |name: &str| {
        let (_, value) = fields.iter().find(|(one, _)| one == name).unwrap();
        value.to_str().unwrap()
    };
    assert_eq!(field("x-why"), "it is over");
    let fresh = field("location").strip_prefix("https://auth.example.net/?CAT=").unwrap();
    let fresh = Verified::of(fresh, &keys, &Settings::default()).unwrap();
    let said = json!({ "iss": "co", "iat": NOW as u64, "sub": "jonas", "catifdata": "exp",
        "catu": { "host": { "exact-match": "auth.example.net" } } });
    assert_eq!(Value::Object(fresh.claims()), said);
    assert_eq!(unverified(field("location").rsplit('=').next().unwrap()).unwrap()[0]["kid"], "h");

    let early = Asked { now: 0.0, ..asked(URI) };
    let posted = verified.admits(&Asked { method: "POST", ..early }, |_| true).unwrap_err();
    assert_eq!(posted.denied, Denied::Method);
    let none = verified.answered(posted.answer.unwrap(), &early, &keys);
    assert_eq!(none, None, "there is no such key");
    let strange = json!({ "geohash": "u", "catif": { "geohash": [404], "cnf": [401] } });
    let strange = Verified::of(&token(&strange), &keys, &Settings::default()).unwrap();
    let refused = strange.admits(&asked(URI), |_| true).unwrap_err();
    assert_eq!((refused.denied, refused.answer.unwrap().status), (Denied::Unchecked, 404));
    let silent = Verified::of(&token(&json!({ "exp": 1 })), &keys, &Settings::default()).unwrap();
    assert_eq!(silent.admits(&asked(URI), |_| true).unwrap_err().answer, None);
}

/// As `node-cat` writes it: with names, where there should be numbers.
#[test]
fn an_answer_that_is_written_with_names_is_the_same() {
    let keys = own();
    let named = Cbor::Map(vec![
        ("iss".into(), Cbor::Null),
        (
            "catu".into(),
            Cbor::Map(vec![(
                "host".into(),
                Cbor::Map(vec![("exact-match".into(), "a.test".into())]),
            )]),
        ),
    ]);
    let location = Cbor::Array(vec!["/?CAT=".into(), named]);
    let fields = Cbor::Map(vec![("Location".into(), location)]);
    let answer = Cbor::Array(vec![302.into(), fields, "e".into()]);
    let catif = Cbor::Map(vec![(4.into(), answer)]);
    let claims = Cbor::Map(vec![(4.into(), 1.into()), (322.into(), catif)]);
    let token = cose::signed(written(&claims), key(&keys, "e")).unwrap();
    let verified = Verified::of(&token, &keys, &Settings::default()).unwrap();
    let refused = verified.admits(&asked(URI), |_| true).unwrap_err();
    let fields = verified.answered(refused.answer.unwrap(), &asked(URI), &keys).unwrap();
    let (_, fresh) = fields[0].1.to_str().unwrap().split_once('=').unwrap();
    let said = json!({ "iss": "co", "catu": { "host": { "exact-match": "a.test" } } });
    assert_eq!(Value::Object(unverified(fresh).unwrap()[1].clone()), said);
}

#[test]
fn what_has_the_form_of_a_token_is_told_from_what_has_not() {
    let token = token(&json!({}));
    assert!(token.starts_with("2D3S") && is_one(&token));
    let bare = BASE64.decode(&token).unwrap();
    assert!(is_one(&encoded(&bare[2..])) && is_one("2D3R"));
    for other in ["", "2D", "eyJh.e30.c2ln", "2D3!", "2D3A", "AAAA", "\u{e9}\u{e9}\u{e9}"] {
        assert!(!is_one(other), "{other}");
    }
    assert!(mint(json!({ "exq": 1 }).as_object().unwrap(), key(&own(), "e")).is_err());
    assert!(mint(json!({ "cti": "x" }).as_object().unwrap(), key(&own(), "e")).is_err());
}

prop_compose! {
    fn any_claims()(
        exp in proptest::option::of(any::<i64>()),
        aud in proptest::collection::vec("[a-c]{1,2}", 1..3),
        networks in proptest::collection::vec((any::<[u8; 16]>(), any::<bool>(), 0_u8..=128), 0..4),
        systems in proptest::collection::vec(any::<u32>(), 0..3),
        kind in 0_usize..7,
        text in "[a-z0-9]{0,8}",
        part in 0_usize..9,
    ) -> Value {
        let (kind, _) = names::MATCHES[kind];
        let value = match kind {
            "regex-match" => json!([text]),
            "sha256-match" | "sha512-256-match" => "00".repeat(32).into(),
            _ => text.clone().into(),
        };
        let network = |(address, is_four, bits): ([u8; 16], bool, u8)| -> Value {
            let bits = if is_four { bits % 33 } else { bits };
            let mask = |width: u32| u128::MAX.checked_shl(width - u32::from(bits)).unwrap_or(0);
            let all = u128::from_be_bytes(address);
            match is_four {
                true => {
                    let address = (all as u32) & (mask(32) as u32);
                    format!("{}/{bits}", std::net::Ipv4Addr::from_bits(address)).into()
                }
                false => {
                    format!("{}/{bits}", std::net::Ipv6Addr::from_bits(all & mask(128))).into()
                }
            }
        };
        let places = networks.into_iter().map(network).chain(systems.into_iter().map(Value::from));
        let mut claims = json!({ "aud": aud, "catnip": places.collect::<Vec<_>>(),
            "catu": { names::COMPONENTS[part].0: { kind: value } },
            "cath": { "x-a": { kind: value } }, "catalpn": [text], "cti": hex(text.as_bytes()),
            "catr": { "type": names::RENEWAL_TYPES[part % 4].0, "expadd": 9, "code": 302 },
            "catif": { "exp": [307, { "location": ["/?", { "iat": null, "cti": "00" }] }, "k"] } });
        if let Some(exp) = exp {
            claims["exp"] = exp.into();
        }
        claims
    }
}

proptest! {
    #[test]
    fn claims_are_the_same_when_they_have_been_minted(claims in any_claims()) {
        let token = token(&claims);
        let [header, said] = unverified(&token).unwrap();
        prop_assert_eq!(Value::Object(said), claims);
        prop_assert_eq!(Value::Object(header), json!({ "alg": "ES256", "kid": "e" }));
    }
}
