//! Which request fields choose among an object's variants (RFC 9110 section 12.5.5, RFC 9111
//! section 4.1).
//!
//! `Accept-Encoding` is brought to one of a few spellings, and the origin is asked with that
//! spelling too: two viewers share a variant exactly when the origin could not tell them apart.

use http::header::{ACCEPT_ENCODING, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::response::{is_end_to_end, is_forwarded};
use crate::message::syntax::{decimal, members, trimmed};

/// What `Vary` of a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or a field that cannot be read: no request but its own is known to match.
    Any,
    /// These request fields, in order of their names; mostly none.
    Names(Box<[HeaderName]>),
}

impl Vary {
    /// All `Vary` lines together.
    ///
    /// Fields that never reach an origin as the viewer sent them cannot have decided anything.
    pub fn of(headers: &HeaderMap) -> Vary {
        let mut names = Vec::new();
        for member in headers.get_all(VARY).iter().flat_map(|line| members(line.as_bytes())) {
            match HeaderName::from_bytes(member) {
                Ok(name) if name != "*" => names.push(name),
                _ => return Vary::Any,
            }
        }
        names.retain(is_forwarded);
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Vary::Names(names.into_boxed_slice())
    }

    /// Whether no other request can be known to match.
    pub fn is_any(&self) -> bool {
        *self == Vary::Any
    }
}

/// The values that chose a variant; equal keys of one `Vary` choose the same variant.
///
/// Compared whole, never by hash alone. Without `Vary` it is empty and costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VariantKey(pub(super) Box<[u8]>);

impl VariantKey {
    /// Of a request's fields, after a rule's edits; `None` under [`Vary::Any`].
    pub fn of(vary: &Vary, request: &HeaderMap) -> Option<VariantKey> {
        let Vary::Names(names) = vary else { return None };
        let mut key = Vec::new();
        for name in names {
            key.extend_from_slice(name.as_str().as_bytes());
            if *name == ACCEPT_ENCODING {
                key.push(b':');
                key.extend_from_slice(AcceptEncoding::of(request).as_str().as_bytes());
            } else if is_end_to_end(request, name) {
                // What `Connection` names does not reach the origin: it chose nothing.
                push_combined(&mut key, request, name);
            }
            key.push(b'\n');
        }
        Some(VariantKey(key.into_boxed_slice()))
    }

    /// How many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// Each field that chose, `name:value`; the name alone where there was no such field.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0).lines().map(str::to_owned).collect()
    }
}

/// The lines of a field as one (RFC 9110 section 5.3); a missing field differs from an empty one.
///
/// No value holds a line feed, so that none can be mistaken for two.
fn push_combined(key: &mut Vec<u8>, request: &HeaderMap, name: &HeaderName) {
    let mut separator: &[u8] = b":";
    for line in request.get_all(name) {
        key.extend_from_slice(separator);
        key.extend_from_slice(trimmed(line.as_bytes()));
        separator = b", ";
    }
}

/// The content codings a viewer takes, of those that matter: br, gzip and zstd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AcceptEncoding {
    /// Bit `n`: the `n`-th of `CODINGS`.
    taken: u8,
}

impl AcceptEncoding {
    /// Of a request. No field, and one that takes none of the codings, are `identity`.
    pub fn of(request: &HeaderMap) -> AcceptEncoding {
        let (mut taken, mut refused, mut others) = (0u8, 0u8, false);
        let lines = request.get_all(ACCEPT_ENCODING).iter();
        for member in lines.flat_map(|line| members(line.as_bytes())) {
            let mut parts = member.split(|byte| *byte == b';').map(trimmed);
            let coding = parts.next().unwrap_or_default();
            let weighs = parts.all(|parameter| !is_zero_weight(parameter));
            if coding == b"*" {
                others = weighs;
            } else if let Some(bit) = bit_of(coding) {
                if weighs {
                    taken |= bit;
                } else {
                    refused |= bit;
                }
            }
        }
        let wild = if others { EVERY_CODING } else { 0 };
        AcceptEncoding { taken: (taken | wild) & !refused }
    }

    /// The field value the origin is asked with, and that a variant is told apart by.
    pub fn as_str(self) -> &'static str {
        SPELLINGS[usize::from(self.taken)]
    }

    /// The same as a field value; made without an allocation.
    pub fn as_header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

fn bit_of(coding: &[u8]) -> Option<u8> {
    let at = CODINGS.iter().position(|known| coding.eq_ignore_ascii_case(known.as_bytes()));
    match at {
        Some(at) => Some(1 << at),
        // An old name of the same coding (RFC 9110 section 8.4.1.3).
        None => coding.eq_ignore_ascii_case(b"x-gzip").then_some(GZIP),
    }
}

