//! A device that sees all that is written to it, and takes what a crash would leave.
//!
//! Time is counted in ticks: one for each operation that is handed over and one for each that has
//! ended. What is on the device at a tick is judged later, when it is known what came after it.

use std::sync::{Arc, Mutex, MutexGuard};

use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::ObjectHash;
use tidegate::store::device::{
    Buffer, Device, DeviceFigures, Done, Engine, Harm, Image, Operation, Simulated, Transfer,
    Urgency,
};
use tidegate::store::format::{
    ENTRIES_PER_PAGE, FormatError, Geometry, PageCopy, Record, TablePage, VolumeId,
};

use super::chance::Chance;

/// What a volume is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) volume: VolumeId,
    pub(super) geometry: Geometry,
}

impl Shape {
    /// The region that `at` lies in.
    fn region(&self, at: u64) -> Option<u32> {
        let inside = at.checked_sub(self.geometry.region(0).unwrap().start)?;
        Some((inside / self.geometry.region_bytes()) as u32)
    }
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

/// What a write is of; each as a crash is counted that came before it was flushed.
pub(super) const FOUND: &str = "crashes with what was there at the start not flushed";
const TABLE: &str = "crashes with a page of the table not flushed";
const CHECKPOINT: &str = "crashes with a checkpoint not flushed";
const REGION_HEADER: &str = "crashes with a header of a region not flushed";
const FOOTER: &str = "crashes with a footer not flushed";
const BLOCK: &str = "crashes with a block not flushed";
const HEADS: &str = "crashes with heads not flushed";
const CARRIED: &str = "crashes with what was carried on not flushed";

/// One write.
#[derive(Debug)]
pub(super) struct Write {
    /// One of the above.
    pub(super) of: &'static str,
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
    /// What was going on, for who counts.
    pub(super) during: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) tick: u64,
    pub(super) writes: Vec<Write>,
    pub(super) points: Vec<Point>,
    /// Regions that were read because they are given up, and since when.
    pub(super) victims: Vec<(u64, u32)>,
    /// The volume is not open yet.
    pub(super) opening: bool,
    /// Flushes under way.
    flushing: u64,
    /// A region is read because it is given up, and no page of the table is durable since.
    giving_up: bool,
    table_written: bool,
}

impl Log {
    fn take(&mut self, image: Image) {
        let unsafe_writes = self.writes.iter().filter(|write| write.durable.is_none());
        let mut during: Vec<_> = unsafe_writes.map(|write| write.of).collect();
        during.sort_unstable();
        during.dedup();
        during.extend(self.opening.then_some("crashes while a volume was opened"));
        during.extend((self.flushing > 0).then_some("crashes while a flush was under way"));
        during.extend(self.giving_up.then_some("crashes while a region was given up"));
        let tick = self.now();
        self.points.push(Point { tick, image, during });
    }

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
        self.log().take(image);
    }

    /// What has gone wrong with the device.
    pub(super) fn harm(&self) -> Harm {
        self.inner.harm()
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
        match image {
            Some(image) => log.take(image),
            None => drop(log.now()),
        }
        log.tick
    }

    fn ended(&self, tick: u64, what: What, well: bool) {
        let mut log = self.log.lock().unwrap();
        match what {
            What::Read => {}
            What::Write(number) => {
                log.table_written |= well && log.writes[number].of == TABLE;
                log.writes[number].ended = Some((tick, well));
            }
            What::Flush(since) if well => {
                log.flushing -= 1;
                if log.table_written {
                    (log.giving_up, log.table_written) = (false, false);
                }
                let complete = |write: &&mut Write| {
                    let whole = write.ended.is_some_and(|(at, well)| well && at < since);
                    write.durable.is_none() && whole
                };
                log.writes.iter_mut().filter(complete).for_each(|w| w.durable = Some(tick));
            }
            What::Flush(_) => log.flushing -= 1,
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
        let carried = transfer.urgency == Urgency::Reclaim;
        let (weight, seen) = match &transfer.operation {
            Operation::Read { .. } => (0, None),
            Operation::Write { at, from } => {
                let in_region = *at >= self.shape.geometry.region(0).unwrap().start;
                (if in_region { 1 } else { 4 }, Some(read_write(&self.shape, *at, from, carried)))
            }
            Operation::Flush => (4, None),
        };
        let tick = self.shared.tick(&self.inner, weight);
        let is_read = matches!(transfer.operation, Operation::Read { .. });
        let region = match transfer.operation {
            Operation::Read { at, .. } => self.shape.region(at),
            _ => None,
        };
        let what = match seen {
            _ if is_read => {
                let victim = region.filter(|_| carried);
                let mut log = self.log();
                log.giving_up |= carried;
                log.victims.extend(victim.map(|region| (tick, region)));
                What::Read
            }
            None => {
                self.log().flushing += 1;
                What::Flush(tick)
            }
            Some(Contents { of, records, generations }) => {
                let mut log = self.log();
                let (submitted, ended, durable) = (tick, None, None);
                log.writes.push(Write { of, submitted, ended, durable, records, generations });
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

/// What is in a write.
struct Contents {
    of: &'static str,
    records: Vec<(Place, Seen)>,
    generations: Vec<(u32, u64)>,
}

/// What is written at `at`: a record whose frame lies in the first buffer, or what is none.
fn read_write(shape: &Shape, at: u64, from: &[Buffer], carried: bool) -> Contents {
    let geometry = &shape.geometry;
    let bytes = from[0].bytes();
    let plain = |of| Contents { of, records: Vec::new(), generations: Vec::new() };
    if geometry.table().contains(&at) {
        return Contents { generations: generations(shape, at, bytes), ..plain(TABLE) };
    }
    let Some(region) = shape.region(at) else { return plain(CHECKPOINT) };
    let granule = ((at - geometry.region(region).unwrap().start) / 4096) as u32;
    let generation = u64::from_le_bytes(bytes[48..56].try_into().unwrap());
    let place = Place { region, granule, generation };
    let spot = geometry.spot(shape.volume, region, granule, generation);
    let record = match spot.map(|spot| Record::decode(bytes, &spot)) {
        _ if granule == 0 => return plain(REGION_HEADER),
        Some(Ok(record)) => record,
        Some(Err(FormatError::Short { .. })) => panic!("a frame is written in one buffer"),
        _ => return plain(FOOTER),
    };
    let of = match record {
        _ if carried => CARRIED,
        Record::Block(_) => BLOCK,
        _ => HEADS,
    };
    let records = seen(&record).map(|seen| (place, seen)).into_iter().collect();
    Contents { records, ..plain(of) }
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
