//! A whole cache in weights only: the ram policy, the admission and the log that serve, no bytes.
//!
//! A shadow cache is one of a part of the keys; the replay of traces is one of all of them. Blocks
//! are whole: nothing is known here of pieces. No I/O, no randomness, the clock is an argument:
//! the same requests give the same figures.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use crate::cache::admission::{
    Admission, AdmissionFigures, AdmissionSettings, AdmissionSizes, Better, Decision, Sight, Use,
};
use crate::cache::policy::{Policy, PolicySettings, Sharding};
use crate::object::SiteId;
use crate::overload::Sharer;
use crate::store::ObjectHash;
use crate::store::index::{Fingerprint, Kind, REGION_GRANULES_MAX, Shape};
use crate::store::ledger::{FooterRoom, LedgerShape, ReappendRule, Stream, WeightLog};

/// Free regions kept for appending again.
const REGIONS_RESERVED: u32 = 1;
/// One open for each stream, and something to choose from.
const REGIONS_MIN: u64 = 8;

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MiniatureSizes {
    /// What ram keeps.
    pub ram_bytes: u64,
    /// What the volume holds.
    pub ssd_bytes: u64,
    /// The unit of reclaim; a block fits into it.
    pub region_bytes: u64,
    /// What a block usually weighs: tables are sized by it.
    pub block_bytes_usual: u64,
    /// How ram is divided.
    pub sharding: Sharding,
}

/// A request for a part of one block.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Of the block.
    pub block_hash: u64,
    /// Of what it is part of.
    pub title_hash: u64,
    /// Whose it is.
    pub site: SiteId,
    /// What the whole block weighs.
    pub block_bytes: u64,
    /// What was asked for of it.
    pub asked_bytes: u64,
    /// Where the reader began.
    pub reader: Reader,
    /// How long it will be fresh.
    pub lifetime_left: Duration,
    /// Whether it is part of a live stream.
    pub live: bool,
}

impl Asked {
    /// The whole of a block of a made-up workload, by its first byte: of a title of its own, and
    /// fresh for ever. Its number is all that tells it from others.
    pub fn made_up(number: u64, block_bytes: u64) -> Asked {
        Asked {
            block_hash: xxh3_64(&number.to_le_bytes()),
            title_hash: xxh3_64(&(!number).to_le_bytes()),
            site: SiteId(0),
            block_bytes,
            asked_bytes: block_bytes,
            reader: Reader::Enters,
            lifetime_left: Duration::MAX,
            live: false,
        }
    }
}

/// How a reader came to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// With its first byte: this counts as a use.
    Enters,
    /// Inside: he was counted before, or skips through.
    Inside,
}

/// Where a block was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In ram.
    Ram,
    /// On the volume.
    Ssd,
    /// Nowhere: it was filled.
    Nowhere,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MiniatureFigures {
    /// Asked for.
    pub asked_bytes: u64,
    /// Of them found in ram.
    pub ram_bytes: u64,
    /// Of them found on the volume.
    pub ssd_bytes: u64,
    /// Filled, whole blocks.
    pub filled_bytes: u64,
    /// Written to the volume because they were admitted.
    pub admitted_bytes: u64,
    /// Written to the volume again.
    pub reappended_bytes: u64,
}

impl MiniatureFigures {
    /// The part of the bytes asked for that was found.
    pub fn hit_share(&self) -> f64 {
        self.share(self.ram_bytes + self.ssd_bytes)
    }

    /// Written to the volume, whatever for.
    pub fn written_bytes(&self) -> u64 {
        self.admitted_bytes + self.reappended_bytes
    }

    /// `bytes` by those asked for.
    pub fn share(&self, bytes: u64) -> f64 {
        if self.asked_bytes == 0 { 0.0 } else { bytes as f64 / self.asked_bytes as f64 }
    }

    /// What was added since `before`.
    pub fn since(&self, before: &MiniatureFigures) -> MiniatureFigures {
        MiniatureFigures {
            asked_bytes: self.asked_bytes - before.asked_bytes,
            ram_bytes: self.ram_bytes - before.ram_bytes,
            ssd_bytes: self.ssd_bytes - before.ssd_bytes,
            filled_bytes: self.filled_bytes - before.filled_bytes,
            admitted_bytes: self.admitted_bytes - before.admitted_bytes,
            reappended_bytes: self.reappended_bytes - before.reappended_bytes,
        }
    }
}

/// The cache.
pub struct Miniature {
    ram: Policy<u64, (), BuildHasherDefault<Fold>>,
    admission: Admission,
    log: WeightLog,
    granule_bytes: u64,
    /// Regions, records and used records the admission was told of.
    told: (u64, u64, u64),
    figures: MiniatureFigures,
}

