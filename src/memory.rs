//! The governor: every byte the process may use is reserved here before it is used.
//!
//! Two pools share `memory.total`. The *working* pool is the part of the ram tier's mapping that
//! fills and pinned slices may hold; the *rest* is heads, connections, requests under way and
//! connections to origins. A class says how badly a reservation is wanted: the lower its share of
//! the pool, the earlier it is refused, in the order of [`Class::ALL`]. The last quarter of the
//! working pool is for sites that hold no more than their share of the other three
//! ([`Governor::of`]): one site's slow readers do not take what another's viewers need. Of the rest
//! an eighth is lent to whatever requests come; beyond it a site has its share of it alone. Who
//! waits for memory must hold none: `reserve` waits, `try_reserve` never does.

mod wanted;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::limits::PIECE_SIZE_BYTES;
use crate::object::SiteId;
use crate::overload::{InUse, SHARERS_MAX, Sharer, Shares};

use self::wanted::WORKING;
pub use self::wanted::{Class, Limit, Use};

/// Shares out what `memory.total` allows; one for the process.
#[derive(Debug)]
pub struct Governor {
    pools: [Pool; 2],
    used_bytes: [AtomicU64; Use::ALL.len()],
    refused: [AtomicU64; Class::ALL.len()],
    shares: Arc<Shares>,
}

/// A part of what is allowed, which nothing else may use.
#[derive(Debug)]
struct Pool {
    budget_bytes: u64,
    used_bytes: AtomicU64,
    /// What each site's viewers hold of it.
    used_by: [AtomicU64; SHARERS_MAX],
    /// Who waits, by class: of each site, and those who are of none.
    waiting: [[Queue; Class::ALL.len()]; SHARERS_MAX + 1],
    /// Who waits for more than a piece, of whatever class: few do.
    waiting_for_more: Queue,
    /// How many wait in all of these: looked at whenever something is released.
    waiting_all: AtomicUsize,
}

/// Who waits and is woken together.
#[derive(Debug, Default)]
struct Queue {
    /// How many.
    waiting: AtomicUsize,
    released: Notify,
}

impl Pool {
    /// Never more than is granted, not for a moment either: another would be refused for that, and
    /// nobody would wake him.
    fn take(&self, bytes: u64, class: Class, limit: Limit) -> bool {
        let limit_bytes = class.limit_bytes(self.budget_bytes, limit);
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit_bytes);
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).is_ok()
    }

    fn used_by(&self) -> [u64; SHARERS_MAX] {
        self.used_by.each_ref().map(|used| used.load(Ordering::Relaxed))
    }

    fn queue(&self, sharer: Option<Sharer>, class: Class) -> &Queue {
        &self.waiting[sharer.map_or(SHARERS_MAX, Sharer::index)][class as usize]
    }
}

impl Governor {
    /// `working_bytes`: what fills and pinned slices may hold of the ram tier's mapping;
    /// `rest_bytes`: what is left of the total beside the mapping.
    pub fn new(working_bytes: u64, rest_bytes: u64, shares: Arc<Shares>) -> Arc<Governor> {
        let pool = |budget_bytes| Pool {
            budget_bytes,
            used_bytes: AtomicU64::new(0),
            used_by: [const { AtomicU64::new(0) }; SHARERS_MAX],
            waiting: std::array::from_fn(|_| Default::default()),
            waiting_for_more: Queue::default(),
            waiting_all: AtomicUsize::new(0),
        };
        Arc::new(Governor {
            pools: [pool(working_bytes), pool(rest_bytes)],
            used_bytes: Default::default(),
            refused: Default::default(),
            shares,
        })
    }

