//! The Common Access Token (CTA-5007): claims in CBOR (RFC 8392), signed by COSE (RFC 9052), which
//! say for how long, from where and for which requests they let their bearer in.
//!
//! [`Verified::of`] does what is dear and the same each time: signature, claims, expressions. What
//! it gives may be kept by the token's digest, for as long as keys and settings are those it was
//! verified by, and for nobody who has others. [`Verified::admits`] compares it with one request. A
//! claim that cannot be checked here lets nobody in.

mod answer;
mod cbor;
mod claims;
mod cose;
mod denied;
mod matching;
mod named;
mod names;
mod renewal;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

pub use self::answer::Answer;
use self::answer::answers;
use self::cbor::{Map, int, map, read, whole, written};
pub use self::claims::Replay;
use self::claims::{Terms, claim, is_for, seconds, unchecked};
use self::cose::Envelope;
pub use self::denied::Denied;
use self::matching::component;
use self::names::{COMPONENTS, EXPIRES, ID, ISSUED};
pub use self::renewal::{Renewal, Transport};
use super::key::{Algorithm, Key};
use super::key_file::Keys;

/// What a site demands of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may issue them; all whose keys there are, if this is empty.
    pub issuers: Vec<String>,
    /// Who we are, as `aud` has to say where it is there.
    pub audience: Option<String>,
}

impl Settings {
    /// Whether this issuer may issue them.
    fn trusts(&self, issuer: &str) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|one| one == issuer)
    }
}

/// One request, as tokens are compared with it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The URI without the token, normalised ([`super::uri_signing::normalised`]).
    pub uri: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What is spoken, as TLS has agreed on it; `None` without TLS.
    pub alpn: Option<&'a [u8]>,
    /// The public key (SubjectPublicKeyInfo, in DER) of the certificate the client has shown.
    pub tls_public_key: Option<&'a [u8]>,
    /// Who asks.
    pub client: IpAddr,
    /// The autonomous system of an address, where that can be told.
    pub asn: Option<&'a dyn Fn(IpAddr) -> Option<u32>>,
    /// The country of an address (ISO 3166-1, two letters), where that can be told.
    pub country: Option<&'a dyn Fn(IpAddr) -> Option<[u8; 2]>>,
    /// Unix time, in seconds.
    pub now: f64,
}

/// A use of a token that is not to be used again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use<'a> {
    /// Who issued it.
    pub issuer: &'a str,
    /// Its id, `cti`, in hexadecimal.
    pub id: &'a str,
    /// What is to become of it when it is.
    pub replay: Replay,
    /// From when on it is of no use anyway, in Unix seconds.
    pub expires: Option<f64>,
}

/// That a token does not let in, and what is answered then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused<'a> {
    /// Why.
    pub denied: Denied,
    /// What the token says that is answered, in the place of the usual answer.
    pub answer: Option<&'a Answer>,
}

/// A token whose signature is good.
#[derive(Debug)]
pub struct Verified {
    issuer: String,
    bearer: u128,
    claims: Map,
    expires: Option<f64>,
    begins: Option<f64>,
    /// `cti`, in hexadecimal.
    id: Option<String>,
    /// What is answered to who does not meet a claim, by its number.
    answers: Vec<(i64, Answer)>,
    /// What is compared once it is known to be in time.
    terms: Result<Terms, Denied>,
}

