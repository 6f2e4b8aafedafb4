//! May a stored response answer a request now? (RFC 9111 sections 4 and 5.2.1.)
//!
//! The request may ask for less than the response allows: a newer answer, or none but from the
//! cache. What it asks is advice (section 5.2.1), which a site's rule may have ignored.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

use crate::message::cache_control::{directives, seconds, split_directive};
use crate::message::cache_status::Fwd;
use crate::message::freshness::Freshness;
use crate::message::syntax::members;

/// What a request's `Cache-Control` asks for, all its lines together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// Nothing that was not confirmed for it.
    pub no_cache: bool,
    /// That nothing of it is stored.
    pub no_store: bool,
    /// What is stored, or nothing: 504.
    pub only_if_cached: bool,
    /// Nothing older.
    pub max_age: Option<Duration>,
    /// Nothing that is fresh for less than this.
    pub min_fresh: Option<Duration>,
    /// What is stale too, if it has been for no longer than this; `Duration::MAX` is for ever.
    pub max_stale: Option<Duration>,
}

impl RequestControl {
    /// Of a request. A number that is broken asks for nothing.
    pub fn of(headers: &HeaderMap) -> RequestControl {
        let mut found = RequestControl::default();
        if !headers.contains_key(CACHE_CONTROL) {
            // RFC 9111 section 5.4: of old clients, which have no other words.
            let pragma = headers.get_all(PRAGMA).iter();
            found.no_cache = pragma
                .flat_map(|line| members(line.as_bytes()))
                .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
        }
        for line in headers.get_all(CACHE_CONTROL) {
            directives(line.as_bytes()).for_each(|directive| found.add(directive));
        }
        found
    }

    fn add(&mut self, directive: &[u8]) {
        let (name, argument) = split_directive(directive);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = self.max_age.or(seconds(argument));
        } else if is("min-fresh") {
            self.min_fresh = self.min_fresh.or(seconds(argument));
        } else if is("max-stale") {
            let stale = argument.map_or(Some(Duration::MAX), |argument| seconds(Some(argument)));
            self.max_stale = self.max_stale.or(stale);
        }
    }
}

/// What a stored response is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is the answer.
    Now,
    /// It is the answer, and the origin is asked whether it still is.
    WhileRevalidated,
    /// The answer once the origin says so.
    OnceConfirmed(Fwd),
}

/// What a stored response of this freshness is good for, for a request that asks for this, and the
/// sentence that decides.
pub fn judge(
    freshness: &Freshness,
    asked: &RequestControl,
    now: SystemTime,
) -> (Reuse, &'static str) {
    let confirmed = |reason, why| (Reuse::OnceConfirmed(reason), why);
    let (is_fresh, is_too_old) = (freshness.is_fresh(now), is_too_old(freshness, asked, now));
    if asked.no_cache {
        return confirmed(Fwd::Request, "the request says no-cache (RFC 9111 section 5.2.1.4)");
    }
    if is_fresh && is_too_old {
        let why = "the request wants a newer one (RFC 9111 sections 5.2.1.1 and 5.2.1.3)";
        return confirmed(Fwd::Request, why);
    }
    if is_fresh {
        return (Reuse::Now, "it is fresh: not as old as its lifetime (RFC 9111 section 4.2)");
    }
    let never = freshness.no_cache || freshness.must_revalidate;
    let staleness = freshness.staleness(now);
    if !never && !is_too_old && asked.max_stale.is_some_and(|most| staleness <= most) {
        return (Reuse::Now, "the request takes what is stale (RFC 9111 section 5.2.1.2)");
    }
    // Who says what he takes, or how fresh he wants it, did not ask for what is stale.
    let takes_stale =
        asked.max_stale.is_none() && asked.min_fresh.is_none() && asked.max_age.is_none();
    if takes_stale && freshness.serves_while_revalidated(now) {
        let why = "it is stale, and used while its origin is asked (RFC 5861 section 3)";
        return (Reuse::WhileRevalidated, why);
    }
    confirmed(
        Fwd::Stale,
        match (freshness.no_cache, freshness.must_revalidate) {
            (true, _) => {
                "it says no-cache: its origin is asked each time (RFC 9111 section 5.2.2.4)"
            }
            (_, true) => "it is stale, and must not be used so (RFC 9111 section 5.2.2.2)",
            _ => "it is stale (RFC 9111 section 4.2.4)",
        },
    )
}

