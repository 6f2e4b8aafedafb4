//! What origins may be asked for because a volume is ill: so many bytes a second, and no more.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::cache::ssd::{Ssd, Subject};
use crate::limits::SSD_LOST_MAX;
use crate::object::BlockKey;
use crate::store::ObjectHash;

impl Ssd {
    /// Whether an origin may be asked for bytes of an object that an ill volume holds, or lost.
    pub fn may_bypass(&self, subject: &Subject, block: Option<BlockKey>, bytes: u64) -> bool {
        let allowed = self.bypass.take(bytes, Instant::now());
        if !allowed {
            self.figures.bypass_refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.figures.bypassed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.lost.settle(subject.object, block);
        true
    }
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

    pub(super) fn holds_block(&self, block: &BlockKey) -> bool {
        self.known().contains(&What::Block(*block))
    }

    pub(super) fn holds_heads(&self, object: ObjectHash) -> bool {
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
