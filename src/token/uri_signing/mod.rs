//! URI signing (RFC 9246): a token in a URI or a cookie, which says for how long, for whom and for
//! which URIs it lets its bearer in.
//!
//! [`Verified::of`] does what is dear and the same each time: signature, claims, expressions. What
//! it gives may be kept by the token's digest, for as long as keys and settings are those it was
//! verified by, and for nobody who has others. [`Verified::admits`] compares it with one request.

mod claims;
mod container;
mod denied;
mod package;
mod renewal;

use std::net::IpAddr;
use std::str::FromStr;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use self::claims::Claims;
pub use self::container::Container;
pub use self::denied::Denied;
pub use self::package::{Found, Unclear, find, find_padded, normalised, uri_of};
pub use self::renewal::{Renewal, Renewed, Transport};
pub use super::expression::Matching;
use super::json;
use super::jwk::encoded;
use super::key::Key;
use super::key_file::Keys;
use crate::limits::{ACCESS_TOKEN_BYTES_MAX, TOKEN_KEYS_TRIED_MAX};
use crate::network::Network;

/// What a site demands of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may issue them; all whose keys there are, if this is empty.
    pub issuers: Vec<String>,
    /// Who we are, as `aud` has to say where it is there.
    pub audience: Option<String>,
    /// The header of every token, where they are sent without.
    pub header: Option<String>,
    /// How `regex:` is compared.
    pub matching: Matching,
}

impl Settings {
    /// Whether this issuer may issue them.
    pub fn trusts(&self, issuer: &str) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|one| one == issuer)
    }
}

/// One request, as tokens are compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The URI without the token, normalised ([`normalised`]).
    pub uri: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Who asks.
    pub client: IpAddr,
    /// Unix time, in seconds.
    pub now: f64,
}

/// A use of a token that may be used once for each URI.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use<'a> {
    /// Who issued it.
    pub issuer: &'a str,
    /// Its id, `jti`.
    pub id: &'a str,
    /// What it was used for.
    pub uri: &'a str,
    /// From when on it is of no use anyway, in Unix seconds.
    pub expires: Option<f64>,
    /// What takes its place is used up too, and ends later.
    pub is_renewed: bool,
}

/// A token whose signature is good.
#[derive(Debug)]
pub struct Verified {
    issuer: String,
    bearer: u128,
    claims: Claims,
    expires: Option<f64>,
    begins: Option<f64>,
    /// What is compared once it is known to be in time.
    terms: Result<Terms, Denied>,
}

#[derive(Debug)]
struct Terms {
    /// Addresses it is for; `None` for all.
    network: Option<Network>,
    container: Result<Container, Denied>,
    id: Result<Option<String>, Denied>,
    renewal: Result<Option<Renewal>, Denied>,
}

