//! Reads of a volume's file at a depth, through both engines, and by `fio` in the same round: a
//! device is to be as fast as the kernel lets it be.
//!
//! The file is written first: what was only allocated is read without touching the disk.

pub(crate) mod fio;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::store::device::{
    self, Buffer, Disk, Engine, EngineChoice, Granules, Options, Urgency,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::fio::Fio;
use crate::edge::Resident;
use crate::figure::{Measure, Promise, Unit};

const SIZE: u64 = 2 << 30;
const MEASURED_FOR: Duration = Duration::from_secs(3);
/// Of what fio reads, with direct I/O too.
const LEAST_OF_FIO: f64 = 0.85;
const CHUNK: u64 = 1 << 20;
const GRANULE: u64 = 4 << 10;

/// What is asked for at once.
#[derive(Clone, Copy, Debug)]
struct Load {
    block_bytes: u64,
    depth: u64,
}

const BLOCKS: Load = Load { block_bytes: 1 << 20, depth: 16 };
const PIECES: Load = Load { block_bytes: 64 << 10, depth: 32 };

/// What somebody reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_seconds_per_gib: f64,
}

/// A file full of bytes, and `fio` if there is one.
pub(crate) struct DiskReads {
    path: PathBuf,
    fio: Option<Fio>,
    _folder: TempDir,
}

impl DiskReads {
    pub(crate) fn start(folder: &Path) -> DiskReads {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        let path = folder.path().join("volume");
        device::create(&path, SIZE).unwrap();
        let fio = Fio::find();
        if fio.is_none() {
            eprintln!("disk: no fio here, so there is nothing to compare with");
        }
        DiskReads { path, fio, _folder: folder }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        if round == 1 {
            fill(&self.open(EngineChoice::Auto)).await;
        }
        let mut measures = Vec::new();
        for (load, names) in [(BLOCKS, &OF_BLOCKS), (PIECES, &OF_PIECES)] {
            let uring = self.reached(EngineChoice::Uring, load, round).await;
            let threads = self.reached(EngineChoice::Threads, load, round).await;
            let fio = self.fio.as_ref().map(|fio| fio.reached(&self.path, load));
            measures.extend(names.measures(uring, threads, fio));
        }
        measures
    }

    fn open(&self, engine: EngineChoice) -> Disk {
        let options = Options { engine, ..Options::default() };
        Disk::new(device::open(&self.path, &options).unwrap())
    }

    /// Reads at random places for a while, always so many at once.
    async fn reached(&self, engine: EngineChoice, load: Load, round: u32) -> Reached {
        let disk = self.open(engine);
        let before = (cpu_seconds(), Instant::now());
        let until = before.1 + MEASURED_FOR;
        let mut readers = JoinSet::new();
        for reader in 0..load.depth {
            let disk = disk.clone();
            let mut state = u64::from(round) << 32 | reader;
            readers.spawn(async move {
                let granules = (load.block_bytes / GRANULE) as usize;
                let mut memory = vec![Buffer::Own(Granules::zeroed(granules))];
                let mut bytes = 0;
                while Instant::now() < until {
                    let at = random(&mut state) % (SIZE / load.block_bytes) * load.block_bytes;
                    let late = until + Duration::from_secs(60);
                    memory = disk.read(at, memory, Urgency::Viewer, late).await.unwrap();
                    bytes += load.block_bytes;
                }
                bytes
            });
        }
        let bytes: u64 = readers.join_all().await.into_iter().sum();
        let took = before.1.elapsed();
        let cpu = cpu_seconds() - before.0;
        assert!(disk.device().engine() != Engine::Simulated);
        Reached {
            bytes_per_second: bytes as f64 / took.as_secs_f64(),
            cpu_seconds_per_gib: cpu / gib(bytes),
        }
    }
}

/// The names of one load's figures.
struct Names {
    speed: [&'static str; 3],
    cpu: [&'static str; 3],
    ratio: [&'static str; 2],
}

const OF_BLOCKS: Names = Names {
    speed: ["1 MiB at depth 16: uring", "1 MiB at depth 16: threads", "1 MiB at depth 16: fio"],
    cpu: ["1 MiB: processor, uring", "1 MiB: processor, threads", "1 MiB: processor, fio"],
    ratio: ["1 MiB at depth 16: uring / fio", "1 MiB at depth 16: threads / fio"],
};
const OF_PIECES: Names = Names {
    speed: ["64 KiB at depth 32: uring", "64 KiB at depth 32: threads", "64 KiB at depth 32: fio"],
    cpu: ["64 KiB: processor, uring", "64 KiB: processor, threads", "64 KiB: processor, fio"],
    ratio: ["64 KiB at depth 32: uring / fio", "64 KiB at depth 32: threads / fio"],
};

impl Names {
    fn measures(&self, uring: Reached, threads: Reached, fio: Option<Reached>) -> Vec<Measure> {
        let mut measures = Vec::new();
        let all = [Some(uring), Some(threads), fio];
        for (n, reached) in all.into_iter().enumerate() {
            let Some(reached) = reached else { continue };
            let mib = reached.bytes_per_second / f64::from(1 << 20);
            measures.push(Measure::shown(self.speed[n], Unit::MiBPerSecond, mib));
            let cpu = reached.cpu_seconds_per_gib;
            measures.push(Measure::shown(self.cpu[n], Unit::CpuSecondsPerGiB, cpu));
        }
        if let Some(fio) = fio {
            let ratio = |of: Reached| of.bytes_per_second / fio.bytes_per_second;
            measures.push(
                Measure::shown(self.ratio[0], Unit::Ratio, ratio(uring))
                    .promised(Promise::MedianAtLeast(LEAST_OF_FIO)),
            );
            measures.push(Measure::shown(self.ratio[1], Unit::Ratio, ratio(threads)));
        }
        measures
    }
}

/// Writes all of the file, eight chunks at once, of bytes that no layer below can shorten.
async fn fill(disk: &Disk) {
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let disk = disk.clone();
        writers.spawn(async move {
            let mut state = writer;
            for chunk in (writer..SIZE / CHUNK).step_by(8) {
                let mut memory = Granules::zeroed((CHUNK / GRANULE) as usize);
                for word in memory.bytes_mut().chunks_exact_mut(8) {
                    word.copy_from_slice(&random(&mut state).to_ne_bytes());
                }
                let from = vec![Buffer::Own(memory)];
                disk.write(chunk * CHUNK, from, Urgency::Write).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    disk.flush(Urgency::Write).await.unwrap();
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of this process: the readers above are in it, as fio's are in fio's.
pub(crate) fn cpu_seconds() -> f64 {
    Resident::cpu_seconds(std::process::id())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
