//! Where Tidegate and the oracle come to different answers about one plain exchange, and which
//! sentence says that Tidegate may, or that the oracle may not.
//!
//! Each is as narrow as can be: the question, what the exchange holds, and both answers. One that
//! explains nothing in a run fails it.

use std::time::Duration;

use http::StatusCode;

use crate::cases::{Fields, Reply};

/// A question about an exchange, and both answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// May it be stored?
    Stored { ours: bool, theirs: bool },
    /// For how many seconds is it fresh?
    Lifetime { ours: u64, theirs: u64 },
    /// How many seconds old is it?
    Age { ours: i64, theirs: i64 },
    /// Does it answer the second request?
    Reuse { ours: Use, theirs: Use },
    /// Is it kept where the origin answers with an error?
    Kept { ours: bool, theirs: bool },
    /// Does the 304 speak of it?
    Matches { ours: bool, theirs: bool },
    /// Is it after the 304 what it should be, to the oracle?
    Updated { ours: bool, theirs: bool },
}

/// What becomes of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Now,
    While,
    Confirmed,
}

/// A disagreement, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disagreement<'a> {
    pub(crate) question: Question,
    /// The response that is judged, as it is written plainly.
    pub(crate) stored: &'a Reply,
    /// The request that is to be answered by it.
    pub(crate) request: &'a Fields,
    /// What the origin said of it, where it was asked.
    pub(crate) told: Option<&'a Reply>,
    /// How old and how fresh it is to both, once that was settled.
    pub(crate) age_seconds: u64,
    pub(crate) lifetime_seconds: u64,
    /// When it came, before the time of the question.
    pub(crate) since: Duration,
    pub(crate) received_at: std::time::SystemTime,
}

impl Disagreement<'_> {
    fn says(&self, directive: &str) -> bool {
        self.stored.fields.says(directive)
    }

    fn is_explicit(&self) -> bool {
        let numbers = ["max-age", "s-maxage"].into_iter().any(|number| self.says(number));
        numbers || self.stored.fields.has("expires")
    }

    fn asks(&self, directive: &str) -> bool {
        self.request.says(directive)
    }

    fn is_fresh(&self) -> bool {
        self.age_seconds < self.lifetime_seconds
    }

    fn is_cookie(&self) -> bool {
        self.stored.fields.has("set-cookie") && !self.says("public")
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.stored.status).expect("cases have statuses")
    }

    /// What forbids that it is used stale, and what the oracle takes no notice of there.
    fn is_never_stale(&self) -> bool {
        self.says("proxy-revalidate") || self.says("must-revalidate")
    }
}

