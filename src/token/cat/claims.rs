//! What the claims of a Common Access Token demand of a request (CTA-5007 section 4.6).
//!
//! They are read once, after the signature was found good, and compared with each request. A claim
//! that is there and cannot be checked here lets nobody in, whatever it says.

use std::net::IpAddr;

use aws_lc_rs::digest::{self, SHA256};
use coset::cbor::Value;
use http::HeaderName;

use super::Asked;
use super::cbor::{Map, at, int, map, number, whole};
use super::denied::Denied;
use super::matching::{Match, component};
use super::named::address;
use super::names::{
    ANSWERS, AUDIENCE, BEGINS, COUNTRIES, DATA, EXPIRES, HEADERS, ID, ISSUED, ISSUER, METHODS,
    NETWORKS, PROTOCOLS, RENEWS, REPLAY, SUBJECT, TLS_KEY, URIS, VERSION, label,
};
use super::renewal::Renewal;
use crate::limits::TOKEN_LIST_MAX;
use crate::network::Network;

/// What a request is compared with.
#[derive(Debug)]
pub(super) struct Terms {
    places: Option<Vec<Place>>,
    countries: Option<Vec<String>>,
    tls_keys: Option<Vec<Vec<u8>>>,
    protocols: Option<Vec<Vec<u8>>>,
    methods: Option<Vec<String>>,
    uri: Vec<(i64, Vec<Match>)>,
    headers: Vec<(HeaderName, Vec<Match>)>,
    pub(super) replay: Option<Replay>,
    pub(super) renewal: Option<Renewal>,
}

/// From where it may be used.
#[derive(Debug)]
enum Place {
    Network(Network),
    /// An autonomous system.
    System(u32),
}

/// What is to become of a token that is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It lets nobody in.
    Prohibited,
    /// It lets in; that it was used again is to be known.
    Detected,
}

impl Terms {
    /// What expressions take, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let uri = self.uri.iter().flat_map(|(_, all)| all);
        let headers = self.headers.iter().flat_map(|(_, all)| all);
        uri.chain(headers).map(Match::bytes).sum()
    }

    /// Reads what the claims demand.
    ///
    /// # Errors
    /// Nobody can meet that here.
    pub(super) fn of(claims: &Map) -> Result<Terms, Denied> {
        if unchecked(claims).is_some() {
            return Err(Denied::Unchecked);
        }
        let mut patterns = 0;
        let texts =
            |name, denied| list(claims, name, denied, |one| Some(one.as_text()?.to_owned()));
        Ok(Terms {
            places: list(claims, "catnip", Denied::Network, place)?,
            countries: texts("catgeoiso3166", Denied::Country)?,
            tls_keys: tls_keys(claims)?,
            protocols: list(claims, "catalpn", Denied::Protocol, |one| match one {
                Value::Bytes(bytes) => Some(bytes.clone()),
                one => Some(one.as_text()?.into()),
            })?,
            methods: texts("catm", Denied::Method)?,
            uri: rules(claims, "catu", Denied::Uri, |part, all| {
                let part = int(part).filter(|part| (0..=8).contains(part))?;
                Some((part, Match::all(all, &mut patterns)?))
            })?,
            headers: rules(claims, "cath", Denied::Header, |name, all| {
                let name = HeaderName::from_bytes(name.as_text()?.as_bytes()).ok()?;
                Some((name, Match::all(all, &mut patterns)?))
            })?,
            replay: match claim(claims, "catreplay").map(whole) {
                None | Some(Some(0)) => None,
                Some(Some(1)) => Some(Replay::Prohibited),
                Some(Some(2)) => Some(Replay::Detected),
                Some(_) => return Err(Denied::Used),
            },
            renewal: claim(claims, "catr").map(Renewal::of).transpose()?,
        })
    }

    /// Compares a request with all of them.
    ///
    /// # Errors
    /// The first that it does not meet.
    pub(super) fn check(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let client = asked.client.to_canonical();
        let met = |is_met: bool, denied| if is_met { Ok(()) } else { Err(denied) };
        if let Some(places) = &self.places {
            // Asked for once, and only if there is a system to compare with.
            let mut system = None;
            let is_there = places.iter().any(|place| match place {
                Place::Network(network) => network.holds(client),
                Place::System(one) => {
                    let its = *system.get_or_insert_with(|| asked.asn.and_then(|asn| asn(client)));
                    its == Some(*one)
                }
            });
            met(is_there, Denied::Network)?;
        }
        if let Some(countries) = &self.countries {
            let its = asked.country.and_then(|country| country(client));
            let is_there = its.is_some_and(|its| {
                countries.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(&its))
            });
            met(is_there, Denied::Country)?;
        }
        if let Some(keys) = &self.tls_keys {
            let its = asked.tls_public_key;
            met(its.is_some_and(|its| keys.iter().any(|one| is_key(one, its))), Denied::TlsKey)?;
        }
        if let Some(protocols) = &self.protocols {
            let its = asked.alpn;
            met(its.is_some_and(|its| protocols.iter().any(|one| one == its)), Denied::Protocol)?;
        }
        if let Some(methods) = &self.methods {
            met(methods.iter().any(|one| one == asked.method), Denied::Method)?;
        }
        for (part, all) in &self.uri {
            let part = component(asked.uri, *part).ok_or(Denied::Uri)?;
            met(all.iter().all(|one| one.holds(part.as_bytes())), Denied::Uri)?;
        }
        for (name, all) in &self.headers {
            let lines: Vec<_> =
                asked.headers.get_all(name).iter().map(|one| one.as_bytes()).collect();
            // RFC 9110 section 5.2: several lines are one list.
            let value = lines.join(&b", "[..]);
            let holds = !lines.is_empty() && all.iter().all(|one| one.holds(&value));
            met(holds, Denied::Header)?;
        }
        Ok(())
    }
}

