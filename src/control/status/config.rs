//! What the status tells of the configuration that is served by, and of its certificates.

use std::collections::BTreeMap;

use serde::Serialize;

/// The configuration that is served by; times in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigStatus {
    /// When it was read.
    pub read_at: u64,
    /// The one that was read last was refused.
    pub is_refused: bool,
    /// When each certificate expires, by its first name.
    pub certificates: BTreeMap<String, u64>,
    /// Certificates that an authority is to issue and has not; of many the first of these alone.
    pub orders: Vec<OrderStatus>,
}

/// A certificate that is waited for; times in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OrderStatus {
    /// What it is to be for.
    pub names: Vec<String>,
    /// Whether there is none; else the one there is could not be renewed.
    pub is_missing: bool,
    /// Since when it is waited for.
    pub since: u64,
    /// Why the last order brought none; `None` before one has failed.
    pub why: Option<String>,
    /// When it is ordered again; `None`: in its turn, or now.
    pub again_at: Option<u64>,
}
