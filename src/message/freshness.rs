//! May a response be shared, and for how long is it fresh? (RFC 9111 sections 3 and 4.)
//!
//! Asked once when a response arrives, and again with the merged fields when a 304 does. A site's
//! rules may lengthen or shorten a lifetime; they never make shared what its origin keeps for one
//! viewer.

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, StatusCode};

use crate::limits::{HEURISTIC_LIFETIME_MAX, HEURISTIC_SHARE};
use crate::message::cache_control::{CacheControl, capped_seconds};
use crate::message::syntax::{date, decimal, members, sole};
use crate::message::vary::Vary;
use crate::site::Lifetimes;

/// A response's head and what is known about how it was got.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Whether the request that got it carried `Authorization`.
    pub request_has_authorization: bool,
    /// Its status; of the stored response when a 304 refreshes it.
    pub status: StatusCode,
    /// Its fields, after the rule's edits; the stored and the 304's merged when it is refreshed.
    pub headers: &'a HeaderMap,
    /// When the request was sent.
    pub requested_at: SystemTime,
    /// When the head arrived.
    pub received_at: SystemTime,
    /// What the rule for the path says.
    pub lifetimes: &'a Lifetimes,
}

/// Whether a response may be given to more than one viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// It may, for so long.
    Shared(Freshness),
    /// It may not.
    Uncacheable(Reason),
}

/// Why a response may not be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its status is not one to store, or not without a lifetime.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request carried `Authorization` and nothing permits sharing (RFC 9111 section 3.5).
    Authorization,
    /// It sets a cookie and says neither `public` nor `s-maxage`.
    SetCookie,
    /// `Vary: *`.
    VaryStar,
}

/// How old a response was when it arrived, and how old it may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When its head arrived.
    pub received_at: SystemTime,
    /// How old it was then (`corrected_initial_age` of RFC 9111 section 4.2.3).
    pub initial_age: Duration,
    /// How old it may get.
    pub lifetime: Duration,
    /// Once stale it may not be used without asking the origin, whatever happens.
    pub must_revalidate: bool,
    /// It may never be used without asking the origin.
    pub no_cache: bool,
    /// It does not change while it is fresh: nobody need ask for a newer one (RFC 8246).
    pub immutable: bool,
    /// How long after its lifetime it may be used while the origin is asked.
    pub stale_while_revalidate: Duration,
    /// How long after its lifetime it may be used where the origin gives no answer, or a 5xx.
    pub stale_if_error: Duration,
}

/// How long a response is fresh, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// What was found.
    pub found: Duration,
    /// Where.
    pub by: LifetimeBy,
    /// Within what the rule allows.
    pub allowed: Duration,
}

/// Who says how long a response is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeBy {
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// The rule, of an error whose origin is silent.
    RuleForErrors,
    /// The rule, where the origin is silent.
    Rule,
    /// `Last-Modified`.
    LastModified,
    /// Nobody.
    Nobody,
}

impl LifetimeBy {
    /// The sentence that decides.
    pub fn sentence(self) -> &'static str {
        match self {
            LifetimeBy::SMaxage => {
                "its s-maxage, before max-age and Expires (RFC 9111 section 5.2.2.10)"
            }
            LifetimeBy::MaxAge => "its max-age, before Expires (RFC 9111 section 5.2.2.1)",
            LifetimeBy::Expires => "the time from its Date to its Expires (RFC 9111 section 4.2.1)",
            LifetimeBy::RuleForErrors => "the rule's `errors`: its origin is silent",
            LifetimeBy::Rule => "the rule's `given`: its origin is silent",
            LifetimeBy::LastModified => {
                "a tenth of the time since its Last-Modified (RFC 9111 section 4.2.2)"
            }
            LifetimeBy::Nobody => "nothing: neither its origin nor the rule gives it a lifetime",
        }
    }
}

impl Freshness {
    /// Never fresh: of a response that is not stored.
    pub fn expired(received_at: SystemTime) -> Freshness {
        Freshness {
            received_at,
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            must_revalidate: true,
            no_cache: true,
            immutable: false,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        }
    }

    /// How old it is; a clock set back makes it no younger than when it arrived.
    pub fn age(&self, now: SystemTime) -> Duration {
        let here = now.duration_since(self.received_at).unwrap_or_default();
        self.initial_age.saturating_add(here)
    }

