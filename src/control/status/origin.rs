//! What the status tells of origins: each of them, and what all were asked for.

use std::collections::BTreeMap;

use serde::Serialize;

/// One origin of one site; counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OriginStatus {
    /// Whose it is.
    pub site: String,
    /// Scheme, address and port.
    pub origin: String,
    /// Connections that are in use.
    pub connections: u64,
    /// As many may be.
    pub connections_max: u64,
    /// Heads of answers that fills got.
    pub answers: u64,
    /// What they waited for them, in all, in microseconds.
    pub waited_us: u64,
    /// How often it did not answer.
    pub failures: u64,
    /// For how long it has not answered; `None`: it does, or was never asked.
    pub failing_seconds: Option<u64>,
}

/// What origins were asked for since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OriginTraffic {
    /// Requests, retries included.
    pub requests: u64,
    /// Body bytes received.
    pub bytes: u64,
    /// What they did wrong, by kind.
    pub errors: BTreeMap<&'static str, u64>,
}
