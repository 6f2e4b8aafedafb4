//! Every listening socket, bound or passed, before anyone accepts from it.
//!
//! A kind of listener that was passed is not bound as well: the service manager holds its address.

use std::net::{SocketAddr, TcpListener};

use super::ApplianceError;
use crate::config::{Config, ListenerKind};
use crate::server::{self, ListenerName, PassedSocket};

/// Every listening socket, by who accepts from it.
pub(super) struct Sockets {
    /// For each listener, one socket for each worker.
    pub(super) own: Vec<(ListenerKind, Vec<TcpListener>)>,
    pub(super) passed: Vec<(ListenerKind, TcpListener)>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) addresses: Vec<(ListenerKind, SocketAddr)>,
    /// What is written of these nobody binds.
    pub(super) passed_kinds: Vec<ListenerKind>,
}

impl Sockets {
    pub(super) fn open(
        config: &Config,
        passed: Vec<PassedSocket>,
    ) -> Result<Sockets, ApplianceError> {
        let mut sockets = Sockets {
            own: Vec::new(),
            passed: Vec::new(),
            admin: Vec::new(),
            addresses: Vec::new(),
            passed_kinds: Vec::new(),
        };
        for PassedSocket { name, address, listener } in passed {
            let kind = match name {
                ListenerName::Http => ListenerKind::Http,
                ListenerName::Https => ListenerKind::Https,
                ListenerName::Admin => ListenerKind::Admin,
            };
            sockets.passed_kinds.push(kind);
            sockets.addresses.push((kind, address));
            match kind {
                ListenerKind::Admin => sockets.admin.push(listener),
                _ => sockets.passed.push((kind, listener)),
            }
        }
        for listener in &config.listeners {
            if sockets.passed_kinds.contains(&listener.kind) {
                continue;
            }
            let count =
                if listener.kind == ListenerKind::Admin { 1 } else { config.threads.workers };
            let failed = |source| ApplianceError::Bind { address: listener.address, source };
            let mut group = server::bind_group(listener.address, count).map_err(failed)?;
            let address = group[0].local_addr().map_err(failed)?;
            sockets.addresses.push((listener.kind, address));
            match listener.kind {
                ListenerKind::Admin => sockets.admin.append(&mut group),
                kind => sockets.own.push((kind, group)),
            }
        }
        Ok(sockets)
    }
}