    /// Whether it may be used without asking the origin.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        !self.no_cache && self.age(now) < self.lifetime
    }

    /// How long its lifetime has been over; zero until then, and for what may not be used stale.
    pub fn staleness(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Whether it may be used while the origin is asked (RFC 5861 section 3).
    pub fn serves_while_revalidated(&self, now: SystemTime) -> bool {
        !self.no_cache && self.staleness(now) < self.stale_while_revalidate
    }

    /// Whether it may be used where the origin fails (RFC 5861 section 4).
    pub fn serves_on_error(&self, now: SystemTime) -> bool {
        !self.no_cache && self.staleness(now) < self.stale_if_error
    }

    /// The same, but stale from `since` on, if it would have been fresh for longer.
    pub fn stale_since(self, since: SystemTime) -> Freshness {
        // Before it came: the time it may be used stale had begun by then.
        let before = self.received_at.duration_since(since).unwrap_or_default();
        Freshness {
            lifetime: self.lifetime.min(self.age(since)),
            stale_while_revalidate: self.stale_while_revalidate.saturating_sub(before),
            stale_if_error: self.stale_if_error.saturating_sub(before),
            ..self
        }
    }

    /// What is left of its lifetime in whole seconds as `Age` counts them; negative when it is
    /// over.
    pub fn ttl_seconds(&self, now: SystemTime) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime) - seconds(self.age(now))
    }
}

/// Whether the response may be shared, and how long it is fresh.
pub fn assess(exchange: &Exchange<'_>) -> Assessment {
    let control = CacheControl::of(exchange.headers);
    if let Some(reason) = forbidden(exchange, &control) {
        return Assessment::Uncacheable(reason);
    }
    let date = first_date(exchange.headers, DATE).flatten().unwrap_or(exchange.received_at);
    let Some(lifetime) = found_lifetime(exchange, &control, date) else {
        return Assessment::Uncacheable(Reason::Status);
    };
    let lifetime = lifetime.allowed;
    let Lifetimes { stale_while_revalidate, stale_if_error, .. } = exchange.lifetimes;
    let absence_most = absence_most(exchange);
    let never_stale = control.must_revalidate || control.proxy_revalidate;
    // `s-maxage` says `proxy-revalidate` too (RFC 9111 section 5.2.2.10), and what an origin writes
    // beside it makes an exception (section 5.2.3).
    let must_revalidate = never_stale || control.s_maxage.is_some();
    let stale_for = |said: Option<Duration>, ours: Duration| match said {
        _ if never_stale || absence_most.is_some() => Duration::ZERO,
        Some(said) => said,
        None if must_revalidate => Duration::ZERO,
        None => ours,
    };
    Assessment::Shared(Freshness {
        received_at: exchange.received_at,
        initial_age: initial_age(exchange, date),
        lifetime,
        must_revalidate,
        no_cache: control.no_cache,
        immutable: control.immutable,
        stale_while_revalidate: stale_for(control.stale_while_revalidate, *stale_while_revalidate),
        stale_if_error: stale_for(control.stale_if_error, *stale_if_error),
    })
}

fn forbidden(exchange: &Exchange<'_>, control: &CacheControl) -> Option<Reason> {
    let headers = exchange.headers;
    let shared = control.public || control.s_maxage.is_some();
    let is_understood = is_understood(exchange.status);
    if !is_storable(exchange.status) || control.must_understand && !is_understood {
        Some(Reason::Status)
    } else if control.no_store && !control.must_understand {
        // Beside `must-understand` it is for caches that do not know the status
        // (RFC 9111 section 5.2.2.3).
        Some(Reason::NoStore)
    } else if control.private {
        Some(Reason::Private)
    } else if exchange.request_has_authorization && !shared && !control.must_revalidate {
        Some(Reason::Authorization)
    } else if headers.contains_key(SET_COOKIE) && !shared && !control.withheld.contains(&SET_COOKIE)
    {
        Some(Reason::SetCookie)
    } else if Vary::of(headers).is_any() {
        Some(Reason::VaryStar)
    } else {
        None
    }
}

