//! What origins may be asked for because a volume is ill: so many bytes a second, and no more.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A bucket of bytes that fills with time; it holds one second's worth.
pub(super) struct Bypass {
    bytes_per_second: u64,
    level: Mutex<(f64, Instant)>,
}

impl Bypass {
    pub(super) fn new(bytes_per_second: u64) -> Bypass {
        let level = Mutex::new((bytes_per_second as f64, Instant::now()));
        Bypass { bytes_per_second, level }
    }

    /// Takes `bytes`, if anything is left: a block is never asked for in parts, so the last one
    /// may overdraw the bucket, and the next ones wait for that.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.bytes_per_second as f64;
        let filled = full * now.saturating_duration_since(level.1).as_secs_f64();
        *level = ((level.0 + filled).min(full), now.max(level.1));
        if level.0 <= 0.0 {
            return false;
        }
        level.0 -= bytes as f64;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_taken_than_the_rate_allows() {
        let bypass = Bypass::new(10 << 20);
        let start = Instant::now();
        let mut taken = 0;
        for tenth in 0..100 {
            while bypass.take(1 << 20, start + Duration::from_millis(100 * tenth)) {
                taken += 1;
            }
        }
        // Ten seconds at ten blocks a second, the second that was full at the start, one overdrawn.
        assert!((105..=111).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let bypass = Bypass::new(100);
        let now = Instant::now();
        assert!(bypass.take(1000, now));
        assert!(!bypass.take(1, now));
        assert!(!bypass.take(1, now + Duration::from_secs(8)));
        assert!(bypass.take(1, now + Duration::from_secs(10)));
    }
}
