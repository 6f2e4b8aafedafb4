//! What one site has of what all share, as the status tells it.

use serde::Serialize;

/// What a site has of what all share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShareStatus {
    /// Its name.
    pub name: String,
    /// Its weight against the others.
    pub share: u64,
    /// What is kept of it in ram.
    pub ram_bytes: u64,
    /// What of ram it can count on now.
    pub ram_own_bytes: u64,
    /// Viewers' connections.
    pub connections: u32,
    /// Of what it has more than its share, while others want theirs: `work`, `egress`.
    pub beyond: Vec<&'static str>,
}
