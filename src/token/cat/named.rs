//! A token's claims as JSON, with the names that CTA-5007 gives them, and back: what they are
//! minted from, and shown as.
//!
//! Bytes are in hexadecimal, networks as access lists write them. Numbers without a name stand for
//! themselves, and are shown but not minted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use coset::cbor::Value as Cbor;
use serde_json::{Map as JsonMap, Number, Value};

use super::cbor::{Map, int, map};
use super::names::{
    ANSWERS, CLAIMS, COMPONENTS, HEADERS, ID, MATCHES, NETWORKS, PROTOCOLS, RENEWAL, RENEWAL_TYPES,
    RENEWS, TLS_KEY, URIS, label, name_of, number_of,
};

/// Claims by their names.
pub(super) fn shown(claims: &Map) -> JsonMap<String, Value> {
    by_name(claims, &CLAIMS, |label, value| match label {
        ID | TLS_KEY => bytes_shown(value),
        NETWORKS => each(value, |one| network_shown(one).unwrap_or_else(|| plain(one))),
        URIS => by_name_or_plain(value, &COMPONENTS, |_, all| matches_shown(all)),
        PROTOCOLS => each(value, |one| match one {
            Cbor::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
            _ => plain(one),
        }),
        HEADERS => by_name_or_plain(value, &[], |_, all| matches_shown(all)),
        ANSWERS => by_name_or_plain(value, &CLAIMS, |_, answer| answer_shown(answer)),
        RENEWS => by_name_or_plain(value, &RENEWAL, |part, value| {
            let name = int(value).and_then(|kind| name_of(&RENEWAL_TYPES, kind));
            name.filter(|_| part == 0).map_or_else(|| plain(value), Value::from)
        }),
        _ => plain(value),
    })
}

/// The claims that JSON names.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn parsed(claims: &JsonMap<String, Value>) -> Result<Map, String> {
    let claim = |(name, value): (&String, &Value)| {
        let label = label(name).ok_or_else(|| format!("{name:?} is the name of no claim"))?;
        let value = claim_of(label, value).ok_or_else(|| format!("`{name}` cannot be {value}"))?;
        Ok((label.into(), value))
    };
    claims.iter().map(claim).collect()
}

fn claim_of(label: i64, value: &Value) -> Option<Cbor> {
    if value.is_null() {
        return Some(Cbor::Null);
    }
    match label {
        ID => Some(Cbor::Bytes(unhex(value.as_str()?)?)),
        NETWORKS => list(value, network_of),
        URIS => {
            map_of(value, |name, all| Some((number_of(&COMPONENTS, name)?.into(), rules(all)?)))
        }
        PROTOCOLS => list(value, |one| Some(Cbor::Bytes(one.as_str()?.into()))),
        HEADERS => map_of(value, |name, all| Some((name.into(), rules(all)?))),
        TLS_KEY if value.is_array() => list(value, |one| Some(Cbor::Bytes(unhex(one.as_str()?)?))),
        TLS_KEY => Some(Cbor::Bytes(unhex(value.as_str()?)?)),
        ANSWERS => map_of(value, |name, answer| Some((label_of(name)?, answer_of(answer)?))),
        RENEWS => map_of(value, |name, value| {
            let part = number_of(&RENEWAL, name)?;
            let named = value.as_str().filter(|_| part == 0);
            let value = match named {
                Some(kind) => number_of(&RENEWAL_TYPES, kind)?.into(),
                None => from_plain(value)?,
            };
            Some((part.into(), value))
        }),
        _ => from_plain(value),
    }
}

fn label_of(name: &str) -> Option<Cbor> {
    label(name).map(Cbor::from)
}

fn rules(value: &Value) -> Option<Cbor> {
    map_of(value, |name, value| {
        let kind = number_of(&MATCHES, name)?;
        let value =
            if kind < 0 { Cbor::Bytes(unhex(value.as_str()?)?) } else { from_plain(value)? };
        Some((kind.into(), value))
    })
}

fn matches_shown(value: &Cbor) -> Value {
    by_name_or_plain(value, &MATCHES, |_, value| plain(value))
}

/// `[status, {"header": "value" or ["prefix", {claims}]}, "key"]`.
fn answer_shown(value: &Cbor) -> Value {
    let Some(parts) = value.as_array() else { return plain(value) };
    let field = |value: &Cbor| match value.as_array().map(Vec::as_slice) {
        Some([prefix, claims]) => {
            let claims = map(claims).map_or_else(|| plain(claims), |all| shown(all).into());
            Value::Array(vec![plain(prefix), claims])
        }
        _ => plain(value),
    };
    let part = |(n, part): (usize, &Cbor)| match (n, part) {
        (1, fields) => by_name_or_plain(fields, &[], |_, value| field(value)),
        (_, Cbor::Bytes(id)) => String::from_utf8_lossy(id).into(),
        _ => plain(part),
    };
    Value::Array(parts.iter().enumerate().map(part).collect())
}

