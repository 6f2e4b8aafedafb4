//! Who follows the log live: each request that a reader wants, with every decision about it.
//!
//! A reader has a bounded ring of his own. A serving thread puts in what fits and counts what does
//! not: it never waits. While nobody follows, a request costs one look at a number; where nobody
//! had room when it began, its end costs a look at what each wants, to count it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{error, fmt, mem};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::entry::Entry;
use super::filter::Filter;
use super::personal::Discretion;
use super::trace::{Trace, Tracing};
use crate::limits::{
    LOG_READER_BYTES, LOG_READER_LINES_MAX, LOG_READERS_MAX, SEND_BUFFER_BYTES_MAX, TRACE_BYTES,
};
use crate::memory::{Class, Governor, Reservation, Use};

/// Everybody who follows the log.
#[derive(Debug, Default)]
pub(super) struct Readers {
    count: AtomicUsize,
    all: ArcSwap<Vec<Arc<Ring>>>,
    /// Who comes and goes does so one by one.
    changing: Mutex<()>,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Ring {
    filter: Filter,
    waiting: Mutex<Waiting>,
    /// As `waiting` was when it was last looked at.
    is_full: AtomicBool,
    joined: Instant,
    arrived: Notify,
    _reserved: Reservation,
}

#[derive(Debug)]
struct Waiting {
    /// Lines, one after the other.
    text: String,
    lines: usize,
    lost: u64,
}

/// One who follows the log; dropped, he does no longer.
#[derive(Debug)]
pub struct Following {
    ring: Arc<Ring>,
    shared: Arc<super::Shared>,
    /// Changes places with what waits.
    taken: String,
    has_read: bool,
    /// He was told all there is.
    has_ended: bool,
}

/// Why nobody more may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowError {
    /// As many follow as may.
    Full,
    /// There is no memory for his ring.
    Memory,
    /// The log is at its end.
    Ended,
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowError::Full => write!(f, "{LOG_READERS_MAX} follow the log, and no more may"),
            FollowError::Memory => write!(f, "there is no memory to spare to follow the log with"),
            FollowError::Ended => write!(f, "the appliance is at its end"),
        }
    }
}

impl error::Error for FollowError {}

impl Readers {
    /// Where the decisions about a request go, while anybody wants to know them and has room.
    pub(super) fn trace(&self, begun: Instant, governor: &Arc<Governor>) -> Tracing {
        match self.count.load(Ordering::Relaxed) {
            0 => Tracing::Off,
            _ => self.paid_for(begun, governor),
        }
    }

    #[cold]
    fn paid_for(&self, begun: Instant, governor: &Arc<Governor>) -> Tracing {
        let all = self.all.load();
        if all.is_empty() {
            return Tracing::Off;
        }
        if all.iter().all(|ring| ring.is_full.load(Ordering::Relaxed)) {
            return Tracing::Lost { begun };
        }
        match governor.try_reserve(Use::Requests, Class::Admission, TRACE_BYTES) {
            Some(reserved) => Tracing::Kept(Box::new(Trace::new(begun, reserved))),
            None => Tracing::Lost { begun },
        }
    }

    /// A request has ended: tells those who want to know of it, in a line made of the log's.
    #[cold]
    pub(super) fn tell<'a>(
        &self,
        entry: &Entry<'_>,
        tracing: &Tracing,
        discretion: &Discretion,
        logged: impl Fn() -> &'a str,
    ) {
        let mut line = None;
        for ring in self.all.load().iter() {
            if !ring.filter.admits(entry, discretion) {
                continue;
            }
            match tracing {
                Tracing::Kept(trace) if ring.has_room() => {
                    ring.add(line.get_or_insert_with(|| trace.to_line(logged(), entry)));
                }
                // It is no loss to who came only then: he had room.
                Tracing::Lost { begun } if *begun < ring.joined => {}
                _ => ring.lose(),
            }
        }
    }

    /// Nobody is told anything more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.all.load().iter().for_each(|ring| ring.arrived.notify_one());
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Arc<Ring>>) -> Result<(), FollowError>,
    ) -> Result<(), FollowError> {
        let _one_by_one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.all.load().to_vec();
        change(&mut all)?;
        let count = all.len();
        self.all.store(Arc::new(all));
        self.count.store(count, Ordering::Relaxed);
        Ok(())
    }
}

