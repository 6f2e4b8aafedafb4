//! The drives behind the volumes: what they are, how fast a short read is, what they tell of their
//! health. Reads beside an appliance that has them open, and writes nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use super::smart::{self, Wear};
use crate::config::paths::folder_of;
use crate::config::{SsdVolume, VolumeKind};
use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::Granules;

const READS: u64 = 32;
/// 64 KiB: a piece.
const READ_GRANULES: usize = 16;
const READING_MAX: Duration = Duration::from_secs(2);
/// An SSD at rest is far below both.
const MIDDLE_MAX: Duration = Duration::from_millis(5);
const SLOWEST_MAX: Duration = Duration::from_millis(100);
const CELSIUS_MAX: i64 = 70;

/// Each drive of each volume.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let volumes = &subject.config.ssd.volumes;
    let real = volumes
        .iter()
        .filter(|volume| !matches!(volume.kind, VolumeKind::Simulated | VolumeKind::Gone));
    let findings: Vec<_> = real.flat_map(|volume| of_volume(&subject.root, volume)).collect();
    match findings.is_empty() {
        true => vec![Finding::ok("there are none behind volumes")],
        false => findings,
    }
}

fn of_volume(root: &Root, volume: &SsdVolume) -> Vec<Finding> {
    let mut findings = match device_number(&volume.path) {
        Ok((major, minor)) => of_device(root, major, minor),
        Err(error) => {
            let found = format!("which drive it is on cannot be told: {error}");
            vec![Finding::unknown(found, "ask again as a user who may see it")]
        }
    };
    if volume.kind != VolumeKind::NewFile {
        findings.push(read(&volume.path));
    }
    findings.into_iter().map(|finding| finding.of(&volume.name)).collect()
}

/// Of a block device, or of what the file, or the folder it is to be made in, lies on.
fn device_number(path: &Path) -> io::Result<(u32, u32)> {
    let found = fs::metadata(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => fs::metadata(folder_of(path)),
        _ => Err(error),
    })?;
    let is_device = found.file_type().is_block_device();
    let number = if is_device { found.rdev() } else { found.dev() };
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

fn of_device(root: &Root, major: u32, minor: u32) -> Vec<Finding> {
    let Some(folder) = whole(root.path(format!("sys/dev/block/{major}:{minor}"))) else {
        let found = "on no drive that the kernel tells of (a file system in memory or a layer)";
        return vec![Finding::unknown(found, "see that it is on an SSD of its own")];
    };
    // What is put together of others is as good as they are.
    let parts = root.names(folder.join("slaves"));
    let parts = parts.iter().filter_map(|part| whole(folder.join("slaves").join(part)));
    let mut drives: Vec<PathBuf> = parts.collect();
    if drives.is_empty() {
        drives.push(folder);
    }
    let both = |drive: &PathBuf| {
        let drive = Drive { root, folder: drive };
        [drive.kind(), drive.health()]
    };
    drives.iter().flat_map(both).collect()
}

/// The drive that a partition is of.
fn whole(folder: PathBuf) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    match folder.join("partition").exists() {
        true => folder.parent().map(Path::to_owned),
        false => Some(folder),
    }
}

/// A drive's folder in `/sys`.
struct Drive<'a> {
    root: &'a Root,
    folder: &'a Path,
}

