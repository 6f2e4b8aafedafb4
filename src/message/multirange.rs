//! Several ranges of one object in one answer (RFC 9110 sections 14.1.2, 14.6 and 15.3.7.2).
//!
//! What is asked for is sorted, and what overlaps or nearly touches is joined. Who asks for very
//! many parts, or for the same bytes over and over, gets the whole (section 17.15).

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::limits::{RANGES_ANSWERED_MAX, RANGES_READ_MAX};
use crate::message::range::{ContentRange, RangeRequest, Unsatisfiable};
use crate::message::response::Stored;
use crate::message::syntax::members;
use crate::object::ByteRange;

/// Two ranges or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    /// In the order they were asked for.
    ranges: Vec<RangeRequest>,
    /// There were more than are read.
    too_many: bool,
}

/// What a set of ranges means of an object whose length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Disjoint, in order, at least one.
    Parts(Vec<ByteRange>),
    /// Too many, or too much of the same.
    TooMany,
}

impl RangeSet {
    /// `None`: the field names one range or none, or is to be ignored.
    pub fn parse(value: &HeaderValue) -> Option<RangeSet> {
        let (unit, set) = value.as_bytes().split_at_checked(UNIT.len())?;
        if !unit.eq_ignore_ascii_case(UNIT) {
            return None;
        }
        let mut ranges = Vec::new();
        for (number, member) in members(set).enumerate() {
            let range = RangeRequest::of_member(member)?;
            if number < RANGES_READ_MAX {
                ranges.push(range);
            } else {
                return Some(RangeSet { ranges, too_many: true });
            }
        }
        (ranges.len() > 1).then_some(RangeSet { ranges, too_many: false })
    }

    /// The range that was written first.
    pub fn first(&self) -> RangeRequest {
        self.ranges[0]
    }

    /// The bytes meant of an object of `length_bytes`.
    ///
    /// # Errors
    /// None of them has a byte.
    pub fn resolve(&self, length_bytes: u64) -> Result<Resolved, Unsatisfiable> {
        let resolved = |range: &RangeRequest| range.resolve(length_bytes).ok();
        let mut asked: Vec<ByteRange> = self.ranges.iter().filter_map(resolved).collect();
        if asked.is_empty() {
            return Err(Unsatisfiable { length_bytes });
        }
        asked.sort_by_key(|range| (range.start(), range.end()));
        let mut parts: Vec<ByteRange> = Vec::with_capacity(asked.len());
        let mut overlaps = 0;
        for range in asked {
            let Some(last) = parts.last_mut().filter(|last| near(**last, range)) else {
                parts.push(range);
                continue;
            };
            overlaps += u32::from(range.start() < last.end());
            let end = last.end().max(range.end());
            *last = ByteRange::new(last.start(), end).expect("it is no shorter than it was");
        }
        let abused = self.too_many || overlaps > OVERLAPS_MAX || parts.len() > RANGES_ANSWERED_MAX;
        Ok(if abused { Resolved::TooMany } else { Resolved::Parts(parts) })
    }
}

/// Whether both are sent in fewer bytes as one part.
fn near(one: ByteRange, next: ByteRange) -> bool {
    next.start() <= one.end().saturating_add(PART_HEAD_BYTES)
}

const UNIT: &[u8] = b"bytes=";
/// About what stands between two parts.
const PART_HEAD_BYTES: u64 = 80;
/// More than two overlapping ranges are no player's (RFC 9110 section 14.2).
const OVERLAPS_MAX: u32 = 2;

/// A `multipart/byteranges` body: what stands before each part, and after the last.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// Each part with the text before it, the boundary included.
    pub parts: Vec<(Bytes, ByteRange)>,
    /// After the last.
    pub end: Bytes,
    /// Of the whole body.
    pub length_bytes: u64,
    /// The `Content-Type` of the whole.
    pub content_type: HeaderValue,
}

