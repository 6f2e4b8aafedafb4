//! Heads made out of what is stored, and which fields are stored or passed on (RFC 9110, RFC 9111).
//!
//! A stored head holds what is true of the whole version, whichever part of it a response carried.
//! `Content-Length`, `Content-Range`, `Age`, `Accept-Ranges` and the status are made for each
//! answer.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AGE, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, DATE, ETAG, LAST_MODIFIED, ORIGIN,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::limits::RESPONSE_FIELDS_MAX;
use crate::message::cache_control::CacheControl;
use crate::message::conditional::Validator;
use crate::message::cors;
use crate::message::digest::{CONTENT_DIGEST, REPR_DIGEST};
use crate::message::multirange::Multipart;
use crate::message::range::ContentRange;
use crate::message::syntax::{date, members, sole, written};
use crate::message::vary::{AcceptEncoding, Vary};
use crate::moment::{http_date, since_1970};
use crate::object::ByteRange;
use crate::site::Rule;

/// The head of a version, as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) validator: Validator,
    pub(super) vary: Vary,
}

impl Stored {
    /// Of a response that may be shared, after a rule's edits.
    ///
    /// A 206 is stored as the 200 that it is a part of (RFC 9111 section 3.3).
    pub fn new(status: StatusCode, headers: &HeaderMap, received_at: SystemTime) -> Stored {
        let mut fields = storable_fields(headers);
        // Of the copies: an entity tag must not pin the buffer of the connection it came by.
        let validator = Validator::of(&fields).made_by(received_at);
        // RFC 9110 section 6.6.1: who receives a response without a sound `Date` gives it one.
        if sole(&fields, &DATE).and_then(date).is_none() {
            fields.insert(DATE, date_value(received_at));
        }
        let is_part = status == StatusCode::PARTIAL_CONTENT;
        let withheld = CacheControl::of(headers).withheld;
        if !is_part && !withheld.contains(&CONTENT_DIGEST) {
            // True of the whole, which this is; an answer with a part of it leaves it out.
            for digest in headers.get_all(CONTENT_DIGEST) {
                let copy = HeaderValue::from_bytes(digest.as_bytes());
                fields.append(CONTENT_DIGEST, copy.expect("it was a value before"));
            }
        }
        let status = if is_part { StatusCode::OK } else { status };
        Stored { status, fields, validator, vary: Vary::of(headers) }
    }

    /// The same version after a 304, of the fields that [`merged`] made.
    pub fn refreshed(&self, merged: &HeaderMap, received_at: SystemTime) -> Stored {
        let mut stored = Stored::new(self.status, merged, received_at);
        stored.validator = stored.validator.confirming(&self.validator);
        stored
    }

    /// The same with other content, which this entity tag is for: what the origin said of its own
    /// is left out.
    pub fn with_content(&self, etag: HeaderValue) -> Stored {
        let mut stored = self.clone();
        let of_content = [LAST_MODIFIED, CONTENT_DIGEST, REPR_DIGEST, CONTENT_MD5, DIGEST];
        of_content.iter().for_each(|name| drop(stored.fields.remove(name)));
        stored.fields.insert(ETAG, etag);
        // When it was made of that, nobody knows: no date tells it from others.
        stored.validator = Validator { made_at: None, ..Validator::of(&stored.fields) };
        stored
    }

    /// The status of an answer without a range.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What [`storable_fields`] left, and a `Date`.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// What tells this version from others.
    pub fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Which request fields chose it.
    pub fn vary(&self) -> &Vary {
        &self.vary
    }

    /// About how many bytes of memory its fields take, for the governor.
    pub fn size_bytes(&self) -> usize {
        let text: usize =
            self.fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        // `http` keeps a slot of about 104 bytes a field and up to two index entries of 4 bytes.
        size_of::<Stored>() + text + self.fields.capacity() * 112
    }
}

