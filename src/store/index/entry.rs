//! One record as the index knows it: where, how large, which pieces, how often used.
//!
//! An entry takes 96 bits. It does not hold the key, only 37 bits of its fingerprint: that the
//! record found is the one that was meant is settled by the key in the record's own header.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::limits::{GRANULE_SIZE_BYTES, PIECE_GRANULES, PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::object::{BlockKey, PieceMap};
use crate::store::ObjectHash;

/// Regions a volume may have.
pub const REGIONS_MAX: u32 = 1 << REGION_BITS;
/// Granules a region may have.
pub const REGION_GRANULES_MAX: u32 = 1 << GRANULE_BITS;
/// The highest score; more uses are not told apart.
pub const SCORE_MAX: u8 = 7;

const TAG_BITS: u32 = 37;
const REGION_BITS: u32 = 20;
const GRANULE_BITS: u32 = 14;
const SHAPE_BITS: u32 = 20;
const KIND_AT: u32 = TAG_BITS;
const REGION_AT: u32 = KIND_AT + 1;
const GRANULE_AT: u32 = REGION_AT + REGION_BITS;
const SHAPE_AT: u32 = GRANULE_AT + GRANULE_BITS;
const SCORE_AT: u32 = SHAPE_AT + SHAPE_BITS;
const PLANNED_AT: u32 = SCORE_AT + 3;

const _: () = assert!(PLANNED_AT + 1 == 96);
const _: () = assert!(PIECE_GRANULES == 16 && PIECES_PER_BLOCK_MAX == 16);

/// A region's place on its volume, counted in regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub u32);

/// Where a record starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The region.
    pub region: RegionId,
    /// Its offset in the region, in granules.
    pub granule: u16,
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An object's head, perhaps with its body.
    Head,
    /// Pieces of a block.
    Block,
}

/// What a record takes and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A head packet of so many granules, fewer than 2^20.
    Head {
        /// All of them.
        granules: u32,
    },
    /// A header granule and pieces of a block. Made by [`Shape::block`].
    Block {
        /// Those it holds; never none.
        pieces: PieceMap,
        /// Granules of the last of them: 1 to 16. The others are whole.
        last_granules: u8,
    },
}

impl Shape {
    /// A record of `pieces` that are `length_bytes` long together. `None` if no pieces are, or if
    /// another than the last would have to be short.
    pub fn block(pieces: PieceMap, length_bytes: u64) -> Option<Shape> {
        let whole = u64::from(pieces.count().checked_sub(1)?) * PIECE_SIZE_BYTES;
        let last = length_bytes.checked_sub(whole)?;
        let fits = (1..=PIECE_SIZE_BYTES).contains(&last);
        let last_granules = last.div_ceil(GRANULE_SIZE_BYTES) as u8;
        fits.then_some(Shape::Block { pieces, last_granules })
    }

    /// Which kind of record.
    pub fn kind(self) -> Kind {
        match self {
            Shape::Head { .. } => Kind::Head,
            Shape::Block { .. } => Kind::Block,
        }
    }

    /// What it takes on the volume, header included.
    pub fn granules(self) -> u32 {
        match self {
            Shape::Head { granules } => granules,
            Shape::Block { pieces, last_granules } => {
                1 + pieces.count().saturating_sub(1) * PIECE_GRANULES + u32::from(last_granules)
            }
        }
    }

    /// The pieces it holds; none if it is a head.
    pub fn pieces(self) -> PieceMap {
        match self {
            Shape::Head { .. } => PieceMap::default(),
            Shape::Block { pieces, .. } => pieces,
        }
    }

    fn to_bits(self) -> u128 {
        match self {
            Shape::Head { granules } => u128::from(granules.min((1 << SHAPE_BITS) - 1)),
            Shape::Block { pieces, last_granules } => {
                u128::from(pieces.0) | u128::from(last_granules - 1) << 16
            }
        }
    }

    fn from_bits(kind: Kind, bits: u32) -> Shape {
        match kind {
            Kind::Head => Shape::Head { granules: bits },
            Kind::Block => {
                let pieces = PieceMap(bits as u16);
                Shape::Block { pieces, last_granules: (bits >> 16) as u8 + 1 }
            }
        }
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it starts.
    pub location: Location,
    /// What it takes and holds.
    pub shape: Shape,
    /// Uses since it was written, up to [`SCORE_MAX`].
    pub score: u8,
    /// Wanted by a catalog: it stays one lap without being used.
    pub planned: bool,
}

impl Entry {
    /// It, used once more.
    pub fn used_once_more(self) -> Entry {
        Entry { score: (self.score + 1).min(SCORE_MAX), ..self }
    }

