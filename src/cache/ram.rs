//! The ram tier: blocks of pieces in one mapping, and which of them stay.
//!
//! `policy` decides per block what stays; a block's weight is the memory its pieces take. A hit
//! takes a read lock and shares bytes that were made when the piece was published: nothing is
//! copied, allocated or locked exclusively. Knows no HTTP and fills nothing. Always holds: the
//! blocks kept weigh no more than the capacity, and their bytes lie in the mapping. A block that is
//! evicted while viewers read it keeps its memory until they are done.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quick_cache::DefaultHashBuilder;

use crate::cache::block::Part;
pub use crate::cache::block::RamBlock;
use crate::cache::places::rounded;
use crate::cache::policy::{Policy, PolicySettings, Sharding};
pub use crate::cache::slots::Extent;
use crate::cache::slots::Slots;
use crate::limits::{PIECE_SIZE_BYTES, SLAB_BODY_BYTES_MAX};
use crate::object::{BlockKey, BlockSize, PieceMap, SiteId, VersionId};
use crate::overload::{SHARERS_MAX, Sharer, Shares};

/// How many times what is wanted in one run may lie free in others before it is done without.
const SCATTERED_MAX: u64 = 8;

/// How large the ram tier is.
#[derive(Clone, Copy, Debug)]
pub struct RamSettings {
    /// The mapping: cached blocks, what is being filled, and evicted blocks still being sent.
    pub mapping_bytes: u64,
    /// What cached blocks may take of it.
    pub cached_bytes_max: u64,
    /// The size of a block.
    pub block_size: BlockSize,
}

/// What bytes of it keep from being used for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// How much.
    pub bytes: u64,
    /// The first and the last piece of the mapping; `None`: they lie elsewhere.
    pub pieces: Option<(u64, u64)>,
}

/// What the ram tier holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamUsage {
    /// The mapping, used or not.
    pub mapping_bytes: u64,
    /// Taken from the mapping: cached, being filled, or evicted and still being sent.
    pub taken_bytes: u64,
    /// The blocks kept.
    pub cached_bytes: u64,
    /// What the blocks kept may weigh.
    pub cached_bytes_max: u64,
    /// How many blocks are kept.
    pub blocks: u64,
    /// Blocks that left to make room, or were refused, since the start.
    pub evictions: u64,
    /// Slots with nothing in them.
    pub slots_free: u32,
}

/// The ram tier. Shared by all serving and fill threads.
pub struct Ram {
    slots: Arc<Slots>,
    policy: Policy<BlockKey, Arc<RamBlock>>,
    block_size: BlockSize,
    /// Held by the one thread that evicts to make room in the mapping: the shard it is at.
    making_room: Mutex<usize>,
    evictions: AtomicU64,
}

impl Ram {
    /// Maps the memory; it costs nothing before it is written.
    ///
    /// # Errors
    /// What the system said, or that there is no room for one slot.
    pub fn new(settings: RamSettings, shares: &Arc<Shares>) -> io::Result<Arc<Ram>> {
        let slots = Slots::map(settings.mapping_bytes)?;
        // Many blocks are the short last one of a segment, so more fit than whole ones would.
        let policy = PolicySettings {
            capacity_bytes: settings.cached_bytes_max.min(slots.mapping_bytes()),
            block_bytes_usual: settings.block_size.bytes() / 2,
            block_bytes_max: settings.block_size.bytes(),
            sharding: Sharding::of_this_machine(),
        };
        Ok(Arc::new(Ram {
            slots,
            policy: Policy::new(policy, shares, DefaultHashBuilder::default()),
            block_size: settings.block_size,
            making_room: Mutex::new(0),
            evictions: AtomicU64::new(0),
        }))
    }

    /// The block, if any piece of it is held; counts as a use of it.
    pub fn get(&self, key: &BlockKey) -> Option<Arc<RamBlock>> {
        self.policy.get(key)
    }

    /// The block, if any piece of it is held, without counting as a use of it.
    pub fn peek(&self, key: &BlockKey) -> Option<Arc<RamBlock>> {
        self.policy.peek(key)
    }