impl Verified {
    /// Verifies a token by the keys there are.
    ///
    /// # Errors
    /// It lets nobody in, whatever is asked for and whenever.
    pub fn of(token: &str, keys: &Keys, settings: &Settings) -> Result<Verified, Denied> {
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(Denied::Malformed);
        }
        let token = match &settings.header {
            // One that was renewed here has its own.
            Some(header) if token.matches('.').count() == 1 => format!("{header}.{token}"),
            _ => token.to_owned(),
        };
        let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Denied::Malformed)?;
        let Value::Object(header) = decoded(header)? else { return Err(Denied::Malformed) };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Denied::Malformed)?;
        let claims = decoded(claims);
        // Not believed yet.
        let says = claims.as_ref().ok().and_then(|claims| claims.get("iss")?.as_str());
        let by = signers(&header, keys, says, signed.as_bytes(), &signature).unwrap_or_default();
        let first = *by.first().ok_or(Denied::Signature)?;
        let Value::Object(claims) = claims? else { return Err(Denied::Malformed) };
        let claims = Claims(claims);
        // One key may be of two issuers.
        let named =
            by.iter().find(|key| claims.0.get("iss").is_some_and(|iss| iss == key.issuer()));
        let trusted = || by.iter().find(|key| settings.trusts(key.issuer()));
        let key = named.or_else(trusted).copied().unwrap_or(first);
        if claims.whole("cdniv", Denied::Version)?.is_some_and(|version| version != 1) {
            return Err(Denied::Version);
        }
        claims.check_critical()?;
        let terms = terms(&claims, key, keys, settings);
        Ok(Verified {
            issuer: key.issuer().to_owned(),
            bearer: bearer(&claims, key.issuer(), terms.as_ref().ok()),
            expires: claims.seconds("exp", Denied::Expired)?,
            begins: claims.seconds("nbf", Denied::Early)?,
            terms,
            claims,
        })
    }

    /// What it takes in memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        let container = self.terms.as_ref().ok().and_then(|terms| terms.container.as_ref().ok());
        VERIFIED_BYTES + self.claims.bytes() + container.map_or(0, Container::bytes)
    }

    /// Whose it is, as far as it says: what takes its place is of the same, and so is what says the
    /// same by another signature.
    pub fn bearer(&self) -> u128 {
        self.bearer
    }

    /// Who issued it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// All it says.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims.0
    }

    /// Whether it lets in who asks this; and how it is renewed then, if it wants to be.
    /// `is_first` is asked of a token that may be used once for each URI, and remembers it.
    ///
    /// # Errors
    /// It does not.
    pub fn admits(
        &self,
        asked: &Asked<'_>,
        is_first: impl FnOnce(Use<'_>) -> bool,
    ) -> Result<Option<&Renewal>, Denied> {
        // No leeway: sections 2.1.4 and 2.1.5.
        if !asked.now.is_finite() || self.expires.is_some_and(|expires| expires <= asked.now) {
            return Err(Denied::Expired);
        }
        if self.begins.is_some_and(|begins| begins > asked.now) {
            return Err(Denied::Early);
        }
        let terms = self.terms.as_ref().map_err(|denied| *denied)?;
        if terms.network.is_some_and(|network| !network.holds(asked.client.to_canonical())) {
            return Err(Denied::Address);
        }
        if !terms.container.as_ref().map_err(|denied| *denied)?.holds(asked.uri) {
            return Err(Denied::Container);
        }
        if let Some(id) = terms.id.as_ref().map_err(|denied| *denied)? {
            let is_renewed = matches!(terms.renewal, Ok(Some(_)));
            let (issuer, expires) = (self.issuer.as_str(), self.expires);
            if !is_first(Use { issuer, id, uri: asked.uri, expires, is_renewed }) {
                return Err(Denied::Used);
            }
        }
        terms.renewal.as_ref().map(Option::as_ref).map_err(|denied| *denied)
    }

    /// The token that takes this one's place, signed by the key its issuer renews with; `None`
    /// where there is no such key, or the path is shorter than the cookie's is to be.
    pub fn renewed(&self, renewal: &Renewal, asked: &Asked<'_>, keys: &Keys) -> Option<Renewed> {
        renewal.renewed(&self.claims.0, keys.renewal(&self.issuer)?, asked)
    }
}

/// `cdniuc` of one URI, normalised.
pub fn hash_of(uri: &str) -> String {
    format!("hash:sha-256;{}", encoded(digest::digest(&SHA256, uri.as_bytes()).as_ref()))
}

/// Header and claims of a token as they are written, whoever signed it.
///
/// # Errors
/// [`Denied::Malformed`].
pub fn unverified(token: &str) -> Result<[Map<String, Value>; 2], Denied> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else { return Err(Denied::Malformed) };
    match (decoded(header)?, decoded(claims)?) {
        (Value::Object(header), Value::Object(claims)) => Ok([header, claims]),
        _ => Err(Denied::Malformed),
    }
}

/// A token with these claims.
pub fn mint(claims: &Map<String, Value>, key: &Key) -> Option<String> {
    let header = serde_json::json!({ "alg": key.algorithm().name(), "kid": key.id() });
    let claims = serde_json::to_string(claims).ok()?;
    let signed = [encoded(header.to_string().as_bytes()), encoded(claims.as_bytes())].join(".");
    let signature = key.sign(signed.as_bytes())?;
    Some([signed, encoded(&signature)].join("."))
}

/// Without claims and container.
const VERIFIED_BYTES: usize = 512;

fn decoded(part: &str) -> Result<Value, Denied> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed)?;
    json::parsed(&bytes).map_err(|_| Denied::Malformed)
}

/// Who bears a token, by all that it says but for what a renewal changes.
fn bearer(claims: &Claims, issuer: &str, terms: Option<&Terms>) -> u128 {
    let mut lasting = claims.0.clone();
    if terms.is_some_and(|terms| matches!(terms.renewal, Ok(Some(_)))) {
        ["exp", "iat", "iss"].iter().for_each(|name| drop(lasting.remove(*name)));
    }
    super::bearer(issuer, Value::Object(lasting).to_string().as_bytes())
}

