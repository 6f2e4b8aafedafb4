//! What each site may count on of what all share: a part of it by its `share`.
//!
//! Shares count only where there is too little. What nobody needs anybody may have, and he gives it
//! back as it is needed. Of fills the next place is for who has the fewest for his share
//! (`fill/turns.rs`); of ram two fifths are divided, and nobody's blocks are evicted who keeps less
//! than is his of them ([`Shares::ram_own`], `cache/policy/owned.rs`); of what is written to a
//! volume `cache/admission` has the order; the last of the memory that is sent from is for who holds
//! less (`memory.rs`); of workers, egress and connections who has more than his share is refused
//! first (`overload.rs`). The first `limits::SITES_TOLD_MAX` sites have shares of
//! their own, all others one together.
//! Nothing here reads a clock: [`Watch`] is told what was counted, ten times a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::limits::{PIECE_SIZE_BYTES, SITES_TOLD_MAX};
use crate::object::SiteId;

use super::RETRY_AFTER;
use super::pressure::{ALL_NEW, ALL_OF_ONE};

/// How many have shares.
pub const SHARERS_MAX: usize = SITES_TOLD_MAX + 1;

/// The whole of something; parts of it are compared without floating point.
pub const WHOLE: u32 = 1_000_000;

/// What is somebody's own of ram, in all, in millionths; the rest is whoever's. More would have
/// those who look for what may leave pass over too much (`cache/policy.rs`).
pub const RAM_OWNED: u32 = WHOLE / 10 * 4;

/// A site, or all that have no share of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer(u8);

impl Sharer {
    /// What a site has its share as.
    pub const fn of(site: SiteId) -> Sharer {
        let last = SITES_TOLD_MAX as u16;
        Sharer(if site.0 < last { site.0 } else { last } as u8)
    }

    /// All of them, in their places.
    pub fn all() -> impl Iterator<Item = Sharer> {
        (0..SHARERS_MAX as u8).map(Sharer)
    }

    /// Its place among all of them.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its bit, where there is one for each of them.
    pub fn bit(self) -> u64 {
        1 << self.0
    }
}

const _: () = assert!(SHARERS_MAX <= u64::BITS as usize, "a bit for each");

/// What is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// What workers did in the last second: each request, and each piece that was sent.
    Work,
    /// Bytes that were sent in the last second, heads too.
    Egress,
    /// Memory that is held while it is filled and sent, now.
    Memory,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 3] = [Resource::Work, Resource::Egress, Resource::Memory];

    /// As metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            Resource::Work => "work",
            Resource::Egress => "egress",
            Resource::Memory => "memory",
        }
    }
}

/// The shares of now. Read by all threads.
#[derive(Debug)]
pub struct Shares {
    weights: [AtomicU32; SHARERS_MAX],
    /// Parts of the ram tier that nobody may take.
    ram_own: [AtomicU32; SHARERS_MAX],
    /// A bit for each who has more than his share.
    beyond: [AtomicU64; Resource::ALL.len()],
    /// A bit for each of whom somebody was refused since it was last measured: he wants some.
    refused: AtomicU64,
    /// Whether the others have enough for it to be worth refusing who has been let in.
    others_want: [AtomicBool; Resource::ALL.len()],
}

impl Default for Shares {
    fn default() -> Shares {
        Shares {
            weights: [const { AtomicU32::new(0) }; SHARERS_MAX],
            ram_own: [const { AtomicU32::new(0) }; SHARERS_MAX],
            beyond: Default::default(),
            refused: AtomicU64::new(0),
            others_want: Default::default(),
        }
    }
}

impl Shares {
    /// The shares that sites have from now on; all others have none.
    pub fn set(&self, sites: impl IntoIterator<Item = (SiteId, u32)>) {
        let mut weights = [0_u32; SHARERS_MAX];
        for (site, weight) in sites {
            let sum = &mut weights[Sharer::of(site).index()];
            *sum = sum.saturating_add(weight);
        }
        for (kept, weight) in self.weights.iter().zip(weights) {
            kept.store(weight, Ordering::Relaxed);
        }
    }

    /// Whether there is more than one who has a share.
    pub fn are_many(&self) -> bool {
        self.weights().iter().filter(|weight| **weight > 0).count() > 1
    }

    /// What its part is reckoned by; 1 at least.
    pub fn weight(&self, sharer: Sharer) -> u64 {
        u64::from(self.weights[sharer.index()].load(Ordering::Relaxed).max(1))
    }

