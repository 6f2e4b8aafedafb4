//! Listening sockets, and the wait for the next connection.
//!
//! A worker listens with a socket of its own in a SO_REUSEPORT group; where sockets were passed to
//! us instead, one task accepts and deals each connection out to the least loaded worker. Nothing
//! is accepted without a connection permit: who has to wait, waits in the kernel's backlog. He is
//! not told: that would take a connection, with its memory, of which there is none; nor does a
//! site's flood bring it to that, which is told from seven eighths on (`overload/connected.rs`).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SocketFlags, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use super::{ConnectionCounts, ServerContext, Stop, transport};
use crate::limits::{DEALT_OUT_WAITING_MAX, LISTEN_BACKLOG};
use crate::network::ListenerKind;

/// Whether other listeners of this process may share the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReusePort {
    /// A group: the kernel spreads connections over its members.
    Shared,
    /// Alone: the port must be free.
    Exclusive,
}

/// A socket that may [`listen`] on `address`, and does not yet: nobody is connected to it. IPv6
/// listens for IPv6 only: IPv4 has listeners of its own.
///
/// # Errors
/// What the system said: the address is taken, not ours, or not allowed.
pub fn bind(address: SocketAddr, reuse: ReusePort) -> io::Result<TcpListener> {
    let socket = bound(address, reuse)?;
    transport::prepare(SockRef::from(&socket))?;
    Ok(socket.into())
}

/// Whoever comes waits in its backlog from now on. One that listens goes on.
///
/// # Errors
/// Somebody else has begun to listen there.
pub fn listen(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(LISTEN_BACKLOG)
}

/// Sockets for `address` that share it, one for each worker: `count`.
///
/// Fails if somebody listens there already: sockets of one user that share a port by SO_REUSEPORT
/// would not notice each other.
pub fn bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let alone = bound(address, ReusePort::Exclusive)?;
    let address = alone.local_addr()?.as_socket().expect("an IP socket has an IP address");
    drop(alone);
    (0..count).map(|_| bind(address, ReusePort::Shared)).collect()
}

/// Has the kernel send by this congestion control to who is accepted from now on: Linux copies it
/// with the socket.
///
/// # Errors
/// What the system said: there is none of this name, or it is not for everybody.
pub fn send_by(listener: &TcpListener, congestion_control: &str) -> io::Result<()> {
    Ok(sockopt::set_tcp_congestion(listener, congestion_control)?)
}

/// Has it send by the system's own again: another process may have set one for this socket. One
/// that has it is left alone, so that it follows when the system's is changed. Whether it was set.
///
/// # Errors
/// What the system said.
pub fn send_by_systems_own(listener: &TcpListener) -> io::Result<bool> {
    let systems = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    let has_another = sockopt::tcp_congestion(listener)? != systems.trim();
    if has_another {
        send_by(listener, systems.trim())?;
    }
    Ok(has_another)
}

fn bound(address: SocketAddr, reuse: ReusePort) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse == ReusePort::Shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A listening socket, whoever bound it.
#[derive(Debug)]
pub struct ListeningSocket {
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Whose it is.
    pub owner: Owner,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket, not blocking.
    pub listener: TcpListener,
}

/// Whose a listening socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The service manager's.
    Manager,
    /// Ours: bound for what is written so in the configuration, which may leave the port open.
    Own(SocketAddr),
}

impl Owner {
    /// What a socket of ours was bound for.
    pub fn bound_for(self) -> Option<SocketAddr> {
        match self {
            Owner::Manager => None,
            Owner::Own(bound_for) => Some(bound_for),
        }
    }
}

impl ListeningSocket {
    /// Where it listens, and what it was bound for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        [Some(self.address), self.owner.bound_for()].into_iter().flatten()
    }
}

/// Where a server's connections come from.
pub struct Source(Kind);

enum Kind {
    Listening(Listener),
    DealtOut(DealtOut),
}

impl Source {
    /// From a listener of the worker's own. Call it on the worker's runtime.
    pub fn listening(listener: TcpListener) -> io::Result<Source> {
        Ok(Source(Kind::Listening(Listener::new(listener)?)))
    }

    /// From [`deal_out`].
    pub fn dealt_out(connections: DealtOut) -> Source {
        Source(Kind::DealtOut(connections))
    }

    /// Whether somebody else accepts.
    pub(super) fn is_dealt_out(&self) -> bool {
        matches!(self.0, Kind::DealtOut(_))
    }

