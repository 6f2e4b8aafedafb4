//! Tokens that are meant to harm: each is refused, for the reason it is refused for, without panic.

use aws_lc_rs::hmac;
use coset::{
    MacContext, ProtectedHeader, SignatureContext, mac_structure_data, sig_structure_data,
};

use super::*;

/// How a token is put together, each part at will.
struct Made {
    tags: Vec<u64>,
    protected: Vec<u8>,
    unprotected: Cbor,
    payload: Cbor,
    /// Which structure is signed.
    kind: u64,
    by: &'static str,
}

impl Made {
    /// A good one.
    fn of(claims: Cbor) -> Made {
        Made {
            tags: vec![61, 18],
            protected: written(&head(&[(1, (-7).into())])),
            unprotected: head(&[(4, b"e"[..].into())]),
            payload: written(&claims).into(),
            kind: 18,
            by: "e",
        }
    }

    fn mac(claims: Cbor) -> Made {
        let protected = written(&head(&[(1, 5.into())]));
        let unprotected = head(&[(4, b"h"[..].into())]);
        Made { tags: vec![61, 17], protected, unprotected, kind: 17, by: "h", ..Made::of(claims) }
    }

    fn structure(&self) -> Vec<u8> {
        let protected = Some(self.protected.clone());
        let protected = ProtectedHeader { original_data: protected, ..Default::default() };
        let payload = self.payload.as_bytes().cloned().unwrap_or_default();
        match self.kind {
            17 => mac_structure_data(MacContext::CoseMac0, protected, &[], &payload),
            _ => {
                let context = SignatureContext::CoseSign1;
                sig_structure_data(context, protected, None, &[], &payload)
            }
        }
    }

    fn token(&self) -> String {
        self.with(key(&own(), self.by).sign(&self.structure()).unwrap())
    }

    fn with(&self, signature: Vec<u8>) -> String {
        let parts = [
            self.protected.clone().into(),
            self.unprotected.clone(),
            self.payload.clone(),
            signature.into(),
        ];
        let tags = self.tags.iter().rev();
        let tagged = |inside, tag: &u64| Cbor::Tag(*tag, Box::new(inside));
        encoded(&written(&tags.fold(Cbor::Array(parts.into()), tagged)))
    }
}

fn head(all: &[(i64, Cbor)]) -> Cbor {
    Cbor::Map(all.iter().map(|(label, value)| ((*label).into(), value.clone())).collect())
}

fn becomes(token: &str) -> Result<(), Denied> {
    judged(token, &own(), &asked(URI))
}

fn good() -> Made {
    Made::of(head(&[(1, "co".into())]))
}

fn mac() -> Made {
    Made::mac(head(&[(1, "co".into())]))
}

/// An algorithm and a key's id, in one header.
fn in_place() -> Cbor {
    head(&[(1, (-7).into()), (4, b"e"[..].into())])
}

