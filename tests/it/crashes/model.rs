//! What was asked of a volume: objects, their versions and heads, and what must hold of them.

use std::collections::{HashMap, HashSet};

use tidegate::object::{BlockKey, PieceMap, VersionId, VersionNumbers};
use tidegate::store::{ObjectHash, SiteHash};

use super::chance::{Chance, noise, piece};
use super::witness::Place;

const PIECE: u64 = 64 << 10;
const MAGIC: [u8; 8] = *b"put no. ";

/// A version of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) id: VersionId,
    pub(super) length: u64,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) hash: ObjectHash,
    pub(super) site: SiteHash,
    /// Its body lies with its head.
    pub(super) small: bool,
    /// The last one is the current one.
    pub(super) versions: Vec<Version>,
    /// The last thing that was asked of its head: which put, or its end.
    pub(super) last: Option<Option<u64>>,
    /// A put with a lower number was forgotten: it must not be found again by this process.
    pub(super) forgotten_below: u64,
}

/// A head that was given to the volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub(super) object: usize,
    /// The version whose body went with it.
    pub(super) body: Option<Version>,
    pub(super) birth: u64,
    /// It was not refused at once.
    pub(super) taken: bool,
}

/// All that was asked.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) objects: Vec<Object>,
    /// By their number.
    pub(super) puts: Vec<Put>,
    /// Blocks that need not be found any more.
    pub(super) forgotten: HashSet<BlockKey>,
    /// For each object the lowest put that may be found: lower ones were replaced, durably.
    pub(super) floors: HashMap<ObjectHash, u64>,
    /// Every head that was written: its object, its number among writes, its put.
    pub(super) sequences: Vec<(ObjectHash, u64, u64)>,
    /// Heads that were forgotten: their object, puts that there were then, and the tick.
    pub(super) heads_forgotten: Vec<(ObjectHash, u64, u64)>,
    /// Records of an earlier process of which a later one had all.
    pub(super) replaced: HashSet<Place>,
    pub(super) extras: u64,
    numbers: VersionNumbers,
    block_bytes: u64,
}

impl Model {
    pub(super) fn new(block_bytes: u64, chance: &mut Chance) -> Model {
        let mut model = Model {
            objects: Vec::new(),
            puts: Vec::new(),
            forgotten: HashSet::new(),
            floors: HashMap::new(),
            sequences: Vec::new(),
            heads_forgotten: Vec::new(),
            replaced: HashSet::new(),
            extras: 0,
            numbers: VersionNumbers::of_epoch(9),
            block_bytes,
        };
        for index in 0..16u64 {
            let half = u128::from(chance.draw());
            model.objects.push(Object {
                hash: ObjectHash(half << 64 | u128::from(index)),
                site: SiteHash(index % 3),
                small: index % 4 == 3,
                versions: Vec::new(),
                last: None,
                forgotten_below: 0,
            });
            model.renew(index as usize, chance);
        }
        model
    }

    /// The object has changed.
    pub(super) fn renew(&mut self, object: usize, chance: &mut Chance) {
        let longest = match self.objects[object].small {
            true if chance.one_in(4) => PIECE,
            true => 3_000,
            false => 3 * self.block_bytes,
        };
        let length = 1 + chance.below(longest);
        let id = self.numbers.assign();
        self.objects[object].versions.push(Version { id, length });
    }

    /// The next put of an object: its number.
    pub(super) fn put(&mut self, object: usize, chance: &mut Chance) -> u64 {
        let of = &mut self.objects[object];
        let current = *of.versions.last().unwrap();
        let number = self.puts.len() as u64;
        let body = of.small.then_some(current);
        of.last = Some(Some(number));
        self.puts.push(Put { object, body, birth: chance.below(1_000), taken: true });
        number
    }

    /// The object's head is forgotten, at `tick`; says which object.
    pub(super) fn forget(&mut self, object: usize, tick: u64) -> ObjectHash {
        let puts = self.puts.len() as u64;
        let of = &mut self.objects[object];
        (of.last, of.forgotten_below) = (Some(None), puts);
        self.heads_forgotten.push((of.hash, puts, tick));
        of.hash
    }

    /// Whether a later put of the object was taken and never written, for want of room: then the
    /// head before it counts no more either, and a checkpoint may know that.
    pub(super) fn has_unwritten(&self, object: usize, put: u64) -> bool {
        let later = (put + 1..).zip(&self.puts[put as usize + 1..]);
        let hash = self.objects[object].hash;
        let is_written = |number| {
            self.sequences.iter().any(|(of, _, written)| *of == hash && *written == number)
        };
        let mut taken = later.filter(|(_, of)| of.object == object && of.taken);
        taken.any(|(number, _)| !is_written(number))
    }

    /// Every block there ever was, and the version it is of.
    pub(super) fn blocks(&self) -> Vec<(BlockKey, Version)> {
        let large = self.objects.iter().filter(|object| !object.small);
        let versions = large.flat_map(|object| &object.versions);
        let blocks = versions.flat_map(|version| {
            let count = version.length.div_ceil(self.block_bytes) as u32;
            (0..count).map(|index| (BlockKey { version: version.id, index }, *version))
        });
        blocks.collect()
    }

    /// The pieces that a block has.
    pub(super) fn pieces(&self, block: BlockKey, version: Version) -> PieceMap {
        let start = u64::from(block.index) * self.block_bytes;
        let length = (version.length - start).min(self.block_bytes);
        PieceMap::run(0, length.div_ceil(PIECE) as u32)
    }

    /// What a piece holds.
    pub(super) fn piece(&self, block: BlockKey, version: Version, number: u32) -> &'static [u8] {
        let start = u64::from(block.index) * self.block_bytes + u64::from(number) * PIECE;
        piece(block, number, (version.length - start).min(PIECE) as usize)
    }
}

/// The body of a small object.
pub(super) fn body(version: Version) -> &'static [u8] {
    piece(BlockKey { version: version.id, index: 0 }, 0, version.length as usize)
}

/// What is written as a head.
pub(super) fn payload(put: u64) -> Vec<u8> {
    let mut chance = Chance::new(put);
    let longest = if chance.one_in(16) { 9_000 } else { 700 };
    let rest = noise([1, put, 0, 0], chance.below(longest) as usize);
    [&MAGIC, put.to_le_bytes().as_slice(), rest].concat()
}

/// Which put a payload is of; `None` of a tombstone, a number that is never reached of anything
/// else.
pub(super) fn put_of(written: &[u8]) -> Option<u64> {
    if written.is_empty() {
        return None;
    }
    let number = written.get(8..16).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let number = number.filter(|number| *number < 1 << 32 && payload(*number) == written);
    Some(number.unwrap_or(u64::MAX))
}

/// What the caller keeps with a checkpoint.
pub(super) fn extra(number: u64) -> Vec<u8> {
    let rest = noise([2, number, 0, 0], Chance::new(number).below(6_000) as usize);
    [number.to_le_bytes().as_slice(), rest].concat()
}

/// Which one it is; `None` if it never was one.
pub(super) fn extra_of(written: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(written.get(..8)?.try_into().unwrap());
    (number < 1 << 32 && extra(number) == written).then_some(number)
}
