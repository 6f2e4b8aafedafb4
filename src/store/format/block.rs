//! The header of a block record: which pieces of which block follow, and their checksums.
//!
//! The pieces follow in order from the next granule on, the last one padded with zeros to a
//! granule. A checksum does not depend on the place, so a record can be carried to another region.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};

use crate::limits::{PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::object::{BlockKey, PieceMap, VersionId};
use crate::store::device::Granules;
use crate::store::{ObjectHash, SiteHash};

use super::checksum::Checksum;
use super::frame::{self, Frame, GRANULE, kind};
use super::record::record_at;
use super::{FilledFor, FormatError, Spot};

const PIECE: usize = PIECE_SIZE_BYTES as usize;
const PIECES: usize = PIECES_PER_BLOCK_MAX as usize;
const PLANNED: u16 = 1;

/// Who the pieces belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLabel {
    /// The object whose version it is.
    pub object: ObjectHash,
    /// The object's site.
    pub site: SiteHash,
    /// Which block of which version.
    pub block: BlockKey,
    /// When the bytes were asked for, in microseconds of Unix time; kept when the record is carried
    /// on.
    pub birth: u64,
    /// The number of the write.
    pub sequence: u64,
    /// Why it was filled.
    pub filled_for: FilledFor,
}

/// The header of a block record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    label: BlockLabel,
    /// Not empty.
    pieces: PieceMap,
    /// Of all pieces together: only the last may be shorter than a piece.
    length_bytes: u32,
    checksums: [u64; PIECES],
}

