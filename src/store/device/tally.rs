//! What a device counts while it works: relaxed atomics, read by whoever asks.
//!
//! Figures of one moment need not agree with each other to the last operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::queue::Lane;
use super::{DeviceFigures, LATENCY_BOUNDS, Urgency};

/// The counters behind `DeviceFigures`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    reads: [AtomicU64; Urgency::ALL.len()],
    writes: [AtomicU64; Urgency::ALL.len()],
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    errors: AtomicU64,
    flush_errors: AtomicU64,
    depth: AtomicU64,
    read_latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    read_latency_nanos: AtomicU64,
}

impl Tally {
    /// A transfer was queued.
    pub(super) fn queued(&self) {
        add(&self.depth, 1);
    }

    /// A transfer left without having been tried.
    pub(super) fn abandoned(&self) {
        add(&self.errors, 1);
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// A transfer ended well; `bytes` were moved, `took` since it was queued.
    pub(super) fn succeeded(&self, lane: Lane, urgency: Urgency, bytes: usize, took: Duration) {
        let bytes = bytes as u64;
        match lane {
            Lane::Read => {
                add(&self.reads[urgency as usize], 1);
                add(&self.read_bytes, bytes);
                self.timed(took);
            }
            Lane::Write => {
                add(&self.writes[urgency as usize], 1);
                add(&self.written_bytes, bytes);
            }
            Lane::Flush => add(&self.flushes, 1),
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// A transfer ended with an error. A read that fails has kept its viewer waiting too.
    pub(super) fn failed(&self, lane: Lane, took: Duration) {
        add(&self.errors, 1);
        match lane {
            Lane::Read => self.timed(took),
            Lane::Write => {}
            Lane::Flush => add(&self.flush_errors, 1),
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// As they stand.
    pub(super) fn figures(&self) -> DeviceFigures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DeviceFigures {
            reads: self.reads.each_ref().map(read),
            writes: self.writes.each_ref().map(read),
            read_bytes: read(&self.read_bytes),
            written_bytes: read(&self.written_bytes),
            flushes: read(&self.flushes),
            errors: read(&self.errors),
            flush_errors: read(&self.flush_errors),
            depth: read(&self.depth),
            read_latency: self.read_latency.each_ref().map(read),
            read_latency_sum: Duration::from_nanos(read(&self.read_latency_nanos)),
        }
    }

    fn timed(&self, took: Duration) {
        add(&self.read_latency[LATENCY_BOUNDS.partition_point(|bound| *bound < took)], 1);
        add(&self.read_latency_nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_in_the_first_bound_it_does_not_exceed() {
        let tally = Tally::default();
        for took in [0, 100, 101, 2_000_000, 2_000_001] {
            tally.queued();
            tally.succeeded(Lane::Read, Urgency::Promote, 4096, Duration::from_micros(took));
        }
        let figures = tally.figures();
        assert_eq!(figures.read_latency, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(figures.reads, [0, 0, 5, 0, 0, 0]);
        assert_eq!((figures.read_bytes, figures.depth), (5 * 4096, 0));
        assert_eq!(figures.read_latency_sum, Duration::from_micros(4_000_202));
    }
}