/// `q=0` and `q=0.000` refuse (RFC 9110 section 12.4.2).
fn is_zero_weight(parameter: &[u8]) -> bool {
    let [b'q' | b'Q', b'=', b'0', rest @ ..] = parameter else { return false };
    rest.is_empty()
        || rest
            .strip_prefix(b".")
            .is_some_and(|digits| digits.is_empty() || decimal(digits) == Some(0))
}

const CODINGS: [&str; 3] = ["br", "gzip", "zstd"];
const GZIP: u8 = 1 << 1;
const EVERY_CODING: u8 = (1 << CODINGS.len()) - 1;
const SPELLINGS: [&str; 1 << CODINGS.len()] =
    ["identity", "br", "gzip", "br, gzip", "zstd", "br, zstd", "gzip, zstd", "br, gzip, zstd"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn vary(lines: &[&'static str]) -> Vary {
        Vary::of(&headers(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>()))
    }

    #[test]
    fn vary_is_a_list_of_names_or_anything() {
        let names = |vary: &Vary| match vary {
            Vary::Any => None,
            Vary::Names(names) => Some(names.iter().map(HeaderName::to_string).collect::<Vec<_>>()),
        };
        for (lines, expected) in [
            (&[][..], Some(&[][..])),
            (&[""], Some(&[])),
            (&["Accept-Encoding"], Some(&["accept-encoding"])),
            (&["origin,Accept-Encoding , ORIGIN"], Some(&["accept-encoding", "origin"])),
            (&["origin", "accept-encoding"], Some(&["accept-encoding", "origin"])),
            (&["Host, Range, Connection, origin"], Some(&["origin"])),
            (&["*"], None),
            (&["origin, *"], None),
            (&["origin", " * "], None),
            (&["accept encoding"], None),
            (&["origin;q=1, x"], None),
        ] {
            let expected: Option<Vec<_>> =
                expected.map(|names| names.iter().map(|name| name.to_string()).collect());
            assert_eq!(names(&vary(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn two_requests_share_a_variant_when_the_origin_cannot_tell_them_apart() {
        let language = vary(&["accept-language, accept-encoding"]);
        let key = |lines| VariantKey::of(&language, &headers(lines)).unwrap();
        // RFC 9111 4.1: white space, combined lines, and what is known to mean the same.
        for (one, other, same) in [
            (&[][..], &[][..], true),
            (&[], &[("user-agent", "x")], true),
            (&[("accept-language", "de")], &[("accept-language", " de\t")], true),
            (
                &[("accept-language", "de, en")],
                &[("accept-language", "de"), ("accept-language", "en")],
                true,
            ),
            (&[("accept-encoding", "gzip, br")], &[("accept-encoding", "br;q=0.5,GZIP")], true),
            (&[("accept-encoding", "identity")], &[], true),
            (&[("accept-language", "de"), ("connection", "Accept-Language")], &[], true),
            (&[("accept-language", "de")], &[("accept-language", "en")], false),
            (&[("accept-language", "de")], &[("accept-language", "DE")], false),
            (&[("accept-language", "de")], &[], false),
            (&[("accept-language", "")], &[], false),
            (&[("accept-encoding", "br")], &[("accept-encoding", "gzip")], false),
        ] {
            assert_eq!(key(one) == key(other), same, "{one:?} {other:?}");
        }
        assert_eq!(VariantKey::of(&vary(&[]), &headers(&[])), Some(VariantKey::default()));
        assert_eq!(VariantKey::of(&Vary::Any, &headers(&[])), None);
    }

    #[test]
    fn accept_encoding_has_eight_spellings() {
        for (lines, spelling) in [
            (&[][..], "identity"),
            (&[""], "identity"),
            (&["identity"], "identity"),
            (&["deflate"], "identity"),
            (&["gzip"], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["gzip, deflate, br"], "br, gzip"),
            (&["gzip, deflate, br, zstd"], "br, gzip, zstd"),
            (&["br", "gzip"], "br, gzip"),
            (&["BR;q=1.0, gzip;q=0.5"], "br, gzip"),
            (&["gzip;q=0, br"], "br"),
            (&["gzip; q=0.000, br"], "br"),
            (&["gzip;Q=0."], "identity"),
            (&["gzip;q=0.001"], "gzip"),
            (&["*"], "br, gzip, zstd"),
            (&["*;q=0"], "identity"),
            (&["*, gzip;q=0"], "br, zstd"),
            (&["gzip, *;q=0"], "gzip"),
            (&["gzip, gzip;q=0, br"], "br"),
            (&["gzipx, xbr"], "identity"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("accept-encoding", *line)).collect();
            assert_eq!(AcceptEncoding::of(&headers(&lines)).as_str(), spelling, "{lines:?}");
        }
        for (taken, spelling) in SPELLINGS.iter().enumerate().skip(1) {
            let listed: Vec<_> = CODINGS
                .iter()
                .enumerate()
                .filter(|(bit, _)| taken & (1 << bit) != 0)
                .map(|(_, coding)| *coding)
                .collect();
            assert_eq!(listed.join(", "), *spelling);
        }
    }
}