impl Verified {
    /// Verifies a token by the keys there are.
    ///
    /// # Errors
    /// It lets nobody in, whatever is asked for and whenever.
    pub fn of(token: &str, keys: &Keys, settings: &Settings) -> Result<Verified, Denied> {
        let envelope = Envelope::read(token).ok_or(Denied::Malformed)?;
        let claims = read(&envelope.payload).as_ref().and_then(map).cloned();
        // Not believed yet.
        let says = claims.as_ref().and_then(|claims| claim(claims, "iss")?.as_text());
        let by = envelope.signers(keys, says)?;
        let claims = claims.ok_or(Denied::Malformed)?;
        if claim(&claims, "catv").is_some_and(|version| whole(version) != Some(1)) {
            return Err(Denied::Version);
        }
        // One key may be of two issuers.
        let issuer = claim(&claims, "iss");
        let named = issuer.map(|iss| by.iter().find(|key| iss.as_text() == Some(key.issuer())));
        let trusted = || by.iter().find(|key| settings.trusts(key.issuer()));
        let key = named.flatten().or_else(trusted).unwrap_or(&by[0]);
        if !settings.trusts(key.issuer()) || matches!(named, Some(None)) {
            // What it says that is answered is not believed either.
            return Err(Denied::Issuer);
        }
        let id = claim(&claims, "cti").map(|id| id.as_bytes().map(|id| named::hex(id)));
        let is_text = claim(&claims, "sub").is_none_or(|sub| sub.is_text());
        if id == Some(None) || !is_text || seconds(&claims, "iat", Denied::Malformed).is_err() {
            return Err(Denied::Malformed);
        }
        let terms = terms(&claims, key, keys, settings);
        Ok(Verified {
            issuer: key.issuer().to_owned(),
            bearer: bearer(&claims, key.issuer(), terms.as_ref().ok()),
            expires: seconds(&claims, "exp", Denied::Expired)?,
            begins: seconds(&claims, "nbf", Denied::Early)?,
            id: id.flatten(),
            answers: claim(&claims, "catif").map_or(Ok(Vec::new()), answers)?,
            terms,
            claims,
        })
    }

    /// What it takes in memory beside its text, in bytes, about: its claims are as long as that,
    /// each in a place of its own.
    pub fn bytes(&self, token: &str) -> usize {
        VERIFIED_BYTES
            + CLAIMS_BYTES_PER_BYTE * token.len()
            + self.terms.as_ref().map_or(0, Terms::bytes)
    }

    /// Whose it is, as far as it says: what takes its place is of the same, and so is what says the
    /// same in another wrapping.
    pub fn bearer(&self) -> u128 {
        self.bearer
    }

    /// Who issued it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// All it says, by the names of CTA-5007.
    pub fn claims(&self) -> serde_json::Map<String, Value> {
        named::shown(&self.claims)
    }

    /// Whether it lets in who asks this; and how it is renewed then, if it is to be renewed now.
    /// `is_first` is asked of a token that is not to be used again, and remembers it.
    ///
    /// # Errors
    /// It does not.
    pub fn admits(
        &self,
        asked: &Asked<'_>,
        is_first: impl FnOnce(Use<'_>) -> bool,
    ) -> Result<Option<&Renewal>, Refused<'_>> {
        self.judged(asked, is_first).map_err(|denied| {
            let claim = match denied {
                Denied::Unchecked => unchecked(&self.claims).flatten(),
                denied => denied.claim(),
            };
            let answer = self.answers.iter().find(|(label, _)| Some(*label) == claim);
            Refused { denied, answer: answer.map(|(_, answer)| answer) }
        })
    }