impl Miniature {
    /// Empty.
    pub fn new(sizes: MiniatureSizes, settings: AdmissionSettings, now: Instant) -> Miniature {
        // What is kept free is not held: it comes on top.
        let regions =
            (sizes.ssd_bytes / sizes.region_bytes).max(REGIONS_MIN) + u64::from(REGIONS_RESERVED);
        let granule_bytes = sizes.region_bytes.div_ceil(u64::from(REGION_GRANULES_MAX)).max(1);
        let blocks_max = sizes.ssd_bytes.div_ceil(sizes.block_bytes_usual).max(1);
        let shape = LedgerShape {
            regions: regions as u32,
            region_granules: (sizes.region_bytes / granule_bytes) as u32,
            header_granules: 0,
            footer: FooterRoom::default(),
            regions_reserved: REGIONS_RESERVED,
            index_entries_max: 2 * blocks_max,
        };
        let ram = PolicySettings {
            capacity_bytes: sizes.ram_bytes,
            block_bytes_usual: sizes.block_bytes_usual,
            block_bytes_max: 0,
            sharding: sizes.sharding,
        };
        let filter = AdmissionSizes { volume_bytes: sizes.ssd_bytes, blocks_max };
        Miniature {
            ram: Policy::new(ram, &Arc::default(), BuildHasherDefault::default()),
            admission: Admission::new(filter, settings, now),
            log: WeightLog::new(shape, ReappendRule::default()),
            granule_bytes,
            told: (0, 0, 0),
            figures: MiniatureFigures::default(),
        }
    }

    /// A request; where it was served from.
    pub fn ask(&mut self, asked: &Asked, now: Instant) -> Found {
        let enters = asked.reader == Reader::Enters;
        let key = fingerprint(asked.block_hash);
        let in_ram = match asked.reader {
            Reader::Enters => self.ram.get(&asked.block_hash),
            Reader::Inside => self.ram.peek(&asked.block_hash),
        };
        let on_ssd = match enters {
            true => self.log.touch(key, Kind::Head),
            false => self.log.holds(key, Kind::Head),
        };
        let found = match (in_ram.is_some(), on_ssd) {
            (true, _) => Found::Ram,
            (false, true) => Found::Ssd,
            (false, false) => Found::Nowhere,
        };
        self.count(asked, found);
        if found != Found::Ram {
            self.ram.change(asked.block_hash).keep((), asked.block_bytes, Sharer::of(SiteId(0)));
        }
        if on_ssd && enters {
            self.admission.used(&sight(asked, Use::RamHit));
        } else if !on_ssd && (enters || found == Found::Nowhere) {
            self.consider(asked, found, now);
        }
        found
    }

    /// What the shadow caches found better.
    pub fn prefer(&self, better: Better) {
        self.admission.prefer(better);
    }

    /// Another rule of admission.
    pub fn set(&self, settings: AdmissionSettings) {
        self.admission.set(settings);
    }

    /// The sums so far.
    pub fn figures(&self) -> MiniatureFigures {
        let log = self.log.figures();
        MiniatureFigures {
            admitted_bytes: log.admitted_granules * self.granule_bytes,
            reappended_bytes: log.reappended_granules * self.granule_bytes,
            ..self.figures
        }
    }

    /// How its admission judged.
    pub fn admission(&self) -> AdmissionFigures {
        self.admission.figures()
    }

    fn count(&mut self, asked: &Asked, found: Found) {
        self.figures.asked_bytes += asked.asked_bytes;
        match found {
            Found::Ram => self.figures.ram_bytes += asked.asked_bytes,
            Found::Ssd => self.figures.ssd_bytes += asked.asked_bytes,
            Found::Nowhere => self.figures.filled_bytes += asked.block_bytes,
        }
    }

    fn consider(&mut self, asked: &Asked, found: Found, now: Instant) {
        let kind = match (found, asked.reader) {
            (Found::Ram, _) => Use::RamHit,
            (_, Reader::Enters) => Use::Fill,
            (_, Reader::Inside) => Use::FillInside,
        };
        if self.admission.consider(&sight(asked, kind), now) != Decision::Admit {
            return;
        }
        // A head of one granule would be privileged.
        let granules = asked.block_bytes.div_ceil(self.granule_bytes).max(2) as u32;
        let score_min = self.admission.reappend_score_min();
        self.log.set_rule(ReappendRule { score_min, ..ReappendRule::default() });
        let before = self.figures().written_bytes();
        let key = fingerprint(asked.block_hash);
        self.log.append(Stream::Demand, key, Shape::Head { granules }, 0);
        self.admission.wrote(self.figures().written_bytes() - before);
        self.tell_reclaimed();
    }

