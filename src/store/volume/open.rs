//! Making a volume, and opening one: recovery, and then what it left to be written.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::Instant;

use crate::moment::unix_seconds;
use crate::store::device::{DeviceError, Disk, Granules};
use crate::store::format::{
    Footer, FormatError, Geometry, RegionEntry, RegionState, Superblock, VolumeId,
    superblock_places,
};
use crate::store::ledger::Ledger;

use super::core::{Checkpoints, Core, Live, Upkeep, ledger_shape};
use super::health::{Health, State};
use super::metadata::{Metadata, MetadataError};
use super::queue::Queue;
use super::recovery::{self, ToSeal};
use super::table::Table;
use super::tally::{Counter, Recovered};
use super::types::{VolumeError, VolumeSettings};

/// Makes an empty volume: the superblock last, so that there is no volume before all is there.
pub(super) async fn format(
    disk: &Disk,
    geometry: Geometry,
    volume: VolumeId,
) -> Result<(), VolumeError> {
    let (volume_bytes, device_bytes) = (geometry.volume_bytes(), disk.device().size_bytes());
    if volume_bytes > device_bytes {
        return Err(FormatError::Truncated { volume_bytes, device_bytes }.into());
    }
    let superblock = Superblock::new(volume, geometry, unix_seconds(SystemTime::now()));
    make(disk, &superblock).await.map_err(|error| VolumeError::Device(error.source))
}

async fn make(disk: &Disk, superblock: &Superblock) -> Result<(), MetadataError> {
    let (geometry, volume) = (*superblock.geometry(), superblock.id());
    let uncounted = Counter::default();
    let metadata = Metadata { disk, volume, geometry: &geometry, written_bytes: &uncounted };
    let places = superblock_places(geometry.volume_bytes());
    for at in places {
        metadata.write("a superblock", at, Granules::zeroed(1)).await?;
    }
    let table = Table::fresh(volume, &geometry);
    metadata.write("the region table", geometry.table().start, table).await?;
    for slot in 0..2 {
        let at = geometry.checkpoint(slot).start;
        metadata.write("a checkpoint", at, Granules::zeroed(1)).await?;
    }
    metadata.flush().await?;
    first_checkpoint(disk, superblock).await?;
    for at in places {
        metadata.write("a superblock", at, superblock.encode(at)).await?;
    }
    metadata.flush().await
}

/// A checkpoint of nothing: from now on one that is missing was lost.
async fn first_checkpoint(disk: &Disk, superblock: &Superblock) -> Result<(), MetadataError> {
    let geometry = superblock.geometry();
    let ledger = Ledger::new(ledger_shape(geometry));
    let found = recovery::Found {
        superblock: superblock.clone(),
        ledger,
        table: Table::unused(geometry),
        sequence: 1,
        trust_from: 0,
        checkpoint: 0,
        slot: 1,
        extra: None,
        to_seal: Vec::new(),
        recovered: Recovered::default(),
    };
    let (core, _) = core_of(disk.clone(), found, &VolumeSettings::default());
    core.checkpoint_now().await;
    match core.health.is_writable() {
        true => Ok(()),
        false => {
            let source = std::io::Error::other(core.health.state().to_string());
            Err(MetadataError { what: "a checkpoint", source: DeviceError::Failed(source) })
        }
    }
}

/// Opens a volume and writes what a crash has left undone.
pub(super) async fn open(disk: Disk, settings: &VolumeSettings) -> Result<Arc<Core>, VolumeError> {
    let began = Instant::now();
    let found = recovery::recover(&disk, settings).await?;
    let refusal = recovery::refusal(&found.superblock);
    let (mut core, to_seal) = core_of(disk, found, settings);
    core.health.left_as(&settings.left_as);
    if let Some(why) = refusal {
        core.health.not_ours_to_write(&why);
    }
    core.opened_as = core.health.state();
    if core.health.is_writable()
        && let Err(error) = core.write_what_is_left(to_seal).await
    {
        core.health.read_only(error.told());
    }
    core.recovered.took = began.elapsed();
    tell(&core, settings);
    Ok(Arc::new(core))
}

