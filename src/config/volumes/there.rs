//! What is at a volume's path: what it is, how large, whether it may be written, or could be made.
//!
//! A drive that has died, a file system that came back read-only and a file that may not be written
//! happen at night: those are warnings, and the others serve. What was never right is a fault.

use std::fmt;
use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;

use crate::limits::{INDEX_ENTRY_BYTES, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN};
use crate::store::shell_word;
use crate::store::survey::glance;

use super::super::error::cause;
use super::super::log::writable;
use super::super::paths::folder_of;
use super::super::raw::Section;
use super::super::setting::Setting;
use super::super::units::bytes_text;
use super::{VolumeKind, whole};

/// The size as it was written.
pub(super) struct Written<'a> {
    pub(super) section: &'a Section<'a>,
    pub(super) size: Option<&'a Setting<'a>>,
    pub(super) size_bytes: Option<u64>,
    /// The last process had a volume there.
    pub(super) was_known: bool,
}

/// How large a volume is.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) bytes: u64,
    /// Of one that is there and says so: what its index takes.
    pub(super) index_bytes: Option<u64>,
}

impl Found {
    /// Of its index nothing is said.
    pub(super) fn of(bytes: u64) -> Found {
        Found { bytes, index_bytes: None }
    }
}

impl Written<'_> {
    /// What is at `path`, and how large the volume is; what is wrong has been reported.
    pub(super) fn standing(
        &self,
        setting: &Setting<'_>,
        text: &str,
        path: &Path,
    ) -> (VolumeKind, Option<Found>) {
        let found = match fs::metadata(path) {
            Err(error) if is_gone(&error) && is_below_dev(path) => {
                self.refuse_size();
                return gone(setting, text, &error);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.new_file(setting, text, path);
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
            Err(error) if let Some(why) = unwritable(&error) => out(setting, text, &why),
            Err(error) => {
                refuse(setting, text, &error);
                (VolumeKind::File, None)
            }
        }
    }

    /// A size that nothing else tells.
    pub(super) fn needed(&self) -> Option<u64> {
        if self.size.is_none() {
            self.section.fail("`ssd.volumes.size` is missing; write \"100 GiB\"");
        }
        self.size_bytes
    }

    /// A file that is to be made. One that was in use before and cannot be made lies, as a rule, in
    /// a file system that is not mounted: the others go on without it.
    fn new_file(
        &self,
        setting: &Setting<'_>,
        text: &str,
        path: &Path,
    ) -> (VolumeKind, Option<Found>) {
        let Some(size) = self.size else {
            setting.fail(format!(
                "is {text:?}, a file that is not there: mount its file system, or give `size` to \
                 have it made"
            ));
            return (VolumeKind::NewFile, None);
        };
        let bytes = self.size_bytes.unwrap_or(VOLUME_BYTES_MIN);
        let wanted = bytes_text(bytes);
        match obstacle(path, bytes) {
            None => {}
            Some(obstacle) if self.was_known => {
                let why = format!(
                    "which was in use before and cannot be made anew ({obstacle}): mount its file \
                     system"
                );
                return (VolumeKind::Gone, out(setting, text, &why).1);
            }
            Some(Obstacle::NoFolder) => setting
                .fail(format!("is {text:?}; a block device, or a file in a folder that exists")),
            Some(Obstacle::Denied(error)) => refuse(setting, text, &error),
            Some(room @ Obstacle::NoRoom(_)) => size.fail(format!("is {wanted:?}; {room}")),
        }
        (VolumeKind::NewFile, self.size_bytes.map(Found::of))
    }

    /// A volume keeps the size it was made with, whatever is said and whatever it lies on: that is
    /// what counts. What is no volume that could be used is looked at later, and left out.
    fn own(&self, setting: &Setting<'_>, path: &Path, there: u64) -> Found {
        let there = whole(there).clamp(VOLUME_BYTES_MIN, VOLUME_BYTES_MAX);
        let Some(found) = own_sizes(path) else { return Found::of(there) };
        let own = found.bytes;
        let wanted = self.size.zip(self.size_bytes).filter(|(_, wanted)| *wanted != own);
        let (place, said) = match wanted {
            Some((size, wanted)) => {
                (size.at, format!("`ssd.volumes.size` is {:?}", bytes_text(wanted)))
            }
            None if there > own => {
                (setting.at, format!("`ssd.volumes.path`: there are {}", bytes_text(there)))
            }
            None => return found,
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
        found
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
    ) -> (VolumeKind, Option<Found>) {
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

/// Why a file could not be made.
enum Obstacle {
    NoFolder,
    Denied(io::Error),
    NoRoom(u64),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoFolder => f.write_str("its folder does not exist"),
            Obstacle::Denied(error) => f.write_str(&cause(error)),
            Obstacle::NoRoom(free) => write!(f, "{} are free where it is to be", bytes_text(*free)),
        }
    }
}

/// What keeps a file of so many bytes from being made, if anything does.
fn obstacle(path: &Path, bytes: u64) -> Option<Obstacle> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Some(Obstacle::NoFolder);
    }
    if let Err(error) = writable(path) {
        return Some(Obstacle::Denied(error));
    }
    let found = statvfs(folder).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    (free < bytes).then(|| Obstacle::NoRoom(whole(free)))
}

