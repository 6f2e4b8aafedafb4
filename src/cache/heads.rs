//! Heads: what an object's URL leads to, before any block can be found.
//!
//! An object has variants (`Vary`), each with a head: the stored response without its body, and the
//! version its blocks belong to. Heads are mutable, the newest wins; they are bounded by weight and
//! forgotten like anything else in ram. Bodies are not here. A version is immutable but for what is
//! learned of it.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::limits::VARIANTS_PER_OBJECT_MAX;
use crate::message::conditional::Validator;
use crate::message::freshness::Freshness;
use crate::message::response::Stored;
use crate::message::vary::VariantKey;
use crate::moment::unix_millis;
use crate::object::{ObjectKey, VersionId};
use crate::purge::{Birth, Tags};

/// One immutable body: what decides whether a fill may join it.
#[derive(Debug)]
pub struct Version {
    /// The number its blocks are found by.
    pub id: VersionId,
    /// When it was asked for, in microseconds of Unix time: what is purged later is older.
    pub birth: u64,
    /// Entity tag and modification date it came with.
    pub validator: Validator,
    length_bytes: AtomicU64,
    ranges: AtomicU8,
    changed: AtomicBool,
    is_false: AtomicBool,
    /// Who left it as it is, of those who would make other bytes of it, by his number from 1 on.
    pub left_alone_by: AtomicU64,
    /// Milliseconds of Unix time: when it was last asked about although it need not have been.
    asked_at: AtomicU64,
    /// The same: until when its origin, which failed, is not asked about it.
    rests_until: AtomicU64,
}

/// Stands for a length not known yet; no object is this long.
const UNKNOWN_LENGTH: u64 = u64::MAX;
/// Stands for an origin that has not been asked for a range yet; else one of [`Ranges`].
const RANGES_UNKNOWN: u8 = 0;

/// What an origin made of a request for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ranges {
    /// It answered with the range.
    Honoured = 1,
    /// It answered with the whole body.
    Ignored = 2,
}

impl Version {
    /// A version nothing is held of yet; `length_bytes` may not be known.
    pub fn new(
        id: VersionId,
        birth: u64,
        validator: Validator,
        length_bytes: Option<u64>,
    ) -> Version {
        Version {
            id,
            birth,
            validator,
            length_bytes: AtomicU64::new(length_bytes.unwrap_or(UNKNOWN_LENGTH)),
            ranges: AtomicU8::new(RANGES_UNKNOWN),
            changed: AtomicBool::new(false),
            is_false: AtomicBool::new(false),
            left_alone_by: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
        }
    }

    /// Takes the turn to ask the origin about it at a viewer's wish, or behind an answer: there is
    /// one in [`ASKED_ABOUT_EACH`]. Who gets it asks.
    pub fn takes_turn_to_ask(&self, now: SystemTime) -> bool {
        let last = self.asked_at.load(Ordering::Relaxed);
        let relaxed = Ordering::Relaxed;
        let take =
            || self.asked_at.compare_exchange(last, unix_millis(now), relaxed, relaxed).is_ok();
        !self.was_asked_about(now) && take()
    }

    /// Whether it was asked about so within [`ASKED_ABOUT_EACH`].
    pub fn was_asked_about(&self, now: SystemTime) -> bool {
        let last = self.asked_at.load(Ordering::Relaxed);
        // A clock that was set back must not keep anybody from asking.
        unix_millis(now).abs_diff(last) < ASKED_ABOUT_EACH.as_millis() as u64
    }

    /// The origin failed when it was asked about it: it has a rest of [`REST_AFTER_FAILURE`].
    pub fn rest(&self, now: SystemTime) {
        let until = unix_millis(now) + REST_AFTER_FAILURE.as_millis() as u64;
        self.rests_until.store(until, Ordering::Relaxed);
    }

    /// Whether the origin has a rest from being asked about it.
    pub fn rests(&self, now: SystemTime) -> bool {
        let left = self.rests_until.load(Ordering::Relaxed).saturating_sub(unix_millis(now));
        (1..=REST_AFTER_FAILURE.as_millis() as u64).contains(&left)
    }

    /// The body's length in bytes, once known.
    pub fn length_bytes(&self) -> Option<u64> {
        let length_bytes = self.length_bytes.load(Ordering::Acquire);
        (length_bytes != UNKNOWN_LENGTH).then_some(length_bytes)
    }

