//! What is written to the SSD: each use of a block is shown to it, and it answers yes or why not.
//!
//! One for each volume, of a fixed size. Pure of I/O, the clock is an argument, and a question
//! takes no lock. `sights` says whether a block was seen before, `titles` whether it is likely to
//! be again, `shares` whether its site has enough, `budget` how strict to be, so that what is
//! written lasts as long as the drive should.

mod budget;
mod choice;
mod saved;
mod shares;
mod sights;
mod titles;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use crate::cache::admission::budget::{Better, DAY};
use crate::cache::admission::budget::{Budget, Reach, Strictness};
pub use crate::cache::admission::saved::SavedError;
use crate::cache::admission::shares::Shares;
use crate::cache::admission::sights::Sights;
use crate::cache::admission::titles::Titles;
use crate::limits::{SITES_MAX, SSD_LIFETIME_MIN};
use crate::object::SiteId;

/// What is written at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What was seen before or is likely to be seen again; all, where that was found to be better
    /// and the write budget allows it.
    Budget,
    /// Everything, as far as the write budget allows.
    All,
    /// Planned fills only.
    PlannedOnly,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Budget, Mode::All, Mode::PlannedOnly];
}

/// What an operator sets; may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionSettings {
    /// What is written at all.
    pub mode: Mode,
    /// What should be written to the volume in a day; `None`: there is neither a limit to keep nor
    /// an amount to use up.
    pub write_bytes_per_day: Option<u64>,
    /// What is stale sooner is not written.
    pub lifetime_min: Duration,
}

impl Default for AdmissionSettings {
    fn default() -> AdmissionSettings {
        AdmissionSettings {
            mode: Mode::Budget,
            write_bytes_per_day: None,
            lifetime_min: SSD_LIFETIME_MIN,
        }
    }
}

/// How large the volume is; fixed while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionSizes {
    /// Bytes the volume keeps.
    pub volume_bytes: u64,
    /// Blocks it keeps at most: five bytes of filter each.
    pub blocks_max: u64,
}

/// Why a block is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A viewer entered it (his range covers its first byte), and it was filled for him.
    Fill,
    /// It was filled for a viewer who began inside it: he may be on his way through it in several
    /// requests, which would look like several viewers. Does not count as a sight.
    FillInside,
    /// A viewer entered it, and it was in ram.
    RamHit,
    /// A planned fill brought it: written in every mode, and no sight.
    Planned,
}

/// One use of a block that the volume does not hold.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Of the block: the same whenever the block comes back, after a restart too.
    pub block_hash: u64,
    /// Of what it is part of: its path up to the last `/`, or what the site's rule says.
    pub title_hash: u64,
    /// Whose it is.
    pub site: SiteId,
    /// What the block would take of the volume.
    pub bytes: u64,
    /// Why it is looked at.
    pub kind: Use,
    /// How long it will be fresh; what can be revalidated for ever is `Duration::MAX`.
    pub lifetime_left: Duration,
    /// Whether it is part of a live stream that ram will hold for as long as anybody wants it.
    pub live: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write it.
    Admit,
    /// Do not write it.
    Reject(Rejection),
}

/// Why a block is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Not seen before, and its title is not likely to be seen again.
    FirstSight,
    /// Live streams stay in ram.
    Live,
    /// It is stale before it could be read often.
    ShortLived,
    /// Its site has more than its share of what was written of late.
    SiteShare,
    /// The write budget is spent.
    BudgetSpent,
    /// Only planned fills are written.
    PlannedOnly,
}

impl Rejection {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Rejection; 6] = [
        Rejection::FirstSight,
        Rejection::Live,
        Rejection::ShortLived,
        Rejection::SiteShare,
        Rejection::BudgetSpent,
        Rejection::PlannedOnly,
    ];

    /// The reason as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Rejection::FirstSight => "first-sight",
            Rejection::Live => "live",
            Rejection::ShortLived => "short-lived",
            Rejection::SiteShare => "site-share",
            Rejection::BudgetSpent => "budget-spent",
            Rejection::PlannedOnly => "planned-only",
        }
    }
}

