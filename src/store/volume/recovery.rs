//! Opening a volume: what is where, found out again.
//!
//! Superblock, region table, the newest good checkpoint; then what has changed since: sealed
//! regions by their footers, those that were open record by record. Heads: of what was published
//! before the checkpoint only what it knows counts, of the rest the highest number. Nothing is
//! believed without its checksum; what is torn or stale is dropped and counted. What can't be read
//! now puts heads in doubt, and they stay so when it can be read again.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::limits::{GRANULE_SIZE_BYTES, PIECE_GRANULES};
use crate::object::BlockSize;
use crate::store::ObjectHash;
use crate::store::device::{Buffer, DeviceError, Disk, Granules, Urgency};
use crate::store::format::{
    Access, ENTRIES_PER_PAGE, FilledFor, FooterEntry, FormatError, Geometry, Indexed, RegionEntry,
    RegionHeader, RegionState, Superblock, superblock_places,
};
use crate::store::index::{Entry, Fingerprint, Kind, Location, RegionId, Shape};
use crate::store::ledger::{Ledger, RegionPhase, new_head};

use super::append::stream_of;
use super::core::{ledger_shape, seed_of};
use super::doubt::Held;
use super::load::{self, Checkpoint};
use super::scan::{self, Contents};
use super::table::Table;
use super::tally::Recovered;
use super::types::{VolumeError, VolumeSettings};
use super::window::Reader;

/// Regions read at once.
pub(super) const REGIONS_AT_ONCE: usize = 32;
/// Numbers left out after a crash: none that was written and lost is used again.
const SEQUENCE_GAP: u64 = 1 << 20;

/// A volume as it was found.
pub(super) struct Found {
    pub(super) superblock: Superblock,
    pub(super) ledger: Ledger,
    pub(super) table: Table,
    pub(super) sequence: u64,
    pub(super) trust_from: u64,
    pub(super) checkpoint: u64,
    pub(super) slot: usize,
    pub(super) extra: Option<Bytes>,
    /// Regions that were open, to be sealed with what was found in them.
    pub(super) to_seal: Vec<ToSeal>,
    pub(super) recovered: Recovered,
}

/// A region that was found open.
pub(super) struct ToSeal {
    pub(super) region: RegionId,
    pub(super) generation: u64,
    pub(super) filled_for: FilledFor,
    pub(super) entries: Vec<FooterEntry>,
}

/// A head, or the end of one, that was found.
struct Candidate {
    sequence: u64,
    /// `None`: a tombstone.
    at: Option<(Location, u32)>,
}

/// Reads the superblock's copies and chooses.
pub(super) async fn superblock(disk: &Disk) -> Result<Superblock, VolumeError> {
    let size_bytes = disk.device().size_bytes();
    let reader = |at| async move {
        let deadline = Instant::now() + super::window::PATIENCE;
        let into = vec![Buffer::Own(Granules::zeroed(1))];
        let mut buffers = disk.read(at, into, Urgency::Viewer, deadline).await?;
        Ok::<_, DeviceError>(buffers.pop())
    };
    let mut copies = Vec::new();
    let mut failed = None;
    for at in superblock_places(size_bytes) {
        match reader(at).await {
            Ok(Some(buffer)) => copies.push((at, buffer)),
            Ok(None) => {}
            Err(error) => failed = Some(VolumeError::Device(error)),
        }
    }
    let read: Vec<_> = copies.iter().map(|(at, buffer)| (*at, buffer.bytes())).collect();
    Superblock::choose(&read, failed, size_bytes)
}

