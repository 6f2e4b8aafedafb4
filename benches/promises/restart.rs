//! A warm restart: a volume whose index holds two million blocks is online at once, and the real
//! binary serves from it as soon as it runs, after an orderly end and after a `kill -9`.
//!
//! The volume is a sparse file with footers, table and checkpoint as the product writes them; its
//! blocks have no bytes. The objects that are asked for are real.

pub(crate) mod built;
mod entries;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::object::{BlockKey, PieceMap, VersionNumbers};
use tidegate::store::Volume;
use tidegate::store::device::{self, Disk, Options};
use tidegate::store::format::{FilledFor, Indexed};
use tidegate::store::volume::VolumeSettings;
use tokio::time::{Instant, sleep};

use crate::edge::{Edge, Resident};
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin, content};
use crate::viewer::Connection;

/// Of an object that is really there.
const LENGTH: u64 = 4 << 20;
const ONLINE: Promise = Promise::MedianAtMost(2_000.0);
const FIRST_HIT_MAX_MS: f64 = 300.0;
const ORIGIN: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };

/// A volume of two million blocks, and the origin of what is asked for.
pub(crate) struct Restart {
    path: PathBuf,
    origin: Origin,
    folder: TempDir,
}

impl Restart {
    pub(crate) fn start(folder: &Path) -> Restart {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        let path = folder.path().join("volume");
        Restart { path, origin: Origin::start(ORIGIN), folder }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        let mut measures = Vec::new();
        if round == 1 {
            // First of all: memory that was given back to the heap would be counted twice.
            measures.extend(entries::measured());
            let versions = VersionNumbers::of_epoch(7);
            let block = |_| Indexed::Block {
                block: BlockKey { version: versions.assign(), index: 0 },
                pieces: PieceMap::run(0, 1),
                filled_for: FilledFor::Demand,
            };
            built::volume(&self.path, block).await;
            measures.extend(self.opened(FROM_FOOTERS, Promise::None).await.1);
            self.serve_once(FIRST_PATH).await;
        }
        let (blocks, online) = self.opened(FROM_CHECKPOINT, ONLINE).await;
        assert!(blocks >= built::ENTRIES, "{blocks} blocks are in the index");
        measures.push(Measure::shown("blocks in the index", Unit::Count, blocks as f64));
        measures.extend(online);

        let edge = self.first_hit(AFTER_AN_END, &mut measures).await;
        self.fill(&edge, &format!("/{LENGTH}/more-{round}")).await;
        drop(edge);
        let edge = self.first_hit(AFTER_A_KILL, &mut measures).await;
        edge.end().await;
        measures
    }

    /// Opens the volume here, as `serve` does.
    async fn opened(&self, names: [&'static str; 2], promise: Promise) -> (u64, Vec<Measure>) {
        let disk = Disk::new(device::open(&self.path, &Options::default()).unwrap());
        let before = Resident::of(std::process::id()).unwrap().all;
        let began = Instant::now();
        let volume = Volume::open(disk, VolumeSettings::default()).await.unwrap();
        let took = began.elapsed();
        let resident = Resident::of(std::process::id()).unwrap().all.saturating_sub(before);
        let blocks = volume.figures().blocks;
        volume.close().await;
        let milliseconds = took.as_secs_f64() * 1e3;
        let online = Measure::shown(names[0], Unit::Milliseconds, milliseconds).promised(promise);
        let resident = Measure::shown(names[1], Unit::MiB, resident as f64 / MIB);
        (blocks, vec![online, resident])
    }

    /// Fills an object and ends in order, so that the volume holds something to be hit.
    async fn serve_once(&self, path: &str) {
        let edge = self.edge();
        self.fill(&edge, path).await;
        edge.end().await;
    }

    /// From the start of the process until the first byte from the volume.
    async fn first_hit(&self, names: [&'static str; 3], measures: &mut Vec<Measure>) -> Edge {
        let asked = self.origin.requests();
        let began = Instant::now();
        let edge = self.edge();
        let listens = began.elapsed();
        let mut viewer = Connection::open(edge.http(), None).await.unwrap();
        let head = viewer.ask(FIRST_PATH, None).await.unwrap();
        assert_eq!((head.status, head.body_bytes), (200, LENGTH));
        let mut first = [0];
        viewer.read(&mut first).await.unwrap();
        let took = began.elapsed();
        assert_eq!(content(FIRST_PATH).first_difference(0, &first), None);
        viewer.read_to(content(FIRST_PATH), 1, LENGTH).await.unwrap();
        assert_eq!(self.origin.requests(), asked, "it came from the volume");
        let resident = Resident::of(edge.pid()).unwrap().all as f64 / MIB;
        let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
        measures.extend([
            Measure::shown(names[0], Unit::Milliseconds, milliseconds(listens)),
            Measure::shown(names[1], Unit::Milliseconds, milliseconds(took))
                .promised(Promise::MedianAtMost(FIRST_HIT_MAX_MS)),
            Measure::shown(names[2], Unit::MiB, resident),
        ]);
        edge
    }

    fn edge(&self) -> Edge {
        let state = self.folder.path().join("volumes.json");
        let settings = format!(
            "[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"\n\n[ssd]\nadmission = \"all\"\n\
             index = \"48 MiB\"\nstate = \"{}\"\n\n[[ssd.volumes]]\npath = \"{}\"\n\
             writes_per_day = \"1000x\"",
            state.display(),
            self.path.display()
        );
        let origin: SocketAddr = self.origin.address();
        Edge::start(origin, &settings)
    }

    /// Asks for an object until its blocks are on the volume.
    async fn fill(&self, edge: &Edge, path: &str) {
        let entries = async || edge.metric("tidegate_ssd_index_entries", "").await;
        let before = entries().await;
        let mut viewer = Connection::open(edge.http(), None).await.unwrap();
        let head = viewer.ask(path, None).await.unwrap();
        viewer.read_to(content(path), 0, head.body_bytes).await.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        // Its blocks, and its head.
        while entries().await < before + (LENGTH >> 20) as f64 + 1.0 {
            assert!(Instant::now() < until, "what was filled is written");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

const FIRST_PATH: &str = "/4194304/first";
const FROM_CHECKPOINT: [&str; 2] =
    ["online, from a checkpoint", "resident for it, from a checkpoint"];
const FROM_FOOTERS: [&str; 2] =
    ["online, without a checkpoint", "resident for it, without a checkpoint"];
const AFTER_AN_END: [&str; 3] =
    ["exec to listening", "exec to the first hit", "resident memory of the process"];
const AFTER_A_KILL: [&str; 3] = [
    "exec to listening, after kill -9",
    "exec to the first hit, after kill -9",
    "resident memory of the process, after kill -9",
];
const MIB: f64 = (1 << 20) as f64;
