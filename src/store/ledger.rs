//! The ledger: what lies where on a volume, and what goes when room is needed.
//!
//! Index and region table together, without a byte of I/O and without a clock: the volume engine
//! drives it beside a device, [`WeightLog`] drives it with weights only, for shadow caches and
//! the replay of traces.
//!
//! Records are appended to the open region of their [`Stream`]. A region goes through
//! `free -> open -> closing -> sealed -> leaving -> free`; its generation rises when it is opened
//! and when it is given up. Room is made by giving up a whole region: of the oldest twentieth of
//! the sealed ones the one with the fewest used granules. What earned it is appended again first.

mod reappend;
mod regions;
mod weights;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::limits::GRANULE_SIZE_BYTES;

pub use self::reappend::{COUNTED_SCORE_MAX, Keeper, ReappendRule, new_head};
use self::reappend::{best, weight};
use self::regions::Regions;
pub use self::regions::{RegionPhase, Room};
pub use self::weights::{WeightLog, WeightLogFigures};
use super::index::{Entry, Fingerprint, Full, Index, Kind, Location, RegionId};

/// What records share their open region with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// What viewers asked for, and heads.
    Demand,
    /// What a catalog asked for.
    Planned,
    /// What earned another lap.
    Reappend,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Stream; 3] = [Stream::Demand, Stream::Planned, Stream::Reappend];
}

/// The sizes a ledger is made for.
#[derive(Clone, Copy, Debug)]
pub struct LedgerShape {
    /// Regions of the volume.
    pub regions: u32,
    /// Granules of a region, those included that hold no records.
    pub region_granules: u32,
    /// Granules at its start that hold no records.
    pub header_granules: u32,
    /// What its footer takes at its end.
    pub footer: FooterRoom,
    /// Free regions that only re-appending may open.
    pub regions_reserved: u32,
    /// Entries the index is made for; the engine seeds its fingerprints itself.
    pub index_entries_max: u64,
}

/// What the list of a region's records takes at its end. All zero: none is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct FooterRoom {
    /// Without any record.
    pub fixed_bytes: u64,
    /// For each record.
    pub entry_bytes: u64,
}

impl FooterRoom {
    /// Granules for so many entries.
    pub fn granules(self, entries: u32) -> u32 {
        let bytes = self.fixed_bytes + self.entry_bytes * u64::from(entries);
        bytes.div_ceil(GRANULE_SIZE_BYTES) as u32
    }
}

/// A record of a region, as its list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Fingerprint,
    /// Head or block.
    pub kind: Kind,
    /// Where it starts in its region.
    pub granule: u16,
}

/// What is where. Shared by all who read and write a volume; every call is short.
pub struct Ledger {
    shape: LedgerShape,
    index: Index,
    cells: Box<[Cell]>,
    regions: Mutex<Regions>,
}

/// What changes of a region without a lock.
#[derive(Default)]
struct Cell {
    /// Granules of records that are indexed.
    live: AtomicI64,
    /// The same, each times its score.
    used: AtomicI64,
    generation: AtomicU64,
}

impl Ledger {
    /// Empty: every region free, of generation zero.
    pub fn new(shape: LedgerShape) -> Ledger {
        Ledger {
            index: Index::new(shape.index_entries_max),
            cells: (0..shape.regions).map(|_| Cell::default()).collect(),
            regions: Mutex::new(Regions::new(shape.regions)),
            shape,
        }
    }

    /// The sizes it was made for.
    pub fn shape(&self) -> &LedgerShape {
        &self.shape
    }

    /// What is indexed, to be looked up. Changes go through the ledger, which counts them.
    pub fn index(&self) -> &Index {
        &self.index
    }

    // Regions.

    /// A place for a record of `granules` in the open region of `stream`, whose list then names
    /// `entries` more records. The place is taken, whatever becomes of it.
    pub fn room(&self, stream: Stream, granules: u32, entries: u32) -> Room {
        self.regions().room(&self.shape, stream, granules, entries)
    }