    /// The part of the whole that would be left to `sharer` if all wanted theirs.
    pub fn part(&self, sharer: Sharer) -> u32 {
        let all: u64 = self.weights().iter().sum();
        (self.weight(sharer) * u64::from(WHOLE) / all.max(1)).min(WHOLE.into()) as u32
    }

    /// The part of the ram tier that is his and that he has use for, in millionths.
    pub fn ram_own(&self, sharer: Sharer) -> u32 {
        self.ram_own[sharer.index()].load(Ordering::Relaxed)
    }

    /// One of his was refused: who is refused is sent nothing by which he would be seen to want it.
    pub(super) fn was_refused(&self, sharer: Sharer) {
        self.refused.fetch_or(sharer.bit(), Ordering::Relaxed);
    }

    /// Whether he had more than his share, in the last second, while others wanted theirs.
    pub fn is_beyond(&self, resource: Resource, sharer: Sharer) -> bool {
        self.beyond[resource as usize].load(Ordering::Relaxed) & sharer.bit() != 0
    }

    /// Whether he had less than his part of what those had who had any: another had more.
    pub fn is_within(&self, sharer: Sharer, had: &[u64; SHARERS_MAX]) -> bool {
        let (weights, his) = (self.weights(), sharer.index());
        let counts = |index: &usize| had[*index] > 0 || *index == his;
        let weights = (0..SHARERS_MAX).filter(counts).map(|index| weights[index].max(1));
        let (shared, total) = (weights.sum::<u64>(), had.iter().sum::<u64>());
        let (has, weight) = (had[his], self.weight(sharer));
        u128::from(has) * u128::from(shared) < u128::from(total) * u128::from(weight)
    }

    /// How many have more than their shares.
    pub fn beyond(&self, resource: Resource) -> u32 {
        self.beyond[resource as usize].load(Ordering::Relaxed).count_ones()
    }

    /// The most that those are pressed who have more than their shares: where the others want next
    /// to nothing, to refuse who has been let in would gain them nothing.
    pub fn pressed_max(&self, resource: Resource) -> u32 {
        let others_want = self.others_want[resource as usize].load(Ordering::Relaxed);
        match self.beyond(resource) {
            0 => 0,
            _ if others_want => ALL_OF_ONE,
            _ => ALL_NEW,
        }
    }

    /// Says what was measured, and of what nobody is refused because of what was measured before.
    ///
    /// Who is refused has less, and another so a larger part: who has more than his share is
    /// decided while there is too much, and stays so until nobody is refused any more.
    pub fn measured(&self, measured: &Measured, is_open: impl Fn(Resource) -> bool) {
        for (kept, part) in self.ram_own.iter().zip(measured.ram_own) {
            kept.store(part, Ordering::Relaxed);
        }
        for resource in Resource::ALL {
            let (at, had) = (resource as usize, &measured.had[resource as usize]);
            if is_open(resource) {
                self.beyond[at].store(measured.beyond[at], Ordering::Relaxed);
            }
            let others = Sharer::all().filter(|sharer| !self.is_beyond(resource, *sharer));
            let others: u64 = others.map(|sharer| had[sharer.index()]).sum();
            let others_want = others > 0 && others >= had.iter().sum::<u64>() / OTHERS_PART;
            self.others_want[at].store(others_want, Ordering::Relaxed);
        }
    }

    fn weights(&self) -> [u64; SHARERS_MAX] {
        self.weights.each_ref().map(|weight| weight.load(Ordering::Relaxed).into())
    }
}

/// What was counted of the viewers of one since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that were sent to answer them.
    pub bytes: u64,
}

impl Served {
    fn since(self, before: Served) -> Served {
        Served {
            requests: self.requests.saturating_sub(before.requests),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }

    fn work(self) -> u64 {
        self.requests + self.bytes / PIECE_SIZE_BYTES
    }

    fn egress(self) -> u64 {
        self.requests * HEAD_BYTES + self.bytes
    }
}

/// The same of each of them.
pub type ServedOfEach = [Served; SHARERS_MAX];

/// At the start.
pub const NOTHING_SERVED: ServedOfEach = [Served { requests: 0, bytes: 0 }; SHARERS_MAX];

/// What follows from what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    ram_own: [u32; SHARERS_MAX],
    beyond: [u64; Resource::ALL.len()],
    /// What each had.
    had: [[u64; SHARERS_MAX]; Resource::ALL.len()],
}

