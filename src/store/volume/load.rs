//! Loading a checkpoint: the newest of the two whose every byte is right.

use std::fmt;

use bytes::Bytes;

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{DeviceError, Granules};
use crate::store::format::{
    CheckpointHeader, FormatError, REGION_SNAPSHOT_BYTES, RegionEntry, RegionSnapshot, RegionState,
    SectionKind, SectionSum,
};
use crate::store::index::{Entry, Misshapen, RegionId};
use crate::store::ledger::{Ledger, LedgerShape};

use super::checkpoint::{PREAMBLE_BYTES, Preamble};
use super::table::UNREAD_GAP;
use super::window::Reader;

/// What is read at once.
pub(super) const CHUNK_GRANULES: u32 = 1024;

/// What came of both slots.
pub(super) struct Loaded {
    pub(super) checkpoint: Option<Checkpoint>,
    /// With what the checkpoint's index holds.
    pub(super) ledger: Ledger,
    /// A checkpoint was complete once and is not any more, or may have been: the newest, perhaps.
    pub(super) newer_was_bad: bool,
    /// The highest number a header names, or may name that could not be read.
    pub(super) highest: u64,
    /// Where that is; the other slot is written next.
    pub(super) newest_slot: usize,
}

/// What a checkpoint says, without its index.
pub(super) struct Checkpoint {
    pub(super) sequence: u64,
    pub(super) slot: usize,
    pub(super) next_write: u64,
    pub(super) trust_from: u64,
    pub(super) extra: Option<Bytes>,
    regions: Vec<RegionSnapshot>,
    open: Vec<(RegionId, u32)>,
}

impl Checkpoint {
    /// Knows nothing, and leaves alone what is in `slot`.
    pub(super) fn none(slot: usize) -> Checkpoint {
        Checkpoint {
            sequence: 0,
            slot,
            next_write: 1,
            trust_from: 0,
            extra: None,
            regions: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The first granule of `region` that it can't speak for; `None` if it knows all of it.
    pub(super) fn unknown_from(&self, region: RegionId, now: &RegionEntry) -> Option<u32> {
        let then = self.regions.get(region.0 as usize);
        let Some(then) = then.filter(|then| then.generation == now.generation) else {
            return Some(0);
        };
        match then.state {
            RegionState::Sealed => None,
            RegionState::Open => {
                let noted = self.open.iter().find(|(open, _)| *open == region);
                Some(noted.map_or(0, |(_, granule)| *granule))
            }
            RegionState::Free | RegionState::Quarantined => Some(0),
        }
    }

    /// The place of `region` in the order of sealing, if it was sealed then and is the same still.
    pub(super) fn sealed(&self, region: RegionId, now: &RegionEntry) -> Option<u64> {
        let then = self.regions.get(region.0 as usize)?;
        let same = then.generation == now.generation && then.state == RegionState::Sealed;
        same.then_some(then.sealed)
    }

    /// Whether it knows of a change of a region that was in the table before it and is not there:
    /// the table has lost it. One that was being opened beside it need not be there yet.
    pub(super) fn is_ahead_of(&self, table: &[RegionEntry]) -> bool {
        let is_behind = |(then, now): (&RegionSnapshot, &RegionEntry)| match then.state {
            RegionState::Open => false,
            RegionState::Quarantined if now.state != RegionState::Quarantined => true,
            _ => then.generation > now.generation,
        };
        let is_ahead = self.regions.iter().zip(table).any(is_behind);
        if is_ahead {
            tracing::warn!("the region table is older than checkpoint {}", self.sequence);
        }
        is_ahead
    }

    /// Whether an entry of its index is true still.
    fn speaks_for(&self, entry: &Entry, table: &[RegionEntry], region_granules: u32) -> bool {
        let location = entry.location;
        let Some(now) = table.get(location.region.0 as usize) else { return false };
        let granule = u32::from(location.granule);
        let in_use = matches!(now.state, RegionState::Open | RegionState::Sealed);
        let inside = granule > 0 && granule + entry.shape.granules() <= region_granules;
        let known = self.unknown_from(location.region, now).is_none_or(|from| granule < from);
        in_use && inside && known
    }
}

/// Why a slot is of no use. All but what the device says: it is not as it was written.
#[derive(Debug)]
enum Bad {
    Missing(SectionKind),
    /// What is left of the section is less than is to be taken from it, or more.
    Length {
        kind: SectionKind,
        bytes: u64,
        wanted: u64,
    },
    Checksum {
        kind: SectionKind,
        found: u64,
        written: u64,
    },
    Region(FormatError),
    Preamble,
    Index(Misshapen),
    Device(DeviceError),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Missing(kind) => write!(f, "it has no section {kind:?}"),
            Bad::Length { kind, bytes, wanted } => {
                write!(f, "section {kind:?} has {bytes} bytes left where {wanted} are expected")
            }
            Bad::Checksum { kind, found, written } => {
                write!(f, "section {kind:?} has checksum {found:#x} instead of {written:#x}")
            }
            Bad::Region(fault) => fault.fmt(f),
            Bad::Preamble => f.write_str("it names more open regions than there can be"),
            Bad::Index(fault) => fault.fmt(f),
            Bad::Device(error) => error.fmt(f),
        }
    }
}

