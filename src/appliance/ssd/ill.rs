//! Volumes that have failed: remembered as long as they are in use, and ill again when they are
//! opened the next time. One that has failed, or was away while others went on, knows heads that
//! were replaced since: none of them counts before the origin has confirmed it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::paths::{self, Named};
use crate::cache::ssd::Ssd;
use crate::store::remembered::{Illness, Remembered};
use crate::store::{Volume, VolumeId};

/// What was remembered when the process started. Damage to the file is told, once, here.
pub(super) fn remembered(file: &Remembered) -> Arc<BTreeMap<u128, Illness>> {
    let (ill, forgotten) = file.all_at_start();
    if let Some(forgotten) = forgotten {
        tracing::warn!("{forgotten}; they are used again");
    }
    Arc::new(ill)
}

/// A volume that was just opened, and was told of every change before if it is `in_use`, as far as
/// that is known: it, if it will know of every change from now on.
pub(super) async fn catch_up(
    name: &str,
    volume: &Volume,
    in_use: Option<&BTreeSet<u128>>,
) -> Option<VolumeId> {
    let away = away(volume.id(), in_use);
    if let Some(why) = away.filter(|_| volume.figures().heads > 0) {
        tracing::warn!("volume {name}: {why}: origins are asked once about what it knows");
    }
    let was_away = away.is_some();
    // What must be doubted is doubted by the next process too, or that one must find it out; what
    // cannot be written is doubted here at least.
    let is_noted = !was_away || volume.doubt_heads().await;
    let may_be_believed = volume.is_writable() && is_noted;
    may_be_believed.then(|| volume.id())
}

/// Why a volume may have missed a change, if it may have.
fn away(volume: VolumeId, in_use: Option<&BTreeSet<u128>>) -> Option<&'static str> {
    match in_use {
        None => Some("it is not known whether it was away, the file of `ssd.state` does not tell"),
        Some(in_use) if in_use.contains(&volume.0) => None,
        Some(_) => Some("it was away, or had failed"),
    }
}

/// Notes which volumes are told of every change, before anything changes.
pub(super) fn begin(file: &Remembered, volumes: BTreeSet<u128>, paths: BTreeSet<PathBuf>) {
    if (file.in_use(), file.paths()) != (volumes.clone(), paths.clone())
        && let Err(error) = file.begin(volumes, paths)
    {
        tracing::error!(
            "{} cannot be written: a volume that is away now and comes back would be believed \
             although what it knows was replaced: {error}",
            file.file().display()
        );
    }
}

/// Notes that a volume that came online later is told of every change.
pub(super) async fn keep_up(file: Remembered, volume: VolumeId) {
    let kept = spawn_blocking(move || file.keep_up(volume.0)).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!("what volume {volume} knows will be asked about: {error}");
    }
}

/// Notes that a volume is at this path too: the next start makes none there while its file system
/// is not mounted.
pub(super) async fn know_path(file: &Remembered, path: PathBuf) {
    let (known, file) = (path.clone(), file.clone());
    let noted = spawn_blocking(move || file.know_path(known)).await;
    if let Ok(Err(error)) = noted {
        tracing::warn!("that there is a volume at {} is not remembered: {error}", path.display());
    }
}

/// Remembers what falls ill, and notices which paths change, until it is told to end.
pub(in crate::appliance) struct Watch {
    watching: Mutex<Watching>,
    named: paths::All,
}

struct Watching {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(
        file: Remembered,
        ssd: Arc<Ssd>,
        named: Vec<Named>,
        runtime: &Handle,
    ) -> Watch {
        let named = paths::All::new(named);
        Watch { watching: Mutex::new(watching(file, ssd, &named, runtime)), named }
    }

    /// Goes on when it has ended.
    pub(super) fn start_again(&self, file: Remembered, ssd: Arc<Ssd>, runtime: &Handle) {
        *self.watching() = watching(file, ssd, &self.named, runtime);
    }

    /// Looks at this one too.
    pub(super) fn add(&self, named: Named) {
        self.named.add(named);
    }

    /// Looks once more; then volumes may be closed.
    pub(super) async fn end(&self) {
        let tasks = {
            let mut watching = self.watching();
            watching.stop.cancel();
            std::mem::take(&mut watching.tasks)
        };
        for one in tasks {
            let _ = one.await;
        }
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watching(file: Remembered, ssd: Arc<Ssd>, named: &paths::All, runtime: &Handle) -> Watching {
    let stop = CancellationToken::new();
    // One that another process writes to is well.
    let volumes = move || -> Vec<Arc<Volume>> {
        let all = ssd.volumes().all();
        let opened = all.iter().filter_map(|tier_volume| tier_volume.opened());
        opened.filter(|volume| !volume.is_handed_over()).collect()
    };
    let tasks = vec![
        runtime.spawn(file.watch(volumes, stop.clone())),
        runtime.spawn(paths::watch(named.clone(), stop.clone())),
    ];
    Watching { stop, tasks }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::object::BlockSize;
    use crate::store::device::{Disk, Faults, Share, Simulated, Simulation, Urgency};
    use crate::store::volume::{HeadWrite, Trust, VolumeSettings};
    use crate::store::{Geometry, ObjectHash, SiteHash};

    #[tokio::test(start_paused = true)]
    async fn what_a_volume_knows_that_was_away_is_doubted_although_it_cannot_be_written() {
        let simulation = Simulation { size_bytes: 32 << 20, seed: 1, faults: Faults::default() };
        let device = Arc::new(Simulated::new(&simulation));
        let geometry = Geometry::new(32 << 20, 2 << 20, BlockSize::MAX, 1_000).unwrap();
        Volume::format(&Disk::new(device.clone()), geometry, VolumeId(1)).await.unwrap();
        let open = async |device| {
            Volume::open(Disk::new(device), VolumeSettings::default()).await.unwrap()
        };
        let (volume, object) = (open(device.clone()).await, ObjectHash(1));
        let (site, payload, guard) = (SiteHash(1), "a head".into(), Box::new(()));
        let head = HeadWrite { object, site, birth: 0, payload, body: None, guard };
        volume.append_head(head).unwrap();
        while volume.is_head_under_way(object) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What a kill has left undone cannot be done.
        let faults = Faults { fail_writes: Share::ALL, ..Faults::default() };
        let again = open(Arc::new(Simulated::from_image(device.image(), 1, faults))).await;
        assert!(!again.is_writable());
        let trust =
            async || again.read_head(object, Urgency::Viewer).await.unwrap().map(|head| head.trust);
        for (in_use, expected) in
            [(BTreeSet::from([1]), Trust::Newest), (BTreeSet::new(), Trust::MustRevalidate)]
        {
            assert_eq!(catch_up("v", &again, Some(&in_use)).await, None);
            assert_eq!(trust().await, Some(expected));
        }
    }

    #[test]
    fn a_volume_was_away_only_if_that_is_known() {
        let in_use = BTreeSet::from([7]);
        assert_eq!(away(VolumeId(7), Some(&in_use)), None);
        assert_eq!(away(VolumeId(8), Some(&in_use)), Some("it was away, or had failed"));
        let unknown = away(VolumeId(7), None).unwrap();
        assert!(unknown.starts_with("it is not known whether it was away"), "{unknown}");
    }
}