    /// The next connection; `None` when there will be no more. Dropping it midway loses none.
    pub(super) async fn accept(&mut self, context: &ServerContext) -> Option<Accepted> {
        match &mut self.0 {
            Kind::Listening(listener) => {
                let (stream, viewer, permit) =
                    listener.accept(&context.permits, &context.counts).await;
                let ticket = Ticket::new(permit, Arc::clone(&context.counts));
                Some(Accepted { stream, viewer, ticket })
            }
            Kind::DealtOut(connections) => connections.0.recv().await,
        }
    }

    /// Closes the source; connections that were dealt out and not yet taken are refused.
    pub(super) fn refuse_waiting(self, counts: &ConnectionCounts) {
        let Kind::DealtOut(DealtOut(mut connections)) = self.0 else { return };
        connections.close();
        while let Ok(accepted) = connections.try_recv() {
            drop(accepted);
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection and its right to be open.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) viewer: SocketAddr,
    pub(super) ticket: Ticket,
}

/// Holds a connection's permit and its place in the count of those open.
pub(super) struct Ticket {
    counts: Arc<ConnectionCounts>,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    fn new(permit: OwnedSemaphorePermit, counts: Arc<ConnectionCounts>) -> Ticket {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Ticket { counts, _permit: permit }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Listener {
    /// The listening socket, in the type by which tokio tells readiness apart from accepting
    /// (`TcpListener` only accepts, and `AsyncFd` can only be made with `unsafe`).
    socket: tokio::net::TcpStream,
    /// Failures in a row.
    failures: u32,
}

impl Listener {
    fn new(listener: TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        let socket = TcpStream::from(OwnedFd::from(listener));
        Ok(Listener { socket: tokio::net::TcpStream::from_std(socket)?, failures: 0 })
    }

    /// Waits for a connection first, then for a permit, and only then accepts: an idle listener
    /// holds no permit that a busy one needs.
    async fn accept(
        &mut self,
        permits: &Arc<Semaphore>,
        counts: &ConnectionCounts,
    ) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let readable = self.socket.readable().await;
            let permit = Arc::clone(permits).acquire_owned().await;
            let permit = permit.expect("the semaphore of connections is never closed");
            let accepted = readable
                .and_then(|()| self.socket.try_io(Interest::READABLE, || accept_now(&self.socket)));
            match accepted {
                Ok((stream, viewer)) => {
                    self.failures = 0;
                    return (stream, viewer, permit);
                }
                Err(failure) if concerns_one_connection(&failure) => {}
                Err(failure) => {
                    drop(permit);
                    counts.accept_errors.fetch_add(1, Ordering::Relaxed);
                    self.back_off(&failure).await;
                }
            }
        }
    }

    /// The connection stays in the backlog and the socket readable, so that without a pause we
    /// would spin.
    async fn back_off(&mut self, failure: &io::Error) {
        if self.failures == 0 {
            warn!(error = %failure, "cannot accept connections, trying again");
        }
        let pause = ACCEPT_PAUSE_MIN * (1 << self.failures.min(ACCEPT_PAUSE_DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

fn accept_now(listener: impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, viewer): (OwnedFd, _) = rustix::net::acceptfrom_with(listener, flags)?;
    let viewer = viewer.and_then(|viewer| SocketAddr::try_from(viewer).ok());
    // A viewer who has already gone may have left no address.
    let viewer = viewer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), canonical(viewer)))
}

/// An IPv4 viewer of a socket that listens for both (a passed one may) has an IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Errors of `accept(2)` that say nothing of the next connection; also that there is none after
/// all.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    let of_the_network = [
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
        libc::EPERM,
    ];
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
        || error.raw_os_error().is_some_and(|number| of_the_network.contains(&number))
}

/// A worker's end of [`deal_out`]: give it to [`Source::dealt_out`].
pub struct DealtOut(mpsc::Receiver<Accepted>);

/// The acceptor's end: how to reach a worker, and how busy it is.
pub struct Inbox {
    connections: mpsc::Sender<Accepted>,
    counts: Arc<ConnectionCounts>,
}

/// The way from the acceptor of passed sockets to one worker, whose counts these are.
pub fn inbox(counts: Arc<ConnectionCounts>) -> (Inbox, DealtOut) {
    let (connections, dealt_out) = mpsc::channel(DEALT_OUT_WAITING_MAX);
    (Inbox { connections, counts }, DealtOut(dealt_out))
}

