//! Shadow caches: what would be served if the cache wrote by another rule or had another size.
//!
//! Each is a whole cache in weights only ([`Miniature`]), of a part of the keys and as much smaller
//! (Waldspurger et al., Cached Sets of Keys: miniature simulation, ATC 2017). Two say which mode of
//! admission serves more here, the others what more or less ram or ssd would bring. A key that is
//! not in the sample costs one comparison; memory is bounded by the number of blocks in it.

mod miniature;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::miniature::{Asked, Found, Miniature, MiniatureFigures, MiniatureSizes, Reader};
use crate::cache::admission::{Admission, AdmissionSettings, AdmissionSizes, Better, Mode};
use crate::cache::policy::Sharding;

/// One key in so many is in the sample, unless it would then be too small or too large.
const KEYS_PER_SAMPLE: u64 = 64;
/// Fewer blocks that fit the volume say little.
const BLOCKS_MIN: u64 = 4_096;
/// Blocks of the sample that fit the volume: about 4 MiB of memory for each shadow cache.
const BLOCKS_MAX: u64 = 65_536;
/// What a shadow cache has of each: in ram's policy, in the index, in the log.
const BLOCK_MEMORY_BYTES: u64 = 64;
/// The modes that are compared, and the cache as it is.
const MODES: [Mode; 3] = [Mode::Budget, Mode::All, Mode::Budget];
/// How often it is reckoned what is better.
const HOUR: Duration = Duration::from_secs(3_600);
/// What an hour counts for after the next one: the last three hours or so decide.
const HOUR_KEPT: f64 = 0.7;
/// The other mode must serve this much more before it is chosen.
const BETTER_BY: f64 = 0.003;
/// Regions of a shadow volume, if each then holds a few blocks.
const REGIONS: u64 = 128;
const REGION_BYTES_MIN: u64 = 4 << 20;

/// The cache that is shadowed.
#[derive(Clone, Copy, Debug)]
pub struct ShadowSettings {
    /// What ram keeps.
    pub ram_bytes: u64,
    /// What all volumes hold.
    pub ssd_bytes: u64,
    /// What a block usually weighs.
    pub block_bytes_usual: u64,
    /// What is too short-lived to be written.
    pub lifetime_min: Duration,
}

/// A tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory.
    Ram,
    /// Volumes.
    Ssd,
}

/// A point of the miss-ratio curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Of another size.
    pub tier: Tier,
    /// That size, by the present one.
    pub factor: f64,
    /// How much more of the bytes asked for would have been found of late, from -1 to 1. Added to
    /// what was found: a sample is a little off, but alike for every size.
    pub gain: f64,
    /// The same since the start.
    pub gain_since_start: f64,
}

/// What the shadow caches say.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowReport {
    /// Hours since the start.
    pub hours: u64,
    /// One key in so many is in the sample.
    pub keys_per_sample: u64,
    /// Which mode of admission serves more.
    pub better: Better,
    /// What would be found in mode `budget`, of late, as a part of the bytes asked for.
    pub chosen_hit_share: f64,
    /// The same in mode `all`.
    pub all_hit_share: f64,
    /// What the better mode writes in a second.
    pub write_bytes_per_second: f64,
    /// Other sizes, in the better mode.
    pub curve: Vec<Point>,
}

impl ShadowReport {
    /// What this cache could find at its size: the better of the modes.
    pub fn attainable_hit_share(&self) -> f64 {
        self.chosen_hit_share.max(self.all_hit_share)
    }
}

/// The other sizes.
const CURVE: [(Tier, f64); 4] =
    [(Tier::Ssd, 0.5), (Tier::Ssd, 2.0), (Tier::Ram, 0.5), (Tier::Ram, 2.0)];
/// A shadow cache each for the modes `budget` and `all`; of the present size in the better mode,
/// which the others are held against; and then for the other sizes.
const CHOSEN: usize = 0;
const ALL: usize = 1;
const PRESENT: usize = 2;

/// The shadow caches. Shared by all threads.
pub struct Shadows {
    keys_per_sample: u64,
    started: Instant,
    /// Seconds after the start when an hour is over.
    hour_ends_s: AtomicU64,
    caches: Mutex<Caches>,
}

struct Caches {
    caches: Vec<Shadow>,
    settings: AdmissionSettings,
    report: Option<ShadowReport>,
    better: Better,
}

/// One of them, with what it served of late.
struct Shadow {
    cache: Miniature,
    before: MiniatureFigures,
    asked_bytes: f64,
    hit_bytes: f64,
    written_bytes: f64,
}

impl Shadows {
    /// What they take in memory, in bytes, of a cache whose volumes hold so many blocks.
    pub fn bytes_for(blocks: u64) -> u64 {
        let caches = (MODES.len() + CURVE.len()) as u64;
        let blocks_max = blocks.min(BLOCKS_MAX);
        let admission = Admission::bytes_for(&AdmissionSizes { volume_bytes: 0, blocks_max });
        caches * (admission + blocks_max * BLOCK_MEMORY_BYTES)
    }

