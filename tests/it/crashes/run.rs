//! One seed: a volume lives through several processes, each of which ends in a crash; and every
//! crash that was taken on the way is judged.

use std::cell::Cell;
use std::future::Future;
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tidegate::object::BlockSize;
use tidegate::store::device::{Disk, Faults, Image, Share, Simulated, Simulation, Urgency};
use tidegate::store::format::{Geometry, VolumeId};
use tidegate::store::ledger::ReappendRule;
use tidegate::store::volume::{Volume, VolumeSettings};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::covered::Covered;
use super::model::{self, Model};
use super::restart::{Judgement, Required, check, raise_floors};
use super::truth::Truth;
use super::witness::{FOUND, Log, Plan, Point, Seen, Shape, Witness, Write};
use super::workload::{Asked, judge_head, work};

/// What is wrong with the device, apart from its crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sickness {
    /// Nothing: it loses, tears and reorders what was not flushed.
    None,
    /// It fails and stalls.
    Failing,
    /// It changes bits and writes to wrong places.
    Lying,
}

/// What came of a seed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) points: u64,
    /// The ticks of all crashes and of all ends, and what was left on the devices: as good as a
    /// copy of the run.
    pub(super) trace: Vec<u64>,
    pub(super) covered: Covered,
    pub(super) wrong: Vec<String>,
}

/// Runs `work` where every run is the same.
pub(super) fn on_paused_clock<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

/// Lives through `seed`; of each process at most `points_max` crashes are judged.
pub(super) fn run(seed: u64, sickness: Sickness, points_max: usize) -> Outcome {
    watch_panics();
    PANICS.set(0);
    let outcome = panic::catch_unwind(|| live_through(seed, sickness, points_max));
    let mut outcome = outcome.unwrap_or_default();
    if PANICS.get() > 0 {
        outcome.wrong.push("something panicked".to_owned());
    }
    outcome
}

fn live_through(seed: u64, sickness: Sickness, points_max: usize) -> Outcome {
    let mut chance = Chance::new(seed);
    let shape = shape(&mut chance);
    let mut image = formatted(&shape, &mut chance);
    let model = Model::new(shape.geometry.block().bytes(), &mut chance);
    let asked = Asked {
        model: Arc::new(Mutex::new(model)),
        wrong: Arc::default(),
        covered: Arc::default(),
        strict: sickness == Sickness::None,
    };
    let mut outcome = Outcome::default();
    for process in 0..2 + chance.below(3) {
        let began_with = asked.model().sequences.clone();
        let log = on_paused_clock(live(image, &shape, &asked, sickness, points_max, &mut chance));
        asked.model().sequences.extend(heads_of(&log, u64::MAX));
        outcome.trace.push(log.tick);
        if process >= 2 {
            asked.covered().add("processes begun from a crash of one begun from a crash", 1);
        }
        for point in &log.points {
            outcome.points += 1;
            point.during.iter().for_each(|what| asked.covered().add(what, 1));
            let left = judge(point, &log, &shape, &asked, sickness, &mut chance);
            outcome.trace.extend([point.tick, left]);
            outcome.covered = asked.covered().clone();
            if !asked.wrong.lock().unwrap().is_empty() {
                let told = asked.wrong.lock().unwrap();
                let at = format!("process {process}, tick {} of {}", point.tick, log.tick);
                outcome.wrong = told.iter().map(|what| format!("{at}: {what}")).collect();
                return outcome;
            }
        }
        let first = log.points.len() - log.points.len().min(4);
        let point = chance.choose(&log.points[first..]);
        go_on_from(point, &log, &shape, &asked, began_with);
        image = point.image.clone();
    }
    outcome
}

/// A volume of a few small regions.
fn shape(chance: &mut Chance) -> Shape {
    let block = BlockSize::new(*chance.choose(&[128 << 10, 256 << 10, 512 << 10, 1 << 20]));
    let block = block.unwrap();
    let room = chance.below(120) * 4096;
    let region = block.bytes() + 64 * 4096 + room;
    let bytes = (1 << 20) + 8192 + (5 + chance.below(4)) * region;
    let geometry = Geometry::new(bytes, region, block, 2_000).unwrap();
    Shape { volume: VolumeId(u128::from(chance.draw()) << 64 | 1), geometry }
}

fn formatted(shape: &Shape, chance: &mut Chance) -> Image {
    let (size_bytes, seed) = (shape.geometry.volume_bytes(), chance.draw());
    on_paused_clock(async {
        let faults = Faults::default();
        let device = Arc::new(Simulated::new(&Simulation { size_bytes, seed, faults }));
        let disk = Disk::new(Arc::<Simulated>::clone(&device));
        Volume::format(&disk, shape.geometry, shape.volume).await.unwrap();
        // What was formatted stays, whatever happens next.
        device.crash()
    })
}

