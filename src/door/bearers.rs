//! What who bears one token may have: requests in a second, bytes in a second, connections.
//!
//! Kept of so many tokens at most; of more than those, of the ones that were used last. A token
//! that takes the place of another one has the same bearer.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::limits::TOKEN_BEARERS_MAX;

/// What is allowed; 0: as much as he likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests in a second, those of two at once.
    pub requests: u32,
    /// Bytes in a second, those of ten at once.
    pub bytes_per_second: u64,
    /// Connections at once.
    pub connections: u32,
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Too many requests.
    Requests,
    /// Too many bytes.
    Bytes {
        /// When there are some again.
        after: Duration,
    },
    /// Too many connections.
    Connections,
}

impl Exhausted {
    /// In words.
    pub fn reason(self) -> &'static str {
        match self {
            Exhausted::Requests => "too many requests by this token",
            Exhausted::Bytes { .. } => "too many bytes by this token",
            Exhausted::Connections => "too many connections by this token",
        }
    }

    /// When it is worth trying again.
    pub fn retry_after(self) -> Duration {
        match self {
            Exhausted::Requests => Duration::from_secs(1),
            Exhausted::Bytes { after } => after.max(Duration::from_secs(1)),
            Exhausted::Connections => Duration::from_secs(5),
        }
    }
}

/// All that are known.
pub(super) struct Bearers(Cache<u128, Arc<Bearer>>);

impl Default for Bearers {
    fn default() -> Bearers {
        Bearers(Cache::new(TOKEN_BEARERS_MAX))
    }
}

impl fmt::Debug for Bearers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bearers", self.0.len())
    }
}

impl Bearers {
    /// Who bears this token, as it says of its bearer.
    pub(super) fn of(&self, site: &str, token: u128, allowance: Allowance) -> Arc<Bearer> {
        let made = || Arc::new(Bearer::new(allowance));
        let digest = xxh3_128_with_seed(&token.to_le_bytes(), xxh3_64(site.as_bytes()));
        match self.0.get(&digest) {
            Some(bearer) if bearer.allowance == allowance => bearer,
            // Another was set since.
            Some(_) => {
                let bearer = made();
                self.0.insert(digest, bearer.clone());
                bearer
            }
            None => {
                let found = self.0.get_or_insert_with(&digest, || Ok::<_, Infallible>(made()));
                found.unwrap_or_else(|never| match never {})
            }
        }
    }
}

/// Who bears one token.
#[derive(Debug)]
pub struct Bearer {
    allowance: Allowance,
    /// Milliseconds since 1970 up to which requests are used.
    requests_until: AtomicU64,
    /// Bytes that may be sent yet, and when that was counted, in milliseconds since 1970.
    bytes_left: AtomicI64,
    counted_at: AtomicU64,
    connections: AtomicU32,
}

impl Bearer {
    fn new(allowance: Allowance) -> Bearer {
        Bearer {
            allowance,
            requests_until: AtomicU64::new(0),
            bytes_left: AtomicI64::new(burst(allowance)),
            counted_at: AtomicU64::new(0),
            connections: AtomicU32::new(0),
        }
    }