/// The keys that it is signed with; those of who says that he has issued it are tried first. A
/// header that demands extensions names none (RFC 7515 section 4.1.11).
fn signers<'a>(
    header: &Map<String, Value>,
    keys: &'a Keys,
    issuer: Option<&str>,
    signed: &[u8],
    signature: &[u8],
) -> Option<Vec<&'a Key>> {
    let algorithm = header.get("alg")?.as_str()?;
    let id = match header.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?),
    };
    if header.contains_key("crit") {
        return None;
    }
    let could = keys.first_of(issuer, id).filter(|key| key.algorithm().name() == algorithm);
    // Whoever asks makes us try them.
    let tried = could.take(TOKEN_KEYS_TRIED_MAX);
    Some(tried.filter(|key| key.verifies(signed, signature)).collect())
}

/// What else it says, in the order in which it is refused for.
fn terms(claims: &Claims, key: &Key, keys: &Keys, settings: &Settings) -> Result<Terms, Denied> {
    let issuer = claims.text("iss", Denied::Issuer)?;
    if !settings.trusts(key.issuer()) || issuer.is_some_and(|issuer| issuer != key.issuer()) {
        return Err(Denied::Issuer);
    }
    let us = settings.audience.as_deref().or(keys.audience(key.issuer()));
    if claims.0.contains_key("aud") && !us.is_some_and(|us| claims.is_for(us)) {
        return Err(Denied::Audience);
    }
    let open = |name, denied: Denied| match claims.text(name, denied)? {
        None => Ok(None),
        Some(sealed) => keys.open(sealed).ok_or(denied).map(Some),
    };
    open("sub", Denied::Subject)?;
    let network = open("cdniip", Denied::Address)?
        .map(|opened| network(&String::from_utf8_lossy(&opened)).ok_or(Denied::Address));
    let container = claims.text("cdniuc", Denied::Container).and_then(|container| {
        let container = container.ok_or(Denied::Container)?;
        Container::parse(container, settings.matching).map_err(|_| Denied::Container)
    });
    Ok(Terms {
        network: network.transpose()?,
        container,
        id: claims.text("jti", Denied::Used).map(|id| id.map(str::to_owned)),
        renewal: Renewal::of(claims),
    })
}

