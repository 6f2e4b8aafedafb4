//! The write budget of a volume: how strictly admission chooses, so that a day's bytes last a day.
//!
//! Every ten minutes what was written is held against the budget, and the strictness takes a step.
//! What was not used carries over. Nothing is dropped at random, which would cut objects in parts:
//! fewer blocks are believed to come back. Everything written counts, what is appended again too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time in which a volume may be written as much as its setting says.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Unused budget may be spent within this, and what was spent ahead is saved within it: evenings
/// write more than mornings.
const HORIZON: Duration = Duration::from_secs(6 * 3_600);
/// How often the strictness may move. A step takes minutes to show: by the minute, as others do it,
/// it swings from end to end, which cost 0.7 points on the traces.
const STEP: Duration = Duration::from_secs(600);
/// One step's bytes count this much in the rate: appending again comes in bursts.
const RATE_WEIGHT: f64 = 0.5;
/// A step less strict writes about this much more.
const SPARE_SHARE: f64 = 0.8;
/// Unused budget of this many days is kept.
const DAYS_KEPT: f64 = 7.0;
/// After all was spent nothing is written until this part of a day's budget is there again.
const DAY_SHARE_TO_RESUME: f64 = 1.0 / 48.0;

/// So much must be saved before more is written than is best.
const DAYS_TO_BE_GENEROUS: f64 = 0.25;

const WINDOW_STEP: f64 = 0.8;
const WINDOW_MIN: f64 = 0.25;
const TITLE_FACTOR: f64 = 0.85;
const GENEROUS_TITLE_FACTOR: f64 = 0.7;
/// Blocks that were used this often are appended again when a region is reclaimed.
const REAPPEND_SCORE_MIN: u8 = 2;

/// How strictly admission chooses, from all to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Strictness(u32);

impl Strictness {
    /// Everything is written.
    pub(super) const ALL: Strictness = Strictness(0);
    /// There is budget to use up: titles are believed sooner, one use earns another lap.
    const GENEROUS: Strictness = Strictness(1);
    /// What was seen before, or is likely to be seen again.
    pub(super) const CHOSEN: Strictness = Strictness(2);
    /// The first step with the smallest window.
    const NARROWEST: Strictness = Strictness(9);
    const SECOND_SIGHT_ONLY: Strictness = Strictness(10);
    const STRICTEST: Strictness = Strictness(15);

    /// As it is written down.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The part of the full window in which a second sight counts.
    pub(super) fn window(self) -> f64 {
        let steps = self.min(Strictness::NARROWEST).0.saturating_sub(Strictness::CHOSEN.0);
        WINDOW_STEP.powi(steps as i32).max(WINDOW_MIN)
    }

    /// A title is believed when its blocks are this much as likely to be used as those reclaimed
    /// of late were; `None`: no title is enough.
    pub(super) fn title_factor(self) -> Option<f64> {
        match self {
            Strictness::ALL | Strictness::GENEROUS => Some(GENEROUS_TITLE_FACTOR),
            _ => (self < Strictness::SECOND_SIGHT_ONLY).then_some(TITLE_FACTOR),
        }
    }

    /// The score from which a block is appended again.
    pub(super) fn reappend_score_min(self) -> u8 {
        match self {
            Strictness::ALL | Strictness::GENEROUS => REAPPEND_SCORE_MIN - 1,
            _ => REAPPEND_SCORE_MIN + self.0.saturating_sub(Strictness::SECOND_SIGHT_ONLY.0) as u8,
        }
    }
}

/// What the shadow caches found to serve more from the volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Better {
    /// What was seen before or is likely to be.
    Chosen,
    /// Everything, which would write about this much.
    All {
        /// Bytes per second, those appended again included.
        write_bytes_per_second: f64,
    },
}

impl Better {
    /// The same for a volume that takes this share of what is written, from 0 to 1.
    pub fn of_share(self, share: f64) -> Better {
        match self {
            Better::Chosen => Better::Chosen,
            Better::All { write_bytes_per_second } => {
                Better::All { write_bytes_per_second: write_bytes_per_second * share }
            }
        }
    }
}

/// The budget and what was made of it.
pub(super) struct Budget {
    /// Bytes a day; zero: without a limit.
    bytes_per_day: AtomicU64,
    written_bytes: AtomicU64,
    strictness: AtomicU32,
    spent: AtomicBool,
    started: Instant,
    /// Seconds after the start when the strictness may move again.
    next_step_s: AtomicU64,
    account: Mutex<Account>,
}

/// Looked at once a step.
#[derive(Clone, Copy, Debug)]
struct Account {
    stepped: Instant,
    written_bytes_then: u64,
    /// Bytes not used of the budget so far; negative when too much was written.
    left_bytes: f64,
    /// Smoothed.
    bytes_per_second: f64,
}

