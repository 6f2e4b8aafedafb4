//! Volumes as they are written: files and block devices, their sizes and what may be written a day.
//!
//! A file that is not there yet is made by `serve`; here it is only asked whether it could be. One
//! that is there keeps the size it was made with. No two volumes are one file or one device,
//! however they are called.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::limits::{
    SLOT_SIZE_BYTES, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN, VOLUMES_MAX, WRITES_PER_DAY_BYTES_MIN,
};

use self::there::{Found, Written};
use super::error::Place;
use super::paths::{Identity, absolute, folder_of};
use super::raw::Section;
use super::setting::Setting;
use super::units::{bytes_text, parse_bytes, parse_times};

mod there;

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
    /// What its index takes, of one that is there and says so: it was fixed when it was made.
    pub own_index_bytes: Option<u64>,
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
    /// A block device that is not there, what is broken and so cannot be read or written, or a file
    /// that was in use before and cannot be made anew: the appliance serves without it.
    Gone,
    /// What this user may not write, or nobody: the appliance serves without it.
    Unwritable,
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
            VolumeKind::Unwritable => "not writable",
            VolumeKind::Simulated => "simulated",
        }
    }

    /// Whether it is made by a start.
    pub fn is_new(self) -> bool {
        matches!(self, VolumeKind::NewFile | VolumeKind::Simulated)
    }

    /// Whether the appliance serves without it.
    pub fn is_out(self) -> bool {
        matches!(self, VolumeKind::Gone | VolumeKind::Unwritable)
    }
}

/// Reads the array `volumes` of the section `ssd`; `known` are the paths that the last process had
/// volumes at.
pub(super) fn read(section: &Section<'_>, known: &BTreeSet<PathBuf>) -> Vec<SsdVolume> {
    let mut taken = HashMap::new();
    let mut volumes = section.each("volumes", |one| volume(one, &mut taken, known));
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

fn volume(
    section: &Section<'_>,
    taken: &mut HashMap<Named, Place>,
    known: &BTreeSet<PathBuf>,
) -> SsdVolume {
    let path = section.required("path", "a file or a block device such as \"/dev/nvme1n1\"");
    let path = path.and_then(Setting::with_text);
    let size = section.setting("size");
    let size_bytes = size.as_ref().and_then(|s| s.bytes(VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX));
    let simulate = section.unlisted("simulate").and_then(Setting::with_text);
    let simulate = simulate.map(|(_, text)| text.to_owned());
    let file =
        path.as_ref().map_or_else(PathBuf::new, |(_, text)| section.source.folder.join(text));
    let was_known = known.contains(&absolute(&file));
    let (size, size_bytes) = (size.as_ref(), size_bytes.map(whole));
    let written = Written { section, size, size_bytes, was_known };
    let (kind, found) = match &path {
        Some(_) if simulate.is_some() => (VolumeKind::Simulated, written.needed().map(Found::of)),
        Some((setting, text)) => written.standing(setting, text, &file),
        None => (VolumeKind::File, None),
    };
    if let Some((setting, text)) = &path {
        refuse_twice(setting, text, &file, taken);
    }
    let bytes = found.map(|found| found.bytes);
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
        own_index_bytes: found.and_then(|found| found.index_bytes),
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