    /// Learns the length; false when another length is already known.
    pub fn learn_length(&self, length_bytes: u64) -> bool {
        let learned = self.length_bytes.compare_exchange(
            UNKNOWN_LENGTH,
            length_bytes,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        learned.is_ok() || learned == Err(length_bytes)
    }

    /// Remembers what the origin made of the last request for a range.
    pub fn learn_ranges(&self, ranges: Ranges) {
        self.ranges.store(ranges as u8, Ordering::Relaxed);
    }

    /// Whether a missing part can be asked for later and joined to what is held: only a strong
    /// validator proves that both are of one body (RFC 9111 section 3.4), and the origin must
    /// honour ranges.
    pub fn is_resumable(&self) -> bool {
        self.validator.is_strong() && !self.ranges_ignored()
    }

    /// What the origin made of the last request for a range, once one was asked for.
    pub fn ranges(&self) -> Option<Ranges> {
        let ranges = self.ranges.load(Ordering::Relaxed);
        [Ranges::Honoured, Ranges::Ignored].into_iter().find(|known| *known as u8 == ranges)
    }

    /// Whether the origin is known to answer a range request with the whole body.
    pub fn ranges_ignored(&self) -> bool {
        self.ranges.load(Ordering::Relaxed) == Ranges::Ignored as u8
    }

    /// The origin now has another body under this URL: nothing more can be filled into this one.
    pub fn mark_changed(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// The origin has sent as this body what its own digest says is another.
    pub fn mark_false(&self) {
        self.is_false.store(true, Ordering::Release);
        self.mark_changed();
    }

    /// Whether it did: to ask again at once would bring the same.
    pub fn is_false(&self) -> bool {
        self.is_false.load(Ordering::Acquire)
    }

    /// Whether the origin was seen with another body.
    pub fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }
}

/// Viewers who want a fresher copy than they need cost the origin one request in this time.
pub const ASKED_ABOUT_EACH: Duration = Duration::from_secs(1);
/// What is served because its origin fails is asked about again after this.
pub const REST_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// One variant's stored response: everything but the bytes.
#[derive(Clone, Debug)]
pub struct Head {
    /// The body it leads to.
    pub version: Arc<Version>,
    /// Its status, fields and validator; 200 for anything that came as 206.
    pub stored: Stored,
    /// Until when it may be served without asking.
    pub freshness: Freshness,
    /// The values of the request fields it was selected by.
    pub variant: VariantKey,
    /// When its origin was asked for it, or about it: what was purged later covers it.
    pub birth: Birth,
    /// What else it is purged by.
    pub tags: Tags,
}

impl Head {
    /// Whether a request with these fields is answered by this variant (RFC 9111 section 4.1).
    pub fn is_selected_by(&self, request_fields: &HeaderMap) -> bool {
        let key = VariantKey::of(self.stored.vary(), request_fields);
        key.is_some_and(|key| key == self.variant)
    }

    fn weight_bytes(&self) -> u64 {
        let fields = self.stored.size_bytes() + self.variant.size_bytes();
        (fields + self.tags.size_bytes()) as u64 + HEAD_WEIGHT_BYTES
    }
}

/// A head without its fields, with its place in the table.
const HEAD_WEIGHT_BYTES: u64 = 384;

/// What is known of an object for one request.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// Variants, none of them for this request.
    OtherVariants,
    /// A stored response selected by the request's fields; fresh or stale.
    Variant(Arc<Head>),
    /// Its responses may not be shared, for a while.
    Uncacheable,
}

