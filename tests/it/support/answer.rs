//! What one request gets from one script: a head and which bytes follow it. Pure.
//!
//! The honest part follows RFC 9110: preconditions first, then `If-Range`, then `Range`. The lies
//! are laid over it here, except those of the body's end, which the connection acts out.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};

use super::content::Content;
use super::script::{Ending, Framing, NotModified, Ranges, Script, Validators, content_of};

/// A request's head as the origin read it.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

impl RequestHead {
    /// The field's value, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// First and last byte of a single `bytes=` range; the last is `None` where it is open.
    pub(crate) fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range").strip_prefix("bytes=")?.split_once('-')?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    }

    fn suffix(&self) -> Option<u64> {
        self.header("range").strip_prefix("bytes=-")?.parse().ok()
    }

    /// Where the bytes asked for start in an object of this length.
    pub(super) fn start(&self, length_bytes: u64) -> u64 {
        let suffix = self.suffix().map(|suffix| length_bytes.saturating_sub(suffix));
        suffix.or(self.range().map(|(first, _)| first)).unwrap_or(0)
    }
}

/// A response: its head, and what follows.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) framing: Framing,
    pub(super) body: Body,
}

/// What follows a head.
#[derive(Debug)]
pub(super) enum Body {
    Text(String),
    /// The bytes `start..end` of `content`; `end` may lie beyond the object, as surplus.
    Object {
        content: Content,
        start: u64,
        end: u64,
    },
}

impl Answer {
    fn empty(status: u16, fields: Vec<(String, String)>) -> Answer {
        Answer { status, fields, framing: Framing::Length, body: Body::Text(String::new()) }
    }
}

/// What `request` gets where the object is at `version`; `number` counts the path's requests.
pub(super) fn answer(
    path: &str,
    script: &Script,
    request: &RequestHead,
    version: u32,
    number: u64,
) -> Answer {
    let mut fields = vec![];
    if !script.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        fields.push(("Date".to_owned(), httpdate::fmt_http_date(SystemTime::now())));
    }
    let filled = |value: &String| value.replace("{n}", &number.to_string());
    fields.extend(script.fields.iter().map(|(name, value)| (name.clone(), filled(value))));
    if let Some(status) = script.status {
        let text = if status == 304 { String::new() } else { format!("status {status}\n") };
        return Answer { body: Body::Text(text), ..Answer::empty(status, fields) };
    }

    fields.extend(validator_fields(script.validators, version));
    match precondition(script, request, version) {
        Some(status) => Answer::empty(status, fields),
        None => object_answer(path, script, request, version, fields),
    }
}

/// 200, 206 or 416 of the object itself.
fn object_answer(
    path: &str,
    script: &Script,
    request: &RequestHead,
    version: u32,
    mut fields: Vec<(String, String)>,
) -> Answer {
    let length = script.length_of(version);
    let variant = script.vary.map(|field| request.header(field));
    let content = content_of(path, variant, version);
    let object = |start, end| Body::Object { content, start, end };
    fields.push(("Content-Type".to_owned(), "video/mp4".to_owned()));
    if script.ranges != Ranges::Ignored {
        fields.push(("Accept-Ranges".to_owned(), "bytes".to_owned()));
    }

    let whole = object(0, length);
    let mut answer = Answer { status: 200, fields, framing: script.framing, body: whole };
    let uninvited = script.ranges == Ranges::Unasked
        && !request.headers.contains_key("range")
        && request.method == Method::GET;
    if uninvited && length > 0 {
        let last = (length - 1) / 2;
        answer.status = 206;
        answer.body = object(0, last + 1);
        answer.fields.push(("Content-Range".to_owned(), format!("bytes 0-{last}/{length}")));
    } else if ranged(script, request, version) {
        match resolve(script.ranges, request, length) {
            Some((first, last)) => {
                answer.status = 206;
                answer.body = object(first, last + 1);
                if let Some(label) = content_range(script.ranges, first, last, length) {
                    answer.fields.push(("Content-Range".to_owned(), label));
                }
            }
            None => {
                let label = ("Content-Range".to_owned(), format!("bytes */{length}"));
                answer.fields.push(label);
                return Answer::empty(416, answer.fields);
            }
        }
    }
    if let (Ending::SurplusDeclared(more), Body::Object { end, .. }) =
        (script.ending, &mut answer.body)
    {
        *end += more;
    }
    answer
}

