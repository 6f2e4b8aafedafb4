//! The volumes of the ssd tier: opened at the start, closed at the end.
//!
//! What an operator must mend is refused before a port is bound: a file that is no volume, one that
//! is in use, no room for a new one. A device that is merely ill makes a tier without it. A volume
//! that takes long to come online does so while viewers are served.

mod ill;
mod sample;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

pub(super) use self::ill::Watch;
pub(super) use self::sample::sample;
use super::ApplianceError;
use crate::cache::admission::{Admission, AdmissionSettings, AdmissionSizes, Mode};
use crate::cache::ssd::{Place, Ssd, SsdParts, Volumes};
use crate::config::{self, EngineChoice, SsdVolume, VolumeKind};
use crate::limits::INDEX_ENTRY_BYTES;
use crate::object::BlockSize;
use crate::store::Volume;
use crate::store::device::{self, Device, Disk, Simulated, Simulation};
use crate::store::format::{Geometry, VolumeId};
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
    let mut opening = Vec::new();
    for (at, volume) in config.volumes.iter().enumerate() {
        let refused = |reason: String| ApplianceError::Volume { name: volume.name.clone(), reason };
        let geometry = geometry(config, volume, block_size).map_err(refused)?;
        let _inside = runtime.enter();
        let device = device_of(config, volume, geometry, &runtime).map_err(refused)?;
        let settings = settings(config, block_size);
        let place = ssd.volumes().all()[at].clone();
        let (opened, ill) = (place.clone(), ill.clone());
        let in_use = in_use.clone();
        let online = runtime.spawn(async move {
            let volume = Volume::open(Disk::new(device), settings).await?;
            ill::bring_back(&opened.name, &volume, &ill);
            let told = ill::catch_up(&opened.name, &volume, &in_use).await;
            opened.come_online(volume);
            Ok(told)
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
    place: Arc<Place>,
    online: JoinHandle<Result<Option<VolumeId>, VolumeError>>,
    file: Remembered,
}

impl Opening {
    /// Waits for a while; then it comes online by itself. The volume, if it is told of every change
    /// from now on.
    async fn wait(mut self, until: Instant) -> Result<Option<VolumeId>, ApplianceError> {
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, &mut self.online).await {
            // What is on it is the operator's to look at; a device that fails is not.
            Ok(Ok(Err(error @ VolumeError::Format(_)))) => {
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
        ended: Result<Result<Option<VolumeId>, VolumeError>, JoinError>,
    ) -> Option<VolumeId> {
        let name = &self.place.name;
        let why = match ended {
            Ok(Ok(told)) => {
                tracing::info!("volume {name} is online");
                return told;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        tracing::error!("volume {name} stays offline: {why}");
        self.place.stay_offline();
        None
    }
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

fn place(config: &config::Ssd, volume: &SsdVolume, tier: &SsdParts) -> Place {
    let sizes = AdmissionSizes {
        volume_bytes: volume.size_bytes,
        blocks_max: volume.size_bytes / tier.block_size.bytes(),
    };
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
    Place::new(volume.name.clone(), volume.weight, admission)
}

fn settings(config: &config::Ssd, block_size: BlockSize) -> VolumeSettings {
    let (block, read_deadline) = (Some(block_size), config.read_deadline);
    VolumeSettings { block, read_deadline, ..VolumeSettings::default() }
}

/// What a new volume looks like.
fn geometry(
    config: &config::Ssd,
    volume: &SsdVolume,
    block_size: BlockSize,
) -> Result<Geometry, String> {
    let total: u64 = config.volumes.iter().map(|volume| volume.size_bytes).sum();
    let share = u128::from(config.index_bytes) * u128::from(volume.size_bytes) / u128::from(total);
    let entries = share as u64 / INDEX_ENTRY_BYTES;
    Geometry::for_new(volume.size_bytes, block_size, entries).map_err(|e| e.to_string())
}

/// The device of a volume; one that is not there is made, and made a volume.
fn device_of(
    config: &config::Ssd,
    volume: &SsdVolume,
    geometry: Geometry,
    runtime: &Handle,
) -> Result<Arc<dyn Device>, String> {
    if let Some(simulate) = &volume.simulate {
        let simulation = said(volume.size_bytes, simulate)?;
        let device: Arc<dyn Device> = Arc::new(Simulated::new(&simulation));
        format(runtime, device.clone(), geometry)?;
        return Ok(device);
    }
    let options = device::Options {
        engine: match config.engine {
            EngineChoice::Auto => device::EngineChoice::Auto,
            EngineChoice::Uring => device::EngineChoice::Uring,
            EngineChoice::Threads => device::EngineChoice::Threads,
        },
        access: device::Access::ReadWrite,
    };
    if volume.kind == VolumeKind::NewFile && !volume.path.exists() {
        make(&volume.path, geometry, &options, runtime)?;
    }
    device::open(&volume.path, &options).map_err(|error| error.to_string())
}

/// The faults of a simulated device, of the size that the configuration says.
fn said(size_bytes: u64, simulate: &str) -> Result<Simulation, String> {
    let comma = if simulate.is_empty() { "" } else { "," };
    let said = format!("size={}KiB{comma}{simulate}", size_bytes >> 10);
    said.parse().map_err(|error| format!("simulate: {error}"))
}

/// Makes a file a volume before it gets its name: what is there under that is a volume.
fn make(
    path: &Path,
    geometry: Geometry,
    options: &device::Options,
    runtime: &Handle,
) -> Result<(), String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    device::create(new, geometry.volume_bytes()).map_err(|error| error.to_string())?;
    let made = device::open(new, options).map_err(|error| error.to_string());
    let made = made.and_then(|device| format(runtime, device, geometry));
    let named = made.and_then(|()| fs::rename(new, path).map_err(|error| error.to_string()));
    if named.is_err() {
        // Nothing of ours is left behind.
        let _ = fs::remove_file(new);
    }
    named
}

fn format(runtime: &Handle, device: Arc<dyn Device>, geometry: Geometry) -> Result<(), String> {
    let disk = Disk::new(device);
    let formatted = runtime.block_on(Volume::format(&disk, geometry, VolumeId::random()));
    formatted.map_err(|error| error.to_string())
}

/// How long a start waits for its volumes.
const ONLINE_WITHIN: Duration = Duration::from_secs(2);
/// How long an end waits for each.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
