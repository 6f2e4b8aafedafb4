//! What the status shows of the access log that is shipped.

use std::time::SystemTime;

use serde::Serialize;

use crate::access_log::{Failure, Spool};

/// The access log on its way to a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShippingStatus {
    /// Who receives it: host, or topic and brokers.
    pub to: String,
    /// Lines that he has taken, since the start.
    pub shipped_lines: u64,
    /// Lines that he never will, since the start.
    pub lost_lines: u64,
    /// Lines that wait, but for those of the batch that is being filled.
    pub waiting_lines: u64,
    /// The same in bytes.
    pub waiting_bytes: u64,
    /// For how long no batch has arrived; `None`: the last one did.
    pub failing_seconds: Option<u64>,
    /// What went wrong last, since the start.
    pub last_failure: Option<String>,
}

impl ShippingStatus {
    /// What waits in `spool` for `to`.
    pub fn of(to: String, spool: &Spool, now: SystemTime) -> ShippingStatus {
        let Failure { since, last } = spool.failure();
        let lasts = |since| now.duration_since(since).unwrap_or_default().as_secs();
        ShippingStatus {
            to,
            shipped_lines: spool.shipped_lines(),
            lost_lines: spool.lost_lines().iter().map(|(_, lines)| lines).sum(),
            waiting_lines: spool.waiting_lines(),
            waiting_bytes: spool.waiting_bytes(),
            failing_seconds: since.map(lasts),
            last_failure: last,
        }
    }
}
