//! Viewers of distinct objects who take 1 KiB each second, and never more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::figure::{Measure, Promise, Unit};
use crate::origin;
use crate::viewer::Connection;

const READERS: usize = 2_000;
const LENGTH: u64 = 64 << 20;
const BYTES_PER_TICK: usize = 1 << 10;
const TICK: Duration = Duration::from_secs(1);
/// Small, so that what the kernel keeps for a reader is little beside what he reads.
const RECEIVE_BUFFER_BYTES: u32 = 16 << 10;
const OPENING_AT_ONCE: usize = 64;
/// Until the first byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// Readers at work.
pub(super) struct Readers {
    tasks: JoinSet<Fate>,
    stop: watch::Sender<bool>,
}

/// What became of one reader.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    bytes: u64,
    first_byte_after: Option<Duration>,
    /// Of all the times he found nothing to take, the longest.
    starved: Duration,
    cut_off: bool,
    wrong: bool,
}

impl Readers {
    /// Opens them, a few at a time; returns when each has a first byte, or has none in time.
    pub(super) async fn open(address: SocketAddr) -> Readers {
        let (stop, stopped) = watch::channel(false);
        let turns = Arc::new(Semaphore::new(OPENING_AT_ONCE));
        let (tell, mut told) = mpsc::channel(READERS);
        let mut tasks = JoinSet::new();
        for number in 0..READERS {
            let (turns, stopped, tell) = (Arc::clone(&turns), stopped.clone(), tell.clone());
            tasks.spawn(async move {
                let path = format!("/{LENGTH}/slow-{number}");
                let turn = turns.acquire_owned().await.expect("it is never closed");
                let began = Instant::now();
                let opened = timeout(PATIENCE, open(address, &path)).await;
                let first_byte_after = began.elapsed();
                drop(turn);
                tell.send(()).await.expect("it is heard until all have told");
                let Ok(Ok(connection)) = opened else { return Fate::default() };
                let first_byte_after = Some(first_byte_after);
                let fate = Fate { bytes: 1, first_byte_after, ..Fate::default() };
                read_slowly(connection, &path, fate, stopped).await
            });
        }
        for _ in 0..READERS {
            told.recv().await.expect("every reader tells once");
        }
        Readers { tasks, stop }
    }

    /// They leave.
    pub(super) async fn close(self) -> Fates {
        self.stop.send_replace(true);
        Fates(self.tasks.join_all().await)
    }
}

async fn open(address: SocketAddr, path: &str) -> io::Result<Connection> {
    let mut connection = Connection::open(address, Some(RECEIVE_BUFFER_BYTES)).await?;
    let head = connection.ask(path, None).await?;
    if head.status != 200 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    connection.read(&mut [0]).await?;
    Ok(connection)
}

async fn read_slowly(
    mut connection: Connection,
    path: &str,
    mut fate: Fate,
    mut stopped: watch::Receiver<bool>,
) -> Fate {
    let content = origin::content(path);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fed = Instant::now();
    let mut buffer = [0; BYTES_PER_TICK];
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return fate,
            _ = ticks.tick() => {}
        }
        match connection.read_now(&mut buffer) {
            Ok(0) => fate.starved = fate.starved.max(fed.elapsed()),
            Ok(count) => {
                fate.wrong |= content.first_difference(fate.bytes, &buffer[..count]).is_some();
                fate.bytes += count as u64;
                fed = Instant::now();
            }
            Err(_) => {
                fate.cut_off = true;
                return fate;
            }
        }
    }
}

/// What became of all of them.
pub(super) struct Fates(Vec<Fate>);

impl Fates {
    pub(super) fn measures(&self) -> Vec<Measure> {
        let count = |name, test: fn(&Fate) -> bool| {
            let count = self.0.iter().filter(|fate| test(fate)).count();
            Measure::shown(name, Unit::Count, count as f64)
        };
        let longest = |name, time: fn(&Fate) -> Duration| {
            let longest = self.0.iter().map(time).max().unwrap_or_default();
            Measure::shown(name, Unit::Milliseconds, longest.as_secs_f64() * 1e3)
        };
        let bytes: u64 = self.0.iter().map(|fate| fate.bytes).sum();
        vec![
            count("slow readers", |_| true),
            count("slow readers without a first byte", |fate| fate.first_byte_after.is_none())
                .promised(Promise::Exactly(0.0)),
            count("slow readers cut off", |fate| fate.cut_off).promised(Promise::Exactly(0.0)),
            count("slow readers with a wrong byte", |fate| fate.wrong)
                .promised(Promise::Exactly(0.0)),
            longest("slow readers' slowest first byte", |fate| {
                fate.first_byte_after.unwrap_or_default()
            }),
            longest("slow readers' longest time without a byte", |fate| fate.starved),
            Measure::shown("bytes read slowly", Unit::MiB, bytes as f64 / f64::from(1 << 20)),
        ]
    }
}