/// The head of an answer with content: 206 with `range`, else the stored status.
///
/// `length` is that of the whole object, where it is known; only then ranges are offered. A `range`
/// is one of a stored 200 that was resolved within `length`. For HEAD the same head goes alone.
pub fn content(
    stored: &Stored,
    range: Option<ByteRange>,
    length: Option<u64>,
    age: Duration,
) -> Parts {
    let mut headers = stored.fields.clone();
    let mut status = stored.status;
    let mut content_length = length;
    if let Some(range) = range {
        status = StatusCode::PARTIAL_CONTENT;
        let carried = ContentRange::of(range, length).expect("a resolved range lies in its object");
        content_length = Some(range.length_bytes()).filter(|_| !carried.is_endless());
        headers.insert(CONTENT_RANGE, written(&carried));
        headers.remove(CONTENT_DIGEST);
    }
    // RFC 9110 section 8.6: a 204 has no length.
    if let Some(length) = content_length.filter(|_| status != StatusCode::NO_CONTENT) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let rangeable = length.is_some() && stored.status == StatusCode::OK;
    if rangeable || range.is_some() {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    head(status, headers)
}

/// The head of an answer with several parts (RFC 9110 section 15.3.7.2).
pub fn parts(stored: &Stored, parts: &Multipart, age: Duration) -> Parts {
    let mut headers = stored.fields.clone();
    headers.insert(CONTENT_TYPE, parts.content_type.clone());
    headers.remove(CONTENT_DIGEST);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(parts.length_bytes));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    head(StatusCode::PARTIAL_CONTENT, headers)
}

/// A 304 for a viewer who has the stored version (RFC 9110 section 15.4.5).
///
/// Carries what a 200 would, but for what describes the content the viewer has already.
pub fn not_modified(stored: &Stored, age: Duration) -> Parts {
    let mut headers = HeaderMap::with_capacity(stored.fields.len() + FIELDS_ADDED);
    let has_etag = stored.fields.contains_key(ETAG);
    for (name, value) in &stored.fields {
        let needless = has_etag && *name == LAST_MODIFIED;
        if !describes_content(name) && !needless {
            headers.append(name, value.clone());
        }
    }
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    head(StatusCode::NOT_MODIFIED, headers)
}

/// A 416, which says how long the object is (RFC 9110 section 15.5.17).
pub fn unsatisfiable(length: u64) -> Parts {
    let mut headers = HeaderMap::with_capacity(FIELDS_ADDED);
    headers.insert(CONTENT_RANGE, written(&ContentRange::unsatisfied(length)));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    head(StatusCode::RANGE_NOT_SATISFIABLE, headers)
}

/// Digests of before RFC 9530.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const DIGEST: HeaderName = HeaderName::from_static("digest");

fn head(status: StatusCode, headers: HeaderMap) -> Parts {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.headers = headers;
    parts
}

/// What of a response is stored, in memory of its own (RFC 9111 section 3.1).
///
/// Left out is what belongs to a connection, to the part of the object that was carried, to the
/// origin's own address, or to the one who asked.
pub fn storable_fields(headers: &HeaderMap) -> HeaderMap {
    let withheld = CacheControl::of(headers).withheld;
    copied(headers, |name| {
        is_end_to_end(headers, name) && !REMADE.contains(&name.as_str()) && !withheld.contains(name)
    })
}

/// What of a response is for the one who asked alone: the fields that `private` or `no-cache` names
/// (RFC 9111 sections 5.2.2.4 and 5.2.2.7), in memory of their own.
pub fn withheld_fields(headers: &HeaderMap) -> HeaderMap {
    let withheld = CacheControl::of(headers).withheld;
    copied(headers, |name| {
        is_end_to_end(headers, name) && !REMADE.contains(&name.as_str()) && withheld.contains(name)
    })
}