/// Memory that is held while it is filled and sent (`memory.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// What each has.
    pub bytes: [u64; SHARERS_MAX],
    /// A bit for each whose new viewers find none, because he has more than his share.
    pub beyond: u64,
}

/// Looks at what was counted.
#[derive(Debug, Default)]
pub struct Watch {
    /// Of the last second, ten times.
    second: VecDeque<ServedOfEach>,
    /// Of whom somebody was refused, ten times a second.
    refused: VecDeque<u64>,
    /// Of the last minutes, each minute.
    minutes: VecDeque<ServedOfEach>,
    periods: u64,
}

impl Watch {
    /// After another tenth of a second, where `ram_bytes` are what all share of ram.
    ///
    /// What is kept of a site is worth what it is asked for: nobody keeps from others what his
    /// viewers did not want for ten minutes. So a share of ram is lent by whoever is idle.
    pub fn after(
        &mut self,
        served: ServedOfEach,
        in_use: InUse,
        shares: &Shares,
        ram_bytes: u64,
    ) -> Measured {
        if self.periods.is_multiple_of(PERIODS_A_MINUTE) {
            remember(&mut self.minutes, served, MINUTES);
        }
        self.periods += 1;
        remember(&mut self.second, served, PERIODS_A_SECOND);
        let weights = shares.weights();
        let lately = since(&served, self.minutes.front());
        let second = since(&served, self.second.front());
        let had = Resource::ALL.map(|resource| match resource {
            Resource::Work => second.map(Served::work),
            Resource::Egress => second.map(Served::egress),
            Resource::Memory => in_use.bytes,
        });
        self.refused.push_back(shares.refused.swap(0, Ordering::Relaxed));
        if self.refused.len() > REFUSED_PERIODS {
            self.refused.pop_front();
        }
        let refused = self.refused.iter().fold(0, |bits, more| bits | more);
        Measured {
            ram_own: ram_own(&lately, &weights, ram_bytes),
            beyond: Resource::ALL.map(|resource| match resource {
                Resource::Memory => in_use.beyond,
                _ => beyond(&had[resource as usize], &weights, refused),
            }),
            had,
        }
    }
}

fn remember(all: &mut VecDeque<ServedOfEach>, served: ServedOfEach, most: usize) {
    all.push_back(served);
    if all.len() > most + 1 {
        all.pop_front();
    }
}

fn since(served: &ServedOfEach, before: Option<&ServedOfEach>) -> ServedOfEach {
    let before = before.copied().unwrap_or(NOTHING_SERVED);
    std::array::from_fn(|index| served[index].since(before[index]))
}

/// A bit for each who had more than his share of what those had who wanted any: of what is left
/// when who wants less than his share has what he wants (max-min fairness).
fn beyond(had: &[u64; SHARERS_MAX], weights: &[u64; SHARERS_MAX], refused: u64) -> u64 {
    let wants = |sharer: &Sharer| had[sharer.index()] > 0 || refused & sharer.bit() != 0;
    let wanting: Vec<Sharer> = Sharer::all().filter(wants).collect();
    let weight = |sharer: &Sharer| u128::from(weights[sharer.index()].max(1));
    let mut left = wanting.clone();
    loop {
        let total: u128 = left.iter().map(|sharer| u128::from(had[sharer.index()])).sum();
        let shared: u128 = left.iter().map(weight).sum();
        let before = left.len();
        left.retain(|one| u128::from(had[one.index()]) * shared >= total * weight(one));
        if left.len() == before {
            break;
        }
    }
    // Where all have the same, nobody has more than his share.
    let beyond = left.iter().filter(|_| left.len() < wanting.len());
    beyond.fold(0, |bits, sharer| bits | sharer.bit())
}

/// Millionths of ram that are each one's own: his share of what may be, among those who were asked
/// for anything, and no more than was sent of his.
fn ram_own(
    served: &ServedOfEach,
    weights: &[u64; SHARERS_MAX],
    ram_bytes: u64,
) -> [u32; SHARERS_MAX] {
    let asked = served.iter().zip(weights).filter(|(one, _)| one.bytes > 0);
    let shared: u64 = asked.map(|(_, weight)| *weight.max(&1)).sum();
    std::array::from_fn(|index| {
        let (bytes, weight) = (served[index].bytes, weights[index].max(1));
        let used = u128::from(bytes) * u128::from(WHOLE) / u128::from(ram_bytes.max(1));
        let share = u64::from(RAM_OWNED) * weight / shared.max(1);
        used.min(share.into()) as u32
    })
}

