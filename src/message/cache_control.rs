//! The directives of a response that decide about caching (RFC 9111 section 5.2.2).
//!
//! A field for caches like ours, where there is one (`targeted.rs`), else `Cache-Control`. Where a
//! field is broken or says two things, the reading that shares less wins. Unknown directives are
//! skipped.

mod targeted;

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};

use crate::message::syntax::{decimal, members, trimmed};

/// What the field that counts says, all its lines together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// Keep nothing of it.
    pub no_store: bool,
    /// Ask the origin before each use.
    pub no_cache: bool,
    /// For one viewer alone.
    pub private: bool,
    /// May be shared even where it otherwise could not.
    pub public: bool,
    /// Never use it stale.
    pub must_revalidate: bool,
    /// A shared cache must never use it stale.
    pub proxy_revalidate: bool,
    /// Only for caches that know what its status code means.
    pub must_understand: bool,
    /// It will not change while it is fresh (RFC 8246).
    pub immutable: bool,
    /// How long it is fresh; zero where the number is broken.
    pub max_age: Option<Duration>,
    /// The same for shared caches.
    pub s_maxage: Option<Duration>,
    /// How long after that it may be used while the origin is asked (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// The same where the origin answers with an error (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// Fields that `private` or `no-cache` names: they are for the one who asked, the rest is not.
    pub withheld: Vec<HeaderName>,
    /// Of a targeted field: `Expires` does not count beside it (RFC 9213 section 2.2).
    pub is_targeted: bool,
}

impl CacheControl {
    /// Of a response. Of repeated numbers the first counts (RFC 9111 section 4.2.1).
    pub fn of(headers: &HeaderMap) -> CacheControl {
        if let Some(targeted) = targeted::of(headers) {
            return targeted;
        }
        let mut found = CacheControl::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for directive in directives(line.as_bytes()) {
                found.add(directive);
            }
        }
        found
    }

    fn add(&mut self, directive: &[u8]) {
        let (name, argument) = split_directive(directive);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            6 if is("public") => self.public = true,
            7 if is("private") => self.private |= !self.withhold(argument),
            7 if is("max-age") => {
                self.max_age.get_or_insert(delta_seconds(argument));
            }
            8 if is("no-store") => self.no_store = true,
            8 if is("no-cache") => self.no_cache |= !self.withhold(argument),
            8 if is("s-maxage") => {
                self.s_maxage.get_or_insert(delta_seconds(argument));
            }
            9 if is("immutable") => self.immutable = true,
            14 if is("stale-if-error") => {
                self.stale_if_error.get_or_insert(delta_seconds(argument));
            }
            15 if is("must-revalidate") => self.must_revalidate = true,
            15 if is("must-understand") => self.must_understand = true,
            16 if is("proxy-revalidate") => self.proxy_revalidate = true,
            22 if is("stale-while-revalidate") => {
                self.stale_while_revalidate.get_or_insert(delta_seconds(argument));
            }
            _ => {}
        }
    }

    /// Whether `argument` names fields (sections 5.2.2.4 and 5.2.2.7), which are noted then; a list
    /// that is broken names none, nor does one of fields without which the rest means something
    /// else.
    fn withhold(&mut self, argument: Option<&[u8]>) -> bool {
        let Some(argument) = argument else { return false };
        let names = members(unquoted(argument)).map(HeaderName::from_bytes);
        let Ok(names) = names.collect::<Result<Vec<_>, _>>() else { return false };
        if names.is_empty() || names.iter().any(|name| INSEPARABLE.contains(&name.as_str())) {
            return false;
        }
        self.withheld.extend(names);
        true
    }
}

/// What says how a response is to be used, or what its bytes are.
const INSEPARABLE: [&str; 6] = [
    "cache-control",
    "cdn-cache-control",
    "content-encoding",
    "expires",
    "tidegate-cache-control",
    "vary",
];

