//! Who is refused, and why.

use std::time::Duration;

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One client has as many connections as he may.
    ClientConnections,
    /// One client asks more often than he may.
    ClientRequests,
    /// There were as many handshakes in this second as there may be.
    Handshakes,
    /// A new viewer, and his site has its share of connections, of which few are left.
    Connections,
    /// A new viewer of a site that has more than its share, where there is too much to do.
    Share,
    /// A request to such a site by who has been let in.
    ShareAgain,
    /// A new viewer, and a worker that is late.
    Lag,
    /// A new viewer, and more is sent than may be.
    Egress,
    /// A new viewer, and others wait for memory.
    Memory,
    /// A miss, and a worker that is late.
    Miss,
}

impl Reason {
    /// In the order in which they are refused.
    pub const ALL: [Reason; 10] = [
        Reason::ClientConnections,
        Reason::ClientRequests,
        Reason::Handshakes,
        Reason::Connections,
        Reason::Share,
        Reason::ShareAgain,
        Reason::Lag,
        Reason::Egress,
        Reason::Memory,
        Reason::Miss,
    ];

    /// As metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::ClientConnections => "client_connections",
            Reason::ClientRequests => "client_requests",
            Reason::Handshakes => "handshakes",
            Reason::Connections => "connections",
            Reason::Share => "share",
            Reason::ShareAgain => "share_again",
            Reason::Lag => "lag",
            Reason::Egress => "egress",
            Reason::Memory => "memory",
            Reason::Miss => "miss",
        }
    }
}

/// A refusal, and when it is worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// After this.
    pub retry_after: Duration,
}
