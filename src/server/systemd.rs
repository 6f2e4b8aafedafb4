//! Listeners that the service manager opened for us (`sd_listen_fds(3)`).
//!
//! They belong to another user, so that we cannot add listeners of our own to their port: what
//! they accept is dealt out to the workers by [`super::deal_out`]. Each descriptor is checked to
//! be a listening TCP socket before it is used. Among them are those that it kept for us
//! ([`kept`]).

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Socket, Type};

use super::kept::{self, Stale};
use super::listener::{ListeningSocket, Owner};
use super::transport;
use crate::network::ListenerKind;

/// What was passed to this process.
#[derive(Debug, Default)]
pub struct Passed {
    /// Sockets of socket units, and those that we bound before and the service manager kept.
    pub sockets: Vec<ListeningSocket>,
    /// What it kept besides.
    pub stale: Vec<Stale>,
}

/// Takes the sockets passed to this process; none without a service manager that passes any, and
/// the second time.
///
/// # Errors
/// The first socket of a socket unit that cannot be used; the others are closed.
#[allow(unsafe_code, reason = "descriptors come in as numbers, and the number is all there is")]
pub fn take_passed_sockets() -> Result<Passed, PassedSocketError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Passed::default());
    }
    // Names stay in the environment of whoever is started by who had them.
    if sd_notify::listen_fds().map_err(PassedSocketError::Environment)?.len() == 0 {
        return Ok(Passed::default());
    }
    let numbers = sd_notify::listen_fds_with_names().map_err(PassedSocketError::Environment)?;
    let owned: Vec<(OwnedFd, String)> = numbers
        .map(|(number, name)| {
            // SAFETY: LISTEN_PID names this process, so these numbers were opened for it and
            // nothing else owns them; TAKEN sees to it that we own them once.
            (unsafe { OwnedFd::from_raw_fd(number) }, name)
        })
        .collect();
    let mut passed = Passed::default();
    for (fd, name) in owned {
        if !kept::is_kept(&name) {
            passed.sockets.push(adopt(fd, &name)?);
            continue;
        }
        match kept::adopt(fd, &name) {
            Ok(kept) => passed.sockets.push(kept),
            Err(stale) => passed.stale.push(stale),
        }
    }
    Ok(passed)
}

fn adopt(fd: OwnedFd, name: &str) -> Result<ListeningSocket, PassedSocketError> {
    let unknown = || PassedSocketError::Name { name: name.to_string() };
    let kind = ListenerKind::named(name).ok_or_else(unknown)?;
    let (listener, address) = listening(fd, name)?;
    Ok(ListeningSocket { kind, owner: Owner::Manager, address, listener })
}

/// A socket that listens for TCP, and where.
pub(super) fn listening(
    fd: OwnedFd,
    name: &str,
) -> Result<(TcpListener, SocketAddr), PassedSocketError> {
    let refused = |source| PassedSocketError::Socket { name: name.to_string(), source };
    let socket = Socket::from(fd);
    let listens = socket.r#type().map_err(refused)? == Type::STREAM
        && socket.is_listener().map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?.as_socket();
    let Some(address) = address.filter(|_| listens) else {
        return Err(PassedSocketError::NotListening { name: name.to_string() });
    };
    socket.set_nonblocking(true).map_err(refused)?;
    transport::prepare(SockRef::from(&socket)).map_err(refused)?;
    Ok((socket.into(), address))
}

/// Why passed sockets cannot be used.
#[derive(Debug)]
pub enum PassedSocketError {
    /// `LISTEN_FDS`, `LISTEN_PID` or `LISTEN_FDNAMES` make no sense, or a descriptor is closed.
    Environment(io::Error),
    /// A name that is none of ours.
    Name {
        /// The name that was given.
        name: String,
    },
    /// Something other than a listening TCP socket.
    NotListening {
        /// The name it came with.
        name: String,
    },
    /// The socket does not let itself be set up.
    Socket {
        /// The name it came with.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for PassedSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassedSocketError::Environment(error) => write!(f, "passed sockets: {error}"),
            PassedSocketError::Name { name } => write!(
                f,
                "passed socket named {name:?}: FileDescriptorName must be http, https or admin"
            ),
            PassedSocketError::NotListening { name } => {
                write!(f, "passed socket {name:?} is not a listening TCP socket")
            }
            PassedSocketError::Socket { name, source } => {
                write!(f, "passed socket {name:?} cannot be used: {source}")
            }
        }
    }
}

impl Error for PassedSocketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PassedSocketError::Environment(source) | PassedSocketError::Socket { source, .. } => {
                Some(source)
            }
            PassedSocketError::Name { .. } | PassedSocketError::NotListening { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_passed_descriptor_is_used_only_if_it_listens_for_tcp_and_has_a_name_of_ours() {
        let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());

        let passed = adopt(listener(), "https").unwrap();
        assert_eq!((passed.kind, passed.owner), (ListenerKind::Https, Owner::Manager));
        assert_eq!(passed.address, passed.listener.local_addr().unwrap());
        assert!(SockRef::from(&passed.listener).nonblocking().unwrap());

        let refused = |fd: OwnedFd, name: &str| adopt(fd, name).unwrap_err().to_string();
        let connected = std::net::TcpStream::connect(passed.address).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let local = UnixListener::bind(folder.path().join("socket")).unwrap();
        for fd in [OwnedFd::from(connected), OwnedFd::from(local)] {
            assert_eq!(refused(fd, "http"), "passed socket \"http\" is not a listening TCP socket");
        }
        assert!(refused(listener(), "unknown").contains("must be http, https or admin"));
    }
}
