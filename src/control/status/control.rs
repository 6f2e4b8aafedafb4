//! What the status tells of the control plane that runs beside the appliance.

use serde::Serialize;

/// How the control plane beside an appliance is, which goes on without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ControlStatus {
    /// Whether it answers.
    pub is_running: bool,
    /// Why not; `None` also while it begins.
    pub why: Option<String>,
    /// How often it has broken off since the start, and was begun again.
    pub broken_off: u64,
}