impl Ring {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line is worth writing.
    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Adds a line, or counts it where it has no room.
    fn add(&self, line: &str) {
        let mut waiting = self.waiting();
        waiting.add(line);
        self.is_full.store(waiting.is_full(), Ordering::Relaxed);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Counts one without a line.
    fn lose(&self) {
        self.waiting().lost += 1;
        self.arrived.notify_one();
    }

    /// What waits, in the place of `empty`, and how much was lost.
    fn take(&self, empty: &mut String) -> u64 {
        let mut waiting = self.waiting();
        self.is_full.store(false, Ordering::Relaxed);
        waiting.lines = 0;
        mem::swap(&mut waiting.text, empty);
        mem::take(&mut waiting.lost)
    }
}

impl Following {
    /// Joins those who follow.
    pub(super) fn join(
        shared: &Arc<super::Shared>,
        filter: Filter,
        governor: &Arc<Governor>,
    ) -> Result<Following, FollowError> {
        let readers = &shared.readers;
        if readers.ended.load(Ordering::Acquire) {
            return Err(FollowError::Ended);
        }
        let reserved = governor.try_reserve(Use::Requests, Class::Admission, LOG_READER_BYTES);
        let reserved = reserved.ok_or(FollowError::Memory)?;
        let ring = Arc::new(Ring {
            filter,
            waiting: Mutex::new(Waiting::new()),
            is_full: AtomicBool::new(false),
            joined: Instant::now(),
            arrived: Notify::new(),
            _reserved: reserved,
        });
        readers.change(|all| {
            if all.len() >= LOG_READERS_MAX {
                return Err(FollowError::Full);
            }
            all.push(ring.clone());
            Ok(())
        })?;
        let taken = String::with_capacity(TEXT_BYTES);
        Ok(Following { ring, shared: shared.clone(), taken, has_read: false, has_ended: false })
    }

    /// The next lines, and in a line of its own how many were lost, most of them behind these;
    /// `None` at the end. Dropping it midway is safe.
    pub async fn next(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        if self.has_read {
            // To be woken for each request would cost more than to tell of it.
            sleep(READ_PAUSE).await;
        }
        self.has_read = true;
        loop {
            self.has_ended = self.shared.readers.ended.load(Ordering::Acquire);
            let told = self.take();
            if told.is_some() || self.has_ended {
                return told;
            }
            self.ring.arrived.notified().await;
        }
    }

    fn take(&mut self) -> Option<String> {
        // It is copied while nobody waits for the ring.
        let lost = self.ring.take(&mut self.taken);
        let mut told = String::with_capacity(self.taken.len() + LOST_BYTES);
        told.push_str(&self.taken);
        self.taken.clear();
        if lost > 0 {
            told.push_str("{\"lost\":");
            told.push_str(itoa::Buffer::new().format(lost));
            told.push_str("}\n");
        }
        Some(told).filter(|told| !told.is_empty())
    }
}

impl Waiting {
    /// Nothing yet, with all the room there will be.
    fn new() -> Waiting {
        Waiting { text: String::with_capacity(TEXT_BYTES), lines: 0, lost: 0 }
    }

    fn add(&mut self, line: &str) {
        if self.is_full() || self.text.len() + line.len() > TEXT_BYTES {
            self.lost += 1;
            return;
        }
        self.text.push_str(line);
        self.lines += 1;
    }

    fn is_full(&self) -> bool {
        self.lines >= LOG_READER_LINES_MAX || self.text.len() + TRACE_BYTES as usize > TEXT_BYTES
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let left = self.shared.readers.change(|all| {
            all.retain(|ring| !Arc::ptr_eq(ring, &self.ring));
            Ok(())
        });
        left.expect("whoever may leave");
    }
}

/// Between two readings of a ring: with its lines it bounds what a reader costs the appliance.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// What waits changes places with what was told last; a copy of that waits for the connection
/// behind the rest of one before it, which is held whole, and small ones.
const TEXT_BYTES: usize = (LOG_READER_BYTES as usize - SEND_BUFFER_BYTES_MAX) / 4 - LOST_BYTES;
const LOST_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::super::{AccessLog, Destination, Recent, Settings};
    use super::*;

    fn log() -> AccessLog {
        let settings = Settings::of(Destination::Off, Recent::NotKept);
        AccessLog::start(&settings).unwrap().0
    }

    fn ends(log: &AccessLog, governor: &Arc<Governor>, path: &str) {
        log.record(&entry(path), &log.trace(Instant::now(), governor));
    }

