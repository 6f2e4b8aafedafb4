//! What is made of an origin's response: its fields read, stored, and written in parts.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPIRES, HeaderMap,
    HeaderName, HeaderValue,
};

use super::{headers_of, split_once};
use crate::limits::RANGES_ANSWERED_MAX;
use crate::message::cache_control::CacheControl;
use crate::message::freshness::{Assessment, Exchange, assess};
use crate::message::head::{self, Kind};
use crate::message::multirange::Multipart;
use crate::message::range::ContentRange;
use crate::message::response::{self, Stored};
use crate::object::ByteRange;
use crate::site::Lifetimes;

/// A response's fields: what says that it is not to be shared is not.
pub fn cache_control(bytes: &[u8]) {
    let mut headers = headers_of(bytes);
    let lifetimes = Lifetimes { given: Some(Duration::from_secs(1)), ..Lifetimes::default() };
    let assessed = |headers: &HeaderMap| {
        let at = UNIX_EPOCH + Duration::from_secs(1 << 30);
        assess(&Exchange {
            request_has_authorization: headers.contains_key("authorization"),
            status: StatusCode::OK,
            headers,
            requested_at: at,
            received_at: at,
            lifetimes: &lifetimes,
        })
    };
    let control = CacheControl::of(&headers);
    match assessed(&headers) {
        Assessment::Shared(freshness) => {
            assert!(!control.no_store && !control.private);
            assert!(freshness.lifetime <= Duration::from_secs(1 << 31));
            assert_eq!(freshness.no_cache, control.no_cache);
        }
        Assessment::Uncacheable(_) => {}
    }
    for line in headers.get_all(CACHE_CONTROL) {
        // Whatever stands before it, a line that ends so forbids.
        let ended = [line.as_bytes(), b", no-store"].concat();
        let ended = HeaderValue::from_bytes(&ended).expect("a value and ASCII are a value");
        assert!(CacheControl::of(&HeaderMap::from_iter([(CACHE_CONTROL, ended)])).no_store);
    }
    headers.append(CACHE_CONTROL, HeaderValue::from_static("No-Store"));
    assert!(matches!(assessed(&headers), Assessment::Uncacheable(_)));
}

/// A response's fields: a targeted field counts alone if it is sound, and not at all if it is not
/// (RFC 9213 section 2.2).
pub fn targeted(bytes: &[u8]) {
    const FIELDS: [&str; 2] = ["tidegate-cache-control", "cdn-cache-control"];
    let headers = headers_of(bytes);
    let control = CacheControl::of(&headers);
    let with = |name: HeaderName, value: &'static str| {
        let mut headers = headers.clone();
        headers.append(name, HeaderValue::from_static(value));
        headers
    };
    if control.is_targeted {
        assert!(FIELDS.iter().any(|name| headers.contains_key(*name)));
        let others = with(CACHE_CONTROL, "no-store, private, max-age=1");
        assert_eq!(CacheControl::of(&others), control);
    }
    // One broken line spoils the field it is in, and nothing else.
    for name in FIELDS {
        let mut without = headers.clone();
        without.remove(name);
        let spoilt = with(HeaderName::from_static(name), "=");
        assert_eq!(CacheControl::of(&spoilt), CacheControl::of(&without));
    }
    if let Some(lifetime) = control.s_maxage.or(control.max_age) {
        assert!(lifetime <= Duration::from_secs(1 << 31));
    }
    let expires = with(EXPIRES, "0");
    assert_eq!(CacheControl::of(&expires), control, "a date says nothing about directives");
}

/// The head of an origin's response as it comes: what is let through is stored without what belongs
/// to the connection, and what is answered from it is framed by us.
pub fn origin_head(bytes: &[u8]) {
    let Some(length) = head::end(bytes, 0) else { return };
    if head::check(Kind::Response, &bytes[..length]).is_err() {
        return;
    }
    let code = bytes.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
    let Some(status) = code.filter(|status| !status.is_informational()) else { return };
    let headers = headers_of(&bytes[..length]);
    let stored = Stored::new(status, &headers, UNIX_EPOCH);
    let withheld = response::withheld_fields(&headers);
    let options = headers.get_all(CONNECTION).iter();
    let options: Vec<_> = options.flat_map(|line| line.as_bytes().split(|b| *b == b',')).collect();
    for fields in [stored.fields(), &withheld] {
        for name in ["connection", "transfer-encoding", "content-length", "content-range", "age"] {
            assert!(!fields.contains_key(name), "{name} is made anew");
        }
        for name in options.iter().filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        {
            assert!(!fields.contains_key(&name) || name == "date", "{name} went no further");
        }
    }
    assert!(withheld.keys().all(|name| !stored.fields().contains_key(name) || name == "date"));
    let whole = response::content(&stored, None, Some(10), Duration::ZERO).headers;
    let lengths = whole.get_all(CONTENT_LENGTH).iter().count();
    assert_eq!(lengths, usize::from(stored.status() != StatusCode::NO_CONTENT));
    let part = ByteRange::new(2, 5);
    let part = response::content(&stored, part, Some(10), Duration::ZERO).headers;
    assert_eq!(part[CONTENT_RANGE], "bytes 2-4/10");
    assert_eq!(part[CONTENT_LENGTH], "3");
    let unchanged = response::not_modified(&stored, Duration::ZERO);
    assert!(!unchanged.headers.contains_key(CONTENT_LENGTH));
}

/// A type on the first line, then pairs of bytes: an answer in parts is read back by whoever goes
/// from boundary to boundary.
pub fn multipart(bytes: &[u8]) {
    let (content_type, spans) = split_once(bytes, b"\n");
    let fields = headers_of(&[b"content-type:", content_type].concat());
    let stored = Stored::new(StatusCode::OK, &fields, UNIX_EPOCH);
    let mut ranges = Vec::new();
    let mut at = 0;
    for pair in spans.chunks_exact(2).take(RANGES_ANSWERED_MAX) {
        let start = at + 1 + u64::from(pair[0]);
        let range = ByteRange::new(start, start + 1 + u64::from(pair[1]));
        let range = range.expect("it has a byte at least");
        at = range.end();
        ranges.push(range);
    }
    let (complete, boundary) = (at + 1, "tidegate-1");
    let written = Multipart::of(&stored, &ranges, complete, boundary);
    let mut body = Vec::new();
    for (head, range) in &written.parts {
        body.extend_from_slice(head);
        // Never a line of its own, as the boundary is a token nobody else knows.
        body.extend((range.start()..range.end()).map(|at| b"0123456789abcdef"[at as usize % 16]));
    }
    body.extend_from_slice(&written.end);
    assert_eq!(body.len() as u64, written.length_bytes);
    let mut rest = &body[..];
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    for range in &ranges {
        let (before, after) = split_once(rest, &delimiter);
        let (head, content) = split_once(after, b"\r\n\r\n");
        assert!(before.is_empty() && head.starts_with(b"\r\n"));
        let carried = headers_of(head);
        assert_eq!(carried.get(CONTENT_TYPE), stored.fields().get(CONTENT_TYPE));
        let carried = ContentRange::parse(&carried[CONTENT_RANGE]).expect("it is ours");
        assert_eq!((carried.range(), carried.complete()), (Some(*range), Some(complete)));
        rest = &content[range.length_bytes() as usize..];
    }
    assert_eq!(rest, [&delimiter[..], b"--\r\n"].concat());
}