/// What became of the sights since the start, and how strict admission is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdmissionFigures {
    /// Blocks admitted.
    pub admitted: u64,
    /// Blocks rejected, in the order of `Rejection::ALL`.
    pub rejected: [u64; Rejection::ALL.len()],
    /// Everything written to the volume.
    pub written_bytes: u64,
    /// What is left of the write budget, carried over or spent ahead; zero without a budget.
    pub budget_left_bytes: f64,
    /// The part of the full window in which a second sight counts.
    pub window: f64,
    /// Whether everything is written now.
    pub writes_all: bool,
    /// Whether a likely title is enough.
    pub believes_titles: bool,
    /// The part of the blocks reclaimed of late that had been used.
    pub used_share: f64,
}

/// Decides what is written to one volume. Shared by all threads.
pub struct Admission {
    sizes: AdmissionSizes,
    mode: AtomicU8,
    lifetime_min_ms: AtomicU64,
    sights: Sights,
    titles: Titles,
    shares: Shares,
    budget: Budget,
    /// Bytes per second that writing all would take, as `f64` bits; `NaN`: it is not better.
    all_bytes_per_second: AtomicU64,
    /// As `f64` bits. `NaN` before anything was reclaimed: what is free costs nothing to fill.
    used_share: AtomicU64,
    admitted: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
}

/// Regions of which the used blocks are remembered as one share.
const REGIONS_AVERAGED: f64 = 16.0;

/// A title less likely to return is not written, however little of what was reclaimed had been
/// used: else a flood, once it was let in, would keep the door open for itself.
const RETURN_SHARE_MIN: f64 = 0.2;

impl Admission {
    /// What one takes in memory, in bytes: five for each block, and a MiB.
    pub fn bytes_for(sizes: &AdmissionSizes) -> u64 {
        5 * sizes.blocks_max + (1 << 20)
    }

    /// Takes [`Admission::bytes_for`]; nothing was seen yet.
    pub fn new(sizes: AdmissionSizes, settings: AdmissionSettings, now: Instant) -> Admission {
        let admission = Admission {
            sizes,
            mode: AtomicU8::new(0),
            lifetime_min_ms: AtomicU64::new(0),
            sights: Sights::new(sizes.volume_bytes, sizes.blocks_max),
            titles: Titles::new(SITES_MAX),
            shares: Shares::new(sizes.volume_bytes, SITES_MAX),
            budget: Budget::new(settings.write_bytes_per_day, sizes.volume_bytes, now),
            all_bytes_per_second: AtomicU64::new(f64::NAN.to_bits()),
            used_share: AtomicU64::new(f64::NAN.to_bits()),
            admitted: AtomicU64::new(0),
            rejected: [const { AtomicU64::new(0) }; Rejection::ALL.len()],
        };
        admission.set(settings);
        admission
    }

    /// Changes what an operator set.
    pub fn set(&self, settings: AdmissionSettings) {
        let mode = Mode::ALL.iter().position(|mode| *mode == settings.mode);
        self.mode.store(mode.expect("ALL names every mode") as u8, Ordering::Relaxed);
        let lifetime_min = u64::try_from(settings.lifetime_min.as_millis()).unwrap_or(u64::MAX);
        self.lifetime_min_ms.store(lifetime_min, Ordering::Relaxed);
        self.budget.set(settings.write_bytes_per_day);
        if settings.mode == Mode::All {
            self.budget.begin_with_all();
        }
    }

    /// What the volume keeps.
    pub fn volume_bytes(&self) -> u64 {
        self.sizes.volume_bytes
    }

    /// A site may have this part of the volume, from 0 to 1; all of it if nothing is said.
    pub fn set_site_share(&self, site: SiteId, share: f64) {
        self.shares.set(usize::from(site.0), share);
    }

    /// What sites have their parts of the writes by, where budget is short.
    pub fn set_site_parts(&self, sites: impl IntoIterator<Item = (SiteId, u32)>) {
        self.shares.set_parts(sites);
    }

    /// Whether a block that the volume does not hold is written to it, and marks the use.
    ///
    /// A block that was admitted and whose write is not complete must not be asked for again: the
    /// answer would be yes.
    pub fn consider(&self, sight: &Sight, now: Instant) -> Decision {
        let decision = match self.judge(sight, now) {
            Ok(()) => Decision::Admit,
            Err(rejection) => Decision::Reject(rejection),
        };
        match decision {
            Decision::Admit => {
                self.shares.admitted(usize::from(sight.site.0), sight.bytes);
                &self.admitted
            }
            Decision::Reject(rejection) => &self.rejected[rejection as usize],
        }
        .fetch_add(1, Ordering::Relaxed);
        decision
    }