/// `ETag` and `Last-Modified` of a version.
fn validator_fields(validators: Validators, version: u32) -> Vec<(String, String)> {
    let modified = ("Last-Modified".to_owned(), last_modified(version));
    match validators {
        Validators::Strong => vec![("ETag".to_owned(), etag(version)), modified],
        Validators::EtagAlone => vec![("ETag".to_owned(), etag(version))],
        Validators::Weak => vec![("ETag".to_owned(), format!("W/{}", etag(version)))],
        Validators::LastModified => vec![modified],
        Validators::None => vec![],
    }
}

/// The strong ETag of a version.
pub(crate) fn etag(version: u32) -> String {
    format!("\"v{version}\"")
}

/// The `Last-Modified` of a version, long ago and an hour apart.
pub(crate) fn last_modified(version: u32) -> String {
    let hours = Duration::from_secs(3600) * version;
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000) + hours)
}

/// 304 or 412 where a precondition decides (RFC 9110, 13.2.2).
fn precondition(script: &Script, request: &RequestHead, version: u32) -> Option<u16> {
    let etag = match script.validators {
        Validators::Strong | Validators::EtagAlone | Validators::Weak => Some(etag(version)),
        Validators::LastModified | Validators::None => None,
    };
    let named = |list: &str| {
        let tags = list.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        list == "*" || tags.into_iter().any(|tag| Some(tag) == etag.as_deref())
    };
    if request.headers.contains_key("if-match") && !named(request.header("if-match")) {
        return Some(412);
    }
    if script.not_modified == NotModified::Unknown {
        return None;
    }
    let unmodified = if request.headers.contains_key("if-none-match") {
        named(request.header("if-none-match"))
    } else {
        let held = matches!(script.validators, Validators::Strong | Validators::LastModified);
        held && request.header("if-modified-since") == last_modified(version)
    };
    unmodified.then_some(304)
}

/// Whether `Range` counts: asked for, a GET, understood, and `If-Range` holds.
fn ranged(script: &Script, request: &RequestHead, version: u32) -> bool {
    let asked = request.range().is_some() || request.suffix().is_some();
    let condition = request.header("if-range");
    let holds = match script.validators {
        _ if condition.is_empty() || script.ranges == Ranges::Unconditional => true,
        Validators::Strong => condition == etag(version) || condition == last_modified(version),
        Validators::LastModified => condition == last_modified(version),
        Validators::EtagAlone => condition == etag(version),
        Validators::Weak | Validators::None => false,
    };
    asked && holds && request.method == Method::GET && script.ranges != Ranges::Ignored
}

/// First and last byte of what is sent; `None` is 416.
fn resolve(ranges: Ranges, request: &RequestHead, length: u64) -> Option<(u64, u64)> {
    let first = request.start(length);
    let last = request.range().and_then(|(_, last)| last).unwrap_or(u64::MAX);
    let last = last.min(length.wrapping_sub(1));
    let satisfiable = length > 0 && first <= last && request.suffix() != Some(0);
    match ranges {
        Ranges::Refused => None,
        _ if !satisfiable => None,
        Ranges::Other(first, last) => Some((first, last)),
        Ranges::AtMost(bytes) => Some((first, last.min(first + bytes - 1))),
        _ => Some((first, last)),
    }
}

/// The `Content-Range` written over those bytes.
fn content_range(ranges: Ranges, first: u64, last: u64, length: u64) -> Option<String> {
    match ranges {
        Ranges::Unlabelled => None,
        Ranges::Garbled => Some("bytes x-y/z".to_owned()),
        Ranges::UnknownComplete => Some(format!("bytes {first}-{last}/*")),
        Ranges::Endless => {
            let (end, bytes) = (u64::MAX - 1, last - first + 1);
            Some(format!("bytes {}-{}/{end}", end - bytes, end - 1))
        }
        Ranges::Longer(by) => Some(format!("bytes {first}-{}/{}", last + by, length + by)),
        Ranges::WrongComplete(length) => Some(format!("bytes {first}-{last}/{length}")),
        Ranges::Shifted(by) => {
            let (first, last) = (first.saturating_add_signed(by), last.saturating_add_signed(by));
            Some(format!("bytes {first}-{last}/{length}"))
        }
        _ => Some(format!("bytes {first}-{last}/{length}")),
    }
}