    /// As it is asked for the viewers of one site.
    pub fn of(self: &Arc<Self>, site: SiteId) -> OfSite<'_> {
        OfSite { governor: self, sharer: Sharer::of(site) }
    }

    /// Reserves `bytes`, or returns `None`, counted as refused, when they would take the pool above
    /// the share of `class`.
    pub fn try_reserve(
        self: &Arc<Self>,
        purpose: Use,
        class: Class,
        bytes: u64,
    ) -> Option<Reservation> {
        self.try_reserve_for(None, purpose, class, bytes)
    }

    fn try_reserve_for(
        self: &Arc<Self>,
        sharer: Option<Sharer>,
        purpose: Use,
        class: Class,
        bytes: u64,
    ) -> Option<Reservation> {
        let reserved = self.take(sharer, purpose, class, bytes);
        if reserved.is_none() {
            self.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        }
        reserved
    }

    /// Reserves `bytes`, waiting until others release enough. The caller must hold no reservation
    /// that it could release, and gives its own deadline. Dropping the future midway reserves
    /// nothing.
    pub async fn reserve(self: &Arc<Self>, purpose: Use, class: Class, bytes: u64) -> Reservation {
        self.reserve_for(None, purpose, class, bytes).await
    }

    async fn reserve_for(
        self: &Arc<Self>,
        sharer: Option<Sharer>,
        purpose: Use,
        class: Class,
        bytes: u64,
    ) -> Reservation {
        if let Some(reservation) = self.take(sharer, purpose, class, bytes) {
            return reservation;
        }
        self.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        let pool = &self.pools[purpose.pool()];
        let queue = match bytes > PIECE_SIZE_BYTES {
            true => &pool.waiting_for_more,
            false => pool.queue(sharer, class),
        };
        let _waiting = [Waiting::count(&queue.waiting), Waiting::count(&pool.waiting_all)];
        loop {
            // Registered before the attempt, so that a release between the two is not missed.
            let mut released = std::pin::pin!(queue.released.notified());
            released.as_mut().enable();
            if let Some(reservation) = self.take(sharer, purpose, class, bytes) {
                // He may leave enough of a piece for the next one.
                if bytes < PIECE_SIZE_BYTES && queue.waiting.load(Ordering::SeqCst) > 1 {
                    queue.released.notify_one();
                }
                return reservation;
            }
            released.await;
        }
    }

    /// Whether so much of the working pool is in use that what passes through is not kept any more.
    pub fn is_under_duress(&self) -> bool {
        let pool = &self.pools[WORKING];
        let limit_bytes = Class::Admission.limit_bytes(pool.budget_bytes, Limit::Whole);
        pool.used_bytes.load(Ordering::Relaxed) > limit_bytes
    }

    /// Whether somebody waits for memory of the working pool now.
    pub fn is_waited_for(&self) -> bool {
        self.pools[WORKING].waiting_all.load(Ordering::Relaxed) > 0
    }

    /// What each site's viewers hold of the working pool, and of whom a new viewer finds none.
    pub fn in_use(&self) -> InUse {
        let pool = &self.pools[WORKING];
        let used_bytes = pool.used_bytes.load(Ordering::Relaxed) + PIECE_SIZE_BYTES;
        let lent_bytes = Class::Miss.limit_bytes(pool.budget_bytes, Limit::Lent);
        let finds_none = |one: &Sharer| {
            used_bytes > lent_bytes && self.would_exceed(pool, *one, lent_bytes, PIECE_SIZE_BYTES)
        };
        InUse { bytes: pool.used_by(), beyond: Sharer::bits(finds_none) }
    }

    /// Bytes reserved for `purpose` now.
    pub fn used_bytes(&self, purpose: Use) -> u64 {
        self.used_bytes[purpose as usize].load(Ordering::Relaxed)
    }

    /// How often `class` was refused.
    pub fn refused(&self, class: Class) -> u64 {
        self.refused[class as usize].load(Ordering::Relaxed)
    }

    /// Bytes the pool of `purpose` may hold in all.
    pub fn budget_bytes(&self, purpose: Use) -> u64 {
        self.pools[purpose.pool()].budget_bytes
    }

    fn take(
        self: &Arc<Self>,
        sharer: Option<Sharer>,
        purpose: Use,
        class: Class,
        bytes: u64,
    ) -> Option<Reservation> {
        let pool = &self.pools[purpose.pool()];
        let is_taken = match sharer {
            None => pool.take(bytes, class, Limit::Whole),
            Some(sharer) => {
                let is_spared = |lent_bytes| !self.would_exceed(pool, sharer, lent_bytes, bytes);
                match purpose.pool() {
                    WORKING => {
                        pool.take(bytes, class, Limit::Lent)
                            || class.is_refused_later()
                                && is_spared(class.limit_bytes(pool.budget_bytes, Limit::Lent))
                                && pool.take(bytes, class, Limit::Whole)
                    }
                    // Most of it is reserved for good.
                    _ => {
                        let lent_bytes = pool.budget_bytes / 16 * REQUESTS_SIXTEENTHS;
                        let is_lent = self.used_bytes(purpose).saturating_add(bytes) <= lent_bytes;
                        (is_lent || is_spared(lent_bytes)) && pool.take(bytes, class, Limit::Whole)
                    }
                }
            }
        };
        if !is_taken {
            return None;
        }
        self.used_bytes[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        if let Some(sharer) = sharer {
            pool.used_by[sharer.index()].fetch_add(bytes, Ordering::Relaxed);
        }
        Some(Reservation { governor: self.clone(), purpose, sharer, bytes })
    }

    /// Whether a site that gets `bytes` more would exceed its share of the `lent_bytes` of a pool.
    fn would_exceed(&self, pool: &Pool, sharer: Sharer, lent_bytes: u64, bytes: u64) -> bool {
        let mut wanted = pool.used_by();
        let his = &mut wanted[sharer.index()];
        *his = his.saturating_add(bytes);
        *his > OWN_BYTES
            && self.shares.are_many()
            && self.shares.wants_more(sharer, lent_bytes, &wanted)
    }

    /// Wakes as many of a pool as may find a piece, first who is refused last, and all who wait for
    /// more. Who finds it taken waits for the next release.
    fn wake(&self, pool: &Pool) {
        if pool.waiting_for_more.waiting.load(Ordering::SeqCst) > 0 {
            pool.waiting_for_more.released.notify_waiters();
        }
        let used_bytes = pool.used_bytes.load(Ordering::SeqCst);
        for class in Class::ALL.into_iter().rev() {
            let limit_bytes = |limit| class.limit_bytes(pool.budget_bytes, limit);
            for sharer in Sharer::all().map(Some).chain([None]) {
                let queue = pool.queue(sharer, class);
                let waiting = queue.waiting.load(Ordering::SeqCst);
                if waiting == 0 {
                    continue;
                }
                let lent_bytes = limit_bytes(Limit::Lent);
                // One byte more: how much is wanted is not known.
                let limit_bytes = match sharer {
                    Some(one) if self.would_exceed(pool, one, lent_bytes, 1) => lent_bytes,
                    _ => limit_bytes(Limit::Whole),
                };
                let pieces = limit_bytes.saturating_sub(used_bytes).div_ceil(PIECE_SIZE_BYTES);
                (0..pieces.min(waiting as u64)).for_each(|_| queue.released.notify_one());
            }
        }
    }
}

