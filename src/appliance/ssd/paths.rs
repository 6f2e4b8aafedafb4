//! Whether each volume's path still names what is open: a file that was deleted or replaced goes on
//! being served, and is not what the next start finds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::ssd::TierVolume;
use crate::config::paths::Identity;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A volume that is open, and where it was found.
pub(super) struct Named {
    tier_volume: Arc<TierVolume>,
    path: PathBuf,
    opened: Identity,
}

impl Named {
    /// What was opened at `path` a moment ago.
    pub(super) fn now(tier_volume: Arc<TierVolume>, path: PathBuf) -> Option<Named> {
        let opened = Identity::of(&fs::metadata(&path).ok()?);
        Some(Named { tier_volume, path, opened })
    }

    /// Where it was found.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks; a change is a line in the log, and shown as long as it is so.
    fn look(&self) {
        if self.tier_volume.left_out().is_some() {
            return;
        }
        let there = match fs::metadata(&self.path) {
            Ok(found) => Some(Identity::of(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Nobody can tell.
            Err(_) => return,
        };
        let notice = self.notice(there);
        if notice == self.tier_volume.notice() {
            return;
        }
        let (name, path) = (&self.tier_volume.name, self.path.display());
        match &notice {
            Some(notice) => tracing::warn!("volume {name}: {notice}"),
            None => tracing::info!("volume {name}: {path} is again what is in use"),
        }
        self.tier_volume.set_notice(notice);
    }

    fn notice(&self, there: Option<Identity>) -> Option<String> {
        let path = self.path.display();
        match (there, self.opened) {
            (Some(there), opened) if there == opened => None,
            (Some(_), _) => Some(format!(
                "{path} was replaced: what was there at the start stays in use until the appliance \
                 stops, and the next start uses what is there now"
            )),
            (None, Identity::Device(_)) => Some(format!(
                "{path} is gone: what was opened stays in use as long as it answers, and the next \
                 start does without it"
            )),
            (None, Identity::File(..)) => Some(format!(
                "{path} was deleted or moved: it stays in use until the appliance stops, and the \
                 next start makes a new, empty volume there if `size` is set"
            )),
        }
    }
}

/// Those that are looked at.
#[derive(Clone)]
pub(super) struct All(Arc<Mutex<Vec<Arc<Named>>>>);

impl All {
    pub(super) fn new(named: Vec<Named>) -> All {
        All(Arc::new(Mutex::new(named.into_iter().map(Arc::new).collect())))
    }

    pub(super) fn add(&self, named: Named) {
        self.now().push(Arc::new(named));
    }

    fn now(&self) -> MutexGuard<'_, Vec<Arc<Named>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at all of them now and then, until `stop`. Dropping it midway is safe.
pub(super) async fn watch(volumes: All, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        let looked = volumes.now().clone();
        // A file system that hangs holds up nothing but this look.
        let looking = spawn_blocking(move || looked.iter().for_each(|one| one.look()));
        let _ = stop.run_until_cancelled(looking).await;
    }
}