    /// Whether a record of that size fits into an empty region at all.
    pub fn ever_fits(&self, granules: u32, entries: u32) -> bool {
        let taken = self.shape.header_granules + self.shape.footer.granules(entries);
        taken.checked_add(granules).is_some_and(|all| all <= self.shape.region_granules)
    }

    /// Opens the region that was free the longest for `stream`, which has none open. `None` when
    /// none is free, or only those that are reserved for re-appending.
    pub fn open(&self, stream: Stream) -> Option<RegionId> {
        let mut regions = self.regions();
        let region = regions.open(&self.shape, stream)?;
        self.cell(region).generation.fetch_add(1, Ordering::Relaxed);
        Some(region)
    }

    /// Ends appending to the open region of `stream`: it waits for being sealed.
    pub fn close(&self, stream: Stream) -> Option<RegionId> {
        self.regions().close(stream)
    }

    /// A closed region has its list: it is the youngest of the sealed ones from now on. Returns
    /// its place in their order.
    pub fn seal(&self, region: RegionId) -> u64 {
        self.regions().seal(region)
    }

    /// Chooses the region to be given up and takes it out of the order: of the oldest twentieth the
    /// one with the fewest used granules, and only one sealed before `sealed_before`.
    pub fn victim(&self, sealed_before: u64) -> Option<RegionId> {
        let used = |region: RegionId| self.used_granules(region);
        self.regions().victim(sealed_before, used)
    }

    /// The victim is not given up now: it is back where it was in the order.
    pub fn put_back(&self, region: RegionId) {
        self.regions().put_back(region);
    }

    /// The place in the order of sealing that comes next: what is sealed from now on is not
    /// before it.
    pub fn next_seal(&self) -> u64 {
        self.regions().next_seal()
    }

    /// Of `listed`, all the records that `region` was given, those that earn another lap: heads
    /// and the best blocks, in the order they lie.
    pub fn keepers(&self, region: RegionId, listed: &[Listed], rule: ReappendRule) -> Vec<Keeper> {
        let location = |granule| Location { region, granule };
        let entries = listed.iter().enumerate().filter_map(|(which, record)| {
            let entry = self.index.at(record.key, record.kind, location(record.granule))?;
            Some(Keeper { which, entry })
        });
        best(entries, u64::from(self.shape.region_granules), rule)
    }

    /// Forgets those of `listed` that still lie in `region`.
    pub fn forget(&self, region: RegionId, listed: &[Listed]) {
        for record in listed {
            let location = Location { region, granule: record.granule };
            self.remove_at(record.key, record.kind, location);
        }
    }

    /// Forgets all that lies in `region`, without its list, of one of the [`Index::shards`]: looks
    /// at all of it.
    pub fn forget_region(&self, region: RegionId, shard: usize) {
        let gone = |entry: Entry| self.uncount(entry);
        self.index.retain(shard, |entry| entry.location.region != region, gone);
    }