/// Whether it is older, or fresh for less time, than was asked for (sections 5.2.1.1 and 5.2.1.3);
/// `max-stale` beside that takes what is stale, and nothing older.
fn is_too_old(freshness: &Freshness, asked: &RequestControl, now: SystemTime) -> bool {
    let age = freshness.age(now);
    // What is said not to change is not newer for asking (RFC 8246 section 2): players' reloads.
    let reloads =
        freshness.immutable && freshness.is_fresh(now) && asked.max_age == Some(Duration::ZERO);
    let is_old = asked.max_age.is_some_and(|most| age > most || most.is_zero());
    let lasts = |least| freshness.lifetime >= age.saturating_add(least);
    let is_short = asked.min_fresh.is_some_and(|least| !lasts(least));
    is_old && !reloads || is_short
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn asked(lines: &[(&'static str, &str)]) -> RequestControl {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        RequestControl::of(&headers)
    }

    fn control(line: &str) -> RequestControl {
        asked(&[("cache-control", line)])
    }

    #[test]
    fn what_a_request_asks_is_read_in_any_spelling() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let nothing = RequestControl::default();
        let no_cache = RequestControl { no_cache: true, ..nothing };
        let max_age = |max_age| RequestControl { max_age, ..nothing };
        let max_stale = |max_stale| RequestControl { max_stale, ..nothing };
        for (line, expected) in [
            ("", nothing),
            ("no-cache", no_cache),
            ("No-Cache", no_cache),
            ("no-cache=x", no_cache),
            ("no-store", RequestControl { no_store: true, ..nothing }),
            ("only-if-cached", RequestControl { only_if_cached: true, ..nothing }),
            ("max-age=3", max_age(seconds(3))),
            ("MAX-AGE=\"3\"", max_age(seconds(3))),
            ("max-age=3, max-age=1", max_age(seconds(3))),
            ("max-age=99999999999999999999", max_age(seconds(1 << 31))),
            ("max-age", nothing),
            ("max-age=x", nothing),
            ("max-age=-1", nothing),
            ("min-fresh=4", RequestControl { min_fresh: seconds(4), ..nothing }),
            ("max-stale", max_stale(Some(Duration::MAX))),
            ("max-stale=5", max_stale(seconds(5))),
            ("max-stale=x", nothing),
            ("private, s-maxage=1, unheard-of=\"no-cache\"", nothing),
        ] {
            assert_eq!(control(line), expected, "{line}");
        }
    }

    #[test]
    fn pragma_counts_where_there_is_no_cache_control() {
        // RFC 9111 5.4.
        for (lines, no_cache) in [
            (&[("pragma", "no-cache")][..], true),
            (&[("pragma", "a, No-Cache")], true),
            (&[("pragma", "a"), ("pragma", "no-cache")], true),
            (&[("pragma", "no-cache=1")], false),
            (&[("pragma", "no-cache"), ("cache-control", "max-age=9")], false),
            (&[("pragma", "no-cache"), ("cache-control", "")], false),
        ] {
            assert_eq!(asked(lines).no_cache, no_cache, "{lines:?}");
        }
    }

    /// Fresh for 100 s, then for 10 s more while it is revalidated.
    fn response() -> Freshness {
        Freshness {
            lifetime: Duration::from_secs(100),
            must_revalidate: false,
            no_cache: false,
            stale_while_revalidate: Duration::from_secs(10),
            ..Freshness::expired(UNIX_EPOCH)
        }
    }

    #[test]
    fn a_request_may_ask_for_what_is_newer_or_take_what_is_older() {
        use Reuse::{Now, OnceConfirmed, WhileRevalidated};
        let (stale, by_request) = (OnceConfirmed(Fwd::Stale), OnceConfirmed(Fwd::Request));
        for (line, age, reuse) in [
            ("", 0, Now),
            ("", 99, Now),
            ("", 100, WhileRevalidated),
            ("", 109, WhileRevalidated),
            ("", 110, stale),
            ("no-cache", 0, by_request),
            ("no-cache", 120, by_request),
            ("max-age=0", 0, by_request),
            ("max-age=50", 50, Now),
            ("max-age=50", 51, by_request),
            ("max-age=500", 120, stale),
            ("max-age=50, max-stale=60", 51, by_request),
            ("max-age=50, max-stale=60", 105, stale),
            ("max-age=105, max-stale=60", 105, Now),
            ("min-fresh=1, max-stale", 105, stale),
            ("min-fresh=0, max-stale", 105, stale),
            ("min-fresh=10", 90, Now),
            ("min-fresh=10", 91, by_request),
            ("min-fresh=10", 100, stale),
            ("min-fresh=1000", 0, by_request),
            ("max-stale", 5_000, Now),
            ("max-stale=20", 120, Now),
            ("max-stale=20", 121, stale),
            ("max-stale=0", 100, Now),
            ("max-stale=0", 101, stale),
            ("only-if-cached", 50, Now),
            ("only-if-cached", 100, WhileRevalidated),
            ("no-store", 50, Now),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(age);
            assert_eq!(judge(&response(), &control(line), now).0, reuse, "{line} at {age}");
        }
    }

    #[test]
    fn what_its_origin_wants_asked_is_asked_whatever_a_request_takes() {
        // RFC 9111 4.2.4.
        let strict = Freshness {
            must_revalidate: true,
            stale_while_revalidate: Duration::ZERO,
            ..response()
        };
        let never = Freshness { no_cache: true, ..response() };
        let stale = Reuse::OnceConfirmed(Fwd::Stale);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for line in ["", "max-stale", "max-stale=1000"] {
            assert_eq!(judge(&strict, &control(line), at(99)).0, Reuse::Now, "{line}");
            assert_eq!(judge(&strict, &control(line), at(100)).0, stale, "{line}");
            assert_eq!(judge(&never, &control(line), at(0)).0, stale, "{line}");
        }
    }

    #[test]
    fn a_reload_of_what_never_changes_costs_nothing() {
        // RFC 8246 2.
        let immutable = Freshness { immutable: true, ..response() };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let by_request = Reuse::OnceConfirmed(Fwd::Request);
        assert_eq!(judge(&immutable, &control("max-age=0"), at(50)).0, Reuse::Now);
        assert_eq!(judge(&immutable, &control("max-age=20"), at(50)).0, by_request);
        assert_eq!(judge(&immutable, &control("no-cache"), at(50)).0, by_request);
        let over = judge(&immutable, &control("max-age=0"), at(200)).0;
        assert_eq!(over, Reuse::OnceConfirmed(Fwd::Stale));
    }
}
