//! Every listening socket, before anyone accepts from it: bound, passed by the service manager,
//! handed over by the process before this one, or kept by the service manager for this one.
//!
//! A kind of listener that was passed is not bound as well: the service manager holds its address.
//! What is bound here listens only when all is there that accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::{ApplianceError, Running};
use crate::config::{Config, ConfigError, Listener, ListenerKind, no_congestion_control};
use crate::server::{self, ListeningSocket, Owner, ReusePort, kept};

/// Every listening socket, by who accepts from it.
#[derive(Default)]
pub(super) struct Sockets {
    /// For each listener, the sockets of each worker: one, unless another process had more workers.
    pub(super) own: Vec<(ListenerKind, Vec<Vec<TcpListener>>)>,
    pub(super) passed: Vec<(ListenerKind, TcpListener)>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) steering: Vec<(ListenerKind, TcpListener)>,
    pub(super) addresses: Vec<(ListenerKind, SocketAddr)>,
    /// What is written of these nobody binds.
    pub(super) passed_kinds: Vec<ListenerKind>,
    /// All of them, for the process that follows.
    pub(super) all: Vec<ListeningSocket>,
}

impl Running {
    /// Has the service manager keep the sockets that are bound here for the process that it starts
    /// next: who comes meanwhile waits.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn keep_sockets(&self) -> io::Result<()> {
        each_own(&self.sockets, kept::keep)
    }

    /// The same, once the process before this one has left it the service, and the service manager
    /// hears it; never where there was none. Safe to drop.
    ///
    /// # Errors
    /// As there.
    pub fn keep_sockets_when_alone(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let (alone, sockets) = (self.until_alone(), self.sockets.clone());
        async move {
            alone.await;
            each_own(&sockets, kept::keep)
        }
    }

    /// Has it keep none any more: another process has them, and says itself which it still has when
    /// it ends.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn keep_sockets_no_longer(&self) -> io::Result<()> {
        each_own(&self.sockets, |kind, bound_for, _| kept::keep_no_longer(kind, bound_for))
    }
}

fn each_own(
    sockets: &Mutex<Vec<ListeningSocket>>,
    tell: impl Fn(ListenerKind, SocketAddr, &TcpListener) -> io::Result<()>,
) -> io::Result<()> {
    let all = sockets.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().try_for_each(|one| match one.owner {
        Owner::Own(bound_for) => tell(one.kind, bound_for, &one.listener),
        Owner::Manager => Ok(()),
    })
}

impl Sockets {
    /// All that `config` wants, of those `given` or bound.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub(super) fn bind(
        config: &Config,
        mut given: Vec<ListeningSocket>,
    ) -> Result<Sockets, ApplianceError> {
        let mut sockets = Sockets::default();
        for one in given.extract_if(.., |one| one.owner == Owner::Manager) {
            sockets.take_passed(one.kind, one.address, one.listener)?;
        }
        for listener in &config.listeners {
            if sockets.passed_kinds.contains(&listener.kind) {
                continue;
            }
            let is_for_it = |one: &mut ListeningSocket| {
                let is_there =
                    one.owner == Owner::Own(listener.address) || one.address == listener.address;
                one.kind == listener.kind && is_there
            };
            let group = given.extract_if(.., |one| is_for_it(one));
            let group: Vec<_> = group.map(|one| one.listener).collect();
            if group.is_empty() {
                look_for_room(config, listener, &given)?;
            }
            sockets.take_own(config, listener, group)?;
        }
        Ok(sockets)
    }

    /// Who comes waits for who accepts, and is sent to as `config` wants it. Not before: sockets
    /// that were handed over are the other process's too.
    ///
    /// # Errors
    /// Somebody else has begun to listen there.
    pub(super) fn listen(&self, config: &Config) -> Result<(), ApplianceError> {
        self.set_congestion(config);
        let own = self.all.iter().filter(|one| one.owner != Owner::Manager);
        for ListeningSocket { address, listener, .. } in own {
            let address = *address;
            let failed = |source| ApplianceError::Bind { address, source };
            server::listen(listener).map_err(failed)?;
        }
        Ok(())
    }

    fn set_congestion(&self, config: &Config) {
        let mut told = Vec::new();
        for ListeningSocket { kind, owner, listener, .. } in &self.all {
            let name = config.congestion.of(*kind);
            let set = name.map(|name| (name, server::send_by(listener, name)));
            let is_set = matches!(set, Some((_, Ok(()))));
            // Slower for some is better than not at all. The other sockets have none either.
            if let Some((name, Err(error))) = set
                && !told.contains(kind)
            {
                tell_of_congestion(*kind, name, &error);
                told.push(*kind);
            }
            // The service manager may have one for what is its own. Where it cannot be told which
            // is the system's, that of before stays.
            if !is_set && *owner != Owner::Manager {
                let _ = server::send_by_systems_own(listener);
            }
        }
    }

    fn take_passed(
        &mut self,
        kind: ListenerKind,
        address: SocketAddr,
        listener: TcpListener,
    ) -> Result<(), ApplianceError> {
        self.passed_kinds.push(kind);
        self.addresses.push((kind, address));
        self.keep(kind, Owner::Manager, address, &listener)?;
        match kind {
            ListenerKind::Http | ListenerKind::Https => self.passed.push((kind, listener)),
            ListenerKind::Admin => self.admin.push(listener),
            ListenerKind::Steering | ListenerKind::SteeringTls => {
                self.steering.push((kind, listener));
            }
        }
        Ok(())
    }

    /// One socket for each worker at least, bound unless they are there.
    fn take_own(
        &mut self,
        config: &Config,
        listener: &Listener,
        mut group: Vec<TcpListener>,
    ) -> Result<(), ApplianceError> {
        let kind = listener.kind;
        let count = if kind.is_of_workers() { config.threads.workers } else { 1 };
        let failed = |source| ApplianceError::Bind { address: listener.address, source };
        if group.is_empty() {
            group = server::bind_group(listener.address, count).map_err(failed)?;
        }
        let address = group[0].local_addr().map_err(failed)?;
        while group.len() < count {
            group.push(server::bind(address, ReusePort::Shared).map_err(failed)?);
        }
        self.addresses.push((kind, address));
        for one in &group {
            self.keep(kind, Owner::Own(listener.address), address, one)?;
        }
        if !kind.is_of_workers() {
            match kind {
                ListenerKind::Admin => self.admin.append(&mut group),
                _ => self.steering.extend(group.into_iter().map(|one| (kind, one))),
            }
            return Ok(());
        }
        let mut workers: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
        // Each is accepted from: what waits in one nobody looks at would wait for ever.
        for (number, one) in group.into_iter().enumerate() {
            workers[number % count].push(one);
        }
        self.own.push((kind, workers));
        Ok(())
    }

    fn keep(
        &mut self,
        kind: ListenerKind,
        owner: Owner,
        address: SocketAddr,
        listener: &TcpListener,
    ) -> Result<(), ApplianceError> {
        let failed = |source: io::Error| ApplianceError::Bind { address, source };
        let listener = listener.try_clone().map_err(failed)?;
        self.all.push(ListeningSocket { kind, owner, address, listener });
        Ok(())
    }
}

