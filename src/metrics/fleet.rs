//! Series of a box of a fleet: the snapshot it goes by, and whether a control plane hears it.
//!
//! Only where there is a section `fleet`; read at a scrape.

use super::series::{Series, counter, gauge, labelled};

/// How old what it goes by may be.
pub const SNAPSHOT_AGE: Series = gauge(
    "tidegate_fleet_snapshot_age_seconds",
    "How long ago a control plane last said that the snapshot is the latest; 0 without one.",
);
/// The first half of its number.
pub const SNAPSHOT_EPOCH: Series =
    gauge("tidegate_fleet_snapshot_epoch", "The epoch of the snapshot; 0 without one.");
/// The second half.
pub const SNAPSHOT_COUNTER: Series = gauge(
    "tidegate_fleet_snapshot_counter",
    "The counter of the snapshot, within its epoch; 0 without one.",
);
/// Snapshots that changed nothing: the words of `appliance::fleet::held`.
pub const SNAPSHOTS_REFUSED: Series = labelled(
    "reason",
    counter(
        "tidegate_fleet_snapshots_refused_total",
        "Snapshots that were refused, by why; the one of before stays.",
    ),
);
/// Whether a control plane hears it.
pub const IS_HEARD: Series = gauge(
    "tidegate_fleet_control_reachable",
    "1 while a control plane hears this box, 0 while none answers or lets it.",
);
/// Heartbeats that nobody heard.
pub const BEATS_FAILED: Series = counter(
    "tidegate_fleet_heartbeats_failed_total",
    "Heartbeats and registrations that no control plane took.",
);
/// When its certificate ends.
pub const CERTIFICATE_ENDS: Series = gauge(
    "tidegate_fleet_certificate_expiry_timestamp_seconds",
    "When the certificate that control planes know this box by ends, as a Unix time.",
);

/// All of them.
#[cfg(test)]
pub(super) const ALL: &[Series] = &[
    SNAPSHOT_AGE,
    SNAPSHOT_EPOCH,
    SNAPSHOT_COUNTER,
    SNAPSHOTS_REFUSED,
    IS_HEARD,
    BEATS_FAILED,
    CERTIFICATE_ENDS,
];
