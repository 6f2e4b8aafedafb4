//! What each site keeps of one shard, and whose blocks stay where somebody has to go.
//!
//! Whoever keeps no more than is his ([`Shares::ram_own`]) is guarded, but from himself. All that
//! is guarded together weighs no more than [`RAM_OWNED`](crate::overload::RAM_OWNED) of the shard,
//! so that who looks for a block that may leave soon finds one among them. One thread changes a
//! shard at a time; others read. A hit comes nowhere near.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::overload::{SHARERS_MAX, Sharer, Shares, WHOLE};

/// Bytes by who keeps them.
pub(super) struct Owned {
    shares: Arc<Shares>,
    bytes: [AtomicU64; SHARERS_MAX],
    capacity_bytes: AtomicU64,
    /// A bit for each whose blocks stay.
    guarded: AtomicU64,
    /// A bit for whose do not, whatever he keeps.
    asking: AtomicU64,
    #[cfg(test)]
    pub(super) asked: AtomicU64,
}

impl Owned {
    pub(super) fn new(shares: Arc<Shares>) -> Owned {
        Owned {
            shares,
            bytes: [const { AtomicU64::new(0) }; SHARERS_MAX],
            capacity_bytes: AtomicU64::new(0),
            guarded: AtomicU64::new(0),
            asking: AtomicU64::new(0),
            #[cfg(test)]
            asked: AtomicU64::new(0),
        }
    }

    /// What one keeps.
    pub(super) fn bytes(&self, sharer: Sharer) -> u64 {
        self.bytes[sharer.index()].load(Ordering::Relaxed)
    }

    /// Before something is put in: `sharer` keeps more.
    pub(super) fn entered(&self, sharer: Sharer, bytes: u64) {
        self.bytes[sharer.index()].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Decides who is guarded in a shard of such a capacity, for one change of it that `asking`
    /// needs, or nobody in particular.
    pub(super) fn guard(&self, capacity_bytes: u64, asking: Option<Sharer>) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        self.asking.store(asking.map_or(0, Sharer::bit), Ordering::Relaxed);
        let guarded = Sharer::bits(|sharer| self.keeps_its_own(*sharer));
        self.guarded.store(guarded, Ordering::Relaxed);
    }

    /// What may leave as it is guarded now, in bytes: of each what is beyond his own.
    pub(super) fn unguarded_bytes(&self) -> u64 {
        let beyond = |sharer: Sharer| match self.may_always_leave(sharer) {
            true => self.bytes(sharer),
            false => self.bytes(sharer).saturating_sub(self.own_bytes(sharer)),
        };
        Sharer::all().map(beyond).sum()
    }

    /// Anybody's may leave, for one change of the shard.
    pub(super) fn guard_nobody(&self) {
        self.capacity_bytes.store(0, Ordering::Relaxed);
        self.guarded.store(0, Ordering::Relaxed);
    }

    /// Something of his left.
    pub(super) fn left(&self, sharer: Sharer, bytes: u64) {
        self.bytes[sharer.index()].fetch_sub(bytes, Ordering::Relaxed);
        if self.keeps_its_own(sharer) {
            self.guarded.fetch_or(sharer.bit(), Ordering::Relaxed);
        }
    }

    /// Whether what is his stays.
    pub(super) fn is_guarded(&self, sharer: Sharer) -> bool {
        #[cfg(test)]
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.guarded.load(Ordering::Relaxed) & sharer.bit() != 0
    }

    fn keeps_its_own(&self, sharer: Sharer) -> bool {
        let own_bytes = self.own_bytes(sharer);
        own_bytes > 0 && self.bytes(sharer) <= own_bytes && !self.may_always_leave(sharer)
    }

    fn may_always_leave(&self, sharer: Sharer) -> bool {
        self.asking.load(Ordering::Relaxed) & sharer.bit() != 0
    }

    fn own_bytes(&self, sharer: Sharer) -> u64 {
        let capacity = u128::from(self.capacity_bytes.load(Ordering::Relaxed));
        (capacity * u128::from(self.shares.ram_own(sharer)) / u128::from(WHOLE)) as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::object::SiteId;

    use super::*;

    #[test]
    fn who_gives_back_what_was_lent_opens_nobody_elses_own() {
        let [first, second] = [0, 1].map(|site| Sharer::of(SiteId(site)));
        let shares = Arc::new(Shares::default());
        shares.set([(SiteId(0), 3), (SiteId(1), 1)]);
        shares.after_a_second(&[(0, 1_000), (0, 1_000)], 100);
        let owned = Owned::new(shares);
        owned.entered(first, 30);
        owned.entered(second, 11);
        owned.guard(100, None);
        let guarded = || [first, second].map(|sharer| owned.is_guarded(sharer));
        assert_eq!(guarded(), [true, false]);
        owned.left(second, 1);
        assert_eq!(guarded(), [true, true]);
        owned.guard_nobody();
        owned.left(second, 1);
        assert_eq!(guarded(), [false, false]);

        owned.guard(100, Some(first));
        assert_eq!(guarded(), [false, true], "who asks is not guarded from himself");
        assert_eq!(owned.unguarded_bytes(), 30);
        owned.left(first, 1);
        assert_eq!(guarded(), [false, true]);
    }
}
