//! What one region holds: by its footer, or record by record with every checksum.
//!
//! Not the walk by which a volume is opened (`store/volume/scan.rs`), which reads by windows, drops
//! what is not whole and goes on: here each piece that is wrong has to be told apart and named, and
//! what was written is judged by other code than wrote it.

use std::collections::{HashMap, HashSet};

use super::{Fault, Part, READ_BYTES, Survey, fault, read};
use crate::limits::{GRANULE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::store::device::{DeviceError, Disk, Granules};
use crate::store::format::{
    BlockHeader, Footer, FormatError, Indexed, Record, RegionEntry, RegionHeader, RegionState, Spot,
};

const GRANULE: usize = GRANULE_SIZE_BYTES as usize;

/// What a region holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Block records.
    pub blocks: u64,
    /// Heads.
    pub heads: u64,
    /// Ends of heads.
    pub tombstones: u64,
    /// Records of a later version, skipped.
    pub unknown: u64,
    /// Granules of all those.
    pub granules: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// What a crash or a failed write left of records where a region was left open: no checkpoint
    /// knows of them.
    pub torn: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Contents {
    /// Adds what another region holds.
    pub fn add(&mut self, other: Contents) {
        self.blocks += other.blocks;
        self.heads += other.heads;
        self.tombstones += other.tombstones;
        self.unknown += other.unknown;
        self.granules += other.granules;
        self.read_bytes += other.read_bytes;
        self.torn += other.torn;
        self.faults.extend(other.faults);
    }
}

/// What the footer of a sealed region says; quick, and nothing of it is checked.
///
/// # Errors
/// The footer, as what is wrong.
pub async fn contents_by_footer(
    disk: &Disk,
    survey: &Survey,
    region: u32,
) -> Result<Contents, Fault> {
    footer_of(disk, survey, region).await.map(|footer| told(&footer))
}

async fn footer_of(disk: &Disk, survey: &Survey, region: u32) -> Result<Footer, Fault> {
    let granules = survey.superblock.geometry().region_granules();
    let last = spot(survey, region, granules - 1);
    let wrong = |error: &dyn std::fmt::Display| fault(last.at(), Part::Footer(region), error);
    let mut tail_granules = 1;
    loop {
        let at = last.at() + GRANULE_SIZE_BYTES - tail_granules * GRANULE_SIZE_BYTES;
        let tail = read(disk, at, tail_granules * GRANULE_SIZE_BYTES).await;
        let tail = tail.map_err(|error| wrong(&error))?;
        match Footer::decode(tail.bytes(), &last) {
            Ok(footer) => return Ok(footer),
            Err(FormatError::Short { needs_bytes }) if tail_granules == 1 => {
                tail_granules = needs_bytes.div_ceil(GRANULE) as u64;
            }
            Err(error) => return Err(wrong(&error)),
        }
    }
}

/// Where a copy of the table's page is damaged, a region tells of itself what may be news: how it
/// was opened last, and whether it was sealed then. So does a start (`store/volume/recovery.rs`).
pub(super) async fn ask(disk: &Disk, survey: &mut Survey, region: u32) {
    let (at, known) = (spot(survey, region, 0).at(), survey.regions[region as usize]);
    let header = match read(disk, at, GRANULE_SIZE_BYTES).await {
        Ok(bytes) => RegionHeader::decode(bytes.bytes(), survey.superblock.id(), region),
        Err(error) => {
            survey.faults.push(fault(at, Part::RegionHeader(region), &error));
            survey.regions[region as usize].state = RegionState::Quarantined;
            return;
        }
    };
    let Ok(header) = header else { return };
    if header.generation <= known.generation {
        return;
    }
    survey.regions[region as usize] = RegionEntry {
        generation: header.generation,
        state: RegionState::Open,
        filled_for: header.filled_for,
        sealed: 0,
    };
    if let Ok(footer) = footer_of(disk, survey, region).await {
        let entry = &mut survey.regions[region as usize];
        (entry.state, entry.sealed) = (RegionState::Sealed, footer.sealed);
    }
}

fn told(footer: &Footer) -> Contents {
    let mut contents = Contents::default();
    let mut packets = HashMap::new();
    for entry in &footer.entries {
        match entry.indexed {
            Indexed::Block { .. } => contents.blocks += 1,
            Indexed::Head { .. } => contents.heads += 1,
            Indexed::Tombstone { .. } => contents.tombstones += 1,
        }
        // A packet is told of once for each of its heads.
        packets.insert(entry.granule, u64::from(entry.granules));
    }
    contents.granules = packets.values().sum();
    contents
}

/// Reads all of a region that is open or sealed and checks every checksum. Dropping it midway is
/// safe.
pub async fn check_region(disk: &Disk, survey: &Survey, region: u32) -> Contents {
    let mut contents = Contents::default();
    let bytes = whole(disk, survey, region, &mut contents).await;
    let entry = survey.regions[region as usize];
    let first = spot(survey, region, 0);
    let sealed = entry.state == RegionState::Sealed;
    let last = spot(survey, region, survey.superblock.geometry().region_granules() - 1);
    let footer = match Footer::decode(&bytes, &last) {
        Ok(footer) => Some(footer),
        Err(error) => {
            // The table is told with its next page.
            if sealed {
                contents.faults.push(fault(last.at(), Part::Footer(region), &error));
            }
            None
        }
    };
    let found = walk(survey, region, &bytes, footer.as_ref(), &mut contents);
    let wrong = match RegionHeader::decode(&bytes[..GRANULE], survey.superblock.id(), region) {
        Ok(header) if header.generation != entry.generation => {
            Some(FormatError::WrongGeneration { found: header.generation })
        }
        header => header.err(),
    };
    // It is on its way together with the page of the table, before any record.
    let is_new = footer.is_none() && found.is_empty() && !sealed;
    match wrong {
        Some(FormatError::WrongGeneration { found }) if is_new && found < entry.generation => {}
        Some(FormatError::NotAVolume) if is_new => {}
        Some(error) => {
            contents.faults.push(fault(first.at(), Part::RegionHeader(region), &error));
        }
        None => {}
    }
    for missing in footer.iter().flat_map(|footer| &footer.entries) {
        if !found.contains_key(&missing.granule) {
            let at = first.at() + u64::from(missing.granule) * GRANULE_SIZE_BYTES;
            let why = "the footer names it, and it is not there";
            contents.faults.push(fault(at, Part::Record(region), &why));
        }
    }
    contents.faults.sort_by_key(|fault| fault.at);
    contents.faults.dedup_by(|later, earlier| later.at == earlier.at);
    contents
}

/// Every byte of a region; what cannot be read is reported, and is zero.
async fn whole(disk: &Disk, survey: &Survey, region: u32, contents: &mut Contents) -> Vec<u8> {
    let region_bytes = survey.superblock.geometry().region_bytes();
    let start = spot(survey, region, 0).at();
    let mut bytes = vec![0; region_bytes as usize];
    let parts = bytes.chunks_mut(READ_BYTES as usize);
    for (part, at) in parts.zip((start..).step_by(READ_BYTES as usize)) {
        match read(disk, at, part.len() as u64).await {
            Ok(read) => part.copy_from_slice(&read.bytes()[..part.len()]),
            Err(error) => read_by_granules(disk, at, part, &error, region, contents).await,
        }
    }
    contents.read_bytes += region_bytes;
    bytes
}

/// A bad sector takes a granule with it, not a mebibyte.
async fn read_by_granules(
    disk: &Disk,
    start: u64,
    bytes: &mut [u8],
    first_error: &DeviceError,
    region: u32,
    contents: &mut Contents,
) {
    let mut failed = false;
    for (granule, at) in bytes.chunks_mut(GRANULE).zip((start..).step_by(GRANULE)) {
        let read: Result<Granules, _> = read(disk, at, GRANULE_SIZE_BYTES).await;
        match read {
            Ok(read) => granule.copy_from_slice(read.bytes()),
            Err(error) => {
                failed = true;
                contents.faults.push(fault(at, Part::Record(region), &error));
            }
        }
    }
    if !failed {
        let why = format!("{first_error}, and at the second attempt could be read");
        contents.faults.push(fault(start, Part::Record(region), &why));
    }
}

/// Counts and checks the records of a region: where each begins, and what it takes.
fn walk(
    survey: &Survey,
    region: u32,
    bytes: &[u8],
    footer: Option<&Footer>,
    contents: &mut Contents,
) -> HashMap<u32, u32> {
    let mut found = HashMap::new();
    let end = bytes.len() / GRANULE - footer.map_or(0, |footer| footer.granules() as usize);
    let named: Option<HashSet<u32>> =
        footer.map(|footer| footer.entries.iter().map(|entry| entry.granule).collect());
    let known_to = survey.noted.get(&region).copied().unwrap_or(0);
    let is_open = survey.regions[region as usize].state == RegionState::Open;
    let mut granule = 1;
    while granule < end {
        let here = spot(survey, region, granule as u32);
        let rest = &bytes[granule * GRANULE..end * GRANULE];
        let record = match record_at(rest, &here) {
            Ok(record) => record,
            Err(FormatError::Torn | FormatError::Invalid { .. }) => {
                contents.torn += 1;
                granule += 1;
                continue;
            }
            // Zeros, or what an earlier lap has left.
            Err(_) => {
                granule += 1;
                continue;
            }
        };
        if let Some(why) = check(&record, rest) {
            // Its header arrived, and its pieces did not. So does a start: it is left out.
            if footer.is_none() && is_open && here.granule() >= known_to {
                contents.torn += 1;
                granule += 1;
                continue;
            }
            if named.as_ref().is_none_or(|named| named.contains(&here.granule())) {
                contents.faults.push(fault(here.at(), Part::Record(region), &why));
            }
        }
        found.insert(here.granule(), record.granules());
        count(&record, contents);
        granule += record.granules().max(1) as usize;
    }
    found
}

/// The record that begins here, from no more bytes than it has: most granules have none.
fn record_at<'a>(rest: &'a [u8], here: &Spot) -> Result<Record<'a>, FormatError> {
    match Record::decode(&rest[..GRANULE], here) {
        Err(FormatError::Short { needs_bytes }) => {
            Record::decode(rest.get(..needs_bytes).ok_or(FormatError::Torn)?, here)
        }
        decoded => decoded,
    }
}

