//! The index: which records a volume holds, in 16 bytes of memory each.
//!
//! A table of fixed size: 64-byte buckets of five entries, two buckets to choose from for each
//! key, and a step to the side where both are full. Found without allocating; one short lock per
//! shard. Never an error: when there is no room an insertion is refused. It knows a key by its
//! fingerprint only, so what it finds may be another's: whoever reads the record finds out.
//!
//! Callbacks (`gone`, `changed`) run under the lock of a shard and must not call back.

mod entry;
mod shard;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use self::entry::{
    Entry, Fingerprint, Kind, Location, REGION_GRANULES_MAX, REGIONS_MAX, RegionId, SCORE_MAX,
    Shape,
};
use self::shard::{Bucket, SLOTS, Shard, Slots};

/// What one bucket takes in memory and in a dump.
const BUCKET_BYTES: usize = size_of::<Bucket>();

/// How full the table is meant to be: a bucket is made for every four entries.
const ENTRIES_PER_BUCKET: u64 = 4;
const SHARDS_MAX: u64 = 256;
/// A shard below this size would be full long before the others.
const SHARD_BUCKETS_MIN: u64 = 1024;

/// There is no slot for the entry: its two buckets are full, and nothing in them can step aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Entries the table holds.
    pub entries: u64,
    /// Slots it has.
    pub slots: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the index has no slot left for it: {} of {} are held", self.entries, self.slots)
    }
}

impl std::error::Error for Full {}

/// A dump that this table can't have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// What the dump has.
    pub bytes: usize,
    /// What one part of the table takes.
    pub shard_bytes: usize,
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a part of the index has {} bytes instead of {}", self.bytes, self.shard_bytes)
    }
}

impl std::error::Error for Misshapen {}

/// The records found for one key, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    entries: [Entry; 2 * SLOTS],
    count: usize,
}

impl Deref for Records {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries[..self.count]
    }
}

/// Records by key. Every call locks one shard for well under a microsecond.
pub struct Index {
    shards: Box<[RwLock<Shard>]>,
    buckets_per_shard: usize,
    heads: AtomicU64,
    blocks: AtomicU64,
}

impl Index {
    /// A table meant for `entries_max` entries: it takes 16 bytes for each, and a few more of them
    /// than that before it refuses.
    pub fn new(entries_max: u64) -> Index {
        let (shards, buckets_per_shard) = Index::layout(entries_max);
        Index {
            shards: (0..shards).map(|_| RwLock::new(Shard::new(buckets_per_shard))).collect(),
            buckets_per_shard,
            heads: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
        }
    }

    fn layout(entries_max: u64) -> (usize, usize) {
        let buckets = entries_max.div_ceil(ENTRIES_PER_BUCKET).max(2);
        let shards = (buckets / SHARD_BUCKETS_MIN).clamp(1, SHARDS_MAX);
        (shards as usize, buckets.div_ceil(shards) as usize)
    }

    /// Heads it holds.
    pub fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    /// Block records it holds.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Entries there are places for, held or not.
    pub fn slots(&self) -> u64 {
        (self.shards.len() * self.buckets_per_shard * SLOTS) as u64
    }

    /// The head of `key`.
    pub fn head(&self, key: Fingerprint) -> Option<Entry> {
        let shard = self.read(key);
        shard.slots_of(key, Kind::Head).next().map(|slot| shard.entry(slot))
    }

    /// All records of the block `key`: each holds a part of it.
    pub fn blocks_of(&self, key: Fingerprint) -> Records {
        self.records(key, Kind::Block)
    }

    /// All records of `key` of one kind.
    pub fn records(&self, key: Fingerprint, kind: Kind) -> Records {
        let nothing = Entry {
            location: Location { region: RegionId(0), granule: 0 },
            shape: Shape::Head { granules: 0 },
            score: 0,
            planned: false,
        };
        let mut found = Records { entries: [nothing; 2 * SLOTS], count: 0 };
        let shard = self.read(key);
        for slot in shard.slots_of(key, kind) {
            found.entries[found.count] = shard.entry(slot);
            found.count += 1;
        }
        found
    }

