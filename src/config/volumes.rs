//! Volumes as they are written: files and block devices, their sizes and what may be written a day.
//!
//! A file that is not there yet is made by `serve`; here it is only asked whether it could be. One
//! that is there keeps the size it was made with. No two volumes are one file or one device,
//! however they are called.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;

use crate::limits::{
    SLOT_SIZE_BYTES, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN, VOLUMES_MAX, WRITES_PER_DAY_BYTES_MIN,
};
use crate::store::shell_word;
use crate::store::survey::glance;

use super::error::{Place, cause};
use super::paths::{Identity, folder_of};
use super::raw::Section;
use super::setting::Setting;
use super::units::{bytes_text, parse_bytes, parse_times};
use super::writable;

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsdVolume {
    /// What metrics and messages call it: its file's name, or all of its path where two share one.
    pub name: String,
    /// The file or block device.
    pub path: PathBuf,
    /// Where that is written.
    pub place: Place,
    /// Its size: of one that is there, what it was made with; whole MiB.
    pub size_bytes: u64,
    /// What it is.
    pub kind: VolumeKind,
    /// What may be written to it in a day.
    pub writes_per_day_bytes: u64,
    /// Its part of the objects, compared with the others'.
    pub weight: u64,
    /// For tests and drills: what a device in memory is to do wrong.
    pub simulate: Option<String>,
}

/// What a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// A file that is there.
    File,
    /// A file that is to be made.
    NewFile,
    /// A block device.
    BlockDevice,
    /// A block device that is not there, or what is broken and so cannot be read or written: the
    /// appliance serves without it.
    Gone,
    /// Memory.
    Simulated,
}

impl VolumeKind {
    /// One word, or two.
    pub fn as_str(self) -> &'static str {
        match self {
            VolumeKind::File => "file",
            VolumeKind::NewFile => "new file",
            VolumeKind::BlockDevice => "block device",
            VolumeKind::Gone => "gone",
            VolumeKind::Simulated => "simulated",
        }
    }
}

/// Reads the array `volumes` of the section `ssd`.
pub(super) fn read(section: &Section<'_>) -> Vec<SsdVolume> {
    let mut taken = HashMap::new();
    let mut volumes = section.each("volumes", |one| volume(one, &mut taken));
    if volumes.len() > VOLUMES_MAX {
        section.fail(format!("{} volumes; at most {VOLUMES_MAX}", volumes.len()));
    }
    name(&mut volumes);
    volumes
}

fn name(volumes: &mut [SsdVolume]) {
    let file_name = |volume: &SsdVolume| {
        volume.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let names: Vec<String> = volumes.iter().map(file_name).collect();
    for (volume, name) in volumes.iter_mut().zip(&names) {
        let shared = names.iter().filter(|other| *other == name).count() > 1;
        volume.name = if shared { volume.path.display().to_string() } else { name.clone() };
    }
}

fn volume(section: &Section<'_>, taken: &mut HashMap<Named, Place>) -> SsdVolume {
    let path = section.required("path", "a file or a block device such as \"/dev/nvme1n1\"");
    let path = path.and_then(Setting::with_text);
    let size = section.setting("size");
    let size_bytes = size.as_ref().and_then(|s| s.bytes(VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX));
    let simulate = section.unlisted("simulate").and_then(Setting::with_text);
    let simulate = simulate.map(|(_, text)| text.to_owned());
    let written = Written { section, size: size.as_ref(), size_bytes: size_bytes.map(whole) };
    let file =
        path.as_ref().map_or_else(PathBuf::new, |(_, text)| section.source.folder.join(text));
    let (kind, bytes) = match &path {
        Some(_) if simulate.is_some() => (VolumeKind::Simulated, written.needed()),
        Some((setting, text)) => written.standing(setting, text, &file),
        None => (VolumeKind::File, None),
    };
    if let Some((setting, text)) = &path {
        refuse_twice(setting, text, &file, taken);
    }
    let writes = section.setting("writes_per_day").and_then(|s| writes_per_day(&s, bytes));
    let size_bytes = bytes.unwrap_or(VOLUME_BYTES_MIN);
    let at = path.as_ref().map_or(section.at, |(setting, _)| setting.at);
    let weight = size_bytes / SLOT_SIZE_BYTES;
    SsdVolume {
        name: String::new(),
        path: file,
        place: section.source.place(at),
        size_bytes,
        kind,
        writes_per_day_bytes: writes.unwrap_or(size_bytes),
        weight: section.count("weight", weight, 1..=VOLUME_BYTES_MAX / SLOT_SIZE_BYTES),
        simulate,
    }
}

/// Whole MiB: regions begin at such borders.
fn whole(bytes: u64) -> u64 {
    bytes - bytes % SLOT_SIZE_BYTES
}

/// What a path names: of a file that is not there, where it would be.
#[derive(PartialEq, Eq, Hash)]
enum Named {
    Found(Identity),
    Missing(PathBuf),
}

impl Named {
    fn by(path: &Path) -> Named {
        if let Ok(found) = fs::metadata(path) {
            return Named::Found(Identity::of(&found));
        }
        let folder = folder_of(path);
        let folder = folder.canonicalize().unwrap_or(folder.to_owned());
        Named::Missing(folder.join(path.file_name().unwrap_or_default()))
    }
}

fn refuse_twice(setting: &Setting<'_>, text: &str, path: &Path, taken: &mut HashMap<Named, Place>) {
    let named = Named::by(path);
    if let Some(Place { line, column }) = taken.get(&named) {
        setting.fail(format!("is {text:?}, the volume at {line}:{column}; each volume once"));
    }
    taken.entry(named).or_insert_with(|| setting.source.place(setting.at));
}

/// The size as it was written.
struct Written<'a> {
    section: &'a Section<'a>,
    size: Option<&'a Setting<'a>>,
    size_bytes: Option<u64>,
}