    pub(super) fn pack(&self, fingerprint: Fingerprint) -> [u32; 3] {
        debug_assert!(self.location.region.0 < REGIONS_MAX && self.score <= SCORE_MAX);
        let bits = u128::from(fingerprint.tag())
            | u128::from(self.shape.kind() == Kind::Block) << KIND_AT
            | u128::from(self.location.region.0) << REGION_AT
            | u128::from(u32::from(self.location.granule) % REGION_GRANULES_MAX) << GRANULE_AT
            | self.shape.to_bits() << SHAPE_AT
            | u128::from(self.score) << SCORE_AT
            | u128::from(self.planned) << PLANNED_AT;
        [bits as u32, (bits >> 32) as u32, (bits >> 64) as u32]
    }

    pub(super) fn unpack(words: [u32; 3]) -> (u64, Entry) {
        let bits = words.iter().rev().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
        let field = |at: u32, width: u32| (bits >> at) as u64 & ((1 << width) - 1);
        let kind = if field(KIND_AT, 1) == 1 { Kind::Block } else { Kind::Head };
        let location = Location {
            region: RegionId(field(REGION_AT, REGION_BITS) as u32),
            granule: field(GRANULE_AT, GRANULE_BITS) as u16,
        };
        let entry = Entry {
            location,
            shape: Shape::from_bits(kind, field(SHAPE_AT, SHAPE_BITS) as u32),
            score: field(SCORE_AT, 3) as u8,
            planned: field(PLANNED_AT, 1) == 1,
        };
        (field(0, TAG_BITS), entry)
    }
}

/// A key as the index sees it: a hash, seeded so that no one outside can choose what collides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Of a block.
    pub fn of_block(seed: u64, block: BlockKey) -> Fingerprint {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&block.version.to_bytes());
        bytes[16..].copy_from_slice(&block.index.to_le_bytes());
        Fingerprint(xxh3_128_with_seed(&bytes, seed))
    }

    /// Of an object's head.
    pub fn of_head(seed: u64, object: ObjectHash) -> Fingerprint {
        Fingerprint(xxh3_128_with_seed(&object.0.to_le_bytes(), seed))
    }

    /// What an entry remembers of it.
    pub(super) fn tag(self) -> u64 {
        self.0 as u64 & ((1 << TAG_BITS) - 1)
    }

    /// One of `count`, by bits that are neither in the tag nor in `place`.
    pub(super) fn shard(self, count: usize) -> usize {
        let bits = (self.0 as u64 >> TAG_BITS) as usize;
        (bits * count) >> (64 - TAG_BITS)
    }

    /// One of `count`, by the bits that are neither in the tag nor in `shard`.
    pub(super) fn place(self, count: usize) -> usize {
        let bits = self.0 >> 64;
        ((bits * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_it_was_packed_from() {
        let last = Entry {
            location: Location { region: RegionId(REGIONS_MAX - 1), granule: 16_383 },
            shape: Shape::Block { pieces: PieceMap(u16::MAX), last_granules: 16 },
            score: SCORE_MAX,
            planned: true,
        };
        let first = Entry {
            location: Location { region: RegionId(0), granule: 0 },
            shape: Shape::Head { granules: 1 },
            score: 0,
            planned: false,
        };
        let middle = Entry {
            location: Location { region: RegionId(77), granule: 1234 },
            shape: Shape::block(PieceMap(0b1010), 65_537).unwrap(),
            score: 2,
            planned: false,
        };
        for entry in [first, last, middle] {
            let fingerprint = Fingerprint::of_head(1, ObjectHash(9));
            assert_eq!(Entry::unpack(entry.pack(fingerprint)), (fingerprint.tag(), entry));
        }
    }

    #[test]
    fn only_the_last_piece_of_a_record_may_be_short() {
        let granules = |map, length| Shape::block(PieceMap(map), length).map(Shape::granules);
        assert_eq!(granules(u16::MAX, 1 << 20), Some(257));
        assert_eq!(granules(1, 1), Some(2));
        assert_eq!(granules(0b11, 65_537), Some(18));
        assert_eq!(granules(0b11, 65_536), None);
        assert_eq!(granules(0b11, 131_073), None);
        assert_eq!(granules(0, 1), None);
    }
}
