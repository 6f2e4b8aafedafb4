//! What everything on a volume but a piece is wrapped in: who it belongs to, where, and a checksum.
//!
//! Sixty-four bytes, then the body. The checksum covers the whole frame but itself. It is checked
//! first: what the rest says is believed only then.

use bytes::Buf;

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::Granules;

use super::checksum::Checksum;
use super::{FormatError, VolumeId};

pub(super) const MAGIC: [u8; 8] = *b"TIDEGATE";
/// Bytes before the body.
pub(super) const HEAD_BYTES: usize = 64;
pub(super) const GRANULE: usize = GRANULE_SIZE_BYTES as usize;
const CHECKSUM: std::ops::Range<usize> = 8..16;

pub(super) mod kind {
    pub(in super::super) const SUPERBLOCK: u16 = 1;
    pub(in super::super) const TABLE_PAGE: u16 = 2;
    pub(in super::super) const REGION_HEADER: u16 = 3;
    pub(in super::super) const FOOTER: u16 = 4;
    pub(in super::super) const CHECKPOINT: u16 = 5;
    /// Kinds from here on are records: an unknown one is skipped by its granules.
    pub(in super::super) const RECORDS_START: u16 = 16;
    pub(in super::super) const BLOCK: u16 = 16;
    pub(in super::super) const PACKET: u16 = 17;
}

/// Who a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) volume: VolumeId,
    /// In bytes of the volume; in a region, its number (upper half) and the granule in it.
    pub(super) place: u64,
    /// Of the region; elsewhere the number of the write.
    pub(super) generation: u64,
}

/// A frame whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) address: Address,
    /// What it takes on the volume, with all that belongs to it; at least what the frame needs.
    pub(super) granules: u32,
    /// Head included.
    pub(super) bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that `bytes` begin with.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Frame<'a>, FormatError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(FormatError::Short { needs_bytes: HEAD_BYTES });
        };
        if head[..8] != MAGIC {
            let empty = is_empty(bytes);
            return Err(if empty { FormatError::NotAVolume } else { FormatError::Foreign });
        }
        let mut fields = &head[8..];
        let checksum = fields.try_get_u64_le()?;
        let length = fields.try_get_u32_le()? as usize;
        if length < HEAD_BYTES {
            return Err(FormatError::Torn);
        }
        let bytes = bytes.get(..length).ok_or(FormatError::Short { needs_bytes: length })?;
        if checksum_of(bytes) != checksum {
            return Err(FormatError::Torn);
        }
        let kind = fields.try_get_u16_le()?;
        fields.advance(2);
        let volume = VolumeId(fields.try_get_u128_le()?);
        let place = fields.try_get_u64_le()?;
        let generation = fields.try_get_u64_le()?;
        let granules = fields.try_get_u32_le()?;
        if (granules as usize) < length.div_ceil(GRANULE) {
            let found = granules.into();
            return Err(FormatError::Invalid { what: "the number of granules", found });
        }
        Ok(Frame { kind, address: Address { volume, place, generation }, granules, bytes })
    }

    /// `Ok` if it was written for this volume and this place.
    pub(super) fn belongs(&self, volume: VolumeId, place: u64) -> Result<(), FormatError> {
        if self.address.volume != volume {
            return Err(FormatError::AnotherVolume { found: self.address.volume });
        }
        if self.address.place != place {
            return Err(FormatError::WrongPlace { found: self.address.place });
        }
        Ok(())
    }

    /// `Ok` if it is of this kind.
    pub(super) fn is(&self, kind: u16) -> Result<(), FormatError> {
        if self.kind != kind {
            return Err(FormatError::WrongKind { found: self.kind });
        }
        Ok(())
    }

    pub(super) fn body(&self) -> &'a [u8] {
        &self.bytes[HEAD_BYTES..]
    }
}

/// Whether the first granule, or what there is of it, is zero. What comes later is not looked at:
/// who scans a region asks this of every granule.
pub(super) fn is_empty(bytes: &[u8]) -> bool {
    const ZEROS: [u8; GRANULE] = [0; GRANULE];
    let length = bytes.len().min(GRANULE);
    bytes[..length] == ZEROS[..length]
}

/// Begins a frame: what comes after its head is put behind it.
pub(super) fn begin() -> Vec<u8> {
    vec![0; HEAD_BYTES]
}

/// Whole granules with the frame, padded with zeros. `granules` counts what belongs to it too.
pub(super) fn seal(mut frame: Vec<u8>, kind: u16, address: Address, granules: u32) -> Granules {
    let length = u32::try_from(frame.len()).expect("a frame is far smaller than 4 GiB");
    frame[..8].copy_from_slice(&MAGIC);
    frame[16..20].copy_from_slice(&length.to_le_bytes());
    frame[20..22].copy_from_slice(&kind.to_le_bytes());
    frame[24..40].copy_from_slice(&address.volume.0.to_le_bytes());
    frame[40..48].copy_from_slice(&address.place.to_le_bytes());
    frame[48..56].copy_from_slice(&address.generation.to_le_bytes());
    frame[56..60].copy_from_slice(&granules.to_le_bytes());
    let checksum = checksum_of(&frame);
    frame[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    Granules::holding(&frame)
}

/// The granules that `bytes` need.
pub(super) fn granules_for(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(GRANULE)).expect("nothing here is near 16 TiB")
}

/// Writes the right checksum into what claims to be a frame; for what makes up frames.
pub(super) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < HEAD_BYTES {
        return;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    let length = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes")) as usize;
    if let Some(frame) = bytes.get_mut(..length).filter(|frame| frame.len() >= HEAD_BYTES) {
        let checksum = checksum_of(frame);
        frame[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn checksum_of(frame: &[u8]) -> u64 {
    let mut checksum = Checksum::new();
    checksum.update(&frame[..CHECKSUM.start]);
    checksum.update(&frame[CHECKSUM.end..]);
    checksum.value()
}
