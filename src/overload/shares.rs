//! What each site may count on of what all share: a part of it by its `share`.
//!
//! Shares count only where there is too little. What nobody needs anybody may have, and he gives it
//! back as it is needed. Of fills the next place is for who has the fewest for his share
//! (`fill/turns.rs`); of ram two fifths are divided, and nobody's blocks are evicted who keeps less
//! than is his of them ([`Shares::ram_own`], `cache/policy/owned.rs`); of what is written to a
//! volume `cache/admission` has the order; the last of the memory that is sent from is for who
//! holds less (`memory.rs`); of workers, egress, that memory and connections who has more than his
//! share is refused first (`overload.rs`). The first `limits::SITES_TOLD_MAX` sites have shares of
//! their own, all others one together.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::limits::SITES_TOLD_MAX;
use crate::object::SiteId;

use super::pressure::{ALL_NEW, ALL_OF_ONE};
use super::watch::Measured;

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

    /// Whether he counts as having more than his share: as it was measured when nobody was refused
    /// for it yet, and who was added since ([`Shares::measured`]).
    pub fn is_beyond(&self, resource: Resource, sharer: Sharer) -> bool {
        self.beyond[resource as usize].load(Ordering::Relaxed) & sharer.bit() != 0
    }

    /// Whether one of those who want any of `whole` wants more than his share of it.
    pub fn wants_more(&self, sharer: Sharer, whole: u64, wanted: &[u64; SHARERS_MAX]) -> bool {
        let wanting = Sharer::all().filter(|one| wanted[one.index()] > 0);
        let wanting = wanting.fold(0, |bits, one| bits | one.bit());
        let left = Left::of(whole, wanted, &self.weights(), wanting);
        let his = u128::from(wanted[sharer.index()]) * left.weights;
        left.who & sharer.bit() != 0 && his > left.whole * u128::from(self.weight(sharer))
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
    pub fn beyond_count(&self, resource: Resource) -> u32 {
        self.beyond[resource as usize].load(Ordering::Relaxed).count_ones()
    }

    /// The most that those are pressed who have more than their shares: where the others want next
    /// to nothing, to refuse who has been let in would gain them nothing.
    pub fn pressed_max(&self, resource: Resource) -> u32 {
        let others_want = self.others_want[resource as usize].load(Ordering::Relaxed);
        match self.beyond_count(resource) {
            0 => 0,
            _ if others_want => ALL_OF_ONE,
            _ => ALL_NEW,
        }
    }

    /// Says what was measured, and how it counts.
    ///
    /// Who is refused has less, and another so a larger part: who has more than his share is
    /// decided before anybody is refused for it, and stays so until nobody is any more. Where that
    /// does not help, others may have too much as well.
    pub fn measured(&self, measured: &Measured, counts: impl Fn(Resource) -> Counts) {
        for (kept, part) in self.ram_own.iter().zip(measured.ram_own) {
            kept.store(part, Ordering::Relaxed);
        }
        for resource in Resource::ALL {
            let (at, had) = (resource as usize, &measured.had[resource as usize]);
            let before = self.beyond[at].load(Ordering::Relaxed);
            let beyond = match counts(resource) {
                Counts::Anew => measured.beyond[at],
                Counts::Too => before | measured.beyond[at],
                Counts::Not => before,
            };
            self.beyond[at].store(beyond, Ordering::Relaxed);
            let others = Sharer::all().filter(|sharer| !self.is_beyond(resource, *sharer));
            let others: u64 = others.map(|sharer| had[sharer.index()]).sum();
            let others_want = others > 0 && others >= had.iter().sum::<u64>() / OTHERS_PART;
            self.others_want[at].store(others_want, Ordering::Relaxed);
        }
    }

    /// A bit for each of whom somebody was refused since this was last asked.
    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    pub(super) fn weights(&self) -> [u64; SHARERS_MAX] {
        self.weights.each_ref().map(|weight| weight.load(Ordering::Relaxed).into())
    }
}

/// How it counts who was measured to have more than his share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// He has, and nobody else.
    Anew,
    /// He has too, beside those of before.
    Too,
    /// Only those of before have.
    Not,
}