    /// Room for `bytes` consecutive bytes of a site: one at least, a slot (1 MiB) at most.
    ///
    /// Evicts blocks until there is room; another site's own for no more than the one piece without
    /// which a body could not go on. `None`: what is left is being sent or being written; or there
    /// is room enough for several times as much, but not in one run: a viewer may keep a single
    /// piece of each slot, and what others want is not given up for that.
    pub fn allocate(&self, site: SiteId, bytes: u64) -> Option<Extent> {
        if let Some(extent) = self.slots.allocate(bytes) {
            return Some(extent);
        }
        // One thread at a time: the others will find the room it made.
        let mut next_shard = self.making_room.lock().expect("making room never panics");
        loop {
            if let Some(extent) = self.slots.allocate(bytes) {
                return Some(extent);
            }
            let in_pieces = bytes > PIECE_SIZE_BYTES && self.free_bytes() >= SCATTERED_MAX * bytes;
            let asking = Some(Sharer::of(site));
            let mut evict = |asking| self.evict_from(&mut next_shard, bytes, asking);
            if in_pieces || !(evict(asking) || bytes <= PIECE_SIZE_BYTES && evict(None)) {
                return None;
            }
        }
    }

    /// What room for `bytes` takes: whole pieces, or the cell of a small body.
    pub fn taken_bytes(bytes: u64) -> u64 {
        rounded(bytes as usize) as u64
    }

    /// What `bytes` keep of ram once they are [`Ram::pinned`]: the pieces they touch, or all of
    /// their body, if it is a small one.
    pub fn footprint(&self, bytes: &[u8], body_bytes: Option<u64>) -> Footprint {
        let small = body_bytes.filter(|bytes| *bytes <= SLAB_BODY_BYTES_MAX);
        let kept_bytes = self.slots.kept_bytes(bytes).or(small).unwrap_or(bytes.len() as u64);
        let piece_at = |offset: usize| offset as u64 / PIECE_SIZE_BYTES;
        let pieces = |start: usize| (piece_at(start), piece_at(start + bytes.len() - 1));
        Footprint { bytes: kept_bytes, pieces: self.slots.offset_of(bytes).map(pieces) }
    }

    /// How many of `bytes` keep no more than a piece, where there are any.
    pub fn within_a_piece(&self, bytes: &[u8]) -> u64 {
        let start = self.slots.offset_of(bytes).map_or(0, |at| at as u64 % PIECE_SIZE_BYTES);
        (PIECE_SIZE_BYTES - start).min(bytes.len() as u64)
    }

    /// The same bytes, keeping only the pieces they touch of what they were cut from: for whoever
    /// may hold them long. Not copied.
    pub fn pinned(&self, bytes: Bytes) -> Bytes {
        self.slots.pinned(bytes)
    }

    /// Adds pieces to a block: what it held before and `bytes`, which start at `first_piece`.
    ///
    /// Only the last piece of an object may be short. A longer prefix of an `Extent` takes the
    /// place of a shorter one, and neighbours in memory are joined, so a block that grows in one
    /// `Extent` is one part. Bytes from outside the mapping are copied into it. Whether the block
    /// stays is the cache's decision, and that of the site's share.
    pub fn publish(&self, site: SiteId, key: BlockKey, first_piece: u32, bytes: Bytes) {
        let start = u64::from(first_piece) * PIECE_SIZE_BYTES;
        let end = start + bytes.len() as u64;
        assert!(end <= self.block_size.bytes(), "pieces lie inside their block");
        let Some(bytes) = self.in_mapping(site, bytes) else { return };
        let change = self.policy.change(key);
        let held = change.held();
        let parts = held.as_ref().map_or(&[][..], |block| &block.parts);
        let Some(parts) = Part { start, bytes }.added_to(parts) else { return };
        let parts = self.made_contiguous(parts);
        let weight_bytes = parts.iter().map(|part| self.slots.taken_bytes(&part.bytes)).sum();
        let block = Arc::new(RamBlock { parts });
        let left = change.keep(block, weight_bytes, Sharer::of(site));
        drop(change);
        self.count_evicted(&left, held.as_ref());
    }

    /// Lets go of a block; those who read it now can finish.
    pub fn forget(&self, key: &BlockKey) {
        self.policy.change(*key).forget();
    }

    /// Changes what cached blocks may take; evicts what is too much.
    ///
    /// Bounded by one block for each shard and by the mapping; the number of shards stays.
    pub fn resize(&self, cached_bytes_max: u64) {
        let left = self.policy.resize(cached_bytes_max.min(self.slots.mapping_bytes()));
        self.count_evicted(&left, None);
    }