fn count(record: &Record<'_>, contents: &mut Contents) {
    contents.granules += u64::from(record.granules());
    match record {
        Record::Block(_) => contents.blocks += 1,
        Record::Heads(packet) => {
            let tombstones = packet.heads().filter(|head| head.is_tombstone()).count() as u64;
            contents.tombstones += tombstones;
            contents.heads += packet.heads().count() as u64 - tombstones;
        }
        Record::Unknown { .. } => contents.unknown += 1,
    }
}

/// What is wrong with the pieces of a block; a packet's checksum was right when it was decoded.
fn check(record: &Record<'_>, bytes: &[u8]) -> Option<String> {
    let Record::Block(header) = record else { return None };
    let pieces = bytes.get(GRANULE..header.granules() as usize * GRANULE);
    let Some(pieces) = pieces else { return Some("it goes on beyond its region".to_owned()) };
    let wrong: Vec<String> = wrong_pieces(header, pieces).map(|n| n.to_string()).collect();
    (!wrong.is_empty()).then(|| {
        let several = if wrong.len() > 1 { "s" } else { "" };
        format!("wrong checksum of piece{several} {}", wrong.join(", "))
    })
}

fn wrong_pieces(header: &BlockHeader, bytes: &[u8]) -> impl Iterator<Item = u32> {
    (0..PIECES_PER_BLOCK_MAX).filter(|piece| {
        let range = header.piece(*piece);
        range.is_some_and(|range| {
            bytes.get(range).is_none_or(|bytes| header.verify_piece(*piece, bytes).is_err())
        })
    })
}

fn spot(survey: &Survey, region: u32, granule: u32) -> Spot {
    let generation = survey.regions[region as usize].generation;
    let spot =
        survey.superblock.geometry().spot(survey.superblock.id(), region, granule, generation);
    spot.expect("the region table names regions that there are")
}
