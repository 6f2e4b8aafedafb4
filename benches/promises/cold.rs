//! Cold reads: viewers read whole objects in random order from a working set of twenty times the
//! ram tier, through the real binary. Beside it, in turn and over the same number of bytes: `fio`
//! with direct I/O on the same file, and nginx with the same objects as files.
//!
//! Every round each object is read once. What the viewers get is thrown away by the kernel, so that
//! they cost little of the processors they share with the edge; a round before checks every byte.

mod nginx;
mod viewers;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::store::format::{Geometry, Superblock};
use tokio::time::Instant;

use self::nginx::{Flavour, Nginx};
use self::viewers::{Viewers, shuffled};
use crate::disk::fio::{Fio, Span};
use crate::edge::{Edge, Resident};
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin, content};

const MIB: u64 = 1 << 20;
const RAM: u64 = 64 * MIB;
const LENGTH: u64 = 4 * MIB;
/// Twenty times the ram tier.
const OBJECTS: u64 = 20 * RAM / LENGTH;
const VOLUME: u64 = 2 << 30;
const DEPTH: usize = 16;
const BLOCK: u64 = MIB;
/// Of what fio reads.
const LEAST_OF_FIO: f64 = 0.85;
const PASSES_MAX: usize = 20;
const ORIGIN: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };

/// What a reader of the whole set reached.
#[derive(Clone, Copy, Debug)]
struct Reached {
    mib_per_second: f64,
    cpu_seconds_per_gib: f64,
}

/// An edge whose volume holds the set, and what it is compared with.
pub(crate) struct Cold {
    edge: Edge,
    origin: Origin,
    volume: PathBuf,
    fio: Option<Fio>,
    nginx: Option<Nginx>,
    _folder: TempDir,
}

impl Cold {
    pub(crate) fn start(folder: &Path) -> Cold {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        let origin = Origin::start(ORIGIN);
        let volume = folder.path().join("volume");
        let state = folder.path().join("volumes.json");
        let settings = format!(
            "[memory]\nram = \"{} MiB\"\ntotal = \"384 MiB\"\n\n[ssd]\nadmission = \"all\"\n\
             state = \"{}\"\n\n[[ssd.volumes]]\npath = \"{}\"\nsize = \"{} MiB\"\n\
             writes_per_day = \"1000x\"",
            RAM / MIB,
            state.display(),
            volume.display(),
            VOLUME / MIB
        );
        let edge = Edge::start(origin.address(), &settings);
        let (fio, nginx) = (Fio::find(), Nginx::start(folder.path(), &paths(), LENGTH));
        if fio.is_none() {
            eprintln!("cold: no fio here, so the promise has nothing to be compared with");
        }
        if nginx.is_none() {
            eprintln!("cold: no nginx here, so there is nothing beside the edge");
        }
        Cold { edge, origin, volume, fio, nginx, _folder: folder }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        if round == 1 {
            self.fill().await;
        }
        let asked = self.origin.requests();
        let before = self.reads().await;
        let edge = self.reached(self.edge.http(), self.edge.pid(), round).await;
        let reads = self.reads().await.since(&before);
        assert_eq!(self.origin.requests(), asked, "all of it came from the volume");
        let mut measures = EDGE.measures(edge).to_vec();
        measures.extend(reads.measures(edge));
        if let Some(fio) = &self.fio {
            let geometry = geometry(&self.volume);
            let start = geometry.region(0).expect("there are regions").start;
            let span = Span { start, bytes: OBJECTS * LENGTH };
            let reached = fio.reached_once(&self.volume, span, BLOCK, DEPTH as u64);
            let (mib, cpu) = (reached.bytes_per_second / MIB as f64, reached.cpu_seconds_per_gib);
            measures
                .extend(FIO.measures(Reached { mib_per_second: mib, cpu_seconds_per_gib: cpu }));
            let ratio = edge.mib_per_second / mib;
            measures.push(
                Measure::shown("edge / fio", Unit::Ratio, ratio)
                    .promised(Promise::MedianAtLeast(LEAST_OF_FIO)),
            );
        }
        for (flavour, names) in [(Flavour::Direct, &NGINX_DIRECT), (Flavour::Cached, &NGINX_CACHED)]
        {
            let Some(nginx) = &self.nginx else { continue };
            nginx.forget_pages();
            let reached = self.reached(nginx.address(flavour), nginx.pid(), round).await;
            measures.extend(names.measures(reached));
            let ratio = edge.cpu_seconds_per_gib / reached.cpu_seconds_per_gib;
            measures.push(Measure::shown(names.ratio, Unit::Ratio, ratio));
        }
        measures
    }

