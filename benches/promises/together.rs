//! 500 viewers at once of a cold object on a slow origin: nobody waits for another's bytes, and
//! the origin pays for one.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{self, Asked, Behaviour, Origin};
use crate::viewer::Connection;

const VIEWERS: usize = 500;
const LENGTH: u64 = 8 << 20;
/// A viewer asks for the whole, so one run brings it.
const RUNS: f64 = 1.0;
/// What the median viewer may wait longer than the first one.
const BEHIND_MAX_MS: f64 = 20.0;
const SLOW: Behaviour =
    Behaviour { first_byte_after: Duration::from_millis(100), bytes_per_second: 16 << 20 };

/// An edge and its slow origin.
pub(crate) struct Together {
    origin: Origin,
    edge: Edge,
}

impl Together {
    pub(crate) fn start() -> Together {
        let origin = Origin::start(SLOW);
        let edge = Edge::start(origin.address(), "[memory]\nram = \"512 MiB\"");
        Together { origin, edge }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        let path = format!("/{LENGTH}/together-{round}");
        let mut connections = Vec::new();
        for _ in 0..VIEWERS {
            connections.push(Connection::open(self.edge.http(), None).await.unwrap());
        }
        let (go_on, gate) = watch::channel(false);
        let (tell, mut told) = tokio::sync::mpsc::channel(VIEWERS);
        let mut viewers = JoinSet::new();
        let began = Instant::now();
        for mut connection in connections {
            connection.send(&path, None).await.unwrap();
            let (path, tell, mut gate) = (path.clone(), tell.clone(), gate.clone());
            viewers.spawn(async move {
                let head = connection.read_head().await.unwrap();
                assert_eq!((head.status, head.body_bytes), (200, LENGTH));
                let mut first = [0];
                connection.read(&mut first).await.unwrap();
                tell.send(Instant::now()).await.unwrap();
                assert_eq!(origin::content(&path).first_difference(0, &first), None);
                // Viewers are machines of their own. Here one thread is all of them, and what it
                // reads for one must not keep it from seeing another's first byte.
                gate.wait_for(|go_on| *go_on).await.unwrap();
                connection.read_to(origin::content(&path), 1, LENGTH).await.unwrap();
            });
        }
        let mut firsts = Vec::new();
        while firsts.len() < VIEWERS {
            firsts.push(told.recv().await.expect("every viewer gets a first byte"));
        }
        go_on.send_replace(true);
        while let Some(viewer) = viewers.join_next().await {
            viewer.unwrap();
        }
        firsts.sort();
        measures(began, &firsts, &self.origin.asked(&path))
    }
}

fn measures(began: Instant, firsts: &[Instant], asked: &[Asked]) -> Vec<Measure> {
    let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    let time = |name, from, to| Measure::shown(name, Unit::Milliseconds, milliseconds(from, to));
    let (first, last) = (firsts[0], firsts[VIEWERS - 1]);
    let pieces: u64 = asked.iter().map(|asked| asked.end - asked.start).sum();
    let twice = (pieces.saturating_sub(LENGTH)) as f64 / f64::from(1 << 20);
    vec![
        time("first viewer's first byte", began, first),
        time("median viewer's after the first's", first, firsts[VIEWERS / 2])
            .promised(Promise::MedianAtMost(BEHIND_MAX_MS)),
        time("last viewer's after the first's", first, last),
        Measure::shown("origin requests", Unit::Count, asked.len() as f64)
            .promised(Promise::Exactly(RUNS)),
        Measure::shown("asked for twice", Unit::MiB, twice).promised(Promise::Exactly(0.0)),
    ]
}
