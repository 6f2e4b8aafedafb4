//! A purge by tag where two million objects are known: what it takes, what viewers notice of it,
//! and that what it covers is asked for anew, after a `kill -9` too.
//!
//! The volume is a sparse file whose footers list two million heads; they have no bytes. The
//! objects that are asked for are real: some have the tag that is purged, others have not.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::store::ObjectHash;
use tidegate::store::format::Indexed;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_128;

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin, content};
use crate::restart::built;
use crate::viewer::Connection;

/// Of each object that is really there.
const LENGTH: u64 = 1_000;
/// Objects of each tag.
const OBJECTS: u64 = 1_000;
const VIEWERS: usize = 16;
/// How long viewers are watched, before and after.
const WATCHED: Duration = Duration::from_secs(4);
const ORIGIN: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: 1 << 30 };
const TOKEN: &str = "a-token-of-some-length";
/// Beyond what one sync takes here.
const PURGE_MAX_MS: f64 = 10.0;
/// Two windows of one load differ by this, on a machine that does something else too.
const P99_RATIO_MAX: f64 = 1.25;
/// What the page cache writes for one record.
const PURGE_WRITES_MAX: f64 = 4_096.0;

/// A volume of two million heads, and the origin of what is asked for.
pub(crate) struct Purge {
    path: PathBuf,
    origin: Origin,
    folder: TempDir,
}

impl Purge {
    pub(crate) fn start(folder: &Path) -> Purge {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let path = folder.path().join("volume");
        Purge { path, origin: Origin::start(ORIGIN), folder }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        if round == 1 {
            let object = |number: u64| ObjectHash(xxh3_128(&number.to_le_bytes()));
            let head = |number| Indexed::Head { object: object(number) };
            built::volume(&self.path, head).await;
        }
        let edge = self.edge();
        let known = until_online(&edge).await;
        let (red, blue) = (Tagged { tag: "red", round }, Tagged { tag: "blue", round });
        for tagged in [red, blue] {
            self.ask_all(&edge, tagged).await;
        }
        until_quiet(&edge).await;

        let before = watched(&edge, blue, async || ()).await;
        let mut took = Duration::ZERO;
        let after = watched(&edge, blue, async || {
            took = edge.post("/purge", TOKEN, "{\"tags\": [\"red\"]}").await;
        })
        .await;
        let sync = self.sync();
        assert_eq!(self.ask_all(&edge, blue).await, 0, "nothing else is asked for");
        let red_asked = self.ask_all(&edge, red).await;
        until_quiet(&edge).await;
        // Nobody else wants the processors or the disk, so that this is the purge's own.
        let io = Written::of(edge.pid());
        let alone = edge.post("/purge", TOKEN, "{\"tags\": [\"blue\"]}").await;
        let written = Written::of(edge.pid()).since(io);
        // It is killed.
        drop(edge);
        let edge = self.edge();
        until_online(&edge).await;
        let blue_asked = self.ask_all(&edge, blue).await;
        let red_kept = self.ask_all(&edge, red).await;
        edge.end().await;

        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let time = |name, took| Measure::shown(name, Unit::Milliseconds, milliseconds(took));
        let count = |name, count| Measure::shown(name, Unit::Count, count);
        let ratio = after.as_secs_f64() / before.as_secs_f64();
        vec![
            count("heads in the index", known),
            time("purge by tag, under load", took),
            time("purge by tag, alone", alone),
            time("one sync here", sync),
            time("purge by tag, alone, beyond one sync", alone.saturating_sub(sync))
                .promised(Promise::MedianAtMost(PURGE_MAX_MS)),
            count("bytes written by it", written.write_bytes as f64)
                .promised(Promise::AtMost(PURGE_WRITES_MAX)),
            count("bytes read by it", written.read_bytes as f64).promised(Promise::Exactly(0.0)),
            time("viewers' p99, before", before),
            time("viewers' p99, with a purge", after),
            Measure::shown("viewers' p99, ratio", Unit::Ratio, ratio)
                .promised(Promise::MedianAtMost(P99_RATIO_MAX)),
            count("purged, and asked for anew, of 1,000", red_asked as f64)
                .promised(Promise::Exactly(OBJECTS as f64)),
            count("the same after kill -9, of 1,000", blue_asked as f64)
                .promised(Promise::Exactly(OBJECTS as f64)),
            count("not purged, but asked for after kill -9", red_kept as f64)
                .promised(Promise::Exactly(0.0)),
        ]
    }