    /// What the edge's device has read since the edge was started.
    async fn reads(&self) -> Reads {
        Reads {
            count: self.edge.metric("tidegate_ssd_read_seconds_count", "").await,
            bytes: self.edge.metric("tidegate_ssd_read_bytes_total", "").await,
            seconds: self.edge.metric("tidegate_ssd_read_seconds_sum", "").await,
        }
    }

    /// Reads every object once, `DEPTH` at a time, in an order of the round.
    async fn reached(&self, address: SocketAddr, pid: u32, round: u32) -> Reached {
        let order = shuffled(&paths(), round);
        let before = (Resident::cpu_seconds(pid), Instant::now());
        Viewers::new(address, LENGTH).read(order, DEPTH).await;
        let took = before.1.elapsed().as_secs_f64();
        let cpu = Resident::cpu_seconds(pid) - before.0;
        let mib = (OBJECTS * LENGTH / MIB) as f64;
        Reached { mib_per_second: mib / took, cpu_seconds_per_gib: cpu / mib * 1024.0 }
    }

    /// Asks for everything until nothing comes from the origin any more; a full queue drops what is
    /// to be written, so that takes a few passes. The last one checks every byte.
    async fn fill(&self) {
        for pass in 0..PASSES_MAX {
            let asked = self.origin.requests();
            Viewers::new(self.edge.http(), LENGTH).checked(paths(), content).await;
            let more = self.origin.requests() - asked;
            eprintln!("cold: pass {pass} asked the origin {more} times");
            if more == 0 {
                return;
            }
        }
        panic!("the volume takes what it is given");
    }
}

fn paths() -> Vec<String> {
    (0..OBJECTS).map(|number| format!("/{LENGTH}/cold-{number}")).collect()
}

/// Of the volume as it was made.
fn geometry(volume: &Path) -> Geometry {
    let mut granule = [0; 4096];
    File::open(volume).unwrap().read_exact(&mut granule).unwrap();
    *Superblock::decode(&granule, 0).unwrap().geometry()
}

/// What a device has read: how often, how much, and how long that took in all.
struct Reads {
    count: f64,
    bytes: f64,
    seconds: f64,
}

impl Reads {
    fn since(&self, before: &Reads) -> Reads {
        Reads {
            count: self.count - before.count,
            bytes: self.bytes - before.bytes,
            seconds: self.seconds - before.seconds,
        }
    }

    /// Beside what was `reached` with them. By Little's law, how many were under way at a time is
    /// how long they took in all by how long it took.
    fn measures(&self, reached: Reached) -> [Measure; 3] {
        let sent = (OBJECTS * LENGTH) as f64;
        let took = sent / MIB as f64 / reached.mib_per_second;
        [
            Measure::shown(
                "read from the volume, of what was sent",
                Unit::Ratio,
                self.bytes / sent,
            ),
            Measure::shown(
                "edge: a read of the volume",
                Unit::MiB,
                self.bytes / self.count / MIB as f64,
            ),
            Measure::shown("edge: reads queued or under way", Unit::Count, self.seconds / took),
        ]
    }
}

/// The names of one reader's figures.
struct Names {
    speed: &'static str,
    cpu: &'static str,
    ratio: &'static str,
}

const EDGE: Names = Names { speed: "edge", cpu: "edge: processor", ratio: "" };
const FIO: Names = Names { speed: "fio", cpu: "fio: processor", ratio: "" };
const NGINX_DIRECT: Names = Names {
    speed: "nginx, directio and aio threads",
    cpu: "nginx, directio and aio threads: processor",
    ratio: "processor: edge / nginx, directio",
};
const NGINX_CACHED: Names = Names {
    speed: "nginx, page cache (cold)",
    cpu: "nginx, page cache (cold): processor",
    ratio: "processor: edge / nginx, page cache",
};

impl Names {
    fn measures(&self, reached: Reached) -> [Measure; 2] {
        [
            Measure::shown(self.speed, Unit::MiBPerSecond, reached.mib_per_second),
            Measure::shown(self.cpu, Unit::CpuSecondsPerGiB, reached.cpu_seconds_per_gib),
        ]
    }
}
