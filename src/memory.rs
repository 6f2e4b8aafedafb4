//! The governor: every byte the process may use is reserved here before it is used.
//!
//! Two pools share `memory.total`. The *working* pool is the part of the ram tier's mapping that
//! fills and pinned slices may hold; the *rest* is heads, connections and connections to origins. A
//! class says how badly a reservation is wanted: the lower its share of the pool, the earlier it is
//! refused, in the order of [`Class::ALL`]. In the last quarter of the working pool each site has
//! its part ([`Governor::of`]): one site's slow readers do not take what another's viewers need.
//! Who waits for memory must hold none: `reserve` waits, `try_reserve` never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::limits::PIECE_SIZE_BYTES;
use crate::object::SiteId;
use crate::overload::{InUse, SHARERS_MAX, Sharer, Shares, WHOLE};

/// What a reservation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Pieces a fill run is writing or still holds for its readers.
    Fill,
    /// Slices handed to a viewer's connection and not yet sent.
    Client,
    /// Heads of objects.
    Heads,
    /// Connections of viewers: their protocol and TLS buffers.
    Connections,
    /// Connections to origins: their read buffers.
    Origins,
    /// Requests being answered: their heads, and what is remembered of each.
    Requests,
    /// Pieces being read from or written to an ssd.
    Ssd,
}

impl Use {
    /// Every use, in the order of the metrics.
    pub const ALL: [Use; 7] = [
        Use::Fill,
        Use::Client,
        Use::Heads,
        Use::Connections,
        Use::Origins,
        Use::Requests,
        Use::Ssd,
    ];

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Use::Fill => "fill",
            Use::Client => "client",
            Use::Heads => "heads",
            Use::Connections => "connections",
            Use::Origins => "origins",
            Use::Requests => "requests",
            Use::Ssd => "ssd",
        }
    }

    fn pool(self) -> usize {
        match self {
            Use::Fill | Use::Client | Use::Ssd => WORKING,
            Use::Heads | Use::Connections | Use::Origins | Use::Requests => REST,
        }
    }
}

/// How badly a reservation is wanted; the first to be refused comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Larger slices and read-ahead: a comfort.
    Prefetch,
    /// A fill no viewer waits for.
    Planned,
    /// Keeping what passes through.
    Admission,
    /// A viewer's first piece of something not held.
    Miss,
    /// A new connection.
    Connection,
    /// The next piece of a response already begun.
    Viewer,
}

impl Class {
    /// Every class, in the order of refusal.
    pub const ALL: [Class; 6] = [
        Class::Prefetch,
        Class::Planned,
        Class::Admission,
        Class::Miss,
        Class::Connection,
        Class::Viewer,
    ];

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Class::Prefetch => "prefetch",
            Class::Planned => "planned",
            Class::Admission => "admission",
            Class::Miss => "miss",
            Class::Connection => "connection",
            Class::Viewer => "viewer",
        }
    }

    /// How much of a pool may be in use when this class is still granted some.
    fn limit_bytes(self, budget_bytes: u64) -> u64 {
        budget_bytes / 16 * self.share_sixteenths()
    }

    /// The share of its pool, in sixteenths, above which this class is refused.
    fn share_sixteenths(self) -> u64 {
        match self {
            Class::Prefetch => 8,
            Class::Planned => 10,
            Class::Admission => 12,
            Class::Miss => 14,
            Class::Connection => 15,
            Class::Viewer => 16,
        }
    }
}

const WORKING: usize = 0;
const REST: usize = 1;

/// Shares out what `memory.total` allows; one for the process.
#[derive(Debug)]
pub struct Governor {
    pools: [Pool; 2],
    used_bytes: [AtomicU64; Use::ALL.len()],
    refused: [AtomicU64; Class::ALL.len()],
    shares: Arc<Shares>,
    /// Bytes of the working pool that each site's viewers hold.
    used_by: [AtomicU64; SHARERS_MAX],
}

#[derive(Debug)]
struct Pool {
    budget_bytes: u64,
    used_bytes: AtomicU64,
    waiting: AtomicUsize,
    released: Notify,
}

