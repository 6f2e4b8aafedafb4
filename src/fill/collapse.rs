//! Many viewers, one request upstream: where fills in flight are found.
//!
//! Runs are found by version and position; an object whose head is not known yet is found by its
//! key, and its waiters are told together. Both tables are sharded and locked for a few
//! instructions.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::fill::Opened;
use crate::fill::run::{Reader, Run, Sharing};
use crate::object::{ObjectKey, VersionId};
use crate::purge::{Birth, Purges};

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
    /// In ram: it has come there since it was looked for.
    Landed,
    /// Nowhere: no run comes by, and none can be made.
    Nowhere,
}

/// What is done about bytes that no run brings.
pub enum Made {
    /// This run brings them.
    Run(Arc<Run>),
    /// They are in ram.
    Needless,
    /// They cannot be asked for.
    Impossible,
}

impl Runs {
    /// No runs yet.
    pub(crate) fn new() -> Runs {
        Runs { by_version: Sharded::new() }
    }

    /// Joins the run that comes by `position`, or adds the one `make` gives. `make` is told where
    /// the next claim begins, so that at most one run holds a piece. No run leaves meanwhile, and
    /// runs publish before they leave: what is not in ram by then will not come by itself.
    pub fn join(
        &self,
        version: VersionId,
        position: u64,
        make: impl FnOnce(Option<u64>) -> Made,
    ) -> Joined {
        let mut shard = self.by_version.shard(&version);
        let runs = shard.entry(version).or_default();
        if let Some(reader) = shared(runs).find_map(|run| run.attach(position)) {
            return Joined::Collapsed(reader);
        }
        let claims = shared(runs).filter_map(|run| run.claim());
        let next = claims.map(|(start, _)| start).filter(|start| *start > position).min();
        let not_joined = match make(next) {
            Made::Run(run) => {
                if let Some(reader) = run.attach(position) {
                    runs.push(run.clone());
                    return Joined::Started(reader, run);
                }
                Joined::Nowhere
            }
            Made::Needless => Joined::Landed,
            Made::Impossible => Joined::Nowhere,
        };
        if runs.is_empty() {
            shard.remove(&version);
        }
        not_joined
    }

    /// Follows a run of `version` from `position` on, or from where it still holds its bytes;
    /// with where that is.
    pub fn follow(&self, version: VersionId, position: u64) -> Option<(Reader, u64)> {
        let shard = self.by_version.shard(&version);
        let runs = shard.get(&version)?;
        shared(runs).find_map(|run| run.attach_from(position))
    }

    /// Stays with a run that holds or claims the byte at `position`.
    pub fn attach(&self, version: VersionId, position: u64) -> Option<Reader> {
        let shard = self.by_version.shard(&version);
        let runs = shard.get(&version)?;
        shared(runs).find_map(|run| {
            let (start, end) = run.claim()?;
            let (reader, at) =
                (start..end).contains(&position).then(|| run.attach_from(position))??;
            (at == position).then_some(reader)
        })
    }

    /// Whether a run holds or claims the byte at `position`.
    pub fn bring(&self, version: VersionId, position: u64) -> bool {
        let shard = self.by_version.shard(&version);
        let runs = shard.get(&version).map(|runs| shared(runs));
        let mut claims = runs.into_iter().flatten().filter_map(|run| run.claim());
        claims.any(|(start, end)| (start..end).contains(&position))
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

    /// Whether a run that has not ended has brought some of these bytes: it may disown them.
    pub fn have_brought(&self, version: VersionId, bytes: &Range<u64>) -> bool {
        let shard = self.by_version.shard(&version);
        let runs = shard.get(&version).map(|runs| shared(runs));
        runs.into_iter().flatten().any(|run| {
            let standing = run.standing();
            standing.bounds.start < bytes.end && bytes.start < standing.written
        })
    }

    /// Whether another run than `run` holds or claims the byte at `position`.
    pub fn is_claimed_by_another(&self, run: &Arc<Run>, position: u64) -> bool {
        let shard = self.by_version.shard(&run.version.id);
        let others = shard.get(&run.version.id).map(|runs| shared(runs));
        others
            .into_iter()
            .flatten()
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

/// The runs that any viewer may read.
fn shared(runs: &[Arc<Run>]) -> impl Iterator<Item = &Arc<Run>> {
    runs.iter().filter(|run| run.sharing == Sharing::Shared)
}

/// The objects whose head is being asked for.
pub struct Openings {
    by_key: Sharded<ObjectKey, Asked>,
}

/// A question in flight.
struct Asked {
    answer: watch::Receiver<Option<Arc<Opened>>>,
    birth: Birth,
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
    pub(crate) fn new() -> Openings {
        Openings { by_key: Sharded::new() }
    }

    /// Joins the question in flight for `key`, or begins one. What was asked before the object was
    /// purged answers nobody who comes after that: another question takes its place.
    pub fn join(&self, key: &ObjectKey, purges: &Purges) -> Opening {
        let birth = purges.birth();
        let mut shard = self.by_key.shard(key);
        if let Some(asked) = shard.get(key)
            && !purges.covers(key, &asked.birth)
        {
            return Opening::Follow(asked.answer.clone());
        }
        let (sender, receiver) = watch::channel(None);
        shard.insert(key.clone(), Asked { answer: receiver.clone(), birth });
        Opening::Lead(sender, receiver)
    }

    /// Whether a question for `key` is in flight.
    pub fn are_asked(&self, key: &ObjectKey) -> bool {
        self.by_key.shard(key).contains_key(key)
    }

    /// The question is answered: who comes now looks at the heads again.
    pub fn close(&self, key: &ObjectKey, answer: &watch::Receiver<Option<Arc<Opened>>>) {
        let mut shard = self.by_key.shard(key);
        if shard.get(key).is_some_and(|asked| asked.answer.same_channel(answer)) {
            shard.remove(key);
        }
    }
}