/// Whether nobody who gave sockets listens where this one is to, for something else.
fn look_for_room(
    config: &Config,
    listener: &Listener,
    given: &[ListeningSocket],
) -> Result<(), ApplianceError> {
    let in_its_way = given.iter().find(|one| listener.overlaps(one.address));
    let Some(ListeningSocket { kind, address, .. }) = in_its_way else { return Ok(()) };
    let (name, before) = (listener.kind.name(), kind.name());
    let text = format!(
        "`listeners.{name}` {} cannot be had while the process before this one listens at \
         {address} for {before}: restart the service to have it so",
        listener.address
    );
    let (file, place) = (config.file.clone(), Some(listener.place));
    Err(ApplianceError::Settings(ConfigError { file, place, text }))
}

fn tell_of_congestion(kind: ListenerKind, name: &str, error: &io::Error) {
    match error.kind() {
        io::ErrorKind::NotFound => tracing::warn!("{}", no_congestion_control(kind, name)),
        _ => tracing::warn!(
            "`listeners.congestion.{}` is {name:?}, which this process cannot have: {error}; see \
             `tidegate doctor`",
            kind.name()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpStream;

    use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};

    use super::*;

    #[test]
    fn whoever_bound_a_socket_viewers_are_sent_by_the_congestion_control_of_now() {
        let bound = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let config = |of: &str| {
            let text = format!(
                "threads.workers = 1\n\
                 listeners = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0'{of} }}\n\
                 [[sites]]\nname = 'a'\nhosts = 'a'\norigins = 'http://o'\n"
            );
            Config::from_toml(&text, "t.toml").unwrap()
        };
        let systems = tcp_congestion(&bound().1).unwrap();
        let available = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let available = fs::read_to_string(available).unwrap();
        let other = available.split_whitespace().find(|one| *one != systems).unwrap_or(&systems);
        // What has never been set follows the system's, and is to go on so.
        let (_, never_set) = bound();
        assert!(!server::send_by_systems_own(&never_set).unwrap());
        set_tcp_congestion(&never_set, other).unwrap();
        assert_eq!(server::send_by_systems_own(&never_set).unwrap(), other != systems);
        assert!(!server::send_by_systems_own(&never_set).unwrap());
        for (of, set) in [
            (", congestion.http = 'reno'", Some("reno")),
            (", congestion.http = 'no_such'", None),
            ("", None),
        ] {
            let config = config(of);
            let own = Sockets::bind(&config, vec![]).unwrap();
            // Both were bound by who had another one set.
            let ours = Owner::Own(config.listeners[0].address);
            let [passed, handed] = [Owner::Manager, ours].map(|owner| {
                let ((address, listener), kind) = (bound(), ListenerKind::Http);
                set_tcp_congestion(&listener, other).unwrap();
                let given = ListeningSocket { kind, owner, address, listener };
                Sockets::bind(&config, vec![given]).unwrap()
            });
            for one in passed.all.iter().chain(&handed.all) {
                let is_given = one.kind == ListenerKind::Http;
                let now = tcp_congestion(&one.listener).unwrap();
                assert!(!is_given || now == other, "{now}: whose it is serves yet");
            }
            for sockets in [own, passed, handed] {
                sockets.listen(&config).unwrap();
                for one in &sockets.all {
                    let viewer = TcpStream::connect(one.address).unwrap();
                    // Of a group another member may have been chosen.
                    let waiting = sockets.all.iter().filter(|other| other.address == one.address);
                    let accept = |socket: &ListeningSocket| {
                        socket.listener.set_nonblocking(true).unwrap();
                        socket.listener.accept().ok()
                    };
                    let (accepted, _) = waiting.into_iter().find_map(accept).unwrap();
                    let set = set.filter(|_| one.kind == ListenerKind::Http);
                    let is_ours = one.owner != Owner::Manager;
                    let wanted = set.unwrap_or(if is_ours { &systems } else { other });
                    assert_eq!(tcp_congestion(&accepted).unwrap(), wanted, "{one:?}, {of}");
                    drop(viewer);
                }
            }
        }
    }
}