    /// Adds a record. Those of its key that it makes superfluous go: an older head, a block record
    /// whose pieces it holds too.
    ///
    /// # Errors
    /// `Full` when there is no place; nothing has changed then.
    pub fn insert(
        &self,
        key: Fingerprint,
        entry: Entry,
        mut gone: impl FnMut(Entry),
    ) -> Result<(), Full> {
        let mut shard = self.write(key);
        let kind = entry.shape.kind();
        let pieces = entry.shape.pieces();
        let mut places = Slots::of(shard.slots_of(key, kind));
        places.retain(|slot| {
            let held = shard.entry(*slot).shape.pieces();
            pieces.union(held) == pieces
        });
        for slot in places.as_slice() {
            let old = shard.take(*slot);
            self.count(old.shape.kind(), -1);
            gone(old);
        }
        let slot = shard.place_for(key).ok_or_else(|| self.full())?;
        shard.put(slot, entry.pack(key));
        self.count(kind, 1);
        Ok(())
    }

    /// Puts `to` in the place of the record at `from`, if that is still there: how a record that
    /// was copied elsewhere moves. Gives back what stood there.
    pub fn relocate(&self, key: Fingerprint, from: Location, to: Entry) -> Option<Entry> {
        let mut shard = self.write(key);
        let slot = shard.slot_at(key, to.shape.kind(), from)?;
        let old = shard.entry(slot);
        shard.put(slot, to.pack(key));
        Some(old)
    }

    /// The record of `key` at `location`, if there is one.
    pub fn at(&self, key: Fingerprint, kind: Kind, location: Location) -> Option<Entry> {
        let shard = self.read(key);
        shard.slot_at(key, kind, location).map(|slot| shard.entry(slot))
    }

    /// Removes the record of `key` if it lies at `location`.
    pub fn remove_at(&self, key: Fingerprint, kind: Kind, location: Location) -> Option<Entry> {
        let mut shard = self.write(key);
        let slot = shard.slot_at(key, kind, location)?;
        self.count(kind, -1);
        Some(shard.take(slot))
    }

    /// Removes every record of `key` of one kind.
    pub fn remove(&self, key: Fingerprint, kind: Kind, mut gone: impl FnMut(Entry)) {
        let mut shard = self.write(key);
        for slot in Slots::of(shard.slots_of(key, kind)).as_slice() {
            self.count(kind, -1);
            gone(shard.take(*slot));
        }
    }

    /// Counts a use of every record of `key`; `changed` is told each before and after. Returns
    /// whether there is any. What has the highest score already is only read.
    pub fn touch(
        &self,
        key: Fingerprint,
        kind: Kind,
        mut changed: impl FnMut(Entry, Entry),
    ) -> bool {
        let records = self.records(key, kind);
        if records.iter().all(|entry| entry.score == SCORE_MAX) {
            return !records.is_empty();
        }
        let mut shard = self.write(key);
        let slots = Slots::of(shard.slots_of(key, kind));
        for slot in slots.as_slice() {
            let before = shard.entry(*slot);
            let after = before.used_once_more();
            if after != before {
                shard.put(*slot, after.pack(key));
                changed(before, after);
            }
        }
        !slots.as_slice().is_empty()
    }

    /// Keeps of part `shard` what `keep` says, looking at all of it: for a region whose own list is
    /// lost.
    pub fn retain(
        &self,
        shard: usize,
        mut keep: impl FnMut(&Entry) -> bool,
        mut gone: impl FnMut(Entry),
    ) {
        let mut shard = self.shards[shard].write().expect(UNBROKEN);
        for slot in shard.held_slots() {
            let entry = shard.entry(slot);
            if !keep(&entry) {
                shard.take(slot);
                self.count(entry.shape.kind(), -1);
                gone(entry);
            }
        }
    }

