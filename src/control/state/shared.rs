//! What is different where several control planes share a state: one of them leads, what boxes say
//! to one the others hear, and for a while nobody may answer. Where one has it alone, it leads.

use std::future;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::store::Backend;
use super::{Expect, State};
use crate::control::registry::Heartbeat;

/// The control planes that share a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peers {
    /// All that are there, by what they are called.
    pub nodes: Vec<Node>,
    /// Whether this one sees what the others do.
    pub is_in_touch: bool,
}

/// A control plane that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// What nothing else is called.
    pub id: String,
    /// By what it is asked.
    pub names: Vec<String>,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Whether it publishes snapshots.
    pub leads: bool,
    /// Whether it is the one that says so.
    pub is_this: bool,
}

impl State {
    /// Takes part as a control plane that is asked by these names.
    pub fn attend(&self, names: &[String]) {
        match &self.backend {
            // Nobody else is there.
            Backend::Redb(_) => {
                let _ = names;
            }
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.attend(names),
        }
    }

    /// Whether this one publishes snapshots.
    pub fn is_leading(&self) -> bool {
        self.leads().is_some()
    }

    /// What else a change expects that only the leader may make; `None`: another one leads.
    pub(super) fn leads(&self) -> Option<Vec<(String, Expect)>> {
        match &self.backend {
            Backend::Redb(_) => Some(Vec::new()),
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.leads().map(|key| vec![key]),
        }
    }

    /// Whether what others change is not seen, for longer than a moment.
    pub fn is_away(&self) -> bool {
        match &self.backend {
            Backend::Redb(_) => false,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.is_away(),
        }
    }

    /// Whether it is seen again since this was asked last, and something may have been missed.
    pub fn has_returned(&self) -> bool {
        match &self.backend {
            Backend::Redb(_) => false,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.has_returned(),
        }
    }

    /// Ends when others may have changed something. Safe to drop.
    pub async fn changed(&self) {
        match &self.backend {
            Backend::Redb(_) => future::pending().await,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.changed().await,
        }
    }

    /// The snapshot that was published last, where another one may have done so.
    pub fn latest(&self) -> Option<Arc<Bytes>> {
        match &self.backend {
            Backend::Redb(_) => None,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.latest(),
        }
    }

    /// Has the others know what a box says.
    pub fn tell(&self, name: &str, beat: &Heartbeat) {
        match &self.backend {
            Backend::Redb(_) => {
                let _ = (name, beat);
            }
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.tell(name, beat),
        }
    }

    /// What boxes said to the others since this was asked last.
    pub fn heard(&self) -> Vec<(String, Heartbeat)> {
        match &self.backend {
            Backend::Redb(_) => Vec::new(),
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.heard(),
        }
    }

    /// Who shares this state; nobody where it lies in a file.
    pub fn peers(&self) -> Peers {
        match &self.backend {
            Backend::Redb(_) => Peers { nodes: Vec::new(), is_in_touch: true },
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.peers(),
        }
    }
}
