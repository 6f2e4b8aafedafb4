//! What each site keeps of one shard, and whose blocks stay where somebody has to go.
//!
//! Whoever keeps no more than is his ([`Shares::ram`]) is guarded while another keeps more. When
//! nobody does, all are as before: who leaves is the cache's decision. One thread changes a shard
//! at a time; others read. A hit comes nowhere near.

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
}

impl Owned {
    pub(super) fn new(shares: Arc<Shares>) -> Owned {
        Owned {
            shares,
            bytes: [const { AtomicU64::new(0) }; SHARERS_MAX],
            capacity_bytes: AtomicU64::new(0),
            guarded: AtomicU64::new(0),
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
        self.guard_unless_all(guarded.fold(0, |bits, index| bits | 1 << index));
    }

    /// Something of his left.
    pub(super) fn left(&self, sharer: Sharer, bytes: u64) {
        let index = sharer.index();
        self.bytes[index].fetch_sub(bytes, Ordering::Relaxed);
        let guarded = self.guarded.load(Ordering::Relaxed);
        if guarded != 0 && (self.bytes(index) == 0 || self.keeps_its_own(index)) {
            self.guard_unless_all(guarded | 1 << index);
        }
    }

    /// Whether what is his stays.
    pub(super) fn is_guarded(&self, sharer: Sharer) -> bool {
        self.guarded.load(Ordering::Relaxed) >> sharer.index() & 1 == 1
    }

    fn keeps_its_own(&self, index: usize) -> bool {
        let capacity = u128::from(self.capacity_bytes.load(Ordering::Relaxed));
        let own_bytes = capacity * u128::from(self.shares.ram(index)) / u128::from(WHOLE);
        u128::from(self.bytes(index)) <= own_bytes
    }

    /// Somebody has to be able to leave.
    fn guard_unless_all(&self, guarded: u64) {
        let may_leave = |index: usize| guarded >> index & 1 == 0 && self.bytes(index) > 0;
        let guarded = if (0..SHARERS_MAX).any(may_leave) { guarded } else { 0 };
        self.guarded.store(guarded, Ordering::Relaxed);
    }
}