/// Others want something when they have this part of the whole together.
const OTHERS_PART: u64 = 8;
const PERIODS_A_SECOND: usize = 10;
/// Who is refused wants some until he has come again, when he was told to, and a second more.
const REFUSED_PERIODS: usize = (RETRY_AFTER.as_secs() as usize + 1) * PERIODS_A_SECOND;
/// What the head of an answer takes, or a refusal, as a rule.
const HEAD_BYTES: u64 = 300;
const PERIODS_A_MINUTE: u64 = 600;
const MINUTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NONE_IN_USE: InUse = InUse { bytes: [0; SHARERS_MAX], beyond: 0 };

    fn shares(weights: &[u32]) -> Shares {
        let shares = Shares::default();
        shares.set((0..).map(SiteId).zip(weights.iter().copied()));
        shares
    }

    impl Shares {
        /// After a second in which the viewers of each were served so much: requests, bytes.
        pub(crate) fn after_a_second(&self, served: &[(u64, u64)], ram_bytes: u64) {
            let mut watch = Watch::default();
            watch.after(NOTHING_SERVED, NONE_IN_USE, self, ram_bytes);
            let measured = watch.after(of_each(served), NONE_IN_USE, self, ram_bytes);
            self.measured(&measured, |_| true);
        }
    }

    fn of_each(served: &[(u64, u64)]) -> ServedOfEach {
        let mut all = NOTHING_SERVED;
        for (one, (requests, bytes)) in all.iter_mut().zip(served) {
            *one = Served { requests: *requests, bytes: *bytes };
        }
        all
    }

    /// Shares of these weights, and who has looked once when nothing was served.
    fn watched(weights: &[u32]) -> (Shares, Watch) {
        let (shares, mut watch) = (shares(weights), Watch::default());
        watch.after(NOTHING_SERVED, NONE_IN_USE, &shares, MIB);
        (shares, watch)
    }

    fn is_beyond(shares: &Shares, resource: Resource) -> Vec<u16> {
        (0..3).filter(|site| shares.is_beyond(resource, Sharer::of(SiteId(*site)))).collect()
    }

    #[test]
    fn who_is_refused_wants_some_though_he_is_sent_nothing() {
        let (shares, mut watch) = watched(&[1, 3]);
        let mut sent = 0;
        let mut after_a_period = || {
            sent += 100;
            let measured = watch.after(of_each(&[(0, sent)]), NONE_IN_USE, &shares, MIB);
            shares.measured(&measured, |_| true);
            is_beyond(&shares, Resource::Egress)
        };
        assert!(after_a_period().is_empty(), "nobody else wants any");
        shares.was_refused(Sharer::of(SiteId(1)));
        for _ in 0..REFUSED_PERIODS {
            assert_eq!(after_a_period(), [0]);
        }
        assert!(after_a_period().is_empty(), "he does not come again");
    }

    #[test]
    fn who_has_more_than_his_share_of_what_is_wanted_is_beyond_it() {
        for (weights, served, work, egress) in [
            (&[1, 1][..], &[(90, 0), (10, 0)][..], &[0][..], &[0][..]),
            (&[1, 1], &[(50, 50), (50, 50)], &[], &[]),
            // One who is alone borrows all there is.
            (&[1, 1], &[(90, 9 << 20), (0, 0)], &[], &[]),
            (&[9, 1], &[(90, 90), (10, 10)], &[], &[]),
            (&[9, 1], &[(89, 89), (11, 11)], &[1], &[1]),
            (&[1, 1, 2], &[(10, 0), (30, 0), (60, 0)], &[1, 2], &[1, 2]),
            // What others do not need is shared by those who do.
            (&[1, 1, 1, 1, 1], &[(95, 95), (9, 9), (1, 1), (1, 1), (1, 1)], &[0], &[0]),
            // A piece that is sent is as much work as a request.
            (&[1, 1], &[(10, 0), (1, 20 * PIECE_SIZE_BYTES)], &[1], &[1]),
        ] {
            let shares = shares(weights);
            shares.after_a_second(served, MIB);
            assert_eq!(is_beyond(&shares, Resource::Work), work, "{weights:?} {served:?}");
            assert_eq!(is_beyond(&shares, Resource::Egress), egress, "{weights:?} {served:?}");
        }
    }

    #[test]
    fn who_is_alone_is_not_within_his_share_and_who_has_none_yet_is() {
        let shares = shares(&[1, 3]);
        for (had, expected) in [
            ([0, 0], [false, false]),
            ([9, 0], [false, true]),
            ([9, 9], [false, true]),
            ([2, 9], [true, false]),
            ([3, 9], [false, false]),
        ] {
            let mut all = [0; SHARERS_MAX];
            all[..2].copy_from_slice(&had);
            let is_within = |site| shares.is_within(Sharer::of(SiteId(site)), &all);
            assert_eq!([is_within(0), is_within(1)], expected, "{had:?}");
        }
    }

    #[test]
    fn what_was_served_a_second_ago_is_forgotten() {
        let (shares, mut watch) = watched(&[1, 1]);
        let flood = of_each(&[(900, 0), (1, 0)]);
        for period in 0..12 {
            shares.measured(&watch.after(flood, NONE_IN_USE, &shares, MIB), |_| true);
            let expected: &[u16] = if period < 10 { &[0] } else { &[] };
            assert_eq!(is_beyond(&shares, Resource::Work), expected, "{period}");
        }
    }

    #[test]
    fn nobody_has_more_than_his_share_because_another_is_refused() {
        let (shares, mut watch) = watched(&[1, 1]);
        let mut after = |served: &[(u64, u64)], is_open: bool| {
            let measured = watch.after(of_each(served), NONE_IN_USE, &shares, MIB);
            shares.measured(&measured, |_| is_open);
            is_beyond(&shares, Resource::Work)
        };
        assert_eq!(after(&[(90, 0), (10, 0)], true), [0]);
        assert_eq!(after(&[(91, 0), (200, 0)], false), [0], "as long as it is refused");
        assert_eq!(after(&[(91, 0), (300, 0)], true), [1], "it was not that");
    }

    #[test]
    fn for_a_trickle_of_others_nobody_is_refused_who_has_been_let_in() {
        for (served, expected) in [
            (&[(900, 0), (0, 0)][..], 0),
            (&[(999, 0), (1, 0)], ALL_NEW),
            (&[(880, 0), (120, 0)], ALL_NEW),
            (&[(870, 0), (130, 0)], ALL_OF_ONE),
            (&[(870, 0), (65, 0), (65, 0)], ALL_OF_ONE),
        ] {
            let shares = shares(&[1, 1, 1]);
            shares.after_a_second(served, MIB);
            assert_eq!(shares.pressed_max(Resource::Work), expected, "{served:?}");
        }
    }

    #[test]
    fn ram_is_ones_own_by_his_share_and_by_what_was_sent_of_his_for_ten_minutes() {
        let (shares, mut watch) = (shares(&[3, 1]), Watch::default());
        let mut ram = |served: &[(u64, u64)]| {
            let measured = watch.after(of_each(served), NONE_IN_USE, &shares, 100 * MIB);
            shares.measured(&measured, |_| true);
            [0, 1].map(|site| shares.ram_own(Sharer::of(SiteId(site))))
        };
        assert_eq!(ram(&[]), [0, 0]);
        assert_eq!(ram(&[(1, 500 * MIB)]), [RAM_OWNED, 0], "nobody else wants any");
        assert_eq!(ram(&[(1, 500 * MIB), (1, 9 * MIB)]), [300_000, 90_000]);
        assert_eq!(ram(&[(1, 500 * MIB), (1, 90 * MIB)]), [300_000, 100_000]);
        let idle = (0..6_600).map(|_| ram(&[(1, 500 * MIB), (1, 90 * MIB)]));
        assert_eq!(idle.last(), Some([0, 0]), "lent by who is idle");
    }

    #[test]
    fn sites_without_a_share_of_their_own_have_one_together() {
        let shares = shares(&[1; SITES_TOLD_MAX + 3]);
        let others = Sharer::of(SiteId(4_000));
        assert_eq!(others, Sharer::of(SiteId(SITES_TOLD_MAX as u16)));
        assert_eq!((shares.weight(others), shares.weight(Sharer::of(SiteId(0)))), (3, 1));
        assert_eq!(shares.part(others), 3 * WHOLE / (SITES_TOLD_MAX as u32 + 3));
    }
}
