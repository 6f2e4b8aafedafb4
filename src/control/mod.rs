//! The control plane of one appliance: what operators ask it. Delivery never waits for it.
//!
//! Holds whether the appliance wants viewers; [`api`] answers the admin listener, [`purge`] and
//! [`reload`] those who ask for something to be done; [`status`] is what the status page shows,
//! [`explained`] what is told of one object.

pub mod api;
pub mod explained;
pub mod purge;
pub mod reload;
pub mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the appliance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all parts are built yet.
    Starting,
    /// Viewers are served.
    Ready,
    /// Running bodies are finished; viewers should be sent elsewhere.
    Draining,
}

impl Phase {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// The appliance's phase, shared by who sets it and who tells it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    phase: Arc<AtomicU8>,
}

impl Readiness {
    /// An appliance that is starting.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            STARTING => Phase::Starting,
            READY => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Every part is built. An appliance that drains does not become ready again.
    pub fn set_ready(&self) {
        let _ = self.phase.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// No more viewers are wanted.
    pub fn set_draining(&self) {
        self.phase.store(DRAINING, Ordering::Release);
    }
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appliance_starts_is_ready_drains_and_stays_drained() {
        let readiness = Readiness::new();
        let told = readiness.clone();
        assert_eq!(told.phase(), Phase::Starting);
        readiness.set_ready();
        assert_eq!(told.phase(), Phase::Ready);
        readiness.set_draining();
        readiness.set_ready();
        assert_eq!(told.phase(), Phase::Draining);
    }
}
