//! How what is missing is brought.

use std::time::Duration;

use super::TIMEOUTS;
use super::raw::Section;
use crate::limits::{FILL_ATTEMPTS_MAX, FILL_RUNS_MAX, FILL_WINDOW_BYTES_MAX, PIECE_SIZE_BYTES};

/// How fills go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What a run may ask for ahead of its readers.
    pub window_bytes: u64,
    /// Until a connection to the origin stands, TLS included.
    pub connect_timeout: Duration,
    /// From the request to the response head.
    pub first_byte_timeout: Duration,
    /// Between two arrivals of body bytes.
    pub progress_timeout: Duration,
    /// Runs at once, of all sites.
    pub runs_max: usize,
    /// Further attempts after the first.
    pub retries: u32,
}

/// Reads the section `fill`.
pub(super) fn read(section: &Section<'_>) -> Fill {
    let timeout = |key, default_seconds| {
        section.duration(key, Duration::from_secs(default_seconds), TIMEOUTS)
    };
    let retries_max = u64::from(FILL_ATTEMPTS_MAX) - 1;
    Fill {
        window_bytes: section.bytes("window", 8 << 20, PIECE_SIZE_BYTES..=FILL_WINDOW_BYTES_MAX),
        connect_timeout: timeout("connect_timeout", 5),
        first_byte_timeout: timeout("first_byte_timeout", 15),
        progress_timeout: timeout("progress_timeout", 15),
        runs_max: section.count("runs", 1_024, 1..=FILL_RUNS_MAX as u64) as usize,
        retries: section.count("retries", retries_max, 0..=retries_max) as u32,
    }
}