/// What of a viewer's request goes to the origin, in memory of its own.
///
/// Ranges, conditions and freshness are ours to ask for; what a viewer claims of his way here, or
/// of a target other than the one looked up, would let him poison what others are given.
pub fn forwarded_request_fields(headers: &HeaderMap, rule: &Rule) -> HeaderMap {
    let mut forwarded = copied(headers, |name| {
        is_forwarded(name)
            && rule.viewer_fields.pass(name)
            && is_end_to_end(headers, name)
            && *name != ACCEPT_ENCODING
            && (*name != ORIGIN || rule.cors.is_none())
    });
    forwarded.insert(ACCEPT_ENCODING, AcceptEncoding::of(headers).as_header());
    join_cookies(&mut forwarded);
    forwarded
}

/// HTTP/2 may send each in a line of its own, HTTP/1.1 knows one line alone (RFC 9113 section
/// 8.2.3).
pub(super) fn join_cookies(fields: &mut HeaderMap) {
    let lines: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1 {
        let joined = HeaderValue::from_bytes(&lines.join(&b"; "[..]));
        fields.insert(COOKIE, joined.expect("parts of values are a value"));
    }
}

/// Whether a viewer's field of this name can reach an origin, in one spelling or another.
pub(super) fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    !HOP_BY_HOP.contains(&name)
        && !KEPT_FROM_ORIGINS.contains(&name)
        && !["x-forwarded-", "cmcd-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Makes a rule's edits to what an origin answers, before anything is read of it.
pub fn edit(rule: &Rule, answer: &mut HeaderMap) {
    rule.response.apply_to(answer);
    if rule.cors.is_some() {
        cors::remove_from_origin(answer);
    }
}

/// The stored fields brought up to date by a 304's (RFC 9111 sections 3.2 and 4.3.4).
///
/// Only for a 304 that [`Validator::is_confirmed_by`] accepts. Freshness is assessed of the result,
/// so it has the `Age` and `Date` of the 304, or none; then [`Stored::refreshed`] stores it. `None`
/// when there are more than [`RESPONSE_FIELDS_MAX`]: ask for the object anew.
pub fn merged(stored: &HeaderMap, not_modified: &HeaderMap) -> Option<HeaderMap> {
    let updates = |name: &HeaderName| {
        is_end_to_end(not_modified, name)
            && (*name == AGE || !REMADE.contains(&name.as_str()))
            && !BOUND_TO_BYTES.contains(&name.as_str())
    };
    let mut merged = stored.clone();
    // An old `Date` would make the response as old as when it was first stored.
    merged.remove(DATE);
    for name in not_modified.keys().filter(|name| updates(name)) {
        merged.remove(name);
        for value in not_modified.get_all(name) {
            merged.append(name, value.clone());
        }
    }
    (merged.len() <= RESPONSE_FIELDS_MAX).then_some(merged)
}

/// The fields kept, their values copied into one buffer: the originals pin a connection's buffer.
pub(super) fn copied(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let kept = || headers.iter().filter(|(name, _)| keep(name));
    let mut text = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    let mut copies = HeaderMap::with_capacity(kept().count() + FIELDS_ADDED);
    for (_, value) in kept() {
        text.extend_from_slice(value.as_bytes());
    }
    let mut rest: Bytes = text.freeze();
    for (name, value) in kept() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("it was a name before");
        let copy = rest.split_to(value.len());
        let mut copy = HeaderValue::from_maybe_shared(copy).expect("it was a value before");
        copy.set_sensitive(value.is_sensitive());
        copies.append(name, copy);
    }
    copies
}

/// Whether a field is for more than this connection (RFC 9110 section 7.6.1).
pub(super) fn is_end_to_end(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    let mut options = lines.flat_map(|line| members(line.as_bytes()));
    !HOP_BY_HOP.contains(&name.as_str())
        && !options.any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Representation metadata that a 304 leaves out (RFC 9110 section 15.4.5).
fn describes_content(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-digest"
            | "content-disposition"
            | "content-encoding"
            | "content-language"
            | "content-type"
            | "digest"
            | "repr-digest"
    )
}

/// RFC 9110 section 7.6.1 and the fields of proxies.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Of a response: made anew for each answer, or true only of the bytes or the address it came with.
const REMADE: [&str; 7] = [
    "accept-ranges",
    "age",
    "alt-svc",
    "content-digest",
    "content-length",
    "content-md5",
    "content-range",
];