    /// The victim holds nothing any more: its generation rises. It is not free before
    /// [`Ledger::freed`], so that the new generation can be made durable.
    pub fn released(&self, region: RegionId) -> u64 {
        self.cell(region).generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A released region may be opened again, after all that were free before it.
    pub fn freed(&self, region: RegionId) {
        self.regions().freed(region);
    }

    /// Takes a region out of use for good; what it holds is still to be forgotten.
    pub fn quarantine(&self, region: RegionId) {
        self.regions().quarantine(region);
    }

    /// Sets every region as it was found on the volume, in order of their numbers. Only before the
    /// ledger is shared. What was found open is `Closing` now, or `Free`.
    pub fn restore(&self, found: impl Iterator<Item = (RegionPhase, u64)>) {
        let (phases, generations): (Vec<_>, Vec<_>) = found.unzip();
        assert_eq!(phases.len(), self.cells.len(), "every region is restored");
        for (cell, generation) in self.cells.iter().zip(generations) {
            cell.generation.store(generation, Ordering::Relaxed);
        }
        *self.regions() = Regions::restored(phases);
    }

    /// Every region's phase and generation, at one moment.
    pub fn snapshot(&self) -> Vec<(RegionPhase, u64)> {
        let regions = self.regions();
        let each = (0..self.shape.regions).map(RegionId);
        each.map(|region| (regions.phase(region), self.generation(region))).collect()
    }

    /// What a region is in.
    pub fn phase(&self, region: RegionId) -> RegionPhase {
        self.regions().phase(region)
    }

    /// How often a region was opened and given up.
    pub fn generation(&self, region: RegionId) -> u64 {
        self.cell(region).generation.load(Ordering::Relaxed)
    }

    /// The open region of a stream, and where its next record goes.
    pub fn open_region(&self, stream: Stream) -> Option<Location> {
        self.regions().open_region(stream)
    }

    /// Regions that could be opened.
    pub fn free_regions(&self) -> u32 {
        self.regions().free()
    }

    /// Regions in the order of sealing.
    pub fn sealed_regions(&self) -> u32 {
        self.regions().sealed()
    }

    /// Regions never used again.
    pub fn quarantined_regions(&self) -> u32 {
        self.regions().quarantined()
    }

    /// Granules of a region's records, each times its score up to [`COUNTED_SCORE_MAX`].
    pub fn used_granules(&self, region: RegionId) -> u64 {
        self.cell(region).used.load(Ordering::Relaxed).max(0) as u64
    }

    /// Granules of a region's records.
    pub fn live_granules(&self, region: RegionId) -> u64 {
        self.cell(region).live.load(Ordering::Relaxed).max(0) as u64
    }

    // Records.

    /// Adds a record; those it makes superfluous go.
    ///
    /// # Errors
    /// `Full`: the index has no place for it.
    pub fn insert(&self, key: Fingerprint, entry: Entry) -> Result<(), Full> {
        self.index.insert(key, entry, |old| self.uncount(old))?;
        self.count(entry, 1);
        Ok(())
    }

    /// Moves the record at `from` to where `to` says, if it is still there.
    pub fn relocate(&self, key: Fingerprint, from: Location, to: Entry) {
        if let Some(old) = self.index.relocate(key, from, to) {
            self.uncount(old);
            self.count(to, 1);
        }
    }

    /// Counts a use of all records of `key`; whether there are any.
    pub fn touch(&self, key: Fingerprint, kind: Kind) -> bool {
        self.index.touch(key, kind, |before, after| {
            let more = weight(&after) - weight(&before);
            if more != 0 {
                self.cell(after.location.region).used.fetch_add(more, Ordering::Relaxed);
            }
        })
    }

    /// Removes the record of `key` if it lies at `location`.
    pub fn remove_at(&self, key: Fingerprint, kind: Kind, location: Location) -> Option<Entry> {
        let old = self.index.remove_at(key, kind, location)?;
        self.uncount(old);
        Some(old)
    }

    /// Removes all records of `key` of one kind.
    pub fn remove(&self, key: Fingerprint, kind: Kind) {
        self.index.remove(key, kind, |old| self.uncount(old));
    }

    /// Counts an entry that came into the index beside the ledger: from a dump.
    pub fn count_loaded(&self, entry: &Entry) {
        self.count(*entry, 1);
    }

    fn uncount(&self, entry: Entry) {
        self.count(entry, -1);
    }

    fn count(&self, entry: Entry, sign: i64) {
        let cell = self.cell(entry.location.region);
        let granules = i64::from(entry.shape.granules());
        cell.live.fetch_add(sign * granules, Ordering::Relaxed);
        cell.used.fetch_add(sign * weight(&entry), Ordering::Relaxed);
    }

    fn cell(&self, region: RegionId) -> &Cell {
        &self.cells[region.0 as usize]
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().expect("nothing panics while it changes the regions")
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, sealed) = (self.free_regions(), self.sealed_regions());
        write!(f, "{:?}, {free} regions free and {sealed} sealed", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::PieceMap;
    use crate::store::ObjectHash;
    use crate::store::index::Shape;

    fn key(n: u32) -> Fingerprint {
        Fingerprint::of_head(1, ObjectHash(u128::from(n)))
    }

    fn ledger(regions: u32) -> Ledger {
        Ledger::new(LedgerShape {
            regions,
            region_granules: 100,
            header_granules: 1,
            footer: FooterRoom { fixed_bytes: 64, entry_bytes: 48 },
            regions_reserved: 2,
            index_entries_max: 1_000,
        })
    }

    fn entry(location: Location, granules: u32, score: u8) -> Entry {
        Entry { location, shape: Shape::Head { granules }, score, planned: false }
    }

    /// Opens, fills and seals a region with records of two granules and these scores.
    fn sealed(ledger: &Ledger, scores: &[u8], first_key: u32) -> (RegionId, Vec<Listed>) {
        let region = ledger.open(Stream::Demand).unwrap();
        let mut listed = Vec::new();
        for (n, score) in (first_key..).zip(scores) {
            let Room::At(location) = ledger.room(Stream::Demand, 2, 1) else { panic!("full") };
            ledger.insert(key(n), entry(location, 2, *score)).unwrap();
            listed.push(Listed { key: key(n), kind: Kind::Head, granule: location.granule });
        }
        ledger.close(Stream::Demand);
        ledger.seal(region);
        (region, listed)
    }

    #[test]
    fn the_room_for_the_list_is_kept_free() {
        let ledger = ledger(5);
        ledger.open(Stream::Demand);
        // 84 entries fit the first granule of the footer, beside its header.
        for _ in 0..84 {
            assert!(matches!(ledger.room(Stream::Demand, 1, 1), Room::At(_)));
        }
        assert_eq!(ledger.open_region(Stream::Demand).unwrap().granule, 85);
        assert!(matches!(ledger.room(Stream::Demand, 13, 1), Room::At(_)));
        assert_eq!(ledger.room(Stream::Demand, 1, 1), Room::RegionFull);
        assert!(ledger.ever_fits(98, 1) && !ledger.ever_fits(99, 1));
    }

    #[test]
    fn the_least_used_of_the_oldest_twentieth_goes() {
        let ledger = ledger(42);
        for region in 0..40 {
            let score = if region == 1 { 1 } else { 2 };
            sealed(&ledger, &[score; 3], region * 10);
        }
        assert_eq!(ledger.victim(1), None);
        assert_eq!(ledger.victim(2), Some(RegionId(0)));
        assert_eq!(ledger.victim(u64::MAX), Some(RegionId(1)));
        ledger.put_back(RegionId(1));
        assert_eq!(ledger.victim(2), None);
        assert_eq!(ledger.victim(3), Some(RegionId(1)), "it is where it was");
        assert_eq!(ledger.victim(u64::MAX), Some(RegionId(2)));
    }

    #[test]
    fn the_best_are_kept_up_to_a_share_of_the_region_with_their_score_halved() {
        let ledger = ledger(5);
        let (region, listed) = sealed(&ledger, &[1, 5, 2, 0, 3], 0);
        let rule = ReappendRule { score_min: 2, share_max_percent: 4 };
        let kept = ledger.keepers(region, &listed, rule);
        let found: Vec<_> = kept.iter().map(|k| (k.which, k.entry.score)).collect();
        assert_eq!(found, [(1, 2), (4, 1)]);
    }

    #[test]
    fn small_heads_outlast_blocks_of_the_same_score() {
        let ledger = ledger(5);
        let region = ledger.open(Stream::Demand).unwrap();
        let head = Location { region, granule: 1 };
        let block = Location { region, granule: 2 };
        ledger.insert(key(1), entry(head, 1, 1)).unwrap();
        let shape = Shape::Block { pieces: PieceMap(1), last_granules: 1 };
        ledger.insert(key(1), Entry { shape, ..entry(block, 2, 1) }).unwrap();
        let listed = [(Kind::Head, 1), (Kind::Block, 2)].map(|(kind, granule)| Listed {
            key: key(1),
            kind,
            granule,
        });
        let kept = ledger.keepers(region, &listed, ReappendRule::default());
        assert_eq!(kept.iter().map(|k| k.which).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_small_head_stays_for_two_laps_without_a_use_and_a_large_one_for_none() {
        let ledger = ledger(5);
        let region = ledger.open(Stream::Demand).unwrap();
        let at = Location { region, granule: 1 };
        let listed = [Listed { key: key(1), kind: Kind::Head, granule: at.granule }];
        let laps = |granules| {
            ledger.insert(key(1), new_head(at, granules)).unwrap();
            let lap = || {
                let [kept] = ledger.keepers(region, &listed, ReappendRule::default())[..] else {
                    return None;
                };
                ledger.insert(key(1), kept.entry).ok()
            };
            std::iter::from_fn(lap).count()
        };
        assert_eq!((laps(1), laps(2)), (2, 0));
    }

    #[test]
    fn a_generation_rises_when_a_region_is_opened_and_when_it_is_given_up() {
        let ledger = ledger(4);
        let (region, listed) = sealed(&ledger, &[0], 0);
        assert_eq!(ledger.generation(region), 1);
        assert_eq!(ledger.victim(u64::MAX), Some(region));
        ledger.forget(region, &listed);
        assert_eq!(ledger.live_granules(region), 0);
        assert_eq!(ledger.released(region), 2);
        assert_eq!(ledger.free_regions(), 3);
        ledger.freed(region);
        let order = std::iter::from_fn(|| {
            let region = ledger.open(Stream::Reappend)?;
            ledger.close(Stream::Reappend);
            Some(region.0)
        });
        let order: Vec<_> = order.collect();
        assert_eq!(order, [1, 2, 3, 0], "what was free the longest comes first");
        assert_eq!(ledger.generation(region), 3);
    }

    #[test]
    fn the_last_free_regions_are_for_what_is_appended_again() {
        let ledger = ledger(3);
        assert!(ledger.open(Stream::Demand).is_some());
        assert!(ledger.open(Stream::Planned).is_none());
        assert!(ledger.open(Stream::Reappend).is_some());
    }

    #[test]
    fn a_region_out_of_use_holds_nothing_and_is_not_used_again() {
        let ledger = ledger(4);
        let (region, _) = sealed(&ledger, &[7, 7], 0);
        ledger.quarantine(region);
        (0..ledger.index().shards()).for_each(|shard| ledger.forget_region(region, shard));
        assert_eq!(ledger.index().heads(), 0);
        assert_eq!(ledger.live_granules(region), 0);
        assert_eq!(ledger.victim(u64::MAX), None);
        let found = [RegionPhase::Quarantined, RegionPhase::Free, RegionPhase::Free];
        ledger.restore(found.into_iter().chain([RegionPhase::Free]).map(|phase| (phase, 9)));
        assert_eq!(ledger.free_regions(), 3);
        assert_eq!(ledger.open(Stream::Demand), Some(RegionId(1)));
        assert_eq!(ledger.generation(RegionId(1)), 10);
    }

    #[test]
    fn a_record_that_was_replaced_does_not_move() {
        let ledger = ledger(4);
        let (region, listed) = sealed(&ledger, &[3], 0);
        let old = Location { region, granule: listed[0].granule };
        let newer = Location { region: RegionId(3), granule: 1 };
        ledger.insert(key(0), entry(newer, 2, 0)).unwrap();
        let elsewhere = Location { region: RegionId(2), granule: 1 };
        ledger.relocate(key(0), old, entry(elsewhere, 2, 1));
        assert_eq!(ledger.index().head(key(0)).unwrap().location, newer);
        assert_eq!((ledger.live_granules(region), ledger.live_granules(RegionId(3))), (0, 2));
    }
}
