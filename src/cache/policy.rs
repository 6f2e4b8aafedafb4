//! Which blocks stay in ram, apart from their bytes: what is kept has a key and a weight.
//!
//! quick_cache decides, in shards with a lock and a capacity each. [`Ram`](crate::cache::ram::Ram)
//! keeps blocks in it; the replay of traces and the shadow caches keep weights only, so that what
//! is measured is what serves. Where sites have shares, who keeps more than his leaves first
//! (`policy/owned.rs`). Always holds: what is kept weighs no more than the capacity.

mod owned;

use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::overload::{RAM_OWNED, SHARERS_MAX, Sharer, Shares, WHOLE};

use self::owned::Owned;

/// What newcomers may not touch of a shard. What was used often is on the volume as a rule when it
/// leaves, a newcomer is nowhere: with 0.7 ram alone finds more in large sizes, and ram and volume
/// together up to 2 points less. The defaults of quick_cache give newcomers only 3 %.
const HOT_ALLOCATION: f64 = 0.5;
/// Blocks remembered after they were evicted, per block that fits.
const GHOST_ALLOCATION: f64 = 1.0;

/// Whoever makes room passes over all guarded blocks of a ring, with the shard locked, until he
/// finds another: a fifth of each ring at least is others.
const _: () = assert!(RAM_OWNED as f64 / WHOLE as f64 <= HOT_ALLOCATION * 0.8);

/// A shard must hold many blocks: one above its hot share is refused, and few make a poor policy.
const SHARD_BYTES_MIN: u64 = 64 << 20;
/// More shards do not make for fewer meetings at one lock.
const SHARDS_PER_CORE_MAX: u64 = 4;

/// How a capacity is divided into shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// The least one shard weighs when full.
    pub shard_bytes_min: u64,
    /// How many there are at most; rounded down to a power of two.
    pub shards_max: u64,
}

impl Sharding {
    /// As many shards as the cores of this machine are worth.
    pub fn of_this_machine() -> Sharding {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        Sharding { shard_bytes_min: SHARD_BYTES_MIN, shards_max: cores * SHARDS_PER_CORE_MAX }
    }