/// Of a 304: what belongs to the stored bytes (RFC 9111 section 3.2). Its entity tag says the same
/// as the stored one, or is weak, and the bytes that are here are no weaker for that.
const BOUND_TO_BYTES: [&str; 2] = ["content-encoding", "etag"];

/// Of a request: what the edge asks in its own words or not at all; what a viewer tells of himself
/// and of how badly he wants it; what some origins take for another host, path, method or address.
const KEPT_FROM_ORIGINS: [&str; 39] = [
    "accept-ranges",
    "access-control-request-headers",
    "access-control-request-method",
    "cache-control",
    "cf-connecting-ip",
    "client-ip",
    "content-length",
    "content-range",
    "early-data",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "priority",
    "range",
    "true-client-ip",
    "want-content-digest",
    "want-repr-digest",
    "x-backend-host",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-proxy-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Room for the fields an answer adds, so that its map seldom grows.
const FIELDS_ADDED: usize = 6;

/// A time of day as a field.
fn date_value(time: SystemTime) -> HeaderValue {
    written(&http_date(since_1970(time)))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::header::AUTHORIZATION;

    use super::*;
    use crate::site::ViewerFields;

    const NOW: Duration = Duration::from_secs(784_111_777);
    const DATE_NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const DATED: (&str, &str) = ("date", DATE_NOW);

    type Lines = [(&'static str, &'static str)];

    fn headers(lines: &Lines) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn stored(status: u16, lines: &Lines) -> Stored {
        let status = StatusCode::from_u16(status).unwrap();
        Stored::new(status, &headers(lines), UNIX_EPOCH + NOW)
    }

    /// Name and value of every line, in order of names.
    fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        lines.sort_by_key(|(name, _)| *name);
        lines
    }

    const FILM: &Lines = &[
        ("date", DATE_NOW),
        ("content-type", "video/mp4"),
        ("content-length", "1000"),
        ("etag", "\"a\""),
        ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT"),
        ("cache-control", "max-age=60"),
        ("vary", "origin"),
        ("access-control-allow-origin", "*"),
        ("age", "5"),
        ("accept-ranges", "none"),
    ];

    #[test]
    fn an_answer_with_content_says_what_it_carries() {
        let film = stored(200, FILM);
        let range = ByteRange::new(100, 200);
        let kept = [
            ("access-control-allow-origin", "*"),
            ("cache-control", "max-age=60"),
            ("content-type", "video/mp4"),
            ("date", DATE_NOW),
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT"),
            ("vary", "origin"),
        ];
        for (range, length, status, made) in [
            (None, Some(1000), 200, &[("accept-ranges", "bytes"), ("content-length", "1000")][..]),
            (None, None, 200, &[]),
            (
                range,
                Some(1000),
                206,
                &[
                    ("accept-ranges", "bytes"),
                    ("content-length", "100"),
                    ("content-range", "bytes 100-199/1000"),
                ],
            ),
            (
                range,
                None,
                206,
                &[
                    ("accept-ranges", "bytes"),
                    ("content-length", "100"),
                    ("content-range", "bytes 100-199/*"),
                ],
            ),
            (None, Some(0), 200, &[("accept-ranges", "bytes"), ("content-length", "0")]),
        ] {
            let parts = content(&film, range, length, Duration::from_millis(7999));
            assert_eq!(parts.status.as_u16(), status);
            let mut expected: Vec<_> = kept.iter().chain(made).copied().collect();
            expected.push(("age", "7"));
            expected.sort();
            assert_eq!(lines(&parts.headers), expected);
        }
    }

    #[test]
    fn a_part_is_stored_as_the_whole_it_is_of() {
        let part = stored(206, &[("content-range", "bytes 0-9/100"), ("content-length", "10")]);
        assert_eq!(part.status(), StatusCode::OK);
        assert_eq!(lines(part.fields()), [("date", DATE_NOW)]);
        let error = stored(404, &[]);
        let parts = content(&error, None, Some(3), Duration::ZERO);
        assert_eq!(parts.status, StatusCode::NOT_FOUND);
        assert!(!parts.headers.contains_key(ACCEPT_RANGES));
        let empty = content(&stored(204, &[]), None, Some(0), Duration::ZERO);
        assert!(!empty.headers.contains_key(CONTENT_LENGTH), "RFC 9110 8.6");
    }

    #[test]
    fn a_304_leaves_out_what_describes_the_content() {
        // RFC 9110 15.4.5.
        let parts = not_modified(&stored(200, FILM), Duration::from_secs(7));
        assert_eq!(parts.status, StatusCode::NOT_MODIFIED);
        let expected = [
            ("access-control-allow-origin", "*"),
            ("age", "7"),
            ("cache-control", "max-age=60"),
            ("date", DATE_NOW),
            ("etag", "\"a\""),
            ("vary", "origin"),
        ];
        assert_eq!(lines(&parts.headers), expected);
        let dated = stored(200, &[("last-modified", DATE_NOW), ("content-type", "a/b")]);
        let parts = not_modified(&dated, Duration::ZERO);
        assert!(parts.headers.contains_key(LAST_MODIFIED), "the only validator stays");
    }

    #[test]
    fn a_416_says_how_long_the_object_is() {
        let parts = unsatisfiable(1234);
        assert_eq!(parts.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(parts.headers[CONTENT_RANGE], "bytes */1234");
    }

    #[test]
    fn what_belongs_to_a_connection_or_a_part_is_not_stored() {
        // RFC 9110 7.6.1, RFC 9111 3.1.
        let response = headers(&[
            ("connection", "close, X-Hop ,, b@d"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "10"),
            ("content-range", "bytes 0-9/100"),
            ("content-digest", "sha-256=:x:"),
            ("content-md5", "x"),
            ("accept-ranges", "bytes"),
            ("age", "5"),
            ("alt-svc", "h3=\":443\""),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("cache-status", "OriginCache; hit"),
            ("x-kept", ""),
        ]);
        let expected = [
            ("cache-status", "OriginCache; hit"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-kept", ""),
        ];
        assert_eq!(lines(&storable_fields(&response)), expected);
        assert!(storable_fields(&HeaderMap::new()).is_empty());
    }

    #[test]
    fn a_stored_response_has_one_sound_date() {
        for (sent, kept) in [
            (&[][..], DATE_NOW),
            (&[("date", "Sun, 06 Nov 1994 08:00:00 GMT")], "Sun, 06 Nov 1994 08:00:00 GMT"),
            (&[("date", "today")], DATE_NOW),
            (&[("date", "Sun, 06 Nov 1994 08:00:00 GMT"), ("date", "x")], DATE_NOW),
        ] {
            assert_eq!(lines(stored(200, sent).fields()), [("date", kept)], "{sent:?}");
        }
        assert_eq!(date_value(UNIX_EPOCH - NOW), "Thu, 01 Jan 1970 00:00:00 GMT");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(date_value(far), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_made_up_date_does_not_make_a_last_modified_strong() {
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
        assert!(!stored(200, &[modified]).validator().is_strong());
        assert!(stored(200, &[modified, ("date", DATE_NOW)]).validator().is_strong());
    }

    #[test]
    fn a_viewers_request_is_passed_on_without_what_is_ours_to_say() {
        let request = headers(&[
            ("host", "a"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("range", "bytes=0-1"),
            ("if-range", "\"a\""),
            ("if-none-match", "\"a\""),
            ("if-modified-since", DATE_NOW),
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("x-forwarded-host", "evil"),
            ("x-original-url", "/evil"),
            ("forwarded", "host=evil"),
            ("accept-encoding", "gzip, deflate, br"),
            ("accept", "*/*"),
            ("authorization", "Basic x"),
            ("cookie", "a=b"),
            ("origin", "https://player.example"),
            ("user-agent", "player"),
        ]);
        let expected = [
            ("accept", "*/*"),
            ("accept-encoding", "br, gzip"),
            ("authorization", "Basic x"),
            ("cookie", "a=b"),
            ("origin", "https://player.example"),
            ("user-agent", "player"),
        ];
        let mut rule = Rule::everything();
        assert_eq!(lines(&forwarded_request_fields(&request, &rule)), expected);
        let none = forwarded_request_fields(&HeaderMap::new(), &rule);
        assert_eq!(lines(&none), [("accept-encoding", "identity")]);
        rule.viewer_fields = ViewerFields::Only(vec![AUTHORIZATION, HeaderName::from_static("te")]);
        let few = [("accept-encoding", "br, gzip"), ("authorization", "Basic x")];
        assert_eq!(lines(&forwarded_request_fields(&request, &rule)), few);
        let cookies = headers(&[("cookie", "a=b"), ("cookie", "c=d")]);
        let joined = forwarded_request_fields(&cookies, &Rule::everything());
        assert_eq!(lines(&joined), [("accept-encoding", "identity"), ("cookie", "a=b; c=d")]);
    }

    #[test]
    fn a_304_brings_the_stored_fields_up_to_date() {
        // RFC 9111 3.2.
        let film = stored(200, FILM);
        let answer = headers(&[
            ("date", "Sun, 06 Nov 1994 09:00:00 GMT"),
            ("cache-control", "max-age=10"),
            ("cache-control", "public"),
            ("age", "3"),
            ("etag", "W/\"a\""),
            ("content-length", "0"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes */0"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-new", "1"),
        ]);
        let merged = merged(film.fields(), &answer).unwrap();
        let expected = [
            ("access-control-allow-origin", "*"),
            ("age", "3"),
            ("cache-control", "max-age=10"),
            ("cache-control", "public"),
            ("content-type", "video/mp4"),
            ("date", "Sun, 06 Nov 1994 09:00:00 GMT"),
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT"),
            ("vary", "origin"),
            ("x-new", "1"),
        ];
        assert_eq!(lines(&merged), expected);
        let again = film.refreshed(&merged, UNIX_EPOCH + NOW);
        assert!(!again.fields().contains_key(AGE));
        assert!(again.validator().strong_matches(film.validator()));
    }

    #[test]
    fn a_304_without_a_date_makes_the_response_no_older() {
        let film = stored(200, FILM);
        let merged = merged(film.fields(), &HeaderMap::new()).unwrap();
        assert!(!merged.contains_key(DATE));
        let hour = Duration::from_secs(3600);
        let again = film.refreshed(&merged, UNIX_EPOCH + NOW + hour);
        assert_eq!(again.fields()[DATE], "Sun, 06 Nov 1994 09:49:37 GMT");
    }

    #[test]
    fn a_304_makes_a_date_neither_stronger_nor_weaker() {
        // RFC 9110 8.8.2.2: a second version of the same second would be confirmed just so.
        let weak = stored(200, &[("last-modified", DATE_NOW), ("date", DATE_NOW)]);
        let later = headers(&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")]);
        let merged = merged(weak.fields(), &later).unwrap();
        let again = weak.refreshed(&merged, UNIX_EPOCH + NOW);
        assert!(!again.validator().is_strong());
        let strong = stored(200, &[("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT"), DATED]);
        let merged = super::merged(strong.fields(), &HeaderMap::new()).unwrap();
        assert!(strong.refreshed(&merged, UNIX_EPOCH + NOW).validator().is_strong());
    }

    #[test]
    fn stored_fields_have_a_bound() {
        let names: Vec<_> = (0..RESPONSE_FIELDS_MAX)
            .map(|n| HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap())
            .collect();
        let one = HeaderValue::from_static("1");
        let full = HeaderMap::from_iter(names.into_iter().map(|name| (name, one.clone())));
        assert!(merged(&full, &headers(&[("x-1", "2")])).is_some());
        assert!(merged(&full, &headers(&[("x-new", "2")])).is_none());
    }
}