/// One of them.
pub(crate) struct Exception {
    pub(crate) name: &'static str,
    /// The sentence that explains it.
    pub(crate) because: &'static str,
    pub(crate) holds: fn(&Disagreement<'_>) -> bool,
}

use Question::{Age, Kept, Lifetime, Matches, Reuse, Stored, Updated};

pub(crate) const EXCEPTIONS: [Exception; 23] = [
    Exception {
        name: "a status that the oracle does not know",
        because: "RFC 9111 3: the response status code is final; only beside must-understand need \
                  a cache know it",
        holds: |d| {
            d.question == (Stored { ours: true, theirs: false })
                && !KNOWN_TO_THE_ORACLE.contains(&d.stored.status)
                && (d.is_explicit() || d.says("public"))
        },
    },
    Exception {
        name: "no-store beside must-understand",
        because: "RFC 9111 5.2.2.3: a response that contains must-understand SHOULD also contain \
                  no-store; a cache that knows the status code ignores the latter",
        holds: |d| {
            d.question == (Stored { ours: true, theirs: false })
                && d.says("must-understand")
                && d.says("no-store")
        },
    },
    Exception {
        name: "a cookie",
        because: "RFC 9111 7.3: Set-Cookie does not inhibit caching; 2: but caching is entirely \
                  OPTIONAL, and a cookie for one is not given to another",
        holds: |d| {
            d.question == (Stored { ours: false, theirs: true })
                && d.is_cookie()
                && !d.says("s-maxage")
        },
    },
    Exception {
        name: "a cookie that may be shared",
        because: "RFC 9111 7.3: Set-Cookie does not inhibit caching; 5.2.2.10: s-maxage is for \
                  shared caches",
        holds: |d| {
            matches!(d.question, Lifetime { theirs: 0, .. }) && d.is_cookie() && d.says("s-maxage")
        },
    },
    Exception {
        name: "Vary: *",
        because: "RFC 9111 4.1: a stored response with Vary containing * always fails to match",
        holds: |d| {
            let vary = d.stored.fields.get("vary").unwrap_or_default();
            d.question == (Stored { ours: false, theirs: true }) && vary.contains('*')
        },
    },
    Exception {
        name: "proxy-revalidate of what is fresh",
        because: "RFC 9111 5.2.2.8: once the response has become stale, a shared cache MUST NOT \
                  reuse it without validation",
        holds: |d| matches!(d.question, Lifetime { theirs: 0, .. }) && d.says("proxy-revalidate"),
    },
    Exception {
        name: "immutable is no lifetime",
        because: "RFC 8246 2: the resource will not be updated during the freshness lifetime of \
                  the response",
        holds: |d| {
            matches!(d.question, Lifetime { ours, theirs } if theirs >= 86_400 && ours < theirs)
                && d.says("immutable")
                && !d.says("max-age")
                && !d.says("s-maxage")
        },
    },
    Exception {
        name: "no guess about an error",
        because: "RFC 9111 4.2.2: a cache MAY assign a heuristic expiration time; how long ago the \
                  text of an error was last changed says nothing",
        holds: |d| {
            let is_error = d.status().is_client_error() || d.status().is_server_error();
            matches!(d.question, Lifetime { ours: 0, .. }) && is_error && !d.is_explicit()
        },
    },
    Exception {
        name: "no guess beyond a day",
        because: "RFC 9111 4.2.2: heuristics can only be used without explicit freshness, and are \
                  no more than encouraged to be a fraction of that interval",
        holds: |d| {
            matches!(d.question, Lifetime { ours: 86_400, theirs } if theirs > 86_400)
                && !d.is_explicit()
        },
    },
    Exception {
        name: "the age that Date tells",
        because: "RFC 9111 4.2.3: corrected_initial_age = max(apparent_age, corrected_age_value), \
                  where apparent_age = max(0, response_time - date_value)",
        holds: |d| {
            let date = d.stored.fields.date("date");
            let apparent = date.and_then(|date| d.received_at.duration_since(date).ok());
            let seconds = apparent.map(|apparent| (apparent + d.since).as_secs() as i64);
            matches!(d.question, Age { ours, theirs } if ours > theirs && Some(ours) == seconds)
        },
    },
    Exception {
        name: "must-revalidate of what is fresh",
        because: "RFC 9111 5.2.2.2: once the response has become stale, a cache MUST NOT reuse it \
                  without validation",
        holds: |d| {
            d.question == (Reuse { ours: Use::Now, theirs: Use::Confirmed })
                && d.says("must-revalidate")
                && d.is_fresh()
        },
    },
    Exception {
        name: "what its origin forbids to use stale",
        because: "RFC 9111 4.2.4: a cache MUST NOT generate a stale response if it is prohibited \
                  by an explicit directive (no-cache, must-revalidate, s-maxage, proxy-revalidate)",
        holds: |d| {
            let forbidden = d.is_never_stale() || d.says("no-cache");
            let says_itself = d.says("stale-while-revalidate");
            let is_shared = d.says("s-maxage") && (d.asks("max-stale") || !says_itself);
            matches!(d.question, Reuse { ours: Use::Confirmed, theirs: Use::Now | Use::While })
                && (forbidden || is_shared)
                && !d.is_fresh()
        },
    },
    Exception {
        name: "stale by just as much as was said",
        because: "RFC 9111 5.2.1.2: exceeded its freshness lifetime by no more than the specified \
                  number of seconds",
        holds: |d| {
            let said = d.request.number("max-stale");
            matches!(d.question, Reuse { ours: Use::Now, theirs: Use::Confirmed | Use::While })
                && said == d.age_seconds.checked_sub(d.lifetime_seconds)
                && said.is_some()
        },
    },
    Exception {
        name: "max-age=0 asks whatever the age",
        because: "RFC 9111 5.2.1.1: the client prefers a response whose age is less than or equal \
                  to the specified number of seconds; 5.2.1: advisory, and a reload means it so",
        holds: |d| {
            matches!(d.question, Reuse { ours: Use::Confirmed, theirs: Use::Now | Use::While })
                && d.request.number("max-age") == Some(0)
                && d.age_seconds == 0
        },
    },
    Exception {
        name: "a reload of what is immutable",
        because: "RFC 8246 2: clients SHOULD NOT issue a conditional request during the response's \
                  freshness lifetime (e.g., upon a reload)",
        holds: |d| {
            d.question == (Reuse { ours: Use::Now, theirs: Use::Confirmed })
                && d.request.number("max-age") == Some(0)
                && d.says("immutable")
                && d.is_fresh()
        },
    },
    Exception {
        name: "who says how fresh he wants it does not get it stale",
        because: "RFC 9111 5.2.1.1: unless max-stale is also present, the client does not wish to \
                  receive a stale response; 5.2.1.2: no more stale than that",
        holds: |d| {
            d.question == (Reuse { ours: Use::Confirmed, theirs: Use::While })
                && ["max-age", "min-fresh", "max-stale"].into_iter().any(|said| d.asks(said))
        },
    },
    Exception {
        name: "Vary on what no origin is shown",
        because: "RFC 9111 4.1: the fields nominated by Vary match those of the original request; \
                  what the edge does not forward was the same in both",
        holds: |d| {
            matches!(d.question, Reuse { ours: Use::Now | Use::While, theirs: Use::Confirmed })
                && d.stored.fields.get("vary") == Some("x-forwarded-for")
        },
    },
    Exception {
        name: "what may not be used stale where the origin fails either",
        because: "RFC 9111 4.2.4, 5.2.2.2: must-revalidate, in all circumstances: an error is \
                  generated rather; so for no-cache and proxy-revalidate",
        holds: |d| {
            d.question == (Kept { ours: false, theirs: true })
                && (d.is_never_stale() || d.says("no-cache"))
        },
    },
    Exception {
        name: "a 304 that names no version",
        because: "RFC 9110 13.1.2, 13.1.3: a condition of one version is only false of that one, \
                  and the edge asks about no other",
        holds: |d| {
            let names = |name| d.told.is_some_and(|told| told.fields.has(name));
            d.question == (Matches { ours: true, theirs: false })
                && !names("etag")
                && !names("last-modified")
        },
    },
    Exception {
        name: "a strong entity tag is not a weak one",
        because: "RFC 9111 4.3.4: if none of the initial set contains at least one of the same \
                  strong validators, the cache MUST NOT use the new response",
        holds: |d| {
            let told = d.told.and_then(|told| told.fields.get("etag")).unwrap_or_default();
            let stored = d.stored.fields.get("etag").unwrap_or_default();
            d.question == (Matches { ours: false, theirs: true })
                && stored.strip_prefix("W/") == Some(told)
        },
    },
    Exception {
        name: "a weak entity tag that nothing stored has",
        because: "RFC 9111 4.3.4: those validators correspond to a stored response; one of them \
                  does not, and asking anew is always allowed",
        holds: |d| {
            let told = d.told.and_then(|told| told.fields.get("etag")).unwrap_or_default();
            d.question == (Matches { ours: false, theirs: true })
                && told.starts_with("W/")
                && !d.stored.fields.has("etag")
        },
    },
    Exception {
        name: "a field that the 304 brings anew",
        because: "RFC 9111 3.2: the cache MUST update its header fields by adding each header \
                  field in the provided response to the stored response",
        holds: |d| {
            let told = d.told.map(|told| told.fields.0.as_slice()).unwrap_or_default();
            d.question == (Updated { ours: true, theirs: false })
                && told.iter().any(|(name, _)| *name != "etag" && !d.stored.fields.has(name))
        },
    },
    Exception {
        name: "the old Date and Age",
        because: "RFC 9111 4.2.3: date_value and age_value are those of the response received, \
                  which is the 304",
        holds: |d| {
            let told = |name| d.told.is_some_and(|told| told.fields.has(name));
            d.question == (Updated { ours: true, theirs: false })
                && ["date", "age"].into_iter().any(|name| d.stored.fields.has(name) && !told(name))
        },
    },
];

/// Its `understoodStatuses`.
const KNOWN_TO_THE_ORACLE: [u16; 14] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];