/// The newest good checkpoint, its index in a new ledger.
pub(super) async fn newest(
    reader: &Reader,
    table: &[RegionEntry],
    shape: LedgerShape,
) -> Result<Loaded, DeviceError> {
    let mut headers = Vec::new();
    let (mut newer_was_bad, mut unread, mut unused) = (false, None, false);
    for slot in 0..2 {
        let (name, at) = (&reader.name, reader.geometry.checkpoint(slot).start);
        let granules = match reader.granules(at, 1).await {
            Ok(granules) => granules,
            Err(error @ DeviceError::Failed(_)) => {
                tracing::warn!(
                    "volume {name}: the header of the checkpoint at byte {at} cannot be read: \
                     {error}"
                );
                (unread, newer_was_bad) = (Some(slot), true);
                continue;
            }
            Err(error) => return Err(error),
        };
        match CheckpointHeader::decode(granules.bytes(), reader.volume, &reader.geometry, slot) {
            Ok(header) => headers.push((header, slot)),
            Err(FormatError::NotAVolume) => unused = true,
            // A crash does not do this, a header lies in one sector: it may be the newest that is
            // damaged, and what it knew as replaced the other one brings back.
            Err(fault) => {
                tracing::warn!("volume {name}: checkpoint at byte {at}: {fault}");
                newer_was_bad = true;
            }
        }
    }
    headers.sort_by_key(|(header, _)| std::cmp::Reverse(header.sequence()));
    let highest = headers.first().map_or(0, |(header, _)| header.sequence());
    // From the second on they take turns: a slot that was never used is beside the first alone.
    if unused && highest > 1 {
        let name = &reader.name;
        tracing::warn!("volume {name}: the checkpoint beside number {highest} is not there");
        newer_was_bad = true;
    }
    // It may be read again later, and must not pass for the newest then.
    let highest = if unread.is_some() { highest.saturating_add(UNREAD_GAP) } else { highest };
    // The first is taken in slot 0.
    let newest_slot = headers.first().map(|(_, slot)| *slot).or(unread).unwrap_or(1);
    for (header, slot) in headers {
        let ledger = Ledger::new(shape);
        match load(reader, table, &header, slot, &ledger).await {
            Ok(checkpoint) => {
                let checkpoint = Some(checkpoint);
                return Ok(Loaded { checkpoint, ledger, newer_was_bad, highest, newest_slot });
            }
            Err(Bad::Device(error @ (DeviceError::Busy | DeviceError::Late))) => {
                return Err(error);
            }
            Err(why) => {
                // Its header was written last: all of it was right once.
                let (name, number) = (&reader.name, header.sequence());
                let at = reader.geometry.checkpoint(slot).start;
                let what =
                    if matches!(why, Bad::Device(_)) { "cannot be read" } else { "is damaged" };
                tracing::warn!("volume {name}: checkpoint {number} at byte {at} {what}: {why}");
                newer_was_bad = true;
            }
        }
    }
    Ok(Loaded { checkpoint: None, ledger: Ledger::new(shape), newer_was_bad, highest, newest_slot })
}

