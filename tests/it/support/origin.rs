//! A scripted origin: HTTP/1.1 on a raw socket, so that it can lie in every byte.
//!
//! It runs on a thread of its own and counts what it is asked. Scripts are replaced while it runs;
//! everything a test waits for is an event of the origin, never the passing of time.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, watch};

use super::answer::RequestHead;
use super::content::Content;
use super::origin_connection;
use super::script::{Change, Script, content_of};

/// A running origin; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// An origin without objects: 404 for every path until one is served.
    pub(crate) fn start() -> Origin {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared::default());
        let (mode, modes) = watch::channel(Mode::Accepting);
        let running = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(run(listener, modes, running));
        });
        Origin { address, shared, mode, thread: Some(thread) }
    }

    /// An origin with one object.
    pub(crate) fn serving(path: &str, script: Script) -> Origin {
        let origin = Origin::start();
        origin.serve(path, script);
        origin
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `path` answers by `script`; its requests are counted anew for `Change`.
    pub(crate) fn serve(&self, path: &str, script: Script) {
        self.shared.lock().paths.insert(path.to_owned(), Path::new(script));
    }

    /// The next request for `path` is answered by `script`, before those of [`Origin::serve`].
    pub(crate) fn serve_once(&self, path: &str, script: Script) {
        let mut state = self.shared.lock();
        let path = state.paths.get_mut(path).expect("a path is served before it is served once");
        path.once.push_back(script);
    }

    /// Lets go whatever a script of `path` holds, now and later.
    pub(crate) fn release(&self, path: &str) {
        self.shared.lock().paths.get_mut(path).expect("only a path served is held").released = true;
        self.shared.changed.notify_waiters();
    }

    /// Connections are refused and those open closed, until they are accepted again.
    pub(crate) async fn refuse_connections(&self) {
        self.enter(Mode::Refusing).await;
    }

    /// Connections are accepted again, at the same address.
    pub(crate) async fn accept_connections(&self) {
        self.enter(Mode::Accepting).await;
    }

    async fn enter(&self, mode: Mode) {
        self.mode.send_replace(mode);
        self.until("the origin's mode", |origin| origin.shared.lock().mode == mode).await;
    }

    /// Every request so far, in the order their heads came.
    pub(crate) fn all_requests(&self) -> Vec<Recorded> {
        self.shared.lock().recorded.clone()
    }

    /// The requests for `path`, any query, in the order their heads came.
    pub(crate) fn requests(&self, path: &str) -> Vec<Recorded> {
        let state = self.shared.lock();
        state.recorded.iter().filter(|request| request.path() == path).cloned().collect()
    }

    /// Body bytes handed to the kernel for `path`.
    pub(crate) fn bytes_sent(&self, path: &str) -> u64 {
        self.requests(path).iter().map(Recorded::bytes_sent).sum()
    }

    /// The most requests for `path` there were at the same time.
    pub(crate) fn most_at_once(&self, path: &str) -> usize {
        self.shared.lock().paths.get(path).map_or(0, |path| path.in_flight_most)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// Forgets the requests counted so far, not the scripts.
    pub(crate) fn forget_requests(&self) {
        self.shared.lock().recorded.clear();
    }

    /// The bytes of `version` at `path`.
    pub(crate) fn content(&self, path: &str, version: u32) -> Content {
        content_of(path, None, version)
    }

    /// The highest version of `path` that any request was given; at least 1.
    pub(crate) fn version_highest(&self, path: &str) -> u32 {
        let given = self.requests(path).iter().map(Recorded::version).max();
        given.unwrap_or(1).max(1)
    }

    /// The version's length by the script in force.
    pub(crate) fn length_of(&self, path: &str, version: u32) -> u64 {
        let state = self.shared.lock();
        state.paths.get(path).expect("only a path served has a length").script.length_of(version)
    }

    /// Waits until `path` was asked for so many times.
    pub(crate) async fn until_requested(&self, path: &str, times: usize) {
        let what = format!("{times} requests for {path}");
        self.until(&what, |origin| origin.requests(path).len() >= times).await;
    }

    /// Waits until so many body bytes of `path` were handed to the kernel.
    pub(crate) async fn until_sent(&self, path: &str, bytes: u64) {
        let what = format!("{bytes} bytes of {path}");
        self.until(&what, |origin| origin.bytes_sent(path) >= bytes).await;
    }

    /// Waits until no request for `path` is being answered.
    pub(crate) async fn until_idle(&self, path: &str) {
        let idle = |origin: &Origin| {
            origin.shared.lock().paths.get(path).is_none_or(|path| path.in_flight == 0)
        };
        self.until(&format!("no request for {path}"), idle).await;
    }

    /// Waits for an event; panics when it does not come.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Origin) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("the origin never saw: {what}"));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
        if let Some(thread) = self.thread.take() {
            // A panic of the origin's thread is a test's failure, unless one is on its way already.
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the origin's thread panicked");
            }
        }
    }
}

