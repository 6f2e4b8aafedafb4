//! What one thread counts: relaxed atomics in fixed arrays, indexed by closed enums.
//!
//! Counting is one uncontended add: no lock, no hash, no label text. A thread's counts lie on cache
//! lines of their own. Several threads may share a `Counters`; nothing is lost, it is only slower.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::labels::{
    BodyEnd, Handshake, Labels, Lookup, Method, OriginError, Protocol, Refusal, RunEnd, Scheme,
    StatusClass, Tier, TimeLimit, Wait,
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

    /// An estimate of the median: exact to its bucket, then as if the bucket were evenly filled.
    ///
    /// `None` when nothing was counted. A median above the last bound is told as the last bound.
    pub fn median(&self) -> Option<Duration> {
        let cumulated = self.cumulated();
        let half = cumulated[BUCKETS - 1] as f64 / 2.0;
        let bucket = cumulated.iter().position(|below| *below > 0 && *below as f64 >= half)?;
        let start_us = if bucket == 0 { 0 } else { BUCKETS_US[bucket - 1] };
        let Some(end_us) = BUCKETS_US.get(bucket) else {
            return Some(Duration::from_micros(start_us));
        };
        let before = if bucket == 0 { 0 } else { cumulated[bucket - 1] };
        let share = (half - before as f64) / (cumulated[bucket] - before) as f64;
        let micros = start_us as f64 + share * (end_us - start_us) as f64;
        Some(Duration::from_micros(micros as u64))
    }

    fn absorb(&self, other: &Self) {
        for (bucket, more) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum_us.fetch_add(other.sum_us.load(Ordering::Relaxed), Ordering::Relaxed);
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
    /// Response bodies, when their sending ends.
    pub bodies: Tally<BodyEnd, { BodyEnd::COUNT }>,
    /// Bytes of response bodies handed to connections.
    pub body_bytes: Tally<Tier, { Tier::COUNT }>,
    /// Look-ups of objects.
    pub lookups: Tally<Lookup, { Lookup::COUNT }>,
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
    /// Work refused for want of memory or room.
    pub refusals: Tally<Refusal, { Refusal::COUNT }>,
    /// Connections taken from a listener and served.
    pub connections_accepted: Tally<(), 1>,
    /// Connections closed at once because too many were open.
    pub connections_refused: Tally<(), 1>,
    /// Served connections that have ended; see [`Counters::connection`].
    connections_ended: Tally<(), 1>,
    /// TLS handshakes.
    pub handshakes: Tally<Handshake, { Handshake::COUNT }>,
    /// Connections closed by a time limit.
    pub time_limits: Tally<TimeLimit, { TimeLimit::COUNT }>,
    /// From a request's head being read to its first body byte being handed on.
    pub time_to_first_byte: [Durations; Wait::COUNT],
}

impl Counters {
    /// Counts an accepted connection as open until what is returned is dropped.
    pub fn connection(self: &Arc<Self>) -> OpenConnection {
        self.connections_accepted.count(());
        OpenConnection { counters: Arc::clone(self) }
    }

    /// Connections open now.
    pub fn connections_open(&self) -> u64 {
        // Ended first: read the other way round, one that opens and ends between would be missing.
        let ended = self.connections_ended.of(());
        self.connections_accepted.of(()).saturating_sub(ended)
    }

    /// Counts one wait for a first byte.
    pub fn observe_first_byte(&self, wait: Wait, duration: Duration) {
        self.time_to_first_byte[wait.index()].observe(duration);
    }

    /// Adds another thread's counts to these.
    pub(super) fn absorb(&self, other: &Counters) {
        // Taken apart by name, so that a field added above cannot be forgotten here.
        let Counters {
            requests,
            bodies,
            body_bytes,
            lookups,
            runs_started,
            runs_finished,
            origin_requests,
            origin_bytes,
            origin_errors,
            refusals,
            connections_accepted,
            connections_refused,
            connections_ended,
            handshakes,
            time_limits,
            time_to_first_byte,
        } = self;
        // The ended before the accepted, as in `connections_open`.
        connections_ended.absorb(&other.connections_ended);
        connections_accepted.absorb(&other.connections_accepted);
        connections_refused.absorb(&other.connections_refused);
        requests.absorb(&other.requests);
        bodies.absorb(&other.bodies);
        body_bytes.absorb(&other.body_bytes);
        lookups.absorb(&other.lookups);
        runs_finished.absorb(&other.runs_finished);
        runs_started.absorb(&other.runs_started);
        origin_requests.absorb(&other.origin_requests);
        origin_bytes.absorb(&other.origin_bytes);
        origin_errors.absorb(&other.origin_errors);
        refusals.absorb(&other.refusals);
        handshakes.absorb(&other.handshakes);
        time_limits.absorb(&other.time_limits);
        for (sum, more) in time_to_first_byte.iter().zip(&other.time_to_first_byte) {
            sum.absorb(more);
        }
    }
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    counters: Arc<Counters>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counters.connections_ended.count(());
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
    fn the_median_is_estimated_inside_its_bucket() {
        let durations = Durations::default();
        assert_eq!(durations.median(), None);
        for _ in 0..4 {
            durations.observe(Duration::from_micros(700));
        }
        assert_eq!(durations.median(), Some(Duration::from_micros(750)));
        for _ in 0..100 {
            durations.observe(Duration::from_secs(60));
        }
        assert_eq!(durations.median(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let counters = Arc::new(Counters::default());
        let (first, second) = (counters.connection(), counters.connection());
        drop(first);
        assert_eq!(counters.connections_open(), 1);
        drop(second);
        assert_eq!((counters.connections_open(), counters.connections_accepted.of(())), (0, 2));
    }

    #[test]
    fn threads_that_share_counters_lose_nothing() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counters.body_bytes.add(Tier::Ram, 3);
                        counters.observe_first_byte(Wait::Hit, Duration::from_micros(1));
                    }
                });
            }
        });
        assert_eq!(counters.body_bytes.of(Tier::Ram), 240_000);
        assert_eq!(counters.time_to_first_byte[0].cumulated()[11], 80_000);
    }
}