async fn load(
    reader: &Reader,
    table: &[RegionEntry],
    header: &CheckpointHeader,
    slot: usize,
    ledger: &Ledger,
) -> Result<Checkpoint, Bad> {
    let mut section = Section::open(reader, header, slot, SectionKind::Regions)?;
    let count = reader.geometry.regions() as usize;
    let bytes = section.take(count * REGION_SNAPSHOT_BYTES).await?.to_vec();
    section.end()?;
    let mut checkpoint = Checkpoint {
        sequence: header.sequence(),
        slot,
        next_write: header.next_write(),
        regions: Vec::with_capacity(count),
        ..Checkpoint::none(slot)
    };
    for region in bytes.as_chunks::<REGION_SNAPSHOT_BYTES>().0 {
        checkpoint.regions.push(RegionSnapshot::decode(region).map_err(Bad::Region)?);
    }

    let mut section = Section::open(reader, header, slot, SectionKind::Index)?;
    let preamble = Preamble::decode(section.take(PREAMBLE_BYTES).await?).ok_or(Bad::Preamble)?;
    let index = ledger.index();
    let (bytes, wanted) = (preamble.index_bytes, (index.shards() * index.shard_bytes()) as u64);
    if bytes != wanted {
        return Err(Bad::Length { kind: SectionKind::Index, bytes, wanted });
    }
    checkpoint.trust_from = preamble.trust_from;
    checkpoint.open = preamble.open;
    for shard in 0..index.shards() {
        let bytes = section.take(index.shard_bytes()).await?;
        let loaded = index.load(shard, bytes, |entry| {
            let keep = checkpoint.speaks_for(entry, table, reader.geometry.region_granules());
            if keep {
                ledger.count_loaded(entry);
            }
            keep
        });
        loaded.map_err(Bad::Index)?;
    }
    section.end()?;

    if header.section(SectionKind::Extra).is_some() {
        let mut section = Section::open(reader, header, slot, SectionKind::Extra)?;
        let length = section.left as usize;
        let extra = Bytes::copy_from_slice(section.take(length).await?);
        section.end()?;
        checkpoint.extra = (!extra.is_empty()).then_some(extra);
    }
    Ok(checkpoint)
}

/// A section that is being read, chunk by chunk.
struct Section<'a> {
    reader: &'a Reader,
    kind: SectionKind,
    at: u64,
    /// Bytes that were not taken yet.
    left: u64,
    /// Bytes that were not read yet.
    unread: u64,
    held: Vec<u8>,
    taken: usize,
    sum: SectionSum,
    checksum: u64,
}

impl<'a> Section<'a> {
    fn open(
        reader: &'a Reader,
        header: &CheckpointHeader,
        slot: usize,
        kind: SectionKind,
    ) -> Result<Section<'a>, Bad> {
        let section = header.section(kind).ok_or(Bad::Missing(kind))?;
        let length = section.place.end - section.place.start;
        Ok(Section {
            reader,
            kind,
            at: reader.geometry.checkpoint(slot).start + section.place.start,
            left: length,
            unread: length,
            held: Vec::new(),
            taken: 0,
            sum: SectionSum::new(reader.volume, header.sequence(), kind),
            checksum: section.checksum,
        })
    }

    /// The next `length` bytes.
    async fn take(&mut self, length: usize) -> Result<&[u8], Bad> {
        let (kind, bytes, wanted) = (self.kind, self.left, length as u64);
        if wanted > bytes {
            return Err(Bad::Length { kind, bytes, wanted });
        }
        if self.held.len() - self.taken < length {
            self.held.drain(..self.taken);
            self.taken = 0;
        }
        while self.held.len() - self.taken < length {
            let granules = self.unread.div_ceil(GRANULE_SIZE_BYTES);
            let count = granules.min(u64::from(CHUNK_GRANULES)) as u32;
            let chunk: Granules =
                self.reader.granules(self.at, count).await.map_err(Bad::Device)?;
            let useful = (chunk.bytes().len() as u64).min(self.unread);
            self.held.extend_from_slice(&chunk.bytes()[..useful as usize]);
            self.at += chunk.bytes().len() as u64;
            self.unread -= useful;
        }
        let bytes = &self.held[self.taken..self.taken + length];
        self.sum.update(bytes);
        self.taken += length;
        self.left -= length as u64;
        Ok(bytes)
    }

    /// `Ok` if all was taken, and was right.
    fn end(self) -> Result<(), Bad> {
        let (kind, found, written) = (self.kind, self.sum.checksum(), self.checksum);
        match (self.left, found == written) {
            (0, true) => Ok(()),
            (0, false) => Err(Bad::Checksum { kind, found, written }),
            (bytes, _) => Err(Bad::Length { kind, bytes, wanted: 0 }),
        }
    }
}
