//! A checkpoint: what is known of every region, the index, and what the caller keeps with it.
//!
//! A header of one granule says which sections follow and how long each is; each begins at the
//! next granule and has a checksum of its own, so that it can be written and read as a stream. The
//! header is written last. A section of a kind that is not known is skipped.

use std::ops::Range;

use bytes::{Buf, BufMut};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::Granules;

use super::checksum::Checksum;
use super::frame::{self, Address, Frame, kind};
use super::{FilledFor, FormatError, Geometry, RegionState, VolumeId};

/// What one region takes in the section of regions.
pub const REGION_SNAPSHOT_BYTES: usize = 24;
const SECTION_BYTES: usize = 24;
/// More than there will be.
const SECTIONS_MAX: u16 = 64;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// A [`RegionSnapshot`] for each region, in order.
    Regions,
    /// The index, as it lays itself out.
    Index,
    /// What the caller keeps.
    Extra,
}

impl SectionKind {
    fn to_number(self) -> u16 {
        match self {
            SectionKind::Regions => 1,
            SectionKind::Index => 2,
            SectionKind::Extra => 3,
        }
    }

    fn from_number(number: u16) -> Option<SectionKind> {
        match number {
            1 => Some(SectionKind::Regions),
            2 => Some(SectionKind::Index),
            3 => Some(SectionKind::Extra),
            _ => None,
        }
    }
}

/// Where a section lies and what its checksum is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// In bytes from the start of the slot, without padding.
    pub place: Range<u64>,
    /// As [`SectionSum`] reckons it.
    pub checksum: u64,
}

/// What stands in the first granule of a checkpoint's slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    sequence: u64,
    next_write: u64,
    sections: Vec<Section>,
    /// Where the next section would begin.
    end: u64,
    slot_bytes: u64,
}

impl CheckpointHeader {
    /// Without sections yet. `next_write` is higher than the number of any record it tells of.
    pub fn new(geometry: &Geometry, sequence: u64, next_write: u64) -> CheckpointHeader {
        let slot = geometry.checkpoint(0);
        CheckpointHeader {
            sequence,
            next_write,
            sections: Vec::new(),
            end: GRANULE_SIZE_BYTES,
            slot_bytes: slot.end - slot.start,
        }
    }

    /// The number of the checkpoint: the higher one of the two slots counts.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of the first write after it.
    pub fn next_write(&self) -> u64 {
        self.next_write
    }

    /// Bytes that are left for the next section.
    pub fn room_bytes(&self) -> u64 {
        self.slot_bytes - self.end
    }

    /// Adds a section of `length_bytes` and says where it goes, in bytes from the start of the
    /// slot; `None` if it does not fit, or if there is one of its kind.
    pub fn push(&mut self, kind: SectionKind, length_bytes: u64, checksum: u64) -> Option<u64> {
        if length_bytes > self.room_bytes() || self.section(kind).is_some() {
            return None;
        }
        let start = self.end;
        let place = start..start + length_bytes;
        self.end = place.end.next_multiple_of(GRANULE_SIZE_BYTES);
        self.sections.push(Section { kind, place, checksum });
        Some(start)
    }

    /// The section of this kind.
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// As it is written to the start of slot `slot`, after its sections.
    pub fn encode(&self, volume: VolumeId, geometry: &Geometry, slot: usize) -> Granules {
        let mut bytes = frame::begin();
        bytes.put_u64_le(self.next_write);
        bytes.put_u16_le(self.sections.len() as u16);
        bytes.put_bytes(0, 6);
        for section in &self.sections {
            bytes.put_u16_le(section.kind.to_number());
            bytes.put_bytes(0, 6);
            bytes.put_u64_le(section.place.end - section.place.start);
            bytes.put_u64_le(section.checksum);
        }
        let place = geometry.checkpoint(slot).start;
        let address = Address { volume, place, generation: self.sequence };
        frame::seal(bytes, kind::CHECKPOINT, address, 1)
    }

