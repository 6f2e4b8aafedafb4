//! The snapshot that a box goes by: the last one that a control plane has signed, kept on disk
//! before it counts, swapped whole, and never given back for an older one.
//!
//! Who reads it waits for nobody. One that is refused changes nothing and is told of once.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::folder;
use crate::control::registry::fleet::Fleet;
use crate::control::snapshot::{Number, PublicKeys, Signed, Snapshot, SnapshotError};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::moment::unix_seconds;

/// The snapshot of now; `None` before the first.
pub(in crate::appliance) type Current = ArcSwapOption<Snapshot>;

/// Why a snapshot is not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What is wrong with it.
    Snapshot(SnapshotError),
    /// It has no end.
    TooLong,
    /// The control plane says that it has no later one than is held, and an older one.
    Behind(String),
    /// It cannot be kept.
    NotKept(std::io::Error),
}

impl Refusal {
    /// In the order of [`REASONS`].
    fn reason(&self) -> usize {
        match self {
            Refusal::TooLong | Refusal::Snapshot(SnapshotError::TooLarge { .. }) => 0,
            Refusal::Snapshot(SnapshotError::Unverified) => 2,
            Refusal::Snapshot(SnapshotError::Content { .. }) => 3,
            Refusal::Snapshot(SnapshotError::GoesBack { .. }) | Refusal::Behind(_) => 4,
            Refusal::Snapshot(_) => 1,
            Refusal::NotKept(_) => 5,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Snapshot(error) => error.fmt(f),
            Refusal::TooLong => {
                write!(f, "the snapshot has more than the {SNAPSHOT_BYTES_MAX} bytes it may have")
            }
            Refusal::Behind(why) => f.write_str(why),
            Refusal::NotKept(error) => write!(f, "the snapshot cannot be kept: {error}"),
        }
    }
}

/// Why snapshots are refused, as metrics tell it.
const REASONS: [&str; 6] =
    ["too_large", "malformed", "unverified", "not_understood", "goes_back", "not_kept"];

/// What a box holds.
pub(in crate::appliance) struct Held {
    path: PathBuf,
    current: Arc<Current>,
    /// Whom viewers are steered to here, where no control plane beside it says so.
    steered_to: Option<Arc<ArcSwap<Fleet>>>,
    /// What has to be followed; none of another fleet.
    number: Mutex<Number>,
    /// By what the one in the folder was looked at.
    believed: Mutex<Option<PublicKeys>>,
    /// When a control plane last said that it is the latest, in seconds since 1970.
    confirmed_at: AtomicU64,
    /// When that was last written down.
    noted_at: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    /// Why the last one was, if none was taken since.
    last_refusal: Mutex<Option<String>>,
}

impl Held {
    /// What was kept in the folder; nothing is believed of it before [`Held::believe`].
    pub(super) fn new(
        folder: &Path,
        current: Arc<Current>,
        steered_to: Option<Arc<ArcSwap<Fleet>>>,
    ) -> Held {
        Held {
            path: folder.join("snapshot"),
            current,
            steered_to,
            number: Mutex::default(),
            believed: Mutex::default(),
            confirmed_at: AtomicU64::new(0),
            noted_at: AtomicU64::new(0),
            refused: Default::default(),
            last_refusal: Mutex::default(),
        }
    }

    /// Takes what was kept, if one of `keys` has signed it. Where it was signed by others, what is
    /// held stays in use, and any other one follows it. Once for the same keys. Blocks.
    pub(super) fn believe(&self, keys: &PublicKeys) {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if believed.replace(keys.clone()).as_ref() == Some(keys) {
            return;
        }
        let opened = folder::read(&self.path, SNAPSHOT_BYTES_MAX)
            .map_err(|error| {
                (error.kind() != std::io::ErrorKind::NotFound).then(|| error.to_string())
            })
            .and_then(|bytes| Signed::open(&bytes, keys).map_err(|error| Some(error.to_string())));
        match opened {
            Ok(snapshot) => {
                let kept = fs::metadata(&self.path).and_then(|found| found.modified());
                let kept_at = kept.map(unix_seconds).unwrap_or_default();
                self.set_number(snapshot.number);
                self.confirmed_at.fetch_max(kept_at, Ordering::Relaxed);
                tracing::info!("goes by snapshot {} until there is a later one", snapshot.number);
                self.swap(snapshot);
            }
            Err(why) => {
                self.set_number(Number::default());
                if let Some(why) = why {
                    tracing::warn!("{} is not gone by: {why}", self.path.display());
                }
            }
        }
    }

