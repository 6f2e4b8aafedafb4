//! What the parts of a volume share: its ledger, its queue, its health, and what is open.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::Instant;

use crate::limits::{GRANULE_SIZE_BYTES, PIECE_SIZE_BYTES};
use crate::object::{BlockKey, PieceMap};
use crate::store::ObjectHash;
use crate::store::device::{Disk, Urgency};
use crate::store::format::{FooterEntry, Geometry, Spot, VolumeId};
use crate::store::index::{Entry, Fingerprint, Index, Kind, Location, RegionId, Shape};
use crate::store::ledger::{FooterRoom, Ledger, LedgerShape, ReappendRule, Stream};

use super::blocks::PendingBlocks;
use super::heads::PendingHeads;
use super::health::{Health, State, Verdict};
use super::metadata::{Metadata, MetadataError};
use super::queue::Queue;
use super::table::Table;
use super::tally::{Recovered, Tally, VolumeFigures};
use super::types::VolumeSettings;
use super::window::Reader;

/// Free regions kept back for what is appended again.
pub(super) const REGIONS_RESERVED: u32 = 1;
/// Free regions there are meant to be, on a large volume.
const REGIONS_READY: u32 = 8;

/// What a footer takes; a test compares it with the format.
const FOOTER_ROOM: FooterRoom = FooterRoom { fixed_bytes: 96, entry_bytes: 48 };

pub(super) type MakeExtra = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// A volume, without its tasks.
pub(super) struct Core {
    pub(super) disk: Disk,
    /// As the operator calls it.
    pub(super) name: Arc<str>,
    pub(super) id: VolumeId,
    pub(super) geometry: Geometry,
    pub(super) ledger: Ledger,
    pub(super) settings: Live,
    pub(super) queue: Queue,
    pub(super) pending_heads: PendingHeads,
    pub(super) pending_blocks: PendingBlocks,
    pub(super) logs: Mutex<HashMap<RegionId, RegionLog>>,
    /// Held while regions are opened and sealed: one at a time.
    pub(super) table: AsyncMutex<Table>,
    /// Held while room is made and while a checkpoint is taken: never both.
    pub(super) upkeep: AsyncMutex<Upkeep>,
    pub(super) upkeep_wanted: Notify,
    /// What was forgotten stands nowhere on the device until the next one.
    pub(super) checkpoints: Checkpoints,
    /// Regions to be taken out of use.
    pub(super) ill_regions: Mutex<BTreeSet<RegionId>>,
    pub(super) health: Health,
    pub(super) tally: Tally,
    /// The number of the next write.
    pub(super) sequence: AtomicU64,
    /// Heads with a lower number may not be the newest.
    pub(super) trust_from: AtomicU64,
    /// Whether there were such heads when that was last found out.
    pub(super) heads_in_doubt: AtomicBool,
    pub(super) extra: Mutex<Option<MakeExtra>>,
    pub(super) extra_found: Option<Bytes>,
    pub(super) recovered: Recovered,
    /// What it was before anything was written to it: a state that is no news.
    pub(super) opened_as: State,
    pub(super) stopping: watch::Sender<bool>,
}

/// How many checkpoints were asked for, and which of them has been taken.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) wanted: AtomicU64,
    pub(super) taken: AtomicU64,
}

impl Checkpoints {
    /// Whether one that was asked for is not taken yet.
    pub(super) fn is_due(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.taken.load(Ordering::Acquire)
    }
}

/// What of the settings is needed while it runs; the score may be changed meanwhile.
pub(super) struct Live {
    pub(super) read_deadline: Duration,
    pub(super) checkpoint_interval: Duration,
    reappend_score_min: AtomicU8,
    reappend_share_max_percent: u32,
}