impl BlockHeader {
    /// Of the pieces in `pieces`, whose bytes are `parts`, in order; each part begins with a piece
    /// and only the last piece of all may be short. `None` if the bytes do not match the map.
    ///
    /// Reads every byte once for the checksums.
    pub fn new(label: BlockLabel, pieces: PieceMap, parts: &[Bytes]) -> Option<BlockHeader> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let length_bytes = u32::try_from(length).ok().filter(|length| matches(pieces, *length))?;
        let mut checksums = [0; PIECES];
        let mut bytes = parts.iter().flat_map(|part| part.chunks(PIECE)).peekable();
        for piece in held(pieces) {
            let of_piece = bytes.next()?;
            if of_piece.len() < PIECE && bytes.peek().is_some() {
                return None;
            }
            checksums[piece as usize] = piece_checksum(label.block, piece, of_piece);
        }
        Some(BlockHeader { label, pieces, length_bytes, checksums })
    }

    /// Who the pieces belong to.
    pub fn label(&self) -> &BlockLabel {
        &self.label
    }

    /// Which pieces follow.
    pub fn pieces(&self) -> PieceMap {
        self.pieces
    }

    /// The bytes of all pieces together, without padding.
    pub fn length_bytes(&self) -> usize {
        self.length_bytes as usize
    }

    /// Granules of the whole record: this header and the pieces.
    pub fn granules(&self) -> u32 {
        1 + frame::granules_for(self.length_bytes())
    }

    /// Where piece `piece` lies among the pieces (so a granule later in the record), without
    /// padding; `None` if the record does not hold it.
    pub fn piece(&self, piece: u32) -> Option<Range<usize>> {
        if piece >= PIECES_PER_BLOCK_MAX || !self.pieces.holds(piece) {
            return None;
        }
        let before = (self.pieces.0 & ((1 << piece) - 1)).count_ones() as usize;
        let start = before * PIECE;
        Some(start..self.length_bytes().min(start + PIECE))
    }

    /// `Ok` if `bytes` are piece `piece` as it was written, without padding.
    ///
    /// # Errors
    /// `Checksum`, also for a piece that the record does not hold and for a wrong length.
    pub fn verify_piece(&self, piece: u32, bytes: &[u8]) -> Result<(), FormatError> {
        let range = self.piece(piece).ok_or(FormatError::Checksum { piece })?;
        let right = bytes.len() == range.len()
            && piece_checksum(self.label.block, piece, bytes) == self.checksums[piece as usize];
        right.then_some(()).ok_or(FormatError::Checksum { piece })
    }

    /// As it is written to `spot`; the pieces follow.
    pub fn encode(&self, spot: &Spot) -> Granules {
        let label = &self.label;
        let mut bytes = frame::begin();
        bytes.put_u64_le(label.sequence);
        bytes.put_slice(&label.block.version.to_bytes());
        bytes.put_u32_le(label.block.index);
        bytes.put_u16_le(self.pieces.0);
        bytes.put_u16_le(if label.filled_for == FilledFor::Planned { PLANNED } else { 0 });
        bytes.put_u128_le(label.object.0);
        bytes.put_u64_le(label.site.0);
        bytes.put_u64_le(label.birth);
        bytes.put_u32_le(self.length_bytes);
        bytes.put_u32_le(0);
        for checksum in self.checksums {
            bytes.put_u64_le(checksum);
        }
        frame::seal(bytes, kind::BLOCK, spot.address(), self.granules())
    }

    /// As it was read from `spot`; `bytes` is one granule at least.
    ///
    /// # Errors
    /// Anything but the header of a block record of this generation.
    pub fn decode(bytes: &[u8], spot: &Spot) -> Result<BlockHeader, FormatError> {
        let frame = record_at(bytes, spot)?;
        frame.is(kind::BLOCK)?;
        BlockHeader::parse(&frame)
    }

    pub(super) fn parse(frame: &Frame<'_>) -> Result<BlockHeader, FormatError> {
        let mut body = frame.body();
        let sequence = body.try_get_u64_le()?;
        let version = take_version(&mut body)?;
        let index = body.try_get_u32_le()?;
        let pieces = PieceMap(body.try_get_u16_le()?);
        let planned = body.try_get_u16_le()? & PLANNED != 0;
        let label = BlockLabel {
            object: ObjectHash(body.try_get_u128_le()?),
            site: SiteHash(body.try_get_u64_le()?),
            block: BlockKey { version, index },
            birth: body.try_get_u64_le()?,
            sequence,
            filled_for: if planned { FilledFor::Planned } else { FilledFor::Demand },
        };
        let length_bytes = body.try_get_u32_le()?;
        body.try_get_u32_le()?;
        let mut checksums = [0; PIECES];
        for checksum in &mut checksums {
            *checksum = body.try_get_u64_le()?;
        }
        let header = BlockHeader { label, pieces, length_bytes, checksums };
        if !matches(pieces, length_bytes) || header.granules() != frame.granules {
            let found = u64::from(length_bytes);
            return Err(FormatError::Invalid { what: "a block's length", found });
        }
        Ok(header)
    }
}

fn take_version(body: &mut &[u8]) -> Result<VersionId, FormatError> {
    let bytes = body.try_get_u128_le()?;
    let invalid = FormatError::Invalid { what: "a version", found: (bytes >> 64) as u64 };
    VersionId::from_bytes(bytes.to_le_bytes()).ok_or(invalid)
}

/// What a piece's checksum covers: whose it is, which, how long, and its bytes.
pub fn piece_checksum(block: BlockKey, piece: u32, bytes: &[u8]) -> u64 {
    let mut head = [0; 28];
    head[..16].copy_from_slice(&block.version.to_bytes());
    head[16..20].copy_from_slice(&block.index.to_le_bytes());
    head[20..24].copy_from_slice(&piece.to_le_bytes());
    head[24..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    let mut checksum = Checksum::new();
    checksum.update(&head);
    checksum.update(bytes);
    checksum.value()
}

/// The pieces of a map, in order.
fn held(pieces: PieceMap) -> impl Iterator<Item = u32> {
    (0..PIECES_PER_BLOCK_MAX).filter(move |piece| pieces.holds(*piece))
}

/// Whether pieces can have so many bytes together: all whole, but for the last.
fn matches(pieces: PieceMap, length_bytes: u32) -> bool {
    let whole = pieces.count() * PIECE as u32;
    pieces.count() > 0 && length_bytes <= whole && length_bytes > whole - PIECE as u32
}

const _: () = assert!(PIECE.is_multiple_of(GRANULE));
