//! The volumes of the ssd tier: opened at the start, closed at the end.
//!
//! What an operator must mend is refused before a port is bound: a file that is no volume, one that
//! is in use, no room for a new one. A device that is ill or gone makes a tier without it. A volume
//! that takes long to come online does so while viewers are served.

mod device;
mod ill;
mod sample;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use self::device::{NoDevice, device_of, geometry};
pub(super) use self::ill::Watch;
pub(super) use self::sample::sample;
use super::ApplianceError;
use crate::cache::admission::{Admission, AdmissionSettings, AdmissionSizes, Mode};
use crate::cache::shadow::Shadows;
use crate::cache::ssd::{Ssd, SsdParts, TierVolume, Volumes};
use crate::config::{self, Config, SsdVolume};
use crate::limits::INDEX_ENTRY_BYTES;
use crate::object::BlockSize;
use crate::store::Volume;
use crate::store::device::Disk;
use crate::store::format::VolumeId;
use crate::store::remembered::Remembered;
use crate::store::volume::{VolumeError, VolumeSettings};

/// Opens every volume, makes those that are not there, and brings them online.
///
/// # Errors
/// The first volume that an operator must look at.
pub(super) fn start(
    config: &config::Ssd,
    tier: SsdParts,
) -> Result<(Arc<Ssd>, Watch), ApplianceError> {
    let file = Remembered::at(&config.state);
    let ill = ill::remembered(&file);
    let in_use = Arc::new(file.in_use());
    let runtime = tier.runtime.clone();
    let block_size = tier.block_size;
    let places = config.volumes.iter().map(|volume| place(config, volume, &tier)).collect();
    let ssd = Ssd::new(tier, Volumes::new(places));
    let index_left = Arc::new(AtomicU64::new(config.index_bytes));
    let mut opening = Vec::new();
    for (at, volume) in config.volumes.iter().enumerate() {
        let refused = |reason: String| ApplianceError::Volume { name: volume.name.clone(), reason };
        let geometry = geometry(config, volume, block_size).map_err(refused)?;
        let _inside = runtime.enter();
        let place = ssd.volumes().all()[at].clone();
        let device = match device_of(config, volume, geometry, &runtime) {
            Ok(device) => device,
            Err(NoDevice::Refused(why)) => return Err(refused(why)),
            Err(NoDevice::Gone(why)) => {
                stays_offline(&place, &why);
                continue;
            }
        };
        let settings = settings(config, volume, block_size);
        let (opened, ill) = (place.clone(), ill.clone());
        let (in_use, index_left) = (in_use.clone(), index_left.clone());
        let online = runtime.spawn(async move {
            let volume =
                Volume::open(Disk::new(device), settings).await.map_err(Unusable::Volume)?;
            let index_bytes = volume.geometry().index_entries_max() * INDEX_ENTRY_BYTES;
            take_index(&index_left, index_bytes)?;
            ill::bring_back(&volume, &ill);
            let told = ill::catch_up(&opened.name, &volume, &in_use).await;
            opened.come_online(volume);
            Ok::<_, Unusable>(told)
        });
        opening.push(Opening { place, online, file: file.clone() });
    }
    let until = Instant::now() + ONLINE_WITHIN;
    let mut told = BTreeSet::new();
    for one in opening {
        told.extend(runtime.block_on(one.wait(until))?.map(|id| id.0));
    }
    ill::begin(&file, told);
    runtime.spawn(ssd.clone().tend());
    let watch = Watch::start(file, ssd.clone(), &runtime);
    Ok((ssd, watch))
}

/// A volume on its way.
struct Opening {
    place: Arc<TierVolume>,
    online: JoinHandle<Result<Option<VolumeId>, Unusable>>,
    file: Remembered,
}