#[derive(Clone, Debug)]
enum Entry {
    Object(Arc<[Arc<Head>]>),
    Uncacheable { until: Instant },
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<ObjectKey, Entry> for ByBytes {
    fn weight(&self, key: &ObjectKey, entry: &Entry) -> u64 {
        let heads = match entry {
            Entry::Object(heads) => heads.iter().map(|head| head.weight_bytes()).sum(),
            Entry::Uncacheable { .. } => 0,
        };
        OBJECT_WEIGHT_BYTES + key.target().len() as u64 + heads
    }
}

/// A key and its entry in the table.
const OBJECT_WEIGHT_BYTES: u64 = 192;
/// Locks that order changes of one object's heads.
const STRIPES: usize = 64;

type Table =
    Cache<ObjectKey, Entry, ByBytes, DefaultHashBuilder, DefaultLifecycle<ObjectKey, Entry>>;

/// All heads held, bounded by weight.
pub struct Heads {
    table: Table,
    hasher: DefaultHashBuilder,
    stripes: [Mutex<()>; STRIPES],
}

impl Heads {
    /// Keeps heads of up to `bytes_max` in all.
    pub fn new(bytes_max: u64) -> Heads {
        let hasher = DefaultHashBuilder::default();
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / (2 * HEAD_WEIGHT_BYTES)).max(64) as usize)
            .shards((bytes_max / HEADS_PER_SHARD_BYTES).clamp(1, 64) as usize)
            .hot_allocation(0.7)
            .build()
            .expect("a weight and an item capacity are given");
        let lifecycle = DefaultLifecycle::default();
        let table = Cache::with_options(options, ByBytes, hasher.clone(), lifecycle);
        Heads { table, hasher, stripes: [const { Mutex::new(()) }; STRIPES] }
    }

    /// What is known of `key` for a request with these fields.
    pub fn find(&self, key: &ObjectKey, request_fields: &HeaderMap, now: Instant) -> Known {
        match self.table.get(key) {
            None => Known::Nothing,
            Some(Entry::Uncacheable { until }) if now < until => Known::Uncacheable,
            Some(Entry::Uncacheable { .. }) => Known::Nothing,
            Some(Entry::Object(heads)) => {
                let selected = heads.iter().find(|head| head.is_selected_by(request_fields));
                selected.map_or(Known::OtherVariants, |head| Known::Variant(head.clone()))
            }
        }
    }

    /// Stores `head` as the newest of its variant. Variants of another `Vary` are forgotten, and
    /// the oldest when there would be too many.
    pub fn store(&self, key: ObjectKey, head: Arc<Head>) {
        self.store_unless(key, head, || false);
    }

    /// The same, unless it is too late for it by then.
    pub fn store_unless(&self, key: ObjectKey, head: Arc<Head>, is_late: impl FnOnce() -> bool) {
        let _ordered = self.order(&key);
        if is_late() {
            return;
        }
        let mut heads = vec![head.clone()];
        if let Some(Entry::Object(old)) = self.table.peek(&key) {
            let beside = |other: &&Arc<Head>| {
                other.stored.vary() == head.stored.vary() && other.variant != head.variant
            };
            heads.extend(old.iter().filter(beside).take(VARIANTS_PER_OBJECT_MAX - 1).cloned());
        }
        self.table.insert(key, Entry::Object(heads.into()));
    }

    /// Puts `new` in the place of `old`, if that is still there.
    pub fn replace(&self, key: &ObjectKey, old: &Arc<Head>, new: &Arc<Head>) {
        let _ordered = self.order(key);
        let Some(Entry::Object(heads)) = self.table.peek(key) else { return };
        if heads.iter().any(|head| Arc::ptr_eq(head, old)) {
            let swapped = |head| if Arc::ptr_eq(head, old) { new } else { head };
            let heads: Vec<_> = heads.iter().map(swapped).cloned().collect();
            self.table.insert(key.clone(), Entry::Object(heads.into()));
        }
    }

    /// Puts back what an ssd, or the process before, remembers of an object, unless something newer
    /// is known by now, or it is too late for it.
    pub fn restore(&self, key: ObjectKey, heads: Vec<Arc<Head>>, is_late: impl FnOnce() -> bool) {
        let _ordered = self.order(&key);
        if !heads.is_empty() && self.table.peek(&key).is_none() && !is_late() {
            self.table.insert(key, Entry::Object(heads.into()));
        }
    }

    /// All variants known of an object, the newest first, without counting as a use.
    pub fn variants(&self, key: &ObjectKey) -> Vec<Arc<Head>> {
        match self.table.peek(key) {
            Some(Entry::Object(heads)) => heads.to_vec(),
            Some(Entry::Uncacheable { .. }) | None => Vec::new(),
        }
    }

    /// Forgets the variant that leads to `version`, if it still does.
    pub fn forget(&self, key: &ObjectKey, version: VersionId) {
        let _ordered = self.order(key);
        let Some(Entry::Object(old)) = self.table.peek(key) else { return };
        let left: Vec<_> = old.iter().filter(|head| head.version.id != version).cloned().collect();
        if left.is_empty() {
            self.table.remove(key);
        } else if left.len() < old.len() {
            self.table.insert(key.clone(), Entry::Object(left.into()));
        }
    }

    /// Forgets all variants.
    pub fn forget_all(&self, key: &ObjectKey) {
        let _ordered = self.order(key);
        if let Some(Entry::Object(_)) = self.table.peek(key) {
            self.table.remove(key);
        }
    }

    /// Remembers that responses for `key` may not be shared, until then.
    pub fn remember_uncacheable(&self, key: ObjectKey, until: Instant) {
        let _ordered = self.order(&key);
        self.table.insert(key, Entry::Uncacheable { until });
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.table.clear();
    }

    /// No more heads than this have room.
    pub fn heads_max(&self) -> usize {
        (self.table.capacity() / HEAD_WEIGHT_BYTES) as usize
    }

    /// Bytes held.
    pub fn weight_bytes(&self) -> u64 {
        self.table.weight()
    }

    /// Objects known, in no order; nobody waits for whoever goes through them.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectKey, Arc<[Arc<Head>]>)> {
        self.table.iter().filter_map(|(key, entry)| match entry {
            Entry::Object(heads) => Some((key, heads)),
            Entry::Uncacheable { .. } => None,
        })
    }

    /// Held while the heads of `key` are changed, so that no change misses another.
    fn order(&self, key: &ObjectKey) -> MutexGuard<'_, ()> {
        let stripe = self.hasher.hash_one(key) as usize % STRIPES;
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shard refuses what is heavier than its hot share: it must hold the largest head many times
/// over.
const HEADS_PER_SHARD_BYTES: u64 = 4 << 20;
