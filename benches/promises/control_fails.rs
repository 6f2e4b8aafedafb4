//! A box's control plane stalls, lies and dies in every call that the box makes while 1,000 viewers
//! play by tokens: how long the slowest wait for a segment, by how long they do in peace, and what
//! of memory it takes.
//!
//! Peace and the other take turns. How much two halves of peace differ is told beside it: that much
//! is the machine's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tidegate::token::key_file::{KeyFile, Keys};
use tidegate::token::uri_signing::{Matching, mint};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::control::{Call, Control, FAULTS};
use crate::edge::{Edge, Resident};
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin};
use crate::overload::p99;
use crate::viewer::Connection;

const FAST: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };
const VIEWERS: u32 = 1_000;
/// What each asks for, every so often.
const SEGMENT: u64 = 64 << 10;
const EACH: Duration = Duration::from_secs(4);
const CATALOGUE: u32 = 32;
/// Each asks twice in it, or thrice.
const TURN: Duration = Duration::from_secs(8);
const TURNS: usize = 4;
const SLOWER_MAX: f64 = 1.1;
/// A snapshot as large as may be, and what it is gathered from.
const MORE_MEMORY_MAX_MIB: f64 = 64.0;
const KEYS: &str = r#"{ "publisher": { "renewal_kid": "k", "keys": [ { "kty": "oct", "kid": "k",
    "alg": "HS256", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE" } ] } }"#;

/// A box, and who it goes by.
pub(crate) struct ControlFails {
    edge: Edge,
    control: Control,
    folder: TempDir,
    targets: Arc<Vec<String>>,
    _origin: Origin,
}

/// What became of those who asked.
#[derive(Default)]
struct Outcome {
    served_ms: Vec<f64>,
    failed: usize,
    /// The most that the box had, in MiB.
    memory_mib: f64,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.served_ms.extend(other.served_ms);
        self.failed += other.failed;
        self.memory_mib = self.memory_mib.max(other.memory_mib);
    }

    fn p99_ms(&self) -> f64 {
        p99(&self.served_ms)
    }
}

impl ControlFails {
    pub(crate) fn start() -> ControlFails {
        let (origin, folder) = (Origin::start(FAST), TempDir::new().unwrap());
        let control = Control::start("edge-1", ("film", KEYS));
        let fleet = folder.path().join("fleet");
        control.enrols(&fleet);
        let settings = format!(
            "[threads]\nworkers = 1\n[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"\n\
             [limits]\nlag = \"1h\"\n\
             [fleet]\ncontrol = \"https://{}\"\nname = \"edge-1\"\nstate = {fleet:?}\n\
             addresses = [\"192.0.2.7\"]\ncapacity = \"10 Gbit/s\"",
            control.address
        );
        let site = "tokens = { keys = \"fleet:film\" }";
        let edge = Edge::start_with_site(origin.address(), &settings, site);
        let keys = KeyFile::parse(KEYS.as_bytes()).unwrap().keys(Matching::Full).unwrap();
        let targets =
            (0..VIEWERS).map(|number| format!("URISigningPackage={}", token(&keys, number)));
        let targets = Arc::new(targets.collect());
        ControlFails { edge, control, folder, targets, _origin: origin }
    }

