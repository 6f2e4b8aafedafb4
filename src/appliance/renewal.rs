//! Watches the files of certificates: what is written there is shown without a reload.
//!
//! Looked at from time to time: a file that is renamed into place, a link that points elsewhere and
//! a mount that comes late are all the same to a look.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::parts::Parts;

/// What tells that a file is another one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// None of a file that cannot be looked at.
    fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// Renews certificates until the appliance stops.
pub(super) fn start(parts: &Arc<Parts>) {
    let (weak, stop) = (Arc::downgrade(parts), parts.filler.stop.clone());
    // At first all are looked into: a file may have changed since it was read, and one that has
    // expired is told of.
    let mut seen: Stamps = stamps(parts).into_keys().map(|path| (path, None)).collect();
    let watch = async move {
        loop {
            tokio::select! {
                () = sleep(LOOKED_AT_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let Some(parts) = weak.upgrade() else { return };
            let look = tokio::task::spawn_blocking(move || {
                let now = stamps(&parts);
                let changed = changed(&seen, &now);
                if !changed.is_empty() {
                    parts.renew_certificates(&changed);
                }
                now
            });
            seen = look.await.expect("a look does not panic");
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
}

fn stamps(parts: &Parts) -> Stamps {
    let certificates = parts.live.certificates.load();
    let paths = certificates.iter().flat_map(|one| [&one.path, &one.key_path]);
    paths.map(|path| (path.clone(), Stamp::of(path))).collect()
}

/// Those that were there before, and are others; of a file that is missing nothing is to be read.
fn changed(before: &Stamps, now: &Stamps) -> Vec<PathBuf> {
    let is_other = |(path, stamp): &(&PathBuf, &Option<Stamp>)| {
        stamp.is_some() && before.get(*path).is_some_and(|known| known != *stamp)
    };
    now.iter().filter(is_other).map(|(path, _)| path.clone()).collect()
}

/// Who renews a certificate does so days before; a look at thousands of files takes milliseconds.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
