//! One block in ram: the pieces held of it, as few parts as lie consecutive in memory.
//!
//! Values only; where the bytes lie and which blocks stay is decided in `ram`. Always holds: a part
//! starts where a piece starts, and parts do not overlap.

use bytes::Bytes;

use crate::limits::PIECE_SIZE_BYTES;
use crate::object::PieceMap;

/// The pieces held of one block. Never changes: a block that grows is put in its place.
pub struct RamBlock {
    /// In order, without overlap; each is consecutive in memory.
    pub(super) parts: Vec<Part>,
}

impl RamBlock {
    /// Which pieces are held; a short piece at the end of the object counts as held.
    pub fn pieces(&self) -> PieceMap {
        self.parts.iter().fold(PieceMap::default(), |pieces, part| pieces.union(part.pieces()))
    }

    /// The bytes held, in order; each starts where a piece does.
    pub fn parts(&self) -> impl Iterator<Item = Bytes> {
        self.parts.iter().map(|part| part.bytes.clone())
    }

    /// How many bytes are held.
    pub fn length_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// The bytes from `offset_in_block` to the end of the run held there, shared, not copied.
    pub fn read(&self, offset_in_block: u64) -> Option<Bytes> {
        let after = self.parts.partition_point(|part| part.start <= offset_in_block);
        let part = &self.parts[after.checked_sub(1)?];
        let offset = (offset_in_block < part.end()).then(|| offset_in_block - part.start)?;
        Some(part.bytes.slice(offset as usize..))
    }
}

/// Consecutive bytes of a block; `start` is where a piece starts.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl Part {
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn pieces(&self) -> PieceMap {
        let first = self.start / PIECE_SIZE_BYTES;
        PieceMap::run(first as u32, (self.end().div_ceil(PIECE_SIZE_BYTES) - first) as u32)
    }

    fn covers(&self, other: &Part) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The union of `parts` and this one; `None` if it brings nothing. It wins where it overlaps
    /// the one before it, so that each part still starts where a piece does.
    pub(super) fn added_to(mut self, parts: &[Part]) -> Option<Vec<Part>> {
        if parts.iter().any(|part| part.covers(&self)) {
            return None;
        }
        let kept = parts.iter().filter(|part| !self.covers(part));
        let mut union: Vec<Part> = kept.cloned().collect();
        let at = union.partition_point(|part| part.start < self.start);
        if let Some(before) = at.checked_sub(1).map(|before| &mut union[before]) {
            before.bytes.truncate((self.start - before.start) as usize);
        }
        if let Some(after) = union.get(at) {
            self.bytes.truncate((after.start - self.start) as usize);
        }
        union.insert(at, self);
        Some(union)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECE: usize = PIECE_SIZE_BYTES as usize;

    fn part(body: &Bytes, pieces: std::ops::Range<usize>) -> Part {
        let end = (pieces.end * PIECE).min(body.len());
        Part { start: (pieces.start * PIECE) as u64, bytes: body.slice(pieces.start * PIECE..end) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_order_of_parts_makes_their_union(
            length in 1usize..=16 * PIECE,
            wanted in prop::collection::vec((0usize..16, 1usize..=16), 1..12),
        ) {
            let body: Bytes = (0..length).map(|at| (at / 251 + at) as u8).collect();
            let mut block = RamBlock { parts: Vec::new() };
            let mut expected = PieceMap::default();
            let pieces = length.div_ceil(PIECE);
            for (first, count) in wanted {
                let first = first % pieces;
                let end = (first + count).min(pieces);
                let new = part(&body, first..end);
                let all_held = expected.union(new.pieces()) == expected;
                expected = expected.union(new.pieces());
                match new.added_to(&block.parts) {
                    Some(parts) => block.parts = parts,
                    None => prop_assert!(all_held),
                }
                prop_assert_eq!(block.pieces(), expected);
                for pair in block.parts.windows(2) {
                    prop_assert!(pair[0].end() <= pair[1].start);
                }
                for part in &block.parts {
                    prop_assert_eq!(part.start % PIECE_SIZE_BYTES, 0);
                }
            }
            for at in (0..length).step_by(4099).chain([length - 1]) {
                let held = expected.holds((at / PIECE) as u32);
                let bytes = block.read(at as u64);
                prop_assert_eq!(bytes.is_some(), held);
                if let Some(bytes) = bytes {
                    prop_assert!(!bytes.is_empty() && body[at..].starts_with(&bytes));
                }
            }
            prop_assert!(block.read(length as u64).is_none());
        }
    }
}