    /// Shadow caches of a cache of this size.
    pub fn new(settings: ShadowSettings, now: Instant) -> Shadows {
        let blocks = settings.ssd_bytes / settings.block_bytes_usual.max(1);
        let keys_per_sample = keys_per_sample(blocks);
        let admission = AdmissionSettings {
            mode: Mode::Budget,
            write_bytes_per_day: None,
            lifetime_min: settings.lifetime_min,
        };
        let cache = |mode, ram: f64, ssd: f64| {
            let sizes = sizes(settings, keys_per_sample, ram, ssd);
            Shadow::new(Miniature::new(sizes, AdmissionSettings { mode, ..admission }, now))
        };
        let mut caches = Vec::from(MODES.map(|mode| cache(mode, 1.0, 1.0)));
        caches.extend(CURVE.map(|(tier, factor)| match tier {
            Tier::Ram => cache(Mode::Budget, factor, 1.0),
            Tier::Ssd => cache(Mode::Budget, 1.0, factor),
        }));
        let caches = Caches { caches, settings: admission, report: None, better: Better::Chosen };
        Shadows {
            keys_per_sample,
            started: now,
            hour_ends_s: AtomicU64::new(HOUR.as_secs()),
            caches: Mutex::new(caches),
        }
    }

    /// Whether a block is in the sample: others need not be shown.
    pub fn samples(&self, block_hash: u64) -> bool {
        // The upper bits: others choose segments of a filter by them, but for all keys alike.
        block_hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & (self.keys_per_sample - 1) == 0
    }

    /// Shows a request. Tells whether a new report is there: once an hour.
    pub fn ask(&self, asked: &Asked, now: Instant) -> bool {
        if !self.samples(asked.block_hash) {
            return false;
        }
        let mut caches = self.caches.lock().expect("shadow caches never panic");
        for shadow in &mut caches.caches {
            shadow.cache.ask(asked, now);
        }
        let seconds = now.saturating_duration_since(self.started).as_secs();
        if seconds < self.hour_ends_s.load(Ordering::Relaxed) {
            return false;
        }
        let hours = seconds / HOUR.as_secs();
        self.hour_ends_s.store((hours + 1) * HOUR.as_secs(), Ordering::Relaxed);
        caches.reckon(hours, self.keys_per_sample);
        true
    }

    /// The curve as it is now.
    pub fn curve(&self) -> Vec<Point> {
        self.caches.lock().expect("shadow caches never panic").curve()
    }

    /// What was found when the last hour ended.
    pub fn report(&self) -> Option<ShadowReport> {
        self.caches.lock().expect("shadow caches never panic").report.clone()
    }
}

impl Caches {
    fn reckon(&mut self, hours: u64, keys_per_sample: u64) {
        self.caches.iter_mut().for_each(Shadow::end_hour);
        let (chosen, all) = (self.caches[CHOSEN].hit_share(), self.caches[ALL].hit_share());
        let was_all = self.better != Better::Chosen;
        let is_all = if was_all { all + BETTER_BY > chosen } else { all > chosen + BETTER_BY };
        let of_better = &self.caches[if is_all { ALL } else { CHOSEN }];
        let write_bytes_per_second = of_better.written_bytes * (1.0 - HOUR_KEPT)
            / HOUR.as_secs_f64()
            * keys_per_sample as f64;
        self.better = match is_all {
            true => Better::All { write_bytes_per_second },
            false => Better::Chosen,
        };
        let mode = if is_all { Mode::All } else { Mode::Budget };
        for shadow in &self.caches[PRESENT..] {
            shadow.cache.set(AdmissionSettings { mode, ..self.settings });
        }
        self.report = Some(ShadowReport {
            hours,
            keys_per_sample,
            better: self.better,
            chosen_hit_share: chosen,
            all_hit_share: all,
            write_bytes_per_second,
            curve: self.curve(),
        });
    }

    fn curve(&self) -> Vec<Point> {
        let present = &self.caches[PRESENT];
        let since_start = |shadow: &Shadow| shadow.cache.figures().hit_share();
        let points = CURVE.iter().zip(&self.caches[PRESENT + 1..]);
        let point = |((tier, factor), shadow): (&(Tier, f64), &Shadow)| Point {
            tier: *tier,
            factor: *factor,
            gain: shadow.hit_share() - present.hit_share(),
            gain_since_start: since_start(shadow) - since_start(present),
        };
        points.map(point).collect()
    }
}

impl Shadow {
    fn new(cache: Miniature) -> Shadow {
        let before = MiniatureFigures::default();
        Shadow { cache, before, asked_bytes: 0.0, hit_bytes: 0.0, written_bytes: 0.0 }
    }

