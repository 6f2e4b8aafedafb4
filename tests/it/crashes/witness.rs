//! A device that sees all that is written to it, and takes what a crash would leave.
//!
//! Time is counted in ticks: one for each operation that is handed over and one for each that has
//! ended. What is on the device at a tick is judged later, when it is known what came after it.

use std::sync::{Arc, Mutex, MutexGuard};

use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::ObjectHash;
use tidegate::store::device::{
    Device, DeviceFigures, Done, Engine, Image, Operation, Simulated, Transfer,
};
use tidegate::store::format::{ENTRIES_PER_PAGE, Geometry, PageCopy, Record, TablePage, VolumeId};

use super::chance::Chance;

/// What a volume is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) volume: VolumeId,
    pub(super) geometry: Geometry,
}

/// Where a record lies, in a generation of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) region: u32,
    pub(super) granule: u32,
    pub(super) generation: u64,
}

/// A head in a packet: its number among all writes, and which put it is of; `None`: a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenHead {
    pub(super) object: ObjectHash,
    pub(super) sequence: u64,
    pub(super) put: Option<u64>,
}

/// What was found in a write, or on a device.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// With the number of its write, which it keeps where it is carried on.
    Block {
        block: BlockKey,
        pieces: PieceMap,
        sequence: u64,
    },
    Heads(Vec<SeenHead>),
}

/// One write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) submitted: u64,
    /// When it ended, and whether well.
    pub(super) ended: Option<(u64, bool)>,
    /// From when on it survives a crash.
    pub(super) durable: Option<u64>,
    pub(super) records: Vec<(Place, Seen)>,
    /// Regions and their generations, of a page of the table.
    pub(super) generations: Vec<(u32, u64)>,
}

/// What a crash left, and when it was.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) tick: u64,
    pub(super) image: Image,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) tick: u64,
    pub(super) writes: Vec<Write>,
    pub(super) points: Vec<Point>,
}

impl Log {
    /// The tick of something that happens now.
    pub(super) fn now(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }
}

/// How often a crash is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) points_max: usize,
    /// One in so many ticks.
    pub(super) one_in: u64,
}

/// In front of a simulated device.
#[derive(Debug)]
pub(super) struct Witness {
    inner: Arc<Simulated>,
    shape: Shape,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    plan: Plan,
    chance: Mutex<Chance>,
}

impl Witness {
    pub(super) fn new(inner: Arc<Simulated>, shape: Shape, plan: Plan, seed: u64) -> Witness {
        let (log, chance) = (Mutex::default(), Mutex::new(Chance::new(seed)));
        Witness { inner, shape, shared: Arc::new(Shared { log, plan, chance }) }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap()
    }

    /// The power fails now.
    pub(super) fn crash(&self) {
        let image = self.inner.crash();
        let mut log = self.log();
        let tick = log.now();
        log.points.push(Point { tick, image });
    }
}

impl Shared {
    /// One tick; a crash at some.
    fn tick(&self, inner: &Simulated, weight: u64) -> u64 {
        let taken = {
            let mut chance = self.chance.lock().unwrap();
            chance.below(self.plan.one_in) < weight
                && self.log.lock().unwrap().points.len() < self.plan.points_max
        };
        let image = taken.then(|| inner.crash());
        let mut log = self.log.lock().unwrap();
        let tick = log.now();
        log.points.extend(image.map(|image| Point { tick, image }));
        tick
    }

    fn ended(&self, tick: u64, what: What, well: bool) {
        let mut log = self.log.lock().unwrap();
        match what {
            What::Read => {}
            What::Write(number) => log.writes[number].ended = Some((tick, well)),
            What::Flush(since) if well => {
                let complete = |write: &&mut Write| {
                    let whole = write.ended.is_some_and(|(at, well)| well && at < since);
                    write.durable.is_none() && whole
                };
                log.writes.iter_mut().filter(complete).for_each(|w| w.durable = Some(tick));
            }
            What::Flush(_) => {}
        }
    }
}

/// What of an operation is remembered until it ends.
#[derive(Clone, Copy, Debug)]
enum What {
    Read,
    /// By its place in the log.
    Write(usize),
    /// Since this tick.
    Flush(u64),
}