    fn edge(&self) -> Edge {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let settings = format!(
            "[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"\n\n[admin]\ntoken_file = \"{}\"\n\n\
             [ssd]\nadmission = \"all\"\nindex = \"48 MiB\"\nstate = \"{}\"\n\n\
             [[ssd.volumes]]\npath = \"{}\"\nwrites_per_day = \"1000x\"",
            file("token"),
            file("volumes.json"),
            file("volume"),
        );
        Edge::start(self.origin.address(), &settings)
    }

    /// Asks for each object of a tag once; how many of them the origin was asked for.
    async fn ask_all(&self, edge: &Edge, tagged: Tagged) -> usize {
        let asked = self.origin.requests();
        let mut viewer = Connection::open(edge.http(), None).await.unwrap();
        for number in 0..OBJECTS {
            get(&mut viewer, &tagged.path(number)).await;
        }
        self.origin.requests() - asked
    }

    /// What one record and its sync take in the folder of the journal; the median.
    fn sync(&self) -> Duration {
        let mut file = File::create(self.folder.path().join("synced")).unwrap();
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let began = Instant::now();
                file.write_all(&[1; 64]).unwrap();
                file.sync_data().unwrap();
                began.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    }
}

/// The objects of a tag, of a round.
#[derive(Clone, Copy)]
struct Tagged {
    tag: &'static str,
    round: u32,
}

impl Tagged {
    /// The origin gives it the tag that stands after the last dot.
    fn path(&self, number: u64) -> String {
        format!("/{LENGTH}/{}-{number}.{}", self.round, self.tag)
    }
}

async fn get(viewer: &mut Connection, path: &str) {
    let head = viewer.ask(path, None).await.unwrap();
    assert_eq!((head.status, head.body_bytes), (200, LENGTH), "{path}");
    viewer.read_to(content(path), 0, LENGTH).await.unwrap();
}

/// The 99th percentile of what viewers wait for hits, while something is done in the middle.
async fn watched(edge: &Edge, tagged: Tagged, work: impl AsyncFnOnce()) -> Duration {
    let until = Instant::now() + WATCHED;
    let viewing = |first: u64| async move {
        let mut viewer = Connection::open(edge.http(), None).await.unwrap();
        let (mut number, mut waits) = (first, Vec::new());
        while Instant::now() < until {
            let began = Instant::now();
            get(&mut viewer, &tagged.path(number % OBJECTS)).await;
            waits.push(began.elapsed());
            number += 7;
        }
        waits
    };
    let viewers = (0..VIEWERS as u64).map(|number| viewing(number * 61));
    let working = async {
        sleep(WATCHED / 2).await;
        work().await;
    };
    let (mut waits, ()) = tokio::join!(together(viewers), working);
    waits.sort();
    waits[waits.len() * 99 / 100]
}

async fn together(
    viewers: impl Iterator<Item = impl Future<Output = Vec<Duration>>>,
) -> Vec<Duration> {
    let mut viewers: Vec<_> = viewers.map(Box::pin).collect();
    let mut all = Vec::new();
    std::future::poll_fn(|cx| {
        viewers.retain_mut(|viewer| match viewer.as_mut().poll(cx) {
            std::task::Poll::Ready(waits) => {
                all.extend(waits);
                false
            }
            std::task::Poll::Pending => true,
        });
        match viewers.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all
}

/// Waits until the volume's heads are known; how many.
async fn until_online(edge: &Edge) -> f64 {
    let until = Instant::now() + Duration::from_secs(150);
    loop {
        let known = edge.metric("tidegate_ssd_index_entries", "").await;
        if known >= built::ENTRIES as f64 {
            return known;
        }
        assert!(Instant::now() < until, "{known} heads are in the index");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing is written any more for what was filled.
async fn until_quiet(edge: &Edge) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut before = Written::of(edge.pid());
    loop {
        sleep(Duration::from_secs(2)).await;
        let now = Written::of(edge.pid());
        if now == before {
            return;
        }
        assert!(Instant::now() < until, "the volume comes to rest");
        before = now;
    }
}

/// What a process had of the disks, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    read_bytes: u64,
    write_bytes: u64,
}

impl Written {
    fn of(pid: u32) -> Written {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok()).unwrap()
        };
        Written { read_bytes: field("read_bytes:"), write_bytes: field("write_bytes:") }
    }

    fn since(self, before: Written) -> Written {
        Written {
            read_bytes: self.read_bytes - before.read_bytes,
            write_bytes: self.write_bytes - before.write_bytes,
        }
    }
}