/// Whether a response says that its content is to stay as it is (RFC 9111 section 5.2.2.6).
pub fn forbids_transforms(fields: &HeaderMap) -> bool {
    let mut lines = fields.get_all(CACHE_CONTROL).iter();
    let says = |directive: &[u8]| split_directive(directive).0.eq_ignore_ascii_case(NO_TRANSFORM);
    lines.any(|line| directives(line.as_bytes()).any(says))
}

const NO_TRANSFORM: &[u8] = b"no-transform";

/// The name of a directive, and what follows its `=`.
pub(super) fn split_directive(directive: &[u8]) -> (&[u8], Option<&[u8]>) {
    match directive.iter().position(|byte| *byte == b'=') {
        Some(at) => (trimmed(&directive[..at]), Some(&directive[at + 1..])),
        None => (directive, None),
    }
}

/// Zero, which is stale, for anything but a number (RFC 9111 section 4.2.1); quotes may be around
/// it.
fn delta_seconds(argument: Option<&[u8]>) -> Duration {
    seconds(argument).unwrap_or_default()
}

/// A number of seconds, in quotes or not; `None` for anything else.
pub(super) fn seconds(argument: Option<&[u8]>) -> Option<Duration> {
    let number = decimal(unquoted(argument.unwrap_or_default()))?;
    Some(Duration::from_secs(capped_seconds(number)))
}

/// Without the quotes around it, if they are.
fn unquoted(argument: &[u8]) -> &[u8] {
    let unquoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    unquoted.unwrap_or(argument)
}

/// No lifetime and no age is longer than 2^31 seconds (RFC 9111 section 1.2.2).
pub(super) fn capped_seconds(seconds: u64) -> u64 {
    seconds.min(1 << 31)
}

/// The members of the list, split at commas outside of quoted arguments.
///
/// A quote that is not closed, or closed inside an argument, quotes nothing: it hides no directive.
pub(super) fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = end_of_directive(rest);
            let directive = trimmed(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            if !directive.is_empty() {
                return Some(directive);
            }
        }
    })
}

fn end_of_directive(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b',', ..] => return at,
            [b'=', b'"', quoted @ ..] => at += 2 + closing_quote(quoted).map_or(0, |end| end + 1),
            _ => at += 1,
        }
    }
    at
}