/// Finds out what a volume holds, unless its blocks are of another size than the settings say.
/// Writes nothing.
pub(super) async fn recover(disk: &Disk, settings: &VolumeSettings) -> Result<Found, VolumeError> {
    let superblock = superblock(disk).await?;
    let (geometry, volume) = (*superblock.geometry(), superblock.id());
    check_blocks(&geometry, settings)?;
    let (disk, name) = (disk.clone(), settings.name_of(volume));
    let (urgency, patience) = (Urgency::Promote, super::window::PATIENCE);
    let reader = Reader { disk, name, geometry, volume, urgency, patience };
    let mut recovered = Recovered::default();

    let TableRead { table, lost, reopened } = read_table(&reader).await?;
    let loaded = load::newest(&reader, table.entries(), ledger_shape(&geometry)).await?;
    let mut in_doubt = lost || loaded.newer_was_bad;
    let ledger = loaded.ledger;
    let checkpoint = match loaded.checkpoint {
        Some(checkpoint) => checkpoint,
        None => {
            in_doubt = true;
            Checkpoint::none(loaded.newest_slot)
        }
    };
    in_doubt |= checkpoint.is_ahead_of(table.entries());
    recovered.checkpoint = (checkpoint.sequence > 0).then_some(checkpoint.sequence);
    recovered.loaded = ledger.index().heads() + ledger.index().blocks();

    let mut merge = Merge { ledger: &ledger, seed: seed_of(volume), heads: HashMap::new() };
    let mut sequence = checkpoint.next_write;
    let mut to_seal = Vec::new();
    let mut orders = HashMap::new();
    read_changed(&reader, table.entries(), &checkpoint, |found: Contents| {
        recovered.footers += u64::from(found.sealed.is_some());
        recovered.scanned += u64::from(found.sealed.is_none());
        recovered.dropped += found.dropped;
        in_doubt |= found.unread;
        // A page that a crash has torn tells of no region in which something was written since.
        in_doubt |= reopened.contains(&found.region) && !found.entries.is_empty();
        let newest = found.entries.iter().map(|entry| entry.sequence).max();
        sequence = sequence.max(newest.map_or(0, |newest| newest.saturating_add(1)));
        recovered.found += merge.take(&found);
        let RegionEntry { generation, filled_for, .. } = table.entries()[found.region.0 as usize];
        let (region, entries) = (found.region, found.entries);
        match found.sealed {
            Some(order) => drop(orders.insert(region, order)),
            None => to_seal.push(ToSeal { region, generation, filled_for, entries }),
        }
    })
    .await;
    to_seal.sort_by_key(|region| region.region);
    in_doubt |= merge.finish(&reader, &table, checkpoint.next_write).await == Finished::InDoubt;
    sequence = sequence.saturating_add(SEQUENCE_GAP);

    restore_regions(&ledger, table.entries(), &checkpoint, &orders);
    recovered.heads_in_doubt = in_doubt;
    let held = Held { ledger: &ledger, table: table.entries(), to_seal: &to_seal };
    let trust_from = match in_doubt {
        true => sequence,
        false => held.trusted_from(&reader, checkpoint.trust_from).await,
    };
    Ok(Found {
        superblock,
        ledger,
        table,
        sequence,
        trust_from,
        checkpoint: checkpoint.sequence.max(loaded.highest),
        slot: checkpoint.slot,
        extra: checkpoint.extra,
        to_seal,
        recovered,
    })
}

fn check_blocks(geometry: &Geometry, settings: &VolumeSettings) -> Result<(), FormatError> {
    let (block_bytes, wanted) = (geometry.block().bytes(), settings.block.map(BlockSize::bytes));
    match wanted.filter(|wanted_bytes| *wanted_bytes != block_bytes) {
        Some(wanted_bytes) => Err(FormatError::OtherBlocks { block_bytes, wanted_bytes }),
        None => Ok(()),
    }
}

/// Whether a volume with these features may be written.
pub(super) fn refusal(superblock: &Superblock) -> Option<String> {
    match superblock.access() {
        Access::Full => None,
        Access::ReadOnly { bits } => {
            Some(format!("a later version made it: features {bits:#x} are not known to this one"))
        }
    }
}

/// Sets every region's phase; `orders` are the places of those whose footers were read.
fn restore_regions(
    ledger: &Ledger,
    entries: &[RegionEntry],
    checkpoint: &Checkpoint,
    orders: &HashMap<RegionId, u64>,
) {
    ledger.restore(entries.iter().enumerate().map(|(number, entry)| {
        let region = RegionId(number as u32);
        let order = orders.get(&region).copied().or_else(|| checkpoint.sealed(region, entry));
        (phase_of(entry, order), entry.generation)
    }));
}

