//! A sick volume and its neighbours: hits in ram and reads of a healthy volume stay as fast as they
//! are without it. And a volume that reclaims is read as fast as one that need not.
//!
//! Each pair of edges differs in one thing alone, and both get the same load: slices of a few
//! hundred milliseconds in turn, so that a machine that slows down slows both.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::content::mixed;
use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{self, Behaviour, Origin};
use crate::viewer::Connection;

/// How much slower the slowest hundredth may be.
const SLOWER_MAX: f64 = 1.2;
/// More of them on each volume than ram has room for.
const OBJECTS: usize = 300;
const LENGTH: u64 = 256 << 10;
const SLICE: Duration = Duration::from_millis(400);
const SLICES: usize = 6;
/// The simulated devices are well until everything is in its place.
const WELL_FOR: Duration = Duration::from_secs(120);
/// Beside what is measured, each asks for an object so often.
const OTHERS: u64 = 4;
const OTHERS_PAUSE: Duration = Duration::from_millis(100);
const BEHAVIOUR: Behaviour =
    Behaviour { first_byte_after: Duration::from_millis(2), bytes_per_second: 256 << 20 };

/// What is wrong with a volume.
struct Illness {
    faults: &'static str,
    volume: &'static str,
    /// What others ask for meanwhile.
    asked: Asked,
    names: [&'static str; 6],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// What the volume holds.
    Held,
    /// What nobody holds, so that it is written.
    New,
}

const ILLNESSES: [Illness; 4] = [
    Illness {
        faults: "stall-reads=2s",
        volume: "2 GiB",
        asked: Asked::Held,
        names: [
            "stalls: p99 of ram without",
            "stalls: p99 of ram with",
            "stalls: ram, with / without",
            "stalls: p99 of the other volume without",
            "stalls: p99 of the other volume with",
            "stalls: other volume, with / without",
        ],
    },
    Illness {
        faults: "fail-reads=5%",
        volume: "2 GiB",
        asked: Asked::Held,
        names: [
            "5 % fail: p99 of ram without",
            "5 % fail: p99 of ram with",
            "5 % fail: ram, with / without",
            "5 % fail: p99 of the other volume without",
            "5 % fail: p99 of the other volume with",
            "5 % fail: other volume, with / without",
        ],
    },
    Illness {
        faults: "",
        volume: "256 MiB",
        asked: Asked::New,
        names: [
            "full: p99 of ram without",
            "full: p99 of ram with",
            "full: ram, with / without",
            "full: p99 of the other volume without",
            "full: p99 of the other volume with",
            "full: other volume, with / without",
        ],
    },
    Illness {
        faults: "vanish-after=1",
        volume: "2 GiB",
        asked: Asked::Held,
        names: [
            "gone: p99 of ram without",
            "gone: p99 of ram with",
            "gone: ram, with / without",
            "gone: p99 of the other volume without",
            "gone: p99 of the other volume with",
            "gone: other volume, with / without",
        ],
    },
];

/// An edge with a volume that is well, and perhaps another.
struct Side {
    edge: Arc<Edge>,
    volumes: usize,
    /// Objects on the volume that is well, and on the other.
    kept: [Vec<String>; 2],
    asked: u64,
}

/// Latencies of one side in one round, in milliseconds.
#[derive(Default)]
struct Seen {
    ram: Vec<f64>,
    volume: Vec<f64>,
    missed: usize,
}

/// One edge without illness, and one with each.
pub(crate) struct Sick {
    _origin: Origin,
    _folder: TempDir,
    without: Side,
    with: Vec<Side>,
    ill_from: Instant,
}

impl Sick {
    pub(crate) async fn start(folder: &Path) -> Sick {
        let folder = TempDir::new_in(folder).unwrap();
        let origin = Origin::start(BEHAVIOUR);
        let start = |name: &str, faults: &str, size: &str| {
            let simulate = format!("size=2GiB,healthy-for={}s,{faults}", WELL_FOR.as_secs());
            let other =
                format!("path = \"{name}-other\"\nsize = \"{size}\"\nsimulate = {simulate:?}");
            Side::start(&origin, folder.path(), name, "1 GiB", &[("well", ""), ("other", &other)])
        };
        let mut without = start("none", "", "2 GiB");
        let mut with: Vec<Side> = (ILLNESSES.iter().enumerate())
            .map(|(n, ill)| start(&format!("ill-{n}"), ill.faults, ill.volume))
            .collect();
        let ill_from = Instant::now() + WELL_FOR;
        // All at once: the devices are not well for ever.
        let mut sides: Vec<&mut Side> = with.iter_mut().chain([&mut without]).collect();
        keep(&mut sides).await;
        for (side, ill) in with.iter_mut().zip(&ILLNESSES) {
            if ill.asked == Asked::New {
                side.until_reclaimed("other").await;
            }
        }
        Sick { _origin: origin, _folder: folder, without, with, ill_from }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        sleep_until(self.ill_from).await;
        let mut seen: Vec<[Seen; 2]> = ILLNESSES.iter().map(|_| Default::default()).collect();
        for slice in 0..SLICES {
            for ((ill, side), [without, with]) in
                ILLNESSES.iter().zip(&mut self.with).zip(&mut seen)
            {
                // Who is first changes, so that neither always follows the other.
                let turn = (slice + round as usize) % 2;
                for now in [turn, 1 - turn] {
                    match now {
                        0 => self.without.slice(ill.asked, without).await,
                        _ => side.slice(ill.asked, with).await,
                    }
                }
            }
        }
        let mut measures = Vec::new();
        for (ill, [without, with]) in ILLNESSES.iter().zip(&mut seen) {
            let (ram, volume) = ill.names.split_at(3);
            measures.extend(compared(ram, &mut without.ram, &mut with.ram));
            measures.extend(compared(volume, &mut without.volume, &mut with.volume));
        }
        let missed: usize = seen.iter().flatten().map(|seen| seen.missed).sum();
        measures.push(
            Measure::shown(
                "held elsewhere, and yet asked of the origin",
                Unit::Count,
                missed as f64,
            )
            .promised(Promise::Exactly(0.0)),
        );
        measures
    }
}

/// Two volumes that are written to all the time: one has room, the other must reclaim.
pub(crate) struct Reclaim {
    _origin: Origin,
    _folder: TempDir,
    roomy: Side,
    full: Side,
}

impl Reclaim {
    pub(crate) async fn start(folder: &Path) -> Reclaim {
        let folder = TempDir::new_in(folder).unwrap();
        let origin = Origin::start(BEHAVIOUR);
        let start = |name: &str, size: &str| {
            Side::start(&origin, folder.path(), name, size, &[("well", "")])
        };
        let (mut roomy, mut full) = (start("roomy", "3 GiB"), start("full", "512 MiB"));
        keep(&mut [&mut roomy, &mut full]).await;
        full.until_reclaimed("well").await;
        Reclaim { _origin: origin, _folder: folder, roomy, full }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        let (mut without, mut with) = (Seen::default(), Seen::default());
        let before = self.full.edge.reclaimed("well").await;
        for slice in 0..3 * SLICES {
            let turn = (slice + round as usize) % 2;
            for now in [turn, 1 - turn] {
                match now {
                    0 => self.roomy.slice(Asked::New, &mut without).await,
                    _ => self.full.slice(Asked::New, &mut with).await,
                }
            }
        }
        let given_up = self.full.edge.reclaimed("well").await - before;
        let names = [
            "p99 of reads while it is written to",
            "p99 of reads while it reclaims too",
            "reclaiming / not",
        ];
        let mut measures = compared(&names, &mut without.volume, &mut with.volume);
        measures.push(Measure::shown("blocks given up meanwhile", Unit::Count, given_up));
        let missed = with.missed as f64 / (with.missed + with.volume.len()) as f64;
        measures.push(Measure::shown("reads of what was given up", Unit::Ratio, missed));
        measures
    }
}

impl Side {
    fn start(
        origin: &Origin,
        folder: &Path,
        name: &str,
        size: &str,
        volumes: &[(&str, &str)],
    ) -> Side {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut settings = format!(
            "[memory]\nram = \"64 MiB\"\ntotal = \"320 MiB\"\n\n[ssd]\nadmission = \"all\"\n\
             state = {:?}\n",
            folder.join("state.json")
        );
        for (volume, words) in volumes {
            let words = match words.is_empty() {
                true => format!("path = {:?}\nsize = {size:?}", folder.join(volume)),
                false => (*words).to_owned(),
            };
            // Their weights are one: as many objects lie on the one as on the other.
            write!(
                settings,
                "\n[[ssd.volumes]]\n{words}\nwrites_per_day = \"10000x\"\nweight = 1\n"
            )
            .unwrap();
        }
        let edge = Arc::new(Edge::start(origin.address(), &settings));
        Side { edge, volumes: volumes.len(), kept: [vec![], vec![]], asked: 0 }
    }