    /// As it was read from the start of slot `slot`. Its sections are not checked yet.
    ///
    /// # Errors
    /// Anything but a checkpoint of this volume in this slot.
    pub fn decode(
        bytes: &[u8],
        volume: VolumeId,
        geometry: &Geometry,
        slot: usize,
    ) -> Result<CheckpointHeader, FormatError> {
        let frame = Frame::open(bytes)?;
        frame.is(kind::CHECKPOINT)?;
        frame.belongs(volume, geometry.checkpoint(slot).start)?;
        let mut body = frame.body();
        let next_write = body.try_get_u64_le()?;
        let count = body.try_get_u16_le()?;
        let invalid = |found| FormatError::Invalid { what: "a checkpoint's section", found };
        if count > SECTIONS_MAX {
            return Err(invalid(count.into()));
        }
        let mut sections = body.get(6..).ok_or_else(|| invalid(body.len() as u64))?;
        let mut header = CheckpointHeader::new(geometry, frame.address.generation, next_write);
        for _ in 0..count {
            let (mut section, rest) =
                sections.split_at_checked(SECTION_BYTES).ok_or_else(|| invalid(count.into()))?;
            sections = rest;
            let kind = SectionKind::from_number(section.get_u16_le());
            section.advance(6);
            let (length_bytes, checksum) = (section.get_u64_le(), section.get_u64_le());
            match kind {
                Some(kind) => {
                    let at = header.push(kind, length_bytes, checksum);
                    at.ok_or_else(|| invalid(length_bytes))?;
                }
                None if length_bytes > header.room_bytes() => return Err(invalid(length_bytes)),
                None => header.end += length_bytes.next_multiple_of(GRANULE_SIZE_BYTES),
            }
        }
        Ok(header)
    }
}

/// Reckons a section's checksum from its bytes as they come. Covers whose it is too, so that a
/// section left from another checkpoint is not taken for one of this.
pub struct SectionSum(Checksum);

impl SectionSum {
    /// Before the first byte.
    pub fn new(volume: VolumeId, sequence: u64, kind: SectionKind) -> SectionSum {
        let mut sum = Checksum::new();
        sum.update(&volume.0.to_le_bytes());
        sum.update(&sequence.to_le_bytes());
        sum.update(&kind.to_number().to_le_bytes());
        SectionSum(sum)
    }

    /// The next bytes; padding is not among them.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// After the last byte.
    pub fn checksum(&self) -> u64 {
        self.0.value()
    }
}

/// What a checkpoint knows of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSnapshot {
    /// The generation: what the index says of the region is true of this one only.
    pub generation: u64,
    /// When it was sealed; 0 unless it was.
    pub sealed: u64,
    /// Granules of records that were used, as reclaim counts them.
    pub used_granules: u32,
    /// What it was used for.
    pub state: RegionState,
    /// What it was written with.
    pub filled_for: FilledFor,
}

impl RegionSnapshot {
    /// As it stands in the section of regions.
    pub fn encode(&self) -> [u8; REGION_SNAPSHOT_BYTES] {
        let mut bytes = [0; REGION_SNAPSHOT_BYTES];
        let mut fields = bytes.as_mut_slice();
        fields.put_u64_le(self.generation);
        fields.put_u64_le(self.sealed);
        fields.put_u32_le(self.used_granules);
        fields.put_u8(self.state.to_byte());
        fields.put_u8(self.filled_for.to_byte());
        bytes
    }

    /// As it stood in the section of regions.
    ///
    /// # Errors
    /// A state, or something to be filled for, that there is not.
    pub fn decode(bytes: &[u8; REGION_SNAPSHOT_BYTES]) -> Result<RegionSnapshot, FormatError> {
        let mut fields = bytes.as_slice();
        Ok(RegionSnapshot {
            generation: fields.try_get_u64_le()?,
            sealed: fields.try_get_u64_le()?,
            used_granules: fields.try_get_u32_le()?,
            state: RegionState::from_byte(fields.try_get_u8()?)?,
            filled_for: FilledFor::from_byte(fields.try_get_u8()?)?,
        })
    }
}
