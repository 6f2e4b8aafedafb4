//! The device of a volume: opened, or made first, or a simulation in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::runtime::Handle;

use super::LOOK_AGAIN;
use super::roll::Unfit;
use crate::config::paths::{Identity, folder_of};
use crate::config::units::bytes_text;
use crate::config::{self, EngineChoice, SsdVolume, VolumeKind};
use crate::limits::INDEX_ENTRY_BYTES;
use crate::object::BlockSize;
use crate::store::Volume;
use crate::store::device::{self, Device, Disk, OpenError, Simulated, Simulation};
use crate::store::format::{Geometry, VolumeId};

/// Why a volume has no device.
pub(super) enum NoDevice {
    /// It is not there, or broken, or may not be written: the appliance serves without it.
    Gone(String),
    /// Somebody else uses it.
    InUse(String),
    /// The settings are wrong: an operator must look at it.
    Refused(String),
}

/// A file that was made for a volume. It is removed again when this is dropped, before anybody else
/// could have it: what is refused leaves nothing behind.
pub(super) struct Made {
    path: PathBuf,
    /// With its lock; nothing of one that is kept.
    made: Option<(Identity, Arc<dyn Device>)>,
}

impl Made {
    fn now(path: &Path, device: &Arc<dyn Device>) -> Made {
        let made = fs::metadata(path).ok().map(|found| (Identity::of(&found), device.clone()));
        Made { path: path.to_owned(), made }
    }

    /// It stays.
    pub(super) fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some((made, _locked)) = self.made.take() else { return };
        // What has come to that name since is somebody's.
        if !fs::metadata(&self.path).is_ok_and(|found| Identity::of(&found) == made) {
            return;
        }
        let path = self.path.display();
        match fs::remove_file(&self.path) {
            Ok(()) => tracing::info!("{path} is removed again: what it was made for is refused"),
            Err(error) => tracing::warn!("{path} was made in vain and is still there: {error}"),
        }
    }
}

/// What a new volume looks like.
pub(super) fn geometry(
    config: &config::Ssd,
    volume: &SsdVolume,
    block_size: BlockSize,
) -> Result<Geometry, Unfit> {
    let entries = config.new_index_bytes(volume).map_err(Unfit::IndexShort)? / INDEX_ENTRY_BYTES;
    let made = Geometry::for_new(volume.size_bytes, block_size, entries);
    made.map_err(|error| Unfit::Unreadable(error.to_string()))
}

/// The device of a volume; a file that is not there is made, and made a volume, which is told.
/// `was_known` if the last process had one there: its file system may not be mounted.
pub(super) fn device_of(
    config: &config::Ssd,
    volume: &SsdVolume,
    block_size: BlockSize,
    was_known: bool,
    runtime: &Handle,
) -> Result<(Arc<dyn Device>, Option<Made>), NoDevice> {
    let new = || {
        let made = geometry(config, volume, block_size);
        made.map_err(|unfit| NoDevice::Refused(unfit.told_of(&volume.path)))
    };
    if let Some(simulate) = &volume.simulate {
        let simulated = simulated(volume.size_bytes, simulate, new()?, runtime);
        return simulated.map(|device| (device, None)).map_err(NoDevice::Refused);
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
        let no_file = if was_known { NoDevice::Gone } else { NoDevice::Refused };
        let device = make_file(&volume.path, new()?, &options, runtime).map_err(no_file)?;
        tell(volume, was_known);
        let made = Made::now(&volume.path, &device);
        return Ok((device, Some(made)));
    }
    let opened = device::open(&volume.path, &options).map_err(|error| {
        let why = format!("{error}{}", error.remedy());
        match error {
            OpenError::Missing { .. }
            | OpenError::Tiny { .. }
            | OpenError::NoPermission { .. }
            | OpenError::ReadOnly { .. }
            | OpenError::Failed { .. } => NoDevice::Gone(why),
            OpenError::InUse { .. } => NoDevice::InUse(why),
            _ => NoDevice::Refused(why),
        }
    });
    Ok((opened?, None))
}

/// What comes of opening a device that another process may still have, which ends: tried until then
/// where that is so. Blocks.
pub(super) fn freed<T>(
    name: &str,
    until: Instant,
    open: impl Fn() -> Result<T, NoDevice>,
) -> Result<T, NoDevice> {
    let mut opened = open();
    if let Err(NoDevice::InUse(why)) = &opened {
        tracing::warn!("volume {name} is not free yet, and is tried again for a while: {why}");
    }
    while matches!(opened, Err(NoDevice::InUse(_))) && Instant::now() < until {
        thread::sleep(LOOK_AGAIN);
        opened = open();
    }
    opened
}