    /// A power of two.
    fn shards(self, capacity_bytes: u64) -> u64 {
        let shards = capacity_bytes / self.shard_bytes_min.max(1);
        1 << shards.clamp(1, self.shards_max.max(1)).ilog2()
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct PolicySettings {
    /// What is kept weighs this at most.
    pub capacity_bytes: u64,
    /// What a block usually weighs: as many are remembered after they left as then fit.
    pub block_bytes_usual: u64,
    /// No capacity set later is below this for each shard.
    pub block_bytes_max: u64,
    /// How the capacity is divided.
    pub sharding: Sharding,
}

/// What is kept at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What it weighs.
    pub bytes: u64,
    /// What it may weigh.
    pub bytes_max: u64,
    /// How many blocks.
    pub blocks: u64,
}

/// Keeps the values that are worth it, found by key. Shared by all threads; a value is cloned when
/// it is found, and a hit takes a read lock of one shard.
pub struct Policy<K, V, S = DefaultHashBuilder> {
    shards: Box<[Shard<K, V, S>]>,
    shard_hash: S,
    block_bytes_max: u64,
}

impl<K, V, S> Policy<K, V, S>
where
    K: Copy + Eq + Hash,
    V: Clone,
    S: BuildHasher + Clone,
{
    /// Nothing is kept yet. Where the same input must give the same output, `hasher` has no random
    /// part.
    pub fn new(settings: PolicySettings, shares: &Arc<Shares>, hasher: S) -> Policy<K, V, S> {
        let PolicySettings { capacity_bytes, block_bytes_usual, block_bytes_max, sharding } =
            settings;
        let shards = sharding.shards(capacity_bytes);
        let shard_bytes = capacity_bytes / shards;
        let shard = |_| Shard::new(shard_bytes, block_bytes_usual, shares.clone(), hasher.clone());
        let shards = (0..shards).map(shard).collect();
        Policy { shards, shard_hash: hasher, block_bytes_max }
    }

    /// The value, if it is kept; counts as a use of it.
    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).cache.get(&Key::Block(*key))?.value.map(|(value, _)| value)
    }

    /// The value, if it is kept, without counting as a use of it.
    pub fn peek(&self, key: &K) -> Option<V> {
        self.shard(key).cache.peek(&Key::Block(*key))?.value.map(|(value, _)| value)
    }

    /// Leaves the shard of `key` to the caller until what is returned is dropped: others may read.
    pub fn change(&self, key: K) -> Change<'_, K, V, S> {
        let shard = self.shard(&key);
        Change { key: Key::Block(key), shard, _changing: shard.changing() }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Evicts about `bytes`, or all, from the shard with this number; gives what left: nothing
    /// where that would take what is another's own for the sake of `asking`.
    pub fn evict(&self, shard: usize, bytes: u64, asking: Option<Sharer>) -> Vec<V> {
        values(self.shards[shard].evict(bytes, asking))
    }

    /// The keys of what is kept: of each shard in turn what was used most since it came, or was
    /// replaced, is first. Nothing changes by it; what comes or leaves meanwhile may be missing.
    pub fn ranked(&self) -> Vec<K> {
        let mut each: Vec<Vec<K>> = self.shards.iter().map(Shard::ranked).collect();
        let blocks = each.iter().map(Vec::len).sum();
        let mut all = Vec::with_capacity(blocks);
        while all.len() < blocks {
            all.extend(each.iter_mut().filter_map(Vec::pop));
        }
        all
    }

    /// Changes what may be kept, and gives what left. The number of shards stays.
    pub fn resize(&self, capacity_bytes: u64) -> Vec<V> {
        let shard_bytes = capacity_bytes / self.shards.len() as u64;
        let shard_bytes = shard_bytes.max(self.block_bytes_max);
        self.shards.iter().flat_map(|shard| values(shard.resize(shard_bytes))).collect()
    }

    /// What is kept now, read one shard after the other.
    pub fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        for shard in &self.shards {
            // While somebody makes room his ballast weighs too; he holds this lock.
            let _changing = shard.changing();
            kept.bytes += shard.cache.weight();
            kept.bytes_max += shard.cache.capacity();
            kept.blocks += shard.cache.len() as u64;
        }
        kept
    }

    /// What is kept may weigh this.
    pub fn capacity_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.cache.capacity()).sum()
    }

    /// What each site keeps.
    pub fn kept_of_each(&self) -> [u64; SHARERS_MAX] {
        let mut kept = [0; SHARERS_MAX];
        for sharer in Sharer::all() {
            kept[sharer.index()] = self.shards.iter().map(|one| one.owned.bytes(sharer)).sum();
        }
        kept
    }

    fn shard(&self, key: &K) -> &Shard<K, V, S> {
        // The number of shards is a power of two.
        &self.shards[self.shard_hash.hash_one(key) as usize & (self.shards.len() - 1)]
    }
}

/// The right to change what is kept under one key.
pub struct Change<'a, K, V, S> {
    key: Key<K>,
    shard: &'a Shard<K, V, S>,
    _changing: MutexGuard<'a, ()>,
}

