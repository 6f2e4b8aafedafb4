//! A region's footer: what its records are, so that they need not be read to find them again.
//!
//! It ends with its region. Its last sixteen bytes say how many granules it has, so that who has
//! read the end of a region knows where the footer begins.

use bytes::{Buf, BufMut};

use crate::limits::PIECE_GRANULES;
use crate::object::{BlockKey, PieceMap, VersionId};
use crate::store::device::Granules;
use crate::store::{ObjectHash, SiteHash};

use super::frame::{self, Frame, GRANULE, HEAD_BYTES, kind};
use super::{BlockHeader, FilledFor, FormatError, HeadLabel, Spot};

const FIELDS_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;
const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: [u8; 8] = *b"TIDEFOOT";
const BLOCK: u8 = 1;
const HEAD: u8 = 2;
const TOMBSTONE: u8 = 3;

/// What a record is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// Pieces of a block.
    Block {
        /// Which block.
        block: BlockKey,
        /// Which pieces of it.
        pieces: PieceMap,
        /// Why they were filled.
        filled_for: FilledFor,
    },
    /// A head.
    Head {
        /// Of this object.
        object: ObjectHash,
    },
    /// The end of an object's head.
    Tombstone {
        /// Of this object.
        object: ObjectHash,
    },
}

/// One record; of a packet, one of its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterEntry {
    /// Where the record begins in its region.
    pub granule: u32,
    /// What the record takes; of a packet, all of it.
    pub granules: u32,
    /// Whose it is.
    pub site: SiteHash,
    /// The number of the write.
    pub sequence: u64,
    /// What it is found by.
    pub indexed: Indexed,
}

/// What a sealed region holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// What the region was written with.
    pub filled_for: FilledFor,
    /// When it was sealed, as the region table has it.
    pub sealed: u64,
    /// Its records.
    pub entries: Vec<FooterEntry>,
}

impl Footer {
    /// Granules that a footer of so many entries takes: what is to be kept free at the end.
    pub fn granules_for(entries: usize) -> u32 {
        let bytes = HEAD_BYTES + FIELDS_BYTES + entries * ENTRY_BYTES + TRAILER_BYTES;
        frame::granules_for(bytes)
    }

    /// Granules it takes.
    pub fn granules(&self) -> u32 {
        Footer::granules_for(self.entries.len())
    }

    /// As it is written to `spot`, which is so many granules before the end of the region.
    ///
    /// # Panics
    /// If `spot` is elsewhere.
    pub fn encode(&self, spot: &Spot) -> Granules {
        let granules = self.granules();
        assert_eq!(spot.room(), granules, "a footer ends with its region");
        let mut bytes = frame::begin();
        bytes.put_u32_le(self.entries.len() as u32);
        bytes.put_u16_le(ENTRY_BYTES as u16);
        bytes.put_u8(self.filled_for.to_byte());
        bytes.put_u8(0);
        bytes.put_u64_le(self.sealed);
        for entry in &self.entries {
            entry.encode(&mut bytes);
        }
        bytes.resize(granules as usize * GRANULE - TRAILER_BYTES, 0);
        bytes.put_slice(&TRAILER_MAGIC);
        bytes.put_u32_le(granules);
        bytes.put_u32_le(!granules);
        frame::seal(bytes, kind::FOOTER, spot.address(), granules)
    }

    /// The footer that ends with `tail`, the last granules of a region; `last` is the spot of the
    /// last one.
    ///
    /// # Errors
    /// `Short` if the footer begins before `tail`; anything but the footer of this generation.
    pub fn decode(tail: &[u8], last: &Spot) -> Result<Footer, FormatError> {
        let granules = granules_told(tail, last)?;
        let needs_bytes = granules as usize * GRANULE;
        let start =
            tail.len().checked_sub(needs_bytes).ok_or(FormatError::Short { needs_bytes })?;
        let frame = Frame::open(&tail[start..])?;
        frame.is(kind::FOOTER)?;
        let first = last.granule() + 1 - granules;
        frame.belongs(last.volume(), u64::from(last.region()) << 32 | u64::from(first))?;
        if frame.address.generation != last.generation() {
            return Err(FormatError::WrongGeneration { found: frame.address.generation });
        }
        let mut body = frame.body();
        let count = body.try_get_u32_le()?;
        let entry_bytes = usize::from(body.try_get_u16_le()?);
        let filled_for = FilledFor::from_byte(body.try_get_u8()?)?;
        body.try_get_u8()?;
        let sealed = body.try_get_u64_le()?;
        if entry_bytes < ENTRY_BYTES || count as usize > body.len() / entry_bytes {
            let found = count.into();
            return Err(FormatError::Invalid { what: "the number of a footer's entries", found });
        }
        let mut entries = Vec::with_capacity(count as usize);
        for bytes in body.chunks_exact(entry_bytes).take(count as usize) {
            entries.extend(FooterEntry::decode(bytes, first)?);
        }
        Ok(Footer { filled_for, sealed, entries })
    }
}

