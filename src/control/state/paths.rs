//! Under which keys a state keeps what: a file, or etcd, has them all side by side. How they are
//! called is part of the format.

use crate::control::registry::appliance::Appliance;
use crate::control::snapshot::Serial;

pub(super) fn code_key(digest: &str) -> String {
    format!("{CODES}{digest}")
}

pub(super) fn certificate_key(serial: &Serial) -> String {
    format!("{CERTIFICATES}{serial}")
}

pub(super) fn appliance_key(name: &str) -> String {
    format!("{APPLIANCES}{name}")
}

pub(super) fn box_key(name: &str) -> String {
    format!("{BOXES}{name}")
}

pub(super) fn pathway_key(appliance: &Appliance) -> String {
    format!("{PATHWAYS}{}", appliance.pathway())
}

pub(super) fn removed_key(name: &str) -> String {
    format!("{REMOVED}{name}")
}

/// How keys begin.
pub(super) const APPLIANCES: &str = "appliances/";
pub(super) const CODES: &str = "codes/";
pub(super) const CERTIFICATES: &str = "certificates/";
pub(super) const KEYS: &str = "keys/";
pub(super) const REMOVED: &str = "removed/";
/// Which certificate a box was given last: it changes with each of them, so that who removes the
/// box misses none. States of before have none until the next one.
pub(super) const BOXES: &str = "boxes/";
/// Whose a pathway is: of two that want it at once one gets it. States of before have none for
/// appliances that have stayed as they were.
pub(super) const PATHWAYS: &str = "pathways/";
/// Keys of which there is one.
pub(super) const NUMBER: &str = "number";
pub(super) const ORDER: &str = "epoch-order";
/// What is being imported, by its digest, until all of it is there.
pub(super) const IMPORTING: &str = "importing";
/// It is large, and read alone.
pub(super) const SNAPSHOT: &str = "snapshot";