impl Multipart {
    /// Of these parts of an object of `complete` bytes. `boundary` is a token that no one can have
    /// written into the object.
    pub fn of(stored: &Stored, ranges: &[ByteRange], complete: u64, boundary: &str) -> Multipart {
        let part = |range: &ByteRange| {
            let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(content_type) = stored.fields().get(CONTENT_TYPE) {
                head.extend_from_slice(b"Content-Type: ");
                head.extend_from_slice(content_type.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
            let carried = ContentRange::of(*range, Some(complete)).expect("it was resolved");
            head.extend_from_slice(format!("Content-Range: {carried}\r\n\r\n").as_bytes());
            (Bytes::from(head), *range)
        };
        let parts: Vec<_> = ranges.iter().map(part).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let of_part = |(head, range): &(Bytes, ByteRange)| head.len() as u64 + range.length_bytes();
        let length_bytes = parts.iter().map(of_part).sum::<u64>() + end.len() as u64;
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        let content_type = HeaderValue::try_from(content_type).expect("a token is a field value");
        Multipart { parts, end, length_bytes, content_type }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderMap, StatusCode};

    use super::*;

    fn set(text: &str) -> Option<RangeSet> {
        RangeSet::parse(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn one_range_and_what_is_broken_are_no_set() {
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=0-1",
            "bytes=0-1,",
            "bytes=,0-1, ,",
            "bytes=0-1,x",
            "bytes=0-1,2",
            "bytes=0-1,3-2",
            "bytes=0-1;2-3",
            "bytes 0-1,2-3",
            "items=0-1,2-3",
            "bytes=0-1,--1",
        ] {
            assert_eq!(set(text), None, "{text}");
        }
        assert_eq!(set("bytes=0-1,2-3"), set("BYTES= 0-1\t, ,2-3 ,"));
        assert_eq!(set("bytes=5-,-3").unwrap().first().to_string(), "bytes=5-");
    }

    #[test]
    fn parts_are_sorted_joined_and_bounded() {
        let parts = |ranges: &[(u64, u64)]| {
            let range = |(first, last): &(u64, u64)| ByteRange::new(*first, last + 1).unwrap();
            Ok(Resolved::Parts(ranges.iter().map(range).collect()))
        };
        let none = Err(Unsatisfiable { length_bytes: 1_000 });
        let each = |step: u64, count: u64| {
            let ranges = (0..count).map(|n| format!("{}-{}", n * step, n * step));
            format!("bytes={}", ranges.collect::<Vec<_>>().join(","))
        };
        for (text, resolved) in [
            ("bytes=0-9,200-299", parts(&[(0, 9), (200, 299)])),
            ("bytes=200-299,0-9", parts(&[(0, 9), (200, 299)])),
            ("bytes=0-9,-10", parts(&[(0, 9), (990, 999)])),
            ("bytes=0-9,500-", parts(&[(0, 9), (500, 999)])),
            ("bytes=0-9,500-5000", parts(&[(0, 9), (500, 999)])),
            // What has no byte is left out (14.1.2), and all of it may be.
            ("bytes=0-9,1000-2000", parts(&[(0, 9)])),
            ("bytes=1000-,2000-3000", none.clone()),
            ("bytes=1000-,-0", none),
            // Joined: overlapping, touching, nearly touching.
            ("bytes=0-9,5-19", parts(&[(0, 19)])),
            ("bytes=0-9,10-19", parts(&[(0, 19)])),
            ("bytes=0-9,90-99", parts(&[(0, 99)])),
            ("bytes=0-9,91-99", parts(&[(0, 9), (91, 99)])),
            ("bytes=0-99,10-19", parts(&[(0, 99)])),
            ("bytes=0-,-1", parts(&[(0, 999)])),
            ("bytes=0-9,5-19,15-29", parts(&[(0, 29)])),
            ("bytes=0-9,5-19,15-29,25-39", Ok(Resolved::TooMany)),
            ("bytes=0-0,0-0,0-0,0-0", Ok(Resolved::TooMany)),
        ] {
            assert_eq!(set(text).unwrap().resolve(1_000), resolved, "{text}");
        }
        let resolved = |text: &str| set(text).unwrap().resolve(1 << 30);
        let eight = resolved(&each(1_000, 8));
        assert!(matches!(eight, Ok(Resolved::Parts(parts)) if parts.len() == 8));
        assert_eq!(resolved(&each(1_000, 9)), Ok(Resolved::TooMany));
        assert_eq!(resolved(&each(1_000, 10_000)), Ok(Resolved::TooMany));
        // Any number, as long as it is the same few bytes: still more than a player asks for.
        assert_eq!(resolved(&each(2, 1_000)), Ok(Resolved::TooMany));
        assert_eq!(set("bytes=0-1,18446744073709551615-").unwrap().resolve(u64::MAX - 1), {
            Ok(Resolved::Parts(vec![ByteRange::new(0, 2).unwrap()]))
        });
    }

    #[test]
    fn the_body_is_as_long_as_it_says() {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
        let stored = Stored::new(StatusCode::OK, &fields, UNIX_EPOCH);
        let ranges = [ByteRange::new(0, 2).unwrap(), ByteRange::new(7, 10).unwrap()];
        let multipart = Multipart::of(&stored, &ranges, 10, "B");
        let object = b"0123456789";
        let mut body = Vec::new();
        for (head, range) in &multipart.parts {
            body.extend_from_slice(head);
            body.extend_from_slice(&object[range.start() as usize..range.end() as usize]);
        }
        body.extend_from_slice(&multipart.end);
        let expected = "\r\n--B\r\nContent-Type: video/mp4\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
            \r\n--B\r\nContent-Type: video/mp4\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
            \r\n--B--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        assert_eq!(multipart.length_bytes, expected.len() as u64);
        assert_eq!(multipart.content_type, "multipart/byteranges; boundary=B");
        let plain = Stored::new(StatusCode::OK, &HeaderMap::new(), UNIX_EPOCH);
        let plain = Multipart::of(&plain, &ranges, 10, "B");
        assert!(plain.parts[0].0.starts_with(b"\r\n--B\r\nContent-Range"));
    }
}
