//! Sockets: bytes in, bytes out, any handler.
//!
//! One [`serve`] per listener and worker, run with `spawn_local` on the worker's `LocalRuntime`;
//! nothing in here is `Send` once a connection is accepted. Knows no objects and no configuration
//! file: the appliance fills [`ServerSettings`]. Every connection holds a permit, has a time limit
//! for whatever it is doing, and is waited for when draining.

mod activity;
mod connection;
mod guard;
pub mod kept;
mod listener;
mod outgoing;
mod proxy;
mod systemd;
mod tls;
mod transport;
mod watch;
mod wish;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Buf;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::network::Network;
use crate::overload::{Connected, Gate};

pub use connection::leave;
pub use listener::{
    DealtOut, Inbox, ListeningSocket, Owner, ReusePort, Source, bind, bind_group, deal_out, inbox,
    listen, send_by, send_by_systems_own,
};
pub use proxy::ProxyHeader;
pub use systemd::{Passed, PassedSocketError, take_passed_sockets};
pub use tls::{Choose, Tls};
pub use wish::{Stop, Wish, Wishes};

/// What answers requests. One for each worker; nothing here leaves the worker's thread.
pub trait Handler: 'static {
    /// What is sent. Its `Data` may be any `Buf`: on a plain socket its bytes are not copied in
    /// user space.
    type Body: Body<Data: Buf + 'static, Error: Into<Box<dyn Error + Send + Sync>>>
        + Unpin
        + 'static;

    /// Answers one request.
    ///
    /// The future is dropped when the viewer goes away first, so dropping it midway must be safe.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> impl Future<Output = Response<Self::Body>>;
}

/// Among the extensions of a response: the body of its request was read to its end, so that an
/// HTTP/1 connection can be used for another one.
#[derive(Clone, Copy, Debug)]
pub struct BodyRead;

/// What is known of a connection as long as it lives.
#[derive(Debug)]
pub struct ConnectionFacts {
    /// Never used twice in one process.
    pub id: u64,
    /// The viewer's address.
    pub viewer: SocketAddr,
    /// Our own address.
    pub local: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// `None` on a plain socket.
    pub tls: Option<TlsFacts>,
    /// How large a slice, in bytes, this socket has been taking: the handler's own memory, 0 at
    /// first.
    pub pace: Cell<u32>,
    /// What the handler does ahead for this viewer: its own count, 0 at first.
    pub ahead: Arc<AtomicU32>,
    /// As whose viewer a request of it was let in: the handler's own memory, nobody's at first.
    pub let_in: OnceCell<Connected>,
    /// What else the handler keeps as long as it lives, nothing at first.
    pub beside: RefCell<Vec<Box<dyn Any>>>,
    /// Why we cut it off, if we did: told before its bodies are dropped.
    pub cut: Cell<Option<Cut>>,
    /// What is wanted of it.
    pub wish: Cell<Wish>,
    /// How fast the kernel sends at most, as it was told.
    sends_at_most: Cell<u64>,
    /// To ask the kernel about, as long as a request of it is answered.
    socket: Option<RawFd>,
}

impl ConnectionFacts {
    /// What the kernel knows of the way to the viewer: a system call. For a handler alone, which
    /// is gone before the socket is.
    pub fn way(&self) -> Option<Way> {
        self.socket.and_then(transport::way)
    }

    /// Has the kernel send no more than so many bytes in a second from now on, or as fast as it
    /// goes. HTTP/1 alone: streams of HTTP/2 are of several minds. For a handler alone.
    pub fn send_at_most(&self, bytes_per_second: Option<u64>) {
        let bytes = bytes_per_second.unwrap_or(u64::MAX);
        if let (Some(socket), Protocol::Http1) = (self.socket, self.protocol)
            && self.sends_at_most.replace(bytes) != bytes
        {
            transport::send_at_most(socket, bytes);
        }
    }
}

/// The way to a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// There and back, smoothed.
    pub round_trip: Duration,
    /// What may be on the way at once.
    pub window_bytes: u64,
}

impl Way {
    /// What goes through in a second if nothing changes, in kbit/s.
    pub fn throughput_kbps(self) -> u64 {
        let micros = self.round_trip.as_micros().max(1) as u64;
        self.window_bytes.saturating_mul(8_000) / micros
    }
}

impl ConnectionFacts {
    /// Whether the viewer opened it to speak with another host than `host`, in lower case.
    pub fn is_for_another(&self, host: &str) -> bool {
        let name = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        name.is_some_and(|name| name != host)
    }
}

/// Why a connection was cut off in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The viewer took too little for too long.
    SlowReader,
    /// The time for draining was over.
    Drain,
    /// The viewer cancelled too many requests.
    CancelFlood,
}