/// What the origin does with connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Accepting,
    Refusing,
    Stopped,
}

async fn run(first: std::net::TcpListener, mut modes: watch::Receiver<Mode>, shared: Arc<Shared>) {
    let address = first.local_addr().unwrap();
    let mut listener = TcpListener::from_std(first).unwrap();
    loop {
        shared.lock().mode = Mode::Accepting;
        shared.changed.notify_waiters();
        let mut connections = tokio::task::JoinSet::new();
        while *modes.borrow_and_update() == Mode::Accepting {
            tokio::select! {
                accepted = listener.accept() => {
                    let number = shared.connected();
                    let shared = Arc::clone(&shared);
                    connections.spawn(origin_connection::serve(accepted.unwrap().0, number, shared));
                }
                _ = modes.changed() => {}
                Some(ended) = connections.join_next() => ended.unwrap(),
            }
        }
        drop(listener);
        connections.shutdown().await;
        if *modes.borrow() == Mode::Stopped {
            return;
        }
        // Bound and not listening: the port stays ours, and who connects is refused.
        let socket = bound(address);
        shared.lock().mode = Mode::Refusing;
        shared.changed.notify_waiters();
        match modes.wait_for(|mode| *mode != Mode::Refusing).await.as_deref() {
            Ok(Mode::Accepting) => {}
            _ => return,
        }
        listener = socket.listen(1024).unwrap();
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// What the origin's thread and the test share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified at every event a test may wait for.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    paths: HashMap<String, Path>,
    recorded: Vec<Recorded>,
    connections: u64,
    mode: Mode,
}

/// One path's script and what became of it.
#[derive(Debug)]
struct Path {
    script: Script,
    once: VecDeque<Script>,
    requests: u64,
    in_flight: usize,
    in_flight_most: usize,
    released: bool,
    /// `Change::AtByte` has happened.
    turned: bool,
}

impl Path {
    fn new(script: Script) -> Path {
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
}

impl Recorded {
    /// The version it was given.
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// Body bytes handed to the kernel for it.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// The target up to its query.
    pub(crate) fn path(&self) -> &str {
        self.head.target.split('?').next().unwrap_or("")
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

    /// Counts body bytes handed to the kernel.
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn connected(&self) -> u64 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections
    }

    /// Counts a request and gives it its turn; `None` where nothing is served.
    pub(super) fn begin(self: &Arc<Self>, head: RequestHead, connection: u64) -> Option<Turn> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let path = head.target.split('?').next().unwrap_or("").to_owned();
        let key = if state.paths.contains_key(&head.target) { head.target.clone() } else { path };
        let version = Arc::new(AtomicU32::new(0));
        let sent_bytes = Arc::new(AtomicU64::new(0));
        let (given, sent) = (Arc::clone(&version), Arc::clone(&sent_bytes));
        let turn = state.paths.get_mut(&key).map(|path| {
            path.requests += 1;
            path.in_flight += 1;
            path.in_flight_most = path.in_flight_most.max(path.in_flight);
            let script = path.once.pop_front().unwrap_or_else(|| path.script.clone());
            let (number, version) = (path.requests, path.version(&script, &head));
            given.store(version, Ordering::Relaxed);
            Turn { key, script, version, number, sent_bytes, shared: Arc::clone(self) }
        });
        state.recorded.push(Recorded { head, connection, version, sent_bytes: sent });
        drop(guard);
        self.changed.notify_waiters();
        turn
    }
}

/// How long an event may take before its test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