fn phase_of(entry: &RegionEntry, sealed: Option<u64>) -> RegionPhase {
    let stream = stream_of(entry.filled_for);
    match (entry.state, sealed) {
        (RegionState::Free, _) => RegionPhase::Free,
        (RegionState::Quarantined, _) => RegionPhase::Quarantined,
        (_, Some(order)) => RegionPhase::Sealed { stream, order },
        (_, None) => RegionPhase::Closing(stream),
    }
}

/// The region table as it was read. What was lost is taken from the regions' own headers.
struct TableRead {
    table: Table,
    /// Whether some of it was lost.
    lost: bool,
    /// Regions that were opened in a generation that it does not know.
    reopened: Vec<RegionId>,
}

async fn read_table(reader: &Reader) -> Result<TableRead, VolumeError> {
    let area = reader.geometry.table();
    let granules = ((area.end - area.start) / GRANULE_SIZE_BYTES) as u32;
    let mut bytes = Vec::with_capacity(granules as usize * GRANULE_SIZE_BYTES as usize);
    let (mut at, mut unread) = (area.start, Vec::new());
    while at < area.end {
        let count = load::CHUNK_GRANULES.min(((area.end - at) / GRANULE_SIZE_BYTES) as u32);
        match reader.granules(at, count).await {
            Ok(granules) => bytes.extend_from_slice(granules.bytes()),
            // Page by page, so that a bad one costs no more than itself.
            Err(DeviceError::Failed(_)) => {
                for page in 0..u64::from(count) {
                    let place = at + page * GRANULE_SIZE_BYTES;
                    let one = reader.granules(place, 1).await;
                    let one = one.unwrap_or_else(|error| {
                        unread.push((place, error));
                        Granules::zeroed(1)
                    });
                    bytes.extend_from_slice(one.bytes());
                }
            }
            Err(error) => return Err(error.into()),
        }
        at += u64::from(count) * GRANULE_SIZE_BYTES;
    }
    let loaded = Table::decode(&bytes, &unread, reader.volume, &reader.geometry);
    let mut table = loaded.table;
    let (name, mut reopened) = (&reader.name, Vec::new());
    for page in &loaded.bad {
        tracing::warn!("volume {name}: {}", page.in_words());
        let first = page.number * ENTRIES_PER_PAGE as u32;
        let end = (first + ENTRIES_PER_PAGE as u32).min(reader.geometry.regions());
        for region in first..end {
            let known = table.entries()[region as usize];
            if let Some(entry) = ask_region(reader, region, &known).await? {
                table.set(RegionId(region), entry);
                reopened.extend((entry.state == RegionState::Open).then_some(RegionId(region)));
            }
        }
    }
    Ok(TableRead { table, lost: loaded.bad.iter().any(|page| page.is_lost), reopened })
}

/// What a region's own header says, if that is news: how it was opened last. One that can't be read
/// is not used again: nobody knows what generation it is in. One that is free and has no header may
/// have been opened once more than is known.
async fn ask_region(
    reader: &Reader,
    region: u32,
    known: &RegionEntry,
) -> Result<Option<RegionEntry>, VolumeError> {
    let at = reader.geometry.region(region).expect("a page tells of regions there are").start;
    let header = match reader.granules(at, 1).await {
        Ok(granules) => RegionHeader::decode(granules.bytes(), reader.volume, region),
        Err(DeviceError::Failed(_)) => {
            let state = RegionState::Quarantined;
            return Ok(Some(RegionEntry { state, sealed: 0, ..*known }));
        }
        Err(error) => return Err(error.into()),
    };
    if header.is_err() && known.state == RegionState::Free {
        let generation = known.generation.saturating_add(2);
        return Ok(Some(RegionEntry { generation, ..*known }));
    }
    let newer = header.ok().filter(|header| header.generation > known.generation);
    Ok(newer.map(|header| RegionEntry {
        generation: header.generation,
        state: RegionState::Open,
        filled_for: header.filled_for,
        sealed: 0,
    }))
}

