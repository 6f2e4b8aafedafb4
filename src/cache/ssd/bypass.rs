//! What origins may be asked for because a volume is ill: so many bytes a second, and no more.
//!
//! That is what a volume holds and does not give, what it lost, be it by a read that failed or
//! because it is gone, and all of an object whose head it does not give: that is another version
//! then, of which no volume has anything. What is lost is paid for once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::cache::ssd::{Ssd, Subject, Wanted};
use crate::limits::SSD_LOST_MAX;
use crate::object::{BlockKey, ObjectKey, PieceMap};
use crate::store::ObjectHash;

impl Ssd {
    /// Whether an origin may be asked for bytes of an object that an ill volume holds, or lost;
    /// without `wanted` for what the object is. Who is refused and waits asks again `Waiting`.
    pub fn may_bypass(
        &self,
        subject: &Subject,
        wanted: Option<&Wanted>,
        bytes: u64,
        asks: Asks,
    ) -> bool {
        if !self.takes(bytes) {
            // One who waits is one, however often he looks.
            let refused = u64::from(asks == Asks::First);
            self.figures.bypass_refused.fetch_add(refused, Ordering::Relaxed);
            return false;
        }
        let object = subject.object;
        self.lost.settle(object, wanted.map(|wanted| wanted.block));
        match wanted {
            None => {
                self.owing.begin(object, bytes);
                self.volumes
                    .online()
                    .for_each(|tier_volume| tier_volume.volume().forget_lost_head(object));
            }
            Some(Wanted { block, first, count, .. }) => {
                self.owing.paid(object, bytes);
                let pieces = PieceMap::run(*first, *count);
                self.volumes
                    .online()
                    .for_each(|tier_volume| tier_volume.volume().forget_lost(*block, pieces));
            }
        }
        true
    }

    /// Whether a fill run may go on with so many bytes of an object that owes all it brings.
    pub fn may_go_on(&self, key: &ObjectKey, bytes: u64) -> bool {
        let allowed = self.takes(bytes);
        if allowed {
            self.owing.paid(self.subject(key).object, bytes);
        }
        allowed
    }

    /// Whether all that is asked of this object counts, since it had to be asked what it is.
    pub fn owes(&self, key: &ObjectKey, length: Option<u64>) -> bool {
        !self.owing.is_empty() && self.owing.holds(self.subject(key).object, length)
    }

    fn takes(&self, bytes: u64) -> bool {
        let allowed = self.bypass.take(bytes, Instant::now());
        let taken = if allowed { bytes } else { 0 };
        self.figures.bypassed_bytes.fetch_add(taken, Ordering::Relaxed);
        allowed
    }

    /// The pieces of a block that were on a volume that has failed.
    pub(super) fn lost_pieces(&self, block: &BlockKey) -> PieceMap {
        let maps = self.volumes.online().map(|tier_volume| tier_volume.volume().lost(*block));
        maps.fold(PieceMap::default(), PieceMap::union)
    }

    /// Whether the object's head was lost, by a read or with its volume.
    pub(super) fn lost_head(&self, object: ObjectHash) -> bool {
        self.lost.holds_heads(object)
            || self.volumes.online().any(|tier_volume| tier_volume.volume().lost_head(object))
    }

    /// Whether a piece that no volume holds is missing because one is ill.
    pub(super) fn is_owed(&self, object: ObjectHash, length: Option<u64>, wanted: &Wanted) -> bool {
        self.lost.holds_block(&wanted.block)
            || self.lost_pieces(&wanted.block).holds(wanted.first)
            || !self.owing.is_empty() && self.owing.holds(object, length)
    }
}

/// Objects that an ill volume may hold all of, and that were asked for anew: what was paid for of
/// each. Of more than so many it is forgotten.
#[derive(Default)]
pub(super) struct Owing {
    paid_bytes: Mutex<HashMap<ObjectHash, u64>>,
    /// How many: as a rule none, and then nothing is locked to find that out.
    count: AtomicUsize,
}

