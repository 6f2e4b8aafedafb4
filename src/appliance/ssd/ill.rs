//! Volumes that have failed: remembered as long as they are in use, and ill again when they are
//! opened the next time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cache::ssd::Ssd;
use crate::store::Volume;
use crate::store::remembered::{Illness, Remembered};

/// What was remembered when the process started. Damage to the file is told, once, here.
pub(super) fn remembered(file: &Remembered) -> Arc<BTreeMap<u128, Illness>> {
    let (ill, forgotten) = file.all();
    if let Some(forgotten) = forgotten {
        tracing::warn!("{forgotten}");
    }
    Arc::new(ill)
}

/// A volume that was just opened is no better than it is remembered.
pub(super) fn bring_back(name: &str, volume: &Volume, ill: &BTreeMap<u128, Illness>) {
    let Some(illness) = ill.get(&volume.id().0) else { return };
    illness.bring_back(volume);
    tracing::warn!(
        "volume {name} failed before and is {}: {}; `tidegate volume forgive` takes it for well",
        illness.state.word(),
        illness.reason,
    );
}

/// Remembers what falls ill, until it is told to end.
pub(in crate::appliance) struct Watch {
    stop: CancellationToken,
    watching: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    pub(super) fn start(file: Remembered, ssd: Arc<Ssd>, runtime: &Handle) -> Watch {
        let stop = CancellationToken::new();
        let volumes = move || -> Vec<Arc<Volume>> {
            ssd.volumes().all().iter().filter_map(|place| place.opened().cloned()).collect()
        };
        let watching = runtime.spawn(file.watch(volumes, stop.clone()));
        Watch { stop, watching: Mutex::new(Some(watching)) }
    }

    /// Looks once more; then volumes may be closed.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        let watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watching) = watching {
            let _ = watching.await;
        }
    }
}