/// The one line of a volume that comes online, and another if origins will be asked about it, at
/// each start as long as that is so.
fn tell(core: &Core, settings: &VolumeSettings) {
    let (name, found) = (&core.name, &core.recovered);
    let Recovered { loaded, found: later, dropped, took, .. } = found;
    let known = loaded + later;
    let how = match found.checkpoint {
        Some(_) => format!("{loaded} by its saved index, {later} written after that was saved"),
        None => "read one by one: its saved index is missing or damaged".to_owned(),
    };
    tracing::info!(
        "volume {name} was read in {took:.1?}: it holds {known} records ({how}); {dropped} that a \
         crash cut short or that are damaged are left out"
    );
    if found.heads_in_doubt {
        tracing::warn!(
            "volume {name} may know heads that were replaced since: the origin is asked about \
             each before it is used"
        );
    } else if core.heads_in_doubt.load(Ordering::Relaxed) && settings.left_as == State::Online {
        tracing::warn!(
            "volume {name} holds heads that are in doubt since an earlier start: the origin is \
             asked about each before it is used"
        );
    }
}

fn core_of(disk: Disk, found: recovery::Found, settings: &VolumeSettings) -> (Core, Vec<ToSeal>) {
    let (stopping, _) = watch::channel(false);
    let upkeep =
        Upkeep { checkpoint: found.checkpoint, slot: found.slot, sealed_before: 0, next_write: 0 };
    let id = found.superblock.id();
    let name = settings.name_of(id);
    let was_well = settings.left_as == State::Online;
    let trust_from = if was_well { found.trust_from } else { u64::MAX };
    let holds_heads = found.ledger.index().heads() > 0;
    let core = Core {
        disk,
        name: name.clone(),
        id,
        geometry: *found.superblock.geometry(),
        ledger: found.ledger,
        settings: Live::new(settings),
        queue: Queue::new(settings.head_linger),
        pending_heads: Default::default(),
        pending_blocks: Default::default(),
        logs: Mutex::new(HashMap::new()),
        table: AsyncMutex::new(found.table),
        upkeep: AsyncMutex::new(upkeep),
        upkeep_wanted: Notify::new(),
        checkpoints: Checkpoints::default(),
        ill_regions: Mutex::new(BTreeSet::new()),
        health: Health::new(name, settings.remedy.as_str().into()),
        tally: Default::default(),
        sequence: AtomicU64::new(found.sequence),
        trust_from: AtomicU64::new(trust_from),
        heads_in_doubt: AtomicBool::new(trust_from > 0 && holds_heads),
        extra: Mutex::new(None),
        extra_found: found.extra,
        recovered: found.recovered,
        opened_as: State::Online,
        stopping,
    };
    (core, found.to_seal)
}

impl Core {
    /// What a crash has left undone. A doubt is written down first: what could not be read now is
    /// not looked for again in a region that has a footer, after the next crash either.
    async fn write_what_is_left(&self, to_seal: Vec<ToSeal>) -> Result<(), MetadataError> {
        if self.recovered.heads_in_doubt {
            let mut upkeep = self.upkeep.lock().await;
            self.write_next_checkpoint(&mut upkeep).await?;
        }
        self.seal_found(to_seal).await
    }

    /// Regions that were found open get their footer: nothing is ever appended to them again.
    /// Those in which nothing was found are free.
    async fn seal_found(&self, to_seal: Vec<ToSeal>) -> Result<(), MetadataError> {
        for ToSeal { region, generation, filled_for, mut entries } in to_seal {
            if entries.is_empty() {
                let generation = self.ledger.released(region);
                let free = RegionEntry { generation, ..RegionEntry::default() };
                self.table.lock().await.set(region, free);
                self.table.lock().await.commit(&self.metadata()).await?;
                self.ledger.freed(region);
                continue;
            }
            // More than its footer has room for can't have been appended.
            let room = |count: usize| {
                let footer = Footer::granules_for(count);
                let end = entries[..count].last().map_or(1, |e| e.granule + e.granules);
                end + footer <= self.geometry.region_granules()
            };
            let count = (0..=entries.len()).rev().find(|count| room(*count)).unwrap_or(0);
            entries.truncate(count);
            let sealed = self.ledger.next_seal();
            let footer = Footer { filled_for, sealed, entries };
            self.write_footer(region, generation, &footer).await?;
            self.ledger.seal(region);
            let state = RegionState::Sealed;
            let entry = RegionEntry { generation, state, filled_for, sealed };
            self.table.lock().await.set(region, entry);
        }
        self.table.lock().await.commit(&self.metadata()).await
    }
}