impl Owing {
    fn begin(&self, object: ObjectHash, bytes: u64) {
        let mut objects = self.objects();
        if objects.len() < SSD_LOST_MAX {
            objects.insert(object, bytes);
        }
        self.count.store(objects.len(), Ordering::Relaxed);
    }

    fn paid(&self, object: ObjectHash, bytes: u64) {
        if !self.is_empty()
            && let Some(paid) = self.objects().get_mut(&object)
        {
            *paid = paid.saturating_add(bytes);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether it owes anything, being of this length.
    pub(super) fn holds(&self, object: ObjectHash, length: Option<u64>) -> bool {
        let mut objects = self.objects();
        let Some(paid) = objects.get(&object) else { return false };
        let owes = length.is_none_or(|length| *paid < length);
        if !owes {
            objects.remove(&object);
            self.count.store(objects.len(), Ordering::Relaxed);
        }
        owes
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<ObjectHash, u64>> {
        self.paid_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a read has been refused before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// It has not.
    First,
    /// It has, and waits.
    Waiting,
}

/// A bucket of bytes that fills with time; it holds one second's worth.
pub(super) struct Bypass {
    bytes_per_second: u64,
    level: Mutex<(f64, Instant)>,
}

impl Bypass {
    pub(super) fn new(bytes_per_second: u64) -> Bypass {
        let level = Mutex::new((bytes_per_second as f64, Instant::now()));
        Bypass { bytes_per_second, level }
    }

    /// Takes `bytes`, if anything is left: a block is never asked for in parts, so the last one
    /// may overdraw the bucket, and the next ones wait for that.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.bytes_per_second as f64;
        let filled = full * now.saturating_duration_since(level.1).as_secs_f64();
        *level = ((level.0 + filled).min(full), now.max(level.1));
        if level.0 <= 0.0 {
            return false;
        }
        level.0 -= bytes as f64;
        true
    }
}

/// What reads that failed took with them: no volume holds it any more, and still it is asked for
/// at the pace of the bypass. Of more than so many it is forgotten.
#[derive(Default)]
pub(super) struct Lost(Mutex<HashSet<What>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Block(BlockKey),
    Heads(u128),
}

impl Lost {
    pub(super) fn add_block(&self, block: BlockKey) {
        self.add(What::Block(block));
    }

    pub(super) fn add_heads(&self, object: ObjectHash) {
        self.add(What::Heads(object.0));
    }

    fn holds_block(&self, block: &BlockKey) -> bool {
        self.known().contains(&What::Block(*block))
    }

    fn holds_heads(&self, object: ObjectHash) -> bool {
        self.known().contains(&What::Heads(object.0))
    }

    /// It is being asked for.
    fn settle(&self, object: ObjectHash, block: Option<BlockKey>) {
        let mut known = self.known();
        known.remove(&What::Heads(object.0));
        if let Some(block) = block {
            known.remove(&What::Block(block));
        }
    }

    fn add(&self, what: What) {
        let mut known = self.known();
        if known.len() < SSD_LOST_MAX {
            known.insert(what);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<What>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_taken_than_the_rate_allows() {
        let bypass = Bypass::new(10 << 20);
        let start = Instant::now();
        let mut taken = 0;
        for tenth in 0..100 {
            while bypass.take(1 << 20, start + Duration::from_millis(100 * tenth)) {
                taken += 1;
            }
        }
        // Ten seconds at ten blocks a second, the second that was full at the start, one overdrawn.
        assert!((105..=111).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let bypass = Bypass::new(100);
        let now = Instant::now();
        assert!(bypass.take(1000, now));
        assert!(!bypass.take(1, now));
        assert!(!bypass.take(1, now + Duration::from_secs(8)));
        assert!(bypass.take(1, now + Duration::from_secs(10)));
    }
}