/// The governor, for the viewers of one site.
#[derive(Clone, Copy)]
pub struct OfSite<'a> {
    governor: &'a Arc<Governor>,
    sharer: Sharer,
}

impl OfSite<'_> {
    /// As [`Governor::try_reserve`].
    pub fn try_reserve(self, purpose: Use, class: Class, bytes: u64) -> Option<Reservation> {
        self.governor.try_reserve_for(Some(self.sharer), purpose, class, bytes)
    }

    /// As [`Governor::reserve`].
    pub async fn reserve(self, purpose: Use, class: Class, bytes: u64) -> Reservation {
        self.governor.reserve_for(Some(self.sharer), purpose, class, bytes).await
    }
}

/// Bytes reserved until dropped.
#[derive(Debug)]
pub struct Reservation {
    governor: Arc<Governor>,
    purpose: Use,
    sharer: Option<Sharer>,
    bytes: u64,
}

impl Reservation {
    /// How much is reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    fn give_back(&self, bytes: u64) {
        let pool = &self.governor.pools[self.purpose.pool()];
        pool.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.governor.used_bytes[self.purpose as usize].fetch_sub(bytes, Ordering::Relaxed);
        if let Some(sharer) = self.sharer {
            pool.used_by[sharer.index()].fetch_sub(bytes, Ordering::Relaxed);
        }
        // SeqCst as in `Waiting::count`: either the waiter sees these bytes, or we see the waiter.
        std::sync::atomic::fence(Ordering::SeqCst);
        if pool.waiting_all.load(Ordering::SeqCst) > 0 {
            self.governor.wake(pool);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// One who waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn count(waiting: &AtomicUsize) -> Waiting<'_> {
        waiting.fetch_add(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// So much any site may have beyond its share: a miss has one piece written while another is sent.
const OWN_BYTES: u64 = 8 * PIECE_SIZE_BYTES;
/// Of the rest: what requests under way are lent. Beyond that a site gets its share of it alone.
const REQUESTS_SIXTEENTHS: u64 = 2;

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn classes_are_refused_in_the_written_order() {
        let governor = Governor::new(1600, 1600, Arc::default());
        let mut held = Vec::new();
        let mut refused = Vec::new();
        while held.len() < 161 {
            for class in Class::ALL {
                let free = governor.try_reserve(Use::Fill, class, 10).is_some();
                if !free && !refused.contains(&class) {
                    refused.push(class);
                }
            }
            match governor.try_reserve(Use::Fill, Class::Viewer, 10) {
                Some(reservation) => held.push(reservation),
                None => break,
            }
        }
        assert_eq!(refused, Class::ALL);
        assert_eq!(held.len(), 160, "a viewer may use the whole pool");
    }

    #[test]
    fn duress_is_where_nothing_is_kept_any_more() {
        let governor = Governor::new(1600, 1600, Arc::default());
        let _rest = governor.try_reserve(Use::Heads, Class::Viewer, 1600).unwrap();
        let mut held = governor.try_reserve(Use::Client, Class::Viewer, 1201).unwrap();
        assert!(governor.is_under_duress());
        held.shrink_to(1200);
        assert!(!governor.is_under_duress(), "it may still be kept");
    }

    #[test]
    fn what_is_dropped_or_shrunk_can_be_reserved_again() {
        let governor = Governor::new(1600, 1600, Arc::default());
        let mut first = governor.try_reserve(Use::Client, Class::Viewer, 1600).unwrap();
        assert!(governor.try_reserve(Use::Fill, Class::Viewer, 1).is_none(), "one pool");
        assert!(governor.try_reserve(Use::Heads, Class::Viewer, 1600).is_some(), "another pool");
        first.shrink_to(600);
        let second = governor.try_reserve(Use::Fill, Class::Viewer, 1000).unwrap();
        drop(first);
        drop(second);
        assert_eq!(Use::ALL.map(|purpose| governor.used_bytes(purpose)), [0; Use::ALL.len()]);
    }

    #[test]
    fn who_asks_for_too_much_takes_nothing_from_others() {
        let governor = Governor::new(1600, 1600, Arc::default());
        let greedy = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                greedy.wait();
                for _ in 0..20_000 {
                    assert!(governor.try_reserve(Use::Fill, Class::Prefetch, 1600).is_none());
                    assert!(governor.try_reserve(Use::Fill, Class::Viewer, u64::MAX).is_none());
                }
            });
            greedy.wait();
            for _ in 0..20_000 {
                assert!(governor.try_reserve(Use::Client, Class::Viewer, 1600).is_some());
            }
        });
    }

    fn of_sites(weights: &[u32]) -> Arc<Governor> {
        let shares = Arc::<Shares>::default();
        shares.set((0..).map(SiteId).zip(weights.iter().copied()));
        Governor::new(1_600 * PIECE_SIZE_BYTES, 0, shares)
    }

    /// As many pieces as a site is granted, one after the other.
    fn all_for(governor: &Arc<Governor>, site: u16, class: Class) -> Vec<Reservation> {
        let one = || governor.of(SiteId(site)).try_reserve(Use::Client, class, PIECE_SIZE_BYTES);
        std::iter::from_fn(one).collect()
    }

    fn beyond(governor: &Governor) -> Vec<usize> {
        let beyond = governor.in_use().beyond;
        (0..SHARERS_MAX).filter(|place| beyond & 1 << place != 0).collect()
    }

    #[test]
    fn the_last_quarter_is_for_who_has_less_than_the_others_in_the_written_order() {
        let governor = of_sites(&[1, 1]);
        let flood = [Class::Miss, Class::Viewer].map(|class| all_for(&governor, 0, class));
        assert_eq!(flood.each_ref().map(Vec::len), [1_100, 100], "borrowed, but for a quarter");
        assert_eq!(beyond(&governor), [0]);
        let other = [Class::Miss, Class::Viewer].map(|class| all_for(&governor, 1, class));
        assert_eq!(other.each_ref().map(Vec::len), [200, 200]);
        let used = [1_200, 400].map(|pieces| pieces * PIECE_SIZE_BYTES);
        assert_eq!(governor.in_use().bytes[..2], used);
        drop(flood);
        assert_eq!(
            all_for(&governor, 1, Class::Viewer).len(),
            800,
            "what is lent, when it is free"
        );
        drop(other);
        assert_eq!(governor.in_use(), InUse { bytes: [0; SHARERS_MAX], beyond: 0 });
    }

    #[test]
    fn who_has_next_to_nothing_is_not_beyond_however_many_sites_there_are() {
        // Shares are among those who hold any.
        for (weights, expected) in
            [(vec![1; SHARERS_MAX], 400), (vec![1, 3], 400), (vec![3, 1], 300), (vec![500, 1], 8)]
        {
            let governor = of_sites(&weights);
            let _flood = all_for(&governor, 0, Class::Viewer);
            let small = all_for(&governor, 1, Class::Viewer);
            assert_eq!(small.len(), expected, "{weights:?}");
            assert!(beyond(&governor).contains(&0));
        }
        let governor = of_sites(&[1; SHARERS_MAX]);
        let _little: Vec<_> = (2..SHARERS_MAX as u16)
            .map(|site| governor.of(SiteId(site)).try_reserve(Use::Client, Class::Viewer, 1))
            .collect();
        let _flood = all_for(&governor, 0, Class::Viewer);
        assert_eq!(
            all_for(&governor, 1, Class::Viewer).len(),
            400,
            "the others want next to nothing"
        );

        let alone = of_sites(&[1]);
        assert_eq!(all_for(&alone, 0, Class::Miss).len(), 1_400);
        assert_eq!(all_for(&alone, 0, Class::Viewer).len(), 1_600);
        assert!(beyond(&alone).is_empty());
    }

    #[test]
    fn who_waits_is_woken_when_he_may_have_some_and_not_for_another() {
        let governor = of_sites(&[1, 1]);
        let mut flood = all_for(&governor, 0, Class::Viewer);
        let mut other = all_for(&governor, 1, Class::Viewer);
        let woken = [Woken::default(), Woken::default()].map(Arc::new);
        let mut waiting = [0, 1].map(|site| {
            let of = governor.of(SiteId(site));
            Box::pin(of.reserve(Use::Client, Class::Viewer, PIECE_SIZE_BYTES))
        });
        let mut poll = |site: usize| {
            let waker = Waker::from(woken[site].clone());
            waiting[site].as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        };
        let times = || woken.each_ref().map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!((poll(0), poll(1), times()), (false, false, [0, 0]));
        flood.truncate(1_199);
        assert_eq!(times(), [0, 1], "he has his share still");
        assert!(poll(1));
        other.truncate(2);
        assert_eq!((times(), poll(0)), ([0, 1], false), "1,201 are in use");
        other.clear();
        assert_eq!((times(), poll(0)), ([1, 1], true), "what is lent is free");
    }

    #[test]
    fn what_is_released_wakes_as_many_as_may_find_some_and_begun_bodies_first() {
        let governor = of_sites(&[1, 1]);
        let mut held = [0, 1].map(|site| all_for(&governor, site, Class::Viewer));
        let woken: Vec<Arc<Woken>> = (0..6).map(|_| Arc::default()).collect();
        let classes = [Class::Miss, Class::Miss, Class::Miss, Class::Viewer, Class::Viewer];
        let mut waiting: Vec<_> = classes
            .into_iter()
            .chain([Class::Viewer])
            .map(|class| {
                Box::pin(governor.of(SiteId(1)).reserve(Use::Client, class, PIECE_SIZE_BYTES))
            })
            .collect();
        let mut granted = Vec::new();
        let mut poll = |one: usize| {
            let waker = Waker::from(woken[one].clone());
            let polled = waiting[one].as_mut().poll(&mut Context::from_waker(&waker));
            polled.map(|reserved| granted.push(reserved)).is_ready()
        };
        let times = || -> Vec<usize> {
            woken.iter().map(|woken| woken.0.swap(0, Ordering::Relaxed)).collect()
        };
        assert!((0..6).all(|one| !poll(one)));
        held[1].pop();
        assert_eq!(times(), [0, 0, 0, 1, 0, 0], "one piece is for one");
        assert!(poll(3));
        held[1].truncate(200);
        assert_eq!(times()[..3], [0; 3], "what is left for begun bodies is no miss's");
        assert!(poll(4) && poll(5));
        held[1].truncate(196);
        assert_eq!(times()[..3], [1, 0, 0]);
        assert!(poll(0) && !poll(1) && !poll(2), "as many as may be a miss's are in use again");
    }

    #[tokio::test]
    async fn who_waits_for_more_or_less_than_a_piece_keeps_nobody_from_what_is_free() {
        let governor = Governor::new(1_600 * PIECE_SIZE_BYTES, 0, Arc::default());
        let waits_for = |bytes: u64| {
            let governor = governor.clone();
            tokio::spawn(async move { governor.reserve(Use::Ssd, Class::Viewer, bytes).await })
        };
        let piece = || governor.try_reserve(Use::Client, Class::Viewer, PIECE_SIZE_BYTES);
        let mut held: Vec<_> = std::iter::from_fn(piece).collect();
        let more = waits_for(PIECE_SIZE_BYTES + 1);
        tokio::task::yield_now().await;
        let one = waits_for(PIECE_SIZE_BYTES);
        let few: Vec<_> = (0..8).map(|_| waits_for(PIECE_SIZE_BYTES / 8)).collect();
        while governor.pools[WORKING].waiting_all.load(Ordering::Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
        let woken = async |waiting| {
            let woken: Result<Result<Reservation, _>, _> =
                timeout(Duration::from_secs(20), waiting).await;
            woken.expect("there is enough for it").expect("nobody panics")
        };
        held.pop();
        drop(woken(one).await);
        assert!(!more.is_finished());
        for little in few {
            held.push(woken(little).await);
        }
        held.clear();
        assert_eq!(woken(more).await.bytes(), PIECE_SIZE_BYTES + 1);
    }

    #[test]
    fn requests_of_one_site_leave_room_for_those_of_another() {
        let shares = Arc::<Shares>::default();
        shares.set([(SiteId(0), 1), (SiteId(1), 1)]);
        let governor = Governor::new(0, 1_600 * PIECE_SIZE_BYTES, shares);
        let for_good = 1_000 * PIECE_SIZE_BYTES;
        let _for_good = governor.try_reserve(Use::Connections, Class::Viewer, for_good).unwrap();
        let all_of = |site: u16| -> Vec<Reservation> {
            let of = governor.of(SiteId(site));
            std::iter::from_fn(|| of.try_reserve(Use::Requests, Class::Miss, 4_096)).collect()
        };
        let in_pieces = |held: &[Reservation]| held.len() as u64 * 4_096 / PIECE_SIZE_BYTES;
        let flood = all_of(0);
        assert_eq!(in_pieces(&flood), 200, "an eighth");
        let other = all_of(1);
        assert_eq!(in_pieces(&other), 100, "his half of that eighth");
        assert!(all_of(0).is_empty());
        drop((flood, other));
        assert_eq!(governor.used_bytes(Use::Requests), 0);
    }

    /// How often somebody was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_waits_gets_what_another_releases() {
        let governor = Governor::new(1600, 1600, Arc::default());
        let held = governor.try_reserve(Use::Client, Class::Viewer, 1600).unwrap();
        let waiter = {
            let governor = governor.clone();
            tokio::spawn(
                async move { governor.reserve(Use::Client, Class::Viewer, 800).await.bytes() },
            )
        };
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(waiter.await.unwrap(), 800);
    }
}
