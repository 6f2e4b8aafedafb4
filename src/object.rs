//! The nouns every part shares: which object, which version of it, which block, which pieces.
//!
//! Pure values. A `ByteRange` is never empty, a `PieceMap` never names more than sixteen pieces, a
//! `VersionId` is never reused. Words: an object is one URL's content, a version one immutable body
//! of it, a block an aligned part of a version, a piece an aligned 64 KiB of a block.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};

/// Names a site for as long as the process lives: its index in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

/// One URL's content: site, normalised path, canonical query.
///
/// Compared whole, never by hash alone: no two URLs can be made to share an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    site: SiteId,
    /// The path, and `?` with the canonical query if there is one.
    target: Arc<str>,
}

impl ObjectKey {
    /// `target` is the normalised path, with `?` and the canonical query if any parameter counts.
    pub fn new(site: SiteId, target: &str) -> ObjectKey {
        ObjectKey { site, target: Arc::from(target) }
    }

    /// The site the object belongs to.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// Path and canonical query, as a request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or(&self.target)
    }
}

/// A version's number: the epoch of the process that assigned it, and a counter. Never reused, not
/// by another process either: versions outlive it on volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    epoch: u64,
    counter: NonZeroU64,
}

impl VersionId {
    /// As it is written on a volume.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.get().to_le_bytes());
        bytes
    }

    /// As it was written; `None` if no version is called that.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<VersionId> {
        let (epoch, counter) = bytes.split_at(8);
        let epoch = u64::from_le_bytes(epoch.try_into().expect("eight bytes"));
        let counter = u64::from_le_bytes(counter.try_into().expect("eight bytes"));
        Some(VersionId { epoch, counter: NonZeroU64::new(counter)? })
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.epoch, self.counter)
    }
}

/// Assigns version numbers; one for the process.
#[derive(Debug)]
pub struct VersionNumbers {
    epoch: u64,
    next: AtomicU64,
}

impl VersionNumbers {
    /// `epoch` is like no other process's: the Unix time it started at in the upper half, and a
    /// random number in the lower, for two that start in one second or after a clock was set back.
    pub fn of_epoch(epoch: u64) -> VersionNumbers {
        VersionNumbers { epoch, next: AtomicU64::new(1) }
    }

    /// The next number.
    pub fn assign(&self) -> VersionId {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        VersionId {
            epoch: self.epoch,
            counter: NonZeroU64::new(counter).expect("2^64 versions are never assigned"),
        }
    }
}

/// One block of one version: the `index`-th aligned `BlockSize` of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// The version the bytes belong to.
    pub version: VersionId,
    /// Position of the block in the version, counted in blocks.
    pub index: u32,
}

/// The size of a block: a power of two between one piece and sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize(u32);

impl BlockSize {
    /// One mebibyte, sixteen pieces: the default and the largest.
    pub const MAX: BlockSize = BlockSize(PIECE_SIZE_BYTES as u32 * PIECES_PER_BLOCK_MAX);

    /// `None` unless `bytes` is a power of two from one piece (64 KiB) to sixteen (1 MiB).
    pub fn new(bytes: u64) -> Option<BlockSize> {
        let fits = (PIECE_SIZE_BYTES..=u64::from(Self::MAX.0)).contains(&bytes);
        (fits && bytes.is_power_of_two()).then_some(BlockSize(bytes as u32))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The block that holds the byte at `offset` of a version.
    ///
    /// `None` past the 2^32-th block: larger objects are not cached.
    pub fn block_at(self, offset: u64) -> Option<u32> {
        u32::try_from(offset / self.bytes()).ok()
    }

    /// Where block `index` starts in its version, in bytes.
    pub fn start_of(self, index: u32) -> u64 {
        u64::from(index) * self.bytes()
    }
}

/// Which of a block's pieces are held: bit `n` is piece `n`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PieceMap(pub u16);

impl PieceMap {
    /// The pieces `first..first + count` of a block.
    pub fn run(first: u32, count: u32) -> PieceMap {
        assert!(first + count <= PIECES_PER_BLOCK_MAX, "a block has at most sixteen pieces");
        PieceMap((((1u32 << count) - 1) << first) as u16)
    }

    /// Whether piece `piece` is held.
    pub fn holds(self, piece: u32) -> bool {
        self.0 & (1 << piece) != 0
    }

    /// The pieces of both maps.
    pub fn union(self, other: PieceMap) -> PieceMap {
        PieceMap(self.0 | other.0)
    }

    /// How many pieces are held.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Debug for PieceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceMap({:016b})", self.0)
    }
}

/// The bytes `start..end` of a version, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// Half-open; `None` when it would be empty.
    pub fn new(start: u64, end: u64) -> Option<ByteRange> {
        (start < end).then_some(ByteRange { start, end })
    }

    /// The first byte's offset.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte's offset.
    pub fn end(self) -> u64 {
        self.end
    }

    /// The last byte's offset, as HTTP writes ranges.
    pub fn last(self) -> u64 {
        self.end - 1
    }

    /// How many bytes; at least one.
    pub fn length_bytes(self) -> u64 {
        self.end - self.start
    }

    /// The range widened to whole pieces, ending at `length_bytes` of its version if that is known
    /// and nearer.
    pub fn rounded_out(self, length_bytes: Option<u64>) -> ByteRange {
        let start = piece_floor(self.start);
        let end = self.end.checked_next_multiple_of(PIECE_SIZE_BYTES).unwrap_or(u64::MAX);
        ByteRange { start, end: end.min(length_bytes.unwrap_or(u64::MAX)).max(self.end) }
    }
}

/// `offset` rounded down to the start of its piece.
pub fn piece_floor(offset: u64) -> u64 {
    offset - offset % PIECE_SIZE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_rounded_out_to_whole_pieces_but_not_past_the_end() {
        let range = |start, end| ByteRange::new(start, end).unwrap();
        assert_eq!(range(1, 2).rounded_out(None), range(0, 65_536));
        assert_eq!(range(65_536, 65_537).rounded_out(Some(70_000)), range(65_536, 70_000));
        assert_eq!(range(0, u64::MAX).rounded_out(None), range(0, u64::MAX));
    }

    #[test]
    fn a_block_size_is_a_power_of_two_of_one_to_sixteen_pieces() {
        assert_eq!(BlockSize::new(1 << 20), Some(BlockSize::MAX));
        assert!(BlockSize::new(64 << 10).is_some());
        for wrong in [0, 1, 32 << 10, 96 << 10, 2 << 20, u64::MAX] {
            assert_eq!(BlockSize::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_whole_block_is_sixteen_pieces() {
        let whole = PieceMap::run(0, 16);
        assert_eq!(whole.0, u16::MAX);
        assert_eq!(PieceMap::run(3, 2).0, 0b11000);
        assert_eq!(PieceMap::run(0, 3).union(PieceMap::run(3, 13)), whole);
    }

    #[test]
    fn versions_are_numbered_once() {
        let numbers = VersionNumbers::of_epoch(7);
        assert_ne!(numbers.assign(), numbers.assign());
        let version = numbers.assign();
        assert_eq!(VersionId::from_bytes(version.to_bytes()), Some(version));
        assert_eq!(VersionId::from_bytes([0; 16]), None);
    }
}