/// Tells `take` what is in the regions that have changed since the checkpoint.
async fn read_changed(
    reader: &Reader,
    entries: &[RegionEntry],
    checkpoint: &Checkpoint,
    mut take: impl FnMut(Contents),
) {
    let mut under_way = JoinSet::new();
    for (number, entry) in entries.iter().enumerate() {
        let region = RegionId(number as u32);
        let in_use = matches!(entry.state, RegionState::Open | RegionState::Sealed);
        let Some(from) = checkpoint.unknown_from(region, entry).filter(|_| in_use) else {
            continue;
        };
        if under_way.len() >= REGIONS_AT_ONCE
            && let Some(ended) = under_way.join_next().await
        {
            take(ended.expect("reading a region does not panic"));
        }
        let (reader, generation) = (reader.clone(), entry.generation);
        under_way.spawn(async move { scan::contents(&reader, region, generation, from).await });
    }
    while let Some(ended) = under_way.join_next().await {
        take(ended.expect("reading a region does not panic"));
    }
}

/// Brings what was found in regions into the index.
struct Merge<'a> {
    ledger: &'a Ledger,
    seed: u64,
    heads: HashMap<ObjectHash, Candidate>,
}

impl Merge<'_> {
    /// Takes what a checkpoint does not know of; returns how many records.
    fn take(&mut self, found: &Contents) -> u64 {
        let mut count = 0;
        for entry in found.entries.iter().filter(|entry| entry.granule >= found.from) {
            let location = Location { region: found.region, granule: entry.granule as u16 };
            match entry.indexed {
                Indexed::Block { block, pieces, filled_for } => {
                    let key = Fingerprint::of_block(self.seed, block);
                    let whole = pieces.count().saturating_sub(1) * PIECE_GRANULES + 1;
                    let Some(last) = entry.granules.checked_sub(whole).filter(|n| *n > 0) else {
                        continue;
                    };
                    let shape =
                        Shape::Block { pieces, last_granules: last.min(PIECE_GRANULES) as u8 };
                    let planned = filled_for == FilledFor::Planned;
                    // A full index: it is not held, then.
                    let _ = self.ledger.insert(key, Entry { location, shape, score: 0, planned });
                }
                Indexed::Head { object } => {
                    self.candidate(object, entry.sequence, Some((location, entry.granules)));
                }
                Indexed::Tombstone { object } => self.candidate(object, entry.sequence, None),
            }
            count += 1;
        }
        count
    }

    fn candidate(&mut self, object: ObjectHash, sequence: u64, at: Option<(Location, u32)>) {
        let known = self.heads.get(&object).is_some_and(|known| known.sequence >= sequence);
        if !known {
            self.heads.insert(object, Candidate { sequence, at });
        }
    }

    /// What is numbered from `next_write` on is newer than all that the checkpoint knows; of the
    /// rest its own records tell.
    async fn finish(self, reader: &Reader, table: &Table, next_write: u64) -> Finished {
        let mut finished = Finished::Sure;
        let mut heads: Vec<_> = self.heads.into_iter().collect();
        // In one order, whatever the map says.
        heads.sort_by_key(|(object, _)| *object);
        for (object, candidate) in heads {
            let key = Fingerprint::of_head(self.seed, object);
            if candidate.sequence < next_write
                && let Some(known) = self.ledger.index().head(key)
            {
                let generation = table.entries()[known.location.region.0 as usize].generation;
                match scan::sequence_of(reader, generation, object, &known).await {
                    Some(sequence) if sequence > candidate.sequence => continue,
                    Some(_) => {}
                    None => finished = Finished::InDoubt,
                }
            }
            let Some((location, granules)) = candidate.at else {
                self.ledger.remove(key, Kind::Head);
                continue;
            };
            let _ = self.ledger.insert(key, new_head(location, granules));
        }
        finished
    }
}

/// Whether the newest of each object's heads was found.
#[derive(PartialEq, Eq)]
enum Finished {
    Sure,
    InDoubt,
}
