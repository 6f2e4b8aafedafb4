//! What the tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the tier has done. What was admitted and what was not, each volume's admission tells; what
/// became of it, the volume: a write it refused, or the governor, has been counted there.
#[derive(Default)]
pub struct Figures {
    pub(super) recalled: AtomicU64,
    pub(super) bypassed_bytes: AtomicU64,
    pub(super) bypass_refused: AtomicU64,
    pub(super) shown: [AtomicU64; 2],
}

impl Figures {
    /// Heads found on a volume.
    pub fn recalled(&self) -> u64 {
        self.recalled.load(Ordering::Relaxed)
    }

    /// Bytes asked of origins because a volume was ill.
    pub fn bypassed_bytes(&self) -> u64 {
        self.bypassed_bytes.load(Ordering::Relaxed)
    }

    /// Requests the shadow caches were shown: viewers who came to a block at its start, and inside.
    pub fn shown(&self) -> [u64; 2] {
        self.shown.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Reads that waited, or were turned away, because a volume was ill and the origins had had
    /// their share.
    pub fn bypass_refused(&self) -> u64 {
        self.bypass_refused.load(Ordering::Relaxed)
    }
}
