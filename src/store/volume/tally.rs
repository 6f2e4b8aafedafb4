//! What a volume has done: counters, and the figures made of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::State;
use super::types::Refused;

/// Bytes written to a volume, by what for. Their sum over what was asked for, `admitted` and
/// `heads`, is its write amplification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenBytes {
    /// Pieces that were admitted.
    pub admitted: u64,
    /// Pieces and heads that were carried from a region that was given up.
    pub reappended: u64,
    /// Heads, and bodies beside them.
    pub heads: u64,
    /// Headers of records, of regions, footers, the region table.
    pub metadata: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Zeros, up to the next granule.
    pub padding: u64,
}

impl WrittenBytes {
    /// All of them.
    pub fn total(&self) -> u64 {
        let data = self.admitted + self.reappended + self.heads;
        data + self.metadata + self.checkpoints + self.padding
    }

    /// Each with its metrics label.
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("admitted", self.admitted),
            ("reappended", self.reappended),
            ("heads", self.heads),
            ("metadata", self.metadata),
            ("checkpoint", self.checkpoints),
            ("padding", self.padding),
        ]
    }
}

/// How a volume came online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The checkpoint that was used; `None` if there was no good one.
    pub checkpoint: Option<u64>,
    /// Entries of the index that it brought.
    pub loaded: u64,
    /// Regions whose footer was read.
    pub footers: u64,
    /// Regions that were read record by record.
    pub scanned: u64,
    /// Records that were found in either.
    pub found: u64,
    /// What began like a record and was none: torn or damaged.
    pub dropped: u64,
    /// Whether heads are no longer known to be the newest.
    pub heads_in_doubt: bool,
    /// From the first read until it was online.
    pub took: Duration,
}

/// What a volume is and has done.
#[derive(Clone, Debug)]
pub struct VolumeFigures {
    /// What it may be used for.
    pub state: State,
    /// Its regions, whatever they are used for.
    pub regions: u32,
    /// Regions that may be opened.
    pub regions_free: u32,
    /// Regions in the order of being given up.
    pub regions_sealed: u32,
    /// Regions never used again.
    pub regions_quarantined: u32,
    /// Bytes of records that can be found.
    pub live_bytes: u64,
    /// Heads in the index.
    pub heads: u64,
    /// Whether some of them are used only when the origin has confirmed them, as far as is known:
    /// that none is left is found out at the next start.
    pub heads_in_doubt: bool,
    /// Block records in the index.
    pub blocks: u64,
    /// Bytes waiting to be written or being written.
    pub queue_bytes: u64,
    /// Bytes written since it was opened.
    pub written: WrittenBytes,
    /// Writes that were not taken, in the order of [`Refused::ALL`].
    pub refused: [u64; Refused::ALL.len()],
    /// Writes that were taken and failed.
    pub write_errors: u64,
    /// Records, and lists of regions, that were not what was written: torn or damaged. Forgotten.
    pub mismatches: u64,
    /// Reads that found the record of another key, which the index does not tell from this one.
    pub of_another: u64,
    /// Reads that took too long.
    pub late: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Reads the device had no place for.
    pub busy: u64,
    /// Regions given up.
    pub regions_reclaimed: u64,
    /// Those of them of which the device did not bring in time what was to be carried on.
    pub regions_cut_short: u64,
    /// Block records that were in them.
    pub blocks_reclaimed: u64,
    /// Those of them that had been used.
    pub used_blocks_reclaimed: u64,
    /// How it came online.
    pub recovered: Recovered,
}

/// A counter that only rises.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`VolumeFigures`].
#[derive(Default)]
pub(super) struct Tally {
    pub(super) admitted_bytes: Counter,
    pub(super) reappended_bytes: Counter,
    pub(super) heads_bytes: Counter,
    pub(super) metadata_bytes: Counter,
    pub(super) checkpoint_bytes: Counter,
    pub(super) padding_bytes: Counter,
    pub(super) refused: [Counter; Refused::ALL.len()],
    pub(super) write_errors: Counter,
    pub(super) mismatches: Counter,
    pub(super) of_another: Counter,
    pub(super) late: Counter,
    pub(super) read_errors: Counter,
    pub(super) busy: Counter,
    pub(super) regions_reclaimed: Counter,
    pub(super) regions_cut_short: Counter,
    pub(super) blocks_reclaimed: Counter,
    pub(super) used_blocks_reclaimed: Counter,
}

impl Tally {
    pub(super) fn refused(&self, why: Refused) -> Refused {
        self.refused[why as usize].add(1);
        why
    }

    pub(super) fn written(&self) -> WrittenBytes {
        WrittenBytes {
            admitted: self.admitted_bytes.value(),
            reappended: self.reappended_bytes.value(),
            heads: self.heads_bytes.value(),
            metadata: self.metadata_bytes.value(),
            checkpoints: self.checkpoint_bytes.value(),
            padding: self.padding_bytes.value(),
        }
    }

    /// What was counted; the rest is for the caller to fill in.
    pub(super) fn figures(&self) -> VolumeFigures {
        VolumeFigures {
            state: State::Online,
            regions: 0,
            regions_free: 0,
            regions_sealed: 0,
            regions_quarantined: 0,
            live_bytes: 0,
            heads: 0,
            heads_in_doubt: false,
            blocks: 0,
            queue_bytes: 0,
            written: self.written(),
            refused: self.refused.each_ref().map(Counter::value),
            write_errors: self.write_errors.value(),
            mismatches: self.mismatches.value(),
            of_another: self.of_another.value(),
            late: self.late.value(),
            read_errors: self.read_errors.value(),
            busy: self.busy.value(),
            regions_reclaimed: self.regions_reclaimed.value(),
            regions_cut_short: self.regions_cut_short.value(),
            blocks_reclaimed: self.blocks_reclaimed.value(),
            used_blocks_reclaimed: self.used_blocks_reclaimed.value(),
            recovered: Recovered::default(),
        }
    }
}
