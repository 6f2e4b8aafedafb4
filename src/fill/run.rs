//! A fill run: one upstream request for consecutive missing pieces, seen by its readers.
//!
//! The pump writes, readers follow its write position; both sides meet only here and in `reader`,
//! under a lock held for a few instructions. A reader outlives the run it follows, a run does not
//! depend on any one reader. What a run holds is what its readers still need of it: everything
//! else has been published to ram.

mod reader;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::cache::heads::Version;
use crate::fill::error::FillError;
use crate::memory::Reservation;
use crate::object::ObjectKey;

pub use self::reader::{Landed, Reader};

/// Who may read what a run brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Any viewer; its pieces are published.
    Shared,
    /// The one viewer it was started for; nothing is kept.
    Alone,
}

/// How far ahead of its readers a run may be, and where it must end.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The first byte brought: a piece border unless the run is for one viewer.
    pub start: u64,
    /// One past the last byte asked for; `None` when the response goes on to an end not known yet.
    pub end: Option<u64>,
    /// How many bytes the write position may be ahead of the reader that paces the run.
    pub window_bytes: u64,
    /// From here on each byte takes from the bypass, as an ill volume may hold it; `None`: none
    /// does, or all are paid for.
    pub paid_to: Option<u64>,
}

impl Bounds {
    /// What it brings, as far as its end is known.
    pub fn all(&self) -> Range<u64> {
        self.start..self.end.unwrap_or(u64::MAX)
    }
}

/// Why a run ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It brought all it was to bring, which may be less than the version has.
    Complete,
    /// Nobody needed it just then; who goes on reading starts another.
    Parked,
    /// The origin failed it.
    Failed(Arc<FillError>),
}

/// One run, shared by the pump and its readers.
#[derive(Debug)]
pub struct Run {
    /// The version its bytes belong to.
    pub version: Arc<Version>,
    /// The object, for the status page and for forgetting a version that changed.
    pub key: ObjectKey,
    /// Who may read it.
    pub sharing: Sharing,
    state: Mutex<State>,
    /// Rung when bytes have landed or the run has ended.
    landed: Notify,
    /// Rung when a reader came, moved on or left.
    moved: Notify,
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    /// What is held, in order and without gaps: it ends at `written`.
    parts: VecDeque<Part>,
    written: u64,
    ended: Option<Ended>,
    readers: Vec<Arc<Mark>>,
}

/// Consecutive bytes of one block, as far as they are written.
#[derive(Debug)]
struct Part {
    start: u64,
    bytes: Bytes,
    /// Published parts can be read from ram, so nobody is lost when they are dropped.
    published: bool,
    _reserved: Option<Reservation>,
}

impl Part {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Where one reader is.
#[derive(Debug)]
struct Mark {
    position: AtomicU64,
    /// It only keeps the run going until those who waited for its head have joined.
    stands_in: AtomicBool,
    /// It kept others waiting: it neither paces the run nor holds its bytes until it catches up.
    left_behind: AtomicBool,
    /// It has been given bytes at least once: from then on it can fall back to reading blocks.
    served: AtomicBool,
}

/// What the pump should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Read on.
    Go,
    /// As far ahead as allowed: wait for a reader to move.
    Wait,
    /// No reader is left.
    Deserted,
}

/// Where a run stands, for the status page.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What it was to bring.
    pub bounds: Bounds,
    /// How far it has written.
    pub written: u64,
    /// Readers that follow it.
    pub readers: usize,
}

impl Run {
    /// A run that has brought nothing yet.
    pub fn new(
        version: Arc<Version>,
        key: ObjectKey,
        sharing: Sharing,
        bounds: Bounds,
    ) -> Arc<Run> {
        let state = State {
            bounds,
            parts: VecDeque::new(),
            written: bounds.start,
            ended: None,
            readers: Vec::new(),
        };
        let state = Mutex::new(state);
        Arc::new(Run { version, key, sharing, state, landed: Notify::new(), moved: Notify::new() })
    }

