//! A scripted origin: HTTP/1.1 on a raw socket, so that it can lie in every byte.
//!
//! It runs on a thread of its own and counts what it is asked. Scripts are replaced while it runs;
//! everything a test waits for is an event of the origin, never the passing of time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::content::Content;
use super::origin_connection;
use super::origin_state::{Path, Recorded, Shared};
use super::script::{Script, content_of};

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
        Origin::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// The same at an address of this machine; port 0: the system chooses.
    pub(crate) fn at(address: SocketAddr) -> Origin {
        let listener = std::net::TcpListener::bind(address).unwrap();
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
        let places = state.recorded_of.get(path).into_iter().flatten();
        places.map(|place| state.recorded[*place].clone()).collect()
    }

    /// Body bytes written for `path`, or about to be: no less than any peer has.
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
        let mut state = self.shared.lock();
        state.recorded.clear();
        state.recorded_of.clear();
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
                    let (stream, shared) = (accepted.unwrap().0, Arc::clone(&shared));
                    connections.spawn(origin_connection::serve(stream, number, shared));
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

/// How long an event may take before its test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
