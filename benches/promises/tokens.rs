//! What a viewer's token costs: to verify one that was not seen before, and to compare one that was
//! with a request.

use std::hint::black_box;
use std::time::Instant;

use serde_json::json;
use tidegate::token::jwk::Jwk;
use tidegate::token::key::Algorithm;
use tidegate::token::key_file::{IssuerFile, KeyFile, Keys};
use tidegate::token::uri_signing::{Asked, Matching, Settings, Verified, mint};

use crate::figure::{Measure, Promise, Unit};

const TIMES: u32 = 2_000;
/// Of one that is signed with ES256 and was not seen before.
const VERIFIED_MAX_US: f64 = 120.0;
const URI: &str = "https://v.test/film/1/video/1080p/segment-17.m4s";

/// A token by a key of each kind.
pub(crate) struct Tokens {
    by: [(&'static str, Keys, String, Promise); 3],
}

impl Tokens {
    pub(crate) fn start() -> Tokens {
        let by = |name, algorithm, promise| {
            let (mut file, mut issuer) = (KeyFile::default(), IssuerFile::default());
            issuer.keys.push(Jwk::generate(algorithm, "k").unwrap());
            issuer.renewal_kid = Some("k".to_owned());
            file.issuers.insert("publisher".to_owned(), issuer);
            let keys = file.keys(Matching::Full).unwrap();
            let claims = json!({
                "iss": "publisher", "exp": 4_000_000_000_u64,
                "cdniuc": "regex:https://v\\.test/film/1/.*\\.m4s",
            });
            let token = mint(claims.as_object().unwrap(), keys.renewal("publisher").unwrap());
            (name, keys, token.unwrap(), promise)
        };
        Tokens {
            by: [
                ("ES256", Algorithm::Es256, Promise::MedianAtMost(VERIFIED_MAX_US)),
                ("EdDSA", Algorithm::EdDsa, Promise::None),
                ("HS256", Algorithm::Hs256, Promise::None),
            ]
            .map(|(name, algorithm, promise)| by(name, algorithm, promise)),
        }
    }

    pub(crate) fn round(&self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for (name, keys, token, promise) in &self.by {
            let settings = Settings::default();
            let verify = || Verified::of(token, keys, &settings).expect("it is signed");
            let measure = Measure::shown(name, Unit::Microseconds, each(|| drop(verify())));
            measures.push(measure.promised(*promise));
        }
        let (_, keys, token, _) = &self.by[0];
        let verified = Verified::of(token, keys, &Settings::default()).unwrap();
        let path = URI.trim_start_matches("https://v.test");
        let client = "192.0.2.7".parse().unwrap();
        let asked = Asked { uri: URI, path, client, now: 1.0 };
        let known = each(|| {
            black_box(verified.admits(black_box(&asked), |_| true)).expect("it lets in");
        });
        measures.push(Measure::shown("one that was seen", Unit::Microseconds, known));
        measures
    }
}

/// What one time takes, in microseconds.
fn each(mut once: impl FnMut()) -> f64 {
    let begun = Instant::now();
    (0..TIMES).for_each(|_| once());
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}
