//! What each site keeps of one shard, and whose blocks stay where somebody has to go.
//!
//! Whoever keeps no more than is his ([`Shares::ram`]) is guarded. All that is guarded together
//! weighs no more than [`RAM_OWNED`](crate::overload::RAM_OWNED) of the shard, so that who looks
//! for a block that may leave soon finds one among them. One thread changes a shard at a time;
//! others read. A hit comes nowhere near.

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
            #[cfg(test)]
            asked: AtomicU64::new(0),
        }
    }

    /// What one keeps.
    pub(super) fn bytes(&self, index: usize) -> u64 {
        self.bytes[index].load(Ordering::Relaxed)
    }

    /// Before something is put in: `sharer` keeps more.
    pub(super) fn entered(&self, sharer: Sharer, bytes: u64) {
        self.bytes[sharer.index()].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Decides who is guarded in a shard of such a capacity, for one change of it.
    pub(super) fn guard(&self, capacity_bytes: u64) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        let guarded = (0..SHARERS_MAX).filter(|index| self.keeps_its_own(*index));
        let guarded = guarded.fold(0, |bits, index| bits | 1 << index);
        self.guarded.store(guarded, Ordering::Relaxed);
    }

    /// Anybody's may leave, for one change of the shard.
    pub(super) fn guard_nobody(&self) {
        self.capacity_bytes.store(0, Ordering::Relaxed);
        self.guarded.store(0, Ordering::Relaxed);
    }

    /// Something of his left.
    pub(super) fn left(&self, sharer: Sharer, bytes: u64) {
        let index = sharer.index();
        self.bytes[index].fetch_sub(bytes, Ordering::Relaxed);
        if self.keeps_its_own(index) {
            self.guarded.fetch_or(1 << index, Ordering::Relaxed);
        }
    }

    /// Whether what is his stays.
    pub(super) fn is_guarded(&self, sharer: Sharer) -> bool {
        #[cfg(test)]
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.guarded.load(Ordering::Relaxed) >> sharer.index() & 1 == 1
    }

    fn keeps_its_own(&self, index: usize) -> bool {
        let capacity = u128::from(self.capacity_bytes.load(Ordering::Relaxed));
        let own_bytes = capacity * u128::from(self.shares.ram(index)) / u128::from(WHOLE);
        own_bytes > 0 && u128::from(self.bytes(index)) <= own_bytes
    }
}

#[cfg(test)]
mod tests {
    use crate::object::SiteId;
    use crate::overload::{NOTHING_HAD, Watch};

    use super::*;

    #[test]
    fn who_gives_back_what_was_lent_opens_nobody_elses_own() {
        let [first, second] = [0, 1].map(|site| Sharer::of(SiteId(site)));
        let shares = Arc::new(Shares::default());
        shares.set([(SiteId(0), 3), (SiteId(1), 1)]);
        let (mut watch, mut had) = (Watch::default(), NOTHING_HAD);
        watch.after(had, &shares, 100);
        (had[0].bytes, had[1].bytes) = (1_000, 1_000);
        shares.measured(&watch.after(had, &shares, 100), |_| true);
        let owned = Owned::new(shares);
        owned.entered(first, 30);
        owned.entered(second, 11);
        owned.guard(100);
        let guarded = || [first, second].map(|sharer| owned.is_guarded(sharer));
        assert_eq!(guarded(), [true, false]);
        owned.left(second, 1);
        assert_eq!(guarded(), [true, true]);
        owned.guard_nobody();
        owned.left(second, 1);
        assert_eq!(guarded(), [false, false]);
    }
}