/// One process, from its start to a loss of power. What it saw is told.
async fn live(
    image: Image,
    shape: &Shape,
    asked: &Asked,
    sickness: Sickness,
    points_max: usize,
    chance: &mut Chance,
) -> Log {
    let found = Truth::of(&image, shape);
    let faults = faults(sickness, chance);
    let device = Arc::new(Simulated::from_image(image, chance.draw(), faults));
    let plan = Plan { points_max, one_in: 10 + chance.below(200) };
    let device = Arc::new(Witness::new(device, *shape, plan, chance.draw()));
    device.log().writes = vec![durable(&found)];
    for life in 0..1 + chance.below(2) {
        let disk = Disk::new(Arc::<Witness>::clone(&device));
        let settings = VolumeSettings {
            checkpoint_interval: Duration::from_millis(5 + chance.below(500)),
            reappend: ReappendRule { score_min: chance.below(3) as u8, ..ReappendRule::default() },
            head_linger: Duration::from_micros(chance.below(20_000)),
            ..VolumeSettings::default()
        };
        device.log().opening = true;
        let Ok(volume) = Volume::open(disk, settings).await else {
            if sickness == Sickness::None {
                asked.blame("a volume on a healthy device can't be opened".to_owned());
            }
            break;
        };
        device.log().opening = false;
        let shared = Arc::clone(&asked.model);
        volume.set_extra(Arc::new(move || {
            let mut model = shared.lock().unwrap();
            model.extras += 1;
            model::extra(model.extras - 1)
        }));
        match sickness {
            Sickness::None if life > 0 => check_closed(&volume, asked).await,
            Sickness::None => {}
            // That a head is gone could perhaps not be written.
            _ => asked.model().objects.iter_mut().for_each(|of| of.forgotten_below = 0),
        }
        work(&volume, &device, asked, 40 + chance.below(260), chance).await;
        if chance.one_in(2) {
            break;
        }
        if timeout(Duration::from_secs(600), volume.close()).await.is_err() {
            asked.blame("it does not close".to_owned());
            break;
        }
        asked.covered().add("orderly ends", 1);
    }
    sleep(Duration::from_micros(chance.below(5_000))).await;
    device.crash();
    asked.covered().worked(&device.harm());
    std::mem::take(&mut *device.log())
}

/// After an orderly end the last thing that was asked of a head holds.
async fn check_closed(volume: &Volume, asked: &Asked) {
    let objects: Vec<_> =
        asked.model().objects.iter().map(|object| (object.hash, object.last)).collect();
    for (index, (object, last)) in objects.into_iter().enumerate() {
        let Some(last) = last else { continue };
        let found = volume.read_head(object, Urgency::Viewer).await;
        let Ok(Some(found)) = found else { continue };
        let put = judge_head(asked, index, &found);
        if put != last {
            asked.blame(format!("{object:?}: {put:?} after an orderly end, last was {last:?}"));
        }
    }
}

fn faults(sickness: Sickness, chance: &mut Chance) -> Faults {
    let latency_max = Duration::from_micros(chance.below(3_000));
    let faults = Faults { latency_max, ..Faults::default() };
    match sickness {
        Sickness::None => faults,
        Sickness::Failing => Faults {
            stall_reads: Duration::from_secs(3),
            stall_writes: Duration::from_millis(200),
            stall_share: Share::millionths(5_000),
            fail_reads: Share::millionths(5_000),
            fail_writes: Share::millionths(chance.below(4_000) as u32),
            fail_flushes: Share::millionths(chance.below(8_000) as u32),
            vanish_after: chance.one_in(8).then(|| chance.below(2_000)),
            ..faults
        },
        Sickness::Lying => Faults {
            flip_writes: Share::millionths(20_000),
            misdirect_writes: Share::millionths(10_000),
            ..faults
        },
    }
}

/// What was found on the device at the start, as a write that is durable.
fn durable(found: &Truth) -> Write {
    let whole = found.records.iter().filter(|(place, _)| found.is_whole(**place));
    Write {
        of: FOUND,
        submitted: 0,
        ended: Some((0, true)),
        durable: Some(0),
        records: whole.map(|(place, seen)| (*place, seen.clone())).collect(),
        generations: Vec::new(),
    }
}

fn judge(
    point: &Point,
    log: &Log,
    shape: &Shape,
    asked: &Asked,
    sickness: Sickness,
    chance: &mut Chance,
) -> u64 {
    let required = Required::at(point.tick, log, &asked.model());
    let judgement = Judgement {
        present: sickness == Sickness::None,
        newest: sickness != Sickness::Lying,
        exact: sickness == Sickness::None,
    };
    on_paused_clock(check(point, shape, asked, &required, judgement, chance))
}

/// What is known when a new process starts from what `point` left.
fn go_on_from(
    point: &Point,
    log: &Log,
    shape: &Shape,
    asked: &Asked,
    began_with: Vec<(tidegate::store::ObjectHash, u64, u64)>,
) {
    let required = Required::at(point.tick, log, &asked.model());
    let mut model = asked.model();
    model.sequences = began_with;
    model.sequences.extend(heads_of(log, point.tick));
    let mut floors = required.floors;
    for seen in Truth::of(&point.image, shape).records.values() {
        raise_floors(&mut floors, &model.sequences, seen);
    }
    model.floors = floors;
    model.replaced = required.replaced;
    model.heads_forgotten.retain(|(_, _, tick)| *tick <= point.tick);
    model.heads_forgotten.iter_mut().for_each(|(_, _, tick)| *tick = 0);
    for object in &mut model.objects {
        (object.last, object.forgotten_below) = (None, 0);
    }
}

fn heads_of(
    log: &Log,
    until: u64,
) -> impl Iterator<Item = (tidegate::store::ObjectHash, u64, u64)> {
    let writes = log.writes.iter().filter(move |write| write.submitted <= until);
    writes.flat_map(|write| &write.records).flat_map(|(_, seen)| {
        let heads = match seen {
            Seen::Heads(heads) => heads.as_slice(),
            Seen::Block { .. } => &[],
        };
        heads.iter().filter_map(|head| Some((head.object, head.sequence, head.put?)))
    })
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// A task that panics is not heard of otherwise.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            PANICS.set(PANICS.get() + 1);
            before(what);
        }));
    });
}