    /// In how many parts it is dumped, loaded and looked through.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What each part takes.
    pub fn shard_bytes(&self) -> usize {
        self.buckets_per_shard * BUCKET_BYTES
    }

    /// Appends part `shard` to `out`: [`Index::shard_bytes`] bytes, as they were at one moment.
    pub fn dump(&self, shard: usize, out: &mut Vec<u8>) {
        let shard = self.shards[shard].read().expect(UNBROKEN);
        out.reserve(self.shard_bytes());
        for bucket in &shard.buckets {
            let words = bucket.words.as_flattened();
            for word in words.iter().chain([&bucket.held]) {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Replaces part `shard` by what was dumped of a table of the same size, without what `keep`
    /// does not want.
    ///
    /// # Errors
    /// `Misshapen` when it has another length; nothing has changed then.
    pub fn load(
        &self,
        shard: usize,
        bytes: &[u8],
        mut keep: impl FnMut(&Entry) -> bool,
    ) -> Result<(), Misshapen> {
        if bytes.len() != self.shard_bytes() {
            return Err(Misshapen { bytes: bytes.len(), shard_bytes: self.shard_bytes() });
        }
        let mut shard = self.shards[shard].write().expect(UNBROKEN);
        let (mut heads, mut blocks) = (0, 0);
        for slot in shard.held_slots() {
            self.count(shard.take(slot).shape.kind(), -1);
        }
        for (bucket, bytes) in shard.buckets.iter_mut().zip(bytes.chunks_exact(BUCKET_BYTES)) {
            let word = |n: usize| {
                u32::from_le_bytes(bytes[4 * n..4 * n + 4].try_into().expect("four bytes"))
            };
            let held = word(3 * SLOTS);
            for slot in (0..SLOTS).filter(|slot| held & 1 << slot != 0) {
                let words = [word(3 * slot), word(3 * slot + 1), word(3 * slot + 2)];
                let (_, entry) = Entry::unpack(words);
                if keep(&entry) {
                    bucket.words[slot] = words;
                    bucket.held |= 1 << slot;
                    match entry.shape.kind() {
                        Kind::Head => heads += 1,
                        Kind::Block => blocks += 1,
                    }
                }
            }
        }
        self.heads.fetch_add(heads, Ordering::Relaxed);
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        Ok(())
    }

    fn full(&self) -> Full {
        Full { entries: self.heads() + self.blocks(), slots: self.slots() }
    }

    fn count(&self, kind: Kind, change: i64) {
        let counter = match kind {
            Kind::Head => &self.heads,
            Kind::Block => &self.blocks,
        };
        counter.fetch_add(change as u64, Ordering::Relaxed);
    }

    fn read(&self, key: Fingerprint) -> RwLockReadGuard<'_, Shard> {
        self.shards[key.shard(self.shards.len())].read().expect(UNBROKEN)
    }

    fn write(&self, key: Fingerprint) -> RwLockWriteGuard<'_, Shard> {
        self.shards[key.shard(self.shards.len())].write().expect(UNBROKEN)
    }
}

const UNBROKEN: &str = "nothing panics while it changes the index";

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index of {} heads and {} blocks", self.heads(), self.blocks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::PieceMap;
    use crate::store::ObjectHash;

    fn key(n: u64) -> Fingerprint {
        Fingerprint::of_head(3, ObjectHash(u128::from(n)))
    }

    fn block(region: u32, pieces: u16) -> Entry {
        Entry {
            location: Location { region: RegionId(region), granule: 7 },
            shape: Shape::Block { pieces: PieceMap(pieces), last_granules: 16 },
            score: 0,
            planned: false,
        }
    }

    fn head(region: u32) -> Entry {
        Entry { shape: Shape::Head { granules: 1 }, ..block(region, 1) }
    }

    fn ignore(_: Entry) {}