impl Counts {
    /// Where there is too much or not, and those of before are pressed so far, of what they may be.
    pub fn of(is_too_much: bool, pressed: u32, pressed_max: u32) -> Counts {
        match (is_too_much, pressed) {
            (_, 0) => Counts::Anew,
            (true, pressed) if pressed >= pressed_max => Counts::Too,
            _ => Counts::Not,
        }
    }
}

/// What is left of a whole, and to whom, when everybody who wants less than his share of it has
/// what he wants (max-min fairness).
pub(super) struct Left {
    /// A bit for each.
    pub(super) who: u64,
    whole: u128,
    weights: u128,
}

impl Left {
    pub(super) fn of(
        whole: u64,
        wanted: &[u64; SHARERS_MAX],
        weights: &[u64; SHARERS_MAX],
        mut who: u64,
    ) -> Left {
        let weight = |one: Sharer| u128::from(weights[one.index()].max(1));
        let wanted = |one: Sharer| u128::from(wanted[one.index()]);
        let mut whole = u128::from(whole);
        loop {
            let among = |who: u64| Sharer::all().filter(move |one| who & one.bit() != 0);
            let weights: u128 = among(who).map(weight).sum();
            let small = |one: &Sharer| wanted(*one) * weights < whole * weight(*one);
            let small = among(who).filter(small).fold(0, |bits, one| bits | one.bit());
            if small == 0 {
                return Left { who, whole, weights };
            }
            whole = whole.saturating_sub(among(small).map(wanted).sum());
            who &= !small;
        }
    }
}

/// Others want something when they have this part of the whole together.
const OTHERS_PART: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    impl Shares {
        /// Those of the first sites, in order.
        pub(crate) fn of_weights(weights: &[u32]) -> Shares {
            let shares = Shares::default();
            shares.set((0..).map(SiteId).zip(weights.iter().copied()));
            shares
        }
    }

    #[test]
    fn who_is_alone_is_not_within_his_share_and_who_has_none_yet_is() {
        let shares = Shares::of_weights(&[1, 3]);
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
    fn nobody_has_more_than_his_share_because_another_is_refused() {
        let shares = Shares::of_weights(&[1, 1]);
        let (first, second) = (Sharer::of(SiteId(0)), Sharer::of(SiteId(1)));
        let after = |beyond: Sharer, counts: Counts| {
            let measured = Measured {
                ram_own: [0; SHARERS_MAX],
                beyond: [beyond.bit(); Resource::ALL.len()],
                had: [[0; SHARERS_MAX]; Resource::ALL.len()],
            };
            shares.measured(&measured, |_| counts);
            [first, second].map(|sharer| shares.is_beyond(Resource::Work, sharer))
        };
        assert_eq!(after(first, Counts::Anew), [true, false]);
        assert_eq!(after(second, Counts::Not), [true, false], "as long as it is refused");
        assert_eq!(after(second, Counts::Too), [true, true], "it was not that alone");
        assert_eq!(after(second, Counts::Anew), [false, true]);
    }

    #[test]
    fn what_is_measured_counts_anew_when_nobody_is_refused_and_too_where_that_does_not_help() {
        for (is_too_much, pressed, expected) in [
            (false, 0, Counts::Anew),
            (true, 0, Counts::Anew),
            (true, 125, Counts::Not),
            (false, 2_000, Counts::Not),
            (true, 2_000, Counts::Too),
        ] {
            assert_eq!(Counts::of(is_too_much, pressed, 2_000), expected, "{pressed}");
        }
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
            let shares = Shares::of_weights(&[1, 1, 1]);
            shares.after_a_second(served, 1 << 20);
            assert_eq!(shares.pressed_max(Resource::Work), expected, "{served:?}");
        }
    }

    #[test]
    fn sites_without_a_share_of_their_own_have_one_together() {
        let shares = Shares::of_weights(&[1; SITES_TOLD_MAX + 3]);
        let others = Sharer::of(SiteId(4_000));
        assert_eq!(others, Sharer::of(SiteId(SITES_TOLD_MAX as u16)));
        assert_eq!((shares.weight(others), shares.weight(Sharer::of(SiteId(0)))), (3, 1));
        assert_eq!(shares.part(others), 3 * WHOLE / (SITES_TOLD_MAX as u32 + 3));
    }
}