fn check(rows: impl IntoIterator<Item = (&'static str, String, Result<(), Denied>)>) {
    for (why, token, becomes_of) in rows {
        assert_eq!(becomes(&token), becomes_of, "{why}: {token}");
    }
}

#[test]
fn what_is_good_lets_in_however_it_is_put_together() {
    check([
        ("it is good", good().token(), Ok(())),
        ("so is this", mac().token(), Ok(())),
        ("not said to be a CWT", Made { tags: vec![18], ..good() }.token(), Ok(())),
        ("no id, all are tried", Made { unprotected: head(&[]), ..good() }.token(), Ok(())),
        ("its id is signed", Made { protected: written(&in_place()), ..good() }.token(), Ok(())),
    ]);
}

#[test]
fn whoever_wraps_a_token_anew_bears_the_same_one() {
    let bearer = |token: &str| Verified::of(token, &own(), &Settings::default()).unwrap().bearer();
    let wrapped = |number: i64| {
        let unprotected = head(&[(4, b"e"[..].into()), (99, number.into())]);
        Made { unprotected, ..good() }.token()
    };
    assert_ne!(wrapped(1), wrapped(2));
    for token in [wrapped(1), wrapped(2), Made { tags: vec![18], ..good() }.token()] {
        assert_eq!(bearer(&token), bearer(&good().token()));
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let raw = |bytes: &[u8]| encoded(bytes);
    let whole = BASE64.decode(good().token()).unwrap();
    let critical = head(&[(1, (-7).into()), (2, Cbor::Array(vec![99.into()]))]);
    check([
        ("nothing", String::new(), Err(Denied::Malformed)),
        ("no base64url", "2D3S!".to_owned(), Err(Denied::Malformed)),
        ("a JWT", "eyJh.e30.c2ln".to_owned(), Err(Denied::Malformed)),
        ("too long", "A".repeat(ACCESS_TOKEN_BYTES_MAX + 1), Err(Denied::Malformed)),
        ("more behind it", raw(&[&whole[..], b"\0"].concat()), Err(Denied::Malformed)),
        ("twice", raw(&[&whole[..], &whole[..]].concat()), Err(Denied::Malformed)),
        ("nested", raw(&[vec![0xd8; 4_000], vec![0]].concat()), Err(Denied::Malformed)),
        ("deep", raw(&vec![0x81; 5_000]), Err(Denied::Malformed)),
        ("endless", raw(&[0xd2, 0x9b, 255, 255, 255, 255, 0, 0, 0, 0]), Err(Denied::Malformed)),
        ("without a length", raw(&[0xd2, 0x9f, 0xff]), Err(Denied::Malformed)),
        ("without a tag", Made { tags: vec![], ..good() }.token(), Err(Denied::Malformed)),
        ("only a CWT", Made { tags: vec![61], ..good() }.token(), Err(Denied::Malformed)),
        ("twice a CWT", Made { tags: vec![61, 61, 18], ..good() }.token(), Err(Denied::Malformed)),
        ("encrypted", Made { tags: vec![61, 16], ..good() }.token(), Err(Denied::Malformed)),
        ("many sign", Made { tags: vec![61, 98], ..good() }.token(), Err(Denied::Malformed)),
        ("no claims", Made { payload: Cbor::Null, ..good() }.token(), Err(Denied::Malformed)),
        (
            "demands",
            Made { protected: written(&critical), ..good() }.token(),
            Err(Denied::Critical),
        ),
        (
            "a header twice",
            Made { protected: unhex("a201260126").unwrap(), ..good() }.token(),
            Err(Denied::Malformed),
        ),
    ]);
}

#[test]
fn what_is_not_signed_as_its_key_signs_is_refused() {
    let algorithm = |value: Cbor| written(&head(&[(1, value)]));
    let id = |id: &str| head(&[(4, id.as_bytes().into())]);
    let public = {
        let decode = |text| BASE64.decode(text).unwrap();
        let x = decode("be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8");
        [vec![4], x, decode("rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA")].concat()
    };
    let confused = |made: Made| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
        made.with(hmac::sign(&key, &made.structure()).as_ref().to_vec())
    };
    let none = || Made { protected: algorithm("none".into()), ..good() };
    let refused = [
        ("alg none", none().with(vec![])),
        ("alg none, signed", none().token()),
        ("no alg", Made { protected: vec![], ..good() }.token()),
        (
            "its alg is not signed",
            Made { protected: vec![], unprotected: in_place(), ..good() }.token(),
        ),
        ("alg twice over", Made { unprotected: in_place(), ..good() }.token()),
        ("another alg", Made { protected: algorithm((-35).into()), ..good() }.token()),
        ("another's key", Made { unprotected: id("h"), ..good() }.token()),
        ("no key", Made { unprotected: id("x"), ..good() }.token()),
        (
            "two ids",
            Made { protected: written(&in_place()), unprotected: id("h"), ..good() }.token(),
        ),
        ("HS256 by the public key", confused(Made { unprotected: id("e"), ..mac() })),
        ("ES256 by the public key as a secret", confused(Made { unprotected: id("e"), ..good() })),
        ("-7 in a MAC", Made { tags: vec![61, 17], ..good() }.token()),
        ("-7 in a MAC, signed as one", Made { tags: vec![61, 17], kind: 17, ..good() }.token()),
        ("HS256 in a signature", Made { tags: vec![18], ..mac() }.token()),
        (
            "HS256 in a signature, signed as one",
            Made { tags: vec![61, 18], kind: 18, ..mac() }.token(),
        ),
        ("no signature", good().with(vec![])),
        ("zeros", good().with(vec![0; 64])),
    ];
    check(refused.map(|(why, token)| (why, token, Err(Denied::Signature))));
}

#[test]
fn claims_that_are_signed_and_none_are_refused() {
    let signed = |payload: Vec<u8>| Made { payload: payload.into(), ..Made::of(Cbor::Null) };
    let big = Cbor::Tag(2, Box::new(Cbor::Bytes(vec![0xff; 40])));
    let claims = |all: &[(i64, Cbor)]| Made::of(head(all)).token();
    for (why, token, becomes_of) in [
        ("no map", signed(vec![0x80]).token(), Err(Denied::Malformed)),
        ("nothing", signed(vec![]).token(), Err(Denied::Malformed)),
        ("cut", signed(vec![0xa1, 0x01]).token(), Err(Denied::Malformed)),
        ("trash", signed(vec![0xa0, 0x00]).token(), Err(Denied::Malformed)),
        ("exp twice", signed(unhex("a204001a7fffffff").unwrap()).token(), Err(Denied::Malformed)),
        (
            "exp twice, spelled differently",
            signed(unhex("a2041a7fffffff180400").unwrap()).token(),
            Err(Denied::Malformed),
        ),
        ("exp NaN", claims(&[(4, f64::NAN.into())]), Err(Denied::Expired)),
        ("exp endless", claims(&[(4, f64::INFINITY.into())]), Err(Denied::Expired)),
        ("exp text", claims(&[(4, "9".into())]), Err(Denied::Expired)),
        ("exp big", claims(&[(4, big)]), Err(Denied::Expired)),
        ("exp tagged", claims(&[(4, Cbor::Tag(1, Box::new(9.into())))]), Err(Denied::Expired)),
        ("exp before 1970", claims(&[(4, (-1).into())]), Err(Denied::Expired)),
        ("exp huge", claims(&[(4, u64::MAX.into())]), Ok(())),
        ("exp a fraction away", claims(&[(4, (NOW + 0.5).into())]), Ok(())),
        ("nbf NaN", claims(&[(5, f64::NAN.into())]), Err(Denied::Early)),
        ("nbf huge", claims(&[(5, u64::MAX.into())]), Err(Denied::Early)),
        ("iat text", claims(&[(6, "9".into())]), Err(Denied::Malformed)),
        ("sub bytes", claims(&[(2, b"s"[..].into())]), Err(Denied::Malformed)),
        ("cti text", claims(&[(7, "s".into())]), Err(Denied::Malformed)),
        ("iss bytes", claims(&[(1, b"co"[..].into())]), Err(Denied::Issuer)),
        ("another iss", claims(&[(1, "so".into())]), Err(Denied::Issuer)),
        ("catv 2", claims(&[(310, 2.into())]), Err(Denied::Version)),
        ("catv text", claims(&[(310, "1".into())]), Err(Denied::Version)),
        ("catv 1.0", claims(&[(310, 1.0.into())]), Err(Denied::Version)),
        ("aud bytes", claims(&[(3, b"us"[..].into())]), Err(Denied::Audience)),
        (
            "a key without a number",
            signed(unhex("a1f500").unwrap()).token(),
            Err(Denied::Malformed),
        ),
        (
            "a name",
            signed(unhex("a163657870 00".replace(' ', "").as_str()).unwrap()).token(),
            Err(Denied::Unchecked),
        ),
    ] {
        assert_eq!(becomes(&token), becomes_of, "{why}: {token}");
    }
    for label in [8, 282, 309, 317, 318, 321, 324, 325, 9, 0, -1, i64::MAX] {
        assert_eq!(becomes(&claims(&[(label, 1.into())])), Err(Denied::Unchecked), "{label}");
    }
}

#[test]
fn no_token_that_is_cut_or_changed_anywhere_lets_in() {
    for good in [
        Made::mac(head(&[(1, "co".into()), (4, (NOW as i64 + 9).into())])),
        Made::of(head(&[(1, "co".into()), (4, (NOW as i64 + 9).into())])),
    ] {
        let token = good.token();
        let bytes = BASE64.decode(&token).unwrap();
        assert_eq!(becomes(&token), Ok(()));
        for at in 0..bytes.len() {
            assert_eq!(becomes(&encoded(&bytes[..at])), Err(Denied::Malformed), "cut at {at}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let told = becomes(&encoded(&changed));
                // Whose key it is may go unsaid, or be said as text: that is not signed.
                assert!(told.is_err() || (8..12).contains(&at), "{at} {bit}");
            }
        }
        for at in 0..token.len() {
            assert!(becomes(&token[..at]).is_err());
        }
    }
}

#[test]
fn an_expression_is_not_looked_at_before_the_signature() {
    let slow = "(a+)+".repeat(200) + "b{1000}{1000}{1000}";
    let claims = json!({ "iss": "co", "catu": { "path": { "regex-match": [slow] } } });
    let good = token(&claims);
    assert_eq!(becomes(&good), Err(Denied::Uri), "it is too large");
    let mut bytes = BASE64.decode(&good).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(becomes(&encoded(&bytes)), Err(Denied::Signature));
    // One that others would try for ever.
    let uri = format!("https://v.test/{}!", "a".repeat(4_000));
    let claims = json!({ "iss": "co", "catu": { "path": { "regex-match": ["^/(a+)+$"] } } });
    assert_eq!(judged(&token(&claims), &own(), &asked(&uri)), Err(Denied::Uri));
}