    /// Asks for new objects until a volume is full, and for those on it all the while.
    async fn until_reclaimed(&mut self, volume: &str) {
        let kept = usize::from(volume == "other");
        while self.edge.reclaimed(volume).await == 0.0 {
            for _ in 0..8 {
                self.asked += 1;
                let path = format!("/{LENGTH}/new-{}", self.asked);
                view(&self.edge, &path).await.unwrap();
                let of = &self.kept[kept];
                view(&self.edge, &of[mixed(self.asked) as usize % of.len()]).await.unwrap();
            }
        }
    }

    /// A while of hits in ram and reads of the volume that is well, beside others.
    async fn slice(&mut self, asked: Asked, seen: &mut Seen) {
        let until = Instant::now() + SLICE;
        let mut others = JoinSet::new();
        for _ in 0..OTHERS {
            let paths: Vec<String> = (0..SLICE.as_millis() / OTHERS_PAUSE.as_millis())
                .map(|_| {
                    self.asked += 1;
                    let of = &self.kept[1];
                    match asked {
                        Asked::New => format!("/{LENGTH}/new-{}", self.asked),
                        Asked::Held => of[mixed(self.asked) as usize % of.len()].clone(),
                    }
                })
                .collect();
            let address = self.edge.http();
            others.spawn(async move {
                for path in paths {
                    // It may wait, be refused or be cut, but no byte may be wrong.
                    if let Err(error) = view_at(address, &path).await {
                        assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{path}");
                    }
                    sleep(OTHERS_PAUSE).await;
                }
            });
        }
        let hot = format!("/{LENGTH}/hot");
        let mut connection = Connection::open(self.edge.http(), None).await.unwrap();
        while Instant::now() < until {
            let (took, hit) = view_on(&mut connection, &hot).await;
            if hit {
                seen.ram.push(took);
            }
            self.asked += 1;
            let path = &self.kept[0][mixed(self.asked) as usize % self.kept[0].len()];
            let (took, hit) = view_on(&mut connection, path).await;
            match hit {
                true => seen.volume.push(took),
                false => seen.missed += 1,
            }
        }
        others.abort_all();
        while let Some(ended) = others.join_next().await {
            assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()));
        }
    }
}