/// What making room and checkpoints know of each other.
pub(super) struct Upkeep {
    /// The number of the last good checkpoint; 0 if there is none.
    pub(super) checkpoint: u64,
    /// Where it stands.
    pub(super) slot: usize,
    /// What was sealed before this place in the order is known to it, so it may be given up.
    pub(super) sealed_before: u64,
    /// The number of the next write when it was taken: nothing has changed while this is so.
    pub(super) next_write: u64,
}

/// What was appended to a region that is open or being sealed.
pub(super) struct RegionLog {
    pub(super) stream: Stream,
    pub(super) generation: u64,
    /// Written, in the order their writes were over.
    pub(super) entries: Vec<FooterEntry>,
    /// Where records begin that are not written yet.
    pub(super) unpublished: BTreeSet<u16>,
    /// Told when the last of them is over.
    pub(super) idle: Arc<Notify>,
}

impl Live {
    pub(super) fn new(settings: &VolumeSettings) -> Live {
        Live {
            read_deadline: settings.read_deadline,
            checkpoint_interval: settings.checkpoint_interval,
            reappend_score_min: AtomicU8::new(settings.reappend.score_min),
            reappend_share_max_percent: settings.reappend.share_max_percent,
        }
    }

    pub(super) fn set_reappend_score_min(&self, score_min: u8) {
        self.reappend_score_min.store(score_min, Ordering::Relaxed);
    }

    pub(super) fn reappend_rule(&self) -> ReappendRule {
        ReappendRule {
            score_min: self.reappend_score_min.load(Ordering::Relaxed),
            share_max_percent: self.reappend_share_max_percent,
        }
    }
}

/// The ledger's sizes for a volume of this geometry.
pub(super) fn ledger_shape(geometry: &Geometry) -> LedgerShape {
    LedgerShape {
        regions: geometry.regions(),
        region_granules: geometry.region_granules(),
        header_granules: 1,
        footer: FOOTER_ROOM,
        regions_reserved: REGIONS_RESERVED,
        index_entries_max: geometry.index_entries_max(),
    }
}

impl Core {
    pub(super) fn index(&self) -> &Index {
        self.ledger.index()
    }

    pub(super) fn head_key(&self, object: ObjectHash) -> Fingerprint {
        Fingerprint::of_head(self.seed(), object)
    }

    pub(super) fn block_key(&self, block: BlockKey) -> Fingerprint {
        Fingerprint::of_block(self.seed(), block)
    }

    /// Of the index: the volume's name, so that a dump fits again.
    fn seed(&self) -> u64 {
        seed_of(self.id)
    }

    /// Which pieces of the block the index knows, in one record or several.
    pub(super) fn pieces_of(&self, block: BlockKey) -> PieceMap {
        let records = self.index().blocks_of(self.block_key(block));
        let maps = records.iter().map(|entry| entry.shape.pieces());
        maps.fold(PieceMap::default(), PieceMap::union)
    }

    /// The index knows these pieces of the block no more. Only of a volume that nobody reads: what
    /// remains of a record is smaller than what lies there.
    pub(super) fn forget_pieces(&self, block: BlockKey, pieces: PieceMap) {
        let key = self.block_key(block);
        for entry in self.index().blocks_of(key).iter() {
            let rest = PieceMap(entry.shape.pieces().0 & !pieces.0);
            let length = u64::from(rest.count()) * PIECE_SIZE_BYTES;
            match Shape::block(rest, length) {
                Some(shape) => {
                    self.ledger.relocate(key, entry.location, Entry { shape, ..*entry });
                }
                None => {
                    self.ledger.remove_at(key, Kind::Block, entry.location);
                }
            }
        }
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// The granule at `location` in the generation its region is in now.
    pub(super) fn spot(&self, location: Location) -> Spot {
        let generation = self.ledger.generation(location.region);
        self.spot_of(location.region, u32::from(location.granule), generation)
    }

    pub(super) fn spot_of(&self, region: RegionId, granule: u32, generation: u64) -> Spot {
        let spot = self.geometry.spot(self.id, region.0, granule, generation);
        spot.expect("what the ledger names lies in a region")
    }

    /// Reads regions that are given up. It waits no longer than a viewer would: the writer may be
    /// waiting for the room.
    pub(super) fn reclaimer(&self) -> Reader {
        let (disk, name) = (self.disk.clone(), self.name.clone());
        let (urgency, patience) = (Urgency::Reclaim, self.settings.read_deadline);
        Reader { disk, name, geometry: self.geometry, volume: self.id, urgency, patience }
    }

    pub(super) fn metadata(&self) -> Metadata<'_> {
        Metadata {
            disk: &self.disk,
            volume: self.id,
            geometry: &self.geometry,
            written_bytes: &self.tally.metadata_bytes,
        }
    }

