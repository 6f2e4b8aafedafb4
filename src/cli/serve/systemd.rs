//! systemd, or whatever speaks as it does: what it passes, sorted by what is wanted of it, and what
//! it is told. Without it nothing is passed, and there is nobody to tell.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use sd_notify::NotifyState;

use crate::config::{Config, ConfigErrors, Listener, ListenerKind};
use crate::server::kept::{self, Stale};
use crate::server::{ListeningSocket, Owner, Passed, PassedSocketError, take_passed_sockets};

/// What was passed, as this configuration wants it: what it kept and nobody wants is stale.
///
/// # Errors
/// As [`take_passed_sockets`].
pub(super) fn passed(config: &Config) -> Result<Passed, PassedSocketError> {
    let mut passed = take_passed_sockets()?;
    let kinds = managers(&passed);
    let unwanted = passed.sockets.extract_if(.., |one| !is_wanted(config, &kinds, one));
    passed.stale.extend(unwanted.filter_map(|one| kept::unwanted(&one)));
    Ok(passed)
}

/// The kinds that the service manager has sockets of its own for.
fn managers(passed: &Passed) -> Vec<ListenerKind> {
    let own = passed.sockets.iter().filter(|one| one.owner == Owner::Manager);
    own.map(|one| one.kind).collect()
}

/// Whether a socket is to be accepted from: where it was kept, a listener is written for it, which
/// the service manager has no socket of its own for.
fn is_wanted(config: &Config, managers: &[ListenerKind], socket: &ListeningSocket) -> bool {
    let is_for_it = |one: &Listener| {
        one.kind == socket.kind && socket.addresses().any(|there| there == one.address)
    };
    socket.owner == Owner::Manager
        || !managers.contains(&socket.kind) && config.listeners.iter().any(is_for_it)
}

/// Addresses that are not ours to bind: those of what was passed, and those configured of a kind
/// that the service manager passes sockets of.
pub(super) fn inherited(config: &Config, passed: &Passed) -> Vec<SocketAddr> {
    let kinds = managers(passed);
    let of_kind = config.listeners.iter().filter(|listener| kinds.contains(&listener.kind));
    let there = passed.sockets.iter().flat_map(ListeningSocket::addresses);
    of_kind.map(|listener| listener.address).chain(there).collect()
}

/// Has it forget what it kept and nobody wants, and waits until it has: nobody else can listen
/// there before. Until when what it forgot may listen all the same: newer systemd closes it a
/// moment after its answer.
pub(super) fn forget(stale: Vec<Stale>) -> Instant {
    if stale.is_empty() {
        return Instant::now();
    }
    for Stale { name, why } in stale {
        tracing::warn!("{name}, which the service manager kept, is closed: {why}");
        tell(kept::forget(&name));
    }
    tell(until_done());
    Instant::now() + CLOSED_WITHIN
}

/// Whether it can listen where it is to, tried again until then.
///
/// # Errors
/// Where it cannot.
pub(super) fn try_ports_until(
    until: Instant,
    try_ports: impl Fn() -> Result<(), ConfigErrors>,
) -> Result<(), ConfigErrors> {
    loop {
        let tried = try_ports();
        if tried.is_ok() || Instant::now() >= until {
            return tried;
        }
        thread::sleep(TRY_AGAIN);
    }
}

/// Waits until it has done all that it was told before, for a while: it closes what comes with this
/// word then (sd_notify_barrier(3)), as one does that does not know the word.
fn until_done() -> io::Result<()> {
    let (ours, theirs) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let within = Timespec::try_from(DONE_WITHIN).map_err(io::Error::other)?;
    let heard = || poll(&mut [PollFd::new(&ours, PollFlags::HUP)], Some(&within));
    match retry_on_intr(heard)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

const DONE_WITHIN: Duration = Duration::from_secs(5);
/// What is forgotten is closed by then.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Tells it.
pub(in crate::cli) fn notify(states: &[NotifyState<'_>]) {
    tell(sd_notify::notify(states));
}

/// Says that it could not be told.
pub(super) fn tell(told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::config::ConfigError;

    #[test]
    fn ports_are_tried_again_while_what_was_forgotten_may_still_listen_there() {
        let taken = ConfigError { file: "t.toml".into(), place: None, text: "taken".into() };
        let now = Instant::now();
        for (until, free_after, tries, is_free) in
            [(now, 0, 1, true), (now, 1, 1, false), (now + Duration::from_secs(60), 2, 3, true)]
        {
            let tried = Cell::new(0);
            let try_ports = || {
                tried.set(tried.get() + 1);
                let is_taken = tried.get() <= free_after;
                if is_taken { Err(ConfigErrors(vec![taken.clone()])) } else { Ok(()) }
            };
            assert_eq!(try_ports_until(until, try_ports).is_ok(), is_free);
            assert_eq!(tried.get(), tries);
        }
    }
}
