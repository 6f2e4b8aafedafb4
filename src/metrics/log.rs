//! Series of the access log: lines that were lost, that were shipped, and that wait for it.
//!
//! Read at a scrape, from the log itself.

use super::series::{Series, counter, gauge, labelled};

/// Lines the access log has lost.
pub const DROPPED: Series = counter(
    "tidegate_access_log_lines_dropped_total",
    "Access-log lines lost because the writer was too slow or its file could not be written.",
);
/// Lines that were shipped.
pub const SHIPPED: Series = counter(
    "tidegate_access_log_lines_shipped_total",
    "Access-log lines that a receiver has taken.",
);
/// Lines that were to be shipped: `access_log::Lost`.
pub const UNSHIPPED: Series = labelled(
    "reason",
    counter(
        "tidegate_access_log_lines_unshipped_total",
        "Access-log lines lost on their way to a receiver, by why.",
    ),
);
/// What waits to be shipped.
pub const SPOOL_BYTES: Series =
    gauge("tidegate_access_log_spool_bytes", "Bytes of access-log lines that wait to be shipped.");
/// Since when.
pub const SPOOL_AGE: Series = gauge(
    "tidegate_access_log_spool_age_seconds",
    "How long the oldest of the access-log lines that wait to be shipped has waited.",
);
