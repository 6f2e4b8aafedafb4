//! Many viewers, one request upstream: where fills in flight are found.
//!
//! Runs are found by version and position; an object whose head is not known yet is found by its
//! key, and its
//! waiters are told together. Both tables are sharded and locked for a few instructions.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::fill::Opened;
use crate::fill::run::{Reader, Run};
use crate::object::{ObjectKey, VersionId};

const SHARDS: usize = 64;

/// A map cut into shards, each with its own lock.
struct Sharded<K, V> {
    shards: [Mutex<HashMap<K, V>>; SHARDS],
    hasher: RandomState,
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    fn new() -> Sharded<K, V> {
        Sharded {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, V>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs in flight, by version.
pub struct Runs {
    by_version: Sharded<VersionId, Vec<Arc<Run>>>,
}

/// Where a reader ended up.
pub enum Joined {
    /// In a run that was there.
    Collapsed(Reader),
    /// In a run that was just added, and must be started.
    Started(Reader, Arc<Run>),
    /// Nowhere: no run comes by, and none was made.
    Nowhere,
}

impl Runs {
    /// No runs yet.
    pub fn new() -> Runs {
        Runs { by_version: Sharded::new() }
    }

    /// Joins the run that comes by `position`, or adds the one `make` gives. `make` is told where
    /// the next
    /// claim begins, so that at most one run holds a piece.
    pub fn join(
        &self,
        version: VersionId,
        position: u64,
        make: impl FnOnce(Option<u64>) -> Option<Arc<Run>>,
    ) -> Joined {
        let mut shard = self.by_version.shard(&version);
        let runs = shard.entry(version).or_default();
        if let Some(reader) = runs.iter().find_map(|run| run.attach(position)) {
            return Joined::Collapsed(reader);
        }
        let claims = runs.iter().filter_map(|run| run.claim());
        let next = claims.map(|(start, _)| start).filter(|start| *start > position).min();
        let made = make(next);
        let joined = made.and_then(|run| run.attach(position).map(|reader| (reader, run)));
        match joined {
            Some((reader, run)) => {
                runs.push(run.clone());
                Joined::Started(reader, run)
            }
            None => {
                if runs.is_empty() {
                    shard.remove(&version);
                }
                Joined::Nowhere
            }
        }
    }

    /// Adds a run whose response is already here.
    pub fn add(&self, run: Arc<Run>) {
        self.by_version.shard(&run.version.id).entry(run.version.id).or_default().push(run);
    }

    /// Forgets a run that has ended.
    pub fn remove(&self, run: &Arc<Run>) {
        let mut shard = self.by_version.shard(&run.version.id);
        if let Some(runs) = shard.get_mut(&run.version.id) {
            runs.retain(|other| !Arc::ptr_eq(other, run));
            if runs.is_empty() {
                shard.remove(&run.version.id);
            }
        }
    }

    /// Whether another run than `run` holds or claims the byte at `position`.
    pub fn is_claimed_by_another(&self, run: &Arc<Run>, position: u64) -> bool {
        let shard = self.by_version.shard(&run.version.id);
        let others = shard.get(&run.version.id).into_iter().flatten();
        others
            .filter(|other| !Arc::ptr_eq(other, run))
            .filter_map(|other| other.claim())
            .any(|(start, end)| (start..end).contains(&position))
    }

    /// Every run in flight; for the status page and drain.
    pub fn all(&self) -> Vec<Arc<Run>> {
        let shards = self.by_version.shards.iter();
        let locked = shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        locked.flat_map(|shard| shard.values().flatten().cloned().collect::<Vec<_>>()).collect()
    }
}

/// The objects whose head is being asked for.
pub struct Openings {
    by_key: Sharded<ObjectKey, watch::Receiver<Option<Arc<Opened>>>>,
}

/// What a viewer does about an object whose head must be asked for.
pub enum Opening {
    /// Someone asks already: wait for the answer.
    Follow(watch::Receiver<Option<Arc<Opened>>>),
    /// Ask, and tell the others.
    Lead(watch::Sender<Option<Arc<Opened>>>, watch::Receiver<Option<Arc<Opened>>>),
}

impl Openings {
    /// Nothing asked for yet.
    pub fn new() -> Openings {
        Openings { by_key: Sharded::new() }
    }

    /// Joins the question in flight for `key`, or begins one.
    pub fn join(&self, key: &ObjectKey) -> Opening {
        let mut shard = self.by_key.shard(key);
        if let Some(asked) = shard.get(key) {
            return Opening::Follow(asked.clone());
        }
        let (sender, receiver) = watch::channel(None);
        shard.insert(key.clone(), receiver.clone());
        Opening::Lead(sender, receiver)
    }

    /// The question is answered: who comes now looks at the heads again.
    pub fn close(&self, key: &ObjectKey) {
        self.by_key.shard(key).remove(key);
    }
}
