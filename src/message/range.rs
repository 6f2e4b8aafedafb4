//! Byte ranges: what `Range` asks for and what `Content-Range` says (RFC 9110 section 14).
//!
//! Positions of any size are read without overflow. A range that was resolved lies within its
//! object. Several ranges at once are read in `multirange.rs`.

use std::error::Error;
use std::fmt;

use http::header::CONTENT_RANGE;
use http::{HeaderMap, HeaderValue};

use crate::message::syntax::{decimal, members, sole};
use crate::object::ByteRange;

/// The last byte of a range that has no end: of what is still being written he wants all that will
/// come (RFC 8673 section 2.2), and that is what he is told.
pub const LAST_OF_ENDLESS: u64 = (1 << 53) - 1;

/// The one byte range a viewer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=first-last`, or `bytes=first-` to the end.
    FromTo {
        /// The first byte wanted; `u64::MAX` may stand for more.
        first: u64,
        /// The last byte wanted, not before `first`; `None`: to the end.
        last: Option<u64>,
    },
    /// `bytes=-length`: the end of the object.
    Suffix {
        /// How many bytes; may be zero, and may be more than there are.
        length: u64,
    },
}

impl RangeRequest {
    /// `None`: the field is to be ignored (another unit, broken, or more than one range).
    pub fn parse(value: &HeaderValue) -> Option<RangeRequest> {
        let (unit, set) = split_once(value.as_bytes(), b'=')?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let mut ranges = members(set);
        let only = ranges.next()?;
        if ranges.next().is_some() {
            return None;
        }
        RangeRequest::of_member(only)
    }

    /// One member of a set.
    pub(super) fn of_member(member: &[u8]) -> Option<RangeRequest> {
        let (first, last) = split_once(member, b'-')?;
        match (first, last) {
            (b"", length) => Some(RangeRequest::Suffix { length: decimal(length)? }),
            (first, b"") => Some(RangeRequest::FromTo { first: decimal(first)?, last: None }),
            (first, last) => {
                let (first, last) = (decimal(first)?, decimal(last)?);
                (first <= last).then_some(RangeRequest::FromTo { first, last: Some(last) })
            }
        }
    }

    /// Whether an empty object satisfies it: the last bytes of less than that are all of it.
    pub fn is_satisfied_by_nothing(self) -> bool {
        matches!(self, RangeRequest::Suffix { length: 1.. })
    }

    /// The bytes meant of an object of `length_bytes`.
    ///
    /// An empty object has none: a suffix of it has no `Content-Range` to be written with.
    pub fn resolve(self, length_bytes: u64) -> Result<ByteRange, Unsatisfiable> {
        let (start, end) = match self {
            RangeRequest::FromTo { first, last: None } => (first, length_bytes),
            RangeRequest::FromTo { first, last: Some(last) } => {
                (first, last.saturating_add(1).min(length_bytes))
            }
            RangeRequest::Suffix { length } => (length_bytes.saturating_sub(length), length_bytes),
        };
        ByteRange::new(start, end).ok_or(Unsatisfiable { length_bytes })
    }
}

/// As a `Range` field is written.
impl fmt::Display for RangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeRequest::FromTo { first, last: Some(last) } => write!(f, "bytes={first}-{last}"),
            RangeRequest::FromTo { first, last: None } => write!(f, "bytes={first}-"),
            RangeRequest::Suffix { length } => write!(f, "bytes=-{length}"),
        }
    }
}

/// No byte of the object is in the range asked for: 416.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// The length of the object.
    pub length_bytes: u64,
}

impl fmt::Display for Unsatisfiable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no byte of the range is among the object's {}", self.length_bytes)
    }
}

impl Error for Unsatisfiable {}

/// What a `Content-Range` field says: which bytes these are, of how many.
///
/// One of the two is known; a range is in order, ends before `u64::MAX` and before `complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes carried; `None` in a 416.
    range: Option<ByteRange>,
    /// The length of the whole; `None` (`*`) when the sender does not know it.
    complete: Option<u64>,
}

