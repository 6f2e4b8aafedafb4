//! A flood of distinct objects that are asked for once, while a hot set is read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::cache::admission::{AdmissionSettings, Mode};
use tidegate::cache::policy::Sharding;
use tidegate::cache::shadow::{Asked, Found, Miniature, MiniatureSizes};
use xxhash_rust::xxh3::xxh3_64;

const MIB: u64 = 1 << 20;
const SSD_BLOCKS: u64 = 16 << 10;
/// The hot set takes half of the volume.
const HOT_BLOCKS: u64 = SSD_BLOCKS / 2;
const ROUNDS: u64 = 40;
/// Points of the hot set's hit ratio that may be lost.
const POINTS_MAX: f64 = 1.0;

/// What came of one strength of flood.
pub(crate) struct Flooded {
    strangers_per_hot: u64,
    before: f64,
    during: f64,
    written: f64,
}

impl Flooded {
    /// So many strangers for each request for the hot set.
    pub(crate) fn run(strangers_per_hot: u64) -> Flooded {
        let sizes = MiniatureSizes {
            ram_bytes: SSD_BLOCKS * MIB / 10,
            ssd_bytes: SSD_BLOCKS * MIB,
            region_bytes: 64 * MIB,
            block_bytes_usual: MIB,
            sharding: Sharding { shard_bytes_min: 64 * MIB, shards_max: 8 },
        };
        let settings = AdmissionSettings { mode: Mode::Budget, ..AdmissionSettings::default() };
        let start = Instant::now();
        let mut cache = Miniature::new(sizes, settings, start);
        let mut clock = start;
        let mut stranger = HOT_BLOCKS;
        let mut rounds = |strangers: u64, cache: &mut Miniature| {
            let mut found = 0;
            for _ in 0..ROUNDS * HOT_BLOCKS {
                clock += Duration::from_millis(10);
                // Any of the hot blocks, by a fixed sequence without order.
                let tick = clock.duration_since(start).as_millis() as u64;
                let hot = xxh3_64(&tick.to_le_bytes()) % HOT_BLOCKS;
                found += u64::from(cache.ask(&Asked::made_up(hot, MIB), clock) != Found::Nowhere);
                for _ in 0..strangers {
                    stranger += 1;
                    cache.ask(&Asked::made_up(stranger, MIB), clock);
                }
            }
            100.0 * found as f64 / (ROUNDS * HOT_BLOCKS) as f64
        };
        rounds(0, &mut cache);
        let before = rounds(0, &mut cache);
        let figures = cache.figures();
        let during = rounds(strangers_per_hot, &mut cache);
        let flood = cache.figures().since(&figures);
        let written = 100.0 * flood.share(flood.written_bytes());
        Flooded { strangers_per_hot, before, during, written }
    }

    pub(crate) fn holds(&self) -> bool {
        self.during > self.before - POINTS_MAX
    }

    pub(crate) fn as_text(&self) -> String {
        format!(
            "flood, {} strangers for each request of the hot set: found {:.2} % of it before, \
             {:.2} % during, {:.1} % written{}\n",
            self.strangers_per_hot,
            self.before,
            self.during,
            self.written,
            if self.holds() { "" } else { "  BELOW" },
        )
    }

    pub(crate) fn as_json(&self) -> Value {
        json!({
            "strangers_per_hot": self.strangers_per_hot,
            "hit_percent_before": self.before,
            "hit_percent_during": self.during,
            "written_percent": self.written,
            "holds": self.holds(),
        })
    }
}