    /// A volume that can't say where things are is of no use.
    pub(super) fn metadata_failed(&self, error: &MetadataError) {
        self.health.metadata_failed(error);
    }

    /// The device failed to read what lies at `location`, whoever wanted it.
    pub(super) fn unread(&self, location: Location, source: &io::Error) {
        self.tally.read_errors.add(1);
        self.tell_of_read(location, source);
        self.read_failed(location.region, source);
        self.health.note_gone(source);
    }

    /// The log is told of a read at `location` that failed, now and then.
    pub(super) fn tell_of_read(&self, location: Location, why: &dyn fmt::Display) {
        self.health.tell_of_read(self.spot(location).at(), why, Instant::now());
    }

    /// A read from `region` failed, or brought what was not written.
    pub(super) fn read_failed(&self, region: RegionId, why: &dyn fmt::Display) {
        let now = Instant::now();
        if self.health.read_failed(region, why, now) == Verdict::Quarantine {
            self.ill_regions.lock().expect(UNBROKEN).insert(region);
            self.upkeep_wanted.notify_one();
        }
    }

    pub(super) fn figures(&self) -> VolumeFigures {
        let (ledger, tally, geometry) = (&self.ledger, &self.tally, &self.geometry);
        let regions = || (0..geometry.regions()).map(RegionId);
        let live: u64 = regions().map(|region| ledger.live_granules(region)).sum();
        VolumeFigures {
            state: self.health.state(),
            regions: geometry.regions(),
            regions_free: ledger.free_regions(),
            regions_sealed: ledger.sealed_regions(),
            regions_quarantined: ledger.quarantined_regions(),
            live_bytes: live * GRANULE_SIZE_BYTES,
            heads: self.index().heads(),
            heads_in_doubt: self.heads_in_doubt.load(Ordering::Relaxed) && self.index().heads() > 0,
            blocks: self.index().blocks(),
            queue_bytes: self.queue.bytes(),
            recovered: self.recovered,
            ..tally.figures()
        }
    }

    pub(super) fn logs(&self) -> MutexGuard<'_, HashMap<RegionId, RegionLog>> {
        self.logs.lock().expect(UNBROKEN)
    }

    /// Free regions there should be: below that, room is made.
    pub(super) fn regions_ready(&self) -> u32 {
        (self.geometry.regions() / 16).clamp(REGIONS_RESERVED + 1, REGIONS_READY)
    }
}

/// The seed of a volume's fingerprints.
pub(super) fn seed_of(id: VolumeId) -> u64 {
    (id.0 >> 64) as u64 ^ id.0 as u64
}

/// How many granules `bytes` take.
pub(super) fn granules_of(bytes: u64) -> u64 {
    bytes.div_ceil(GRANULE_SIZE_BYTES)
}

pub(super) const UNBROKEN: &str = "nothing panics while it changes what a volume shares";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::Footer;

    #[test]
    fn the_room_kept_for_a_footer_is_what_it_takes() {
        for entries in [0, 1, 82, 83, 84, 500, 16_000] {
            assert_eq!(FOOTER_ROOM.granules(entries), Footer::granules_for(entries as usize));
        }
    }
}