/// The first claim that cannot be checked here: its number, or `None` within if it has a name.
pub(super) fn unchecked(claims: &Map) -> Option<Option<i64>> {
    let mut labels = claims.iter().map(|(key, _)| int(key));
    labels.find(|label| !label.is_some_and(|label| CHECKED.contains(&label)))
}

/// What the claims have by this name.
pub(super) fn claim<'a>(claims: &'a Map, name: &str) -> Option<&'a Value> {
    at(claims, label(name)?)
}

/// A claim that is a number of seconds.
///
/// # Errors
/// `wrong`: it is there and is none.
pub(super) fn seconds(claims: &Map, name: &str, wrong: Denied) -> Result<Option<f64>, Denied> {
    claim(claims, name).map(|value| number(value).ok_or(wrong)).transpose()
}

/// Whether `aud` names `us`: a text, or one of several.
pub(super) fn is_for(audience: &Value, us: &str) -> bool {
    match audience {
        Value::Array(all) => {
            all.iter().all(Value::is_text) && all.iter().any(|one| one.as_text() == Some(us))
        }
        one => one.as_text() == Some(us),
    }
}

fn list<T>(
    claims: &Map,
    name: &str,
    denied: Denied,
    of: impl Fn(&Value) -> Option<T>,
) -> Result<Option<Vec<T>>, Denied> {
    let Some(value) = claim(claims, name) else { return Ok(None) };
    let all = value.as_array().filter(|all| all.len() <= TOKEN_LIST_MAX).ok_or(denied)?;
    let all: Option<Vec<_>> = all.iter().map(of).collect();
    all.ok_or(denied).map(Some)
}

/// The rules of a map. Where there is a map without any it is not told what would meet it.
fn rules<T>(
    claims: &Map,
    name: &str,
    denied: Denied,
    mut of: impl FnMut(&Value, &Value) -> Option<T>,
) -> Result<Vec<T>, Denied> {
    let Some(value) = claim(claims, name) else { return Ok(Vec::new()) };
    let all = map(value).filter(|all| (1..=TOKEN_LIST_MAX).contains(&all.len())).ok_or(denied)?;
    let all: Option<Vec<_>> = all.iter().map(|(key, value)| of(key, value)).collect();
    all.ok_or(denied)
}

/// RFC 9164: an address, or the bits of a prefix and its bytes; or an autonomous system.
fn place(value: &Value) -> Option<Place> {
    let Some((tag, inside)) = value.as_tag() else {
        return Some(Place::System(u32::try_from(whole(value)?).ok()?));
    };
    let network = match inside {
        Value::Bytes(bytes) => {
            let address = address(tag, bytes)?;
            let bytes_all = if address.is_ipv4() { 4 } else { 16 };
            (bytes.len() == bytes_all).then(|| address.to_string())?
        }
        _ => match inside.as_array().map(Vec::as_slice)? {
            [bits, Value::Bytes(bytes)] => format!("{}/{}", address(tag, bytes)?, whole(bits)?),
            _ => return None,
        },
    };
    // An address of IPv4 is compared as one, however it is written.
    let mapped = network.strip_prefix("::ffff:").filter(|rest| rest.parse::<IpAddr>().is_ok());
    mapped.unwrap_or(&network).parse().ok().map(Place::Network)
}

/// A key, or several of which the viewer has to have one.
fn tls_keys(claims: &Map) -> Result<Option<Vec<Vec<u8>>>, Denied> {
    match claim(claims, "cattpk") {
        Some(Value::Bytes(one)) => Ok(Some(vec![one.clone()])),
        _ => list(claims, "cattpk", Denied::TlsKey, |one| one.as_bytes().cloned()),
    }
}

/// Whether a public key (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7) is the one that is named:
/// by itself, as CTA-5007 has it, or by its SHA-256, as some write it. No such key is that short.
fn is_key(named: &[u8], key: &[u8]) -> bool {
    named == key || named == digest::digest(&SHA256, key).as_ref()
}

/// The claims that are checked here, or that say nothing of who is let in.
const CHECKED: [i64; 19] = [
    ISSUER, SUBJECT, AUDIENCE, EXPIRES, BEGINS, ISSUED, ID, REPLAY, VERSION, NETWORKS, URIS,
    METHODS, PROTOCOLS, HEADERS, COUNTRIES, TLS_KEY, DATA, ANSWERS, RENEWS,
];