    fn tell_reclaimed(&mut self) {
        let log = self.log.figures();
        let (regions, records, used) = self.told;
        if log.regions_reclaimed > regions {
            let (all, of_them) = (log.records_reclaimed, log.used_records_reclaimed);
            self.admission.reclaimed(all - records, of_them - used);
            self.told = (log.regions_reclaimed, all, of_them);
        }
    }
}

fn sight(asked: &Asked, kind: Use) -> Sight {
    Sight {
        block_hash: asked.block_hash,
        title_hash: asked.title_hash,
        site: asked.site,
        bytes: asked.block_bytes,
        kind,
        lifetime_left: asked.lifetime_left,
        live: asked.live,
    }
}

fn fingerprint(block_hash: u64) -> Fingerprint {
    Fingerprint::of_head(0, ObjectHash(u128::from(block_hash)))
}

/// Hashes what is a hash already, the same in every run.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::admission::Mode;

    const MIB: u64 = 1 << 20;

    fn asked(block: u64) -> Asked {
        Asked::made_up(block, MIB)
    }

    const SIZES: MiniatureSizes = MiniatureSizes {
        ram_bytes: 100 * MIB,
        ssd_bytes: 1_000 * MIB,
        region_bytes: 10 * MIB,
        block_bytes_usual: MIB,
        sharding: Sharding { shard_bytes_min: 64 * MIB, shards_max: 1 },
    };

    fn cache(mode: Mode) -> Miniature {
        let settings = AdmissionSettings { mode, ..AdmissionSettings::default() };
        Miniature::new(SIZES, settings, Instant::now())
    }

    /// Reads so many hot blocks without order, twenty times each, with so many strangers in
    /// between; what part of them is found.
    fn hot_share(cache: &mut Miniature, hot: u64, strangers: u64) -> f64 {
        let now = Instant::now();
        let requests = 20 * hot;
        let mut found = 0;
        for n in 0..requests {
            let which = xxh3_64(&n.to_le_bytes()) % hot;
            found += u64::from(cache.ask(&asked(which), now) != Found::Nowhere);
            for stranger in 0..strangers {
                cache.ask(&asked(strangers << 40 | (n * strangers + stranger + hot)), now);
            }
        }
        found as f64 / requests as f64
    }

    #[test]
    fn a_flood_of_strangers_leaves_the_hot_set() {
        let mut cache = cache(Mode::Budget);
        // The hot set was written among strangers, as it would be.
        hot_share(&mut cache, 400, 1);
        assert!(hot_share(&mut cache, 400, 0) > 0.999);
        let before = cache.figures();
        let flooded = hot_share(&mut cache, 400, 4);
        assert!(flooded > 0.99, "{flooded}");
        let written = cache.figures().since(&before);
        assert!(written.share(written.written_bytes()) < 0.1, "{written:?}");
    }

    #[test]
    fn a_flood_into_a_volume_that_was_never_full_leaves_the_hot_set() {
        let sizes = MiniatureSizes {
            ram_bytes: 200 * MIB,
            ssd_bytes: 2_048 * MIB,
            region_bytes: 32 * MIB,
            ..SIZES
        };
        let mut cache = Miniature::new(sizes, AdmissionSettings::default(), Instant::now());
        hot_share(&mut cache, 1_024, 0);
        assert_eq!(hot_share(&mut cache, 1_024, 0), 1.0);
        let flooded = hot_share(&mut cache, 1_024, 16);
        assert!(flooded > 0.99, "{flooded}");
    }

    #[test]
    fn what_is_asked_for_is_found_in_ram_or_on_the_volume_or_filled() {
        let mut cache = cache(Mode::All);
        let now = Instant::now();
        assert_eq!(cache.ask(&asked(0), now), Found::Nowhere);
        assert_eq!(cache.ask(&asked(0), now), Found::Ram);
        (1..300).for_each(|block| assert_eq!(cache.ask(&asked(block), now), Found::Nowhere));
        (1..300).for_each(|block| assert_ne!(cache.ask(&asked(block), now), Found::Nowhere));
        let figures = cache.figures();
        assert_eq!(figures.asked_bytes, 600 * MIB);
        assert_eq!(figures.filled_bytes, 300 * MIB);
        assert_eq!(figures.written_bytes() / MIB, 300, "whole granules");
        assert_eq!(figures.ram_bytes + figures.ssd_bytes, 300 * MIB);
        assert!(figures.ssd_bytes > 100 * MIB, "ram holds a hundred of them: {figures:?}");
    }

    #[test]
    fn what_is_stale_soon_is_not_written() {
        let mut cache = cache(Mode::All);
        let brief = Asked { lifetime_left: Duration::from_secs(59), ..asked(0) };
        cache.ask(&brief, Instant::now());
        assert_eq!(cache.figures().written_bytes(), 0);
        cache.ask(&asked(1), Instant::now());
        assert_eq!(cache.figures().written_bytes() / MIB, 1, "whole granules");
    }
}