/// Whether a response of this status can answer another request at all.
///
/// 304, 412, 416 and 417 answer the conditions of one request; 428, 429, 431 and 511 must not be
/// stored (RFC 6585); 101 and its like are not final.
fn is_storable(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status.as_u16(), 304 | 412 | 416 | 417 | 428 | 429 | 431 | 511)
}

/// Whether what RFC 9110 says of this status is what is done here.
fn is_understood(status: StatusCode) -> bool {
    let codes = |code| matches!(code, 200..=206 | 300..=303 | 307 | 308 | 400..=417 | 500..=505);
    codes(status.as_u16()) || matches!(status.as_u16(), 421 | 422 | 426)
}

/// RFC 9110 section 15.1.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// How long the response is fresh, and why; `None`: neither the origin nor the rule gives it a
/// lifetime, and its status is not one to guess for.
pub fn lifetime(exchange: &Exchange<'_>) -> Option<Lifetime> {
    let date = first_date(exchange.headers, DATE).flatten().unwrap_or(exchange.received_at);
    found_lifetime(exchange, &CacheControl::of(exchange.headers), date)
}

fn found_lifetime(
    exchange: &Exchange<'_>,
    control: &CacheControl,
    date: SystemTime,
) -> Option<Lifetime> {
    let Lifetimes { given, least, most, errors, .. } = exchange.lifetimes;
    let status = exchange.status;
    let is_error = status.is_client_error() || status.is_server_error();
    let (found, by) = match explicit_lifetime(exchange.headers, control, date) {
        Some(lifetime) => lifetime,
        // A 401 or 407 asks one viewer for credentials; another's may be good.
        None if is_error && !errors.is_zero() && !matches!(status.as_u16(), 401 | 407) => {
            (*errors, LifetimeBy::RuleForErrors)
        }
        None if !is_heuristically_cacheable(status) && !control.public => return None,
        None if is_error => (Duration::ZERO, LifetimeBy::Nobody),
        None => match (given, heuristic_lifetime(exchange.headers, date)) {
            (Some(given), _) => (*given, LifetimeBy::Rule),
            (None, Some(guessed)) => (guessed, LifetimeBy::LastModified),
            (None, None) => (Duration::ZERO, LifetimeBy::Nobody),
        },
    };
    // A rule that keeps films for a year must not keep a 404 for a year.
    let least = least.filter(|_| !is_error).unwrap_or_default();
    let most = most.iter().copied().chain(absence_most(exchange)).min();
    Some(Lifetime { found, by, allowed: found.max(least).min(most.unwrap_or(Duration::MAX)) })
}

/// How long a response that says that there is nothing may be used at most.
fn absence_most(exchange: &Exchange<'_>) -> Option<Duration> {
    let is_absence = matches!(exchange.status, StatusCode::NOT_FOUND | StatusCode::GONE);
    exchange.lifetimes.absence_most.filter(|_| is_absence)
}

/// A part of the time since it was last changed (RFC 9111 section 4.2.2), if it says when.
fn heuristic_lifetime(headers: &HeaderMap, date: SystemTime) -> Option<Duration> {
    let modified = sole(headers, &LAST_MODIFIED).and_then(self::date)?;
    let lifetime = date.duration_since(modified).ok()? / HEURISTIC_SHARE;
    Some(Duration::from_secs(lifetime.min(HEURISTIC_LIFETIME_MAX).as_secs()))
}

/// What the origin says (RFC 9111 section 4.2.1): a broken or past `Expires` says zero.
fn explicit_lifetime(
    headers: &HeaderMap,
    control: &CacheControl,
    date: SystemTime,
) -> Option<(Duration, LifetimeBy)> {
    let s_maxage = control.s_maxage.map(|said| (said, LifetimeBy::SMaxage));
    let said = s_maxage.or(control.max_age.map(|said| (said, LifetimeBy::MaxAge)));
    if control.is_targeted {
        return said;
    }
    said.or_else(|| {
        let expires = first_date(headers, EXPIRES)?;
        let lifetime = expires.and_then(|at| at.duration_since(date).ok()).unwrap_or_default();
        let seconds = capped_seconds(lifetime.as_secs());
        Some((Duration::from_secs(seconds), LifetimeBy::Expires))
    })
}