    /// Evicts `bytes`, or all, and at most a block more.
    pub fn evict(&self, bytes: u64) {
        let kept_max = self.policy.kept().bytes.saturating_sub(bytes);
        let mut next_shard = self.making_room.lock().expect("making room never panics");
        while self.policy.kept().bytes > kept_max
            && self.evict_from(&mut next_shard, PIECE_SIZE_BYTES, None)
        {}
    }

    /// The blocks that are kept, for who gives them away one by one ([`Ram::forget`]): what was
    /// used most comes first. The system has their memory as it is freed.
    pub fn ranked(&self) -> Vec<BlockKey> {
        self.slots.return_what_is_free();
        self.policy.ranked()
    }

    /// Keeps as little as it can from now on, and lets the system have its memory as it is freed.
    pub fn give_back(&self) {
        self.slots.return_what_is_free();
        // What is read from a volume has to lie here for a moment.
        self.resize(LEFT_BYTES);
        self.evict(u64::MAX);
    }

    /// The pieces held of the first `blocks` blocks of a version, without counting as a use.
    pub fn held(&self, version: VersionId, blocks: Range<u32>) -> Vec<(u32, PieceMap)> {
        let block = |index| Some((index, self.peek(&BlockKey { version, index })?.pieces()));
        blocks.filter_map(block).collect()
    }

    /// What is held now; the parts are read one after the other.
    pub fn usage(&self) -> RamUsage {
        let (taken_bytes, slots_free) = self.slots.usage();
        let kept = self.policy.kept();
        RamUsage {
            mapping_bytes: self.slots.mapping_bytes(),
            taken_bytes,
            cached_bytes: kept.bytes,
            cached_bytes_max: kept.bytes_max,
            blocks: kept.blocks,
            evictions: self.evictions.load(Ordering::Relaxed),
            slots_free,
        }
    }

    /// What the blocks kept may weigh.
    pub fn capacity_bytes(&self) -> u64 {
        self.policy.capacity_bytes()
    }

    /// What each site keeps.
    pub fn kept_of_each(&self) -> [u64; SHARERS_MAX] {
        self.policy.kept_of_each()
    }

    fn free_bytes(&self) -> u64 {
        self.slots.mapping_bytes() - self.slots.usage().0
    }

    /// `bytes` where they are, or a copy if they lie outside the mapping and there is room.
    fn in_mapping(&self, site: SiteId, bytes: Bytes) -> Option<Bytes> {
        if bytes.is_empty() || self.slots.offset_of(&bytes).is_some() {
            return Some(bytes).filter(|bytes| !bytes.is_empty());
        }
        let mut extent = self.allocate(site, bytes.len() as u64)?;
        extent.append(&bytes);
        Some(extent.freeze())
    }

    /// Joins parts that are neighbours in memory, and copies a whole block that still has several.
    fn made_contiguous(&self, parts: Vec<Part>) -> Vec<Part> {
        let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts {
            let last = joined.last_mut().filter(|last| last.end() == part.start);
            let both =
                last.and_then(|last| Some((self.slots.joined(&last.bytes, &part.bytes)?, last)));
            match both {
                Some((both, last)) => last.bytes = both,
                None => joined.push(part),
            }
        }
        let copy = (joined.len() > 1 && self.is_whole(&joined)).then(|| self.copied(&joined));
        copy.flatten().map_or(joined, |copy| vec![copy])
    }

    /// Nothing is missing, up to the block's end or to a short piece, which ends its object.
    fn is_whole(&self, parts: &[Part]) -> bool {
        let end = parts.iter().try_fold(0, |end, part| (part.start == end).then(|| part.end()));
        end.is_some_and(|end| end == self.block_size.bytes() || end % PIECE_SIZE_BYTES != 0)
    }

    /// All parts in one run; `None` if no run is free, for which nothing is evicted.
    fn copied(&self, parts: &[Part]) -> Option<Part> {
        let mut extent = self.slots.allocate(parts.last()?.end())?;
        for part in parts {
            extent.append(&part.bytes);
        }
        Some(Part { start: 0, bytes: extent.freeze() })
    }

    /// Evicts about `bytes` from the next shard that keeps what `asking` may take; false if none
    /// does.
    fn evict_from(&self, next_shard: &mut usize, bytes: u64, asking: Option<Sharer>) -> bool {
        (0..self.policy.shards()).any(|_| {
            let left = self.policy.evict(*next_shard, bytes, asking);
            *next_shard = (*next_shard + 1) % self.policy.shards();
            self.count_evicted(&left, None);
            !left.is_empty()
        })
    }