    /// Counts a request at `now`, since 1970.
    pub(super) fn ask(&self, now: Duration) -> Result<(), Exhausted> {
        let now_ms = now.as_millis() as u64;
        self.bytes_left(now_ms)?;
        let Some(step_us) = 1_000_000_u64.checked_div(self.allowance.requests.into()) else {
            return Ok(());
        };
        // As a clock of microseconds that goes on by a step with each request.
        let (now_us, burst_us) = (now.as_micros() as u64, REQUESTS_BURST_SECONDS * 1_000_000);
        let next = |until: u64| {
            // A clock that was set back begins anew.
            let until = if until > now_us + burst_us { now_us } else { until };
            let next = until.max(now_us) + step_us;
            (next <= now_us + burst_us).then_some(next)
        };
        let taken = self.requests_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|_| Exhausted::Requests)
    }

    fn bytes_left(&self, now_ms: u64) -> Result<(), Exhausted> {
        let rate = self.allowance.bytes_per_second;
        if rate == 0 {
            return Ok(());
        }
        // A clock that was set back counts from then on.
        let since_ms = now_ms.saturating_sub(self.counted_at.swap(now_ms, Ordering::Relaxed));
        let earned = u128::from(rate) * u128::from(since_ms) / 1_000;
        let (earned, most) = (i64::try_from(earned).unwrap_or(i64::MAX), burst(self.allowance));
        let more = |left: i64| Some(left.saturating_add(earned).min(most));
        let left = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let left = left.unwrap_or_default().saturating_add(earned);
        if left > 0 {
            return Ok(());
        }
        let after = Duration::from_secs(left.unsigned_abs() / rate + 1);
        Err(Exhausted::Bytes { after })
    }

    /// Counts bytes that were sent to him.
    pub fn sent(&self, bytes: u64) {
        if self.allowance.bytes_per_second > 0 {
            self.bytes_left.fetch_sub(bytes as i64, Ordering::Relaxed);
        }
    }

    /// Counts a connection, as long as what is given lives.
    ///
    /// # Errors
    /// He has as many as he may.
    pub fn connect(self: &Arc<Self>) -> Result<Connected, Exhausted> {
        let most = self.allowance.connections;
        let more = |open: u32| (most == 0 || open < most).then_some(open + 1);
        match self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Connected(self.clone())),
            Err(_) => Err(Exhausted::Connections),
        }
    }

    /// Whether his connections are counted.
    pub fn counts_connections(&self) -> bool {
        self.allowance.connections > 0
    }
}

/// One connection of a bearer.
#[derive(Debug)]
pub struct Connected(Arc<Bearer>);

impl Connected {
    /// Whether it is his.
    pub fn is_of(&self, bearer: &Arc<Bearer>) -> bool {
        Arc::ptr_eq(&self.0, bearer)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes that may be sent at once.
fn burst(allowance: Allowance) -> i64 {
    let bytes = allowance.bytes_per_second.saturating_mul(BYTES_BURST_SECONDS);
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A player begins with a few requests at once, and fills its buffer.
const REQUESTS_BURST_SECONDS: u64 = 2;
const BYTES_BURST_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(allowance: Allowance) -> Arc<Bearer> {
        Bearers::default().of("film", 7, allowance)
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn requests_of_two_seconds_come_at_once_and_then_as_many_as_are_allowed() {
        let bearer = bearer(Allowance { requests: 10, ..Allowance::default() });
        let asked = |millis| (0..100).filter(|_| bearer.ask(at(millis)).is_ok()).count();
        assert_eq!([0, 0, 1_000, 1_100, 60_000].map(asked), [20, 0, 10, 1, 20]);
    }

    #[test]
    fn bytes_are_counted_when_they_are_sent_and_come_back_with_time() {
        let bearer = bearer(Allowance { bytes_per_second: 1_000, ..Allowance::default() });
        assert!(bearer.ask(at(0)).is_ok());
        bearer.sent(30_000);
        let refused = Err(Exhausted::Bytes { after: Duration::from_secs(21) });
        assert_eq!(bearer.ask(at(0)), refused);
        assert!(bearer.ask(at(19_000)).is_err());
        assert!(bearer.ask(at(21_000)).is_ok());
        assert!(bearer.ask(at(3_600_000)).is_ok());
        bearer.sent(10_000);
        assert!(bearer.ask(at(3_600_000)).is_err(), "no more than ten seconds are saved up");
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nobody_out() {
        let allowed = Allowance { requests: 10, bytes_per_second: 1_000, connections: 0 };
        let bearer = bearer(allowed);
        (0..20).for_each(|_| bearer.ask(at(7_200_000)).unwrap());
        bearer.sent(20_000);
        assert!(bearer.ask(at(0)).is_err());
        assert!(bearer.ask(at(11_000)).is_ok());
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let bearer = bearer(Allowance { connections: 2, ..Allowance::default() });
        let (one, two) = (bearer.connect().unwrap(), bearer.connect().unwrap());
        assert_eq!(bearer.connect().err(), Some(Exhausted::Connections));
        assert!(one.is_of(&bearer) && two.is_of(&bearer));
        drop(one);
        assert!(bearer.connect().is_ok());
    }
}
