//! Beside the slow readers: a crawl of distinct objects as fast as it goes, and viewers who ask
//! for what others ask for too.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::origin;
use crate::viewer::Connection;

const CRAWLERS: usize = 8;
const CRAWLED_BYTES: u64 = 8 << 20;
const VIEWERS: usize = 8;
/// What the viewers choose from, each in an order of his own.
const FILMS: usize = 16;
const FILM_BYTES: u64 = 2 << 20;
const BETWEEN_REQUESTS: Duration = Duration::from_millis(250);
/// Until a whole body.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the crawl took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crawled {
    pub(super) objects: usize,
    pub(super) bytes: u64,
    pub(super) failures: usize,
}

/// What the other viewers got.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// For the first byte, in ascending order.
    pub(super) waited: Vec<Duration>,
    pub(super) failures: usize,
}

/// Crawls until it is stopped.
pub(super) async fn crawl(address: SocketAddr, stopped: watch::Receiver<bool>) -> Crawled {
    let mut crawlers = JoinSet::new();
    for crawler in 0..CRAWLERS {
        let stopped = stopped.clone();
        crawlers.spawn(async move {
            let mut crawled = Crawled::default();
            let mut connection = None;
            while !*stopped.borrow() {
                let path = format!("/{CRAWLED_BYTES}/crawl-{crawler}-{}", crawled.objects);
                match whole(address, &mut connection, &path, CRAWLED_BYTES).await {
                    Ok(_) => crawled.bytes += CRAWLED_BYTES,
                    Err(_) => crawled.failures += 1,
                }
                crawled.objects += 1;
            }
            crawled
        });
    }
    let all = crawlers.join_all().await;
    all.into_iter().fold(Crawled::default(), |sum, crawled| Crawled {
        objects: sum.objects + crawled.objects,
        bytes: sum.bytes + crawled.bytes,
        failures: sum.failures + crawled.failures,
    })
}

/// Views until it is stopped.
pub(super) async fn view(address: SocketAddr, stopped: watch::Receiver<bool>) -> Served {
    let mut viewers = JoinSet::new();
    for viewer in 0..VIEWERS {
        let stopped = stopped.clone();
        viewers.spawn(async move {
            let mut served = Served::default();
            let mut connection = None;
            for film in (viewer * 2 + 1..).step_by(viewer * 2 + 1) {
                if *stopped.borrow() {
                    break;
                }
                let path = format!("/{FILM_BYTES}/film-{}", film % FILMS);
                match whole(address, &mut connection, &path, FILM_BYTES).await {
                    Ok(waited) => served.waited.push(waited),
                    Err(_) => served.failures += 1,
                }
                sleep(BETWEEN_REQUESTS).await;
            }
            served
        });
    }
    let mut all = Served::default();
    for served in viewers.join_all().await {
        all.waited.extend(served.waited);
        all.failures += served.failures;
    }
    all.waited.sort();
    all
}

/// Reads a whole object; says how long its first byte took. A failure costs the connection.
async fn whole(
    address: SocketAddr,
    kept: &mut Option<Connection>,
    path: &str,
    length: u64,
) -> io::Result<Duration> {
    let reading = async {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::open(address, None).await?,
        };
        let began = Instant::now();
        let head = connection.ask(path, None).await?;
        if (head.status, head.body_bytes) != (200, length) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut first = [0];
        connection.read(&mut first).await?;
        let waited = began.elapsed();
        connection.read_to(origin::content(path), 1, length).await?;
        Ok::<_, io::Error>((connection, waited))
    };
    let (connection, waited) = timeout(PATIENCE, reading).await??;
    *kept = Some(connection);
    Ok(waited)
}