    /// `replaced`: the block a publication put a larger one in place of, which is no eviction.
    fn count_evicted(&self, left: &[Arc<RamBlock>], replaced: Option<&Arc<RamBlock>>) {
        let is_replaced = |block| replaced.is_some_and(|replaced| Arc::ptr_eq(replaced, block));
        let evicted = left.iter().filter(|block| !is_replaced(block)).count();
        self.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
    }
}

/// What is kept by who gives his memory back.
const LEFT_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, mpsc};
    use std::thread;

    use crate::object::VersionNumbers;

    use super::*;

    const PIECE: usize = PIECE_SIZE_BYTES as usize;
    const MIB: u64 = 1 << 20;
    const SITE: SiteId = SiteId(0);

    fn ram(mapping_mib: u64, cached_mib: u64) -> Arc<Ram> {
        shared(mapping_mib, cached_mib, &Arc::default())
    }

    fn shared(mapping_mib: u64, cached_mib: u64, shares: &Arc<Shares>) -> Arc<Ram> {
        let settings = RamSettings {
            mapping_bytes: mapping_mib * MIB,
            cached_bytes_max: cached_mib * MIB,
            block_size: BlockSize::MAX,
        };
        Ram::new(settings, shares).unwrap()
    }

    fn versions<const N: usize>() -> [VersionId; N] {
        let numbers = VersionNumbers::of_epoch(1);
        [(); N].map(|()| numbers.assign())
    }

    fn key(version: VersionId, index: u32) -> BlockKey {
        BlockKey { version, index }
    }

    /// The bytes of a block: different for each block, and in each piece of it.
    fn content(seed: u64, range: std::ops::Range<usize>) -> Vec<u8> {
        let word =
            |at: usize| (seed * 7919 + at as u64 / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        range.map(|at| word(at).to_le_bytes()[at % 8]).collect()
    }

    fn is_content(seed: u64, at: usize, bytes: &[u8]) -> bool {
        content(seed, at..at + bytes.len()) == bytes
    }

    fn written(ram: &Ram, seed: u64, range: std::ops::Range<usize>) -> Bytes {
        let mut extent = ram.allocate(SITE, range.len() as u64).unwrap();
        extent.append(&content(seed, range));
        extent.freeze()
    }

    #[test]
    fn bytes_within_a_piece_of_the_mapping_keep_that_one_wherever_they_start() {
        let ram = ram(8, 4);
        let bytes = written(&ram, 1, 0..3 * PIECE);
        let piece = PIECE_SIZE_BYTES;
        for (start, within, across) in [(0, piece, piece), (100, piece - 100, 2 * piece)] {
            let bytes = bytes.slice(start..);
            assert_eq!(ram.within_a_piece(&bytes), within);
            assert_eq!(ram.footprint(&bytes[..within as usize], None).bytes, piece);
            assert_eq!(ram.footprint(&bytes[..PIECE], None).bytes, across);
        }
        let elsewhere = vec![1; 3 * PIECE];
        assert_eq!(ram.within_a_piece(&elsewhere), piece);
        let footprint = ram.footprint(&elsewhere[..PIECE], None);
        assert_eq!(footprint, Footprint { bytes: piece, pieces: None });
    }

    #[test]
    fn a_block_grows_piece_by_piece_and_is_sent_in_one_slice_when_whole() {
        let ram = ram(8, 4);
        let key = key(versions::<1>()[0], 3);
        assert!(ram.get(&key).is_none());
        // Keeps the pieces from being neighbours in memory, in the order they come.
        for first in [4, 0, 12, 8] {
            ram.publish(
                SITE,
                key,
                first,
                written(&ram, 1, first as usize * PIECE..(first as usize + 4) * PIECE),
            );
            let block = ram.get(&key).unwrap();
            let bytes = block.read(u64::from(first) * PIECE_SIZE_BYTES + 5).unwrap();
            assert!(is_content(1, first as usize * PIECE + 5, &bytes));
            assert_eq!(ram.usage().cached_bytes, u64::from(block.pieces().count()) << 16);
        }
        let whole = ram.peek(&key).unwrap().read(0).unwrap();
        assert_eq!(whole.len() as u64, MIB);
        assert!(is_content(1, 0, &whole));
        drop(whole);
        assert_eq!(ram.held(key.version, 0..9), [(3, PieceMap::run(0, 16))]);
        let usage = ram.usage();
        assert_eq!((usage.cached_bytes, usage.taken_bytes), (MIB, MIB), "the parts have returned");
        assert_eq!((usage.blocks, usage.evictions, usage.slots_free), (1, 0, 7));
        ram.forget(&key);
        assert!(ram.get(&key).is_none());
        assert_eq!(ram.usage().taken_bytes, 0);
    }

    #[test]
    fn the_short_end_of_an_object_is_made_contiguous_too() {
        let ram = ram(4, 4);
        let key = key(versions::<1>()[0], 0);
        let tail = 2 * PIECE..2 * PIECE + 100;
        ram.publish(SITE, key, 2, written(&ram, 1, tail.clone()));
        assert_eq!(ram.usage().cached_bytes, 1024, "a cell");
        ram.publish(SITE, key, 0, written(&ram, 1, 0..2 * PIECE));
        let bytes = ram.get(&key).unwrap().read(0).unwrap();
        assert_eq!(bytes.len(), tail.end);
        assert!(is_content(1, 0, &bytes));
        assert_eq!(ram.usage().cached_bytes, 3 * PIECE_SIZE_BYTES);
        assert!(ram.get(&key).unwrap().read(tail.end as u64).is_none());
        assert_eq!(ram.get(&key).unwrap().pieces(), PieceMap::run(0, 3));
    }

    #[test]
    fn a_growing_prefix_is_published_without_a_copy_and_weighs_what_it_shows() {
        let ram = ram(4, 4);
        let key = key(versions::<1>()[0], 0);
        let mut extent = ram.allocate(SITE, MIB).unwrap();
        let start = {
            extent.append(&content(1, 0..PIECE));
            extent.prefix().as_ptr()
        };
        for pieces in 1..=16 {
            extent.append(&content(1, extent.written_bytes() as usize..pieces * PIECE));
            // Slices come to the same as prefixes: they are joined.
            let first = if pieces % 2 == 0 { pieces - 1 } else { 0 };
            let bytes = extent.prefix().slice(first * PIECE..);
            ram.publish(SITE, key, first as u32, bytes);
            let bytes = ram.get(&key).unwrap().read(0).unwrap();
            assert_eq!((bytes.as_ptr(), bytes.len()), (start, pieces * PIECE));
            assert!(is_content(1, 0, &bytes));
            assert_eq!(ram.usage().cached_bytes, (pieces * PIECE) as u64);
        }
    }

    #[test]
    fn bytes_from_elsewhere_are_copied_in() {
        let ram = ram(4, 4);
        let key = key(versions::<1>()[0], 0);
        ram.publish(SITE, key, 0, Bytes::new());
        assert!(ram.get(&key).is_none());
        ram.publish(SITE, key, 0, Bytes::from_static(b"#EXTM3U"));
        assert_eq!(ram.get(&key).unwrap().read(4).unwrap(), &b"M3U"[..]);
        assert_eq!((ram.usage().cached_bytes, ram.usage().taken_bytes), (1024, PIECE_SIZE_BYTES));
    }

    #[test]
    fn a_block_that_grew_does_not_look_popular() {
        let ram = ram(24, 10);
        let [scan, hot] = versions();
        for index in 0..4 {
            ram.publish(SITE, key(hot, index), 0, written(&ram, 1, 0..MIB as usize));
            ram.get(&key(hot, index));
        }
        for index in 0..40 {
            for piece in 0..16 {
                let bytes = written(&ram, 2, piece * PIECE..(piece + 1) * PIECE);
                ram.publish(SITE, key(scan, index), piece as u32, bytes);
            }
        }
        assert_eq!(ram.held(hot, 0..4).len(), 4, "a scan leaves what is used");
        assert!(ram.usage().cached_bytes <= 10 * MIB);
        assert_eq!(ram.usage().evictions, 44 - ram.usage().blocks);
    }

    #[test]
    fn a_block_above_the_hot_share_is_not_kept() {
        let ram = ram(4, 1);
        let key = key(versions::<1>()[0], 0);
        ram.publish(SITE, key, 0, written(&ram, 1, 0..MIB as usize));
        assert!(ram.get(&key).is_none());
        assert_eq!((ram.usage().taken_bytes, ram.usage().cached_bytes), (0, 0));
    }

    #[test]
    fn allocating_evicts_until_only_pinned_memory_is_left() {
        let ram = ram(8, 8);
        let [version] = versions();
        for index in 0..8 {
            ram.publish(SITE, key(version, index), 0, written(&ram, index.into(), 0..MIB as usize));
        }
        assert_eq!(ram.usage().slots_free, 0);
        let pinned: Vec<Bytes> = ram.held(version, 0..8)[..3]
            .iter()
            .map(|&(index, _)| ram.peek(&key(version, index)).unwrap().read(0).unwrap())
            .collect();
        let mut extents = Vec::new();
        extents.push(ram.allocate(SITE, MIB).unwrap());
        assert!(ram.usage().evictions < 8, "no more than needed is evicted");
        extents.extend(std::iter::from_fn(|| ram.allocate(SITE, MIB)));
        assert_eq!(extents.len(), 5, "the rest is pinned");
        assert_eq!((ram.usage().blocks, ram.usage().evictions), (0, 8));
        assert!(pinned.iter().enumerate().all(|(index, bytes)| is_content(index as u64, 0, bytes)));
        drop(extents);
        assert_eq!(ram.usage().taken_bytes, 3 * MIB);
        ram.publish(SITE, key(version, 0), 0, written(&ram, 0, 0..MIB as usize));
        assert_eq!(ram.usage().cached_bytes, MIB, "the ballast left no trace");
    }

    #[test]
    fn a_body_goes_on_at_the_price_of_anothers_own_where_nothing_else_is_left() {
        let shares = Arc::<Shares>::default();
        shares.set([(SITE, 1), (SiteId(1), 1)]);
        shares.after_a_second(&[(1, 8 * MIB), (1, 8 * MIB)], 8 * MIB);
        let ram = shared(8, 8, &shares);
        let own = key(versions::<1>()[0], 0);
        ram.publish(SiteId(1), own, 0, written(&ram, 1, 0..MIB as usize));
        let sent: Vec<Extent> = std::iter::from_fn(|| ram.allocate(SITE, MIB)).collect();
        assert_eq!(sent.len(), 7);
        assert!(ram.peek(&own).is_some(), "a comfort costs another nothing");
        assert!(ram.allocate(SITE, PIECE_SIZE_BYTES).is_some());
        assert!(ram.peek(&own).is_none());
    }

    #[test]
    fn a_slot_is_not_looked_for_at_the_price_of_all_that_is_kept() {
        let ram = ram(32, 32);
        let [version] = versions();
        for index in 0..32 {
            ram.publish(SITE, key(version, index), 0, written(&ram, index.into(), 0..MIB as usize));
        }
        // A slow reader in each slot, who keeps one piece of it.
        let pins: Vec<Bytes> = (0..32)
            .map(|index| ram.peek(&key(version, index)).unwrap().read(0).unwrap())
            .map(|bytes| ram.pinned(bytes.slice(..PIECE)))
            .collect();
        assert!(ram.allocate(SITE, MIB).is_none(), "there is none");
        assert!(ram.usage().blocks >= 20, "{} blocks are left", ram.usage().blocks);
        assert!(ram.allocate(SITE, PIECE_SIZE_BYTES).is_some(), "a piece is always found");
        drop(pins);
        assert!(ram.allocate(SITE, MIB).is_some());
    }

    #[test]
    fn resizing_evicts_and_gives_room_back() {
        let ram = ram(16, 16);
        let [version] = versions();
        let fill = || {
            for index in 0..16 {
                ram.publish(SITE, key(version, index), 0, written(&ram, 1, 0..MIB as usize));
            }
        };
        fill();
        assert_eq!(ram.usage().blocks, 16);
        ram.resize(4 * MIB);
        let usage = ram.usage();
        assert_eq!((usage.blocks, usage.evictions, usage.cached_bytes_max), (4, 12, 4 * MIB));
        assert_eq!(usage.taken_bytes, 4 * MIB);
        fill();
        assert_eq!(ram.usage().blocks, 4);
        ram.resize(u64::MAX);
        fill();
        assert_eq!((ram.usage().blocks, ram.usage().cached_bytes_max), (16, 16 * MIB));
    }

    #[test]
    fn publications_of_one_block_by_many_threads_end_up_with_the_union() {
        let ram = ram(160, 160);
        let [version] = versions();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (ram, start) = (&ram, &start);
                scope.spawn(move || {
                    for index in 0..48 {
                        start.wait();
                        for piece in [thread, 15 - thread] {
                            let bytes = written(ram, index, piece * PIECE..(piece + 1) * PIECE);
                            ram.publish(SITE, key(version, index as u32), piece as u32, bytes);
                        }
                    }
                });
            }
        });
        for index in 0..48 {
            let whole = ram.get(&key(version, index)).unwrap().read(0).unwrap();
            assert_eq!(whole.len() as u64, MIB, "whole, and contiguous");
            assert!(is_content(index.into(), 0, &whole));
        }
        assert_eq!((ram.usage().cached_bytes, ram.usage().taken_bytes), (48 * MIB, 48 * MIB));
        assert_eq!(ram.usage().evictions, 0);
    }

    /// Fills a part of a block, in portions that `random` chooses, and shows readers each prefix.
    fn fill(ram: &Ram, key: BlockKey, seed: u64, random: u64, shown: &mpsc::SyncSender<Shown>) {
        let first = random as usize % 16;
        let end = match random % 3 {
            0 => (first + 1) * PIECE,
            1 => MIB as usize,
            _ => (first * PIECE + 1 + random as usize % 300_000).min(MIB as usize),
        };
        let Some(mut extent) = ram.allocate(SITE, (end - first * PIECE) as u64) else { return };
        while first * PIECE + (extent.written_bytes() as usize) < end {
            let at = first * PIECE + extent.written_bytes() as usize;
            let portion = (random as usize % 100_003 + 1_000).min(end - at);
            assert_eq!(extent.append(&content(seed, at..at + portion)), portion);
            let prefix = extent.prefix();
            let whole = prefix.len() / PIECE * PIECE;
            ram.publish(SITE, key, first as u32, prefix.slice(..whole));
            // A reader that is full does without.
            let _ = shown.try_send(Shown { seed, at: first * PIECE, bytes: prefix });
        }
        ram.publish(SITE, key, first as u32, extent.freeze());
    }

    struct Shown {
        seed: u64,
        at: usize,
        bytes: Bytes,
    }

    /// Holds what it was shown for a while, and looks at it again before it lets go.
    fn read(
        ram: &Ram,
        version: VersionId,
        shown: &mpsc::Receiver<Shown>,
        done: &AtomicBool,
    ) -> u64 {
        let (mut pinned, mut checked, mut random) = (Vec::new(), 0, 99_u64);
        while !done.load(Ordering::Relaxed) {
            pinned.extend(shown.try_recv());
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let index = (random >> 33) as u32 % 64;
            let offset = (random >> 13) % MIB;
            let block = ram.get(&key(version, index));
            if let Some(bytes) = block.and_then(|block| block.read(offset)) {
                assert!(
                    is_content(index.into(), offset as usize, &bytes),
                    "block {index} {offset}"
                );
                pinned.push(Shown { seed: index.into(), at: offset as usize, bytes });
            }
            if pinned.len() > 8 {
                let Shown { seed, at, bytes } = pinned.swap_remove(random as usize % 8);
                assert!(is_content(seed, at, &bytes), "block {seed} changed under a reader");
                checked += bytes.len() as u64;
            }
        }
        checked
    }

    #[test]
    fn no_reader_ever_sees_a_wrong_byte_while_blocks_are_filled_and_evicted() {
        let ram = ram(32, 12);
        let [version] = versions();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut fillers = Vec::new();
            for thread in 0..4_u64 {
                let (ram, done) = (&ram, &done);
                let (show, shown) = mpsc::sync_channel(4);
                fillers.push(scope.spawn(move || {
                    for round in 0..250_u64 {
                        let random =
                            (thread << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                        let seed = random % 64;
                        fill(ram, key(version, seed as u32), seed, random / 64, &show);
                        if random.is_multiple_of(50) {
                            ram.forget(&key(version, seed as u32));
                        }
                        let usage = ram.usage();
                        assert!(usage.cached_bytes <= usage.cached_bytes_max, "{usage:?}");
                        assert!(usage.taken_bytes <= usage.mapping_bytes, "{usage:?}");
                    }
                }));
                scope.spawn(move || assert!(read(ram, version, &shown, done) > 0));
            }
            for filler in fillers {
                filler.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(ram.usage().evictions > 0);
        for index in 0..64 {
            ram.forget(&key(version, index));
        }
        let usage = ram.usage();
        assert_eq!((usage.cached_bytes, usage.taken_bytes, usage.slots_free), (0, 0, 32));
    }
}
