//! What one thread counts: relaxed atomics in fixed arrays, indexed by closed enums.
//!
//! Counting is one uncontended add: no lock, no hash, no label text. A thread's counts lie on cache
//! lines of their own. Several threads may share a `Counters`; nothing is lost, it is only slower.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{SITE_COUNTS_BYTES, SITES_MAX};
use crate::object::SiteId;

use super::labels::{
    Barred, BodyEnd, Cached, CatShown, Cause, Labels, Lookup, Method, ObjectType, OriginError,
    Prefetch, Protocol, Refused, RunEnd, Scheme, Shown, StatusClass, Tier, Wait,
};

/// What a request is told apart by in the metrics.
pub type RequestLabels = ((Protocol, Scheme), (Method, StatusClass));

/// One count for each value of `L`; `N` is `L::COUNT`.
#[derive(Debug)]
pub struct Tally<L, const N: usize> {
    cells: [AtomicU64; N],
    labels: std::marker::PhantomData<fn(L)>,
}

impl<L: Labels, const N: usize> Default for Tally<L, N> {
    fn default() -> Self {
        const { assert!(N == L::COUNT, "a tally has one cell for each value of its label") };
        Tally { cells: [const { AtomicU64::new(0) }; N], labels: std::marker::PhantomData }
    }
}