impl Opening {
    /// Waits for a while; then it comes online by itself. The volume, if it is told of every change
    /// from now on.
    async fn wait(mut self, until: Instant) -> Result<Option<VolumeId>, ApplianceError> {
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, &mut self.online).await {
            // What is on it is the operator's to look at; a device that fails is not.
            Ok(Ok(Err(
                error @ (Unusable::Volume(VolumeError::Format(_)) | Unusable::Index { .. }),
            ))) => {
                let (name, reason) = (self.place.name.clone(), error.to_string());
                Err(ApplianceError::Volume { name, reason })
            }
            Ok(ended) => Ok(self.ended(ended)),
            Err(_) => {
                tokio::spawn(async move {
                    let ended = (&mut self.online).await;
                    if let Some(told) = self.ended(ended) {
                        ill::keep_up(self.file, told).await;
                    }
                });
                Ok(None)
            }
        }
    }

    fn ended(
        &self,
        ended: Result<Result<Option<VolumeId>, Unusable>, JoinError>,
    ) -> Option<VolumeId> {
        let why = match ended {
            Ok(Ok(told)) => return told,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        stays_offline(&self.place, &why);
        None
    }
}

fn stays_offline(place: &TierVolume, why: &str) {
    tracing::error!("volume {} stays offline: {why}", place.name);
    place.stay_offline();
}

/// Why a volume whose device is there is not used.
enum Unusable {
    Volume(VolumeError),
    /// Its index is as large as it was made; what is left of the setting is less.
    Index {
        needs_bytes: u64,
        left_bytes: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Volume(source) => source.fmt(f),
            Unusable::Index { needs_bytes, left_bytes } => write!(
                f,
                "it was made with an index of {needs_bytes} bytes, and the other volumes leave \
                 {left_bytes} of `ssd.index`; make that {} bytes larger",
                needs_bytes - left_bytes
            ),
        }
    }
}

/// Takes a volume's index out of what the setting allows all of them together.
fn take_index(left: &AtomicU64, needs_bytes: u64) -> Result<(), Unusable> {
    let take = |left: u64| left.checked_sub(needs_bytes);
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    taken.map(drop).map_err(|left_bytes| Unusable::Index { needs_bytes, left_bytes })
}

/// Writes what is known of every volume, so that the next start is a warm one.
pub(super) async fn close(ssd: &Ssd, watch: &Watch) {
    watch.end().await;
    for place in ssd.volumes().all() {
        let Some(volume) = place.opened() else { continue };
        if timeout(CLOSED_WITHIN, volume.close()).await.is_err() {
            tracing::warn!("volume {} did not close in time: it starts from its log", place.name);
        }
    }
}

/// What the tier takes in memory beside its index: what admission has seen, twice while it is
/// saved, and the shadow caches.
pub(super) fn beside_index_bytes(config: &Config) -> u64 {
    let volumes = &config.ssd.volumes;
    let seen = |volume| 2 * Admission::bytes_for(&admission_sizes(volume, config.block_size));
    let blocks = volumes.iter().map(|v| v.size_bytes).sum::<u64>() / config.block_size.bytes();
    let shadows = if volumes.is_empty() { 0 } else { Shadows::bytes_for(blocks) };
    volumes.iter().map(seen).sum::<u64>() + shadows
}

fn admission_sizes(volume: &SsdVolume, block_size: BlockSize) -> AdmissionSizes {
    let volume_bytes = volume.size_bytes;
    AdmissionSizes { volume_bytes, blocks_max: volume_bytes / block_size.bytes() }
}

fn place(config: &config::Ssd, volume: &SsdVolume, tier: &SsdParts) -> TierVolume {
    let sizes = admission_sizes(volume, tier.block_size);
    let settings = AdmissionSettings {
        mode: match config.admission {
            config::Admission::Budget => Mode::Budget,
            config::Admission::All => Mode::All,
            config::Admission::PlannedOnly => Mode::PlannedOnly,
        },
        write_bytes_per_day: Some(volume.writes_per_day_bytes),
        ..AdmissionSettings::default()
    };
    let admission = Admission::new(sizes, settings, Instant::now());
    for site in tier.sites.iter() {
        admission.set_site_share(site.id, f64::from(site.ssd_percent) / 100.0);
    }
    TierVolume::new(volume.name.clone(), volume.weight, admission)
}

fn settings(config: &config::Ssd, volume: &SsdVolume, block_size: BlockSize) -> VolumeSettings {
    let (name, block) = (volume.name.clone(), Some(block_size));
    let read_deadline = config.read_deadline;
    VolumeSettings { name, block, read_deadline, ..VolumeSettings::default() }
}

/// How long a start waits for its volumes.
const ONLINE_WITHIN: Duration = Duration::from_secs(2);
/// How long an end waits for each.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