impl Written<'_> {
    /// What is at `path`, and how large the volume is; what is wrong has been reported.
    fn standing(
        &self,
        setting: &Setting<'_>,
        text: &str,
        path: &Path,
    ) -> (VolumeKind, Option<u64>) {
        let found = match fs::metadata(path) {
            Err(error) if is_gone(&error) && is_below_dev(path) => {
                self.refuse_size();
                return gone(setting, text, &error);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return (VolumeKind::NewFile, self.possible(setting, text, path));
            }
            found => found.and_then(|found| writable(path).map(|()| found)),
        };
        match found {
            Ok(found) if found.is_file() => {
                (VolumeKind::File, Some(self.own(setting, path, found.len())))
            }
            Ok(found) if found.file_type().is_block_device() => self.of_device(setting, text, path),
            Ok(_) => {
                setting.fail(format!("is {text:?}; a file or a block device"));
                (VolumeKind::File, None)
            }
            Err(error) if is_broken(&error) => gone(setting, text, &error),
            Err(error) => {
                refuse(setting, text, &error);
                (VolumeKind::File, None)
            }
        }
    }

    /// A size that nothing else tells.
    fn needed(&self) -> Option<u64> {
        if self.size.is_none() {
            self.section.fail("`ssd.volumes.size` is missing; write \"100 GiB\"");
        }
        self.size_bytes
    }

    /// Whether a file of the size could be made.
    fn possible(&self, setting: &Setting<'_>, text: &str, path: &Path) -> Option<u64> {
        let folder = folder_of(path);
        if !folder.is_dir() {
            setting.fail(format!("is {text:?}; a block device, or a file in a folder that exists"));
            return self.size_bytes;
        }
        if let Err(error) = writable(path) {
            refuse(setting, text, &error);
        }
        let Some(size) = self.size else {
            setting.fail(format!(
                "is {text:?}, a file that is not there: mount its file system, or give `size` to \
                 have it made"
            ));
            return None;
        };
        let bytes = self.size_bytes?;
        let free = statvfs(folder).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize));
        if let Some(free) = free.filter(|free| *free < bytes) {
            let free = bytes_text(whole(free));
            size.fail(format!("is {:?}; {free} are free where it is to be", bytes_text(bytes)));
        }
        Some(bytes)
    }

    /// A volume keeps the size it was made with, whatever is said and whatever it lies on: that is
    /// what counts. What is no volume that could be used is looked at later, and left out.
    fn own(&self, setting: &Setting<'_>, path: &Path, there: u64) -> u64 {
        let there = whole(there).clamp(VOLUME_BYTES_MIN, VOLUME_BYTES_MAX);
        let Some(own) = own_bytes(path) else { return there };
        let wanted = self.size.zip(self.size_bytes).filter(|(_, wanted)| *wanted != own);
        let (place, said) = match wanted {
            Some((size, wanted)) => {
                (size.at, format!("`ssd.volumes.size` is {:?}", bytes_text(wanted)))
            }
            None if there > own => {
                (setting.at, format!("`ssd.volumes.path`: there are {}", bytes_text(there)))
            }
            None => return own,
        };
        let advice = match wanted {
            Some((_, wanted)) if wanted != there => format!(
                "write {:?}, or remove {} to have it made anew, empty, in the new size",
                bytes_text(own),
                path.display()
            ),
            _ => format!(
                "`tidegate volume format {}` makes it anew in {}",
                shell_word(path),
                bytes_text(there)
            ),
        };
        let own_text = bytes_text(own);
        let warning = format!("{said}, and the volume keeps {own_text}, as it was made; {advice}");
        setting.source.warn(setting.source.place(place), warning);
        own
    }

    fn refuse_size(&self) {
        if let Some(size) = self.size {
            size.fail("is for files; a block device is used whole: leave it out");
        }
    }

    fn of_device(
        &self,
        setting: &Setting<'_>,
        text: &str,
        path: &Path,
    ) -> (VolumeKind, Option<u64>) {
        let end = fs::File::open(path).and_then(|mut device| device.seek(SeekFrom::End(0)));
        self.refuse_size();
        // A drive that has given up still has its name, and no room.
        let end = end.and_then(|bytes| match bytes {
            0 => Err(io::Error::from_raw_os_error(libc::ENOMEDIUM)),
            bytes => Ok(bytes),
        });
        if let Some(error) = end.as_ref().err().filter(|error| is_gone(error)) {
            return gone(setting, text, error);
        }
        let bytes = match end {
            Ok(bytes) if whole(bytes) < VOLUME_BYTES_MIN => {
                let (bytes, least) = (bytes_text(bytes), bytes_text(VOLUME_BYTES_MIN));
                setting.fail(format!("is {text:?}, a device of {bytes}; at least {least:?}"));
                None
            }
            Ok(bytes) => Some(self.own(setting, path, bytes)),
            Err(error) => {
                refuse(setting, text, &error);
                None
            }
        };
        (VolumeKind::BlockDevice, bytes)
    }
}

