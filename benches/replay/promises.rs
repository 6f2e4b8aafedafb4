//! What must be reached, and what peers reach by their published policies, for each trace.
//!
//! Byte hit ratios in percent at a cache of 1, 5, 10 and 20 % of the footprint. Peers: the better
//! of nginx with 1 MiB slices and ATS, modelled, not run.

use tidegate::cache::admission::Mode;

/// The sizes the rows are about, in percent.
const SIZES: [u64; 4] = [1, 5, 10, 20];
/// In mode `budget` at 10 %: written, in percent of the bytes asked for.
const WRITTEN_MAX: f64 = 27.0;

struct Promise {
    trace: &'static str,
    budget: [f64; 4],
    all: [f64; 4],
    peers: [f64; 4],
}

const PROMISES: [Promise; 3] = [
    Promise {
        trace: "video-a",
        budget: [25.0, 46.0, 54.5, 61.5],
        all: [18.5, 36.5, 47.0, 57.0],
        peers: [17.6, 35.0, 46.4, 56.8],
    },
    Promise {
        trace: "akamai-video-model",
        budget: [24.0, 40.0, 45.5, 50.0],
        all: [27.5, 45.0, 51.0, 55.5],
        peers: [27.4, 45.1, 51.3, 56.0],
    },
    Promise {
        trace: "cdn-sample-a",
        budget: [27.0, 33.0, 36.0, 37.5],
        all: [27.5, 32.0, 35.0, 37.0],
        peers: [26.8, 31.4, 34.0, 36.4],
    },
];

fn at(trace: &str, percent: u64, row: impl Fn(&Promise) -> [f64; 4]) -> Option<f64> {
    let promise = PROMISES.iter().find(|promise| promise.trace == trace)?;
    let size = SIZES.iter().position(|size| *size == percent)?;
    Some(row(promise)[size])
}

/// The least byte hit ratio, in percent.
pub(crate) fn hit_min(trace: &str, mode: Mode, percent: u64) -> Option<f64> {
    match mode {
        Mode::Budget => at(trace, percent, |promise| promise.budget),
        Mode::All => at(trace, percent, |promise| promise.all),
        Mode::PlannedOnly => None,
    }
}

/// What peers reach.
pub(crate) fn peers(trace: &str, percent: u64) -> Option<f64> {
    at(trace, percent, |promise| promise.peers)
}

/// The most that may be written, in percent.
pub(crate) fn written_max(mode: Mode, percent: u64) -> Option<f64> {
    (mode == Mode::Budget && percent == 10).then_some(WRITTEN_MAX)
}