fn answer_of(value: &Value) -> Option<Cbor> {
    let field = |name: &str, value: &Value| match value {
        Value::Array(parts) => {
            let [Value::String(prefix), Value::Object(claims)] = &parts[..] else { return None };
            let minted = Cbor::Map(parsed(claims).ok()?);
            Some((name.into(), Cbor::Array(vec![prefix.as_str().into(), minted])))
        }
        _ => Some((name.into(), value.as_str()?.into())),
    };
    let parts = value.as_array()?.iter().enumerate();
    let parts = parts.map(|(n, part)| match n {
        1 => map_of(part, field),
        _ => from_plain(part),
    });
    Some(Cbor::Array(parts.collect::<Option<_>>()?))
}

/// RFC 9164, or the number of an autonomous system.
fn network_shown(value: &Cbor) -> Option<Value> {
    let (tag, inside) = value.as_tag()?;
    let (bits, bytes) = match inside {
        Cbor::Array(parts) => (Some(int(parts.first()?)?), parts.get(1)?.as_bytes()?),
        _ => (None, inside.as_bytes()?),
    };
    let address = address(tag, bytes)?;
    Some(bits.map_or_else(|| address.to_string(), |bits| format!("{address}/{bits}")).into())
}

fn network_of(value: &Value) -> Option<Cbor> {
    let Some(text) = value.as_str() else { return Some(value.as_u64()?.into()) };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let (tag, mut bytes) = match address.parse().ok()? {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let Some(bits) = bits else { return Some(Cbor::Tag(tag, Box::new(bytes.into()))) };
    if usize::from(bits) > bytes.len() * 8 {
        return None;
    }
    // RFC 9164 section 3.1.2: what is behind the prefix is zero, and zeros at its end are left out.
    let whole = usize::from(bits / 8);
    if let Some(last) = bytes.get_mut(whole) {
        *last &= !(0xff >> (bits % 8));
    }
    bytes.truncate(usize::from(bits.div_ceil(8)));
    let kept = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    bytes.truncate(kept);
    Some(Cbor::Tag(tag, Box::new(Cbor::Array(vec![bits.into(), bytes.into()]))))
}

/// The address whose first bytes these are, the others being zero.
pub(super) fn address(tag: u64, bytes: &[u8]) -> Option<IpAddr> {
    fn whole<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        let mut whole = [0; N];
        whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(whole)
    }
    match tag {
        IPV4 => Some(Ipv4Addr::from(whole(bytes)?).into()),
        IPV6 => Some(Ipv6Addr::from(whole(bytes)?).into()),
        _ => None,
    }
}

fn by_name(
    all: &Map,
    names: &[(&str, i64)],
    show: impl Fn(i64, &Cbor) -> Value,
) -> JsonMap<String, Value> {
    let one = |(key, value): &(Cbor, Cbor)| {
        let number = int(key);
        let name = match (number.and_then(|number| name_of(names, number)), key) {
            (Some(name), _) => name.to_owned(),
            (None, Cbor::Text(name)) => name.clone(),
            _ => plain(key).to_string(),
        };
        (name, show(number.unwrap_or(i64::MIN), value))
    };
    all.iter().map(one).collect()
}

fn by_name_or_plain(
    value: &Cbor,
    names: &[(&str, i64)],
    show: impl Fn(i64, &Cbor) -> Value,
) -> Value {
    map(value).map_or_else(|| plain(value), |all| by_name(all, names, show).into())
}

fn bytes_shown(value: &Cbor) -> Value {
    match value {
        Cbor::Array(all) => all.iter().map(bytes_shown).collect(),
        _ => plain(value),
    }
}

fn each(value: &Cbor, show: impl Fn(&Cbor) -> Value) -> Value {
    value.as_array().map_or_else(|| plain(value), |all| all.iter().map(show).collect())
}

/// Anything, for whom it is only to be shown.
pub(super) fn plain(value: &Cbor) -> Value {
    match value {
        Cbor::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => (i128::from(*number) as f64).into(),
        },
        Cbor::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Cbor::Bool(bool) => (*bool).into(),
        Cbor::Text(text) => text.as_str().into(),
        Cbor::Bytes(bytes) => hex(bytes).into(),
        Cbor::Array(all) => all.iter().map(plain).collect(),
        Cbor::Map(all) => by_name(all, &[], |_, value| plain(value)).into(),
        Cbor::Tag(_, inside) => plain(inside),
        _ => Value::Null,
    }
}

fn from_plain(value: &Value) -> Option<Cbor> {
    Some(match value {
        Value::Null => Cbor::Null,
        Value::Bool(bool) => (*bool).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(_) => list(value, from_plain)?,
        Value::Object(_) => map_of(value, |name, value| Some((name.into(), from_plain(value)?)))?,
    })
}

fn list(value: &Value, of: impl Fn(&Value) -> Option<Cbor>) -> Option<Cbor> {
    Some(Cbor::Array(value.as_array()?.iter().map(of).collect::<Option<_>>()?))
}

fn map_of(value: &Value, of: impl Fn(&str, &Value) -> Option<(Cbor, Cbor)>) -> Option<Cbor> {
    let all = value.as_object()?.iter().map(|(name, value)| of(name, value));
    Some(Cbor::Map(all.collect::<Option<_>>()?))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that are written so.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().ok()
}

/// Tags of RFC 9164.
pub(super) const IPV4: u64 = 52;
/// The other one.
pub(super) const IPV6: u64 = 54;