/// The sizes of the volume that is there, if one is and says so in time: a drive that hangs must
/// not hold up the others.
fn own_sizes(path: &Path) -> Option<Found> {
    let (tell, heard) = sync_channel(1);
    let path = path.to_owned();
    thread::spawn(move || drop(tell.try_send(glance(&path))));
    let superblock = heard.recv_timeout(GLANCE_MAX).ok()?.ok()?;
    let geometry = superblock.geometry();
    let index_bytes = Some(geometry.index_entries_max() * INDEX_ENTRY_BYTES);
    Some(Found { bytes: geometry.volume_bytes(), index_bytes })
}

/// How long a volume may take to say how large it is.
const GLANCE_MAX: Duration = Duration::from_secs(1);

/// What has died since the configuration was written: not the operator's mistake.
fn gone(setting: &Setting<'_>, text: &str, error: &io::Error) -> (VolumeKind, Option<Found>) {
    let warning = format!(
        "`ssd.volumes.path` is {text:?}, which is gone ({}): the appliance serves without it",
        cause(error)
    );
    setting.source.warn(setting.source.place(setting.at), warning);
    (VolumeKind::Gone, None)
}

/// Why what is there cannot be written although it is well, and what to do about it.
fn unwritable(error: &io::Error) -> Option<String> {
    let why = match error.raw_os_error() {
        Some(libc::EROFS) => "which is read-only: remount its file system, or make the device, so \
                              that it can be written"
            .to_owned(),
        Some(libc::EPERM) => format!(
            "which nobody may write ({}): `chattr -i` lets it be written if it is immutable",
            cause(error)
        ),
        Some(libc::EACCES) => {
            format!("which this user may not write ({}): let it, by mode or owner", cause(error))
        }
        _ => return None,
    };
    Some(why)
}

/// What the others do without.
fn out(setting: &Setting<'_>, text: &str, why: &str) -> (VolumeKind, Option<Found>) {
    let warning = format!("`ssd.volumes.path` is {text:?}, {why}; the appliance serves without it");
    setting.source.warn(setting.source.place(setting.at), warning);
    (VolumeKind::Unwritable, None)
}

/// Whether devices are named there; what is missing elsewhere is a file.
fn is_below_dev(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

fn is_gone(error: &io::Error) -> bool {
    let codes = [libc::ENOENT, libc::EIO, libc::ENXIO, libc::ENODEV, libc::ENOMEDIUM];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// What a drive or a file system says that has failed.
fn is_broken(error: &io::Error) -> bool {
    is_gone(error) || error.raw_os_error() == Some(libc::EUCLEAN)
}

fn refuse(setting: &Setting<'_>, text: &str, error: &io::Error) {
    let cause = cause(error);
    setting.fail(format!("is {text:?}, which cannot be used: {cause}; one this user may write"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_written_is_told_by_its_cause() {
        let table = [
            (libc::EROFS, Some("which is read-only: remount its file system")),
            (libc::EACCES, Some("which this user may not write (permission denied): let it")),
            (libc::EPERM, Some("which nobody may write (operation not permitted): `chattr -i`")),
            (libc::ENOTDIR, None),
        ];
        for (code, says) in table {
            let error = io::Error::from_raw_os_error(code);
            let told = unwritable(&error);
            assert!(!is_broken(&error), "{code}: what is broken is called gone");
            assert_eq!(told.is_some(), says.is_some(), "{code}");
            assert!(told.unwrap_or_default().starts_with(says.unwrap_or_default()), "{code}");
        }
    }
}
