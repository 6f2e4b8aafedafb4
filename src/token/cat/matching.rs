//! How a claim compares a part of a URI or a header (CTA-5007 sections 4.6.10 and 4.6.13).
//!
//! An expression is a POSIX one and may match any part, as published verifiers have it. Those that
//! say what their groups have to hold are refused: whose rules would they follow?

use aws_lc_rs::digest::{self, SHA256, SHA512_256};
use coset::cbor::Value;

use super::super::expression::{Expression, Matching};
use super::cbor::{int, map};
use super::named::unhex;
use crate::limits::TOKEN_PATTERNS_MAX;

/// One comparison.
#[derive(Clone, Debug)]
pub(super) enum Match {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Pattern(Expression),
    Sha256(Vec<u8>),
    Sha512Of256(Vec<u8>),
}

impl Match {
    /// All comparisons that a map holds, each of which has to hold; `None`: it holds none, or one
    /// that is not known here. `patterns` counts expressions: each costs time and memory.
    pub(super) fn all(value: &Value, patterns: &mut usize) -> Option<Vec<Match>> {
        let all = map(value).filter(|map| !map.is_empty())?;
        all.iter().map(|(kind, value)| Match::of(int(kind)?, value, patterns)).collect()
    }

    fn of(kind: i64, value: &Value, patterns: &mut usize) -> Option<Match> {
        let text = || value.as_text().map(str::to_owned);
        Some(match kind {
            0 => Match::Exact(text()?),
            1 => Match::Prefix(text()?),
            2 => Match::Suffix(text()?),
            3 => Match::Contains(text()?),
            4 => {
                let (expression, groups) = value.as_array()?.split_first()?;
                *patterns += 1;
                if *patterns > TOKEN_PATTERNS_MAX || groups.iter().any(|group| !group.is_null()) {
                    return None;
                }
                Match::Pattern(Expression::parse(expression.as_text()?, Matching::Search).ok()?)
            }
            -1 => Match::Sha256(digest_of(value)?),
            -2 => Match::Sha512Of256(digest_of(value)?),
            _ => return None,
        })
    }

    /// What an expression takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Match::Pattern(pattern) => pattern.bytes(),
            _ => 0,
        }
    }

    /// Whether it holds for this.
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        match self {
            Match::Exact(one) => text == one.as_bytes(),
            Match::Prefix(start) => text.starts_with(start.as_bytes()),
            Match::Suffix(end) => text.ends_with(end.as_bytes()),
            Match::Contains(part) => memchr::memmem::find(text, part.as_bytes()).is_some(),
            Match::Pattern(pattern) => pattern.matches(text),
            Match::Sha256(sum) => digest::digest(&SHA256, text).as_ref() == sum,
            Match::Sha512Of256(sum) => digest::digest(&SHA512_256, text).as_ref() == sum,
        }
    }
}

/// 256 bits, or the same in hexadecimal as some write them.
fn digest_of(value: &Value) -> Option<Vec<u8>> {
    let bytes = match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Text(text) => unhex(text)?,
        _ => return None,
    };
    (bytes.len() == 32).then_some(bytes)
}

/// A part of a URI, by its number; `None`: there is no such part. The URI is normalised: it has no
/// port that its scheme implies.
pub(super) fn component(uri: &str, number: i64) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, target) = rest.split_at(rest.find('/')?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // An address of IPv6 has colons of its own.
    let at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match at {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (authority, ""),
    };
    let (parent, filename) = path.rsplit_once('/')?;
    let (stem, extension) = filename.split_at(filename.rfind('.').unwrap_or(filename.len()));
    [scheme, host, port, path, query, parent, filename, stem, extension]
        .get(usize::try_from(number).ok()?)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::super::cbor::Map;
    use super::*;

    fn text(text: &str) -> Value {
        Value::from(text)
    }

    #[test]
    fn parts_of_a_uri_are_what_they_are_called() {
        let uri = "https://[2001:db8::1]:8443/film/hd/a.b.m3u8?x=/1?.y";
        let parts = (0..9).map(|number| component(uri, number).unwrap());
        let parts: Vec<_> = parts.collect();
        let file = ["/film/hd", "a.b.m3u8", "a.b", ".m3u8"];
        assert_eq!(parts[..3], ["https", "[2001:db8::1]", "8443"]);
        assert_eq!(parts[3..5], ["/film/hd/a.b.m3u8", "x=/1?.y"]);
        assert_eq!(parts[5..], file);
        let parts: Vec<_> = (1..9).map(|number| component("http://[::1]/", number)).collect();
        assert_eq!(parts, ["[::1]", "", "/", "", "", "", "", ""].map(Some));
        assert_eq!([-1, 9].map(|number| component(uri, number)), [None, None]);
    }

    #[test]
    fn each_way_to_match_holds_what_it_says_and_nothing_else() {
        // Of FIPS 180-4's examples: "abc".
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha512 = "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23";
        let list = |all: &[Value]| Value::Array(all.to_vec());
        let bytes = |text: &str| Value::Bytes(unhex(text).unwrap());
        for (kind, value, holds, not) in [
            (0, text("abc"), "abc", "abcd"),
            (1, text("ab"), "abc", "xab"),
            (2, text("bc"), "abc", "abcd"),
            (3, text("b"), "abc", "ac"),
            (4, list(&[text("[b-z]c")]), "abcd", "ac"),
            (4, list(&[text("^(a)bc$"), Value::Null]), "abc", "abcd"),
            (-1, bytes(sha256), "abc", "abd"),
            (-1, text(sha256), "abc", "abd"),
            (-2, bytes(sha512), "abc", "abd"),
        ] {
            let one = Value::Map(vec![(kind.into(), value)]);
            let all = Match::all(&one, &mut 0).unwrap();
            let held = |text: &str| all.iter().all(|one| one.holds(text.as_bytes()));
            assert!(held(holds) && !held(not), "{one:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_no_way_to_match() {
        let list = |all: &[Value]| Value::Array(all.to_vec());
        for all in [
            vec![],
            vec![(5.into(), text("a"))],
            vec![(text("exact-match"), text("a"))],
            vec![(0.into(), text("a")), (9.into(), text("a"))],
            vec![(0.into(), 7.into())],
            vec![(0.into(), list(&[text("a")]))],
            vec![(4.into(), text("a"))],
            vec![(4.into(), list(&[]))],
            vec![(4.into(), list(&[text("a"), text("i")]))],
            vec![(4.into(), list(&[text("(a")]))],
            vec![(4.into(), list(&[text("((((a{1000}){1000}){1000}){1000})")]))],
            vec![((-1).into(), Value::Bytes(vec![0; 31]))],
            vec![((-2).into(), text("ab"))],
        ] as [Map; 13]
        {
            assert!(Match::all(&Value::Map(all.clone()), &mut 0).is_none(), "{all:?}");
        }
        let one = Value::Map(vec![(4.into(), list(&[text("a")]))]);
        let mut patterns = 0;
        let told = (0..=TOKEN_PATTERNS_MAX).map(|_| Match::all(&one, &mut patterns).is_some());
        assert_eq!(told.filter(|is_one| *is_one).count(), TOKEN_PATTERNS_MAX);
    }
}
