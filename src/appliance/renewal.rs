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

use tokio::task::JoinError;
use tokio::time::sleep;

use super::ApplianceError;
use super::parts::{Live, Parts};
use crate::server::{Stop, Tls};

#[cfg(feature = "acme")]
mod ordered;

/// What tells that a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of what is in it, and of who may read it.
    changed: [(i64, i64); 2],
}

impl Stamp {
    /// None of a file that cannot be looked at.
    pub(super) fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            changed: [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())],
        })
    }
}

type Stamps = HashMap<PathBuf, Stamp>;

/// What is known of the files.
#[derive(Default)]
struct Watched {
    seen: Stamps,
    /// Why certificates were not shown, as it was told.
    told: Vec<(PathBuf, String)>,
}

/// One look.
fn looked(parts: &Parts, before: Watched) -> Watched {
    let mut seen = stamps(parts);
    let is_other = |(path, stamp): &(&PathBuf, &Stamp)| before.seen.get(*path) != Some(*stamp);
    let changed: Vec<_> = seen.iter().filter(is_other).map(|(path, _)| path.clone()).collect();
    if changed.is_empty() {
        return Watched { seen, told: before.told };
    }
    let refused = parts.renew_certificates(&changed);
    for (path, why) in &refused {
        if !before.told.iter().any(|told| told == &(path.clone(), why.clone())) {
            tracing::error!("certificate {why}");
        }
        // It may be good the next time without being another one.
        seen.remove(path);
    }
    Watched { seen, told: refused }
}

/// TLS with the certificates of now.
pub(super) fn tls(live: &Live) -> Result<Option<Tls>, ApplianceError> {
    let (certificates, challenges) = (live.certificates.clone(), live.challenges.clone());
    if certificates.load().is_empty() {
        return Ok(None);
    }
    let choose =
        move |name: Option<&str>| certificates.load().find(name).map(|one| one.key.clone());
    let prove = move |name: Option<&str>| challenges.certificate(name);
    Tls::new(choose, prove).map(Some).map_err(|error| ApplianceError::Tls(error.to_string()))
}

/// Renews certificates until the appliance stops. Who follows another process has none ordered of
/// an authority as long as that one might be asked for it.
pub(super) fn start(parts: &Arc<Parts>, stop: &Stop, follows: bool) {
    #[cfg(feature = "acme")]
    ordered::start(parts, stop, follows);
    #[cfg(not(feature = "acme"))]
    let _ = (stop, follows);
    let (weak, stop) = (Arc::downgrade(parts), parts.filler.stop.clone());
    // At first all are looked into: a file may have changed since it was read, and one that has
    // expired is told of.
    let mut watched = Watched::default();
    let watch = async move {
        loop {
            tokio::select! {
                () = sleep(LOOKED_AT_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let Some(parts) = weak.upgrade() else { return };
            let look = tokio::task::spawn_blocking(move || looked(&parts, watched));
            watched = tokio::select! {
                looked = look => begun_anew(looked),
                () = stop.cancelled() => return,
            };
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
}

/// What is known after a look; after one that broke off nothing is, and all is looked into again.
fn begun_anew(looked: Result<Watched, JoinError>) -> Watched {
    looked.unwrap_or_else(|error| {
        tracing::error!("a look at the files of certificates broke off: {error}");
        Watched::default()
    })
}

fn stamps(parts: &Parts) -> Stamps {
    let certificates = parts.live.certificates.load();
    let paths = certificates.iter().flat_map(|one| [&one.path, &one.key_path]);
    paths.filter_map(|path| Some((path.clone(), Stamp::of(path)?))).collect()
}

/// Who renews a certificate does so days before; a look at thousands of files takes milliseconds.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn a_look_that_panics_is_not_the_last() {
        let look = spawn_blocking(|| -> Watched { panic!("as a mistake would") });
        assert!(begun_anew(look.await).seen.is_empty());
    }
}