impl Cut {
    /// As metrics and the access log call it.
    pub fn word(self) -> &'static str {
        match self {
            Cut::SlowReader => "slow_reader",
            Cut::Drain => "drain",
            Cut::CancelFlood => "cancel_flood",
        }
    }
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN or with prior knowledge.
    Http2,
}

/// What the TLS handshake told us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The name the viewer asked for (SNI), lower case.
    pub server_name: Option<String>,
    /// What the other side proved to be, where it was asked: verified when its hand was shaken.
    pub certificate: Option<CertificateDer<'static>>,
    /// What it showed beside that: who issued it, by whom.
    pub intermediates: Vec<CertificateDer<'static>>,
}

/// The limits in time of a connection, and whom it may be of.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// From the first byte of a request head to its last; from the start of the connection for the
    /// first.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// A viewer who takes less than this over [`ServerSettings::slow_reader_period`] is closed.
    pub slow_reader_bytes: u64,
    /// Counted only while there are bytes to send.
    pub slow_reader_period: Duration,
    /// How long running responses may go on after a drain began.
    pub drain_timeout: Duration,
    /// Load balancers whose connections begin with whom they bring.
    pub proxy_protocol: Vec<Network>,
}

/// What a worker's connections did; written by one thread, read by anyone.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections open now, those not yet served included.
    pub open: AtomicU64,
    /// Connections closed before they were served: dealt out while draining.
    pub refused: AtomicU64,
    /// TLS handshakes completed.
    pub handshakes_ok: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Connections closed because the viewer took bytes too slowly.
    pub slow_readers: AtomicU64,
    /// Connections closed because a request head took too long.
    pub header_timeouts: AtomicU64,
    /// Connections closed because no request came.
    pub idle_timeouts: AtomicU64,
    /// HTTP/2 connections closed because they cancelled far more requests than they let finish.
    pub cancel_floods: AtomicU64,
    /// Connections cut at the end of a drain.
    pub abandoned: AtomicU64,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_errors: AtomicU64,
    /// How connections from load balancers began, in the order of [`ProxyHeader::ALL`].
    pub proxy_headers: [AtomicU64; ProxyHeader::ALL.len()],
    /// Bytes written to sockets: heads, bodies and TLS records.
    pub bytes_written: AtomicU64,
}

impl ConnectionCounts {
    fn began_with(&self, header: ProxyHeader) {
        self.proxy_headers[header as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What all listeners of a worker share.
pub struct ServerContext {
    /// The limits in time; a connection keeps those it began with.
    pub settings: Arc<ArcSwap<ServerSettings>>,
    /// One permit a connection; shared by the whole appliance.
    pub permits: Arc<Semaphore>,
    /// The worker's own.
    pub counts: Arc<ConnectionCounts>,
    /// What is wanted of connections.
    pub wishes: Wishes,
    /// Who is let in; the worker's own.
    pub gate: Arc<Gate>,
}

/// Accepts and serves connections until it is to stop, and returns when all of them are done.
///
/// Where accepting stops first, connections go on until they end by themselves or all is to stop.
/// Then running responses finish (HTTP/1: then closes, HTTP/2: GOAWAY), and what is left after
/// `drain_timeout` is cut. Run it to its end: dropped midway, it leaves its
/// connections running without an owner.
pub async fn serve<H: Handler>(
    source: Source,
    tls: Option<Tls>,
    handler: Rc<H>,
    context: Arc<ServerContext>,
    stop: Stop,
) {
    let tasks = TaskTracker::new();
    let server = Rc::new(connection::Server::new(handler, tls, context, tasks.clone()));

    accept_until(source, &server, &stop).await;

    tasks.close();
    tokio::select! {
        biased;
        () = stop.all.cancelled() => {}
        () = tasks.wait() => return,
    }
    Wish::Draining.at_least(&server.context.wishes);
    let deadline = Instant::now() + server.context.settings.load().drain_timeout;
    if timeout_at(deadline, tasks.wait()).await.is_err() {
        tracing::warn!("`limits.drain_timeout` is over: {} connections are cut", tasks.len());
        Wish::Abandoned.at_least(&server.context.wishes);
        tasks.wait().await;
    }
}

/// The accept loop; the source is closed when it returns.
async fn accept_until<H: Handler>(
    mut source: Source,
    server: &Rc<connection::Server<H>>,
    stop: &Stop,
) {
    let at_once = if source.is_dealt_out() { &stop.all } else { &stop.accepting };
    loop {
        let accepted = tokio::select! {
            biased;
            // Who deals out stops by himself, and what he has dealt out is still served.
            () = at_once.cancelled() => break,
            accepted = source.accept(&server.context) => accepted,
        };
        let Some(accepted) = accepted else { break };
        let serving = connection::run(Rc::clone(server), accepted);
        tokio::task::spawn_local(server.tasks.track_future(serving));
    }
    source.refuse_waiting(&server.context.counts);
}