impl<L: Labels, const N: usize> Tally<L, N> {
    /// Counts one.
    pub fn count(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `amount`.
    pub fn add(&self, labels: L, amount: u64) {
        self.cells[labels.index()].fetch_add(amount, Ordering::Relaxed);
    }

    /// The count of one value.
    pub fn of(&self, labels: L) -> u64 {
        self.cells[labels.index()].load(Ordering::Relaxed)
    }

    /// The counts of all values together.
    pub fn sum(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Each value with its count.
    pub fn each(&self) -> impl Iterator<Item = (L, u64)> {
        (0..N).map(|index| (L::at(index), self.cells[index].load(Ordering::Relaxed)))
    }

    fn absorb(&self, other: &Self) {
        for (cell, more) in self.cells.iter().zip(&other.cells) {
            cell.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// The upper bounds of a [`Durations`]' buckets in microseconds; one more bucket has none.
pub(super) const BUCKETS_US: [u64; 11] =
    [100, 250, 500, 1_000, 2_500, 10_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

const BUCKETS: usize = BUCKETS_US.len() + 1;

/// A histogram of durations for one label value.
#[derive(Debug, Default)]
pub struct Durations {
    /// How many fell in each bucket, not cumulated.
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Durations {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many lie at or below each bound, the last being all of them.
    pub fn cumulated(&self) -> [u64; BUCKETS] {
        let mut below = 0;
        std::array::from_fn(|index| {
            below += self.buckets[index].load(Ordering::Relaxed);
            below
        })
    }

    /// All durations together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// An estimate of the duration that `share` (0 to 1) of all did not pass.
    ///
    /// Exact to its bucket, then as if the bucket were evenly filled. `None` when nothing was
    /// counted; what lies above the last bound is told as the last bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let cumulated = self.cumulated();
        let rank = cumulated[BUCKETS - 1] as f64 * share;
        let bucket = cumulated.iter().position(|below| *below > 0 && *below as f64 >= rank)?;
        let start_us = if bucket == 0 { 0 } else { BUCKETS_US[bucket - 1] };
        let Some(end_us) = BUCKETS_US.get(bucket) else {
            return Some(Duration::from_micros(start_us));
        };
        let before = if bucket == 0 { 0 } else { cumulated[bucket - 1] };
        let within = (rank - before as f64) / (cumulated[bucket] - before) as f64;
        let micros = start_us as f64 + within * (end_us - start_us) as f64;
        Some(Duration::from_micros(micros as u64))
    }

    fn absorb(&self, other: &Self) {
        for (bucket, more) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum_us.fetch_add(other.sum_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The upper bounds of what players tell of their buffers, in milliseconds.
pub(super) const BUFFER_MS: [u64; LEVELS - 1] = [0, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
/// The upper bounds of what players tell of their throughput, in kbit/s.
pub(super) const THROUGHPUT_KBPS: [u64; LEVELS - 1] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000];
const LEVELS: usize = 8;

/// A histogram of what others measured; who counts and who reads use the same bounds.
#[derive(Debug, Default)]
pub struct Levels {
    buckets: [AtomicU64; LEVELS],
    sum: AtomicU64,
}

impl Levels {
    fn observe(&self, bounds: &[u64; LEVELS - 1], value: u64) {
        // Told by anybody: one liar must not overflow the sum of all.
        let value = value.min(bounds[LEVELS - 2] * 10);
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many lie at or below each bound, the last being all of them.
    pub fn cumulated(&self) -> [u64; LEVELS] {
        let mut below = 0;
        std::array::from_fn(|index| {
            below += self.buckets[index].load(Ordering::Relaxed);
            below
        })
    }

    /// All together.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    fn absorb(&self, other: &Self) {
        for (bucket, more) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum.fetch_add(other.sum(), Ordering::Relaxed);
    }
}

/// What players told of themselves (CMCD).
#[derive(Debug, Default)]
pub struct Players {
    /// Requests that told something, by what they ask for.
    pub requests: Tally<ObjectType, { ObjectType::COUNT }>,
    /// Those that told of a buffer that ran empty.
    pub starvations: Tally<(), 1>,
    /// Those for the start of playing, or after a seek or a starvation.
    pub startups: Tally<(), 1>,
    /// What they had buffered.
    pub buffer: Levels,
    /// What they measured.
    pub throughput: Levels,
    /// What they would ask for next.
    pub prefetches: Tally<Prefetch, { Prefetch::COUNT }>,
}

impl Players {
    /// Counts how much is buffered, in milliseconds.
    pub fn observe_buffer_ms(&self, millis: u64) {
        self.buffer.observe(&BUFFER_MS, millis);
    }

    /// Counts a throughput, in kbit/s.
    pub fn observe_throughput_kbps(&self, kbps: u64) {
        self.throughput.observe(&THROUGHPUT_KBPS, kbps);
    }

    fn absorb(&self, other: &Players) {
        let Players { requests, starvations, startups, buffer, throughput, prefetches } = self;
        requests.absorb(&other.requests);
        starvations.absorb(&other.starvations);
        startups.absorb(&other.startups);
        buffer.absorb(&other.buffer);
        throughput.absorb(&other.throughput);
        prefetches.absorb(&other.prefetches);
    }
}

/// What is counted of one site.
#[derive(Debug, Default)]
pub struct OfSite {
    /// Requests answered, when their head is sent.
    pub requests: Tally<StatusClass, { StatusClass::COUNT }>,
    /// Bytes of response bodies handed to connections.
    pub body_bytes: Tally<Tier, { Tier::COUNT }>,
    /// Body bytes received from origins.
    pub origin_bytes: Tally<(), 1>,
    /// What origins did wrong.
    pub origin_errors: Tally<(), 1>,
}

impl OfSite {
    pub(super) fn absorb(&self, other: &OfSite) {
        let OfSite { requests, body_bytes, origin_bytes, origin_errors } = self;
        requests.absorb(&other.requests);
        body_bytes.absorb(&other.body_bytes);
        origin_bytes.absorb(&other.origin_bytes);
        origin_errors.absorb(&other.origin_errors);
    }
}

/// What is counted of each site, and of what belongs to none.
#[derive(Debug)]
pub struct Sites {
    /// By their ids; each is made when the first of its sites is counted.
    groups: [OnceLock<Box<Group>>; GROUPS],
    none: OfSite,
}

/// Sites whose ids follow each other, on cache lines that no other thread writes.
#[derive(Debug)]
#[repr(align(128))]
struct Group([OfSite; SITES_PER_GROUP]);

/// As many as are made at once.
const SITES_PER_GROUP: usize = 64;
const GROUPS: usize = SITES_MAX.div_ceil(SITES_PER_GROUP);
const _: () = assert!(size_of::<OfSite>() as u64 <= SITE_COUNTS_BYTES);

impl Default for Sites {
    fn default() -> Self {
        Sites { groups: [const { OnceLock::new() }; GROUPS], none: OfSite::default() }
    }
}

impl Sites {
    /// Where `site` is counted.
    pub fn of(&self, site: SiteId) -> &OfSite {
        let index = usize::from(site.0);
        let group = self.groups[(index / SITES_PER_GROUP).min(GROUPS - 1)]
            .get_or_init(|| Box::new(Group(std::array::from_fn(|_| OfSite::default()))));
        &group.0[index % SITES_PER_GROUP]
    }

    /// Where what belongs to no site is counted.
    pub fn none(&self) -> &OfSite {
        &self.none
    }

    /// What is counted of `site`, if anything was.
    pub fn counted(&self, site: SiteId) -> Option<&OfSite> {
        let index = usize::from(site.0);
        let group = self.groups.get(index / SITES_PER_GROUP)?.get()?;
        Some(&group.0[index % SITES_PER_GROUP])
    }

    /// Each that something may have been counted of.
    pub fn each(&self) -> impl Iterator<Item = (SiteId, &OfSite)> {
        let made = self.groups.iter().enumerate().filter_map(|(at, it)| Some((at, it.get()?)));
        made.flat_map(|(at, group)| {
            let ids = (at * SITES_PER_GROUP..).map(|id| SiteId(id as u16));
            ids.zip(&group.0)
        })
    }

    /// Bytes of response bodies, whosever they were.
    pub fn body_bytes(&self) -> Tally<Tier, { Tier::COUNT }> {
        let sum = Tally::default();
        let sites = self.groups.iter().filter_map(OnceLock::get).flat_map(|group| &group.0);
        sites.chain([&self.none]).for_each(|site| sum.absorb(&site.body_bytes));
        sum
    }

    pub(super) fn absorb(&self, other: &Sites) {
        for (number, group) in other.groups.iter().enumerate() {
            for (place, more) in group.get().into_iter().flat_map(|group| &group.0).enumerate() {
                self.of(SiteId((number * SITES_PER_GROUP + place) as u16)).absorb(more);
            }
        }
        self.none.absorb(&other.none);
    }
}

/// Everything a thread counts, and, summed, everything the appliance has counted.
///
/// Aligned so that no two threads write one cache line (or the pair that is prefetched together).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Requests answered, when their head is sent.
    pub requests: Tally<RequestLabels, { RequestLabels::COUNT }>,
    /// Requests refused before anything was looked up.
    pub refused: Tally<Refused, { Refused::COUNT }>,
    /// Requests of who did not come in.
    pub barred: Tally<Barred, { Barred::COUNT }>,
    /// Requests for what is behind a token.
    pub shown: Tally<Shown, { Shown::COUNT }>,
    /// Common Access Tokens.
    pub cats: Tally<CatShown, { CatShown::COUNT }>,
    /// Response bodies, when their sending ends.
    pub bodies: Tally<BodyEnd, { BodyEnd::COUNT }>,
    /// Look-ups of objects.
    pub lookups: Tally<Lookup, { Lookup::COUNT }>,
    /// The same, by why the viewer asks here.
    pub steered: Tally<(Cause, Cached), { <(Cause, Cached)>::COUNT }>,
    /// Fill runs started.
    pub runs_started: Tally<(), 1>,
    /// Fill runs ended.
    pub runs_finished: Tally<RunEnd, { RunEnd::COUNT }>,
    /// Requests sent to origins, retries included.
    pub origin_requests: Tally<(), 1>,
    /// Body bytes received from origins.
    pub origin_bytes: Tally<(), 1>,
    /// What origins did wrong.
    pub origin_errors: Tally<OriginError, { OriginError::COUNT }>,
    /// What is told apart by site.
    pub sites: Sites,
    /// What players told.
    pub players: Players,
    /// From a request's head being read to its first body byte being handed on.
    pub time_to_first_byte: [Durations; Wait::COUNT],
}

impl Counters {
    /// Counts one wait for a first byte.
    pub fn observe_first_byte(&self, wait: Wait, duration: Duration) {
        self.time_to_first_byte[wait.index()].observe(duration);
    }

    /// The waits for a first byte, however they were spent.
    pub fn first_bytes(&self) -> Durations {
        let all = Durations::default();
        self.time_to_first_byte.iter().for_each(|durations| all.absorb(durations));
        all
    }

    /// Adds another thread's counts to these.
    pub(super) fn absorb(&self, other: &Counters) {
        // Taken apart by name, so that a field added above cannot be forgotten here.
        macro_rules! absorb {
            ($($counts:ident)*, $last:ident) => {
                let Counters { $($counts,)* $last } = self;
                $($counts.absorb(&other.$counts);)*
            };
        }
        absorb!(
            requests refused barred shown cats bodies lookups steered runs_started runs_finished
            origin_requests origin_bytes origin_errors sites players, time_to_first_byte
        );
        let waits = time_to_first_byte.iter().zip(&other.time_to_first_byte);
        waits.for_each(|(sum, more)| sum.absorb(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let durations = Durations::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        durations.observe(Duration::MAX);
        assert_eq!(durations.cumulated(), [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 6]);
    }

    #[test]
    fn a_quantile_is_estimated_inside_its_bucket() {
        let durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        for _ in 0..4 {
            durations.observe(Duration::from_micros(700));
        }
        assert_eq!(durations.quantile(0.5), Some(Duration::from_micros(750)));
        assert_eq!(durations.quantile(1.0), Some(Duration::from_micros(1_000)));
        for _ in 0..4 {
            durations.observe(Duration::from_secs(60));
        }
        assert_eq!(durations.quantile(0.25), Some(Duration::from_micros(750)));
        assert_eq!(durations.quantile(0.9), Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_a_player_claims_falls_in_a_bucket_and_cannot_overflow() {
        let players = Players::default();
        for millis in [0, 1, 500, 501, 30_000, 30_001, u64::MAX] {
            players.observe_buffer_ms(millis);
        }
        assert_eq!(players.buffer.cumulated(), [1, 3, 4, 4, 4, 4, 5, 7]);
        assert_eq!(players.buffer.sum(), 1 + 500 + 501 + 30_000 + 30_001 + 300_000);
    }

    #[test]
    fn threads_that_share_counters_lose_nothing() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counters.sites.none().body_bytes.add(Tier::Ram, 3);
                        counters.observe_first_byte(Wait::Hit, Duration::from_micros(1));
                    }
                });
            }
        });
        assert_eq!(counters.sites.body_bytes().of(Tier::Ram), 240_000);
        counters.observe_first_byte(Wait::Miss, Duration::from_secs(1));
        assert_eq!(counters.first_bytes().cumulated()[11], 80_001);
    }
}