    /// Marks a use of a block that the volume holds: should it be reclaimed while it is in use, it
    /// returns at its first miss.
    pub fn used(&self, sight: &Sight) {
        if !sight.live {
            self.mark(sight);
        }
    }

    /// Counts what was written to the volume: records of every kind with their padding, and what
    /// was appended again.
    pub fn wrote(&self, bytes: u64) {
        self.budget.wrote(bytes);
    }

    /// A region was reclaimed: it held so many blocks, and so many of them had been used.
    pub fn reclaimed(&self, blocks: u64, used: u64) {
        if blocks == 0 {
            return;
        }
        let of_region = used as f64 / blocks as f64;
        let next = match self.used_share() {
            // Grown from zero it would say for many regions that what is kept is worth nothing.
            None => of_region,
            Some(share) => share + (of_region - share) / REGIONS_AVERAGED,
        };
        self.used_share.store(next.to_bits(), Ordering::Relaxed);
    }

    /// The score from which a block is appended again when its region is reclaimed.
    pub fn reappend_score_min(&self) -> u8 {
        self.strictness().reappend_score_min()
    }

    /// What the shadow caches found: takes effect in mode `Budget`, where the write budget allows.
    pub fn prefer(&self, better: Better) {
        let all = match better {
            Better::Chosen => f64::NAN,
            Better::All { write_bytes_per_second } => write_bytes_per_second,
        };
        self.all_bytes_per_second.store(all.to_bits(), Ordering::Relaxed);
    }

    /// What became of the sights.
    pub fn figures(&self) -> AdmissionFigures {
        let strictness = self.strictness();
        AdmissionFigures {
            admitted: self.admitted.load(Ordering::Relaxed),
            rejected: self.rejected.each_ref().map(|count| count.load(Ordering::Relaxed)),
            written_bytes: self.budget.written_bytes(),
            budget_left_bytes: self.budget.left_bytes(),
            window: strictness.window(),
            writes_all: strictness == Strictness::ALL,
            believes_titles: strictness.title_factor().is_some(),
            used_share: self.used_share().unwrap_or(0.0),
        }
    }

    fn judge(&self, sight: &Sight, now: Instant) -> Result<(), Rejection> {
        self.budget.keep(self.reach(), now);
        if sight.kind == Use::Planned {
            return Ok(());
        }
        if sight.live {
            return Err(Rejection::Live);
        }
        let chosen = self.is_chosen(sight);
        if self.mode() == Mode::PlannedOnly {
            return Err(Rejection::PlannedOnly);
        }
        let lifetime_min = Duration::from_millis(self.lifetime_min_ms.load(Ordering::Relaxed));
        if sight.lifetime_left < lifetime_min {
            return Err(Rejection::ShortLived);
        }
        if self.strictness_for(sight.site) > Strictness::ALL && !chosen {
            return Err(Rejection::FirstSight);
        }
        if self.shares.exceeds(usize::from(sight.site.0), sight.bytes) {
            return Err(Rejection::SiteShare);
        }
        if self.budget.is_spent() {
            return Err(Rejection::BudgetSpent);
        }
        Ok(())
    }

    fn mode(&self) -> Mode {
        Mode::ALL[usize::from(self.mode.load(Ordering::Relaxed))]
    }

    fn strictness(&self) -> Strictness {
        self.budget.strictness(self.reach())
    }