    #[test]
    fn it_is_eighty_percent_full_before_it_refuses_and_takes_sixteen_bytes_an_entry() {
        for entries in [4_096, 100_000, 700_000] {
            let index = Index::new(entries);
            assert_eq!((index.shards() * index.shard_bytes()) as u64 / entries, 16);
            let refused = (0..).find(|n| index.insert(key(*n), head(1), ignore).is_err());
            let held = refused.expect("it is finite");
            assert!(held >= entries, "{held} of {entries}");
            assert!(held * 100 >= index.slots() * 80, "{held} of {} slots", index.slots());
            assert!((0..held).all(|n| index.head(key(n)) == Some(head(1))));
            let full = Full { entries: held, slots: index.slots() };
            assert_eq!(index.insert(key(held), head(1), ignore), Err(full));
            assert_eq!(index.heads(), held);
        }
    }

    #[test]
    fn a_record_takes_the_place_of_those_whose_pieces_it_holds() {
        let index = Index::new(100);
        index.insert(key(1), block(1, 0b0011), ignore).unwrap();
        index.insert(key(1), block(2, 0b1100), ignore).unwrap();
        index.insert(key(1), head(9), ignore).unwrap();
        assert_eq!(index.blocks_of(key(1)).len(), 2);

        let mut gone = Vec::new();
        index.insert(key(1), block(3, 0b0111), |entry| gone.push(entry)).unwrap();

        assert_eq!(gone, [block(1, 0b0011)]);
        assert_eq!(index.blocks_of(key(1)).len(), 2);
        assert_eq!((index.blocks(), index.heads()), (2, 1));
        index.remove(key(1), Kind::Block, ignore);
        assert!(index.blocks_of(key(1)).is_empty());
        assert_eq!(index.head(key(1)), Some(head(9)));
    }

    #[test]
    fn a_record_that_was_replaced_is_neither_moved_nor_removed_by_its_old_place() {
        let index = Index::new(100);
        index.insert(key(1), head(1), ignore).unwrap();
        index.insert(key(1), head(2), ignore).unwrap();
        assert_eq!(index.relocate(key(1), head(1).location, head(3)), None);
        assert_eq!(index.remove_at(key(1), Kind::Head, head(1).location), None);
        assert_eq!(index.relocate(key(1), head(2).location, head(3)), Some(head(2)));
        assert_eq!(index.head(key(1)), Some(head(3)));
    }

    #[test]
    fn uses_are_counted_up_to_the_highest_score() {
        let index = Index::new(100);
        index.insert(key(1), block(1, 1), ignore).unwrap();
        let mut changes = 0;
        for _ in 0..20 {
            assert!(index.touch(key(1), Kind::Block, |_, _| changes += 1));
        }
        assert_eq!(changes, usize::from(SCORE_MAX));
        assert_eq!(index.blocks_of(key(1))[0].score, SCORE_MAX);
        assert!(!index.touch(key(2), Kind::Block, |_, _| ()));
    }

    #[test]
    fn what_was_dumped_is_loaded_without_what_is_not_wanted() {
        let (index, copy) = (Index::new(20_000), Index::new(20_000));
        for n in 0..16_000 {
            index.insert(key(n), head((n % 10) as u32), ignore).unwrap();
        }
        copy.insert(key(99_999), head(5), ignore).unwrap();
        let mut bytes = Vec::new();
        for shard in 0..index.shards() {
            bytes.clear();
            index.dump(shard, &mut bytes);
            copy.load(shard, &bytes, |entry| entry.location.region.0 != 3).unwrap();
        }
        assert_eq!(copy.heads(), 14_400);
        for n in 0..16_000 {
            let expected = (n % 10 != 3).then(|| head((n % 10) as u32));
            assert_eq!(copy.head(key(n)), expected);
        }
        assert_eq!(copy.head(key(99_999)), None);
        let misshapen = Misshapen { bytes: bytes.len() - 1, shard_bytes: bytes.len() };
        assert_eq!(copy.load(0, &bytes[1..], |_| true), Err(misshapen));
        (0..copy.shards())
            .for_each(|shard| copy.retain(shard, |e| e.location.region.0 == 4, ignore));
        assert_eq!(copy.heads(), 1_600);
    }
}