impl Drive<'_> {
    fn text(&self, file: &str) -> Option<String> {
        self.root.text(self.folder.join(file))
    }

    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        match self.text("device/model") {
            Some(model) => format!("{name} ({model})"),
            None => name.into_owned(),
        }
    }

    fn kind(&self) -> Finding {
        let name = self.name();
        let scheduler = self.root.choice(self.folder.join("queue/scheduler"));
        let scheduler = scheduler.or_else(|| self.text("queue/scheduler"));
        let queue = scheduler.as_deref().map(|scheduler| format!(", scheduler {scheduler}"));
        let found = format!("{name}{}", queue.unwrap_or_default());
        let own = self.folder.file_name().unwrap_or_default().to_string_lossy();
        match (self.text("queue/rotational").as_deref(), scheduler.as_deref()) {
            (Some("1"), _) if own.starts_with("vd") || own.starts_with("xvd") => Finding::note(
                format!("{found}: a virtual drive that says it turns"),
                "ask who runs the host whether it is on SSDs",
            ),
            (Some("1"), _) => Finding::warn(
                format!("{found}: it turns, or says so"),
                "use an SSD: a viewer's every seek waits for the disk",
            ),
            (None, _) => Finding::unknown(format!("{found}: what it is is not told"), "look at it"),
            (_, Some("none" | "mq-deadline" | "kyber") | None) => Finding::ok(found),
            _ => Finding::note(
                format!("{found}, which costs processor time and wins nothing on an SSD"),
                format!("`echo none > /sys/block/{own}/queue/scheduler`, and by a udev rule"),
            ),
        }
    }

    /// What the kernel tells of it, and the drive itself where it can be asked.
    fn health(&self) -> Finding {
        let name = self.name();
        let state = self.text("device/state");
        let errors = self.text("device/ioerr_cnt");
        let errors =
            errors.and_then(|text| i64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        let celsius = self.celsius();
        let mut told: Vec<String> = state.iter().cloned().collect();
        told.extend(celsius.map(|celsius| format!("{celsius} °C")));
        told.extend(errors.map(|errors| format!("{errors} errors since it started")));
        let own = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let wear = smart::ask(self.root, &own);
        if let Some(Wear::Well(words) | Wear::Worn(words)) = &wear {
            told.push(words.clone());
        }
        let found = match told.is_empty() {
            true => format!("{name} tells nothing of its health here"),
            false => format!("{name}: {}", told.join(", ")),
        };
        let is_well = matches!(state.as_deref(), None | Some("live" | "running"));
        let is_hot = celsius.is_some_and(|celsius| celsius > CELSIUS_MAX);
        match wear {
            _ if !is_well => Finding::warn(found, "look at `dmesg`, and change the drive"),
            Some(Wear::Worn(_)) => Finding::warn(
                found,
                format!("change the drive; `smartctl -a /dev/{own}` says more"),
            ),
            _ if is_hot => {
                Finding::warn(found, "look at fans and air: a hot drive slows down and wears")
            }
            Some(Wear::Well(_)) => Finding::ok(found),
            Some(Wear::Untold(why)) => Finding::unknown(
                format!("{found}; its wear is not told: {why}"),
                format!("ask again as root, or look at `smartctl -a /dev/{own}`"),
            ),
            None => Finding::unknown(
                format!("{found}; its wear is not told without smartctl"),
                "install smartmontools, and ask again as root",
            ),
        }
    }

    fn celsius(&self) -> Option<i64> {
        let device = self.folder.join("device");
        let names = self.root.names(&device);
        let sensor = names.iter().find(|name| name.starts_with("hwmon"))?;
        let within = self.root.names(device.join(sensor));
        let nested = within.iter().find(|name| name.starts_with("hwmon"));
        let folder = device.join(sensor).join(nested.map_or("", String::as_str));
        Some(self.root.number::<i64>(folder.join("temp1_input"))? / 1_000)
    }
}

/// A short read past the page cache.
fn read(path: &Path) -> Finding {
    match timed(path) {
        Ok(mut times) => judge_times(&mut times),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let found = "how fast it is cannot be told: this user may not read it";
            Finding::unknown(found, "ask again as the user that serves, or as root")
        }
        Err(error) => Finding::warn(
            format!("a short read failed: {error}"),
            "look at `dmesg`; `tidegate volume verify` reads all of it",
        ),
    }
}

fn timed(path: &Path) -> io::Result<Vec<Duration>> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path)?;
    let granules = file.seek(SeekFrom::End(0))? / GRANULE_SIZE_BYTES;
    let last = granules.saturating_sub(READ_GRANULES as u64);
    let mut buffer = Granules::zeroed(READ_GRANULES);
    let (begun, mut times) = (Instant::now(), Vec::new());
    for number in 0..READS {
        let at = last * number / READS * GRANULE_SIZE_BYTES;
        let asked = Instant::now();
        file.read_at(buffer.bytes_mut(), at)?;
        times.push(asked.elapsed());
        if begun.elapsed() > READING_MAX {
            break;
        }
    }
    Ok(times)
}

