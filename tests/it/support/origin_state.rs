//! What the scripted origin knows: a script for each path, and every request it was asked.
//!
//! Shared by the origin's thread, which answers, and the test, which counts and lets go.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::sync::Notify;

use super::answer::RequestHead;
use super::origin::Mode;
use super::script::{Change, Script};

/// What the origin's thread and the test share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified at every event a test may wait for.
    pub(super) changed: Notify,
}

/// The scripts and the counts.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) paths: HashMap<String, Path>,
    pub(super) recorded: Vec<Recorded>,
    /// Where in `recorded` the requests for a path are.
    pub(super) recorded_of: HashMap<String, Vec<usize>>,
    pub(super) connections: u64,
    pub(super) mode: Mode,
}

/// One path's script and what became of it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) script: Script,
    pub(super) once: VecDeque<Script>,
    requests: u64,
    pub(super) in_flight: usize,
    pub(super) in_flight_most: usize,
    pub(super) released: bool,
    /// `Change::AtByte` has happened.
    turned: bool,
}

impl Path {
    /// Nothing asked yet.
    pub(super) fn new(script: Script) -> Path {
        let once = VecDeque::new();
        let (requests, in_flight, in_flight_most) = (0, 0, 0);
        Path { script, once, requests, in_flight, in_flight_most, released: false, turned: false }
    }

    fn version(&self, script: &Script, request: &RequestHead) -> u32 {
        let turned = match script.change {
            Change::Never => false,
            Change::EachRequest => return self.requests as u32,
            Change::FromRequest(number) => self.requests >= number,
            Change::FromOffset(offset) => request.start(script.length_bytes) >= offset,
            Change::AtByte(_) => self.turned,
        };
        script.version + u32::from(turned)
    }
}

/// One request as it was seen and answered.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The request's head.
    pub(crate) head: RequestHead,
    /// Which connection it came on, counted from 1.
    pub(crate) connection: u64,
    version: Arc<AtomicU32>,
    sent_bytes: Arc<AtomicU64>,
    answered: Arc<OnceLock<(u16, Range<u64>)>>,
}

impl Recorded {
    /// The version it was given.
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// The status it was answered with, and which bytes of the object were to follow; `None` where
    /// there was no answer.
    pub(crate) fn answered(&self) -> Option<(u16, Range<u64>)> {
        self.answered.get().cloned()
    }

    /// Body bytes written for it, or about to be.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// A request's turn at its script.
#[derive(Debug)]
pub(super) struct Turn {
    /// The script's key: the target with its query where that is served, else the path.
    pub(super) key: String,
    pub(super) script: Script,
    pub(super) version: u32,
    pub(super) number: u64,
    pub(super) sent_bytes: Arc<AtomicU64>,
    answered: Arc<OnceLock<(u16, Range<u64>)>>,
    shared: Arc<Shared>,
}

impl Turn {
    /// Whether the object has yet to become its next version at a byte.
    pub(super) fn is_unturned(&self) -> bool {
        self.shared.lock().paths.get(&self.key).is_some_and(|path| !path.turned)
    }

    /// The object is its next version from now on.
    pub(super) fn turn_over(&self) {
        if let Some(path) = self.shared.lock().paths.get_mut(&self.key) {
            path.turned = true;
        }
    }

    /// What it is answered with.
    pub(super) fn is_answered(&self, status: u16, bytes: Range<u64>) {
        self.answered.set((status, bytes)).expect("a request is answered once");
    }

    /// Waits for [`Origin::release`].
    pub(super) async fn released(&self) {
        self.until(|path| path.released).await;
    }

    /// Waits for the script's number of requests at the same time.
    pub(super) async fn together(&self) {
        self.until(|path| path.in_flight_most >= self.script.together || path.released).await;
    }

    async fn until(&self, holds: impl Fn(&Path) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.shared.lock().paths.get(&self.key).is_none_or(&holds) {
                return;
            }
            changed.await;
        }
    }

    /// Counts body bytes about to be written.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(path) = self.shared.lock().paths.get_mut(&self.key) {
            path.in_flight = path.in_flight.saturating_sub(1);
        }
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    /// The scripts and counts, held for moments only.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Counts a connection and numbers it.
    pub(super) fn connected(&self) -> u64 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections
    }

    /// Counts a request and gives it its turn; `None` where nothing is served.
    pub(super) fn begin(self: &Arc<Self>, head: RequestHead, connection: u64) -> Option<Turn> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let path = head.target.split('?').next().unwrap_or("").to_owned();
        state.recorded_of.entry(path.clone()).or_default().push(state.recorded.len());
        let key = if state.paths.contains_key(&head.target) { head.target.clone() } else { path };
        let version = Arc::new(AtomicU32::new(0));
        let sent_bytes = Arc::new(AtomicU64::new(0));
        let answered = Arc::new(OnceLock::new());
        let (given, sent) = (Arc::clone(&version), Arc::clone(&sent_bytes));
        let answer = Arc::clone(&answered);
        let turn = state.paths.get_mut(&key).map(|path| {
            path.requests += 1;
            path.in_flight += 1;
            path.in_flight_most = path.in_flight_most.max(path.in_flight);
            let script = path.once.pop_front().unwrap_or_else(|| path.script.clone());
            let (number, version) = (path.requests, path.version(&script, &head));
            given.store(version, Ordering::Relaxed);
            let shared = Arc::clone(self);
            Turn { key, script, version, number, sent_bytes, answered: answer, shared }
        });
        state.recorded.push(Recorded { head, connection, version, sent_bytes: sent, answered });
        drop(guard);
        self.changed.notify_waiters();
        turn
    }
}
