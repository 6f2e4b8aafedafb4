//! Hits at full load while somebody follows the log: what they cost more than while nobody does.
//!
//! One worker and small hits: the dearest there can be, for each byte and for each trace. The
//! processor's time is compared, so that another's work beside it does not count, turn by turn, and
//! the median of the turns is told: the machine is faster now and slower then. A box at full load
//! serves as much less as a hit costs more.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::edge::{Edge, Resident};
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin};
use crate::viewer::Connection;

const VIEWERS: usize = 16;
const SMALL: u64 = 1 << 10;
pub(crate) const PIECE: u64 = 64 << 10;
/// Of each kind, in turns with the other.
pub(crate) const TURNS: usize = 25;
const TURN: Duration = Duration::from_millis(200);
const COSTS_MORE_MAX: f64 = 1.05;
pub(crate) const FAST: Behaviour =
    Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };

/// An edge at full load.
pub(crate) struct Seen {
    edge: Edge,
    _origin: Origin,
}

impl Seen {
    pub(crate) fn start() -> Seen {
        let origin = Origin::start(FAST);
        let edge = Edge::start(
            origin.address(),
            "[threads]\nworkers = 1\n[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"",
        );
        Seen { edge, _origin: origin }
    }

    pub(crate) async fn round(&mut self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for (name, length, filter) in [
            ("1 KiB, all followed: cost by that of nobody", SMALL, ""),
            ("1 KiB, failures followed: the same", SMALL, "status%3E%3D500"),
            ("64 KiB, all followed: the same", PIECE, ""),
        ] {
            let (ratio, told) = self.compared(length, filter).await;
            let measure = Measure::shown(name, Unit::Ratio, ratio);
            measures.push(measure.promised(Promise::MedianAtMost(COSTS_MORE_MAX)));
            if filter.is_empty() && length == SMALL {
                measures.push(Measure::shown("1 KiB, all followed: bytes told", Unit::MiB, told));
            }
        }
        measures
    }

    /// What a hit costs while the log is followed, by what it costs while nobody does; and what was
    /// told, in MiB.
    async fn compared(&self, length: u64, filter: &str) -> (f64, f64) {
        let told = Arc::new(AtomicU64::new(0));
        let path = format!("/{length}/seen");
        let mut before = load(&self.edge, &path).await;
        let mut ratios = Vec::new();
        for _ in 0..TURNS {
            let reader = follow(self.edge.admin(), filter, told.clone());
            let read = load(&self.edge, &path).await;
            reader.shutdown(std::net::Shutdown::Both).unwrap();
            let after = load(&self.edge, &path).await;
            ratios.push(2.0 * read / (before + after));
            before = after;
        }
        ratios.sort_by(f64::total_cmp);
        (ratios[TURNS / 2], told.load(Ordering::Relaxed) as f64 / f64::from(1 << 20))
    }
}

/// As many hits of `path` as there can be in one turn: the processor's time each costs, in seconds.
pub(crate) async fn load(edge: &Edge, path: &str) -> f64 {
    let before = Resident::cpu_time(edge.pid());
    let until = Instant::now() + TURN;
    let mut viewers = JoinSet::new();
    for _ in 0..VIEWERS {
        let mut connection = Connection::open(edge.http(), None).await.unwrap();
        let path = path.to_owned();
        viewers.spawn(async move {
            let mut hits = 0;
            while Instant::now() < until {
                let head = connection.ask(&path, None).await.unwrap();
                connection.discard(head.body_bytes).await.unwrap();
                hits += 1;
            }
            hits
        });
    }
    let hits: u64 = viewers.join_all().await.into_iter().sum();
    (Resident::cpu_time(edge.pid()) - before).as_secs_f64() / hits as f64
}

/// Follows the log on a thread of its own until the connection is shut down.
fn follow(admin: SocketAddr, filter: &str, told: Arc<AtomicU64>) -> TcpStream {
    let mut stream = TcpStream::connect(admin).unwrap();
    let request = format!("GET /log?filter={filter} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200", "there is room for a reader");
    let ours = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            told.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    ours
}
