//! Under which keys a state keeps what: a file, or etcd, has them all side by side. How they are
//! called is part of the format.

use crate::control::snapshot::Serial;

pub(super) fn code_key(digest: &str) -> String {
    format!("{CODES}{digest}")
}

pub(super) fn certificate_key(serial: &Serial) -> String {
    format!("{CERTIFICATES}{serial}")
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
/// Keys of which there is one.
pub(super) const NUMBER: &str = "number";
pub(super) const ORDER: &str = "epoch-order";
/// It is large, and read alone.
pub(super) const SNAPSHOT: &str = "snapshot";