/// The size of the volume that is there, if one is and says so in time: a drive that hangs must not
/// hold up the others.
fn own_bytes(path: &Path) -> Option<u64> {
    let (tell, heard) = sync_channel(1);
    let path = path.to_owned();
    thread::spawn(move || drop(tell.try_send(glance(&path))));
    let superblock = heard.recv_timeout(GLANCE_MAX).ok()?.ok()?;
    Some(superblock.geometry().volume_bytes())
}

/// How long a volume may take to say how large it is.
const GLANCE_MAX: Duration = Duration::from_secs(1);

/// What has died since the configuration was written: not the operator's mistake.
fn gone(setting: &Setting<'_>, text: &str, error: &io::Error) -> (VolumeKind, Option<u64>) {
    let warning = format!(
        "`ssd.volumes.path` is {text:?}, which is gone ({}): the appliance serves without it",
        cause(error)
    );
    setting.source.warn(setting.source.place(setting.at), warning);
    (VolumeKind::Gone, None)
}

/// Whether devices are named there; what is missing elsewhere is a file.
fn is_below_dev(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

fn is_gone(error: &io::Error) -> bool {
    let codes = [libc::ENOENT, libc::EIO, libc::ENXIO, libc::ENODEV, libc::ENOMEDIUM];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// What a drive or a file system says that has failed and lets nobody write any more.
fn is_broken(error: &io::Error) -> bool {
    is_gone(error) || matches!(error.raw_os_error(), Some(libc::EROFS | libc::EUCLEAN))
}

fn refuse(setting: &Setting<'_>, text: &str, error: &io::Error) {
    let cause = cause(error);
    setting.fail(format!("is {text:?}, which cannot be used: {cause}; one this user may write"));
}

/// Bytes a day, as they are or as a multiple of the volume's size, if that is known. A volume that
/// may not even write a region a day holds next to nothing: who says so meant something else.
fn writes_per_day(setting: &Setting<'_>, size_bytes: Option<u64>) -> Option<u64> {
    let least = bytes_text(WRITES_PER_DAY_BYTES_MIN);
    let expected = format!(
        "a multiple of its size such as \"1x\" or a number of bytes such as \"2 TB\", at least \
         {least:?} a day"
    );
    let times = setting.value.as_str().filter(|text| parse_bytes(text).is_none());
    let bytes = match times.and_then(parse_times) {
        Some(hundredths) => {
            let bytes = u128::from(size_bytes?) * u128::from(hundredths) / 100;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        }
        None => setting.bytes_or(0..=1 << 60, &expected)?,
    };
    if bytes < WRITES_PER_DAY_BYTES_MIN {
        setting.mismatch(&expected);
        return None;
    }
    Some(bytes)
}