    fn swap(&self, snapshot: Snapshot) {
        // A fleet of nobody is one that is begun anew: viewers go where they went.
        if let Some(steered_to) = &self.steered_to
            && !snapshot.fleet.members().is_empty()
        {
            steered_to.store(Arc::new(snapshot.fleet.clone()));
        }
        self.current.store(Some(Arc::new(snapshot)));
    }

    /// The one that has to be followed.
    pub(super) fn number(&self) -> Number {
        *self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_number(&self, number: Number) {
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = number;
    }

    /// Takes one that was sent, if it may be. Safe to drop: it is kept whole or not at all.
    pub(super) async fn take(&self, bytes: Bytes, keys: &PublicKeys) -> Result<Number, Refusal> {
        let (path, keys, held) = (self.path.clone(), keys.clone(), self.number());
        let kept = spawn_blocking(move || {
            let snapshot = Signed::open(&bytes, &keys).map_err(Refusal::Snapshot)?;
            snapshot.follows(held).map_err(Refusal::Snapshot)?;
            folder::replace(&path, &bytes).map_err(Refusal::NotKept)?;
            Ok(snapshot)
        });
        let lost = |error| Refusal::NotKept(std::io::Error::other(error));
        let snapshot: Snapshot = kept.await.map_err(lost)??;
        let number = snapshot.number;
        self.set_number(number);
        self.swap(snapshot);
        let now = unix_seconds(SystemTime::now());
        self.confirmed_at.store(now, Ordering::Relaxed);
        self.noted_at.store(now, Ordering::Relaxed);
        *self.refusal() = None;
        Ok(number)
    }

    /// A control plane says that the one of this number is the latest.
    pub(super) fn confirm(&self, number: Number) {
        if number != self.number() || number == Number::default() {
            return;
        }
        let now = unix_seconds(SystemTime::now());
        self.confirmed_at.store(now, Ordering::Relaxed);
        let noted_at = self.noted_at.load(Ordering::Relaxed);
        if now.saturating_sub(noted_at) < NOTED_EVERY.as_secs() {
            return;
        }
        self.noted_at.store(now, Ordering::Relaxed);
        let path = self.path.clone();
        // Whoever starts without a control plane knows by it how old what he goes by is.
        drop(spawn_blocking(move || {
            let noted = File::options().write(true).open(path);
            noted.and_then(|file| file.set_modified(SystemTime::now()))
        }));
    }

    /// Counts one that was refused, and tells of it unless that was told last.
    pub(super) fn refuse(&self, refusal: &Refusal, control: &str) {
        self.refused[refusal.reason()].fetch_add(1, Ordering::Relaxed);
        let why = format!("{control}: {refusal}");
        let mut last = self.refusal();
        if last.as_deref() != Some(&why) {
            tracing::error!("a snapshot is refused, the one of before stays: {why}");
        }
        *last = Some(why);
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were refused, by why.
    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        let count =
            |(word, count): (&&'static str, &AtomicU64)| (*word, count.load(Ordering::Relaxed));
        REASONS.iter().zip(&self.refused).map(count).collect()
    }

    /// Why the last one was refused, if none was taken since.
    pub(super) fn last_refusal(&self) -> Option<String> {
        self.refusal().clone()
    }

    /// The snapshot of now.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// For how long nobody has said that it is the latest; `None`: there is none.
    pub(super) fn age(&self, now: SystemTime) -> Option<Duration> {
        self.current()?;
        let since = self.confirmed_at.load(Ordering::Relaxed);
        Some(Duration::from_secs(unix_seconds(now).saturating_sub(since)))
    }
}

const NOTED_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::control::registry::fleet::Fleet;
    use crate::control::snapshot::SigningKey;

    fn snapshot(epoch: u64, counter: u64) -> Snapshot {
        Snapshot {
            number: Number { epoch, counter },
            made_at: 1,
            fleet: Fleet::default(),
            keys: BTreeMap::from([("film".to_owned(), format!("{epoch}.{counter}"))]),
            revoked: BTreeSet::new(),
        }
    }

    fn held(folder: &Path, keys: &PublicKeys) -> Held {
        let held = Held::new(folder, Arc::default(), None);
        held.believe(keys);
        held
    }

    #[tokio::test]
    async fn what_is_taken_is_kept_and_what_is_older_or_of_somebody_else_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ((key, _), (other, _)) = (SigningKey::generate(), SigningKey::generate());
        let keys = PublicKeys::of(&[key.public()]).unwrap();
        let bytes = |one: Snapshot| Bytes::from(one.sign(&key).unwrap());
        let held = held(folder.path(), &keys);
        assert_eq!((held.number(), held.age(SystemTime::now())), (Number::default(), None));
        held.take(bytes(snapshot(1, 7)), &keys).await.unwrap();

        let mut torn = bytes(snapshot(1, 8)).to_vec();
        torn.truncate(torn.len() - 1);
        let forged = snapshot(1, 8).sign(&other).unwrap();
        for (sent, reason) in [
            (Bytes::from_static(b"<html>"), "malformed"),
            (torn.into(), "unverified"),
            (forged.into(), "unverified"),
            (bytes(snapshot(1, 7)), "goes_back"),
            (bytes(snapshot(0, 9)), "goes_back"),
            (vec![b' '; SNAPSHOT_BYTES_MAX + 1].into(), "too_large"),
        ] {
            let before = held.refused();
            let refusal = held.take(sent, &keys).await.unwrap_err();
            held.refuse(&refusal, "https://c");
            let after = held.refused().into_iter().zip(before).filter(|(now, was)| now != was);
            assert_eq!(after.map(|(now, _)| now.0).collect::<Vec<_>>(), [reason]);
            assert_eq!(held.current().unwrap().number, Number { epoch: 1, counter: 7 });
        }
        assert!(held.last_refusal().is_some());
        held.take(bytes(snapshot(2, 1)), &keys).await.unwrap();
        assert_eq!(held.last_refusal(), None);

        // Whoever starts goes by it, and knows how old it is.
        let then = SystemTime::now() - Duration::from_secs(3_600);
        let file = File::options().write(true).open(folder.path().join("snapshot")).unwrap();
        file.set_modified(then).unwrap();
        let again = super::tests::held(folder.path(), &keys);
        assert_eq!(again.current().unwrap().keys["film"], "2.1");
        assert!(again.age(SystemTime::now()).unwrap() >= Duration::from_secs(3_600));
        again.confirm(Number { epoch: 2, counter: 1 });
        assert!(again.age(SystemTime::now()).unwrap() < Duration::from_secs(60));
        // Of a fleet that has other keys any one follows.
        let others = PublicKeys::of(&[other.public()]).unwrap();
        again.believe(&others);
        assert_eq!((again.number(), again.current().is_some()), (Number::default(), true));
        again.take(snapshot(1, 1).sign(&other).unwrap().into(), &others).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_kept_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (key, _) = SigningKey::generate();
        let keys = PublicKeys::of(&[key.public()]).unwrap();
        let file = folder.path().join("a-file");
        fs::write(&file, "").unwrap();
        let held = Held::new(&file, Arc::default(), None);
        let refusal = held.take(snapshot(1, 1).sign(&key).unwrap().into(), &keys).await;
        assert!(matches!(refusal, Err(Refusal::NotKept(_))), "{refusal:?}");
        assert!(held.current().is_none());
    }
}