/// Accepts for all workers until it is to stop accepting or the workers are gone.
///
/// Dropping it midway loses at most the connection in hand.
///
/// # Errors
/// The listener cannot be polled, or there is no worker.
pub async fn deal_out(
    listener: TcpListener,
    workers: Vec<Inbox>,
    permits: Arc<Semaphore>,
    stop: Stop,
) -> io::Result<()> {
    let mut listener = Listener::new(listener)?;
    let failures = Arc::clone(&workers.first().ok_or(io::ErrorKind::InvalidInput)?.counts);
    loop {
        let (stream, viewer, permit) = tokio::select! {
            biased;
            () = stop.accepting.cancelled() => break,
            accepted = listener.accept(&permits, &failures) => accepted,
        };
        let Some(worker) = least_loaded(&workers) else { break };
        let ticket = Ticket::new(permit, Arc::clone(&worker.counts));
        // A full inbox makes the acceptor wait, and the backlog with it. Who is in hand is dealt
        // out, whatever is to stop: he has been accepted.
        let _ = worker.connections.send(Accepted { stream, viewer, ticket }).await;
    }
    Ok(())
}

/// The worker with the fewest connections open, of those that still serve and have room if any has.
fn least_loaded(workers: &[Inbox]) -> Option<&Inbox> {
    workers.iter().filter(|worker| !worker.connections.is_closed()).min_by_key(|worker| {
        let is_full = worker.connections.capacity() == 0;
        (is_full, worker.counts.open.load(Ordering::Relaxed))
    })
}

/// The pause after an accept that failed, doubled up to 1.6 s.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_DOUBLINGS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_group_shares_one_port_and_nobody_else_gets_it() {
        let group = bind_group(ANY, 3).unwrap();
        let address = group[0].local_addr().unwrap();
        group.iter().for_each(|one| listen(one).unwrap());

        assert!(group.iter().all(|one| one.local_addr().unwrap() == address));
        assert_eq!(bind_group(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            bind(address, ReusePort::Exclusive).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn ipv4_and_ipv6_listen_on_one_port_number() {
        let v6 = match bind("[::]:0".parse().unwrap(), ReusePort::Exclusive) {
            Ok(v6) => v6,
            Err(_) => return eprintln!("no IPv6 here"),
        };
        let port = v6.local_addr().unwrap().port();
        bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), ReusePort::Exclusive)
            .unwrap();
    }

    #[test]
    fn an_accepted_socket_has_the_options_of_its_listener() {
        let listener = bind(ANY, ReusePort::Exclusive).unwrap();
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_err(), "it does not yet");
        listen(&listener).unwrap();
        let _viewer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = accept_now(&listener).unwrap();

        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 << 10);
        assert!(socket.nonblocking().unwrap());
    }

    #[test]
    fn an_ipv4_viewer_of_a_socket_for_both_has_an_ipv4_address() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.7:80".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }

    #[tokio::test]
    async fn who_was_accepted_is_dealt_out_although_accepting_stops() {
        let listener = bind(ANY, ReusePort::Exclusive).unwrap();
        listen(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let viewers = (0..=DEALT_OUT_WAITING_MAX).map(|_| TcpStream::connect(address).unwrap());
        let viewers: Vec<TcpStream> = viewers.collect();
        let (counts, stop) = (Arc::new(ConnectionCounts::default()), Stop::default());
        let (inbox, DealtOut(mut dealt_out)) = inbox(counts.clone());
        let permits = Arc::new(Semaphore::new(viewers.len()));
        let acceptor = tokio::spawn(deal_out(listener, vec![inbox], permits, stop.clone()));
        // The last one is in hand: there is no room for him.
        while counts.accepted.load(Ordering::Relaxed) < viewers.len() as u64 {
            tokio::task::yield_now().await;
        }
        stop.accepting.cancel();
        let mut dealt = 0;
        while dealt_out.recv().await.is_some() {
            dealt += 1;
        }
        assert_eq!(dealt, viewers.len());
        acceptor.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn failing_to_accept_pauses_longer_and_longer_and_never_spins() {
        let mut listener = Listener::new(bind(ANY, ReusePort::Exclusive).unwrap()).unwrap();
        let exhausted = io::Error::from_raw_os_error(libc::EMFILE);
        assert!(!concerns_one_connection(&exhausted));
        assert!(concerns_one_connection(&io::ErrorKind::ConnectionAborted.into()));

        let mut pauses = Vec::new();
        for _ in 0..8 {
            let before = tokio::time::Instant::now();
            listener.back_off(&exhausted).await;
            pauses.push(before.elapsed().as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 1600, 1600]);
    }
}