    /// The bytes this run will bring: what it has written, and its claim ahead. `None` once ended.
    pub fn claim(&self) -> Option<(u64, u64)> {
        let state = self.lock();
        state.ended.is_none().then(|| (state.floor(), state.claim_end(self.goes_on())))
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing { bounds: state.bounds, written: state.written, readers: state.readers.len() }
    }

    /// Whether the rest of it could be asked for in another request: parts of two answers are of
    /// one body only where a strong validator says so (RFC 9111 section 3.4).
    pub fn may_be_asked_for(&self) -> bool {
        self.version.validator.is_strong() && !self.version.is_changed()
    }

    /// Whether it must go on to its end, because nobody could ask for the rest later.
    fn goes_on(&self) -> GoesOn {
        match self.sharing == Sharing::Shared && self.version.is_resumable() {
            true => GoesOn::WithinItsWindow,
            false => GoesOn::ToTheEnd,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    WithinItsWindow,
    ToTheEnd,
}

/// The pump's side.
impl Run {
    /// Whether the readers allow more to be written; drops what all of them have passed.
    pub fn pace(&self) -> Pace {
        let mut state = self.lock();
        state.drop_passed(self.goes_on());
        let positions = state.positions();
        // A run that could not be taken up again waits for its slowest reader, any other for its
        // fastest.
        let pacing = match self.goes_on() {
            GoesOn::WithinItsWindow => positions.iter().max(),
            GoesOn::ToTheEnd => positions.iter().min(),
        };
        match pacing {
            None => Pace::Deserted,
            Some(at) if state.written >= at.saturating_add(state.bounds.window_bytes) => Pace::Wait,
            Some(_) => Pace::Go,
        }
    }

    /// Whether a reader has come as far as `position`.
    pub fn is_awaited_at(&self, position: u64) -> bool {
        self.lock().positions().iter().any(|at| *at >= position)
    }

    /// Where the reader furthest back is, of those who pace the run.
    pub fn slowest(&self) -> Option<u64> {
        self.lock().positions().into_iter().min()
    }

    /// Leaves behind the readers who have not come further than `last`, if another waits at the
    /// write position. They go on from ram, as far as it holds what the run has passed.
    pub fn leave_behind(&self, last: u64) {
        let state = self.lock();
        let Some(first) = state.positions().into_iter().max() else { return };
        if last < first && first >= state.written {
            let at_last = |mark: &&Arc<Mark>| mark.position.load(Ordering::Acquire) <= last;
            for mark in state.readers.iter().filter(at_last) {
                mark.left_behind.store(true, Ordering::Release);
            }
        }
    }

    /// Waits until a reader came, moved or left. Dropping it midway is safe.
    pub async fn reader_moved(&self) {
        self.moved.notified().await;
    }

    /// Begins a part at the write position, for memory that is reserved.
    pub fn begin_part(&self, reserved: Reservation) {
        let mut state = self.lock();
        let start = state.written;
        state.parts.push_back(Part {
            start,
            bytes: Bytes::new(),
            published: false,
            _reserved: Some(reserved),
        });
    }

    /// The last part now holds `bytes`: wakes the readers.
    pub fn land(&self, bytes: Bytes) {
        let mut state = self.lock();
        let part = state.parts.back_mut().expect("a part is begun before bytes land in it");
        part.bytes = bytes;
        state.written = part.end();
        drop(state);
        self.landed.notify_waiters();
    }

    /// The last part is whole and published to ram, or never will be.
    pub fn finish_part(&self, bytes: Bytes, published: bool) {
        let mut state = self.lock();
        if let Some(part) = state.parts.back_mut() {
            part.bytes = bytes;
            part.published = published;
        }
        state.drop_passed(self.goes_on());
    }

    /// Waits until it has ended. Dropping it midway is safe.
    pub async fn ended(&self) {
        loop {
            let mut landed = std::pin::pin!(self.landed.notified());
            landed.as_mut().enable();
            if self.lock().ended.is_some() {
                return;
            }
            landed.await;
        }
    }

    /// Learns where the response ends.
    pub fn set_end(&self, end: Option<u64>) {
        self.lock().bounds.end = end;
    }

    /// One past the last byte to bring, if known.
    pub fn end(&self) -> Option<u64> {
        self.lock().bounds.end
    }

    /// Ends the run. What a reader who has been given nothing yet waits for stays until it is gone;
    /// everything else that is published is dropped, so that slow readers hold no memory through a
    /// run.
    pub fn finish(&self, ended: Ended) {
        let mut state = self.lock();
        state.ended = Some(ended);
        state.shed(self.goes_on());
        drop(state);
        self.landed.notify_waiters();
    }
}

impl State {
    /// The first byte still held, or the write position.
    fn floor(&self) -> u64 {
        self.parts.front().map_or(self.written, |part| part.start)
    }

    /// Where the readers are; who only stands in for others, or was left behind, counts while there
    /// are no others.
    fn positions(&self) -> Vec<u64> {
        let at = |mark: &Arc<Mark>| mark.position.load(Ordering::Acquire);
        let real = |mark: &&Arc<Mark>| {
            !mark.stands_in.load(Ordering::Acquire) && !mark.left_behind.load(Ordering::Acquire)
        };
        let positions: Vec<u64> = self.readers.iter().filter(real).map(at).collect();
        match positions.is_empty() {
            true => self.readers.iter().map(at).collect(),
            false => positions,
        }
    }

    fn add_reader(&mut self, position: u64) -> Arc<Mark> {
        let mark = Arc::new(Mark {
            position: AtomicU64::new(position),
            stands_in: AtomicBool::new(false),
            left_behind: AtomicBool::new(false),
            served: AtomicBool::new(false),
        });
        self.readers.push(mark.clone());
        mark
    }

    fn claim_end(&self, goes_on: GoesOn) -> u64 {
        let end = self.bounds.end.unwrap_or(u64::MAX);
        match goes_on {
            GoesOn::WithinItsWindow => end.min(self.written + self.bounds.window_bytes),
            GoesOn::ToTheEnd => end,
        }
    }

    /// Whether the byte at `position` is held or will come. The end of the object counts: who reads
    /// there learns that it is the end.
    fn comes_by(&self, position: u64, goes_on: GoesOn) -> bool {
        let end = self.claim_end(goes_on);
        position >= self.floor()
            && (position < end || (self.bounds.end.is_none() && position == end))
    }

    /// After the end: drops what can be read from ram or brought again, but for readers who have
    /// been given nothing yet.
    fn shed(&mut self, goes_on: GoesOn) {
        self.drop_passed(goes_on);
        if goes_on == GoesOn::ToTheEnd {
            return;
        }
        let unserved = self.readers.iter().filter(|mark| !mark.served.load(Ordering::Acquire));
        let waiting: Vec<u64> =
            unserved.map(|mark| mark.position.load(Ordering::Acquire)).collect();
        let wanted = |part: &Part| waiting.iter().any(|at| (part.start..part.end()).contains(at));
        // What came before a failure is given to those who wait for it, then the failure.
        let failed = matches!(self.ended, Some(Ended::Failed(_)));
        let spare = |part: &Part| (part.published || !failed) && !wanted(part);
        while self.parts.front().is_some_and(spare) {
            self.parts.pop_front();
        }
    }

    fn drop_passed(&mut self, goes_on: GoesOn) {
        let positions = self.positions();
        let slowest = positions.iter().copied().min().unwrap_or(u64::MAX);
        let fastest = positions.iter().copied().max().unwrap_or(u64::MAX);
        while let Some(part) = self.parts.front() {
            let passed = part.end() <= slowest;
            // A slow reader falls back to reading blocks, so that it holds nothing here.
            let left_behind = goes_on == GoesOn::WithinItsWindow
                && part.published
                && part.end() <= fastest.saturating_sub(BEHIND_FASTEST_BYTES);
            let whole = self.parts.len() > 1 || part.published;
            if !(whole && (passed || left_behind)) {
                break;
            }
            self.parts.pop_front();
        }
    }
}

/// How far behind the fastest reader a run still serves the others.
const BEHIND_FASTEST_BYTES: u64 = 1 << 20;
