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

use super::pressure::{ALL_NEW, ALL_OF_ONE, Pressed};
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
    /// Who has the share of a site: it alone, or all together that have none of their own.
    pub const fn of(site: SiteId) -> Sharer {
        let last = SITES_TOLD_MAX as u16;
        Sharer(if site.0 < last { site.0 } else { last } as u8)
    }

    /// All of them, in their places.
    pub fn all() -> impl Iterator<Item = Sharer> {
        (0..SHARERS_MAX as u8).map(Sharer)
    }

    /// A bit for each of whom this holds.
    pub fn bits(holds: impl Fn(&Sharer) -> bool) -> u64 {
        Sharer::all().filter(holds).fold(0, |bits, one| bits | one.bit())
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

    /// Whether he counts as having more than his share, as it was measured last.
    pub fn is_beyond(&self, resource: Resource, sharer: Sharer) -> bool {
        self.beyond[resource as usize].load(Ordering::Relaxed) & sharer.bit() != 0
    }

    /// Whether one of those who want any of `whole` wants more than his share of it.
    pub fn wants_more(&self, sharer: Sharer, whole: u64, wanted: &[u64; SHARERS_MAX]) -> bool {
        let wanting = Sharer::bits(|one| wanted[one.index()] > 0);
        let left = Left::of(whole, wanted, &self.weights(), wanting);
        let his = u128::from(wanted[sharer.index()]) * left.weights;
        left.who & sharer.bit() != 0 && his > left.whole * u128::from(self.weight(sharer))
    }

    /// Whether he had less than his part of what those had who had any: another had more.
    pub fn is_within(&self, sharer: Sharer, had: &[u64; SHARERS_MAX]) -> bool {
        self.is_within_part(sharer, had, 1)
    }

    /// Whether he had less than this part of it: half of it, a third.
    pub(super) fn is_within_part(
        &self,
        sharer: Sharer,
        had: &[u64; SHARERS_MAX],
        part: u64,
    ) -> bool {
        let (weights, his) = (self.weights(), sharer.index());
        let counts = |index: &usize| had[*index] > 0 || *index == his;
        let weights = (0..SHARERS_MAX).filter(counts).map(|index| weights[index].max(1));
        let (shared, total) = (weights.sum::<u64>(), had.iter().sum::<u64>());
        let (has, weight) = (had[his], self.weight(sharer));
        u128::from(has) * u128::from(shared * part) < u128::from(total) * u128::from(weight)
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

    /// Says what was measured, and how it counts who has more than his share of the work.
    ///
    /// Of what is sent and held all is known, and it counts anew each time. How much can be done
    /// nobody knows, only what was: who is refused has less of it, and another so a larger part. So
    /// it is decided before anybody is refused for it, and stays so until nobody is any more, but
    /// for who has had little for a while. Where that does not help, others may have too much too.
    pub(super) fn measured(&self, measured: &Measured, work: Counts) {
        for (kept, part) in self.ram_own.iter().zip(measured.ram_own) {
            kept.store(part, Ordering::Relaxed);
        }
        for resource in Resource::ALL {
            let (at, had) = (resource as usize, &measured.had[resource as usize]);
            let before = self.beyond[at].load(Ordering::Relaxed) & !measured.had_little;
            let counts = if resource == Resource::Work { work } else { Counts::Anew };
            let beyond = match counts {
                Counts::Anew => measured.beyond[at],
                Counts::Too => before | measured.beyond[at],
                Counts::Not if before == 0 => measured.beyond[at],
                Counts::Not => before,
            };
            self.beyond[at].store(beyond, Ordering::Relaxed);
            let others = Sharer::all().filter(|sharer| !self.is_beyond(resource, *sharer));
            let others: u64 = others.map(|sharer| had[sharer.index()]).sum();
            let others_want = others > 0 && others >= had.iter().sum::<u64>() / OTHERS_PART;
            // They do not come to want more because those of before are sent less.
            let wanted = self.others_want[at].load(Ordering::Relaxed) || counts != Counts::Not;
            self.others_want[at].store(others_want && wanted, Ordering::Relaxed);
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
pub(super) enum Counts {
    /// He has, and nobody else.
    Anew,
    /// He has too, beside those of before.
    Too,
    /// Only those of before have, if anybody had.
    Not,
}

impl Counts {
    /// Where a worker is late or not and refuses so much, of what those of before may be refused.
    pub(super) fn of(is_late: bool, pressed: Pressed, pressed_max: u32) -> Counts {
        match pressed {
            Pressed { beyond: 0, all: 0 } => Counts::Anew,
            Pressed { beyond, .. } if is_late && beyond >= pressed_max => Counts::Too,
            _ => Counts::Not,
        }
    }

    /// Where each worker is late or not, and refuses so much.
    pub(super) fn of_all(
        workers: impl Iterator<Item = (bool, Pressed)>,
        pressed_max: u32,
    ) -> Counts {
        let of = |(is_late, pressed)| Counts::of(is_late, pressed, pressed_max);
        let each: Vec<Counts> = workers.map(of).collect();
        if each.iter().all(|counts| *counts == Counts::Anew) {
            Counts::Anew
        } else if each.contains(&Counts::Too) {
            Counts::Too
        } else {
            Counts::Not
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
            let is_small = |one: &Sharer| wanted(*one) * weights < whole * weight(*one);
            let small = Sharer::bits(|one| who & one.bit() != 0 && is_small(one));
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
    use super::super::watch::{
        InUse, NOTHING_SERVED, REFUSED_PERIODS, Seen, Served, ServedOfEach, Watch,
    };
    use super::*;
    use crate::limits::PIECE_SIZE_BYTES;

    const MIB: u64 = 1 << 20;
    const NOTHING_SEEN: Seen = Seen {
        served: NOTHING_SERVED,
        sent_bytes: 0,
        sent_bytes_max: None,
        is_near: false,
        in_use: InUse { bytes: [0; SHARERS_MAX], beyond: 0 },
        is_short: false,
        ram_bytes: MIB,
    };

    fn shares(weights: &[u32]) -> Shares {
        let shares = Shares::default();
        shares.set((0..).map(SiteId).zip(weights.iter().copied()));
        shares
    }

    impl Shares {
        /// After a second in which the viewers of each were served so much: requests, bytes.
        pub(crate) fn after_a_second(&self, served: &[(u64, u64)], ram_bytes: u64) {
            let mut watch = Watch::default();
            watch.after(&Seen { ram_bytes, ..NOTHING_SEEN }, self);
            let served = of_each(served);
            let measured = watch.after(&Seen { served, ram_bytes, ..NOTHING_SEEN }, self);
            self.measured(&measured, Counts::Anew);
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
        watch.after(&NOTHING_SEEN, &shares);
        (shares, watch)
    }

    fn seen(served: &[(u64, u64)]) -> Seen {
        Seen { served: of_each(served), ..NOTHING_SEEN }
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
            shares.measured(&watch.after(&seen(&[(0, sent)]), &shares), Counts::Anew);
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
        let flood = seen(&[(900, 0), (1, 0)]);
        for period in 0..12 {
            shares.measured(&watch.after(&flood, &shares), Counts::Anew);
            let expected: &[u16] = if period < 10 { &[0] } else { &[] };
            assert_eq!(is_beyond(&shares, Resource::Work), expected, "{period}");
        }
    }

    #[test]
    fn nobody_has_more_than_his_share_because_another_is_refused() {
        let (shares, mut watch) = watched(&[1, 1]);
        let mut after = |served: &[(u64, u64)], counts: Counts| {
            shares.measured(&watch.after(&seen(served), &shares), counts);
            is_beyond(&shares, Resource::Work)
        };
        assert_eq!(after(&[(90, 0), (10, 0)], Counts::Anew), [0]);
        assert_eq!(after(&[(91, 0), (200, 0)], Counts::Not), [0], "as long as it is refused");
        assert_eq!(after(&[(91, 0), (300, 0)], Counts::Too), [0, 1], "it was not that alone");
        assert_eq!(after(&[(91, 0), (400, 0)], Counts::Anew), [1]);
    }

    #[test]
    fn where_all_are_refused_it_is_told_who_has_more_when_another_wants_some_too() {
        let (shares, mut watch) = watched(&[1, 1]);
        let mut after = |served: &[(u64, u64)], counts: Counts| {
            shares.measured(&watch.after(&seen(served), &shares), counts);
            is_beyond(&shares, Resource::Work)
        };
        assert!(after(&[(90, 0), (0, 0)], Counts::Anew).is_empty(), "he is alone");
        assert_eq!(after(&[(180, 0), (10, 0)], Counts::Not), [0]);
        assert_eq!(after(&[(180, 0), (300, 0)], Counts::Not), [0], "and stays so");
    }

    #[test]
    fn what_is_measured_counts_anew_when_nobody_is_refused_and_too_where_that_does_not_help() {
        for (is_too_much, beyond, all, expected) in [
            (false, 0, 0, Counts::Anew),
            (true, 0, 0, Counts::Anew),
            (true, 125, 0, Counts::Not),
            (false, 2_000, 0, Counts::Not),
            (true, 2_000, 0, Counts::Too),
            // As long as all bear it, they must be told apart.
            (false, 0, 125, Counts::Not),
            (true, 0, 125, Counts::Not),
            (true, 2_000, 125, Counts::Too),
        ] {
            let pressed = Pressed { beyond, all };
            assert_eq!(Counts::of(is_too_much, pressed, 2_000), expected, "{pressed:?}");
        }
    }

    #[test]
    fn who_is_beyond_changes_when_no_worker_refuses_and_grows_where_one_does_in_vain() {
        let refuses = |beyond| Pressed { beyond, all: 0 };
        let (late, at_rest) = ((true, refuses(0)), (false, refuses(0)));
        let (refusing, in_vain) = ((true, refuses(500)), (true, refuses(2_000)));
        for (workers, expected) in [
            ([at_rest, at_rest], Counts::Anew),
            ([late, at_rest], Counts::Anew),
            ([late, refusing], Counts::Not),
            ([refusing, at_rest], Counts::Not),
            ([refusing, in_vain], Counts::Too),
            ([at_rest, in_vain], Counts::Too),
        ] {
            assert_eq!(Counts::of_all(workers.into_iter(), 2_000), expected, "{workers:?}");
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
            let shares = shares(&[1, 1, 1]);
            shares.after_a_second(served, MIB);
            assert_eq!(shares.pressed_max(Resource::Work), expected, "{served:?}");
        }
    }

    #[test]
    fn ram_is_ones_own_by_his_share_and_by_what_was_sent_of_his_for_ten_minutes() {
        let (shares, mut watch) = (shares(&[3, 1]), Watch::default());
        let mut ram = |served: &[(u64, u64)]| {
            let seen = Seen { ram_bytes: 100 * MIB, ..seen(served) };
            shares.measured(&watch.after(&seen, &shares), Counts::Anew);
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
