//! A line of the log that anybody can cause: it is told once a second, with how many were left out
//! meanwhile, so that nobody fills a disk by it.

use std::time::{Duration, Instant};

/// When it was told last.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told_at: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether to tell it now, and how many were not told since it was.
    pub(super) fn tells(&mut self, now: Instant) -> Option<u64> {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < BETWEEN;
        if self.told_at.is_some_and(is_soon) {
            self.left_out += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

const BETWEEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_in_a_second_one_is_told_and_how_many_there_were() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let told = [0, 1, 999, 1_000, 1_500, 9_000].map(|millis| seldom.tells(after(millis)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