/// What may be written, at the least strict.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach {
    /// What was seen before, or is likely to be.
    Chosen,
    /// All, if that is about what would be written.
    AllAt { bytes_per_second: f64 },
    /// All.
    All,
}

impl Budget {
    /// `first_bytes` come on top once: filling an empty volume is not charged.
    pub(super) fn new(bytes_per_day: Option<u64>, first_bytes: u64, now: Instant) -> Budget {
        let account = Account {
            stepped: now,
            written_bytes_then: 0,
            left_bytes: first_bytes as f64,
            bytes_per_second: 0.0,
        };
        Budget {
            bytes_per_day: AtomicU64::new(bytes_per_day.unwrap_or(0)),
            written_bytes: AtomicU64::new(0),
            strictness: AtomicU32::new(Strictness::CHOSEN.0),
            spent: AtomicBool::new(false),
            started: now,
            next_step_s: AtomicU64::new(STEP.as_secs()),
            account: Mutex::new(account),
        }
    }

    pub(super) fn set(&self, bytes_per_day: Option<u64>) {
        self.bytes_per_day.store(bytes_per_day.unwrap_or(0), Ordering::Relaxed);
    }

    /// Who asks for everything gets it at once, and less when it turns out to be too much.
    pub(super) fn begin_with_all(&self) {
        self.strictness.store(Strictness::ALL.0, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// How strict to be now; without a budget nothing but the reach decides.
    pub(super) fn strictness(&self, reach: Reach) -> Strictness {
        match (self.bytes_per_day.load(Ordering::Relaxed), reach) {
            (0, Reach::Chosen) => Strictness::CHOSEN,
            (0, Reach::All | Reach::AllAt { .. }) => Strictness::ALL,
            _ => Strictness(self.strictness.load(Ordering::Relaxed)),
        }
    }

    /// Whether nothing may be written until there is budget again.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Bytes of the budget that were not used so far.
    pub(super) fn left_bytes(&self) -> f64 {
        self.account.lock().expect("accounting never panics").left_bytes
    }

    /// What was left by the last run, and how strict it was.
    pub(super) fn carry_over(&self, left_bytes: f64, strictness: u64) {
        if left_bytes.is_finite() {
            self.account.lock().expect("accounting never panics").left_bytes = left_bytes;
        }
        let strictness = strictness.min(u64::from(Strictness::STRICTEST.0));
        self.strictness.store(strictness as u32, Ordering::Relaxed);
    }

    /// Moves the strictness if it is time; costs a comparison otherwise.
    pub(super) fn keep(&self, reach: Reach, now: Instant) {
        let seconds = now.saturating_duration_since(self.started).as_secs();
        if seconds < self.next_step_s.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut account) = self.account.try_lock() else { return };
        let elapsed = now.saturating_duration_since(account.stepped);
        if elapsed < STEP {
            return;
        }
        self.next_step_s.store(seconds + STEP.as_secs(), Ordering::Relaxed);
        let written = self.written_bytes();
        let rate = (written - account.written_bytes_then) as f64 / elapsed.as_secs_f64();
        account.stepped = now;
        account.written_bytes_then = written;
        account.bytes_per_second += (rate - account.bytes_per_second) * RATE_WEIGHT;
        let per_day = self.bytes_per_day.load(Ordering::Relaxed) as f64;
        if per_day == 0.0 {
            self.spent.store(false, Ordering::Relaxed);
            return;
        }
        let days = elapsed.as_secs_f64() / DAY.as_secs_f64();
        account.left_bytes += per_day * days - rate * elapsed.as_secs_f64();
        account.left_bytes = account.left_bytes.min(per_day * DAYS_KEPT);
        self.spend(account.left_bytes, per_day);
        let target = per_day / DAY.as_secs_f64() + account.left_bytes / HORIZON.as_secs_f64();
        let strictness = Strictness(self.strictness.load(Ordering::Relaxed));
        let rates = Rates {
            bytes_per_second: account.bytes_per_second,
            target_bytes_per_second: target.max(0.0),
            days_left: account.left_bytes / per_day,
        };
        let strictness = next(strictness, reach, rates);
        self.strictness.store(strictness.0, Ordering::Relaxed);
    }

    /// A day's budget may be used ahead of time; then it is spent.
    fn spend(&self, left_bytes: f64, per_day: f64) {
        let spent = match self.is_spent() {
            false => left_bytes <= -per_day,
            true => left_bytes <= -per_day * (1.0 - DAY_SHARE_TO_RESUME),
        };
        self.spent.store(spent, Ordering::Relaxed);
    }
}

/// What is written, and what should be.
#[derive(Clone, Copy)]
struct Rates {
    bytes_per_second: f64,
    target_bytes_per_second: f64,
    /// Days of budget that were not used; negative: overdrawn.
    days_left: f64,
}

/// One step from `strictness`. Choosing more strictly than is best needs an overdrawn account, for
/// an evening alone is no reason; being generous needs a saved one.
fn next(strictness: Strictness, reach: Reach, rates: Rates) -> Strictness {
    let Rates { bytes_per_second, target_bytes_per_second: target, days_left } = rates;
    let chosen = match days_left >= DAYS_TO_BE_GENEROUS {
        true => Strictness::GENEROUS,
        false => Strictness::CHOSEN,
    };
    let least = match reach {
        Reach::All => Strictness::ALL,
        Reach::AllAt { bytes_per_second } if bytes_per_second <= target => Strictness::ALL,
        Reach::AllAt { .. } | Reach::Chosen => chosen,
    };
    let most = if days_left < 0.0 { Strictness::STRICTEST } else { Strictness::CHOSEN };
    let step = if bytes_per_second > target && strictness < most {
        Strictness(strictness.0 + 1)
    } else if bytes_per_second < target * SPARE_SHARE {
        Strictness(strictness.0.saturating_sub(1))
    } else {
        strictness
    };
    step.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: f64 = (1_u64 << 30) as f64;

    /// Writes `rate(strictness)` bytes a second for `hours`, and gives what was written.
    fn written(
        budget: &Budget,
        from: Instant,
        hours: u64,
        rate: impl Fn(Strictness) -> f64,
    ) -> f64 {
        let before = budget.written_bytes();
        for step in 1..=hours * 3_600 / STEP.as_secs() {
            if !budget.is_spent() {
                budget.wrote((rate(budget.strictness(Reach::Chosen)) * STEP.as_secs_f64()) as u64);
            }
            budget.keep(Reach::Chosen, from + STEP * step as u32);
        }
        (budget.written_bytes() - before) as f64
    }

    #[test]
    fn what_is_written_in_a_week_is_the_budget_of_a_week() {
        let start = Instant::now();
        let budget = Budget::new(Some(100 << 30), 0, start);
        // Three times too much at the full window.
        let rate = |strictness: Strictness| {
            6.0 * 100.0 * GIB / 86_400.0 * strictness.window()
                / f64::from(strictness.reappend_score_min())
        };
        let written = written(&budget, start, 7 * 24, rate);
        let wanted = 7.0 * 100.0 * GIB;
        assert!((wanted * 0.9..wanted * 1.1).contains(&written), "{} GiB", written / GIB);
    }

    #[test]
    fn unused_budget_carries_over_to_the_evening() {
        let start = Instant::now();
        let budget = Budget::new(Some(100 << 30), 0, start);
        written(&budget, start, 24, |_| 0.0);
        let evening = written(&budget, start + DAY, 6, |_| 1.6 * 100.0 * GIB / 86_400.0);
        assert_eq!(budget.strictness(Reach::Chosen), Strictness::GENEROUS);
        assert!(evening > 39.9 * GIB);
    }

    #[test]
    fn no_more_than_a_day_ahead_is_written_whatever_comes() {
        let start = Instant::now();
        let budget = Budget::new(Some(100 << 30), 0, start);
        let written = written(&budget, start, 10 * 24, |_| 40.0 * 100.0 * GIB / 86_400.0);
        assert!(written < 11.3 * 100.0 * GIB, "{} GiB", written / GIB);
        assert!(written > 10.0 * 100.0 * GIB, "{} GiB", written / GIB);
    }

    #[test]
    fn steps_narrow_the_window_then_doubt_titles_then_append_less_again() {
        let steps: Vec<_> = (0..=Strictness::STRICTEST.0).map(Strictness).collect();
        assert!(steps.windows(2).all(|two| two[0].window() >= two[1].window()));
        assert_eq!(steps[2].window(), 1.0);
        assert_eq!(steps[9].window(), WINDOW_MIN);
        assert_eq!(
            [1, 2, 9, 10].map(|n| steps[n].title_factor()),
            [Some(GENEROUS_TITLE_FACTOR), Some(TITLE_FACTOR), Some(TITLE_FACTOR), None,]
        );
        assert_eq!([1, 2, 10, 15].map(|n| steps[n].reappend_score_min()), [1, 2, 2, 7]);
    }

    #[test]
    fn all_is_written_where_that_is_better_and_fits() {
        let all_at = |bytes_per_second| Reach::AllAt { bytes_per_second };
        let next = |from, reach, bytes_per_second| {
            let target_bytes_per_second = 100.0;
            next(from, reach, Rates { bytes_per_second, target_bytes_per_second, days_left: 0.1 })
        };
        let (all, chosen) = (Strictness::ALL, Strictness::CHOSEN);
        assert_eq!(next(Strictness::GENEROUS, all_at(90.0), 30.0), all);
        assert_eq!(next(Strictness::GENEROUS, all_at(110.0), 30.0), chosen);
        assert_eq!(next(chosen, Reach::Chosen, 30.0), chosen);
        assert_eq!(next(all, all_at(110.0), 90.0), chosen);
        assert_eq!(next(all, Reach::All, 101.0), Strictness::GENEROUS);
    }
}
