//! More to do than can be borne, and one site's flood beside another's viewers.
//!
//! A viewer who is sent something holds a piece of ram, 64 KiB: there is ram for fewer than there
//! may be connections, so that slow readers take all that they are let.
//!
//! What is limited is set, not what this machine can do: one worker, and an egress that three times
//! the load passes while the processors have time left. Viewers come whether others are done or
//! not, ask for segments one after the other as players do, at the pace of a line, and leave.
//! Floods have a thread of their own, so that they do not slow down who measures.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin};
use crate::viewer::{Connection, Head};

const FAST: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };
const VIEWERS: &str = "viewers.test";
const FLOOD: &str = "flood.test";

/// A segment, how many a viewer asks for, and one begins as long after the other.
const SEGMENT: u64 = 256 << 10;
const SEGMENTS: u32 = 8;
const EACH: Duration = Duration::from_millis(150);
/// The segments there are.
const CATALOGUE: usize = 32;
/// What a viewer's line bears: a segment takes 105 ms of 150.
const PACE: &str = "20 Mbit/s";
/// What may be sent: what 24 viewers in a second ask for.
const EGRESS: &str = "420 Mbit/s";
const BORNE_A_SECOND: u32 = 24;
/// The share of the viewers' site, where the flood's has 1: within it they ask for 16 of 24.
const SHARE: u32 = 3;
/// Within it: what is compared with.
const CALM_A_SECOND: u32 = 16;

const CALM: Duration = Duration::from_secs(4);
const OVERLOAD: Duration = Duration::from_secs(6);
/// Until a flood has begun to be one.
const BEGINS: Duration = Duration::from_secs(2);
const RECOVERY_MAX_MS: f64 = 5_000.0;

/// An edge with two sites.
pub(crate) struct Overload {
    edge: Edge,
    _origin: Origin,
}

/// What became of those who came.
#[derive(Default)]
struct Outcome {
    /// Of each segment that was served, in ms.
    served_ms: Vec<f64>,
    hits: usize,
    /// Of each refusal, from the connection on, in ms.
    refused_ms: Vec<f64>,
    without_retry_after: usize,
    /// Why those went who were neither served to the end nor refused.
    failed: Vec<io::Error>,
    /// When the last one was refused.
    last_refused: Option<Instant>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.served_ms.extend(other.served_ms);
        self.refused_ms.extend(other.refused_ms);
        self.hits += other.hits;
        self.without_retry_after += other.without_retry_after;
        self.failed.extend(other.failed);
        self.last_refused = self.last_refused.max(other.last_refused);
    }

    fn p99_ms(&self) -> f64 {
        p99(&self.served_ms)
    }

    /// Nobody is cut off, or not answered.
    fn none_failed(&self) -> Measure {
        if let Some(error) = self.failed.first() {
            eprintln!("a viewer failed: {error}");
        }
        let failed = self.failed.len() as f64;
        Measure::shown("  viewers failed", Unit::Count, failed).promised(Promise::Exactly(0.0))
    }

    fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.served_ms.len().max(1) as f64
    }
}

/// Of these.
pub(crate) fn p99(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}

impl Overload {
    pub(crate) fn start() -> Overload {
        let origin = Origin::start(FAST);
        let viewers = format!("pace = \"{PACE}\"\nshare = {SHARE}\n");
        let sites = [(VIEWERS, viewers), (FLOOD, String::new())].map(|(host, settings)| {
            let address = origin.address();
            format!(
                "[[sites]]\nname = \"{host}\"\nhosts = \"{host}\"\n\
                     origins = \"http://{address}\"\n{settings}"
            )
        });
        let settings = format!(
            "[threads]\nworkers = 1\n[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"\n\
             [limits]\negress = \"{EGRESS}\"\nlag = \"50ms\"\nconnections = 1024\n{}",
            sites.concat()
        );
        Overload { edge: Edge::start(origin.address(), &settings), _origin: origin }
    }

    pub(crate) async fn round(&mut self) -> Vec<Measure> {
        // What is asked for is there.
        self.come(CALM_A_SECOND, BEGINS).await;
        let calm = self.come(CALM_A_SECOND, CALM).await;
        let mut measures = self.overload(&calm).await;
        for (flood, [name, hits, viewers]) in [
            (
                Flood::Requests,
                [
                    "flood of requests: p99 by calm",
                    "flood of requests: hits lost",
                    "  viewers refused beside the requests",
                ],
            ),
            (
                Flood::Misses,
                [
                    "flood of misses: p99 by calm",
                    "flood of misses: hits lost",
                    "  viewers refused beside the misses",
                ],
            ),
            (
                Flood::SlowReaders,
                [
                    "slow readers: p99 by calm",
                    "slow readers: hits lost",
                    "  viewers refused beside slow readers",
                ],
            ),
        ] {
            let calm = self.come(CALM_A_SECOND, CALM).await;
            let flood = Flooding::begin(flood, self.edge.http());
            sleep(BEGINS).await;
            let beside = self.come(CALM_A_SECOND, CALM).await;
            flood.end();
            let ratio = Measure::shown(name, Unit::Ratio, beside.p99_ms() / calm.p99_ms());
            measures.push(ratio.promised(Promise::MedianAtMost(1.1)));
            let lost = Measure::shown(hits, Unit::Ratio, calm.hit_ratio() - beside.hit_ratio());
            measures.push(lost.promised(Promise::AtMost(0.02)));
            let count = |name, value: usize| Measure::shown(name, Unit::Count, value as f64);
            let refused = count(viewers, beside.refused_ms.len());
            measures.push(refused.promised(Promise::Exactly(0.0)));
            measures.push(beside.none_failed());
            sleep(BEGINS).await;
        }
        measures
    }