impl FooterEntry {
    /// Of the block record that begins at `granule`.
    pub fn of_block(granule: u32, header: &BlockHeader) -> FooterEntry {
        let (label, pieces) = (header.label(), header.pieces());
        let indexed = Indexed::Block { block: label.block, pieces, filled_for: label.filled_for };
        let (granules, site, sequence) = (header.granules(), label.site, label.sequence);
        FooterEntry { granule, granules, site, sequence, indexed }
    }

    /// Of a head in the packet of `granules` that begins at `granule`.
    pub fn of_head(granule: u32, granules: u32, label: &HeadLabel) -> FooterEntry {
        let HeadLabel { object, site, sequence, .. } = *label;
        FooterEntry { granule, granules, site, sequence, indexed: Indexed::Head { object } }
    }

    /// Of the end of a head in that packet.
    pub fn of_tombstone(granule: u32, granules: u32, label: &HeadLabel) -> FooterEntry {
        let indexed = Indexed::Tombstone { object: label.object };
        FooterEntry { indexed, ..FooterEntry::of_head(granule, granules, label) }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let (kind, planned, pieces, index, key) = match self.indexed {
            Indexed::Block { block, pieces, filled_for } => {
                (BLOCK, filled_for.to_byte(), pieces.0, block.index, block.version.to_bytes())
            }
            Indexed::Head { object } => (HEAD, 0, 0, 0, object.0.to_le_bytes()),
            Indexed::Tombstone { object } => (TOMBSTONE, 0, 0, 0, object.0.to_le_bytes()),
        };
        bytes.put_u8(kind);
        bytes.put_u8(planned);
        bytes.put_u16_le(pieces);
        bytes.put_u32_le(self.granule);
        bytes.put_u32_le(self.granules);
        bytes.put_u32_le(index);
        bytes.put_slice(&key);
        bytes.put_u64_le(self.sequence);
        bytes.put_u64_le(self.site.0);
    }

    /// `None` for a kind that a later version has added. Records end before `end`.
    fn decode(mut bytes: &[u8], end: u32) -> Result<Option<FooterEntry>, FormatError> {
        let (kind, planned) = (bytes.try_get_u8()?, bytes.try_get_u8()?);
        let pieces = PieceMap(bytes.try_get_u16_le()?);
        let (granule, granules) = (bytes.try_get_u32_le()?, bytes.try_get_u32_le()?);
        let index = bytes.try_get_u32_le()?;
        let key = bytes.try_get_u128_le()?;
        let (sequence, site) = (bytes.try_get_u64_le()?, SiteHash(bytes.try_get_u64_le()?));
        let invalid = |found| FormatError::Invalid { what: "a footer's entry", found };
        let indexed = match kind {
            BLOCK => {
                let version = VersionId::from_bytes(key.to_le_bytes());
                let version = version.ok_or_else(|| invalid((key >> 64) as u64))?;
                // A header, whole pieces, and a last one of a granule at least.
                let whole = pieces.count() * PIECE_GRANULES;
                let least = (whole + 2).saturating_sub(PIECE_GRANULES);
                if pieces.count() == 0 || granules < least || granules > whole + 1 {
                    return Err(invalid(granules.into()));
                }
                let filled_for = FilledFor::from_byte(planned)?;
                Indexed::Block { block: BlockKey { version, index }, pieces, filled_for }
            }
            HEAD => Indexed::Head { object: ObjectHash(key) },
            TOMBSTONE => Indexed::Tombstone { object: ObjectHash(key) },
            _ => return Ok(None),
        };
        let inside = granule.checked_add(granules).is_some_and(|after| after <= end);
        if granule == 0 || granules == 0 || !inside {
            return Err(invalid(granule.into()));
        }
        Ok(Some(FooterEntry { granule, granules, site, sequence, indexed }))
    }
}

/// What the end of `tail` says of the footer's length.
fn granules_told(tail: &[u8], last: &Spot) -> Result<u32, FormatError> {
    if tail.len() < GRANULE {
        return Err(FormatError::Short { needs_bytes: GRANULE });
    }
    let mut trailer = &tail[tail.len() - TRAILER_BYTES..];
    if trailer[..8] != TRAILER_MAGIC {
        let empty = trailer.iter().all(|byte| *byte == 0);
        return Err(if empty { FormatError::NotAVolume } else { FormatError::Foreign });
    }
    trailer.advance(8);
    let (granules, inverse) = (trailer.try_get_u32_le()?, trailer.try_get_u32_le()?);
    let inside = granules > 0 && granules <= last.granule();
    if granules != !inverse || !inside {
        return Err(FormatError::Torn);
    }
    Ok(granules)
}