/// Where the quoted string that `bytes` continue ends (RFC 9110 section 5.6.4), and its directive
/// too.
fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => {
                let mut after = bytes[at + 1..].iter().skip_while(|byte| b" \t".contains(byte));
                return after.next().is_none_or(|byte| *byte == b',').then_some(at);
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        CacheControl::of(&headers)
    }

    #[test]
    fn every_directive_is_known_in_any_case() {
        let all = CacheControl {
            no_store: true,
            no_cache: true,
            private: true,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            immutable: true,
            max_age: Some(Duration::from_secs(1)),
            s_maxage: Some(Duration::from_secs(2)),
            stale_while_revalidate: Some(Duration::from_secs(3)),
            stale_if_error: Some(Duration::from_secs(4)),
            withheld: Vec::new(),
            is_targeted: false,
        };
        let line = "no-store, no-cache,private ,public,must-revalidate\t,proxy-revalidate, \
            must-understand, immutable, max-age=1, s-maxage=2, stale-while-revalidate=3, \
            stale-if-error=4";
        assert_eq!(of(&[line]), all);
        assert_eq!(of(&[&line.to_uppercase()]), all);
        assert_eq!(of(&line.split(',').collect::<Vec<_>>()), all);
        assert_eq!(of(&[&line.replace(',', ",,")]), all);
    }

    #[test]
    fn numbers_are_read_once_and_broken_ones_are_stale() {
        const CAP: u64 = 1 << 31;
        for (lines, seconds) in [
            (&["max-age=60"][..], Some(60)),
            (&["Max-Age=60"], Some(60)),
            (&["max-age=0060"], Some(60)),
            (&["max-age=\"60\""], Some(60)),
            (&["max-age=0"], Some(0)),
            (&["max-age=2147483647"], Some(CAP - 1)),
            (&["max-age=2147483649"], Some(CAP)),
            (&["max-age=99999999999999999999999999"], Some(CAP)),
            // The first of several (RFC 9111 4.2.1).
            (&["max-age=1, max-age=60"], Some(1)),
            (&["max-age=60", "max-age=1"], Some(60)),
            (&["max-age=x, max-age=60"], Some(0)),
            // Invalid freshness is stale (4.2.1).
            (&["max-age"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["max-age=+60"], Some(0)),
            (&["max-age=1.5"], Some(0)),
            (&["max-age= 60"], Some(0)),
            (&["max-age=60s"], Some(0)),
            (&["max-age='60'"], Some(0)),
            (&["max-age=\"60"], Some(0)),
            (&["max-age=60;x"], Some(0)),
            (&["max-age =60"], Some(60)),
            (&["max-age: 60"], None),
            (&["maxage=60"], None),
            (&["x-max-age=60"], None),
            (&["=60"], None),
            (&[""], None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(of(lines).max_age, expected, "{lines:?}");
            let shared: Vec<_> = lines
                .iter()
                .map(|line| line.to_lowercase().replace("max-age", "s-maxage"))
                .collect();
            let shared: Vec<_> = shared.iter().map(String::as_str).collect();
            assert_eq!(of(&shared).s_maxage, expected, "{shared:?}");
        }
    }

    #[test]
    fn quoted_arguments_hide_what_they_quote_and_nothing_else() {
        let hidden = of(&["private=\"max-age=60, no-store\""]);
        assert!(hidden.private && !hidden.no_store && hidden.max_age.is_none());
        let hidden = of(&["private=\"max-age, no-store\""]);
        assert!(!hidden.private && !hidden.no_store && hidden.max_age.is_none());
        let escaped = of(&["ext=\"a\\\", no-store\", max-age=5"]);
        assert!(!escaped.no_store && escaped.max_age == Some(Duration::from_secs(5)));
        // A quote that is not closed hides nothing.
        for line in [
            "ext=\"a, no-store",
            "\", no-store",
            "ext=a\"b, no-store, c=\"d",
            "ext=\"a\\\", no-store",
            "ext=\"\\, no-store",
            "ext=\"a\" , no-store",
            "ext=\"a, no-store, c=\"d\"",
        ] {
            assert!(of(&[line]).no_store, "{line}");
        }
        assert!(!of(&["no-storex, xno-store, no store, no-store\u{e9}"]).no_store);
    }

    #[test]
    fn fields_that_are_named_are_withheld_and_the_rest_is_shared() {
        // RFC 9111 5.2.2.4 and 5.2.2.7.
        for (line, no_cache, private, withheld) in [
            ("no-cache=\"Set-Cookie\"", false, false, &["set-cookie"][..]),
            ("private=\"Set-Cookie\"", false, false, &["set-cookie"]),
            ("private=\"a, b\",no-cache=\"c\"", false, false, &["a", "b", "c"]),
            ("private=\" a ,, b \"", false, false, &["a", "b"]),
            // A sender may not write it so, a recipient may read it (5.2.2.4).
            ("no-cache=Set-Cookie, private=x", false, false, &["set-cookie", "x"]),
            // Both forms: the one that shares less.
            ("no-cache=\"a\", no-cache", true, false, &["a"]),
            ("private, private=\"a\"", false, true, &["a"]),
            // What names no field names all.
            ("no-cache=\"\"", true, false, &[]),
            ("private=", false, true, &[]),
            ("private=\" , \"", false, true, &[]),
            ("private=\"a b\"", false, true, &[]),
            ("private=\"a, b\\\", c\"", false, true, &[]),
            ("no-cache=\"a", true, false, &[]),
        ] {
            let found = of(&[line]);
            assert_eq!((found.no_cache, found.private), (no_cache, private), "{line}");
            assert_eq!(found.withheld, withheld, "{line}");
        }
    }
}
