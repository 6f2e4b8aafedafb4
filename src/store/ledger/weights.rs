//! A ledger driven with weights only: what a volume would hold, without one.
//!
//! For shadow caches and the replay of traces. It appends, seals and gives up regions as the
//! volume engine does, at once and without I/O, and keeps the lists of the regions in memory.

use super::{Ledger, LedgerShape, Listed, ReappendRule, Room, Stream};
use crate::store::index::{Entry, Fingerprint, Kind, Location, RegionId, Shape};

/// What a [`WeightLog`] did, in granules and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightLogFigures {
    /// Appended because it was asked for.
    pub admitted_granules: u64,
    /// Appended again.
    pub reappended_granules: u64,
    /// Not appended: larger than a region, or no place in the index.
    pub refused: u64,
    /// Regions given up.
    pub regions_reclaimed: u64,
    /// Records that were given up with them, or carried over.
    pub records_reclaimed: u64,
    /// Those of them that had been used.
    pub used_records_reclaimed: u64,
}

/// A volume without bytes. One owner drives it.
///
/// Keys are [`Fingerprint`]s with any seed. A record weighs what its [`Shape`] says: for weights
/// that are no blocks of pieces use `Shape::Head { granules }` throughout; one key then has one
/// record, and heads of one granule are privileged as the engine's are, so let a granule stand for
/// few enough bytes that a record has two at least.
pub struct WeightLog {
    ledger: Ledger,
    lists: Vec<Vec<Listed>>,
    rule: ReappendRule,
    figures: WeightLogFigures,
}

impl WeightLog {
    /// Empty. Set `header_granules` and `footer` to zero for pure weights. `regions_reserved` is
    /// one at least, and there are more regions than that by three at least.
    pub fn new(shape: LedgerShape, rule: ReappendRule) -> WeightLog {
        assert!(shape.regions_reserved >= 1, "re-appending needs a region");
        assert!(shape.regions >= shape.regions_reserved + 3, "there is a region for each stream");
        let lists = vec![Vec::new(); shape.regions as usize];
        WeightLog { ledger: Ledger::new(shape), lists, rule, figures: Default::default() }
    }

    /// What is where.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was done so far.
    pub fn figures(&self) -> WeightLogFigures {
        self.figures
    }

    /// Another rule, from the next reclaim on.
    pub fn set_rule(&mut self, rule: ReappendRule) {
        self.rule = rule;
    }

    /// Whether any record of `key` is held.
    pub fn holds(&self, key: Fingerprint, kind: Kind) -> bool {
        !self.ledger.index().records(key, kind).is_empty()
    }

    /// Counts a use; whether any record of `key` is held.
    pub fn touch(&mut self, key: Fingerprint, kind: Kind) -> bool {
        self.ledger.touch(key, kind)
    }

    /// Appends a record, making room as needed. `score` is zero for what was merely asked for.
    /// Whether it is held now.
    pub fn append(&mut self, stream: Stream, key: Fingerprint, shape: Shape, score: u8) -> bool {
        let location = Location { region: RegionId(0), granule: 0 };
        let entry = Entry { location, shape, score, planned: stream == Stream::Planned };
        let Some(location) = self.place(stream, shape.granules()) else {
            self.figures.refused += 1;
            return false;
        };
        self.list(key, shape.kind(), location);
        self.figures.admitted_granules += u64::from(shape.granules());
        let held = self.ledger.insert(key, Entry { location, ..entry }).is_ok();
        self.figures.refused += u64::from(!held);
        held
    }

    fn list(&mut self, key: Fingerprint, kind: Kind, location: Location) {
        let record = Listed { key, kind, granule: location.granule };
        self.lists[location.region.0 as usize].push(record);
    }

    /// A place in the open region of `stream`; a new region is opened when that is full.
    fn place(&mut self, stream: Stream, granules: u32) -> Option<Location> {
        if !self.ledger.ever_fits(granules, 1) {
            return None;
        }
        loop {
            match self.ledger.room(stream, granules, 1) {
                Room::At(location) => return Some(location),
                Room::RegionFull => {
                    let region = self.ledger.close(stream).expect("a full region is open");
                    self.ledger.seal(region);
                }
                Room::NoneOpen => self.open(stream)?,
            }
        }
    }

    /// Re-appending takes a free region or does without; others have room made for them.
    fn open(&mut self, stream: Stream) -> Option<()> {
        for _ in 0..=2 * self.lists.len() {
            if self.ledger.open(stream).is_some() {
                return Some(());
            }
            if stream == Stream::Reappend {
                return None;
            }
            self.reclaim()?;
        }
        None
    }

