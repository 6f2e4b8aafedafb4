//! So many in a second, and those of two seconds at once: one number. Pure.

use std::time::Duration;

/// Tokens, as the time at which all of them will be there again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at_us: u64,
}

impl Bucket {
    /// Takes one at `now`; else how long until there is one.
    pub(super) fn take(&mut self, now: Duration, per_second: u32) -> Result<(), Duration> {
        let now_us = now.as_micros() as u64;
        let each_us = MICROS / u64::from(per_second.max(1));
        let full_at_us = self.full_at_us.max(now_us) + each_us;
        let too_soon_us = full_at_us.saturating_sub(now_us + BURST_US.max(each_us));
        if too_soon_us > 0 {
            return Err(Duration::from_micros(too_soon_us));
        }
        self.full_at_us = full_at_us;
        Ok(())
    }

    /// When it will be as if nobody had taken any: the later, the more were taken.
    pub(super) fn full_at_us(self) -> u64 {
        self.full_at_us
    }
}

const MICROS: u64 = 1_000_000;
const BURST_US: u64 = 2 * MICROS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_in_a_second_and_two_seconds_of_them_at_once() {
        for (per_second, at_ms, expected) in [
            (5, &[0, 0, 200, 1_000, 60_000][..], &[10, 0, 1, 4, 10][..]),
            (1, &[0, 999, 1_000, 9_000], &[2, 0, 1, 2]),
            (1_000_000, &[0, 1], &[2_000_000, 1_000]),
        ] {
            let mut bucket = Bucket::default();
            let mut taken_at = |ms| {
                let now = Duration::from_millis(ms);
                (0..3_000_000).take_while(|_| bucket.take(now, per_second).is_ok()).count()
            };
            let taken: Vec<usize> = at_ms.iter().map(|ms| taken_at(*ms)).collect();
            assert_eq!(taken, expected, "{per_second}");
        }
    }

    #[test]
    fn who_is_refused_is_told_how_long_to_wait() {
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(7);
        assert_eq!([bucket.take(now, 2), bucket.take(now, 2)], [Ok(()); 2]);
        assert_eq!([bucket.take(now, 2), bucket.take(now, 2)], [Ok(()); 2]);
        assert_eq!(bucket.take(now, 2), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(now + Duration::from_millis(500), 2), Ok(()));
    }
}
