//! Who follows the log live: each request that a reader wants, with every decision about it.
//!
//! A reader has a bounded ring of his own. A serving thread puts in what fits and counts what does
//! not: it never waits. While nobody follows, a request costs one look at a number.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{error, fmt};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::entry::Entry;
use super::filter::Filter;
use super::personal::Discretion;
use super::trace::Trace;
use crate::limits::{LOG_READER_BYTES, LOG_READER_LINES_MAX, LOG_READERS_MAX, TRACE_BYTES};
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
    arrived: Notify,
    _reserved: Reservation,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    lost: u64,
}

/// One who follows the log; dropped, he does no longer.
#[derive(Debug)]
pub struct Following {
    ring: Arc<Ring>,
    shared: Arc<super::Shared>,
    has_read: bool,
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
    /// Where the decisions about a request go, while anybody wants to know them. Without memory for
    /// them they are lost to everybody.
    pub(super) fn trace(&self, begun: Instant, governor: &Arc<Governor>) -> Option<Box<Trace>> {
        match self.count.load(Ordering::Relaxed) {
            0 => None,
            _ => self.paid_for(begun, governor),
        }
    }

    #[cold]
    fn paid_for(&self, begun: Instant, governor: &Arc<Governor>) -> Option<Box<Trace>> {
        let reserved = governor.try_reserve(Use::Requests, Class::Admission, TRACE_BYTES);
        if reserved.is_none() {
            self.all.load().iter().for_each(|ring| ring.waiting().lost += 1);
        }
        reserved.map(|reserved| Box::new(Trace::new(begun, reserved)))
    }

    /// A request has ended: tells those who want to know of it.
    pub(super) fn tell(&self, entry: &Entry<'_>, trace: &Trace, discretion: &Discretion) {
        let mut line: Option<Arc<str>> = None;
        for ring in self.all.load().iter() {
            if ring.filter.admits(entry, discretion, &trace.tiers()) && ring.has_room() {
                let line = line.get_or_insert_with(|| trace.to_line(entry, discretion).into());
                ring.add(line.clone());
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
        self.count.store(all.len(), Ordering::Relaxed);
        self.all.store(Arc::new(all));
        Ok(())
    }
}

impl Ring {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one that has none: that is cheaper than to write it.
    fn has_room(&self) -> bool {
        let mut waiting = self.waiting();
        let has_room = waiting.has_room();
        waiting.lost += u64::from(!has_room);
        has_room
    }

    fn add(&self, line: Arc<str>) {
        let mut waiting = self.waiting();
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        self.arrived.notify_one();
    }
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.lines.len() < LOG_READER_LINES_MAX && self.bytes < BYTES_WAITING_MAX
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
        let ring = Arc::new(Ring {
            filter,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            _reserved: reserved.ok_or(FollowError::Memory)?,
        });
        readers.change(|all| {
            if all.len() >= LOG_READERS_MAX {
                return Err(FollowError::Full);
            }
            all.push(ring.clone());
            Ok(())
        })?;
        Ok(Following { ring, shared: shared.clone(), has_read: false })
    }

    /// The next lines, and in a line of its own how many were lost before them; `None` at the end.
    /// Dropping it midway is safe.
    pub async fn next(&mut self) -> Option<String> {
        if self.has_read {
            // To be woken for each request would cost more than to tell of it.
            sleep(READ_PAUSE).await;
        }
        self.has_read = true;
        loop {
            let told = self.ring.waiting().take();
            if let Some(told) = told {
                return Some(told);
            }
            if self.shared.readers.ended.load(Ordering::Acquire) {
                return None;
            }
            self.ring.arrived.notified().await;
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Option<String> {
        if self.lines.is_empty() && self.lost == 0 {
            return None;
        }
        let mut text = String::with_capacity(self.bytes + LOST_BYTES);
        if self.lost > 0 {
            text = format!("{{\"lost\":{}}}\n", self.lost);
        }
        self.lines.drain(..).for_each(|line| text.push_str(&line));
        (self.bytes, self.lost) = (0, 0);
        Some(text)
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
/// What waits is taken into one text, and that waits for the connection: half each.
const BYTES_WAITING_MAX: usize = LOG_READER_BYTES as usize / 2 - TRACE_BYTES as usize;
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
        let trace = log.trace(Instant::now(), governor).expect("somebody follows");
        log.tell(&entry(path), &trace);
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
        assert_eq!((lines[0], lines.len()), ("{\"lost\":7}", 1 + LOG_READER_LINES_MAX));
        assert!(lines[1].contains("\"path\":\"/0\""), "{}", lines[1]);
        ends(&log, &governor, "/next");
        let told = following.next().await.unwrap();
        assert!(told.contains("\"path\":\"/next\"") && told.lines().count() == 1, "{told}");
    }

    #[test]
    fn what_waits_for_a_reader_is_bounded_in_bytes_too() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let following = log.follow(Filter::EVERYTHING, &governor).unwrap();
        let long = "\u{1}".repeat(2_048);
        for _ in 0..LOG_READER_LINES_MAX {
            ends(&log, &governor, &long);
        }
        let waiting = following.ring.waiting();
        assert!(waiting.lost > 0, "each line has over 12 KiB");
        assert!((waiting.bytes as u64) < LOG_READER_BYTES / 2, "{}", waiting.bytes);
    }

    #[test]
    fn nothing_is_kept_for_nobody_and_memory_is_given_back() {
        let (log, governor) = (log(), Governor::new(0, 64 << 20, Arc::default()));
        let used = || governor.used_bytes(Use::Requests);
        assert!(log.trace(Instant::now(), &governor).is_none());
        let following: Vec<_> = (0..LOG_READERS_MAX)
            .map(|_| log.follow(Filter::EVERYTHING, &governor).unwrap())
            .collect();
        let refused = log.follow(Filter::EVERYTHING, &governor).unwrap_err();
        assert_eq!(refused.to_string(), "4 follow the log, and no more may");
        let trace = log.trace(Instant::now(), &governor);
        assert_eq!(used(), LOG_READERS_MAX as u64 * LOG_READER_BYTES + TRACE_BYTES);
        drop((following, trace));
        assert!(log.trace(Instant::now(), &governor).is_none());
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
        assert_eq!(following.next().await, None);
        let refused = log.follow(Filter::EVERYTHING, &governor).unwrap_err();
        assert_eq!(refused, FollowError::Ended);
    }
}
