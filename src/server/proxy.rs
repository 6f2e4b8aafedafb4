//! In front of everything else on a connection from a load balancer: whom it brings.
//!
//! Who is listed must say it and is believed; who is not listed is not listened to. Nothing behind
//! the header is read.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{ConnectionCounts, ServerSettings};
use crate::message::proxy_protocol::{self, Brought, ProxyFault, START_BYTES};

/// How a connection from a load balancer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// With a viewer's address.
    Viewer,
    /// With none: it looks whether we live, or does not know.
    Nobody,
    /// With something else than a header.
    Missing,
    /// With a header of version 1.
    Version1,
    /// With one that cannot be read, or is not what was sent.
    Malformed,
    /// With too little in `limits.header_timeout`.
    Late,
}

impl ProxyHeader {
    /// All there are.
    pub const ALL: [ProxyHeader; 6] = [
        ProxyHeader::Viewer,
        ProxyHeader::Nobody,
        ProxyHeader::Missing,
        ProxyHeader::Version1,
        ProxyHeader::Malformed,
        ProxyHeader::Late,
    ];

    /// As metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            ProxyHeader::Viewer => "viewer",
            ProxyHeader::Nobody => "nobody",
            ProxyHeader::Missing => "missing",
            ProxyHeader::Version1 => "version_1",
            ProxyHeader::Malformed => "malformed",
            ProxyHeader::Late => "late",
        }
    }
}

/// The viewer whom `peer` is or brings; `None` where the connection is to be closed.
///
/// Dropped midway it has read a part of a header: the connection is of no use then.
pub(super) async fn viewer_of(
    stream: &mut TcpStream,
    peer: SocketAddr,
    settings: &ServerSettings,
    counts: &ConnectionCounts,
) -> Option<SocketAddr> {
    if !settings.proxy_protocol.iter().any(|network| network.holds(peer.ip())) {
        return Some(peer);
    }
    let (began, viewer) = match header(stream).await {
        Ok(Some(header)) => match proxy_protocol::read(&header) {
            Ok(Brought::Viewer(viewer)) => (ProxyHeader::Viewer, Some(viewer)),
            Ok(Brought::Nobody) => (ProxyHeader::Nobody, Some(peer)),
            Err(fault) => (refused(peer, fault), None),
        },
        // It has only looked whether somebody accepts.
        Ok(None) => return None,
        Err(_) => (refused(peer, ProxyFault::Missing), None),
    };
    counts.began_with(began);
    viewer
}

/// The whole header, or as much as shows that it is none; `None` if nothing came at all.
async fn header(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut header = vec![0; START_BYTES];
    let first = stream.read(&mut header).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[first..]).await?;
    if let Some(Ok(length)) = header.first_chunk().map(proxy_protocol::length_bytes) {
        header.resize(length, 0);
        stream.read_exact(&mut header[START_BYTES..]).await?;
    }
    Ok(Some(header))
}

/// Said now and then: a load balancer that is set up wrongly brings nobody at all.
fn refused(peer: SocketAddr, fault: ProxyFault) -> ProxyHeader {
    let is_due = WARNED.with(|warned| {
        let is_due = warned.get().is_none_or(|at: Instant| at.elapsed() >= WARNING_INTERVAL);
        warned.set(if is_due { Some(Instant::now()) } else { warned.get() });
        is_due
    });
    let ip = peer.ip();
    match is_due {
        true => warn!("{ip} is in `proxies.proxy_protocol` and sent {}", fault.words()),
        false => debug!("{ip} is in `proxies.proxy_protocol` and sent {}", fault.words()),
    }
    match fault {
        ProxyFault::Missing => ProxyHeader::Missing,
        ProxyFault::Version1 => ProxyHeader::Version1,
        ProxyFault::Malformed | ProxyFault::Checksum => ProxyHeader::Malformed,
    }
}

thread_local! {
    /// When this worker said so last.
    static WARNED: Cell<Option<Instant>> = const { Cell::new(None) };
}

const WARNING_INTERVAL: Duration = Duration::from_secs(60);
