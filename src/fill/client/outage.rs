//! What is logged of an origin that does not answer: one line at once, how often it was asked in
//! vain from time to time, and one line when it answers again.
//!
//! Every request fails while an origin is down, and a line for each would bury all others. One that
//! comes and goes is told no more often than one that stays away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether an origin answers, and what of it has been told.
#[derive(Default)]
pub(super) struct Outage {
    /// Looked at for each answer: as a rule there is nothing to tell.
    fails: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it began not to answer.
    since: Option<Instant>,
    /// Attempts that failed since then.
    failed: u64,
    /// Whether anything was told since then.
    is_told: bool,
    /// When it was last told that it does not answer.
    told: Option<Instant>,
}

impl Outage {
    /// An attempt failed; what to log, if it is time.
    pub(super) fn failed(&self, now: Instant) -> Option<String> {
        let mut state = self.state();
        let since = *state.since.get_or_insert(now);
        state.failed += 1;
        self.fails.store(true, Ordering::Relaxed);
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
            return None;
        }
        state.told = Some(now);
        state.is_told = true;
        let lasts = now.saturating_duration_since(since);
        Some(match state.failed {
            1 => String::new(),
            failed => format!(", {failed} times in {} s", lasts.as_secs()),
        })
    }

    /// It answered; what to log, if it was told that it does not.
    pub(super) fn answered(&self, now: Instant) -> Option<String> {
        if !self.fails.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        self.fails.store(false, Ordering::Relaxed);
        let since = state.since.take()?;
        let failed = std::mem::take(&mut state.failed);
        let lasted = now.saturating_duration_since(since).as_secs();
        std::mem::take(&mut state.is_told)
            .then(|| format!("it was asked in vain {failed} times in {lasted} s"))
    }

    /// For how long it has not answered; `None`: it does, or was never asked.
    pub(super) fn lasts(&self, now: Instant) -> Option<Duration> {
        if !self.fails.load(Ordering::Relaxed) {
            return None;
        }
        Some(now.saturating_duration_since(self.state().since?))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two lines about an origin that does not answer.
const TOLD_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_is_down_is_told_at_once_then_counted_then_told_to_be_back() {
        let (outage, start) = (Outage::default(), Instant::now());
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        assert_eq!(outage.answered(start), None);
        let told: Vec<_> = (0..1_500).filter_map(|n| Some((n, outage.failed(at(n))?))).collect();
        let expected = [
            (0, String::new()),
            (600, ", 601 times in 60 s".to_owned()),
            (1_200, ", 1201 times in 120 s".to_owned()),
        ];
        assert_eq!(told, expected);
        let back = outage.answered(at(1_510));
        assert_eq!(back.as_deref(), Some("it was asked in vain 1500 times in 151 s"));
        assert_eq!(outage.answered(at(1_511)), None);
    }

    #[test]
    fn an_origin_that_comes_and_goes_is_told_no_more_often() {
        let (outage, start) = (Outage::default(), Instant::now());
        let mut lines = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            lines += usize::from(outage.failed(now).is_some());
            lines += usize::from(outage.answered(now).is_some());
        }
        assert_eq!(lines, 2 * 10);
    }
}
