//! After a crash: the volume is opened from what was left, and all that can be found of it is
//! compared with what was asked, with what was durable, and with what is on the device.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::ObjectHash;
use tidegate::store::device::{Disk, Faults, Image, Share, Simulated, Urgency};
use tidegate::store::volume::{HeadFound, Pieces, ReadError, Trust, Volume, VolumeSettings};
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::model::{Model, Version};
use super::truth::Truth;
use super::witness::{Log, Place, Plan, Point, Seen, Shape, Witness};
use super::workload::{Asked, judge_head, read};

/// What must be found after a crash, if its region is still of the same generation.
pub(super) struct Required {
    records: Vec<(Place, Seen)>,
    /// The lowest put that may be found of each object.
    pub(super) floors: HashMap<ObjectHash, u64>,
    /// Records of which a later one has all; not among them.
    pub(super) replaced: HashSet<Place>,
    /// Puts below this were forgotten, whether or not that is durable.
    forgotten_below: HashMap<ObjectHash, u64>,
}

impl Required {
    /// At `tick` of the log.
    pub(super) fn at(tick: u64, log: &Log, model: &Model) -> Required {
        let durable = log.writes.iter().filter(|w| w.durable.is_some_and(|at| at <= tick));
        let records = durable.flat_map(|write| {
            write.records.iter().map(|(place, seen)| (write.submitted, *place, seen))
        });
        let mut floors = model.floors.clone();
        let mut replaced = replaced(tick, log);
        replaced.extend(&model.replaced);
        let mut kept = Vec::new();
        for (since, place, seen) in records {
            raise_floors(&mut floors, &model.sequences, seen);
            // It was perhaps forgotten already, because its region is given up.
            let leaving =
                |(at, region): &(u64, u32)| *region == place.region && (since..=tick).contains(at);
            if !replaced.contains(&place) && !log.victims.iter().any(leaving) {
                kept.push((place, seen.clone()));
            }
        }
        let mut forgotten_below = HashMap::new();
        for (object, puts, at) in &model.heads_forgotten {
            if *at <= tick {
                forgotten_below.insert(*object, *puts);
            }
        }
        Required { records: kept, floors, replaced, forgotten_below }
    }
}

/// A block record that was written: when it ended, its number, what it holds, and where.
type Written = (u64, u64, PieceMap, Place);

/// Block records that a later one contained: they are not found any more, and when that one is
/// given up nothing is. One that is carried on is as old as it was.
fn replaced(tick: u64, log: &Log) -> HashSet<Place> {
    let mut of_block = HashMap::<BlockKey, Vec<Written>>::new();
    for write in &log.writes {
        let Some((at, true)) = write.ended.filter(|(at, _)| *at <= tick) else { continue };
        for (place, seen) in &write.records {
            if let Seen::Block { block, pieces, sequence } = seen {
                of_block.entry(*block).or_default().push((at, *sequence, *pieces, *place));
            }
        }
    }
    let mut replaced = HashSet::new();
    for records in of_block.into_values() {
        for (at, sequence, pieces, place) in &records {
            let contained = records.iter().any(|(later, number, all, elsewhere)| {
                let is_later = number > sequence || later >= at;
                is_later && elsewhere != place && all.union(*pieces) == *all
            });
            replaced.extend(contained.then_some(*place));
        }
    }
    replaced
}

/// A durable head or tombstone forbids all older ones.
pub(super) fn raise_floors(
    floors: &mut HashMap<ObjectHash, u64>,
    sequences: &[(ObjectHash, u64, u64)],
    seen: &Seen,
) {
    let Seen::Heads(heads) = seen else { return };
    for head in heads {
        let lowest = match head.put {
            Some(put) => Some(put),
            None => sequences
                .iter()
                .filter(|(object, sequence, _)| *object == head.object && *sequence < head.sequence)
                .map(|(_, _, put)| put + 1)
                .max(),
        };
        let floor = floors.entry(head.object).or_default();
        *floor = lowest.unwrap_or(0).max(*floor);
    }
}

/// How a restart is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    /// What was durable is there.
    pub(super) present: bool,
    /// No head is found that was replaced durably, and nothing that is not on the device.
    pub(super) newest: bool,
    /// The newest head on the device is the one that is found.
    pub(super) exact: bool,
}

impl Judgement {
    /// What goes wrong while a volume is opened that will crash again: often much, so that it is
    /// met in the few operations that this takes.
    fn faults(self, chance: &mut Chance) -> Faults {
        let often = |chance: &mut Chance| Share::millionths(chance.below(150_000) as u32);
        // Each is tried twice.
        let fail_reads = Share::millionths(chance.below(500_000) as u32);
        match (self.present, self.newest) {
            (true, _) => Faults::default(),
            (false, true) => Faults {
                stall_reads: Duration::from_secs(3),
                stall_writes: Duration::from_millis(200),
                stall_share: Share::millionths(20_000),
                fail_reads,
                fail_writes: often(chance),
                fail_flushes: often(chance),
                ..Faults::default()
            },
            (false, false) => Faults {
                flip_writes: often(chance),
                misdirect_writes: often(chance),
                ..Faults::default()
            },
        }
    }
}