    fn ends_as(log: &AccessLog, tracing: Tracing) {
        log.record(&entry("/"), &tracing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_too_slowly_loses_requests_and_is_told_how_many() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let mut following = log.follow(Filter::EVERYTHING, &governor).unwrap();
        for number in 0..LOG_READER_LINES_MAX + 7 {
            ends(&log, &governor, &format!("/{number}"));
        }
        let told = following.next().await.unwrap();
        let lines: Vec<&str> = told.lines().collect();
        let (lost, told) = lines.split_last().unwrap();
        assert_eq!((*lost, told.len()), ("{\"lost\":7}", LOG_READER_LINES_MAX));
        assert!(told[0].contains("\"path\":\"/0\""), "{}", told[0]);
        ends(&log, &governor, "/next");
        let told = following.next().await.unwrap();
        assert!(told.contains("\"path\":\"/next\"") && told.lines().count() == 1, "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_while_nobody_has_room_is_lost_to_those_who_want_it() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let mut everything = log.follow(Filter::EVERYTHING, &governor).unwrap();
        let some = Filter::parse("path ~ seg").unwrap();
        let mut segments = log.follow(some, &governor).unwrap();
        let trace = || log.trace(Instant::now(), &governor);
        for _ in 0..LOG_READER_LINES_MAX {
            ends(&log, &governor, "/seg");
        }
        let begun = trace();
        assert!(matches!(begun, Tracing::Lost { .. }), "nobody has room");
        let mut late = log.follow(Filter::EVERYTHING, &governor).unwrap();
        log.record(&entry("/other"), &begun);
        assert!(!segments.next().await.unwrap().contains("lost"), "he does not want it");
        let kept = trace();
        assert!(matches!(kept, Tracing::Kept(_)), "one has room");
        log.record(&entry("/seg"), &kept);
        assert_eq!(segments.next().await.unwrap().lines().count(), 1);
        assert!(everything.next().await.unwrap().ends_with("}\n{\"lost\":2}\n"));
        assert_eq!(late.next().await.unwrap().lines().count(), 1, "he came when it had begun");
        // He has room by now, and nothing is known of it.
        log.record(&entry("/seg"), &begun);
        assert_eq!(everything.next().await.unwrap(), "{\"lost\":1}\n");
    }

    #[test]
    fn what_waits_for_a_reader_is_bounded_in_bytes_too() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let mut following = log.follow(Filter::EVERYTHING, &governor).unwrap();
        let long = "\u{1}".repeat(2_048);
        for _ in 0..LOG_READER_LINES_MAX {
            ends(&log, &governor, &long);
        }
        let waiting = following.ring.waiting();
        assert!(waiting.lost > 0, "each line has over 12 KiB");
        assert!(waiting.text.len() > TEXT_BYTES - (64 << 10), "{}", waiting.text.len());
        drop(waiting);
        for _ in 0..2 {
            let told = following.take().unwrap();
            assert!(told.capacity() <= TEXT_BYTES + LOST_BYTES);
            let capacities = (following.ring.waiting().text.capacity(), following.taken.capacity());
            assert_eq!(capacities, (TEXT_BYTES, TEXT_BYTES));
            ends(&log, &governor, "/");
        }
    }

    #[test]
    fn nothing_is_kept_for_nobody_and_memory_is_given_back() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let used = || governor.used_bytes(Use::Requests);
        assert!(matches!(log.trace(Instant::now(), &governor), Tracing::Off));
        let following: Vec<_> = (0..LOG_READERS_MAX)
            .map(|_| log.follow(Filter::EVERYTHING, &governor).unwrap())
            .collect();
        let refused = log.follow(Filter::EVERYTHING, &governor).unwrap_err();
        assert_eq!(refused.to_string(), "4 follow the log, and no more may");
        let trace = log.trace(Instant::now(), &governor);
        assert_eq!(used(), LOG_READERS_MAX as u64 * LOG_READER_BYTES + TRACE_BYTES);
        drop((following, trace));
        assert!(matches!(log.trace(Instant::now(), &governor), Tracing::Off));
        assert_eq!(used(), 0);
        let scarce = Governor::new(0, LOG_READER_BYTES, Arc::default());
        let refused = log.follow(Filter::EVERYTHING, &scarce).unwrap_err();
        assert_eq!(refused, FollowError::Memory);
    }

    #[tokio::test]
    async fn at_the_end_readers_are_told_what_there_is_and_let_go() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let mut following = log.follow(Filter::EVERYTHING, &governor).unwrap();
        ends(&log, &governor, "/last");
        log.end_following();
        assert!(following.next().await.unwrap().contains("/last"));
        // Others go on while it drains.
        ends_as(&log, Tracing::Lost { begun: Instant::now() });
        assert_eq!(following.next().await, None);
        let refused = log.follow(Filter::EVERYTHING, &governor).unwrap_err();
        assert_eq!(refused, FollowError::Ended);
    }
}