/// `corrected_initial_age` of RFC 9111 section 4.2.3.
fn initial_age(exchange: &Exchange<'_>, date: SystemTime) -> Duration {
    // Of several the first counts, and one that is no number does not (section 5.1).
    let first = exchange.headers.get(AGE).and_then(|value| members(value.as_bytes()).next());
    let seconds = first.and_then(decimal).map_or(0, capped_seconds);
    let received_at = exchange.received_at;
    let delay = received_at.duration_since(exchange.requested_at).unwrap_or_default();
    let apparent = received_at.duration_since(date).unwrap_or_default();
    Duration::from_secs(seconds).saturating_add(delay).max(apparent)
}

/// The date in the first line of a field; `Some(None)` when that is no date.
fn first_date(headers: &HeaderMap, name: http::HeaderName) -> Option<Option<SystemTime>> {
    headers.get(name).map(date)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderName, HeaderValue};

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, when every response below arrives.
    const NOW: Duration = Duration::from_secs(784_111_777);
    const DATE_NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const MINUTE_AGO: &str = "Sun, 06 Nov 1994 08:48:37 GMT";
    const IN_A_MINUTE: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

    const OURS: Lifetimes = Lifetimes {
        given: Some(Duration::from_secs(100)),
        least: None,
        most: None,
        errors: Duration::from_secs(5),
        absence_most: None,
        stale_while_revalidate: Duration::from_secs(6),
        stale_if_error: Duration::from_secs(7),
    };

    type Lines = [(&'static str, &'static str)];

    fn headers(lines: &Lines) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn assessed(status: u16, lines: &Lines, lifetimes: &Lifetimes) -> Assessment {
        assess(&Exchange {
            request_has_authorization: false,
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers(lines),
            requested_at: UNIX_EPOCH + NOW,
            received_at: UNIX_EPOCH + NOW,
            lifetimes,
        })
    }

    fn freshness(lines: &Lines) -> Freshness {
        match assessed(200, lines, &OURS) {
            Assessment::Shared(freshness) => freshness,
            Assessment::Uncacheable(reason) => panic!("{lines:?}: {reason:?}"),
        }
    }

    fn lifetime_seconds(status: u16, lines: &Lines, lifetimes: &Lifetimes) -> Option<u64> {
        match assessed(status, lines, lifetimes) {
            Assessment::Shared(freshness) => Some(freshness.lifetime.as_secs()),
            Assessment::Uncacheable(Reason::Status) => None,
            Assessment::Uncacheable(reason) => panic!("{status} {lines:?}: {reason:?}"),
        }
    }

    #[test]
    fn the_lifetime_is_s_maxage_then_max_age_then_expires_then_the_rules() {
        // RFC 9111 4.2.1.
        for (lines, seconds) in [
            (&[][..], 100),
            (&[("cache-control", "public")], 100),
            (&[("cache-control", "max-age=10")], 10),
            (&[("cache-control", "max-age=10, s-maxage=20")], 20),
            (&[("cache-control", "s-maxage=0, max-age=10")], 0),
            (&[("cache-control", "s-maxage=x, max-age=10")], 0),
            (&[("cache-control", "max-age=10"), ("expires", IN_A_MINUTE)], 10),
            (&[("cache-control", "max-age=x"), ("expires", IN_A_MINUTE)], 0),
            (&[("cache-control", "max-age=99999999999999999999")], 1 << 31),
            // Expires counts from Date, or from the receipt where there is none (5.3, 4.2.1).
            (&[("expires", IN_A_MINUTE)], 60),
            (&[("expires", IN_A_MINUTE), ("date", MINUTE_AGO)], 120),
            (&[("expires", IN_A_MINUTE), ("date", IN_A_MINUTE)], 0),
            (&[("expires", IN_A_MINUTE), ("date", "broken")], 60),
            (&[("expires", MINUTE_AGO)], 0),
            (&[("expires", DATE_NOW), ("date", DATE_NOW)], 0),
            (&[("expires", "0")], 0),
            (&[("expires", "-1")], 0),
            (&[("expires", "")], 0),
            (&[("expires", "Sun, 06 Nov 1994 08:50:37")], 0),
            (&[("expires", "Sun, 06 Nov 9994 08:50:37 GMT")], 1 << 31),
            // Of several the first counts.
            (&[("expires", IN_A_MINUTE), ("expires", "0")], 60),
            (&[("expires", "0"), ("expires", IN_A_MINUTE)], 0),
            (&[("cache-control", "max-age=1"), ("cache-control", "max-age=10")], 1),
            // What says nothing about lifetimes.
            (&[("cache-control", "no-transform, immutable")], 100),
            (&[("pragma", "no-cache")], 100),
            (&[("cache-control", "s-max-age=3")], 100),
        ] {
            assert_eq!(lifetime_seconds(200, lines, &OURS), Some(seconds), "{lines:?}");
            assert_eq!(lifetime_seconds(206, lines, &OURS), Some(seconds), "206 {lines:?}");
        }
    }

    #[test]
    fn the_rule_raises_and_lowers_lifetimes() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let rule = |given, least, most| Lifetimes { given, least, most, ..OURS };
        for (lifetimes, line, expected) in [
            (rule(None, None, None), "", 0),
            (rule(None, seconds(3), None), "", 3),
            (rule(seconds(7), None, seconds(5)), "", 5),
            (rule(None, seconds(3), seconds(5)), "max-age=1", 3),
            (rule(None, seconds(3), seconds(5)), "max-age=4", 4),
            (rule(None, seconds(3), seconds(5)), "max-age=6", 5),
            (rule(None, seconds(3), seconds(5)), "s-maxage=0", 3),
            (rule(None, seconds(9), seconds(5)), "max-age=6", 5),
            (rule(None, None, seconds(0)), "max-age=6", 0),
        ] {
            let lines = [("cache-control", line)];
            assert_eq!(lifetime_seconds(200, &lines, &lifetimes), Some(expected), "{lifetimes:?}");
        }
        let long = rule(None, seconds(1000), None);
        assert_eq!(lifetime_seconds(404, &[], &long), Some(5), "least is not for errors");
        assert_eq!(lifetime_seconds(404, &[("cache-control", "max-age=1")], &long), Some(1));
        let short = rule(None, None, seconds(2));
        assert_eq!(lifetime_seconds(404, &[], &short), Some(2), "most is");
        // No rule shares what its origin does not, and none skips a question the origin wants.
        let unshared = assessed(200, &[("cache-control", "private")], &long);
        assert_eq!(unshared, Assessment::Uncacheable(Reason::Private));
        let asked = assessed(200, &[("cache-control", "no-cache")], &long);
        let Assessment::Shared(freshness) = asked else { panic!("{asked:?}") };
        assert!(!freshness.is_fresh(UNIX_EPOCH + NOW));
    }

    #[test]
    fn the_status_decides_who_may_be_kept_without_a_lifetime() {
        let no_errors = Lifetimes { errors: Duration::ZERO, ..OURS };
        let explicit = &[("cache-control", "max-age=10")][..];
        let public = &[("cache-control", "public")][..];
        // silent; silent and errors = 0; with max-age; public (RFC 9110 15.1, RFC 9111 3).
        for (status, ours, without, said, shared) in [
            (200, Some(100), Some(100), Some(10), Some(100)),
            (203, Some(100), Some(100), Some(10), Some(100)),
            (204, Some(100), Some(100), Some(10), Some(100)),
            (206, Some(100), Some(100), Some(10), Some(100)),
            (300, Some(100), Some(100), Some(10), Some(100)),
            (301, Some(100), Some(100), Some(10), Some(100)),
            (308, Some(100), Some(100), Some(10), Some(100)),
            (404, Some(5), Some(0), Some(10), Some(0)),
            (405, Some(5), Some(0), Some(10), Some(0)),
            (410, Some(5), Some(0), Some(10), Some(0)),
            (414, Some(5), Some(0), Some(10), Some(0)),
            (501, Some(5), Some(0), Some(10), Some(0)),
            (201, None, None, Some(10), Some(100)),
            (302, None, None, Some(10), Some(100)),
            (303, None, None, Some(10), Some(100)),
            (307, None, None, Some(10), Some(100)),
            (299, None, None, Some(10), Some(100)),
            (400, Some(5), None, Some(10), Some(0)),
            (403, Some(5), None, Some(10), Some(0)),
            (500, Some(5), None, Some(10), Some(0)),
            (502, Some(5), None, Some(10), Some(0)),
            (503, Some(5), None, Some(10), Some(0)),
            (504, Some(5), None, Some(10), Some(0)),
            (401, None, None, Some(10), Some(0)),
            (407, None, None, Some(10), Some(0)),
        ] {
            assert_eq!(lifetime_seconds(status, &[], &OURS), ours, "{status}");
            assert_eq!(lifetime_seconds(status, &[], &no_errors), without, "{status}, errors 0");
            assert_eq!(lifetime_seconds(status, explicit, &OURS), said, "{status}, max-age");
            assert_eq!(lifetime_seconds(status, public, &no_errors), shared, "{status}, public");
        }
        for status in [100, 101, 103, 304, 412, 416, 417, 428, 429, 431, 511] {
            let never = Assessment::Uncacheable(Reason::Status);
            assert_eq!(assessed(status, explicit, &OURS), never, "{status}");
        }
        // RFC 9111 5.2.2.3: who knows the status passes over `no-store`.
        for line in ["must-understand, max-age=10", "must-understand, no-store, max-age=10"] {
            let understood = &[("cache-control", line)];
            for (status, seconds) in [(200, Some(10)), (302, Some(10)), (503, Some(10))] {
                assert_eq!(lifetime_seconds(status, understood, &OURS), seconds, "{status} {line}");
            }
            for status in [299, 399, 418, 499, 599] {
                assert_eq!(lifetime_seconds(status, understood, &OURS), None, "{status} {line}");
            }
        }
    }

    #[test]
    fn what_is_for_one_viewer_is_not_shared() {
        use Reason::{NoStore, Private, SetCookie, VaryStar};

        let cookie = ("set-cookie", "a=b");
        for (lines, reason) in [
            (&[("cache-control", "no-store")][..], Some(NoStore)),
            (&[("cache-control", "max-age=60, NO-STORE")], Some(NoStore)),
            (&[("cache-control", "max-age=60"), ("cache-control", "no-store")], Some(NoStore)),
            (&[("cache-control", "private")], Some(Private)),
            (&[("cache-control", "Private, public, s-maxage=60")], Some(Private)),
            (&[("cache-control", "private=\"a b\"")], Some(Private)),
            (&[("cache-control", "private=\"set-cookie\"")], None),
            (&[("cdn-cache-control", "max-age=60"), ("cache-control", "private")], None),
            (&[("cdn-cache-control", "private"), ("cache-control", "max-age=60")], Some(Private)),
            (&[cookie], Some(SetCookie)),
            (&[cookie, ("cache-control", "max-age=60")], Some(SetCookie)),
            (&[cookie, ("cache-control", "must-revalidate")], Some(SetCookie)),
            (&[cookie, ("cache-control", "no-cache=\"set-cookie\"")], None),
            (&[cookie, ("cache-control", "private=\"set-cookie\"")], None),
            (&[cookie, ("cache-control", "private=\"x\"")], Some(SetCookie)),
            (&[cookie, ("cache-control", "public")], None),
            (&[cookie, ("cache-control", "s-maxage=60")], None),
            (&[("vary", "*")], Some(VaryStar)),
            (&[("vary", "accept-encoding, *")], Some(VaryStar)),
            (&[("vary", "accept-encoding"), ("vary", "*")], Some(VaryStar)),
            (&[("vary", "accept-encoding")], None),
            (&[("cache-control", "no-cache")], None),
            (&[("cache-control", "max-age=0")], None),
        ] {
            let found = match assessed(200, lines, &OURS) {
                Assessment::Uncacheable(reason) => Some(reason),
                Assessment::Shared(_) => None,
            };
            assert_eq!(found, reason, "{lines:?}");
        }
    }

    #[test]
    fn an_authorized_response_is_shared_only_where_it_says_so() {
        // RFC 9111 3.5.
        for (line, shared) in [
            ("", false),
            ("max-age=60", false),
            ("no-cache", false),
            ("proxy-revalidate", false),
            ("public", true),
            ("s-maxage=60", true),
            ("s-maxage=0", true),
            ("must-revalidate", true),
            ("must-revalidate, private", false),
            ("public, no-store", false),
        ] {
            let assessment = assess(&Exchange {
                request_has_authorization: true,
                status: StatusCode::OK,
                headers: &headers(&[("cache-control", line)]),
                requested_at: UNIX_EPOCH + NOW,
                received_at: UNIX_EPOCH + NOW,
                lifetimes: &OURS,
            });
            assert_eq!(matches!(assessment, Assessment::Shared(_)), shared, "{line}");
        }
    }

    #[test]
    fn directives_that_ask_for_validation_are_remembered() {
        for (line, must_revalidate, no_cache) in [
            ("max-age=60", false, false),
            ("max-age=60, must-revalidate", true, false),
            ("max-age=60, proxy-revalidate", true, false),
            ("s-maxage=60", true, false),
            ("max-age=60, no-cache", false, true),
            ("max-age=60, no-cache=\"set-cookie\"", false, false),
        ] {
            let freshness = freshness(&[("cache-control", line)]);
            assert_eq!(freshness.must_revalidate, must_revalidate, "{line}");
            assert_eq!(freshness.no_cache, no_cache, "{line}");
            assert_eq!(freshness.is_fresh(UNIX_EPOCH + NOW), !no_cache, "{line}");
        }
    }

    #[test]
    fn the_initial_age_is_the_larger_of_what_is_said_and_what_is_seen() {
        // RFC 9111 4.2.3 and 5.1; the response took two seconds.
        for (lines, seconds) in [
            (&[][..], 2),
            (&[("age", "10")], 12),
            (&[("age", "10"), ("date", DATE_NOW)], 12),
            (&[("age", "10"), ("date", MINUTE_AGO)], 60),
            (&[("age", "100"), ("date", MINUTE_AGO)], 102),
            (&[("date", IN_A_MINUTE)], 2),
            (&[("date", "broken")], 2),
            (&[("date", MINUTE_AGO), ("date", IN_A_MINUTE)], 60),
            (&[("age", "99999999999999999999999")], (1 << 31) + 2),
            (&[("age", "4294967296")], (1 << 31) + 2),
            // The first member counts; what is no number does not.
            (&[("age", "10, 50")], 12),
            (&[("age", "10"), ("age", "50")], 12),
            (&[("age", "x, 50")], 2),
            (&[("age", "-1")], 2),
            (&[("age", "1.5")], 2),
            (&[("age", "")], 2),
        ] {
            let received_at = UNIX_EPOCH + NOW;
            let assessment = assess(&Exchange {
                request_has_authorization: false,
                status: StatusCode::OK,
                headers: &headers(lines),
                requested_at: received_at - Duration::from_secs(2),
                received_at,
                lifetimes: &OURS,
            });
            let Assessment::Shared(freshness) = assessment else { panic!("{lines:?}") };
            assert_eq!(freshness.initial_age.as_secs(), seconds, "{lines:?}");
        }
    }

    #[test]
    fn a_response_is_fresh_until_its_age_reaches_its_lifetime() {
        // RFC 9111 4.2: fresh while the lifetime is greater than the age.
        let freshness = freshness(&[("cache-control", "max-age=10"), ("age", "4")]);
        let at = |millis: i64| {
            let shift = Duration::from_millis(millis.unsigned_abs());
            let arrived = UNIX_EPOCH + NOW;
            if millis < 0 { arrived - shift } else { arrived + shift }
        };
        for (millis, age, fresh, ttl) in [
            (-60_000, 4, true, 6),
            (0, 4, true, 6),
            (999, 4, true, 6),
            (1_000, 5, true, 5),
            (5_999, 9, true, 1),
            (6_000, 10, false, 0),
            (66_000, 70, false, -60),
        ] {
            assert_eq!(freshness.age(at(millis)).as_secs(), age, "{millis}");
            assert_eq!(freshness.is_fresh(at(millis)), fresh, "{millis}");
            assert_eq!(freshness.ttl_seconds(at(millis)), ttl, "{millis}");
        }
        let endless = Freshness { initial_age: Duration::MAX, ..freshness };
        assert!(!endless.is_fresh(at(0)));
        assert!(endless.ttl_seconds(at(0)) < 0);
    }

    #[test]
    fn a_silent_origin_is_taken_at_a_tenth_of_the_time_nothing_changed() {
        // RFC 9111 4.2.2.
        let silent = Lifetimes { given: None, ..OURS };
        const HOUR_AGO: &str = "Sun, 06 Nov 1994 07:49:37 GMT";
        for (status, lines, seconds) in [
            (200, &[][..], 0),
            (200, &[("last-modified", HOUR_AGO)], 360),
            (200, &[("last-modified", HOUR_AGO), ("cache-control", "public")], 360),
            (206, &[("last-modified", HOUR_AGO)], 360),
            (301, &[("last-modified", HOUR_AGO)], 360),
            (302, &[("last-modified", HOUR_AGO), ("cache-control", "public")], 360),
            // From its `Date`, not from its receipt.
            (200, &[("last-modified", HOUR_AGO), ("date", MINUTE_AGO)], 354),
            (200, &[("last-modified", "Mon, 06 Nov 1989 08:49:37 GMT")], 86_400),
            (200, &[("last-modified", DATE_NOW)], 0),
            (200, &[("last-modified", IN_A_MINUTE)], 0),
            (200, &[("last-modified", "long ago")], 0),
            (200, &[("last-modified", HOUR_AGO), ("last-modified", DATE_NOW)], 0),
            // Whatever says something says it alone.
            (200, &[("last-modified", HOUR_AGO), ("cache-control", "max-age=1")], 1),
            (200, &[("last-modified", HOUR_AGO), ("expires", "0")], 0),
            // An error's text is not what was last changed then.
            (404, &[("last-modified", HOUR_AGO)], 5),
        ] {
            assert_eq!(lifetime_seconds(status, lines, &silent), Some(seconds), "{lines:?}");
            let ours = if status == 404 { 5 } else { 100 };
            if explicit_lifetime(&headers(lines), &CacheControl::of(&headers(lines)), UNIX_EPOCH)
                .is_none()
            {
                assert_eq!(
                    lifetime_seconds(status, lines, &OURS),
                    Some(ours),
                    "a rule counts first"
                );
            }
        }
        assert_eq!(lifetime_seconds(302, &[("last-modified", HOUR_AGO)], &silent), None);
    }

    #[test]
    fn beside_a_targeted_lifetime_nothing_else_counts() {
        // RFC 9213 2.2.
        let targeted = ("cdn-cache-control", "max-age=3");
        for (lines, seconds) in [
            (&[targeted][..], 3),
            (&[targeted, ("cache-control", "max-age=10, s-maxage=20")], 3),
            (&[targeted, ("cache-control", "no-store")], 3),
            (&[targeted, ("expires", "0")], 3),
            (&[("cdn-cache-control", "public"), ("expires", IN_A_MINUTE)], 100),
            (&[("cdn-cache-control", "public"), ("cache-control", "max-age=10")], 100),
            (&[("cdn-cache-control", "&"), ("cache-control", "max-age=10")], 10),
        ] {
            assert_eq!(lifetime_seconds(200, lines, &OURS), Some(seconds), "{lines:?}");
        }
    }

    #[test]
    fn what_is_stale_is_used_as_long_as_its_origin_or_the_rule_says() {
        // RFC 5861; RFC 9111 4.2.4.
        for (line, revalidate, error) in [
            ("max-age=0", 6, 7),
            ("", 6, 7),
            ("max-age=0, stale-while-revalidate=1, stale-if-error=2", 1, 2),
            ("max-age=0, stale-while-revalidate=0", 0, 7),
            ("max-age=0, stale-while-revalidate=x", 0, 7),
            ("max-age=0, must-revalidate", 0, 0),
            ("max-age=0, proxy-revalidate", 0, 0),
            ("max-age=0, stale-if-error=2, must-revalidate", 0, 0),
            ("s-maxage=0", 0, 0),
            ("s-maxage=0, stale-while-revalidate=1", 1, 0),
            ("s-maxage=0, stale-if-error=2", 0, 2),
            ("no-cache", 0, 0),
            ("no-cache, stale-while-revalidate=1, stale-if-error=2", 0, 0),
            ("no-cache=\"a\", max-age=0", 6, 7),
        ] {
            // Of a rule's own lifetime of 100 s or of none.
            let freshness = freshness(&[("cache-control", line)]);
            let over = UNIX_EPOCH + NOW + freshness.lifetime;
            let lasts = |serves: fn(&Freshness, SystemTime) -> bool| {
                (0..10).take_while(|s| serves(&freshness, over + Duration::from_secs(*s))).count()
            };
            assert_eq!(lasts(Freshness::serves_while_revalidated), revalidate, "{line}");
            assert_eq!(lasts(Freshness::serves_on_error), error, "{line}");
        }
    }
}
