//! The box of a fleet that an appliance is, where it has a section `fleet`.
//!
//! An agent on a thread of its own speaks with control planes (`agent.rs`); what it holds of them
//! is read without waiting for it. [`enrol`] gives the box the identity that it needs for that.

mod agent;
mod beat;
mod client;
mod enrol;
mod folder;
mod held;
mod identity;
mod shaken;
mod standing;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::LocalRuntime;
use tokio_util::sync::CancellationToken;

use self::agent::Agent;
use self::beat::Figures;
pub use self::enrol::{Before, EnrolError, Enrolled, enrol};
pub(super) use self::held::Current;
use self::held::Held;
use self::identity::{Kept, path_in};
pub(super) use self::standing::Standing;
use super::parts::Parts;
use super::{ApplianceError, join};
use crate::config::Config;
use crate::control::issuer::open_to_others;
use crate::control::registry::fleet::Fleet;

/// Why an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The box does.
    Over,
    /// Another process is the box from now on.
    Followed,
}

/// The agent of a box, until it is ended.
pub(super) struct FleetAgent {
    stop: CancellationToken,
    /// The box goes on, in another process.
    is_followed: CancellationToken,
    thread: JoinHandle<()>,
}

/// How a box stands before it has spoken with anybody: it goes by what it was told last. `None`
/// where there is no fleet. Blocks.
pub(super) fn resumed(
    config: &Config,
    current: &Arc<Current>,
    steered_to: &Arc<ArcSwap<Fleet>>,
) -> Option<Arc<Standing>> {
    let fleet = config.fleet.as_ref()?;
    let name = fleet.appliance.name();
    // A control plane beside it knows better.
    let steered_to = config.control.is_none().then(|| steered_to.clone());
    let held = Held::new(&fleet.folder, current.clone(), steered_to);
    let standing = Standing::new(name, held);
    open_to_others(&path_in(&fleet.folder)).iter().for_each(|why| tracing::warn!("{why}"));
    // What has to be mended of it the agent tells.
    if let Ok(identity) = Kept::read(&path_in(&fleet.folder)).and_then(|kept| kept.opened(name)) {
        standing.certificate_ends(identity.not_after);
        standing.held.believe(&identity.keys);
    }
    Some(Arc::new(standing))
}

/// Starts the agent of an appliance that viewers reach at `addresses`, if it is a box.
///
/// # Errors
/// There is no thread.
pub(super) fn start(
    parts: &Arc<Parts>,
    addresses: &[SocketAddr],
) -> Result<Option<FleetAgent>, ApplianceError> {
    let (Some(fleet), Some(standing)) = (&parts.config.fleet, &parts.fleet) else {
        return Ok(None);
    };
    standing.register(&parts.metrics);
    let figures = Figures::new(parts, fleet.appliance.clone(), addresses.iter().copied());
    let (fleet, standing) = (fleet.clone(), standing.clone());
    let agent = Agent { fleet, standing, figures: RefCell::new(figures) };
    let (stop, is_followed) = (CancellationToken::new(), CancellationToken::new());
    let (ends, goes_on) = (stop.clone(), is_followed.clone());
    let work = move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        runtime.block_on(async {
            tokio::select! {
                () = agent.run() => {}
                () = ends.cancelled() => {}
            }
            if !goes_on.is_cancelled() {
                agent.say_last().await;
            }
        });
        // A name that is being looked up is not waited for.
        runtime.shutdown_timeout(ENDS_WITHIN);
    };
    let failed = |source| ApplianceError::System { what: "a thread", source };
    let thread = thread::Builder::new().name("fleet".to_owned()).spawn(work).map_err(failed)?;
    Ok(Some(FleetAgent { stop, is_followed, thread }))
}

impl FleetAgent {
    /// Ends it; whatever it has asked it does not hear any more. Where the box ends too, it says so
    /// last. Blocks for a moment.
    pub(super) fn end(self, ending: Ending) {
        if ending == Ending::Followed {
            self.is_followed.cancel();
        }
        self.stop.cancel();
        join(self.thread);
    }
}

const ENDS_WITHIN: Duration = Duration::from_millis(500);