/// Opens the volume from what `point` left, and blames what is wrong. Returns a number that stands
/// for what was found.
pub(super) async fn check(
    point: &Point,
    shape: &Shape,
    asked: &Asked,
    required: &Required,
    judgement: Judgement,
    chance: &mut Chance,
) -> u64 {
    let mut image = point.image.clone();
    // The power may fail again while the volume is opened, on a device that is sick as before.
    for round in 0..chance.below(3) {
        let plan = Plan { points_max: 1, one_in: 6 };
        let faults = judgement.faults(chance);
        let healthy = faults == Faults::default();
        let (volume, device) = opened(&image, shape, plan, faults, asked, chance).await;
        if volume.is_none() && healthy && judgement.newest {
            return 0;
        }
        drop(volume);
        if device.log().points.is_empty() && chance.one_in(2) {
            device.crash();
        }
        asked.covered().opened(&device.harm());
        if let Some(point) = device.log().points.pop() {
            let mut covered = asked.covered();
            point.during.iter().for_each(|what| covered.add(what, 1));
            let again = round > 0 && !point.during.is_empty();
            covered.add("crashes while one was opened that had crashed so", again.into());
            image = point.image;
        }
    }
    let truth = Truth::of(&image, shape);
    let digest = truth.digest();
    if judgement.newest && !truth.ahead.is_empty() {
        asked.blame(format!("the table is behind the records: {:?}", truth.ahead));
    }
    let never = Plan { points_max: 0, one_in: 1 };
    let opened = opened(&image, shape, never, Faults::default(), asked, chance).await;
    let (Some(volume), device) = opened else {
        if judgement.newest {
            asked.blame("it can't be opened".to_owned());
        }
        return digest;
    };
    asked.covered().add("restarts", 1);
    if judgement.exact && volume.figures().recovered.heads_in_doubt {
        asked.blame("its heads are in doubt, and nothing of it was damaged".to_owned());
    }
    let restart = Restart { volume, asked, truth, required, judgement, device };
    if let Some(written) = restart.volume.extra()
        && super::model::extra_of(&written).is_none_or(|number| number >= asked.model().extras)
    {
        asked.blame("what the caller keeps is not what it gave".to_owned());
    }
    let mut missing = restart.check_blocks().await;
    missing.extend(restart.check_heads().await);
    restart.judge_missing(missing).await;
    digest
}

async fn opened(
    image: &Image,
    shape: &Shape,
    plan: Plan,
    faults: Faults,
    asked: &Asked,
    chance: &mut Chance,
) -> (Option<Arc<Volume>>, Arc<Witness>) {
    let sick = faults != Faults::default();
    let faults = Faults { latency_max: Duration::from_micros(300), ..faults };
    let device = Simulated::from_image(image.clone(), chance.draw(), faults);
    let device = Arc::new(Witness::new(Arc::new(device), *shape, plan, chance.draw()));
    device.log().opening = true;
    let disk = Disk::new(Arc::<Witness>::clone(&device));
    let opening = Volume::open(disk, VolumeSettings::default());
    let volume = match timeout(Duration::from_secs(600), opening).await {
        Ok(Ok(volume)) => Some(volume),
        Ok(Err(error)) => {
            if asked.strict && !sick {
                asked.blame(format!("it can't be opened: {error}"));
            }
            None
        }
        Err(_) => {
            asked.blame("it is not open after ten minutes".to_owned());
            None
        }
    };
    (volume, device)
}

/// A record that was looked for in vain.
struct Missing {
    place: Place,
    what: String,
}

struct Restart<'a> {
    volume: Arc<Volume>,
    asked: &'a Asked,
    truth: Truth,
    required: &'a Required,
    judgement: Judgement,
    device: Arc<Witness>,
}