impl<K, V, S> Change<'_, K, V, S>
where
    K: Copy + Eq + Hash,
    V: Clone,
    S: BuildHasher + Clone,
{
    /// What is kept now; no use of it.
    pub fn held(&self) -> Option<V> {
        self.shard.cache.peek(&self.key)?.value.map(|(value, _)| value)
    }

    /// Puts a value in, or in place of another, which is no use of it: a block must not look
    /// popular because its pieces came one by one. Gives what left, the replaced one too, or the
    /// value itself if it is refused.
    pub fn keep(&self, value: V, weight_bytes: u64, owner: Sharer) -> Vec<V> {
        let item = Item { value: Some((value, owner)), weight_bytes };
        let (cache, mut left) = (&self.shard.cache, Vec::new());
        self.shard.owned.entered(owner, weight_bytes);
        self.shard.owned.guard(cache.capacity(), None);
        if let Err((key, item)) = cache.replace_with_lifecycle(self.key, item, true, &mut left) {
            cache.insert_with_lifecycle(key, item, &mut left);
        }
        if cache.weight() > cache.capacity() {
            // The only one who had more than is his had nothing else that could leave.
            left.extend(self.shard.evict_for_ballast(1));
        }
        values(left)
    }

    /// Lets go of the value.
    pub fn forget(&self) {
        let removed = self.shard.cache.remove(&self.key).map(|(_, item)| item);
        if let Some(Item { value: Some((_, owner)), weight_bytes }) = removed {
            self.shard.owned.left(owner, weight_bytes);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key<K> {
    Block(K),
    /// Put in and taken out again, so that blocks leave by the cache's own policy.
    Ballast,
}

/// A value and whose it is, with its weight, which quick_cache relies on never changing; ballast
/// has no value.
#[derive(Clone)]
struct Item<V> {
    value: Option<(V, Sharer)>,
    weight_bytes: u64,
}

/// A part of the blocks with a lock and a capacity of its own.
struct Shard<K, V, S> {
    cache: Cache<Key<K>, Item<V>, ByWeight, S, Leaving>,
    /// Held while the shard's content is changed, so that no change misses another one's. Readers
    /// do not take it.
    changing: Mutex<()>,
    owned: Arc<Owned>,
}

impl<K, V, S> Shard<K, V, S>
where
    K: Copy + Eq + Hash,
    V: Clone,
    S: BuildHasher + Clone,
{
    fn new(
        capacity_bytes: u64,
        block_bytes_usual: u64,
        shares: Arc<Shares>,
        hasher: S,
    ) -> Shard<K, V, S> {
        let blocks_expected = (capacity_bytes / block_bytes_usual.max(1)).max(1);
        let options = OptionsBuilder::new()
            .shards(1)
            .hot_allocation(HOT_ALLOCATION)
            .ghost_allocation(GHOST_ALLOCATION)
            .estimated_items_capacity(blocks_expected as usize)
            .weight_capacity(capacity_bytes)
            .build()
            .expect("capacity and estimate are given");
        let owned = Arc::new(Owned::new(shares));
        let cache = Cache::with_options(options, ByWeight, hasher, Leaving(owned.clone()));
        Shard { cache, changing: Mutex::new(()), owned }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().expect("changing what is kept never panics")
    }

    fn evict(&self, bytes: u64, asking: Option<Sharer>) -> Left<K, V> {
        let _changing = self.changing();
        let bytes = bytes.min(self.cache.weight());
        self.owned.guard(self.cache.capacity(), asking);
        if bytes > self.owned.unguarded_bytes() {
            if asking.is_some() {
                return Left::new();
            }
            self.owned.guard_nobody();
        }
        let spare = self.cache.capacity().saturating_sub(self.cache.weight());
        self.evict_for_ballast(spare + bytes)
    }

    fn resize(&self, capacity_bytes: u64) -> Left<K, V> {
        let _changing = self.changing();
        self.owned.guard_nobody();
        let left = self.evict_for_ballast(self.cache.capacity().saturating_sub(capacity_bytes));
        self.cache.set_capacity(capacity_bytes);
        left
    }

    /// What was used least comes first. quick_cache iterates by place in its table, which says
    /// nothing of use, and tells what would leave next to who evicts it alone: for as long as that
    /// takes nobody would find it.
    fn ranked(&self) -> Vec<K> {
        let uses = |(key, _)| match key {
            Key::Block(block) => Some((self.cache.item_stats(&key)?.access_count, block)),
            Key::Ballast => None,
        };
        let mut all: Vec<(u64, K)> = self.cache.iter().filter_map(uses).collect();
        all.sort_unstable_by_key(|(uses, _)| *uses);
        all.into_iter().map(|(_, key)| key).collect()
    }

    /// Evicts what has to go for an item of `weight_bytes`, but for what is guarded. Lowering the
    /// capacity for a moment would do it too, but each time a few remembered evictions would be
    /// lost.
    fn evict_for_ballast(&self, weight_bytes: u64) -> Left<K, V> {
        let mut left = Vec::new();
        if weight_bytes == 0 {
            return left;
        }
        let ballast = Item { value: None, weight_bytes };
        self.cache.insert_with_lifecycle(Key::Ballast, ballast, &mut left);
        self.cache.remove(&Key::Ballast);
        left
    }
}

#[derive(Clone)]
struct ByWeight;

impl<K, V> Weighter<Key<K>, Item<V>> for ByWeight {
    fn weight(&self, _: &Key<K>, item: &Item<V>) -> u64 {
        item.weight_bytes
    }
}

/// What has left, in this order.
type Left<K, V> = Vec<(K, Item<V>)>;

fn values<K, V>(left: Left<K, V>) -> Vec<V> {
    left.into_iter().filter_map(|(_, item)| item.value).map(|(value, _)| value).collect()
}

/// Collects what leaves, so that its memory is freed and counted outside the cache's lock.
#[derive(Clone)]
struct Leaving(Arc<Owned>);

impl<K: PartialEq, V> Lifecycle<Key<K>, Item<V>> for Leaving {
    type RequestState = Left<K, V>;

    fn is_pinned(&self, _: &Key<K>, item: &Item<V>) -> bool {
        item.value.as_ref().is_none_or(|(_, owner)| self.0.is_guarded(*owner))
    }

    fn on_evict(&self, left: &mut Left<K, V>, key: Key<K>, item: Item<V>) {
        if let (Key::Block(key), Some((_, owner))) = (key, &item.value) {
            self.0.left(*owner, item.weight_bytes);
            left.push((key, item));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::object::SiteId;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_capacities_have_several_large_shards() {
        let machine = Sharding::of_this_machine();
        let cores = thread::available_parallelism().unwrap().get() as u64;
        assert_eq!(machine.shards(0), 1);
        assert_eq!(machine.shards(127 * MIB), 1);
        assert_eq!(machine.shards(128 * MIB), 2);
        assert_eq!(machine.shards(u64::MAX), 1 << (cores * 4).ilog2());
        let scaled = Sharding { shard_bytes_min: 64 << 10, shards_max: 7 };
        assert_eq!(scaled.shards(MIB), 4);
    }

    const FOUR_SHARDS: PolicySettings = PolicySettings {
        capacity_bytes: 4_000,
        block_bytes_usual: 10,
        block_bytes_max: 20,
        sharding: Sharding { shard_bytes_min: 1_000, shards_max: 4 },
    };

    #[test]
    fn weights_alone_are_kept_like_blocks() {
        let policy: Policy<u64, ()> =
            Policy::new(FOUR_SHARDS, &no_shares(), DefaultHashBuilder::default());
        assert_eq!(policy.shards(), 4);
        for key in 0..2_000 {
            assert!(policy.get(&key).is_none());
            policy.change(key).keep((), 10, Sharer::of(SiteId(0)));
        }
        let kept = policy.kept();
        assert!(kept.bytes <= 4_000 && kept.bytes > 3_900, "{kept:?}");
        assert_eq!(kept.bytes, kept.blocks * 10);
        assert!(!policy.resize(0).is_empty());
        assert_eq!(policy.kept().bytes_max, 80, "room for one block in each shard");
    }

    #[test]
    fn what_is_ranked_stays_and_what_was_used_most_comes_first() {
        let policy: Policy<u64, u64> =
            Policy::new(FOUR_SHARDS, &no_shares(), DefaultHashBuilder::default());
        for key in 0..2_000 {
            policy.change(key).keep(key, 10, Sharer::of(SiteId(1)));
            assert!((0..40).all(|used| used > key || policy.get(&used).is_some()));
        }
        let (kept, of_each) = (policy.kept(), policy.kept_of_each());
        let ranked = policy.ranked();
        assert_eq!((policy.kept(), policy.kept_of_each()), (kept, of_each));
        assert_eq!(ranked.len() as u64, kept.blocks);
        assert!(ranked.iter().all(|key| policy.peek(key) == Some(*key)));
        let first = &ranked[..100];
        assert!((0..40).all(|used| first.contains(&used)), "{first:?}");
    }

    #[test]
    fn who_asks_while_it_is_ranked_finds_what_is_kept() {
        let policy: Policy<u64, u64> =
            Policy::new(FOUR_SHARDS, &no_shares(), DefaultHashBuilder::default());
        (0..100).for_each(|key| drop(policy.change(key).keep(key, 10, Sharer::of(SiteId(1)))));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let ranks = || {
                let ranked: usize = (0..1_000).map(|_| policy.ranked().len()).sum();
                is_over.store(true, Ordering::Release);
                ranked
            };
            let ranks = scope.spawn(ranks);
            let mut lost = 0;
            while !is_over.load(Ordering::Acquire) {
                lost += (0..100).filter(|key| policy.peek(key).is_none()).count();
            }
            assert_eq!((lost, ranks.join().unwrap()), (0, 1_000 * 100));
        });
    }

    fn no_shares() -> Arc<Shares> {
        Arc::new(Shares::default())
    }

    const VIEWED: SiteId = SiteId(0);
    const FLOOD: SiteId = SiteId(1);

    /// A policy for a hundred blocks, and shares of two sites that were sent so many of theirs.
    fn shared(weights: [u32; 2], sent: [u64; 2]) -> (Policy<u64, u64>, Arc<Shares>) {
        let shares = no_shares();
        shares.set([VIEWED, FLOOD].into_iter().zip(weights));
        shares.after_a_second(&sent.map(|bytes| (0, bytes)), 100);
        let settings = PolicySettings {
            capacity_bytes: 100,
            block_bytes_usual: 1,
            block_bytes_max: 1,
            sharding: Sharding { shard_bytes_min: 100, shards_max: 1 },
        };
        (Policy::new(settings, &shares, DefaultHashBuilder::default()), shares)
    }

    fn flood(policy: &Policy<u64, u64>, keys: std::ops::Range<u64>) {
        for key in keys {
            // Asked for twice each, so that they look as good as any.
            policy.change(key).keep(key, 1, Sharer::of(FLOOD));
            policy.get(&key);
            assert!(policy.kept().bytes <= 100);
        }
    }

    fn kept_of_viewed(policy: &Policy<u64, u64>, keys: std::ops::Range<u64>) -> usize {
        let kept = keys.filter(|key| policy.peek(key).is_some()).count();
        assert_eq!(policy.kept_of_each()[0], kept as u64);
        kept
    }

    #[test]
    fn a_flood_of_one_site_evicts_nothing_that_is_anothers_own() {
        for (weights, sent, expected) in [
            ([1, 1], [1_000, 1_000], 20..=21),
            ([1, 3], [1_000, 1_000], 10..=11),
            ([3, 1], [1_000, 1_000], 30..=31),
            // Of what was sent of it lately.
            ([1, 1], [15, 1_000], 15..=16),
            // Nobody watches it: it is lent.
            ([1, 1], [0, 1_000], 0..=0),
        ] {
            let (policy, _) = shared(weights, sent);
            for key in 0..60 {
                policy.change(key).keep(key, 1, Sharer::of(VIEWED));
            }
            flood(&policy, 1_000..11_000);
            let kept = kept_of_viewed(&policy, 0..60);
            assert!(expected.contains(&kept), "{weights:?} {sent:?}: {kept}");
            assert_eq!(policy.kept().bytes, 100, "the flood has the rest");
        }
    }

    #[test]
    fn what_was_lent_is_given_back_block_by_block_as_it_is_wanted() {
        let (policy, shares) = shared([1, 1], [0, 1_000]);
        flood(&policy, 1_000..2_000);
        assert_eq!(policy.kept_of_each()[..2], [0, 100], "borrowed");
        shares.after_a_second(&[(0, 1_000); 2], 100);
        for key in 0..20 {
            policy.change(key).keep(key, 1, Sharer::of(VIEWED));
            assert_eq!(kept_of_viewed(&policy, 0..20), key as usize + 1);
        }
        flood(&policy, 2_000..3_000);
        assert_eq!(policy.kept_of_each()[..2], [20, 80]);
        policy.change(0).forget();
        assert_eq!(policy.kept_of_each()[..2], [19, 80]);
    }

    #[test]
    fn room_is_made_whoever_is_guarded() {
        let (policy, _) = shared([1, 1], [1_000, 1_000]);
        for key in 0..50 {
            policy.change(key).keep(key, 1, Sharer::of(VIEWED));
        }
        flood(&policy, 1_000..2_000);
        let viewed = policy.kept_of_each()[0];
        assert_eq!(policy.evict(0, 6, None).len(), 6);
        assert_eq!(policy.kept_of_each()[..2], [viewed, 94 - viewed], "of what is nobody's own");
        // Of much anybody's leave.
        assert_eq!(policy.evict(0, 54, None).len(), 54);
        assert_eq!(policy.evict(0, u64::MAX, None).len(), 40);
        assert_eq!(policy.kept_of_each(), [0; SHARERS_MAX]);
    }

    #[test]
    fn whoever_needs_room_takes_what_is_his_but_not_anothers_own() {
        let (policy, _) = shared([1, 1], [1_000, 1_000]);
        for key in 0..20 {
            policy.change(key).keep(key, 1, Sharer::of(VIEWED));
        }
        flood(&policy, 1_000..1_010);
        let asking = |site| Some(Sharer::of(site));
        assert!(policy.evict(0, 11, asking(FLOOD)).is_empty(), "he has not so much");
        assert_eq!(policy.evict(0, 10, asking(FLOOD)).len(), 10);
        assert_eq!(policy.kept_of_each()[..2], [20, 0]);
        assert!(policy.evict(0, 1, asking(FLOOD)).is_empty());
        assert_eq!(policy.evict(0, 5, asking(VIEWED)).len(), 5);
        assert_eq!(policy.evict(0, u64::MAX, None).len(), 15);
    }

    #[test]
    fn nobody_loses_what_is_his_own_at_once_to_who_gives_back_what_he_borrowed() {
        let (policy, _) = shared([3, 1], [1_000, 1_000]);
        for key in 0..30 {
            policy.change(key).keep(key, 1, Sharer::of(VIEWED));
        }
        flood(&policy, 1_000..1_070);
        for key in 2_000..3_000 {
            let left = policy.change(key).keep(key, 1, Sharer::of(FLOOD));
            assert!(left.len() <= 2, "{left:?}");
        }
        assert_eq!(kept_of_viewed(&policy, 0..30), 30);
    }

    /// Each insertion looks for what may leave with the shard locked.
    #[test]
    fn an_insertion_passes_over_what_is_guarded_a_few_times_at_most() {
        const BLOCKS: u64 = 8_000;
        for (weights, is_hot) in
            [([10, 1, 1], true), ([10, 1, 1], false), ([1, 1, 1], true), ([1, 1, 1], false)]
        {
            let shares = no_shares();
            shares.set((0..).map(SiteId).zip(weights));
            shares.after_a_second(&[(0, BLOCKS); 3], BLOCKS);
            let settings = PolicySettings {
                capacity_bytes: BLOCKS,
                block_bytes_usual: 1,
                block_bytes_max: 1,
                sharding: Sharding { shard_bytes_min: BLOCKS, shards_max: 1 },
            };
            let policy: Policy<u64, u64> =
                Policy::new(settings, &shares, DefaultHashBuilder::default());
            let keep = |key: u64, site: u16| {
                policy.change(key).keep(key, 1, Sharer::of(SiteId(site)));
            };
            // Newcomers are cold once half of the shard is taken.
            (0..if is_hot { 0 } else { BLOCKS / 2 }).for_each(|key| keep(1_000_000 + key, 2));
            for site in 0..2 {
                let own = shares.ram_own(Sharer::of(SiteId(site)));
                let own = BLOCKS * u64::from(own) / u64::from(WHOLE);
                for key in (0..own).map(|key| key + u64::from(site) * BLOCKS) {
                    keep(key, site);
                    policy.get(&key);
                }
            }
            (0..BLOCKS).for_each(|key| keep(2_000_000 + key, 2));
            let asked = || policy.shards[0].owned.asked.load(Ordering::Relaxed);
            let (mut worst, began) = (0, asked());
            for key in 3_000_000..3_000_000 + 2 * BLOCKS {
                let before = asked();
                keep(key, 2);
                worst = worst.max(asked() - before);
                policy.get(&key);
            }
            let mean = (asked() - began) / (2 * BLOCKS);
            assert!(worst <= 2 * BLOCKS && mean <= 8, "{weights:?} {is_hot}: {worst} {mean}");
        }
    }
}