    fn reclaim(&mut self) -> Option<()> {
        let region = self.ledger.victim(u64::MAX)?;
        let listed = std::mem::take(&mut self.lists[region.0 as usize]);
        self.count_reclaimed(region, &listed);
        for keeper in self.ledger.keepers(region, &listed, self.rule) {
            let record = listed[keeper.which];
            let granules = keeper.entry.shape.granules();
            let Some(location) = self.place(Stream::Reappend, granules) else { break };
            let from = keeper.entry.location;
            self.ledger.relocate(record.key, from, Entry { location, ..keeper.entry });
            self.list(record.key, record.kind, location);
            self.figures.reappended_granules += u64::from(granules);
        }
        self.ledger.forget(region, &listed);
        self.ledger.released(region);
        self.ledger.freed(region);
        Some(())
    }

    fn count_reclaimed(&mut self, region: RegionId, listed: &[Listed]) {
        self.figures.regions_reclaimed += 1;
        for record in listed {
            let location = Location { region, granule: record.granule };
            if let Some(entry) = self.ledger.index().at(record.key, record.kind, location) {
                self.figures.records_reclaimed += 1;
                self.figures.used_records_reclaimed += u64::from(entry.score > 0);
            }
        }
    }
}

impl std::fmt::Debug for WeightLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.ledger, self.figures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FooterRoom;
    use super::*;
    use crate::store::ObjectHash;

    fn key(n: u32) -> Fingerprint {
        Fingerprint::of_head(1, ObjectHash(u128::from(n)))
    }

    /// Regions of ten granules; records of two, so that a region holds five.
    fn log(regions: u32) -> WeightLog {
        let shape = LedgerShape {
            regions,
            region_granules: 10,
            header_granules: 0,
            footer: FooterRoom::default(),
            regions_reserved: 1,
            index_entries_max: 4_000,
        };
        WeightLog::new(shape, ReappendRule::default())
    }

    fn append(log: &mut WeightLog, n: u32) -> bool {
        log.append(Stream::Demand, key(n), Shape::Head { granules: 2 }, 0)
    }

    fn held(log: &WeightLog, numbers: std::ops::Range<u32>) -> usize {
        numbers.filter(|n| log.holds(key(*n), Kind::Head)).count()
    }

    #[test]
    fn what_was_used_outlives_what_was_not() {
        let mut log = log(10);
        for n in 0..1000 {
            assert!(append(&mut log, n));
            for hot in 0..3 {
                log.touch(key(hot), Kind::Head);
            }
        }
        assert_eq!(held(&log, 0..3), 3);
        assert!(held(&log, 5..900) == 0 && held(&log, 960..1000) >= 30, "{log:?}");
        assert!(log.figures().reappended_granules < log.figures().admitted_granules / 5);
    }

    #[test]
    fn a_planned_record_stays_one_lap_and_then_lives_on_its_score() {
        let mut log = log(10);
        log.append(Stream::Planned, key(0), Shape::Head { granules: 2 }, 0);
        let planned = |log: &WeightLog| log.ledger().index().head(key(0)).map(|e| e.planned);
        let mut n = 1;
        while planned(&log) == Some(true) {
            append(&mut log, n);
            log.append(Stream::Planned, key(10_000 + n), Shape::Head { granules: 2 }, 0);
            n += 1;
            assert!(n < 1_000, "its lap ends");
        }
        assert_eq!(planned(&log), Some(false));
        for _ in 0..200 {
            append(&mut log, n);
            n += 1;
        }
        assert_eq!(planned(&log), None);
    }

    #[test]
    fn a_region_that_is_all_in_use_still_gives_room() {
        let mut log = log(6);
        for n in 0..500 {
            assert!(append(&mut log, n));
            for all in 0..=n {
                log.touch(key(all), Kind::Head);
            }
        }
        assert!(held(&log, 0..500) >= 15, "{log:?}");
    }

    #[test]
    fn the_counters_of_a_region_are_the_sums_over_its_records() {
        let mut log = log(12);
        for n in 0..2_000_u32 {
            append(&mut log, n % 97 + n / 50);
            log.touch(key(n.wrapping_mul(2_654_435_761) % 97), Kind::Head);
        }
        let ledger = log.ledger();
        let (mut live, mut used) = (vec![0; 12], vec![0; 12]);
        for n in 0..2_000 {
            if let Some(entry) = ledger.index().head(key(n)) {
                let region = entry.location.region.0 as usize;
                live[region] += u64::from(entry.shape.granules());
                used[region] += u64::from(entry.shape.granules()) * u64::from(entry.score.min(3));
            }
        }
        for region in 0..12 {
            assert_eq!(ledger.live_granules(RegionId(region)), live[region as usize]);
            assert_eq!(ledger.used_granules(RegionId(region)), used[region as usize]);
        }
        assert!(used.iter().sum::<u64>() > 0);
    }

    #[test]
    fn a_record_larger_than_a_region_is_refused() {
        let mut log = log(6);
        assert!(!log.append(Stream::Demand, key(1), Shape::Head { granules: 11 }, 0));
        assert!(log.append(Stream::Demand, key(1), Shape::Head { granules: 10 }, 0));
        assert_eq!(log.figures().refused, 1);
    }
}