    pub(crate) async fn round(&mut self) -> Vec<Measure> {
        self.until_let_in().await;
        // What is asked for is there, and verdicts are known.
        self.play().await;
        let (mut peace, mut hostile) =
            ([Outcome::default(), Outcome::default()], Outcome::default());
        let mut calls = 0;
        for turn in 0..TURNS {
            self.control.tells_the_truth(("film", KEYS));
            peace[turn % 2].add(self.play().await);
            self.control.fails(&Call::ALL, &FAULTS);
            Control::begins_anew(&self.folder.path().join("fleet"));
            hostile.add(self.play().await);
            calls += Call::ALL.iter().map(|call| self.control.failed(*call)).sum::<u64>();
        }
        let [one, other] = &peace;
        let between = one.p99_ms() / other.p99_ms();
        let failed = one.failed + other.failed + hostile.failed;
        let mut all = Outcome::default();
        peace.into_iter().for_each(|half| all.add(half));
        let ratio = hostile.p99_ms() / all.p99_ms();
        let count = |name, value| Measure::shown(name, Unit::Count, value);
        let most = hostile.memory_mib - all.memory_mib;
        vec![
            Measure::shown("peace: p99 of a segment", Unit::Milliseconds, all.p99_ms()),
            Measure::shown("  one half by the other", Unit::Ratio, between),
            Measure::shown("control stalls, lies, dies: p99 by peace", Unit::Ratio, ratio)
                .promised(Promise::MedianAtMost(SLOWER_MAX)),
            count("  requests failed", failed as f64).promised(Promise::Exactly(0.0)),
            count("  segments served meanwhile", hostile.served_ms.len() as f64),
            count("  calls that failed", calls as f64),
            Measure::shown("  more memory than in peace", Unit::MiB, most)
                .promised(Promise::AtMost(MORE_MEMORY_MAX_MIB)),
        ]
    }

    /// From the first snapshot on.
    async fn until_let_in(&self) {
        let until = Instant::now() + LET_IN_WITHIN;
        let target = format!("/{SEGMENT}/0?{}", self.targets[0]);
        loop {
            let mut connection = Connection::open(self.edge.http(), None).await.unwrap();
            if connection.ask(&target, None).await.is_ok_and(|head| head.status == 200) {
                return;
            }
            assert!(Instant::now() < until, "the box has the keys");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All play for a turn.
    async fn play(&self) -> Outcome {
        let (begun, mut viewers) = (Instant::now(), JoinSet::new());
        for number in 0..VIEWERS {
            let (address, targets) = (self.edge.http(), self.targets.clone());
            viewers.spawn(async move {
                let mut outcome = Outcome::default();
                let mut at = begun + EACH * number / VIEWERS;
                let mut connection = None;
                for segment in number.. {
                    sleep_until(at).await;
                    if at > begun + TURN {
                        break;
                    }
                    let path = format!("/{SEGMENT}/{}", segment % CATALOGUE);
                    let target = format!("{path}?{}", targets[number as usize]);
                    let asked = Instant::now();
                    match has(address, &target, connection.take()).await {
                        Ok(kept) => connection = Some(kept),
                        Err(error) => {
                            eprintln!("a viewer failed: {error}");
                            outcome.failed += 1;
                        }
                    }
                    outcome.served_ms.push(asked.elapsed().as_secs_f64() * 1e3);
                    at += EACH;
                }
                outcome
            });
        }
        let (mut all, mut ticks) = (Outcome::default(), interval(LOOKED_AT_EVERY));
        loop {
            tokio::select! {
                outcome = viewers.join_next() => match outcome {
                    Some(outcome) => all.add(outcome.unwrap()),
                    None => return all,
                },
                _ = ticks.tick() => {
                    let resident = Resident::of(self.edge.pid()).expect("the box is there");
                    let mib = resident.anonymous as f64 / f64::from(1 << 20);
                    all.memory_mib = all.memory_mib.max(mib);
                }
            }
        }
    }
}

/// The connection, when all of a segment has come.
async fn has(
    address: SocketAddr,
    target: &str,
    connection: Option<Connection>,
) -> io::Result<Connection> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(address, None).await?,
    };
    let head = connection.ask(target, None).await?;
    if (head.status, head.body_bytes) != (200, SEGMENT) {
        return Err(io::Error::other(format!("{head:?}")));
    }
    connection.discard(head.body_bytes).await?;
    Ok(connection)
}

fn token(keys: &Keys, number: u32) -> String {
    let claims = json!({ "cdniuc": "regex:.*", "exp": 4_000_000_000 + u64::from(number) });
    mint(claims.as_object().unwrap(), keys.renewal("publisher").unwrap()).unwrap()
}

const LOOKED_AT_EVERY: Duration = Duration::from_millis(50);
const LET_IN_WITHIN: Duration = Duration::from_secs(30);