    fn reach(&self) -> Reach {
        let bytes_per_second = f64::from_bits(self.all_bytes_per_second.load(Ordering::Relaxed));
        match self.mode() {
            Mode::All => Reach::All,
            Mode::Budget if !bytes_per_second.is_nan() => Reach::AllAt { bytes_per_second },
            Mode::Budget | Mode::PlannedOnly => Reach::Chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZES: AdmissionSizes = AdmissionSizes { volume_bytes: 64 * MIB, blocks_max: 64 };

    fn admission(mode: Mode) -> Admission {
        let settings = AdmissionSettings { mode, ..AdmissionSettings::default() };
        let admission = Admission::new(SIZES, settings, Instant::now());
        // The volume is full, and of what left it many had been used.
        admission.reclaimed(64, 50);
        admission
    }

    /// Of a title of its own, so that only the block's own past counts.
    fn sight(block: u64, kind: Use) -> Sight {
        Sight {
            block_hash: sights::mix(block),
            title_hash: sights::mix(!block),
            site: SiteId(0),
            bytes: MIB,
            kind,
            lifetime_left: Duration::MAX,
            live: false,
        }
    }

    fn considered(admission: &Admission, sight: &Sight) -> Decision {
        admission.consider(sight, Instant::now())
    }

    #[test]
    fn a_block_is_written_when_it_is_seen_again() {
        let admission = admission(Mode::Budget);
        let rejected = Decision::Reject(Rejection::FirstSight);
        assert_eq!(considered(&admission, &sight(1, Use::Fill)), rejected);
        assert_eq!(considered(&admission, &sight(2, Use::Fill)), rejected);
        assert_eq!(considered(&admission, &sight(1, Use::RamHit)), Decision::Admit);
        let figures = admission.figures();
        assert_eq!((figures.admitted, figures.rejected[0]), (1, 2));
    }

    #[test]
    fn a_block_filled_for_a_viewer_inside_it_is_no_sight() {
        let admission = admission(Mode::Budget);
        let rejected = Decision::Reject(Rejection::FirstSight);
        for _ in 0..3 {
            assert_eq!(considered(&admission, &sight(1, Use::FillInside)), rejected);
        }
        assert_eq!(considered(&admission, &sight(1, Use::Fill)), rejected);
        assert_eq!(considered(&admission, &sight(1, Use::FillInside)), Decision::Admit);
    }

    #[test]
    fn what_was_used_on_the_volume_returns_at_its_first_miss() {
        let admission = admission(Mode::Budget);
        admission.used(&sight(1, Use::RamHit));
        assert_eq!(considered(&admission, &sight(1, Use::Fill)), Decision::Admit);
    }

    #[test]
    fn a_title_whose_blocks_return_is_written_at_first_sight() {
        let admission = admission(Mode::Budget);
        let of_title = |block| Sight { title_hash: 7, ..sight(block, Use::Fill) };
        for block in 100..130 {
            considered(&admission, &of_title(block));
            considered(&admission, &of_title(block));
        }
        assert_eq!(considered(&admission, &of_title(1)), Decision::Admit);
        // Every block that was reclaimed had been used: this one would be one of the worst.
        (0..100).for_each(|_| admission.reclaimed(64, 64));
        assert_eq!(considered(&admission, &of_title(2)), Decision::Reject(Rejection::FirstSight));
    }

    #[test]
    fn the_first_region_given_up_ends_the_first_fill() {
        let admission = Admission::new(SIZES, AdmissionSettings::default(), Instant::now());
        assert_eq!(considered(&admission, &sight(1, Use::Fill)), Decision::Admit, "room is free");
        admission.reclaimed(64, 64);
        let rejected = Decision::Reject(Rejection::FirstSight);
        assert_eq!(considered(&admission, &sight(2, Use::Fill)), rejected);
        assert_eq!(admission.figures().used_share, 1.0);
        // That nothing was used is no reason to write everything for ever.
        let admission = Admission::new(SIZES, AdmissionSettings::default(), Instant::now());
        admission.reclaimed(64, 0);
        let is_written =
            |block: &u64| considered(&admission, &sight(*block, Use::Fill)) != rejected;
        let written = (0..1_000).filter(is_written).count();
        assert!(written < 100, "{written} of a thousand strangers");
    }

    #[test]
    fn each_mode_writes_what_it_says() {
        let live = Sight { live: true, ..sight(1, Use::Fill) };
        let short = Sight { lifetime_left: Duration::from_secs(5), ..sight(2, Use::Fill) };
        for (mode, first) in [
            (Mode::Budget, Decision::Reject(Rejection::FirstSight)),
            (Mode::All, Decision::Admit),
            (Mode::PlannedOnly, Decision::Reject(Rejection::PlannedOnly)),
        ] {
            let admission = admission(mode);
            assert_eq!(considered(&admission, &sight(3, Use::Fill)), first, "{mode:?}");
            let planned = considered(&admission, &sight(4, Use::Planned));
            assert_eq!(planned, Decision::Admit, "{mode:?}");
            let rejected = Decision::Reject(Rejection::Live);
            assert_eq!(considered(&admission, &live), rejected, "{mode:?}");
            if mode != Mode::PlannedOnly {
                let rejected = Decision::Reject(Rejection::ShortLived);
                assert_eq!(considered(&admission, &short), rejected, "{mode:?}");
            }
        }
    }

    #[test]
    fn the_better_mode_is_used_only_where_the_choice_is_free() {
        let admission = admission(Mode::Budget);
        admission.prefer(Better::All { write_bytes_per_second: 1e6 });
        assert_eq!(considered(&admission, &sight(1, Use::Fill)), Decision::Admit);
        admission.prefer(Better::Chosen);
        assert_ne!(considered(&admission, &sight(2, Use::Fill)), Decision::Admit);
    }

    #[test]
    fn a_site_over_its_share_is_not_written() {
        let admission = admission(Mode::All);
        admission.set_site_share(SiteId(0), 0.25);
        let decisions: Vec<_> =
            (0..17).map(|block| considered(&admission, &sight(block, Use::Fill))).collect();
        assert!(decisions[..16].iter().all(|decision| *decision == Decision::Admit));
        assert_eq!(decisions[16], Decision::Reject(Rejection::SiteShare));
    }

    #[test]
    fn who_had_more_than_its_part_bears_what_the_budget_lacks() {
        let start = Instant::now();
        let settings = AdmissionSettings {
            write_bytes_per_day: Some(64 * MIB),
            ..AdmissionSettings::default()
        };
        let admission = Admission::new(SIZES, settings, start);
        admission.reclaimed(64, 50);
        admission.set_site_parts([(SiteId(0), 1), (SiteId(1), 1)]);
        let of = |site, block| Sight { site: SiteId(site), ..sight(block, Use::Fill) };
        // The first fill of the volume is not charged; far too much after it is.
        admission.wrote(SIZES.volume_bytes);
        for step in 1..20 {
            admission.wrote(8 * MIB);
            let later = start + Duration::from_secs(601 * step);
            for _ in 0..2 {
                admission.consider(&of(0, 1_000 + step), later);
            }
        }
        assert!(admission.strictness() > Strictness::CHOSEN);
        let strictness = [0, 1].map(|site| admission.strictness_for(SiteId(site)));
        assert_eq!(strictness, [admission.strictness(), Strictness::CHOSEN]);
    }

    #[test]
    fn nothing_but_planned_fills_is_written_when_the_budget_is_spent() {
        let start = Instant::now();
        let settings = AdmissionSettings {
            mode: Mode::All,
            write_bytes_per_day: Some(MIB),
            ..AdmissionSettings::default()
        };
        let admission = Admission::new(SIZES, settings, start);
        // The first fill of the volume is not charged; the rest is two days' budget.
        admission.wrote(SIZES.volume_bytes + 2 * MIB);
        let later = start + Duration::from_secs(601);
        assert_eq!(admission.consider(&sight(1, Use::Planned), later), Decision::Admit);
        admission.consider(&sight(1, Use::Fill), later);
        let again = admission.consider(&sight(1, Use::RamHit), later);
        assert_eq!(again, Decision::Reject(Rejection::BudgetSpent));
    }

    #[test]
    fn what_was_seen_before_a_restart_still_counts() {
        let before = admission(Mode::Budget);
        considered(&before, &sight(1, Use::Fill));
        let saved = before.save();
        let after = admission(Mode::Budget);
        after.restore(&saved).unwrap();
        assert_eq!(considered(&after, &sight(1, Use::Fill)), Decision::Admit);
        let larger = AdmissionSizes { volume_bytes: 128 * MIB, blocks_max: 64 };
        let other = Admission::new(larger, AdmissionSettings::default(), Instant::now());
        let other_sizes = SavedError::OtherSizes { saved: SIZES, wanted: larger };
        assert_eq!(other.restore(&saved), Err(other_sizes));
        let unknown = SavedError::Unknown { magic: 0x0707_0707_0707_0707 };
        assert_eq!(after.restore(&[7; 99]), Err(unknown));
        for bytes in [0, 7, 800] {
            let length = SavedError::Length { bytes, wanted: saved.len() };
            assert_eq!(after.restore(&saved[..bytes]), Err(length));
        }
    }
}