    /// Three times as many viewers as can be borne, and then again as many as before.
    async fn overload(&self, calm: &Outcome) -> Vec<Measure> {
        let over = self.come(3 * BORNE_A_SECOND, OVERLOAD).await;
        let ended = Instant::now();
        let after = self.come(CALM_A_SECOND, Duration::from_secs(8)).await;
        let last = after.last_refused.map_or(Duration::ZERO, |last| last - ended);
        let shown = |name, value| Measure::shown(name, Unit::Milliseconds, value);
        let count = |name, value: usize| Measure::shown(name, Unit::Count, value as f64);
        let ratio = over.p99_ms() / calm.p99_ms();
        vec![
            shown("calm: p99 of a segment", calm.p99_ms()),
            Measure::shown("3 times the load: p99 by calm", Unit::Ratio, ratio)
                .promised(Promise::MedianAtMost(1.5)),
            count("  segments served", over.served_ms.len()),
            count("  viewers refused", over.refused_ms.len()),
            shown("  p99 of a refusal", p99(&over.refused_ms))
                .promised(Promise::MedianAtMost(10.0)),
            count("  without Retry-After", over.without_retry_after)
                .promised(Promise::Exactly(0.0)),
            over.none_failed(),
            shown("last refusal after it", last.as_secs_f64() * 1e3)
                .promised(Promise::AtMost(RECOVERY_MAX_MS)),
        ]
    }

    /// So many viewers come each second, for so long; all are waited for.
    async fn come(&self, a_second: u32, lasting: Duration) -> Outcome {
        let address = self.edge.http();
        let (mut viewers, until) = (JoinSet::new(), Instant::now() + lasting);
        let mut arrivals = interval(Duration::from_secs(1) / a_second);
        arrivals.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut number = 0;
        while Instant::now() < until {
            arrivals.tick().await;
            viewers.spawn(view(address, number));
            number += 7;
        }
        let mut all = Outcome::default();
        viewers.join_all().await.into_iter().for_each(|one| all.add(one));
        all
    }
}

/// One viewer: until he has seen enough, or is refused.
async fn view(address: SocketAddr, first: usize) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = see(address, first, &mut outcome).await {
        outcome.failed.push(error);
    }
    outcome
}

async fn see(address: SocketAddr, first: usize, outcome: &mut Outcome) -> io::Result<()> {
    let came = Instant::now();
    let mut connection = Connection::open(address, None).await?;
    for number in 0..SEGMENTS {
        sleep_until(came + EACH * number).await;
        let asked = if number == 0 { came } else { Instant::now() };
        let path = format!("/{SEGMENT}/segment-{}", (first + number as usize) % CATALOGUE);
        let head = connection.ask_of(VIEWERS, &path).await?;
        if head.status != 200 {
            outcome.refused_ms.push(asked.elapsed().as_secs_f64() * 1e3);
            outcome.without_retry_after += usize::from(!head.says_when);
            outcome.last_refused = Some(Instant::now());
            return Ok(());
        }
        connection.discard(head.body_bytes).await?;
        outcome.served_ms.push(asked.elapsed().as_secs_f64() * 1e3);
        outcome.hits += usize::from(head.hit);
    }
    Ok(())
}

/// What the other site's viewers do.
#[derive(Clone, Copy)]
enum Flood {
    /// Hits, as many as 64 connections bear.
    Requests,
    /// An object nobody has asked for each time.
    Misses,
    /// 2,000 who take next to nothing of what they ask for.
    SlowReaders,
}

/// A flood until it ends.
struct Flooding {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Flooding {
    fn begin(flood: Flood, address: SocketAddr) -> Flooding {
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let local = LocalSet::new();
            let count = if matches!(flood, Flood::SlowReaders) { 2_000 } else { 64 };
            for number in 0..count {
                local.spawn_local(one_of(flood, address, number, until.clone()));
            }
            runtime.unwrap().block_on(local);
        });
        Flooding { ends, thread }
    }

    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// One connection after the other, as each is refused or ends.
async fn one_of(flood: Flood, address: SocketAddr, number: usize, ends: Arc<AtomicBool>) {
    let mut asked = 0;
    let buffer = matches!(flood, Flood::SlowReaders).then_some(4_096);
    while !ends.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::open(address, buffer).await else { continue };
        while !ends.load(Ordering::Relaxed) {
            asked += 1;
            let path = match flood {
                Flood::Requests => "/1024/hit".to_owned(),
                Flood::Misses => format!("/65536/miss-{number}-{asked}"),
                Flood::SlowReaders => format!("/4194304/slow-{}", number % 4),
            };
            let Ok(head) = connection.ask_of(FLOOD, &path).await else { break };
            if take(flood, &mut connection, head, &ends).await.is_err() || head.status != 200 {
                break;
            }
        }
        // Refused, or cut off: no machine comes back sooner.
        sleep(Duration::from_millis(10)).await;
    }
}

async fn take(
    flood: Flood,
    connection: &mut Connection,
    head: Head,
    ends: &AtomicBool,
) -> io::Result<()> {
    if !matches!(flood, Flood::SlowReaders) {
        return connection.discard(head.body_bytes).await;
    }
    let mut buffer = [0; 512];
    while !ends.load(Ordering::Relaxed) {
        connection.read_now(&mut buffer)?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
