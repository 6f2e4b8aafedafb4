//! One replay: a cache of one size over one trace.

use std::time::{Duration, Instant};

use tidegate::cache::admission::{AdmissionSettings, Mode};
use tidegate::cache::policy::Sharding;
use tidegate::cache::shadow::{Miniature, MiniatureFigures, MiniatureSizes};

use crate::trace::Trace;

const REGION_BYTES: u64 = 64 << 20;
/// Of a smaller volume a region is so much.
const REGIONS_MIN: u64 = 64;
/// Blocks of a region, at least: where a region is smaller than that, so are the blocks.
const BLOCKS_PER_REGION: u64 = 4;
const BLOCK_BYTES: u64 = 1 << 20;
/// As the product has on two cores.
const SHARDING: Sharding = Sharding { shard_bytes_min: 64 << 20, shards_max: 8 };

/// The size of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) ram_bytes: u64,
    pub(crate) ssd_bytes: u64,
}

impl Size {
    /// So much of the footprint on the ssd, and a tenth of that in ram on top.
    pub(crate) fn of(trace: &Trace, percent: u64) -> Size {
        let ssd_bytes = trace.footprint_bytes * percent / 100;
        Size { ram_bytes: ssd_bytes / 10, ssd_bytes }
    }

    fn region_bytes(self) -> u64 {
        REGION_BYTES.min(self.ssd_bytes / REGIONS_MIN)
    }

    /// What blocks of a trace are cut to for this size.
    pub(crate) fn block_bytes(self) -> u64 {
        BLOCK_BYTES.min(1 << (self.region_bytes() / BLOCKS_PER_REGION).max(1).ilog2())
    }

    /// The cache, empty.
    pub(crate) fn cache(
        self,
        trace: &Trace,
        settings: AdmissionSettings,
        now: Instant,
    ) -> Miniature {
        let sizes = MiniatureSizes {
            ram_bytes: self.ram_bytes,
            ssd_bytes: self.ssd_bytes,
            region_bytes: self.region_bytes(),
            block_bytes_usual: trace.block_bytes_usual(),
            sharding: SHARDING,
        };
        Miniature::new(sizes, settings, now)
    }
}

/// What is written where: no lifetime, and a write budget in percent of the bytes asked for.
pub(crate) fn settings(trace: &Trace, mode: Mode, writes: Option<f64>) -> AdmissionSettings {
    let days = trace.duration.as_secs_f64() / 86_400.0;
    let per_day = writes.map(|percent| trace.asked_bytes as f64 * percent / 100.0 / days);
    AdmissionSettings {
        mode,
        write_bytes_per_day: per_day.map(|bytes| bytes as u64),
        lifetime_min: Duration::ZERO,
    }
}

/// Replays a trace, cut for this size before.
pub(crate) fn replay(trace: &Trace, size: Size, settings: AdmissionSettings) -> MiniatureFigures {
    let start = Instant::now();
    let mut cache = size.cache(trace, settings, start);
    trace.each(|at, asked| {
        cache.ask(asked, start + at);
    });
    cache.figures()
}