    fn end_hour(&mut self) {
        let figures = self.cache.figures();
        let hour = figures.since(&self.before);
        self.before = figures;
        let add = |sum: &mut f64, bytes: u64| *sum = *sum * HOUR_KEPT + bytes as f64;
        add(&mut self.asked_bytes, hour.asked_bytes);
        add(&mut self.hit_bytes, hour.ram_bytes + hour.ssd_bytes);
        add(&mut self.written_bytes, hour.written_bytes());
    }

    fn hit_share(&self) -> f64 {
        if self.asked_bytes == 0.0 { 0.0 } else { self.hit_bytes / self.asked_bytes }
    }
}

/// A power of two.
fn keys_per_sample(blocks: u64) -> u64 {
    let most = (blocks / BLOCKS_MIN).clamp(1, KEYS_PER_SAMPLE);
    let least = blocks.div_ceil(BLOCKS_MAX).next_power_of_two();
    (1 << most.ilog2()).max(least)
}

fn sizes(settings: ShadowSettings, sample: u64, ram: f64, ssd: f64) -> MiniatureSizes {
    let ssd_bytes = (settings.ssd_bytes as f64 * ssd) as u64 / sample;
    MiniatureSizes {
        ram_bytes: (settings.ram_bytes as f64 * ram) as u64 / sample,
        ssd_bytes,
        region_bytes: (ssd_bytes / REGIONS).max(REGION_BYTES_MIN),
        block_bytes_usual: settings.block_bytes_usual,
        // One: a shard must hold many blocks.
        sharding: Sharding { shard_bytes_min: u64::MAX, shards_max: 1 },
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn shadows(start: Instant) -> Shadows {
        let settings = ShadowSettings {
            ram_bytes: 30_000 * MIB,
            ssd_bytes: 300_000 * MIB,
            block_bytes_usual: MIB,
            lifetime_min: Duration::ZERO,
        };
        Shadows::new(settings, start)
    }

    /// Asks for what `block` says, one each hundred milliseconds of three hours.
    fn report(block: impl Fn(u64) -> u64) -> ShadowReport {
        let start = Instant::now();
        let shadows = shadows(start);
        let asked = |n| Asked::made_up(block(n), MIB);
        let mut reports = 0;
        for n in 0..109_000 {
            let now = start + Duration::from_millis(100) * n as u32;
            // More than one request at a time: the sample is a 64th of them.
            reports += (0..10).filter(|m| shadows.ask(&asked(n * 10 + m), now)).count();
        }
        assert_eq!(reports, 3, "one each hour");
        shadows.report().unwrap()
    }

    #[test]
    fn a_sample_is_a_64th_of_the_keys_unless_the_cache_is_small_or_very_large() {
        assert_eq!(keys_per_sample(0), 1);
        assert_eq!(keys_per_sample(40_000), 8);
        assert_eq!(keys_per_sample(1 << 20), 64);
        assert_eq!(keys_per_sample(4 << 20), 64);
        assert_eq!(keys_per_sample(16 << 20), 256);
    }

    #[test]
    fn the_mode_that_serves_more_is_chosen_and_kept_until_the_other_is_better() {
        let shadows = shadows(Instant::now());
        let mut caches = shadows.caches.lock().unwrap();
        let mut better = |chosen_percent: f64, all_percent: f64| {
            for (which, percent) in [(CHOSEN, chosen_percent), (ALL, all_percent)] {
                caches.caches[which].asked_bytes = 1e9;
                caches.caches[which].hit_bytes = 1e7 * percent;
                caches.caches[which].written_bytes = 3_600.0;
            }
            caches.reckon(1, 64);
            caches.report.clone().unwrap().better
        };
        assert_eq!(better(50.0, 50.2), Better::Chosen, "not by enough");
        let Better::All { write_bytes_per_second } = better(50.0, 51.0) else { panic!() };
        // Of what is remembered of the hours before, with an hour without writes, as one hour.
        assert!((write_bytes_per_second - 0.7 * 0.3 * 64.0).abs() < 1e-9);
        assert_ne!(better(50.2, 50.0), Better::Chosen, "not by enough");
        assert_eq!(better(51.0, 50.0), Better::Chosen);
    }

    #[test]
    fn where_most_is_asked_for_once_choosing_is_found_better() {
        let returning = |n: u64| xxh3_64(&n.to_le_bytes()) % 450_000;
        let report = report(|n| if n % 2 == 0 { 1 << 40 | n } else { returning(n) });
        assert_eq!(report.better, Better::Chosen, "{report:?}");
        let ssd = |factor: f64| {
            let mut points = report.curve.iter();
            points.find(|p| p.tier == Tier::Ssd && p.factor == factor).unwrap().gain
        };
        assert!(ssd(2.0) > 0.05 && ssd(0.5) < -0.05, "{report:?}");
    }
}
