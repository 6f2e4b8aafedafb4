//! Chance that follows from a seed, and bytes that follow from what they belong to.

use std::sync::LazyLock;

use tidegate::object::BlockKey;

/// A sequence of numbers that follows from its seed (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

pub(super) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const OFFSETS: usize = 1 << 20;
const LENGTH_MAX: usize = 128 << 10;

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut chance = Chance::new(1);
    (0..(OFFSETS + LENGTH_MAX) / 8).flat_map(|_| chance.draw().to_le_bytes()).collect()
});

/// Bytes that nothing else has.
pub(super) fn noise(of: [u64; 4], length: usize) -> &'static [u8] {
    let at = of.iter().fold(7, |so_far, part| mixed(so_far ^ part.wrapping_mul(0x9e37_79b9)));
    &NOISE[at as usize % OFFSETS..][..length]
}

/// The bytes of a piece, as any write of it brings them.
pub(super) fn piece(block: BlockKey, piece: u32, length: usize) -> &'static [u8] {
    let version = block.version.to_bytes();
    let counter = u64::from_le_bytes(version[8..].try_into().unwrap());
    noise([0, counter, block.index.into(), piece.into()], length)
}