impl ContentRange {
    /// `range` of an object of `complete` bytes; `None` when it does not lie within.
    pub fn of(range: ByteRange, complete: Option<u64>) -> Option<ContentRange> {
        let within = complete.is_none_or(|complete| range.end() <= complete);
        within.then_some(ContentRange { range: Some(range), complete })
    }

    /// `bytes */complete`, for a 416.
    pub fn unsatisfied(complete: u64) -> ContentRange {
        ContentRange { range: None, complete: Some(complete) }
    }

    /// What a response's fields say; `None` where they say nothing, two things or something broken.
    pub fn of_response(headers: &HeaderMap) -> Option<ContentRange> {
        ContentRange::parse(sole(headers, &CONTENT_RANGE)?).ok()
    }

    /// Strict: what an origin says here decides where bytes are stored.
    pub fn parse(value: &HeaderValue) -> Result<ContentRange, ContentRangeError> {
        use ContentRangeError::{Inconsistent, Malformed, Unit};

        let (unit, rest) = split_once(value.as_bytes(), b' ').ok_or(Malformed)?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return Err(Unit);
        }
        let (range, complete) = split_once(rest, b'/').ok_or(Malformed)?;
        let complete = match complete {
            b"*" => None,
            digits => Some(position(digits)?),
        };
        if range == b"*" {
            return complete.map(ContentRange::unsatisfied).ok_or(Malformed);
        }
        let (first, last) = split_once(range, b'-').ok_or(Malformed)?;
        let (first, last) = (position(first)?, position(last)?);
        ByteRange::new(first, last + 1)
            .and_then(|range| ContentRange::of(range, complete))
            .ok_or(Inconsistent { first, last, complete })
    }

    /// Whether the bytes carried go on until the object ends, wherever that is.
    pub fn is_endless(&self) -> bool {
        let last = self.range.map(|range| range.last());
        self.complete.is_none() && last == Some(LAST_OF_ENDLESS)
    }

    /// The bytes carried; `None` in a 416.
    pub fn range(&self) -> Option<ByteRange> {
        self.range
    }

    /// The length of the whole in bytes, where the sender knows it.
    pub fn complete(&self) -> Option<u64> {
        self.complete
    }
}

/// As a `Content-Range` field is written.
impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            Some(range) => write!(f, "bytes {}-{}/", range.start(), range.last())?,
            None => f.write_str("bytes */")?,
        }
        match self.complete {
            Some(complete) => write!(f, "{complete}"),
            None => f.write_str("*"),
        }
    }
}

/// Why a `Content-Range` field cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRangeError {
    /// Its unit is not bytes.
    Unit,
    /// It is not of the form section 14.4 gives.
    Malformed,
    /// A position is more than any object here can have.
    TooLarge,
    /// It ends before it starts, or after the whole.
    Inconsistent {
        /// The first byte it names.
        first: u64,
        /// The last byte it names.
        last: u64,
        /// The length of the whole it names.
        complete: Option<u64>,
    },
}

impl fmt::Display for ContentRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentRangeError::Unit => f.write_str("content-range is not in bytes"),
            ContentRangeError::Malformed => f.write_str("content-range is malformed"),
            ContentRangeError::TooLarge => f.write_str("content-range names a position too large"),
            ContentRangeError::Inconsistent { first, last, complete: Some(complete) } => {
                write!(f, "content-range {first}-{last} is no range of {complete} bytes")
            }
            ContentRangeError::Inconsistent { first, last, complete: None } => {
                write!(f, "content-range {first}-{last} ends before it starts")
            }
        }
    }
}

impl Error for ContentRangeError {}

