//! Where a state lies: opened there, read and changed. What several control planes do besides is in
//! `shared.rs`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

#[cfg(feature = "etcd")]
use super::EtcdSettings;
#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::redb::Redb;
use super::{AuditRecord, By, Change, Commits, SNAPSHOT, State, StateError};

/// Where a state lies.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a file that one process has.
    File(PathBuf),
    /// On etcd, for several control planes.
    #[cfg(feature = "etcd")]
    Etcd(Box<EtcdSettings>),
}

impl Store {
    /// The file, where it lies in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Store::File(path) => Some(path),
            #[cfg(feature = "etcd")]
            Store::Etcd(_) => None,
        }
    }
}

/// What a state is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To go on with it.
    GoOn,
    /// To take over another one: where it was lost, nothing is there.
    Import,
}

/// The same with all that is needed.
#[derive(Debug)]
pub(super) enum Backend {
    Redb(Redb),
    #[cfg(feature = "etcd")]
    Etcd(Box<Etcd>),
}

impl State {
    /// Opens the file, or begins it. Blocks.
    ///
    /// # Errors
    /// Another process has it, or what it holds is not understood.
    pub fn open(path: &Path) -> Result<State, StateError> {
        let redb = Redb::open(path)?;
        let known = redb.known();
        Ok(State { backend: Backend::Redb(redb), known, commits: Commits::default() })
    }

    /// The same wherever it lies. On etcd the keys of the fleet do so too: the folder has them
    /// then. Blocks.
    ///
    /// # Errors
    /// As of [`State::open`]; or nobody answers, and there is no copy of what was known last; or
    /// nothing is there any more.
    pub fn open_in(store: &Store, to: Purpose, now: SystemTime) -> Result<State, StateError> {
        match store {
            Store::File(path) => {
                // Nothing in it ends, and nobody else empties it.
                let _ = (to, now);
                State::open(path)
            }
            #[cfg(feature = "etcd")]
            Store::Etcd(settings) => {
                let etcd = Etcd::open(settings.as_ref().clone(), to, now)?;
                let known = etcd.known();
                let (backend, commits) = (Backend::Etcd(Box::new(etcd)), Commits::default());
                Ok(State { backend, known, commits })
            }
        }
    }

    /// The snapshot that was published last, as it is sent. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or this state is only a part of one that is being imported.
    pub fn last_snapshot_now(&self) -> Result<Option<Bytes>, StateError> {
        self.known().is_imported()?;
        match &self.backend {
            Backend::Redb(redb) => Ok(redb.read_now(SNAPSHOT)?.map(Bytes::from)),
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => Ok(etcd.latest().map(|bytes| Bytes::clone(&bytes))),
        }
    }

    /// The latest changes of these, the newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn audit(
        &self,
        of: &'static [By],
        count_max: usize,
    ) -> Result<Vec<AuditRecord>, StateError> {
        match &self.backend {
            Backend::Redb(redb) => redb.audit(of, count_max).await,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.audit(of, count_max).await,
        }
    }

    /// What came of changes since it was opened.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// Whether it was made; what is known is as it is kept either way.
    pub(super) async fn commit(&self, change: Change) -> Result<bool, StateError> {
        let audit = change.audit.as_ref().map(|record| record.of);
        let came = match &self.backend {
            Backend::Redb(redb) => redb.commit(change).await,
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => etcd.commit(change).await,
        };
        self.commits.count(&came, audit);
        came
    }
}
