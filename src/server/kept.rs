//! Listening sockets of ours that the service manager keeps while the service restarts
//! (`FDSTORE=1`, sd_pid_notify_with_fds(3)): who connects meanwhile waits in their backlogs.
//!
//! All sockets of a group are kept: the kernel spreads connections over those that listen, whoever
//! accepts. So each that comes back is accepted from, or closed at once: what waits in one that
//! nobody looks at would wait for ever. Its name says what it was bound for.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use sd_notify::NotifyState;

use super::listener::{ListeningSocket, Owner};
use super::systemd::listening;
use crate::network::ListenerKind;

/// What the service manager keeps and nobody wants; closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    /// As it is kept.
    pub name: String,
    /// Why it is not used.
    pub why: String,
}

/// What is said of one of ours that no listener is written for any more.
pub fn unwanted(socket: &ListeningSocket) -> Option<Stale> {
    let (kind, bound_for) = (socket.kind, socket.owner.bound_for()?);
    let why = format!("nothing is to listen at {} for {}", socket.address, kind.name());
    Some(Stale { name: name_of(kind, bound_for), why })
}

/// Whether a descriptor of this name was stored, and not made by a socket unit.
pub(super) fn is_kept(name: &str) -> bool {
    name == UNNAMED || name.starts_with(BOUND)
}

/// A descriptor that was kept, if it listens where its name says.
pub(super) fn adopt(fd: OwnedFd, name: &str) -> Result<ListeningSocket, Stale> {
    let stale = |why: String| Stale { name: name.to_owned(), why };
    let (kind, bound_for) = meant(name).ok_or_else(|| stale("its name is none of ours".into()))?;
    let (listener, address) = listening(fd, name).map_err(|error| stale(error.to_string()))?;
    let is_there =
        address.ip() == bound_for.ip() && [0, address.port()].contains(&bound_for.port());
    if !is_there {
        return Err(stale(format!("it listens at {address}")));
    }
    Ok(ListeningSocket { kind, owner: Owner::Own(bound_for), address, listener })
}

/// Has the service manager keep a socket of a listener; it keeps it once, however often it is told.
/// Without a service manager nobody keeps anything.
///
/// # Errors
/// It cannot be told.
pub fn keep(kind: ListenerKind, bound_for: SocketAddr, socket: &TcpListener) -> io::Result<()> {
    let name = name_of(kind, bound_for);
    let told = [NotifyState::FdStore, NotifyState::FdName(&name)];
    sd_notify::notify_with_fds(&told, &[socket.as_fd()])
}

/// Has it keep the sockets of a listener no longer.
///
/// # Errors
/// As [`keep`].
pub fn keep_no_longer(kind: ListenerKind, bound_for: SocketAddr) -> io::Result<()> {
    forget(&name_of(kind, bound_for))
}

/// Has it keep nothing by this name.
///
/// # Errors
/// As [`keep`].
pub fn forget(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// Colons stand between names.
fn name_of(kind: ListenerKind, bound_for: SocketAddr) -> String {
    format!("{BOUND}{}-{}", kind.name(), bound_for.to_string().replace(':', "_"))
}

fn meant(name: &str) -> Option<(ListenerKind, SocketAddr)> {
    let (kind, address) = name.strip_prefix(BOUND)?.split_once('-')?;
    Some((ListenerKind::named(kind)?, address.replace('_', ":").parse().ok()?))
}

/// How the names of sockets begin that we bound.
const BOUND: &str = "bound-";
/// What systemd calls a descriptor that came without a name.
const UNNAMED: &str = "stored";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_socket_was_bound_for() {
        for address in ["127.0.0.1:80", "[::]:0", "[2001:db8::1]:443"] {
            let address = address.parse().unwrap();
            let name = name_of(ListenerKind::Https, address);
            assert!(is_kept(&name) && !name.contains(':'), "{name}");
            assert_eq!(meant(&name), Some((ListenerKind::Https, address)));
        }
        for not_ours in ["stored", "bound-", "bound-http", "bound-ftp-127.0.0.1_80", "bound-http-x"]
        {
            assert!(is_kept(not_ours), "{not_ours}");
            assert_eq!(meant(not_ours), None, "{not_ours}");
        }
        assert!(!is_kept("http"));
    }

    #[test]
    fn what_does_not_listen_where_its_name_says_is_stale() {
        let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = bound();
        let address = listener.local_addr().unwrap();
        let kept = adopt(listener.into(), "bound-http-127.0.0.1_0").unwrap();
        assert_eq!((kept.kind, kept.address), (ListenerKind::Http, address));
        assert!(unwanted(&kept).unwrap().why.contains(&address.to_string()));

        let why = |fd: OwnedFd, name: &str| adopt(fd, name).unwrap_err().why;
        assert!(why(bound().into(), "bound-http-127.0.0.2_0").contains("it listens at 127.0.0.1:"));
        assert!(why(bound().into(), "bound-http-127.0.0.1_1").contains("it listens at 127.0.0.1:"));
        assert!(why(bound().into(), "stored").contains("none of ours"));
        let no_socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(why(no_socket, "bound-http-127.0.0.1_0").contains("cannot be used"));
    }
}
