//! What the fuzz targets of `fuzz/` run: any bytes go in, no panic and no broken promise comes out.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde_json::Value;

use super::cat;
use super::json;
use super::key_file::{KeyFile, Keys};
use super::uri_signing::{Asked, Matching, Settings, Verified, find, mint, normalised, unverified};

/// A target, then a token or claims that are signed here: what a token is taken out of has none,
/// and who is let in is let in again with what renews it.
pub fn uri_signing(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (target, text) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(found) = find(target, "token") else { return };
    assert!(find(&found.bare, "token").is_ok_and(|again| again.token.is_none()));
    assert!(found.bare.len() <= target.len());
    let (keys, settings) = (keys(), Settings::default());
    for token in found.token.into_iter().chain([text]) {
        let _ = unverified(token);
        let _ = Verified::of(token, &keys, &settings);
    }
    let Ok(Value::Object(claims)) = json::parsed(text.as_bytes()) else { return };
    let Some(token) = keys.renewal("a").and_then(|key| mint(&claims, key)) else { return };
    let Ok(verified) = Verified::of(&token, &keys, &settings) else { return };
    let Some(uri) = normalised("https", "a.test", None, &found.bare) else { return };
    let path = found.bare.split('?').next().unwrap_or("/");
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let asked = Asked { uri: &uri, path, client, now: 1_000.0 };
    let Ok(Some(renewal)) = verified.admits(&asked, |_| true) else { return };
    if let Some(renewed) = verified.renewed(renewal, &asked, &keys) {
        let again = Verified::of(&renewed.token, &keys, &settings);
        let seconds = renewal.seconds;
        let admitted = again.and_then(|again| again.admits(&asked, |_| true).map(drop));
        assert!(admitted.is_ok() || seconds < 1.0, "{admitted:?} {claims:?}");
        assert!(path.starts_with(&renewed.path) || renewed.path == "/");
    }
}

/// A token, and claims that are signed here: who is let in is let in again with what renews it, and
/// what is answered to who is not can be answered.
pub fn cat(bytes: &[u8]) {
    let (keys, settings) = (keys(), cat::Settings::default());
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let text = String::from_utf8_lossy(bytes);
    for token in [&*text, &*encoded] {
        assert!(cat::is_one(token) || cat::Verified::of(token, &keys, &settings).is_err());
        let _ = cat::unverified(token);
    }
    let key = keys.renewal("a").expect("it has one");
    let named = json::parsed(bytes).ok();
    let named = named.as_ref().and_then(Value::as_object).map(|claims| cat::mint(claims, key));
    let raw = cat::fuzzed(bytes, key);
    for token in named.into_iter().flatten().chain(raw) {
        let Ok(verified) = cat::Verified::of(&token, &keys, &settings) else { continue };
        let _ = verified.claims();
        let headers = HeaderMap::new();
        let asked = cat::Asked {
            uri: "https://a.test/film/a.m3u8?b=c",
            method: "GET",
            headers: &headers,
            alpn: Some(b"h2"),
            tls_public_key: Some(b"key"),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            asn: Some(&|_| Some(64_500)),
            country: Some(&|_| Some(*b"SE")),
            now: 1_000.0,
        };
        match verified.admits(&asked, |_| true) {
            Ok(Some(renewal)) => {
                let renewed = verified.renewed(renewal, &asked, &keys).expect("it can be signed");
                let again = cat::Verified::of(&renewed, &keys, &settings).expect("it is good");
                assert!(again.admits(&asked, |_| true).is_ok());
                let _ = (renewal.set_cookie(&renewed), renewal.value(&renewed));
            }
            Ok(None) => {}
            Err(refused) => {
                assert!(cat::Denied::ALL.contains(&refused.denied));
                let _ = refused.answer.map(|answer| verified.answered(answer, &asked, &keys));
            }
        }
    }
}

/// Any bytes as a key file.
pub fn key_file(bytes: &[u8]) {
    let Ok(file) = KeyFile::parse(bytes) else { return };
    let written = serde_json::to_vec(&file).expect("what was read can be written");
    let again = KeyFile::parse(&written).expect("and read again");
    let ok = |file: &KeyFile| file.keys(Matching::Full).is_ok();
    assert_eq!(ok(&file), ok(&again));
}

fn keys() -> Keys {
    let file = KeyFile::parse(KEYS.as_bytes()).expect("it is one");
    file.keys(Matching::Full).expect("and has keys")
}

const KEYS: &str = r#"{ "a": { "renewal_kid": "k", "keys": [ { "kty": "oct", "kid": "k",
    "alg": "HS256", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE" } ] } }"#;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::fuzz::tests::seeds;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 3] =
        [("uri_signing", uri_signing), ("cat", cat), ("key_file", key_file)];

    #[test]
    fn the_seeds_of_every_target_keep_its_promises() {
        for (name, target) in TARGETS {
            seeds(name, 5).iter().for_each(|seed| target(seed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_claims_break_a_promise(
            bytes in proptest::collection::vec(any::<u8>(), 0..48),
            claims in "\\{(\"(exp|nbf|cti|catm|catu|catr|catif|catnip|catreplay)\":\
                (1|-1|1e300|2000|\"GET\"|\"00\"|\\[\"GET\"\\]|\\[1,\"::/1\"\\]|\
                \\{\"path\":\\{\"regex-match\":\\[\"[a.*(|)]{0,4}\"\\]\\}\\}|\
                \\{\"type\":[0-4],\"expadd\":[0-9]{1,4}\\}|\
                \\{\"exp\":\\[[34]0[0-9],\\{\"a\":\\[\"/\",\\{\"iat\":null\\}\\]\\}\\]\\}),){0,4}\
                \"catv\":1\\}",
        ) {
            cat(&bytes);
            cat(claims.as_bytes());
        }

        #[test]
        fn no_bytes_break_a_promise(
            bytes in "(/|[;?&]token=|[;?&a,%]|\\n|\\{|\\}|:|,|[0-9.]{1,8}|-|\\[|\\]|\
                \"(cdniuc|exp|nbf|cdniets|cdnistt|cdnistd|jti|kty|keys|kid|a)\"|\
                \"(regex:|hash:sha-256;|[(.*)a]{1,6}|oct|EC|k)\"|eyJ|e30)*",
        ) {
            for (_, target) in TARGETS {
                target(bytes.as_bytes());
            }
        }
    }
}