/// An address, or those that begin like it: `192.0.2.1/24`, `[2001:db8::1/32]` as in appendix A.
fn network(text: &str) -> Option<Network> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Network::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use serde_json::json;

    use super::super::jwk::{Jwk, SealingKey};
    use super::super::key::Algorithm;
    use super::super::key_file::KeyFile;
    use super::*;

    /// The keys of RFC 9246 appendix A.
    const RFC_KEYS: &str = r#"{ "uCDN Inc": {
        "renewal_kid": "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0",
        "id": "dCDN LLC", "keys": [
        { "kty": "EC", "kid": "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0", "alg": "ES256",
          "crv": "P-256", "x": "be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8",
          "y": "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA",
          "d": "yaowezrCLTU6yIwUL5RQw67cHgvZeMTLVZXjUGb1A1M" },
        { "kty": "oct", "kid": "f-WbjxBC3dPuI3d24kP2hfvos7Qz688UTi6aB0hN998", "use": "enc",
          "alg": "A128GCM", "k": "4uFxxV7fhNmrtiah2d1fFg" } ] } }"#;
    const EXPIRES: f64 = 1_646_867_369.0;

    fn keys(text: &str) -> Keys {
        KeyFile::parse(text.as_bytes()).unwrap().keys(Matching::Full).unwrap()
    }

    fn asked<'a>(uri: &'a str, now: f64) -> Asked<'a> {
        let path = uri.splitn(4, '/').nth(3).map_or("/", |path| &uri[uri.len() - path.len() - 1..]);
        let path = path.split('?').next().unwrap();
        Asked { uri, path, client: "192.0.2.7".parse().unwrap(), now }
    }

    /// A token with these claims, by the key of the RFC.
    fn token(claims: Value) -> String {
        let Value::Object(claims) = claims else { panic!("{claims}") };
        mint(&claims, keys(RFC_KEYS).renewal("uCDN Inc").unwrap()).unwrap()
    }

    /// The signed JWTs of RFC 9246 appendix A: simple, complex, and one with what it is renewed by.
    const EXAMPLES: [&str; 4] = [
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
         dZRkRPV2tsZHVlYUltZjAifQ.eyJleHAiOjE2NDY4NjczNjksImlzcyI6InVDRE4gS\
         W5jIiwiY2RuaXVjIjoiaGFzaDpzaGEtMjU2OzJ0ZGVyZldQYTg2S3U3WW56VzUxWVV\
         wN2RHVWpCU18zU1czRUx4NGhtV1kifQ.TaNlJM3D96i_9J9XvlICO6FUIDFTqt3E2Y\
         JkEUOLfcH0b89wYRKTbJ9Yj6h_GRgSoZoQO0cps3yUPcWGK3smCw",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
         dZRkRPV2tsZHVlYUltZjAifQ.eyJhdWQiOiJkQ0ROIExMQyIsInN1YiI6ImV5Smxib\
         U1pT2lKQk1USTRSME5OSWl3aVlXeG5Jam9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA\
         0UWtNelpGQjFTVE5rTWpSclVESm9ablp2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T\
         0NKOS4uQ0xBdTgweGNsYzhCcC1VaS42UDFBM0Y2aXAyRHYuQ29oZHRMTHBnQm5UdlJ\
         KUUNGdXotZyIsImNkbmlpcCI6ImV5SmxibU1pT2lKQk1USTRSME5OSWl3aVlXeG5Ja\
         m9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA0UWtNelpGQjFTVE5rTWpSclVESm9ablp\
         2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T0NKOS4uYVVEREZFUUJJYzNuV2pPYi5iR\
         1hXVEhQa250bVBDS24wcFBQTkVRLml5VHR0bkZ5Yk8yWUJMcXdsX1lTakEiLCJjZG5\
         pdiI6MSwiZXhwIjoxNjQ2ODY3MzY5LCJpYXQiOjE2NDY2OTQ1NjksImlzcyI6InVDR\
         E4gSW5jIiwianRpIjoiNURBYWZMaFpBZmhzYmUiLCJuYmYiOjE2NDY3ODA5NjksImN\
         kbml1YyI6InJlZ2V4Omh0dHA6Ly9jZG5pXFwuZXhhbXBsZS9mb28vYmFyL1swLTlde\
         zN9XFwucG5nIn0.IjmVX0uD5MYqArc-M08uEsEeoDQn8kuYXZ9HGHDmDDxsHikT0c8\
         jcX8xYD0z3LzQclMG65i1kT2sRbZ7isUw8w",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
         dZRkRPV2tsZHVlYUltZjAifQ.eyJjZG5pZXRzIjozMCwiY2RuaXN0dCI6MSwiY2Rua\
         XN0ZCI6MiwiZXhwIjoxNjQ2ODY3MzY5LCJjZG5pdWMiOiJyZWdleDpodHRwOi8vY2R\
         uaVxcLmV4YW1wbGUvZm9vL2Jhci9bMC05XXszfVxcLnRzIn0.tlPvoKw3BCClw4Lx9\
         PQu7MK6b2IN55ZoCPSaxovGK0zS53Wpb1MbJBow7G8LiGR39h6-2Iq7PWUSr3MdTIz\
         HYw",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
         dZRkRPV2tsZHVlYUltZjAifQ.eyJjZG5pZXRzIjozMCwiY2RuaXN0dCI6MSwiY2Rua\
         XN0ZCI6MiwiZXhwIjoxNjQ2ODY3Mzk5LCJjZG5pdWMiOiJyZWdleDpodHRwOi8vY2R\
         uaVxcLmV4YW1wbGUvZm9vL2Jhci9bMC05XXszfVxcLnRzIn0.ivY5d_fKGd-OHTpUs\
         8uJUrnHvt-rduzu5H4zM7167pUUAghub53FqDQ5G16jRYX2sY73mA_uLpYDdb-CPts\
         8FA",
    ];

    #[test]
    fn the_examples_of_the_rfc_let_in_whom_they_are_for() {
        let keys = keys(RFC_KEYS);
        let [inside, outside] = ["2001:db8::77", "2001:db9::77"].map(|ip| ip.parse().unwrap());
        let now = EXPIRES - 1.0;
        for (number, uri, client, answered) in [
            (0, URI, outside, Ok(())),
            (0, "http://cdni.example/foo/baz", outside, Err(Denied::Container)),
            (1, "http://cdni.example/foo/bar/123.png", inside, Ok(())),
            (1, "http://cdni.example/foo/bar/123.png", outside, Err(Denied::Address)),
            (1, "http://cdni.example/foo/bar/1234.png", inside, Err(Denied::Container)),
            (2, "http://cdni.example/foo/bar/123.ts", outside, Ok(())),
            (3, "http://cdni.example/foo/bar/999.ts", outside, Ok(())),
        ] {
            let verified = Verified::of(EXAMPLES[number], &keys, &Settings::default()).unwrap();
            let asked = Asked { client, ..asked(uri, now) };
            let admitted = verified.admits(&asked, |_| true).map(drop);
            assert_eq!(admitted, answered, "{number} {uri}");
        }
    }

    const URI: &str = "http://cdni.example/foo/bar";

    fn judged(token: &str, settings: &Settings, now: f64) -> u16 {
        let keys = keys(RFC_KEYS);
        let verified = Verified::of(token, &keys, settings);
        let admitted = verified.and_then(|one| one.admits(&asked(URI, now), |_| true).map(drop));
        admitted.map_or_else(Denied::code, |()| 200)
    }

    #[test]
    fn every_deny_code_is_given_for_its_reason_and_the_first_reason_counts() {
        let sealing: Jwk = serde_json::from_value(json!({ "kty": "oct", "kid": "s",
            "k": "4uFxxV7fhNmrtiah2d1fFg" }))
        .unwrap();
        let sealing = SealingKey::of(&Jwk {
            kid: Some("f-WbjxBC3dPuI3d24kP2hfvos7Qz688UTi6aB0hN998".to_owned()),
            ..sealing
        })
        .unwrap();
        let near = sealing.seal(b"192.0.2.0/24").unwrap();
        let far = sealing.seal(b"198.51.100.0/24").unwrap();
        let any = "regex:.*";
        for (claims, code) in [
            (json!({ "cdniuc": any }), 200),
            (
                json!({ "cdniuc": any, "iss": "uCDN Inc", "aud": ["x", "dCDN LLC"], "iat": 1e12,
                "exp": EXPIRES, "nbf": EXPIRES - 1.0, "jti": "1", "cdniv": 1, "cdniip": near,
                "sub": near, "cdniets": 30, "cdnistt": 1, "cdnistd": 2 }),
                200,
            ),
            (json!({ "cdniuc": any, "iss": "other" }), 401),
            (json!({ "cdniuc": any, "iss": 7 }), 401),
            (json!({ "cdniuc": any, "sub": "x" }), 402),
            (json!({ "cdniuc": any, "aud": "other" }), 403),
            (json!({ "cdniuc": any, "aud": [] }), 403),
            (json!({ "cdniuc": any, "aud": { "dCDN LLC": 1 } }), 403),
            (json!({ "cdniuc": any, "exp": EXPIRES - 1.0 }), 404),
            (json!({ "cdniuc": any, "exp": "1646867370" }), 404),
            (json!({ "cdniuc": any, "exp": -1 }), 404),
            (json!({ "cdniuc": any, "nbf": EXPIRES }), 405),
            (json!({ "cdniuc": any, "nbf": true }), 405),
            (json!({ "cdniuc": any, "cdniets": 30 }), 406),
            (json!({ "cdniuc": any, "cdnistt": 1 }), 406),
            (json!({ "cdniuc": any, "cdnistt": 3, "cdniets": 30 }), 406),
            (json!({ "cdniuc": any, "cdnistt": 1, "cdniets": -30 }), 406),
            (json!({ "cdniuc": any, "jti": 7 }), 407),
            (json!({ "cdniuc": any, "cdniv": 2 }), 408),
            (json!({ "cdniuc": any, "cdniv": "1" }), 408),
            (json!({ "cdniuc": any, "cdnicrit": "new" }), 409),
            (json!({ "cdniuc": any, "cdnicrit": "" }), 409),
            (json!({ "cdniuc": any, "cdniip": far }), 410),
            (json!({ "cdniuc": any, "cdniip": "192.0.2.0/24" }), 410),
            (json!({ "cdniuc": "regex:http://other.test/.*" }), 411),
            (json!({ "cdniuc": "glob:*" }), 411),
            (json!({}), 411),
            // Who is told of the first of several reasons is told the same by every cache.
            (json!({ "cdniv": 2, "exp": 1, "iss": "other" }), 408),
            (json!({ "exp": 1, "iss": "other", "aud": "other" }), 404),
            (json!({ "iss": "other", "aud": "other" }), 401),
            (json!({ "cdniip": far, "cdnistt": 1 }), 410),
            (json!({ "cdniuc": any, "cdniip": far, "jti": 7 }), 410),
            (json!({ "jti": 7, "cdnistt": 1 }), 411),
        ] {
            let now = EXPIRES - 1.0;
            assert_eq!(judged(&token(claims.clone()), &Settings::default(), now), code, "{claims}");
        }
    }

    #[test]
    fn time_is_compared_without_leeway() {
        let token = token(json!({ "cdniuc": "regex:.*", "exp": EXPIRES, "nbf": 1000 }));
        let at = |now| judged(&token, &Settings::default(), now);
        let seen = [EXPIRES - 0.001, EXPIRES, EXPIRES + 1.0, 1000.0, 999.999].map(at);
        assert_eq!(seen, [200, 404, 404, 200, 405]);
    }

    #[test]
    fn only_issuers_that_are_trusted_issue_and_only_with_their_own_keys() {
        let two = json!({ "a": { "keys": [Jwk::generate(Algorithm::Es256, "k").unwrap()] },
            "b": { "renewal_kid": "k", "keys": [Jwk::generate(Algorithm::EdDsa, "k").unwrap()] } });
        let keys = keys(&two.to_string());
        let by_b = keys.renewal("b").unwrap();
        let minted = |issuer: &str| {
            let claims = json!({ "cdniuc": "regex:.*", "iss": issuer });
            mint(claims.as_object().unwrap(), by_b).unwrap()
        };
        let judged = |issuer: &str, trusted: &[&str]| {
            let issuers = trusted.iter().map(|one| (*one).to_owned()).collect();
            let settings = Settings { issuers, ..Settings::default() };
            let verified = Verified::of(&minted(issuer), &keys, &settings).unwrap();
            verified.admits(&asked(URI, 0.0), |_| true).map(drop)
        };
        assert_eq!(judged("b", &[]), Ok(()));
        assert_eq!(judged("b", &["b"]), Ok(()));
        assert_eq!(judged("b", &["a"]), Err(Denied::Issuer));
        assert_eq!(judged("a", &["a", "b"]), Err(Denied::Issuer), "it is not its key");

        let jwk = Jwk::generate(Algorithm::Es256, "k").unwrap();
        let both = json!({ "a": { "keys": [jwk] }, "b": { "renewal_kid": "k", "keys": [jwk] } });
        let keys = self::keys(&both.to_string());
        let claims = json!({ "cdniuc": "regex:.*", "iss": "b" });
        let token = mint(claims.as_object().unwrap(), keys.renewal("b").unwrap()).unwrap();
        let verified = Verified::of(&token, &keys, &Settings::default()).unwrap();
        assert_eq!(verified.issuer(), "b");
        assert!(verified.admits(&asked(URI, 0.0), |_| true).is_ok());
    }

    #[test]
    fn a_token_that_may_be_used_once_is_used_once_for_each_uri() {
        let keys = keys(RFC_KEYS);
        let token = token(json!({ "cdniuc": "regex:.*", "jti": "7", "exp": EXPIRES }));
        let verified = Verified::of(&token, &keys, &Settings::default()).unwrap();
        let seen = RefCell::new(HashSet::new());
        let uses = |uri| {
            verified.admits(&asked(uri, 0.0), |used| {
                assert_eq!((used.issuer, used.id, used.expires), ("uCDN Inc", "7", Some(EXPIRES)));
                seen.borrow_mut().insert(used.uri.to_owned())
            })
        };
        assert_eq!(uses("http://a.test/1"), Ok(None));
        assert_eq!(uses("http://a.test/2"), Ok(None));
        assert_eq!(uses("http://a.test/1"), Err(Denied::Used));
    }

    #[test]
    fn who_signed_it_is_looked_for_among_those_who_say_so_and_are_trusted() {
        let issuer = |number: usize| {
            let k = encoded(&[number as u8; 32]);
            let key = json!({ "kty": "oct", "kid": "1", "alg": "HS256", "k": k });
            (number.to_string(), json!({ "renewal_kid": "1", "keys": [key] }))
        };
        let of_nine = keys(&Value::Object((0..9).map(issuer).collect()).to_string());
        let claims = |issuer: &str| json!({ "cdniuc": "regex:.*", "iss": issuer });
        for number in (0..9).map(|number| number.to_string()) {
            let claims = claims(&number);
            let token = mint(claims.as_object().unwrap(), of_nine.renewal(&number).unwrap());
            let verified = Verified::of(&token.unwrap(), &of_nine, &Settings::default()).unwrap();
            assert!(verified.admits(&asked("http://a.test/", 0.0), |_| true).is_ok(), "{number}");
        }
        // One key of two.
        let of_two = keys(&json!({ "a": issuer(0).1, "b": issuer(0).1 }).to_string());
        let unsaid = json!({ "cdniuc": "regex:.*" });
        let unsaid = mint(unsaid.as_object().unwrap(), of_two.renewal("b").unwrap()).unwrap();
        let settings = Settings { issuers: vec!["b".to_owned()], ..Settings::default() };
        assert_eq!(Verified::of(&unsaid, &of_two, &settings).unwrap().issuer(), "b");
    }

    #[test]
    fn who_bears_a_token_bears_it_by_any_signature_and_what_takes_its_place() {
        let keys = keys(RFC_KEYS);
        let of = |token: &str| Verified::of(token, &keys, &Settings::default()).unwrap();
        let any = json!({ "cdniuc": "regex:.*", "exp": EXPIRES });
        let (one, other) = (token(any.clone()), token(any));
        assert_ne!(one, other, "each signature is another one");
        assert_eq!(of(&one).bearer(), of(&other).bearer());
        let later = token(json!({ "cdniuc": "regex:.*", "exp": EXPIRES + 1.0 }));
        assert_ne!(of(&one).bearer(), of(&later).bearer());
        let renewing = json!({ "cdniuc": "regex:.*", "exp": EXPIRES, "cdniets": 30, "cdnistt": 1 });
        let renewing = of(&token(renewing));
        let asked = asked("http://a.test/", EXPIRES - 9.0);
        let renewal = renewing.admits(&asked, |_| true).unwrap().unwrap();
        let renewed = renewing.renewed(renewal, &asked, &keys).unwrap();
        assert_eq!(of(&renewed.token).bearer(), renewing.bearer());
    }

    /// RFC 9246 appendix A.3: a token with 30 s to go on, for a cookie of two segments.
    #[test]
    fn a_token_is_renewed_from_now_on_and_says_what_it_said() {
        let keys = keys(RFC_KEYS);
        let claims = json!({ "cdniets": 30, "cdnistt": 1, "cdnistd": 2, "exp": EXPIRES,
            "iss": "uCDN Inc", "iat": 1, "x": [1],
            "cdniuc": "regex:http://cdni\\.example/foo/bar/[0-9]{3}\\.ts" });
        let verified = Verified::of(&token(claims.clone()), &keys, &Settings::default()).unwrap();
        let asked_for = asked("http://cdni.example/foo/bar/123.ts", EXPIRES - 10.0);
        let renewal = verified.admits(&asked_for, |_| true).unwrap().unwrap();
        let renewed = verified.renewed(renewal, &asked_for, &keys).unwrap();
        assert_eq!((renewal.transport, renewed.path.as_str()), (Transport::Cookie, "/foo/bar"));
        let again = Verified::of(&renewed.token, &keys, &Settings::default()).unwrap();
        let mut expected = claims;
        expected["exp"] = (EXPIRES as u64 + 20).into();
        expected["iat"] = (EXPIRES as u64 - 10).into();
        assert_eq!(Value::Object(again.claims().clone()), expected);

        // The cookie's path would be longer than what was asked for.
        let short =
            token(json!({ "cdniets": 30, "cdnistt": 1, "cdnistd": 4, "cdniuc": "regex:.*" }));
        let short = Verified::of(&short, &keys, &Settings::default()).unwrap();
        let renewal = short.admits(&asked_for, |_| true).unwrap().unwrap();
        assert_eq!(short.renewed(renewal, &asked_for, &keys), None);
        // It would be for more paths, or end in the middle.
        for uri in ["http://a.test//b/c/d/e", "http://a.test/b;Domain=x/c/d/e"] {
            let asked = asked(uri, EXPIRES);
            let renewal = short.admits(&asked, |_| true).unwrap().unwrap();
            assert_eq!(short.renewed(renewal, &asked, &keys), None, "{uri}");
        }
        let nowhen = verified.admits(&Asked { now: f64::NAN, ..asked_for }, |_| true);
        assert_eq!(nowhen, Err(Denied::Expired));
    }

    #[test]
    fn hostile_tokens_are_refused_with_their_code() {
        let good = token(json!({ "cdniuc": "regex:.*" }));
        let parts: Vec<&str> = good.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{good}") };
        let part = |value: Value| encoded(value.to_string().as_bytes());
        let with =
            |header: &str, claims: &str, signature: &str| [header, claims, signature].join(".");
        let kid = "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0";
        let decode = |part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        let x = decode("be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8");
        let y = decode("rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA");
        let public = [vec![4], x, y].concat();
        let confused = {
            let header = part(json!({ "alg": "HS256", "kid": kid }));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
            let signed = format!("{header}.{claims}");
            let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
            format!("{signed}.{}", encoded(tag.as_ref()))
        };
        let flipped = {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[40] ^= 1;
            encoded(&bytes)
        };
        let slow = part(json!({ "cdniuc": format!("regex:{}b", "(a+)+".repeat(200)) }));
        let long = "a".repeat(ACCESS_TOKEN_BYTES_MAX + 1);
        for (token, code) in [
            (good.clone(), 200),
            (with(&part(json!({ "alg": "none" })), claims, ""), 400),
            (with(&part(json!({ "alg": "none", "kid": kid })), claims, signature), 400),
            (with(&part(json!({ "alg": "ES384", "kid": kid })), claims, signature), 400),
            (with(&part(json!({ "alg": "ES256", "kid": "other" })), claims, signature), 400),
            (with(&part(json!({ "alg": "ES256", "kid": 7 })), claims, signature), 400),
            (with(&part(json!({ "kid": kid })), claims, signature), 400),
            (with(&part(json!({ "alg": ["ES256"], "kid": kid })), claims, signature), 400),
            (confused, 400),
            (with(header, claims, &flipped), 400),
            (with(header, claims, ""), 400),
            (with(header, &part(json!({ "cdniuc": "regex:.*", "exp": 9e18 })), signature), 400),
            (with(header, &slow, signature), 400),
            (with(header, claims, "!"), 500),
            (with("!", claims, signature), 500),
            (with(&part(json!([])), claims, signature), 500),
            (with(&encoded(b"{\"alg\":\"ES256\",\"alg\":\"none\"}"), claims, signature), 500),
            (with(&encoded("[".repeat(5_000).as_bytes()), claims, signature), 500),
            (String::new(), 500),
            (".".to_owned(), 500),
            ("..".to_owned(), 500),
            ("a.b".to_owned(), 500),
            (format!("{good}.{good}"), 400),
            (long, 500),
        ] {
            assert_eq!(judged(&token, &Settings::default(), 0.0), code, "{token}");
        }
    }

    #[test]
    fn what_is_signed_twice_over_is_read_once_and_a_header_may_be_known_beforehand() {
        // Good signatures of claims that are none, or that say a thing twice.
        let keys = keys(RFC_KEYS);
        let key = keys.renewal("uCDN Inc").unwrap();
        let header = encoded(json!({ "alg": "ES256", "kid": key.id() }).to_string().as_bytes());
        let signed = |claims: &str| {
            let signed = format!("{header}.{}", encoded(claims.as_bytes()));
            format!("{signed}.{}", encoded(&key.sign(signed.as_bytes()).unwrap()))
        };
        for claims in ["[]", "7", "", "{", r#"{"cdniuc":"regex:.*","cdniuc":"regex:a"}"#] {
            let verified = Verified::of(&signed(claims), &keys, &Settings::default());
            assert_eq!(verified.err(), Some(Denied::Malformed), "{claims}");
        }
        let token = signed(r#"{"cdniuc":"regex:.*"}"#);
        let short = token.split_once('.').unwrap().1;
        let settings = Settings { header: Some(header), ..Settings::default() };
        assert_eq!(judged(short, &settings, 0.0), 200);
        assert_eq!(judged(&token, &settings, 0.0), 200, "one that was renewed here");
        assert_eq!(judged(short, &Settings::default(), 0.0), 500);
    }
}