impl Governor {
    /// `working_bytes`: what fills and pinned slices may hold of the ram tier's mapping;
    /// `rest_bytes`: what is left of the total beside the mapping.
    pub fn new(working_bytes: u64, rest_bytes: u64, shares: Arc<Shares>) -> Arc<Governor> {
        let pool = |budget_bytes| Pool {
            budget_bytes,
            used_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            released: Notify::new(),
        };
        Arc::new(Governor {
            pools: [pool(working_bytes), pool(rest_bytes)],
            used_bytes: Default::default(),
            refused: Default::default(),
            shares,
            used_by: [const { AtomicU64::new(0) }; SHARERS_MAX],
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
        let _waiting = Waiting::count(&pool.waiting);
        loop {
            // Registered before the attempt, so that a release between the two is not missed.
            let mut released = std::pin::pin!(pool.released.notified());
            released.as_mut().enable();
            if let Some(reservation) = self.take(sharer, purpose, class, bytes) {
                return reservation;
            }
            released.await;
        }
    }

    /// Whether so much of the working pool is in use that what passes through is not kept any more.
    pub fn is_under_duress(&self) -> bool {
        let pool = &self.pools[WORKING];
        pool.used_bytes.load(Ordering::Relaxed) > Class::Admission.limit_bytes(pool.budget_bytes)
    }

    /// Whether somebody waits for memory of the working pool now.
    pub fn is_waited_for(&self) -> bool {
        self.pools[WORKING].waiting.load(Ordering::Relaxed) > 0
    }

    /// What each site's viewers hold of the working pool, and who holds so much that a new viewer
    /// finds nothing of his site's part.
    pub fn in_use(&self) -> InUse {
        let finds_none = |sharer: &Sharer| {
            !self.fits_part(&self.pools[WORKING], *sharer, Class::Miss, PIECE_SIZE_BYTES)
        };
        InUse {
            bytes: self.used_by.each_ref().map(|bytes| bytes.load(Ordering::Relaxed)),
            beyond: Sharer::all().filter(finds_none).fold(0, |bits, one| bits | one.bit()),
        }
    }

    fn take(
        self: &Arc<Self>,
        sharer: Option<Sharer>,
        purpose: Use,
        class: Class,
        bytes: u64,
    ) -> Option<Reservation> {
        let pool = &self.pools[purpose.pool()];
        let limit_bytes = self.limit_bytes(pool, sharer, class, bytes);
        // Never more than is granted, not for a moment either: another would be refused for that,
        // and nobody would wake him.
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit_bytes);
        pool.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).ok()?;
        self.used_bytes[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        if let Some(sharer) = sharer {
            self.used_by[sharer.index()].fetch_add(bytes, Ordering::Relaxed);
        }
        Some(Reservation { governor: self.clone(), purpose, sharer, bytes })
    }

    /// How much of the pool may be in use with these `bytes`. In its last quarter each site has its
    /// part, and classes have their shares of that.
    fn limit_bytes(&self, pool: &Pool, sharer: Option<Sharer>, class: Class, bytes: u64) -> u64 {
        let limit_bytes = class.limit_bytes(pool.budget_bytes);
        let Some(sharer) = sharer.filter(|_| class > Class::Admission) else { return limit_bytes };
        let lent_bytes = Class::Admission.limit_bytes(pool.budget_bytes);
        if pool.used_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= lent_bytes {
            return limit_bytes;
        }
        match self.fits_part(pool, sharer, class, bytes) {
            true => pool.budget_bytes,
            false => lent_bytes,
        }
    }

    fn fits_part(&self, pool: &Pool, sharer: Sharer, class: Class, bytes: u64) -> bool {
        let his = self.used_by[sharer.index()].load(Ordering::Relaxed).saturating_add(bytes);
        let part = u128::from(pool.budget_bytes) * u128::from(self.shares.part(sharer));
        his <= class.limit_bytes((part / u128::from(WHOLE)) as u64)
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
}

/// The governor, for the viewers of one site.
#[derive(Clone, Copy)]
pub struct OfSite<'a> {
    governor: &'a Arc<Governor>,
    sharer: Sharer,
}

impl OfSite<'_> {
    /// As [`Governor::try_reserve`], within the site's share.
    pub fn try_reserve(self, purpose: Use, class: Class, bytes: u64) -> Option<Reservation> {
        self.governor.try_reserve_for(Some(self.sharer), purpose, class, bytes)
    }

    /// As [`Governor::reserve`], within the site's share.
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
            self.governor.used_by[sharer.index()].fetch_sub(bytes, Ordering::Relaxed);
        }
        // SeqCst as in `Waiting::count`: either the waiter sees these bytes, or we see the waiter.
        std::sync::atomic::fence(Ordering::SeqCst);
        if pool.waiting.load(Ordering::SeqCst) > 0 {
            pool.released.notify_waiters();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

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

#[cfg(test)]
mod tests {
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
        assert_eq!(Use::ALL.map(|purpose| governor.used_bytes(purpose)), [0; 7]);
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

    #[test]
    fn of_the_last_quarter_each_site_has_its_part() {
        let shares = Arc::<Shares>::default();
        shares.set([(SiteId(0), 1), (SiteId(1), 1), (SiteId(2), 14)]);
        let governor = Governor::new(25_600, 0, shares);
        let held_by = |site: u16, class| {
            let one = || governor.of(SiteId(site)).try_reserve(Use::Client, class, 100);
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let flood = held_by(0, Class::Viewer);
        assert_eq!(flood.len(), 192, "borrowed, but for a quarter");
        let newcomers = held_by(1, Class::Miss);
        assert_eq!(newcomers.len(), 14, "of sixteen that are his");
        let begun = held_by(1, Class::Viewer);
        assert_eq!(begun.len(), 2, "to those who have begun the rest of it");
        assert_eq!(governor.in_use().bytes[..3], [19_200, 1_600, 0]);
        drop(flood);
        let most = held_by(2, Class::Viewer);
        assert_eq!(most.len(), 224, "what is his");
        assert_eq!(held_by(0, Class::Viewer).len(), 16, "what is left is his alone");
        drop((newcomers, begun, most));
        assert_eq!(governor.in_use().bytes, [0; SHARERS_MAX]);
    }

    #[test]
    fn who_has_no_piece_left_of_his_part_is_beyond_it() {
        let shares = Arc::<Shares>::default();
        shares.set([(SiteId(0), 1), (SiteId(1), 1)]);
        let governor = Governor::new(32 * PIECE_SIZE_BYTES, 0, shares);
        let hold = |count: u64| {
            let bytes = count * PIECE_SIZE_BYTES;
            governor.of(SiteId(0)).try_reserve(Use::Client, Class::Viewer, bytes).unwrap()
        };
        let held = hold(13);
        assert_eq!(governor.in_use().beyond & 3, 0, "the fourteenth is for a new viewer");
        let more = hold(1);
        assert_eq!(governor.in_use().beyond & 3, 1);
        drop((held, more));
        assert_eq!(governor.in_use().beyond & 3, 0);
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