impl Edge {
    /// Records on the volumes whose name ends so.
    async fn entries(&self, volume: &str) -> f64 {
        self.metric("tidegate_ssd_index_entries", &format!("{volume}\"")).await
    }

    async fn reclaimed(&self, volume: &str) -> f64 {
        // The series of one volume, and of that those that were reclaimed.
        let label = format!("{volume}\",reason=\"reclaimed\"");
        self.metric("tidegate_ssd_records_dropped_total", &label).await
    }
}

/// Has enough objects kept by every volume of every side.
async fn keep(sides: &mut [&mut Side]) {
    let mut keeping = JoinSet::new();
    for (n, side) in sides.iter().enumerate() {
        let (edge, volumes) = (side.edge.clone(), side.volumes);
        keeping.spawn(async move { (n, kept_by(&edge, volumes).await) });
    }
    while let Some(ended) = keeping.join_next().await {
        let (n, kept) = ended.unwrap();
        sides[n].kept = kept;
    }
}

/// Asks for objects one by one until enough lie on each volume, and sees which holds which.
async fn kept_by(edge: &Edge, volumes: usize) -> [Vec<String>; 2] {
    let mut kept = [vec![], vec![]];
    let mut number = 0;
    while kept[..volumes].iter().any(|kept: &Vec<String>| kept.len() < OBJECTS) {
        let path = format!("/{LENGTH}/kept-{number}");
        number += 1;
        let before = [edge.entries("well").await, edge.entries("").await];
        let (status, _) = view(edge, &path).await.unwrap();
        assert_eq!(status, 200);
        let written = async {
            while edge.entries("").await < before[1] + 2.0 {
                sleep(Duration::from_millis(2)).await;
            }
            usize::from(edge.entries("well").await == before[0])
        };
        if let Ok(home) = timeout(Duration::from_secs(1), written).await {
            kept[home].push(path);
        }
    }
    kept
}

async fn view(edge: &Edge, path: &str) -> std::io::Result<(u16, u64)> {
    view_at(edge.http(), path).await
}

/// Asks for an object and checks what comes.
async fn view_at(address: std::net::SocketAddr, path: &str) -> std::io::Result<(u16, u64)> {
    let mut connection = Connection::open(address, None).await?;
    let head = connection.ask(path, None).await?;
    if head.status == 200 {
        connection.read_to(origin::content(path), 0, head.body_bytes).await?;
    }
    Ok((head.status, head.body_bytes))
}

/// How long a whole object took, in milliseconds, and whether it was held.
async fn view_on(connection: &mut Connection, path: &str) -> (f64, bool) {
    let began = Instant::now();
    let head = connection.ask(path, None).await.unwrap();
    assert_eq!((head.status, head.body_bytes), (200, LENGTH), "{path}");
    connection.read_to(origin::content(path), 0, LENGTH).await.unwrap();
    (began.elapsed().as_secs_f64() * 1e3, head.hit)
}

/// The slowest hundredth of both, and their ratio.
fn compared(names: &[&'static str], without: &mut [f64], with: &mut [f64]) -> Vec<Measure> {
    let [without, with] = [without, with].map(p99);
    vec![
        Measure::shown(names[0], Unit::Milliseconds, without),
        Measure::shown(names[1], Unit::Milliseconds, with),
        Measure::shown(names[2], Unit::Ratio, with / without)
            .promised(Promise::MedianAtMost(SLOWER_MAX)),
    ]
}

fn p99(values: &mut [f64]) -> f64 {
    assert!(values.len() >= 100, "{} are too few for a hundredth", values.len());
    values.sort_by(f64::total_cmp);
    values[values.len() * 99 / 100]
}
