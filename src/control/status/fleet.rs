//! What the status tells of the fleet that the appliance is a box of.

use std::collections::BTreeMap;

use serde::Serialize;

/// How the appliance stands with its control planes; times in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetStatus {
    /// What it is called.
    pub name: String,
    /// Whether a control plane hears it.
    pub is_heard: bool,
    /// Who heard it last; `None`: nobody since the start.
    pub control: Option<String>,
    /// For how long nobody has.
    pub failing_seconds: Option<u64>,
    /// Why not.
    pub why: Option<String>,
    /// When the certificate ends that it is known by; `None`: it was not enrolled.
    pub certificate_ends_at: Option<u64>,
    /// What it goes by; `None` before the first.
    pub snapshot: Option<SnapshotStatus>,
    /// Snapshots refused since the start, by why: the words of
    /// `tidegate_fleet_snapshots_refused_total`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Why the last one was; `None` when one was taken since.
    pub last_refusal: Option<String>,
}

/// A snapshot that is gone by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// The first half of its number.
    pub epoch: u64,
    /// The second half.
    pub counter: u64,
    /// When it was made.
    pub made_at: u64,
    /// How long ago a control plane last said that it is the latest.
    pub age_seconds: u64,
    /// How many boxes it tells of.
    pub appliances: u64,
    /// How many key files are in it.
    pub key_files: u64,
}