impl Restart<'_> {
    /// Records that were durable and whose region has not been given up since.
    fn required(&self) -> impl Iterator<Item = &(Place, Seen)> {
        let records = self.required.records.iter().filter(|_| self.judgement.present);
        records.filter(|(place, _)| {
            self.truth.regions[place.region as usize].generation == place.generation
        })
    }

    async fn check_blocks(&self) -> Vec<Missing> {
        let (mut missing, on_device) = (Vec::new(), self.truth.blocks());
        let blocks = self.asked.model().blocks();
        let mut read: HashMap<BlockKey, PieceMap> = HashMap::new();
        for (block, version) in blocks {
            let held = self.volume.held(block);
            let there = on_device.get(&block).copied().unwrap_or_default();
            if self.judgement.newest && held.0 & !there.0 != 0 {
                self.asked
                    .blame(format!("{block:?}: {held:?} in the index, {there:?} on the device"));
            }
            if held.count() > 0 {
                read.insert(block, self.read_all(block, version).await);
            }
        }
        let pieces = read.values().map(|found| u64::from(found.count())).sum();
        self.asked.covered().add("pieces read after a restart", pieces);
        let forgotten = self.asked.model().forgotten.clone();
        for (place, seen) in self.required() {
            let Seen::Block { block, pieces, .. } = seen else { continue };
            self.asked.covered().add("durable blocks that had to be there", 1);
            let found = read.get(block).copied().unwrap_or_default();
            if !self.truth.is_whole(*place) {
                self.asked.blame(format!("{block:?} at {place:?} was durable, and is overwritten"));
            }
            if pieces.0 & !found.0 != 0 && !forgotten.contains(block) {
                let what = format!("{block:?} at {place:?}: {pieces:?} durable, {found:?} found");
                missing.push(Missing { place: *place, what });
            }
        }
        missing
    }

    /// The pieces of a block that can be read.
    async fn read_all(&self, block: BlockKey, version: Version) -> PieceMap {
        let mut found = PieceMap::default();
        // A read that fails has a record less to find.
        for _ in 0..40 {
            let wanted = self.volume.held(block).0 & !found.0;
            if wanted == 0 {
                break;
            }
            let first = wanted.trailing_zeros();
            let count = (wanted >> first).trailing_ones();
            let pieces = Pieces { first, count };
            match read(&self.volume, self.asked, block, version, pieces).await {
                Ok(count) => found = found.union(PieceMap::run(first, count)),
                Err(ReadError::Absent | ReadError::Mismatch) => {}
                Err(error) => self.asked.blame(format!("{block:?} after a restart: {error}")),
            }
        }
        found
    }

    async fn check_heads(&self) -> Vec<Missing> {
        let (mut missing, newest) = (Vec::new(), self.truth.heads());
        let objects: Vec<ObjectHash> =
            self.asked.model().objects.iter().map(|object| object.hash).collect();
        for (index, object) in objects.into_iter().enumerate() {
            let on_device = newest.get(&object).copied();
            let head = match self.volume.read_head(object, Urgency::Viewer).await {
                Ok(head) => head,
                Err(ReadError::Absent | ReadError::Mismatch) => None,
                Err(error) => {
                    self.asked.blame(format!("{object:?} after a restart: {error}"));
                    continue;
                }
            };
            let Some(head) = head else {
                // What took its place may have been given up with its region.
                let lowest = [&self.required.forgotten_below, &self.required.floors]
                    .into_iter()
                    .filter_map(|below| below.get(&object).copied())
                    .max()
                    .unwrap_or(0);
                let durable = on_device.filter(|(place, newest)| {
                    newest.put.is_some_and(|put| {
                        put >= lowest && !self.asked.model().has_unwritten(index, put)
                    }) && self.required().any(|(so, _)| so == place)
                });
                missing.extend(durable.map(|(place, newest)| Missing {
                    place,
                    what: format!("{object:?} at {place:?}: {newest:?} was durable"),
                }));
                continue;
            };
            let Some(put) = judge_head(self.asked, index, &head) else { continue };
            self.count_head(&head, self.required.floors.contains_key(&object));
            let floor = self.required.floors.get(&object).copied().unwrap_or(0);
            if self.judgement.newest && put < floor && head.trust == Trust::Newest {
                self.asked.blame(format!("{object:?}: put {put}, replaced durably by {floor}"));
            }
            let exact = on_device.is_some_and(|(_, newest)| newest.put == Some(put));
            if self.judgement.exact && !exact {
                self.asked.blame(format!("{object:?}: put {put} found, on device: {on_device:?}"));
            }
        }
        missing
    }

    fn count_head(&self, found: &HeadFound, has_floor: bool) {
        let mut covered = self.asked.covered();
        covered.add("heads found after a restart", 1);
        let newest = found.trust == Trust::Newest;
        covered.add("heads that could be the newest no more", (!newest).into());
        let bound = newest && has_floor && self.judgement.newest;
        covered.add("durable heads that had to be the newest", bound.into());
    }

    /// What is missing is missed, unless its region has been given up meanwhile.
    async fn judge_missing(&self, missing: Vec<Missing>) {
        if missing.is_empty() {
            return;
        }
        sleep(Duration::from_secs(5)).await;
        let log = self.device.log();
        let generations: BTreeSet<(u32, u64)> =
            log.writes.iter().flat_map(|write| write.generations.iter().copied()).collect();
        for Missing { place, what } in missing {
            let later = (place.region, place.generation + 1)..=(place.region, u64::MAX);
            if generations.range(later).next().is_none() {
                self.asked.blame(format!("missing: {what}"));
            }
        }
    }
}
