//! Validators and preconditions: 304, 412, and whether a range still holds (RFC 9110 sections 8.8,
//! 13).
//!
//! A field that is broken never makes a condition true that decides over bytes: a broken `If-Range`
//! fails, a broken date is ignored, a broken entity tag matches nothing.

use std::time::{Duration, SystemTime};

use http::header::{
    DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::syntax::{date, sole, trimmed};

/// An entity tag: `"opaque"`, or weak: `W/"opaque"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    value: HeaderValue,
}

impl EntityTag {
    /// `None` unless the value is exactly one well-formed entity tag.
    pub fn parse(value: &HeaderValue) -> Option<EntityTag> {
        let (_, rest) = TagRef::split_first(value.as_bytes())?;
        rest.is_empty().then(|| EntityTag { value: value.clone() })
    }

    /// Whether it says no more than that two versions mean the same.
    pub fn is_weak(&self) -> bool {
        self.as_ref().weak
    }

    /// As it is written in a field: the way to ask an origin with `If-None-Match` or `If-Range`.
    pub fn as_header(&self) -> &HeaderValue {
        &self.value
    }

    fn as_ref(&self) -> TagRef<'_> {
        let (tag, _) = TagRef::split_first(self.value.as_bytes()).expect("parse checked the form");
        tag
    }
}

/// An entity tag among the bytes of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TagRef<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> TagRef<'a> {
    /// The tag that `bytes` start with, and what follows. `W/` is case-sensitive (section 8.8.3).
    fn split_first(bytes: &'a [u8]) -> Option<(TagRef<'a>, &'a [u8])> {
        let (weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, bytes),
        };
        let rest = quoted.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| !is_etag_character(*byte))?;
        let rest_after = rest[end..].strip_prefix(b"\"")?;
        Some((TagRef { weak, opaque: &rest[..end] }, rest_after))
    }

    /// Section 8.8.3.2.
    fn strong_matches(self, other: TagRef<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Section 8.8.3.2.
    fn weak_matches(self, other: TagRef<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// What tells one version of an object from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    pub(super) etag: Option<EntityTag>,
    pub(super) last_modified: Option<SystemTime>,
    /// Whether `last_modified` could not be shared by two versions (section 8.8.2.2).
    pub(super) date_is_strong: bool,
    /// What `If-Modified-Since` is compared with where there is no `Last-Modified`.
    pub(super) made_at: Option<SystemTime>,
}

impl Validator {
    /// Of a response as its origin sent it. A repeated or broken field is no validator.
    pub fn of(headers: &HeaderMap) -> Validator {
        let last_modified = sole(headers, &LAST_MODIFIED).and_then(date);
        let made_at = sole(headers, &DATE).and_then(date);
        let date_is_strong = match (last_modified, made_at) {
            (Some(modified), Some(made)) => {
                made.duration_since(modified).is_ok_and(|settled| settled >= Duration::from_secs(1))
            }
            _ => false,
        };
        let etag = sole(headers, &ETAG).and_then(EntityTag::parse);
        Validator { etag, last_modified, date_is_strong, made_at }
    }

    /// The same, with the time of receipt where the origin sent no `Date`.
    pub(super) fn made_by(mut self, received_at: SystemTime) -> Validator {
        self.made_at = self.made_at.or(Some(received_at));
        self
    }

    /// The same, but a `Last-Modified` that `stored` has too is as strong as it was there: neither
    /// a later `Date` nor a missing one says anything about the bytes that are stored.
    pub(super) fn confirming(mut self, stored: &Validator) -> Validator {
        if self.last_modified == stored.last_modified {
            self.date_is_strong = stored.date_is_strong;
        }
        self
    }

    /// The entity tag, if there is a well-formed one.
    pub fn etag(&self) -> Option<&EntityTag> {
        self.etag.as_ref()
    }

    /// When the version was last modified, as far as its origin says.
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified
    }

    /// Whether equal validators mean equal bytes, so that ranges may be combined (RFC 9111
    /// section 3.4).
    ///
    /// A weak entity tag is the origin's own word that they do not, whatever the date says.
    pub fn is_strong(&self) -> bool {
        self.etag.as_ref().map_or(self.date_is_strong, |etag| !etag.is_weak())
    }

    /// What `If-Range` says to be given a part of this version only; `None` unless it is strong.
    pub fn if_range_value(&self) -> Option<HeaderValue> {
        match &self.etag {
            Some(etag) => (!etag.is_weak()).then(|| etag.as_header().clone()),
            None => {
                let date = self.last_modified.filter(|_| self.date_is_strong)?;
                HeaderValue::try_from(httpdate::fmt_http_date(date)).ok()
            }
        }
    }

    /// Whether both are strong and the same: the bytes belong to one version.
    pub fn strong_matches(&self, other: &Validator) -> bool {
        match (&self.etag, &other.etag) {
            (Some(ours), Some(theirs)) => ours.as_ref().strong_matches(theirs.as_ref()),
            (None, None) => {
                self.date_is_strong
                    && other.date_is_strong
                    && self.last_modified == other.last_modified
            }
            _ => false,
        }
    }

    /// Whether a 304 with the validator `other` speaks of this version (RFC 9111 section 4.3.4).
    ///
    /// Without any validator it is taken to: it answers a question about this version alone.
    pub fn is_confirmed_by(&self, other: &Validator) -> bool {
        match (&self.etag, &other.etag) {
            (Some(ours), Some(theirs)) if theirs.is_weak() => {
                ours.as_ref().weak_matches(theirs.as_ref())
            }
            (Some(ours), Some(theirs)) => ours.as_ref().strong_matches(theirs.as_ref()),
            (None, Some(_)) => false,
            (_, None) => other.last_modified.is_none() || self.last_modified == other.last_modified,
        }
    }
}

