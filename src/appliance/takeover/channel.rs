//! Messages between two processes of this machine, each with a socket or none: a Unix socket that
//! keeps them apart (`SOCK_SEQPACKET`), and descriptors beside them (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end. Any thread may send; one receives.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Two ends; the second is for the other process.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel(ours), theirs))
    }

    /// The end that this process was started with.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn inherited(fd: OwnedFd) -> io::Result<Channel> {
        match socket_type(&fd)? {
            SocketType::SEQPACKET => Ok(Channel(fd)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Says it, with a socket if there is one. Blocks for as long as the other end does not read,
    /// at most for [`SENT_WITHIN`].
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        socket: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Send, Some(SENT_WITHIN))?;
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
        if !sockets.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&sockets));
        }
        let (text, flags) = ([IoSlice::new(&text)], SendFlags::NOSIGNAL);
        retry_on_intr(|| sendmsg(&self.0, &text, &mut beside, flags))?;
        Ok(())
    }

    /// The next message, within `patience` if that is bounded; `None` when the other process is
    /// gone. What cannot be understood is of a later version, and nothing to be waited for: it is
    /// passed over. Blocks.
    pub(super) fn receive<M: DeserializeOwned>(
        &self,
        patience: Option<Duration>,
    ) -> io::Result<Option<(M, Option<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, patience)?;
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let (length, socket) = self.receive_bytes(&mut bytes)?;
            match serde_json::from_slice(&bytes[..length]) {
                _ if length == 0 => return Ok(None),
                Ok(message) => return Ok(Some((message, socket))),
                Err(error) => tracing::debug!("a message is passed over: {error}"),
            }
        }
    }

    fn receive_bytes(&self, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(bytes)];
        let received = loop {
            match recvmsg(&self.0, into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                // Told once of who left with words unread: what he said before comes behind it.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                received => break received?,
            }
        };
        let mut sockets = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let socket = sockets.next().and_then(|mut sockets| sockets.next());
        drop(sockets);
        Ok((received.bytes, socket))
    }

    /// Nothing comes any more, whoever holds the other end.
    pub(super) fn shut(&self) {
        // It is shut already where the other one is gone.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Targets of objects are the longest that is said.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
const SENT_WITHIN: Duration = Duration::from_secs(5);
