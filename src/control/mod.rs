//! What operators ask one appliance, and the control plane of a fleet. Delivery waits for neither.
//!
//! Holds whether the appliance wants viewers; [`api`] answers the admin listener, [`purge`],
//! [`reload`] and [`drain`] those who ask for something to be done, `asking.rs` says who may;
//! [`status`] and [`history`] are what the status page (`page.html`) shows, [`explained`] what is
//! told of one object, [`log`] what is told of requests. [`routes`] says which boxes are for whom,
//! [`registry`] knows the appliances of a fleet, [`steering`] which of them a viewer is sent to,
//! [`content_steering`] tells his player; [`steer`] answers both. [`plane`] is the control plane:
//! [`state`] what it knows, [`issuer`] who is who, [`snapshot`] what boxes are told.

pub mod api;
mod asking;
pub mod believed;
pub mod content_steering;
pub mod drain;
pub mod explained;
#[doc(hidden)]
pub mod fuzz;
pub mod history;
pub mod issuer;
pub mod log;
mod page;
pub mod plane;
pub mod purge;
pub mod registry;
pub mod reload;
pub mod routes;
mod session;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod steer;
pub mod steering;
mod top;
pub mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// Where the appliance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not all parts are built yet.
    Starting,
    /// Viewers are served.
    Ready,
    /// Running bodies are finished; viewers should be sent elsewhere.
    Draining,
    /// Nobody is served any more, until viewers are wanted again.
    Drained,
}

impl Phase {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Drained => "drained",
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
            DRAINED => Phase::Drained,
            _ => Phase::Draining,
        }
    }

    /// Every part is built. An appliance that drains already does not become ready by it.
    pub fn set_ready(&self) {
        let _ = self.phase.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What an operator wants, as long as the appliance does not end.
    pub fn turn(&self, phase: Phase) {
        let turned = match phase {
            Phase::Starting => STARTING,
            Phase::Ready => READY,
            Phase::Draining => DRAINING,
            Phase::Drained => DRAINED,
        };
        let turn = |now| (now != ENDING).then_some(turned);
        let _ = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, turn);
    }

    /// The appliance ends: viewers will not be wanted again.
    pub fn set_ending(&self) {
        self.phase.store(ENDING, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_ending(&self) -> bool {
        self.phase.load(Ordering::Acquire) == ENDING
    }
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;
const DRAINED: u8 = 3;
/// Told as draining.
const ENDING: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appliance_starts_is_ready_drains_and_comes_back_unless_it_ends() {
        let readiness = Readiness::new();
        let told = readiness.clone();
        assert_eq!(told.phase(), Phase::Starting);
        readiness.set_ready();
        assert_eq!(told.phase(), Phase::Ready);
        for phase in [Phase::Draining, Phase::Drained, Phase::Ready] {
            readiness.turn(phase);
            assert_eq!(told.phase(), phase);
        }
        readiness.set_ending();
        readiness.set_ready();
        readiness.turn(Phase::Ready);
        assert_eq!(told.phase(), Phase::Draining);
    }
}