/// An operator sees what was made, and where.
fn tell(volume: &SsdVolume, was_known: bool) {
    let (name, path) = (&volume.name, volume.path.display());
    let size = bytes_text(volume.size_bytes);
    tracing::info!("volume {name} was made, empty: {path}, {size}");
    if was_known {
        tracing::warn!(
            "volume {name} was in use before, and its file {path} was not there: if its file \
             system is not mounted, stop, mount it and start again"
        );
    }
}

fn simulated(
    size_bytes: u64,
    simulate: &str,
    geometry: Geometry,
    runtime: &Handle,
) -> Result<Arc<dyn Device>, String> {
    let device: Arc<dyn Device> = Arc::new(Simulated::new(&simulation_of(size_bytes, simulate)?));
    format(runtime, device.clone(), geometry)?;
    Ok(device)
}

/// The faults of a simulated device, of the size that the configuration says.
fn simulation_of(size_bytes: u64, simulate: &str) -> Result<Simulation, String> {
    let comma = if simulate.is_empty() { "" } else { "," };
    let said = format!("size={}KiB{comma}{simulate}", size_bytes >> 10);
    said.parse().map_err(|error| format!("simulate: {error}"))
}

/// Makes a file a volume before it gets its name: what is there under that is a volume, and ours.
fn make_file(
    path: &Path,
    geometry: Geometry,
    options: &device::Options,
    runtime: &Handle,
) -> Result<Arc<dyn Device>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = &path.with_file_name(format!(".{name}{UNFINISHED}"));
    remove_unfinished(new, options)?;
    device::create(new, geometry.volume_bytes()).map_err(|error| error.to_string())?;
    // Nothing of ours is left behind.
    let remove = |_: &String| drop(fs::remove_file(new));
    let device = device::open(new, options).map_err(|error| error.to_string());
    let device = device.inspect_err(remove)?;
    let made = format(runtime, device.clone(), geometry);
    let named = made.and_then(|()| rename(new, path).map_err(|error| error.to_string()));
    named.inspect_err(remove).map(|()| device)
}

/// What a volume's file is called until it is one: a name that nobody else gives.
const UNFINISHED: &str = ".tidegate-unfinished";

/// A start that ended before a volume was made leaves its file behind; it holds nothing.
fn remove_unfinished(new: &Path, options: &device::Options) -> Result<(), String> {
    match device::open(new, options) {
        Err(OpenError::Missing { .. }) => Ok(()),
        Err(error @ OpenError::InUse { .. }) => Err(error.to_string()),
        _ => fs::remove_file(new)
            .map_err(|error| format!("{} is in the way: {error}", new.display())),
    }
}

/// Durable when it is done: after a power cut too there is a volume, or nothing. What has come to
/// that name meanwhile stays.
fn rename(new: &Path, path: &Path) -> io::Result<()> {
    renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE)?;
    fs::File::open(folder_of(path))?.sync_all()
}

fn format(runtime: &Handle, device: Arc<dyn Device>, geometry: Geometry) -> Result<(), String> {
    let disk = Disk::new(device);
    let formatted = runtime.block_on(Volume::format(&disk, geometry, VolumeId::random()));
    formatted.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_was_made_is_nobody_elses_before_it_is_removed() {
        let (folder, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
        let path = folder.path().join("volume");
        let text = format!(
            "listeners.http = '127.0.0.1:0'\nmemory.ram = '64 MiB'\n\
             ssd.volumes = [{{ path = {path:?}, size = '256 MiB' }}]\n\
             [[sites]]\nname = 'a'\nhosts = 'a'\norigins = 'http://o'\n"
        );
        let Config { ssd, block_size, .. } = Config::from_toml(&text, "t.toml").unwrap();
        let made = || device_of(&ssd, &ssd.volumes[0], block_size, false, runtime.handle()).ok();
        let (device, of_it) = made().unwrap();
        // Whoever uses it lets go of it first.
        drop(device);
        let lock = || {
            let file = fs::File::open(&path).unwrap();
            flock(&file, FlockOperation::NonBlockingLockExclusive)
        };
        assert_eq!(lock(), Err(Errno::WOULDBLOCK));
        drop(of_it);
        assert!(!path.exists());

        let (device, of_it) = made().unwrap();
        of_it.into_iter().for_each(Made::keep);
        drop(device);
        assert_eq!(lock(), Ok(()));
        assert!(made().is_some_and(|(_, of_it)| of_it.is_none()), "it was there");
    }
}
