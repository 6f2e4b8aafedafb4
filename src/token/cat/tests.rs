//! Tokens of others, tokens that are meant to harm, and each claim with what meets it and what not.

use std::cell::RefCell;
use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use coset::cbor::Value as Cbor;

use super::named::{hex, unhex};
use super::*;
use crate::limits::ACCESS_TOKEN_BYTES_MAX;
use crate::token::jwk::encoded;
use crate::token::key_file::KeyFile;
use crate::token::uri_signing::Matching;

mod claims;
mod hostile;
mod others;

const URI: &str = "https://v.test/film/a.m3u8";
const NOW: f64 = 1_800_000_000.0;

fn keys(file: &Value) -> Keys {
    KeyFile::parse(file.to_string().as_bytes()).unwrap().keys(Matching::Full).unwrap()
}

/// The key that published examples are signed with, by this id.
fn published(id: &str) -> Value {
    let secret = "403697de87af64611c1d32a05dab0fe1fcb715a86ab435f1ec99192d79569388";
    json!({ "kty": "oct", "kid": id, "alg": "HS256", "k": encoded(&unhex(secret).unwrap()) })
}

/// Two keys of one issuer, `co`: the first, of RFC 9246 appendix A, signs.
fn own() -> Keys {
    let ecdsa = json!({ "kty": "EC", "kid": "e", "alg": "ES256", "crv": "P-256",
        "x": "be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8",
        "y": "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA",
        "d": "yaowezrCLTU6yIwUL5RQw67cHgvZeMTLVZXjUGb1A1M" });
    keys(&json!({ "co": { "renewal_kid": "e", "id": "us", "keys": [ecdsa, published("h")] } }))
}

fn key<'a>(keys: &'a Keys, id: &str) -> &'a Key {
    keys.all(Some(id)).next().unwrap()
}

/// A token with these claims, by the names of CTA-5007.
fn token(claims: &Value) -> String {
    mint(claims.as_object().unwrap(), key(&own(), "e")).unwrap()
}

fn headers() -> &'static HeaderMap {
    static NONE: std::sync::OnceLock<HeaderMap> = std::sync::OnceLock::new();
    NONE.get_or_init(HeaderMap::new)
}

fn asked(uri: &str) -> Asked<'_> {
    Asked {
        uri,
        method: "GET",
        headers: headers(),
        alpn: Some(b"h2"),
        tls_public_key: None,
        client: "192.0.2.7".parse().unwrap(),
        asn: None,
        country: None,
        now: NOW,
    }
}

/// What becomes of it.
fn judged(token: &str, keys: &Keys, asked: &Asked<'_>) -> Result<(), Denied> {
    let verified = Verified::of(token, keys, &Settings::default())?;
    verified.admits(asked, |_| true).map(drop).map_err(|refused| refused.denied)
}