/// What a request's preconditions make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were none; `If-Range` is asked after this.
    Proceed,
    /// 304: the viewer has this version.
    NotModified,
    /// 412: the viewer wants another version.
    PreconditionFailed,
}

/// The order of RFC 9110 section 13.2.2, for GET and HEAD of a version that is there.
///
/// Only for what would be answered with a 2xx: preconditions on anything else are ignored (13.2.1).
pub fn evaluate(headers: &HeaderMap, validator: &Validator) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !names_version(headers, IF_MATCH, validator, Comparison::Strong) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(since) = sole(headers, &IF_UNMODIFIED_SINCE).and_then(date)
        && validator.last_modified.is_some_and(|modified| modified > since)
    {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if names_version(headers, IF_NONE_MATCH, validator, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = sole(headers, &IF_MODIFIED_SINCE).and_then(date)
        // A cache compares with `Date` where there is no `Last-Modified` (RFC 9111 section 4.3.2).
        && validator.last_modified.or(validator.made_at).is_some_and(|modified| modified <= since)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` beside these fields is to be honoured; true without `If-Range` (section
/// 13.1.5).
pub fn if_range_holds(headers: &HeaderMap, validator: &Validator) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = sole(headers, &IF_RANGE) else { return false };
    if let Some(tag) = EntityTag::parse(value) {
        let ours = validator.etag.as_ref();
        return ours.is_some_and(|ours| ours.as_ref().strong_matches(tag.as_ref()));
    }
    validator.date_is_strong && date(value).is_some_and(|at| validator.last_modified == Some(at))
}

/// How two entity tags are compared (section 8.8.3.2).
#[derive(Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether the field is `*` or names a tag that matches the validator's.
fn names_version(
    headers: &HeaderMap,
    name: HeaderName,
    validator: &Validator,
    comparison: Comparison,
) -> bool {
    let ours = validator.etag.as_ref().map(EntityTag::as_ref);
    headers.get_all(name).iter().any(|line| {
        let line = trimmed(line.as_bytes());
        line == b"*"
            || ours.is_some_and(|ours| {
                tags(line).any(|tag| match comparison {
                    Comparison::Strong => ours.strong_matches(tag),
                    Comparison::Weak => ours.weak_matches(tag),
                })
            })
    })
}

/// The entity tags of a list; a member that is none is skipped up to the next comma.
fn tags(list: &[u8]) -> impl Iterator<Item = TagRef<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            while let [b' ' | b'\t' | b',', tail @ ..] = rest {
                rest = tail;
            }
            if rest.is_empty() {
                return None;
            }
            let found = TagRef::split_first(rest);
            let after = found.map_or(rest, |(_, after)| after);
            let comma = after.iter().position(|byte| *byte == b',').unwrap_or(after.len());
            let stands_alone = trimmed(&after[..comma]).is_empty();
            rest = &after[comma..];
            if let Some((tag, _)) = found
                && stands_alone
            {
                return Some(tag);
            }
        }
    })
}

/// `etagc` of section 8.8.3; a backslash escapes nothing.
fn is_etag_character(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    fn validator(lines: &[(&'static str, &str)]) -> Validator {
        Validator::of(&headers(lines))
    }

    fn tagged(tag: &str) -> Validator {
        validator(&[("etag", tag), ("last-modified", MODIFIED), ("date", AFTER)])
    }

    #[test]
    fn an_entity_tag_is_quoted_and_opaque() {
        // RFC 9110 8.8.3.
        for (text, weak) in [
            ("\"xyzzy\"", false),
            ("W/\"xyzzy\"", true),
            ("\"\"", false),
            ("\"a,b\"", false),
            ("\"a\\\"", false),
            ("\"!#[]~\"", false),
            ("\"é\"", false),
        ] {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            let tag = EntityTag::parse(&value).expect(text);
            assert_eq!(tag.is_weak(), weak, "{text}");
            assert_eq!(tag.as_header(), &value);
        }
        for text in [
            "",
            "\"",
            "xyzzy",
            "w/\"x\"",
            "W\"x\"",
            "W/ \"x\"",
            "\"a\"b",
            "\"a b\"",
            "\"a\"\"",
            "\"a\", \"b\"",
            "'a'",
            "*",
            "\"a\"-gzip",
            "\"a\tb\"",
        ] {
            assert_eq!(EntityTag::parse(&HeaderValue::from_str(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn comparison_follows_the_table_of_the_rfc() {
        // RFC 9110 8.8.3.2, table 3.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let stored = validator(&[("etag", one)]);
            let asked = headers(&[("if-none-match", other)]);
            let not_modified = evaluate(&asked, &stored) == Verdict::NotModified;
            assert_eq!(not_modified, weak, "{one} {other}");
            let asked = headers(&[("if-match", other)]);
            let proceeds = evaluate(&asked, &stored) == Verdict::Proceed;
            assert_eq!(proceeds, strong, "{one} {other}");
            assert_eq!(stored.strong_matches(&validator(&[("etag", other)])), strong);
        }
    }

    #[test]
    fn preconditions_are_taken_in_the_order_of_the_rfc() {
        use Verdict::{NotModified, PreconditionFailed, Proceed};

        // RFC 9110 13.2.2; the stored version has the tag "a" and was modified at MODIFIED.
        for (lines, verdict) in [
            (&[][..], Proceed),
            // Step 1: If-Match.
            (&[("if-match", "\"a\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "\"b\", \"a\"")], Proceed),
            (&[("if-match", "\"b\""), ("if-match", "\"a\"")], Proceed),
            (&[("if-match", "\"b\"")], PreconditionFailed),
            (&[("if-match", "W/\"a\"")], PreconditionFailed),
            (&[("if-match", "")], PreconditionFailed),
            (&[("if-match", "a")], PreconditionFailed),
            // Step 2: If-Unmodified-Since, only without If-Match.
            (&[("if-unmodified-since", MODIFIED)], Proceed),
            (&[("if-unmodified-since", AFTER)], Proceed),
            (&[("if-unmodified-since", BEFORE)], PreconditionFailed),
            (&[("if-unmodified-since", "0")], Proceed),
            (&[("if-unmodified-since", BEFORE), ("if-unmodified-since", BEFORE)], Proceed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Proceed),
            // Step 3: If-None-Match.
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", " * ")], NotModified),
            (&[("if-none-match", "\"b\" ,, W/\"a\"")], NotModified),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "x, \"a\"")], NotModified),
            (&[("if-none-match", "\"b\"")], Proceed),
            (&[("if-none-match", "a")], Proceed),
            (&[("if-none-match", "\"a")], Proceed),
            (&[("if-none-match", "\"a\"x")], Proceed),
            (&[("if-none-match", "\"b,\"a\"")], Proceed),
            (&[("if-none-match", "")], Proceed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], PreconditionFailed),
            (&[("if-unmodified-since", BEFORE), ("if-none-match", "\"a\"")], PreconditionFailed),
            // Step 4: If-Modified-Since, only without If-None-Match.
            (&[("if-modified-since", MODIFIED)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
            (&[("if-modified-since", BEFORE)], Proceed),
            (&[("if-modified-since", "yesterday")], Proceed),
            (&[("if-modified-since", AFTER), ("if-modified-since", AFTER)], Proceed),
            (&[("if-none-match", "\"b\""), ("if-modified-since", AFTER)], Proceed),
        ] {
            let headers = headers(lines);
            assert_eq!(evaluate(&headers, &tagged("\"a\"")), verdict, "{lines:?}");
        }
    }

    #[test]
    fn preconditions_on_what_the_version_lacks() {
        let none = Validator::default();
        for (name, value, verdict) in [
            ("if-match", "\"a\"", Verdict::PreconditionFailed),
            ("if-match", "*", Verdict::Proceed),
            ("if-none-match", "\"a\"", Verdict::Proceed),
            ("if-none-match", "*", Verdict::NotModified),
            ("if-unmodified-since", BEFORE, Verdict::Proceed),
            ("if-modified-since", AFTER, Verdict::Proceed),
        ] {
            assert_eq!(evaluate(&headers(&[(name, value)]), &none), verdict, "{name}");
        }
        // RFC 9111 4.3.2: `Date`, then the time of receipt, stand in for `Last-Modified`.
        let since = headers(&[("if-modified-since", MODIFIED)]);
        let dated = validator(&[("date", MODIFIED)]);
        assert_eq!(evaluate(&since, &dated), Verdict::NotModified);
        let dated = validator(&[("date", AFTER)]);
        assert_eq!(evaluate(&since, &dated), Verdict::Proceed);
        let received = Validator::default().made_by(SystemTime::UNIX_EPOCH);
        assert_eq!(evaluate(&since, &received), Verdict::NotModified);
    }

    #[test]
    fn a_range_holds_only_for_the_same_strong_validator() {
        // RFC 9110 13.1.5. The version was modified one second before it was sent.
        for (lines, stored, holds) in [
            (&[][..], tagged("\"a\""), true),
            (&[("if-range", "\"a\"")], tagged("\"a\""), true),
            (&[("if-range", "\"b\"")], tagged("\"a\""), false),
            (&[("if-range", "W/\"a\"")], tagged("\"a\""), false),
            (&[("if-range", "W/\"a\"")], tagged("W/\"a\""), false),
            (&[("if-range", "\"a\"")], tagged("W/\"a\""), false),
            (&[("if-range", "\"a\"")], Validator::default(), false),
            (&[("if-range", "*")], tagged("\"a\""), false),
            (&[("if-range", "\"a\", \"b\"")], tagged("\"a\""), false),
            (&[("if-range", "\"a\""), ("if-range", "\"a\"")], tagged("\"a\""), false),
            (&[("if-range", "")], tagged("\"a\""), false),
            (&[("if-range", MODIFIED)], tagged("\"a\""), true),
            (&[("if-range", BEFORE)], tagged("\"a\""), false),
            (&[("if-range", AFTER)], tagged("\"a\""), false),
            (&[("if-range", MODIFIED)], validator(&[("last-modified", MODIFIED)]), false),
            (
                &[("if-range", MODIFIED)],
                validator(&[("last-modified", MODIFIED), ("date", MODIFIED)]),
                false,
            ),
            (&[("if-range", MODIFIED)], Validator::default(), false),
        ] {
            assert_eq!(if_range_holds(&headers(lines), &stored), holds, "{lines:?} {stored:?}");
        }
    }

    #[test]
    fn a_validator_is_strong_when_equal_means_the_same_bytes() {
        for (lines, strong) in [
            (&[][..], false),
            (&[("etag", "\"a\"")], true),
            (&[("etag", "W/\"a\"")], false),
            (&[("etag", "a")], false),
            (&[("etag", "\"a\""), ("etag", "\"b\"")], false),
            (&[("last-modified", MODIFIED)], false),
            (&[("last-modified", MODIFIED), ("date", AFTER)], true),
            (&[("last-modified", MODIFIED), ("date", MODIFIED)], false),
            (&[("last-modified", AFTER), ("date", MODIFIED)], false),
            (&[("etag", "W/\"a\""), ("last-modified", MODIFIED), ("date", AFTER)], false),
        ] {
            assert_eq!(validator(lines).is_strong(), strong, "{lines:?}");
            assert_eq!(validator(lines).strong_matches(&validator(lines)), strong, "{lines:?}");
        }
        let dated = validator(&[("last-modified", MODIFIED), ("date", AFTER)]);
        assert!(!dated.strong_matches(&tagged("\"a\"")));
    }

    #[test]
    fn a_304_refreshes_only_the_version_it_names() {
        // RFC 9111 4.3.4.
        let dated = validator(&[("last-modified", MODIFIED)]);
        for (stored, answer, confirms) in [
            (tagged("\"a\""), validator(&[("etag", "\"a\"")]), true),
            (tagged("\"a\""), validator(&[("etag", "W/\"a\"")]), true),
            (tagged("\"a\""), validator(&[("etag", "\"b\"")]), false),
            (tagged("W/\"a\""), validator(&[("etag", "\"a\"")]), false),
            (tagged("W/\"a\""), validator(&[("etag", "W/\"a\"")]), true),
            (dated.clone(), validator(&[("etag", "\"a\"")]), false),
            (dated.clone(), dated.clone(), true),
            (dated.clone(), validator(&[("last-modified", AFTER)]), false),
            (dated.clone(), Validator::default(), true),
            (tagged("\"a\""), dated.clone(), true),
            (tagged("\"a\""), validator(&[("last-modified", AFTER)]), false),
            (Validator::default(), dated, false),
        ] {
            assert_eq!(stored.is_confirmed_by(&answer), confirms, "{stored:?} {answer:?}");
        }
    }
}
