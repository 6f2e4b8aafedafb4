//! What an origin flushes of a body without a length, on its way to every viewer who watches: how
//! long after the flush each of them has all of it. The same viewers at the origin itself tell what
//! of that is the machine's and the measurement's own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};

/// On two cores a hundred viewers keep each other waiting, wherever their bytes come from.
const FEW: usize = 20;
const MANY: usize = 100;
/// Chunks of 12 KB each 80 ms: 1.2 Mbit/s.
const FLUSHES: usize = 50;
const FLUSH_BYTES: usize = 12_000;
const FLUSH_EACH: Duration = Duration::from_millis(80);
/// What the median, and the 99th of 100, may wait after the flush.
const BEHIND_MAX_MS: f64 = 5.0;

/// An edge and its live origin.
pub(crate) struct Live {
    origin: Origin,
    edge: Edge,
}

impl Live {
    pub(crate) fn start() -> Live {
        let origin = Origin::start();
        let edge = Edge::start(origin.address, "[memory]\nram = \"64 MiB\"");
        Live { origin, edge }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        let (origin, edge) = (self.origin.address, self.edge.http());
        let few = self.watched(edge, &format!("/few-{round}"), FEW).await;
        let few_direct = self.watched(origin, &format!("/few-direct-{round}"), FEW).await;
        let many = self.watched(edge, &format!("/many-{round}"), MANY).await;
        let many_direct = self.watched(origin, &format!("/many-direct-{round}"), MANY).await;
        let asked = self.origin.asked(&format!("/many-{round}"));
        let time = |name, value| Measure::shown(name, Unit::Milliseconds, value);
        vec![
            time("20 viewers: median after the flush", at(&few, 50)).promised(WITHIN),
            time("20 viewers: 99th of 100", at(&few, 99)).promised(WITHIN),
            time("20 viewers: last", at(&few, 100)),
            time("20 viewers at the origin itself: 99th", at(&few_direct, 99)),
            time("100 viewers: median after the flush", at(&many, 50)).promised(WITHIN),
            time("100 viewers: 99th of 100", at(&many, 99)).promised(WITHIN),
            time("100 viewers: last", at(&many, 100)),
            time("100 viewers at the origin itself: median", at(&many_direct, 50)),
            time("100 viewers at the origin itself: 99th", at(&many_direct, 99)),
            Measure::shown("origin requests", Unit::Count, asked as f64)
                .promised(Promise::Exactly(1.0)),
        ]
    }

    /// How long after each flush each viewer had it, in milliseconds and in ascending order.
    async fn watched(&self, address: SocketAddr, path: &str, count: usize) -> Vec<f64> {
        let mut viewers = JoinSet::new();
        let (tell, mut told) = tokio::sync::mpsc::channel(count);
        for _ in 0..count {
            let (path, tell) = (path.to_owned(), tell.clone());
            viewers.spawn(async move {
                let mut viewer = Viewer::open(address, &path).await;
                viewer.read_to(FLUSH_BYTES).await;
                tell.send(()).await.unwrap();
                let mut came = Vec::with_capacity(FLUSHES);
                for flush in 1..=FLUSHES {
                    viewer.read_to((flush + 1) * FLUSH_BYTES).await;
                    came.push(Instant::now());
                }
                came
            });
        }
        // All of them have the first bytes: they are attached.
        for _ in 0..count {
            told.recv().await.expect("every viewer gets a first byte");
        }
        self.origin.go_on(path);
        let came = viewers.join_all().await;
        let flushed = self.origin.flushed(path);
        let late = |came: Vec<Instant>| {
            let times: Vec<_> = came.into_iter().zip(&flushed).collect();
            times.into_iter().map(|(came, flushed)| (came - *flushed).as_secs_f64() * 1e3)
        };
        let mut late: Vec<f64> = came.into_iter().flat_map(late).collect();
        assert_eq!(late.len(), count * FLUSHES);
        late.sort_by(f64::total_cmp);
        late
    }
}

const WITHIN: Promise = Promise::MedianAtMost(BEHIND_MAX_MS);

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// A thread for each connection; the first body of a path waits for all viewers, the others go
/// along with it.
struct Origin {
    address: SocketAddr,
    stage: Arc<Stage>,
}

#[derive(Default)]
struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    /// The path that goes on, and when each of its chunks was flushed.
    path: String,
    flushed: Vec<Instant>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stage = Arc::<Stage>::default();
        let shared = stage.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stage = shared.clone();
                std::thread::spawn(move || stage.serve(stream));
            }
        });
        Origin { address, stage }
    }

    /// How often a path was asked for.
    fn asked(&self, path: &str) -> usize {
        self.stage.state.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    /// Flushes chunk after chunk from now on, at the same time to all who watch.
    fn go_on(&self, path: &str) {
        let stage = self.stage.clone();
        let mut state = stage.state.lock().unwrap();
        (state.path, state.flushed) = (path.to_owned(), Vec::new());
        drop(state);
        std::thread::spawn(move || {
            for _ in 0..FLUSHES {
                std::thread::sleep(FLUSH_EACH);
                stage.state.lock().unwrap().flushed.push(Instant::now());
                stage.changed.notify_all();
            }
        });
    }

    fn flushed(&self, path: &str) -> Vec<Instant> {
        let state = self.stage.state.lock().unwrap();
        assert_eq!(state.path, path);
        state.flushed.clone()
    }
}

impl Stage {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned();
        self.state.lock().unwrap().asked.push(path.clone());
        let mut chunk = format!("{FLUSH_BYTES:x}\r\n").into_bytes();
        chunk.resize(chunk.len() + FLUSH_BYTES, b'x');
        chunk.extend_from_slice(b"\r\n");
        let mut first = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n".to_vec();
        first.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        first.extend_from_slice(&chunk);
        stream.write_all(&first).ok()?;
        for flush in 0..FLUSHES {
            let waits = |state: &mut State| state.path != path || state.flushed.len() <= flush;
            drop(self.changed.wait_while(self.state.lock().unwrap(), waits).unwrap());
            stream.write_all(&chunk).ok()?;
        }
        stream.write_all(b"0\r\n\r\n").ok()
    }
}

/// Reads a chunked body as it comes.
struct Viewer {
    stream: tokio::net::TcpStream,
    unread: Vec<u8>,
    body_bytes: usize,
    /// Of the chunk being read.
    left_bytes: usize,
}

impl Viewer {
    async fn open(address: SocketAddr, path: &str) -> Viewer {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut viewer = Viewer { stream, unread: Vec::new(), body_bytes: 0, left_bytes: 0 };
        let head = viewer.read_past(b"\r\n\r\n").await;
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        viewer
    }

    /// Until so many bytes of the body have come.
    async fn read_to(&mut self, body_bytes: usize) {
        while self.body_bytes < body_bytes {
            if self.left_bytes == 0 {
                let size = self.read_past(b"\r\n").await;
                let size = std::str::from_utf8(&size).unwrap().trim_end();
                // The line's end after a chunk stands alone.
                if !size.is_empty() {
                    self.left_bytes = usize::from_str_radix(size, 16).unwrap();
                }
                continue;
            }
            if self.unread.is_empty() {
                self.read().await;
            }
            let taken = self.left_bytes.min(self.unread.len());
            self.unread.drain(..taken);
            self.left_bytes -= taken;
            self.body_bytes += taken;
        }
    }

    async fn read_past(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.read().await;
        }
    }

    async fn read(&mut self) {
        assert!(self.stream.read_buf(&mut self.unread).await.unwrap() > 0, "the body was cut");
    }
}