/// A position that is exact and has a next one.
fn position(digits: &[u8]) -> Result<u64, ContentRangeError> {
    match decimal(digits) {
        None => Err(ContentRangeError::Malformed),
        Some(u64::MAX) => Err(ContentRangeError::TooLarge),
        Some(position) => Ok(position),
    }
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Option<RangeRequest> {
        RangeRequest::parse(&HeaderValue::from_str(value).unwrap())
    }

    fn from_to(first: u64, last: impl Into<Option<u64>>) -> Option<RangeRequest> {
        Some(RangeRequest::FromTo { first, last: last.into() })
    }

    fn suffix(length: u64) -> Option<RangeRequest> {
        Some(RangeRequest::Suffix { length })
    }

    #[test]
    fn a_range_field_is_one_range_or_ignored() {
        // RFC 9110 14.1.1, 14.1.2; lists by 5.6.1.
        for (value, expected) in [
            ("bytes=0-499", from_to(0, 499)),
            ("bytes=9500-", from_to(9500, None)),
            ("bytes=-500", suffix(500)),
            ("bytes=0-0", from_to(0, 0)),
            ("bytes=-0", suffix(0)),
            ("bytes=007-010", from_to(7, 10)),
            ("BYTES=0-1", from_to(0, 1)),
            ("Bytes=0-", from_to(0, None)),
            ("bytes= 0-1", from_to(0, 1)),
            ("bytes=,0-1 , ,", from_to(0, 1)),
            ("bytes=\t0-1\t", from_to(0, 1)),
            ("bytes=0-18446744073709551615", from_to(0, u64::MAX)),
            ("bytes=0-99999999999999999999999999", from_to(0, u64::MAX)),
            ("bytes=99999999999999999999999999-", from_to(u64::MAX, None)),
            ("bytes=-99999999999999999999999999", suffix(u64::MAX)),
            ("bytes=1230000-9007199254740991", from_to(1_230_000, (1 << 53) - 1)),
            // Several ranges: ignored for now (14.2 allows it).
            ("bytes=0-1,2-3", None),
            ("bytes=0-1, -5", None),
            // Invalid (14.1.1): the whole field is ignored.
            ("bytes=1-0", None),
            ("bytes=500-0,0-1", None),
            ("bytes=", None),
            ("bytes=,", None),
            ("bytes=-", None),
            ("bytes=--1", None),
            ("bytes=1", None),
            ("bytes=a-b", None),
            ("bytes=0x0-1", None),
            ("bytes=0 -1", None),
            ("bytes=0- 1", None),
            ("bytes=+0-1", None),
            ("bytes=0-1-2", None),
            ("bytes=0-1;q=1", None),
            ("bytes =0-1", None),
            ("bytes:0-1", None),
            ("bytes 0-1", None),
            ("0-1", None),
            ("", None),
            ("=0-1", None),
            // Units we do not know (14.2: ignore).
            ("seconds=0-1", None),
            ("none=0-1", None),
            ("bytess=0-1", None),
        ] {
            assert_eq!(parse(value), expected, "{value:?}");
        }
        let not_text = HeaderValue::from_bytes(b"bytes=0-\xff").unwrap();
        assert_eq!(RangeRequest::parse(&not_text), None);
    }

    #[test]
    fn a_range_is_resolved_within_the_object() {
        for (value, length, expected) in [
            ("bytes=0-499", 10_000, Some((0, 500))),
            ("bytes=500-999", 10_000, Some((500, 1000))),
            ("bytes=-500", 10_000, Some((9500, 10_000))),
            ("bytes=9500-", 10_000, Some((9500, 10_000))),
            ("bytes=0-0", 1, Some((0, 1))),
            ("bytes=0-0", 10, Some((0, 1))),
            ("bytes=-1", 10, Some((9, 10))),
            // A last position past the end is brought back to it (14.1.2).
            ("bytes=5-20", 10, Some((5, 10))),
            ("bytes=0-18446744073709551615", 10, Some((0, 10))),
            ("bytes=9-99999999999999999999999999", 10, Some((9, 10))),
            // A suffix longer than the object is all of it (14.1.2).
            ("bytes=-11", 10, Some((0, 10))),
            ("bytes=-99999999999999999999999999", 10, Some((0, 10))),
            // Unsatisfiable (14.1.2, 15.5.17).
            ("bytes=10-", 10, None),
            ("bytes=10-20", 10, None),
            ("bytes=18446744073709551615-", u64::MAX, None),
            ("bytes=99999999999999999999999999-", 10, None),
            ("bytes=-0", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=0-0", 0, None),
            ("bytes=-1", 0, None),
            ("bytes=-0", 0, None),
        ] {
            let resolved = parse(value).unwrap().resolve(length);
            let expected = expected.and_then(|(start, end)| ByteRange::new(start, end));
            assert_eq!(resolved.ok(), expected, "{value:?} of {length}");
            if let Err(unsatisfiable) = resolved {
                assert_eq!(unsatisfiable.length_bytes, length);
            }
        }
    }

    #[test]
    fn a_content_range_is_believed_only_when_it_is_consistent() {
        use ContentRangeError::{Malformed, TooLarge, Unit};

        let parse = |value: &str| ContentRange::parse(&HeaderValue::from_str(value).unwrap());
        // RFC 9110 14.4: written again it is the same.
        for value in [
            "bytes 0-499/1234",
            "bytes 42-1233/1234",
            "bytes 42-1233/*",
            "bytes 0-0/1",
            "bytes */1234",
            "bytes */0",
            "bytes 0-18446744073709551613/18446744073709551614",
        ] {
            assert_eq!(parse(value).unwrap().to_string(), value);
        }
        assert_eq!(parse("BYTES 00-01/02").unwrap().to_string(), "bytes 0-1/2");
        let wrong = |first, last, complete: Option<u64>| {
            Err(ContentRangeError::Inconsistent { first, last, complete })
        };
        for (value, error) in [
            ("bytes 5-4/10", wrong(5, 4, Some(10))),
            ("bytes 5-4/*", wrong(5, 4, None)),
            ("bytes 0-10/10", wrong(0, 10, Some(10))),
            ("bytes 0-0/0", wrong(0, 0, Some(0))),
            ("bytes 10-11/5", wrong(10, 11, Some(5))),
            ("seconds 0-1/2", Err(Unit)),
            (" 0-1/2", Err(Unit)),
            ("bytes */*", Err(Malformed)),
            ("bytes 0-1", Err(Malformed)),
            ("bytes=0-1/2", Err(Malformed)),
            ("bytes  0-1/2", Err(Malformed)),
            ("bytes 0-1/2 ", Err(Malformed)),
            ("bytes 0-1/2/3", Err(Malformed)),
            ("bytes 0-/2", Err(Malformed)),
            ("bytes -1/2", Err(Malformed)),
            ("bytes 0/2", Err(Malformed)),
            ("bytes 0-1/", Err(Malformed)),
            ("bytes 0-1/-2", Err(Malformed)),
            ("bytes 0-1, 2-3/4", Err(Malformed)),
            ("bytes", Err(Malformed)),
            ("", Err(Malformed)),
            ("bytes 0-18446744073709551615/*", Err(TooLarge)),
            ("bytes 0-1/18446744073709551616", Err(TooLarge)),
            ("bytes 99999999999999999999999-0/*", Err(TooLarge)),
        ] {
            assert_eq!(parse(value), error, "{value:?}");
        }
    }

    #[test]
    fn a_content_range_cannot_be_made_outside_its_object() {
        let range = ByteRange::new(5, 10).unwrap();
        assert_eq!(ContentRange::of(range, Some(9)), None);
        assert_eq!(ContentRange::of(range, Some(10)).unwrap().to_string(), "bytes 5-9/10");
        assert_eq!(ContentRange::of(range, None).unwrap().to_string(), "bytes 5-9/*");
        assert_eq!(ContentRange::unsatisfied(0).to_string(), "bytes */0");
    }

    proptest! {
        #[test]
        fn a_resolved_range_is_what_the_rfc_says(
            first in 0u64..300, span in 0u64..300, length in 0u64..300, form in 0..3,
        ) {
            let request = match form {
                0 => RangeRequest::FromTo { first, last: Some(first + span) },
                1 => RangeRequest::FromTo { first, last: None },
                _ => RangeRequest::Suffix { length: span },
            };
            let wanted = |position: &u64| match request {
                RangeRequest::FromTo { first, last } => {
                    *position >= first && last.is_none_or(|last| *position <= last)
                }
                RangeRequest::Suffix { length: suffix } => position + suffix >= length,
            };
            let expected: Vec<u64> = (0..length).filter(wanted).collect();
            let resolved = request.resolve(length).ok();
            let found = resolved.map_or(vec![], |range| (range.start()..range.end()).collect());
            prop_assert_eq!(found, expected);
            prop_assert_eq!(parse(&request.to_string()), Some(request));
        }
    }
}