impl Device for Witness {
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>> {
        let (weight, seen) = match &transfer.operation {
            Operation::Read { .. } => (0, None),
            Operation::Write { at, from } => {
                let mut bytes = Vec::new();
                from.iter().for_each(|buffer| bytes.extend_from_slice(buffer.bytes()));
                let in_region = *at >= self.shape.geometry.region(0).unwrap().start;
                (if in_region { 1 } else { 4 }, Some(read_write(&self.shape, *at, &bytes)))
            }
            Operation::Flush => (4, None),
        };
        let tick = self.shared.tick(&self.inner, weight);
        let is_read = matches!(transfer.operation, Operation::Read { .. });
        let what = match seen {
            _ if is_read => What::Read,
            None => What::Flush(tick),
            Some((records, generations)) => {
                let mut log = self.log();
                let (submitted, ended, durable) = (tick, None, None);
                log.writes.push(Write { submitted, ended, durable, records, generations });
                What::Write(log.writes.len() - 1)
            }
        };
        let (shared, inner) = (Arc::clone(&self.shared), Arc::clone(&self.inner));
        let tell = transfer.done;
        let done = Box::new(move |done: Done| {
            let tick = shared.tick(&inner, weight);
            shared.ended(tick, what, done.result.is_ok());
            tell(done);
        });
        let sent = Transfer { done, ..transfer };
        // The log says of one that was given back that it never ended: it may have been written.
        self.inner.submit(sent)
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn engine(&self) -> Engine {
        self.inner.engine()
    }

    fn figures(&self) -> DeviceFigures {
        self.inner.figures()
    }
}

type Contents = (Vec<(Place, Seen)>, Vec<(u32, u64)>);

/// What is written at `at`.
fn read_write(shape: &Shape, at: u64, bytes: &[u8]) -> Contents {
    let geometry = &shape.geometry;
    if geometry.table().contains(&at) {
        return (Vec::new(), generations(shape, at, bytes));
    }
    let first = geometry.region(0).unwrap().start;
    let Some(inside) = at.checked_sub(first) else { return Default::default() };
    let region = (inside / geometry.region_bytes()) as u32;
    let mut granule = (inside % geometry.region_bytes() / 4096) as u32;
    let mut records = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 64 {
        let generation = u64::from_le_bytes(rest[48..56].try_into().unwrap());
        let found = geometry.spot(shape.volume, region, granule, generation);
        let place = Place { region, granule, generation };
        let step = match found.map(|spot| Record::decode(rest, &spot)) {
            Some(Ok(record)) => {
                records.extend(seen(&record).map(|seen| (place, seen)));
                record.granules()
            }
            _ => 1,
        };
        granule += step;
        rest = rest.get(step as usize * 4096..).unwrap_or_default();
    }
    (records, Vec::new())
}

fn generations(shape: &Shape, at: u64, bytes: &[u8]) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for page in 0..shape.geometry.table_pages() {
        for copy in [PageCopy::A, PageCopy::B] {
            let place = TablePage::place(&shape.geometry, page, copy);
            let Some(offset) = place.checked_sub(at).filter(|o| *o < bytes.len() as u64) else {
                continue;
            };
            let bytes = &bytes[offset as usize..];
            let read = TablePage::decode(bytes, shape.volume, &shape.geometry, page, copy);
            let Ok(read) = read else { continue };
            let first = page * ENTRIES_PER_PAGE as u32;
            found.extend((first..).zip(read.entries().iter().map(|entry| entry.generation)));
        }
    }
    found
}

/// What a record is.
pub(super) fn seen(record: &Record<'_>) -> Option<Seen> {
    match record {
        Record::Block(header) => {
            let (label, pieces) = (header.label(), header.pieces());
            Some(Seen::Block { block: label.block, pieces, sequence: label.sequence })
        }
        Record::Heads(packet) => {
            let heads = packet.heads().map(|head| SeenHead {
                object: head.label.object,
                sequence: head.label.sequence,
                put: super::model::put_of(head.payload),
            });
            Some(Seen::Heads(heads.collect()))
        }
        Record::Unknown { .. } => None,
    }
}
