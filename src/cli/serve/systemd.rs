//! systemd, or whatever speaks as it does: what it passes, sorted by what is wanted of it, and what
//! it is told. Without it nothing is passed, and there is nobody to tell.

use std::io;
use std::net::SocketAddr;

use sd_notify::NotifyState;

use crate::config::{Config, Listener};
use crate::server::kept::{self, KeptSocket, Stale};
use crate::server::{Passed, PassedSocket, PassedSocketError, take_passed_sockets};

/// What was passed, as this configuration wants it: what it kept and nobody wants is stale.
///
/// # Errors
/// As [`take_passed_sockets`].
pub(super) fn passed(config: &Config) -> Result<Passed, PassedSocketError> {
    let mut passed = take_passed_sockets()?;
    let unwanted = passed.kept.extract_if(.., |one| !is_wanted(config, &passed.sockets, one));
    passed.stale.extend(unwanted.map(KeptSocket::unwanted));
    Ok(passed)
}

/// Whether a socket that was kept is to be accepted from: a listener is written for it, which the
/// service manager has no socket of its own for.
fn is_wanted(config: &Config, passed: &[PassedSocket], kept: &KeptSocket) -> bool {
    let is_for_it = |one: &Listener| {
        one.kind.name() == kept.name.as_str()
            && [kept.bound_for, kept.address].contains(&one.address)
    };
    passed.iter().all(|one| one.name != kept.name) && config.listeners.iter().any(is_for_it)
}

/// Addresses that are not ours to bind: those of what was passed, and those configured of a kind
/// that the service manager passes sockets of.
pub(super) fn inherited(config: &Config, passed: &Passed) -> Vec<SocketAddr> {
    let kinds: Vec<&str> = passed.sockets.iter().map(|socket| socket.name.as_str()).collect();
    let of_kind = config.listeners.iter().filter(|l| kinds.contains(&l.kind.name()));
    let kept = passed.kept.iter().flat_map(|one| [one.bound_for, one.address]);
    let sockets = passed.sockets.iter().map(|one| one.address);
    of_kind.map(|listener| listener.address).chain(sockets).chain(kept).collect()
}

/// Has it forget what it kept and nobody wants.
pub(super) fn forget(stale: Vec<Stale>) {
    for Stale { name, why } in stale {
        tracing::warn!("{name}, which the service manager kept, is closed: {why}");
        tell(kept::forget(&name));
    }
}

/// Tells it.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    tell(sd_notify::notify(states));
}

/// Says that it could not be told.
pub(super) fn tell(told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}