    fn judged(
        &self,
        asked: &Asked<'_>,
        is_first: impl FnOnce(Use<'_>) -> bool,
    ) -> Result<Option<&Renewal>, Denied> {
        // No leeway: CTA-5007 sections 4.6.3 and 4.6.4.
        if !asked.now.is_finite() || self.expires.is_some_and(|expires| expires <= asked.now) {
            return Err(Denied::Expired);
        }
        if self.begins.is_some_and(|begins| begins > asked.now) {
            return Err(Denied::Early);
        }
        let terms = self.terms.as_ref().map_err(|denied| *denied)?;
        terms.check(asked)?;
        if let Some(replay) = terms.replay {
            let (issuer, expires) = (self.issuer.as_str(), self.expires);
            let id = self.id.as_deref().ok_or(Denied::Used)?;
            let is_first = is_first(Use { issuer, id, replay, expires });
            if !is_first && replay == Replay::Prohibited {
                return Err(Denied::Used);
            }
        }
        Ok(terms.renewal.as_ref().filter(|renewal| renewal.is_due(self.expires, asked.now)))
    }

    /// The token that takes this one's place, signed by the key its issuer renews with; `None`
    /// where there is no such key.
    pub fn renewed(&self, renewal: &Renewal, asked: &Asked<'_>, keys: &Keys) -> Option<String> {
        renewal.renewed(&self.claims, keys.renewal(&self.issuer)?, asked.now)
    }

    /// The headers of an answer; `None` where it is to have a token that cannot be signed here.
    pub fn answered(
        &self,
        answer: &Answer,
        asked: &Asked<'_>,
        keys: &Keys,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        answer.fields(&self.claims, &self.issuer, asked.now, keys)
    }
}

/// Whether a text has the form of a Common Access Token, whatever is in it.
pub fn is_one(token: &str) -> bool {
    cose::is_one(token)
}

/// Header and claims of a token by their names, whoever signed it.
///
/// # Errors
/// [`Denied::Malformed`].
pub fn unverified(token: &str) -> Result<[serde_json::Map<String, Value>; 2], Denied> {
    let envelope = Envelope::read(token).ok_or(Denied::Malformed)?;
    let claims = read(&envelope.payload);
    let claims = named::shown(claims.as_ref().and_then(map).ok_or(Denied::Malformed)?);
    let (number, id) = envelope.told();
    let known = Algorithm::ALL.iter().find(|(_, _, its)| Some(*its) == number);
    let algorithm = known.map_or_else(|| json!(number), |(_, name, _)| json!(name));
    let header = [("alg", algorithm), ("kid", json!(id))];
    let header = header.into_iter().filter(|(_, value)| !value.is_null());
    Ok([header.map(|(name, value)| (name.to_owned(), value)).collect(), claims])
}

/// `catu` of one URI, normalised.
pub fn only(uri: &str) -> Value {
    let parts = COMPONENTS.iter().filter(|(_, number)| *number <= QUERY);
    let rule = |(name, number): &(&str, i64)| {
        Some(((*name).to_owned(), json!({ "exact-match": component(uri, *number)? })))
    };
    parts.filter_map(rule).collect::<serde_json::Map<_, _>>().into()
}

/// A token with these claims, by the names of CTA-5007.
///
/// # Errors
/// What is none, in words; or that the key cannot sign.
pub fn mint(claims: &serde_json::Map<String, Value>, key: &Key) -> Result<String, String> {
    let claims = named::parsed(claims)?;
    let unable = || format!("the key {:?} does not sign", key.id());
    cose::signed(written(&coset::cbor::Value::Map(claims)), key).ok_or_else(unable)
}

/// A token whose claims are these bytes, whatever they are.
pub(super) fn fuzzed(claims: &[u8], key: &Key) -> Option<String> {
    cose::signed(claims.to_vec(), key)
}

/// Who bears a token, by all that it says but for what a renewal changes.
fn bearer(claims: &Map, issuer: &str, terms: Option<&Terms>) -> u128 {
    let renewed: &[i64] = match terms {
        Some(Terms { renewal: None, .. }) | None => &[],
        Some(terms) if terms.replay == Some(Replay::Prohibited) => &[EXPIRES, ISSUED, ID],
        Some(_) => &[EXPIRES, ISSUED],
    };
    let stays = |label| int(label).is_none_or(|label| !renewed.contains(&label));
    let lasting = claims.iter().filter(|(label, _)| stays(label)).cloned().collect();
    super::bearer(issuer, &written(&coset::cbor::Value::Map(lasting)))
}

/// What else it says, in the order in which it is refused for.
fn terms(claims: &Map, key: &Key, keys: &Keys, settings: &Settings) -> Result<Terms, Denied> {
    let us = settings.audience.as_deref().or(keys.audience(key.issuer()));
    if let Some(audience) = claim(claims, "aud")
        && !us.is_some_and(|us| is_for(audience, us))
    {
        return Err(Denied::Audience);
    }
    Terms::of(claims)
}

/// Without claims.
const VERIFIED_BYTES: usize = 1 << 10;
/// A claim of a byte or two is a value of 32 bytes, twice.
const CLAIMS_BYTES_PER_BYTE: usize = 32;
/// The last part of a URI that is no part of another one.
const QUERY: i64 = 4;

#[cfg(test)]
mod tests;