/// `times` are of at least one read.
fn judge_times(times: &mut [Duration]) -> Finding {
    times.sort();
    let (middle, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    let found = format!(
        "{} reads of 64 KiB took {} in the middle, {} at most",
        times.len(),
        millis(middle),
        millis(slowest),
    );
    match middle > MIDDLE_MAX || slowest > SLOWEST_MAX {
        true => Finding::warn(
            found,
            "look what else uses the drive, and at `dmesg`; then whether it is worn out",
        ),
        false => Finding::ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::finding::State;
    use super::super::tests::{states, with};
    use super::*;

    #[test]
    fn a_partition_is_told_as_its_drive() {
        let (folder, root) = with(&[
            ("sys/block/nvme0n1/queue/rotational", "0\n"),
            ("sys/block/nvme0n1/queue/scheduler", "[none] mq-deadline\n"),
            ("sys/block/nvme0n1/device/model", "EXAMPLE 3840   \n"),
            ("sys/block/nvme0n1/device/state", "live\n"),
            ("sys/block/nvme0n1/device/hwmon1/temp1_input", "41850\n"),
            ("sys/block/nvme0n1/nvme0n1p1/partition", "1\n"),
            ("sys/dev/block/x", ""),
        ]);
        let part = folder.path().join("sys/dev/block/259:1");
        symlink("../../block/nvme0n1/nvme0n1p1", part).unwrap();
        let findings = of_device(&root, 259, 1);
        assert_eq!(findings[0], Finding::ok("nvme0n1 (EXAMPLE 3840), scheduler none"));
        let health = "nvme0n1 (EXAMPLE 3840): live, 41 °C; its wear is not told without smartctl";
        assert_eq!((findings[1].state, findings[1].found.as_str()), (State::Unknown, health));
        assert_eq!(states(&of_device(&root, 0, 40)), [State::Unknown]);
    }

    #[test]
    fn a_file_that_is_to_be_made_is_told_by_its_folder() {
        let here = device_number(Path::new(".")).unwrap();
        let folder = std::env::current_dir().unwrap();
        for path in ["to-be-made".into(), folder.join("to-be-made")] {
            assert_eq!(device_number(&path).unwrap(), here, "{path:?}");
        }
        assert!(device_number(Path::new("no-such-folder/to-be-made")).is_err());
    }

    #[test]
    fn what_turns_is_hot_or_fails_is_a_warning() {
        let drive = |files: &[(&str, &str)]| {
            let files: Vec<_> = files
                .iter()
                .map(|(file, text)| (format!("sys/dev/block/8:0/{file}"), *text))
                .collect();
            let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
            let (_folder, root) = with(&files);
            states(&of_device(&root, 8, 0))
        };
        let ssd = ("queue/rotational", "0");
        for (files, expected) in [
            (&[("queue/rotational", "1")][..], [State::Warn, State::Unknown]),
            (&[ssd, ("device/state", "offline")], [State::Ok, State::Warn]),
            (
                &[ssd, ("device/state", "running"), ("device/ioerr_cnt", "0x1f")],
                [State::Ok, State::Unknown],
            ),
            (&[ssd, ("device/hwmon/hwmon2/temp1_input", "83000")], [State::Ok, State::Warn]),
            (&[ssd, ("queue/scheduler", "none [bfq]")], [State::Note, State::Unknown]),
            (&[("dev", "8:0")], [State::Unknown, State::Unknown]),
        ] {
            assert_eq!(drive(files), expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_put_together_is_told_by_its_drives() {
        let (folder, root) = with(&[
            ("sys/dev/block/253:0/slaves/x", ""),
            ("sys/block/sda/queue/rotational", "0"),
            ("sys/block/sdb/queue/rotational", "1"),
        ]);
        let slaves = folder.path().join("sys/dev/block/253:0/slaves");
        fs::remove_file(slaves.join("x")).unwrap();
        for name in ["sda", "sdb"] {
            symlink(folder.path().join("sys/block").join(name), slaves.join(name)).unwrap();
        }
        let kinds: Vec<_> = of_device(&root, 253, 0).into_iter().step_by(2).collect();
        assert_eq!(states(&kinds), [State::Ok, State::Warn]);
    }

    #[test]
    fn slow_reads_are_a_warning_and_each_is_counted() {
        let millis = Duration::from_millis;
        for (times, state) in [
            (vec![millis(1); 32], State::Ok),
            (vec![millis(9); 32], State::Warn),
            ([vec![millis(1); 31], vec![millis(300)]].concat(), State::Warn),
            (vec![millis(2_100)], State::Warn),
        ] {
            let finding = judge_times(&mut times.clone());
            assert_eq!(finding.state, state, "{times:?}");
            assert!(finding.found.starts_with(&format!("{} reads", times.len())), "{finding:?}");
        }
    }

    #[test]
    fn a_file_is_read_and_one_that_cannot_be_is_a_warning() {
        // Not in the folder for what is temporary, whose file system may know no direct I/O.
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = folder.path().join("volume");
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        assert_eq!(timed(&path).unwrap().len() as u64, READS);
        assert_eq!(read(&folder.path().join("none")).state, State::Warn);
    }
}
