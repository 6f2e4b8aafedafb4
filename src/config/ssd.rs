//! The ssd tier as it is written: what it may cost, and its volumes (`volumes`).
//!
//! The index lies in memory and is part of `memory.total`. Without volumes there is no tier, and
//! nothing else here counts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::limits::{INDEX_BYTES_MIN, INDEX_ENTRIES_PER_MIB, INDEX_ENTRY_BYTES};
use crate::store::remembered::Remembered;

use super::TIMEOUTS;
use super::error::{ConfigErrors, cause};
use super::paths::folder_of;
use super::raw::{Credentials, Section, Source};
use super::units::bytes_text;
use super::volumes::{self, SsdVolume};

/// The ssd tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssd {
    /// What is written to it.
    pub admission: Admission,
    /// How its devices are talked to.
    pub engine: EngineChoice,
    /// Memory of its index, all volumes together; zero without volumes. What a volume has of it is
    /// fixed when it is made.
    pub index_bytes: u64,
    /// How long a viewer waits for a read before the origin is asked.
    pub read_deadline: Duration,
    /// What such reads may cost the origin, in bytes per second.
    pub bypass_bytes: u64,
    /// The file that remembers volumes that have failed.
    pub state: PathBuf,
    /// Its volumes, no two of which are one.
    pub volumes: Vec<SsdVolume>,
}

impl Ssd {
    /// Where the journal of purges is: beside the state.
    pub fn purges(&self) -> PathBuf {
        self.state.with_extension("purges")
    }

    /// Where uses of tokens are remembered: beside the state too.
    pub fn token_uses(&self) -> PathBuf {
        self.state.with_file_name("token-uses")
    }

    /// Where usage is kept: beside the state too.
    pub fn usage(&self) -> PathBuf {
        usage_beside(&self.state)
    }

    /// What the index of a volume that is to be made has: its part of `ssd.index`, or what is usual
    /// where that is more or another one is away, as far as the volumes that are there leave it.
    /// How large one is that is away is not known: what it has may be too much when it is back,
    /// which the next start tells.
    ///
    /// # Errors
    /// They leave too little.
    pub fn new_index_bytes(&self, volume: &SsdVolume) -> Result<u64, IndexShort> {
        let usual = |one: &SsdVolume| usual_index_bytes_of(one.size_bytes);
        let of = |bytes: u64, one: &SsdVolume, all: u64| {
            (u128::from(bytes) * u128::from(usual(one)) / u128::from(all.max(1))) as u64
        };
        let all_usual = usual_index_bytes(&self.volumes);
        let part = |one: &SsdVolume| of(self.index_bytes, one, all_usual);
        let (new, there): (Vec<_>, Vec<_>) = self.volumes.iter().partition(|one| is_new(one));
        // What one of which nothing is known takes is found out when it is back.
        let kept = |one: &SsdVolume| one.own_index_bytes.unwrap_or(part(one).min(usual(one)));
        let taken = there.into_iter().map(kept);
        let left_bytes = self.index_bytes.saturating_sub(taken.sum());
        let left = of(left_bytes, volume, new.into_iter().map(usual).sum());
        // What it had of an earlier version, which went by sizes, is enough to be made anew.
        let all_bytes: u128 = self.volumes.iter().map(|one| u128::from(one.size_bytes)).sum();
        let by_size = u128::from(self.index_bytes) * u128::from(volume.size_bytes) / all_bytes;
        if u128::from(left) < by_size.min(part(volume).min(INDEX_BYTES_MIN).into()) {
            return Err(IndexShort { left_bytes, enough_bytes: self.index_enough_bytes() });
        }
        // One that is away is to find its own when it is back.
        let is_away = |one: &SsdVolume| one.kind.is_out() && one.own_index_bytes.is_none();
        let most = match self.volumes.iter().any(is_away) {
            true => usual(volume),
            false => part(volume).max(usual(volume)),
        };
        Ok(left.min(most))
    }

    /// An `ssd.index` that leaves none of the volumes out: those that are there as they were made,
    /// the others as is usual; whole MiB.
    pub fn index_enough_bytes(&self) -> u64 {
        let usual = |one: &SsdVolume| usual_index_bytes_of(one.size_bytes);
        let each = self.volumes.iter().map(|one| one.own_index_bytes.unwrap_or_else(|| usual(one)));
        each.sum::<u64>().next_multiple_of(INDEX_BYTES_MIN)
    }

    /// Why this user cannot remember there which volumes fail, if he cannot. Changes nothing.
    pub fn state_fault(&self) -> Option<String> {
        let there = folder_of(&self.state).ancestors().find(|folder| folder.exists())?;
        let error = access(there, Access::WRITE_OK | Access::EXEC_OK).err()?;
        Some(format!(
            "`ssd.state` {} cannot be written by this user ({}): after a restart it is not known \
             which volumes failed, nor which were away and may hold what was replaced",
            self.state.display(),
            cause(&error.into())
        ))
    }
}

/// The volumes that are there leave too little of `ssd.index` to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShort {
    /// What they leave.
    pub left_bytes: u64,
    /// All of it that is enough.
    pub enough_bytes: u64,
}

/// What is written to the ssd tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// What is likely to be asked for again, as far as the volumes' writes per day allow.
    Budget,
    /// Everything, as far as the volumes' writes per day allow.
    All,
    /// Planned fills alone.
    PlannedOnly,
}

impl Admission {
    const ALL: [Admission; 3] = [Admission::Budget, Admission::All, Admission::PlannedOnly];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Admission::Budget => "budget",
            Admission::All => "all",
            Admission::PlannedOnly => "planned-only",
        }
    }
}

/// How devices are talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// By io_uring where the system lets us, else by threads.
    Auto,
    /// By io_uring, or not at all.
    Uring,
    /// By threads.
    Threads,
}

impl EngineChoice {
    const ALL: [EngineChoice; 3] = [EngineChoice::Auto, EngineChoice::Uring, EngineChoice::Threads];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineChoice::Auto => "auto",
            EngineChoice::Uring => "uring",
            EngineChoice::Threads => "threads",
        }
    }
}

/// What the index takes, and where and how that was written.
pub(super) struct Index {
    pub(super) bytes: u64,
    pub(super) at: usize,
    pub(super) written: bool,
}

/// Reads the section `ssd`.
pub(super) fn read(section: &Section<'_>) -> (Ssd, Index) {
    let admissions = Admission::ALL.map(|admission| (admission.as_str(), admission));
    let engines = EngineChoice::ALL.map(|engine| (engine.as_str(), engine));
    let state = state(section);
    let volumes = volumes::read(section, &Remembered::at(&state).paths());
    let index = index(section, &volumes);
    let ssd = Ssd {
        admission: section.choice("admission", Admission::Budget, &admissions),
        engine: section.choice("engine", EngineChoice::Auto, &engines),
        index_bytes: index.bytes,
        read_deadline: section.duration("read_deadline", Duration::from_secs(2), TIMEOUTS),
        bypass_bytes: section.bytes("bypass", 25 << 20, 0..=1 << 40),
        state,
        volumes,
    };
    (ssd, index)
}

fn index(section: &Section<'_>, volumes: &[SsdVolume]) -> Index {
    let setting = section.setting("index");
    let (at, written) = (setting.as_ref().map_or(section.at, |s| s.at), setting.is_some());
    let set = setting.and_then(|setting| setting.bytes(INDEX_BYTES_MIN..=1 << 50));
    let bytes = match volumes.is_empty() {
        true => 0,
        false => set.unwrap_or_else(|| usual_index_bytes(volumes)),
    };
    Index { bytes, at, written }
}

/// Whether it is to be made, and has not been since.
fn is_new(volume: &SsdVolume) -> bool {
    volume.kind.is_new() && volume.own_index_bytes.is_none()
}

fn usual_index_bytes(volumes: &[SsdVolume]) -> u64 {
    volumes.iter().map(|volume| usual_index_bytes_of(volume.size_bytes)).sum()
}

/// What the index of a volume of so many bytes has where nothing else is said: enough for blocks of
/// half a MiB.
pub fn usual_index_bytes_of(volume_bytes: u64) -> u64 {
    INDEX_BYTES_MIN.max((volume_bytes >> 20) * INDEX_ENTRIES_PER_MIB * INDEX_ENTRY_BYTES)
}

/// A folder that is there holds a file of ours; anything else is the file itself.
fn state(section: &Section<'_>) -> PathBuf {
    let Some((setting, text)) = section.setting("state").and_then(|s| s.with_text()) else {
        return usual_state_file();
    };
    let path = section.source.folder.join(text);
    if path.is_dir() {
        return path.join(STATE_FILE);
    }
    let folder = folder_of(&path);
    if !folder.is_dir() {
        setting.fail(format!("is {text:?}; {folder:?} is no folder: make it, or name another"));
    }
    path
}

/// Where the configuration in `file` has volumes remembered that have failed, whether or not the
/// rest of it is right.
///
/// # Errors
/// The file cannot be read, or is no TOML.
pub fn state_file_in(file: &Path) -> Result<PathBuf, ConfigErrors> {
    let name = file.to_string_lossy();
    let text = fs::read_to_string(file).map_err(|error| ConfigErrors::unreadable(&name, &error))?;
    let source = Source::new(&name, &text, Credentials::Here);
    let document = source.parse()?;
    Ok(Section::document(&source, &document, |document| document.section("ssd", state)))
}

/// Where usage is kept by an appliance whose `ssd.state` is this file.
pub fn usage_beside(state: &Path) -> PathBuf {
    state.with_file_name("usage")
}

/// Where volumes that have failed are remembered unless `ssd.state` says otherwise: in the folder
/// that the service manager gave us, or would.
pub fn usual_state_file() -> PathBuf {
    let given = env::var_os("STATE_DIRECTORY");
    let first = given.as_ref().and_then(|list| env::split_paths(list).next());
    let folder = first.filter(|path| path.is_absolute());
    folder.unwrap_or(Path::new("/var/lib/tidegate").to_owned()).join(STATE_FILE)
}

const STATE_FILE: &str = "volumes.json";

impl Index {
    /// How faults begin that are about it.
    pub(super) fn in_words(&self) -> String {
        let size = bytes_text(self.bytes);
        match self.written {
            true => format!("`ssd.index` is {size}"),
            false => format!("the index of these ssd volumes takes {size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use self::Known::{Gone, Made, New};
    use super::super::{Config, VolumeKind};
    use super::*;

    const MIB: u64 = 1 << 20;
    const TIB_IN_MIB: u64 = 1 << 20;

    /// What is known of a volume: its index is to be decided, takes so many bytes, or it is gone.
    #[derive(Clone, Copy, Debug)]
    enum Known {
        New,
        Made(u64),
        Gone,
    }

    /// Volumes of so many MiB, all of them new, and `ssd.index`.
    fn new(index_bytes: Option<u64>, mib: &[u64]) -> Ssd {
        let mut text = "listeners.http = '[::1]:0'\nmemory.ram = '64 MiB'\n".to_owned();
        text += &index_bytes.map(|bytes| format!("ssd.index = {bytes}\n")).unwrap_or_default();
        for (number, mib) in mib.iter().enumerate() {
            let one = format!("path = 'v{number}'\nsimulate = ''\nsize = '{mib} MiB'\n");
            text += &format!("[[ssd.volumes]]\n{one}");
        }
        text += "[[sites]]\nname = 's'\nhosts = 'a'\norigins = 'http://o'\n";
        Config::from_toml(&text, "t.toml").unwrap().ssd
    }

    /// The same volumes, of which something is known.
    fn known(mut ssd: Ssd, known: impl IntoIterator<Item = Known>) -> Ssd {
        for (one, known) in ssd.volumes.iter_mut().zip(known) {
            match known {
                New => {}
                Made(bytes) => one.own_index_bytes = Some(bytes),
                Gone => one.kind = VolumeKind::Gone,
            }
        }
        ssd
    }

    /// What each new one has.
    fn new_ones(ssd: &Ssd) -> Result<Vec<u64>, IndexShort> {
        ssd.volumes.iter().filter(|one| is_new(one)).map(|one| ssd.new_index_bytes(one)).collect()
    }

    #[test]
    fn a_new_volume_has_of_the_index_what_those_that_are_there_leave() {
        let of_four = [Made(MIB / 4), New, Made(MIB / 4), Made(MIB / 4)].map(|one| (256, one));
        let short = IndexShort { left_bytes: 0, enough_bytes: 2 * MIB };
        for (index_bytes, volumes, expected) in [
            // Those that are all to be made.
            (Some(4 * MIB), &[(256, New), (256, New)][..], Ok(vec![2 * MIB; 2])),
            (None, &[(256, New), (2 * TIB_IN_MIB, New)], Ok(vec![MIB, 64 * MIB])),
            // Beside one made by a command.
            (None, &[(256, Made(MIB)), (512, New)], Ok(vec![MIB])),
            (Some(2 * MIB), &[(1_024, Made(MIB)), (4_096, New)], Ok(vec![MIB])),
            (Some(160 * MIB), &[(TIB_IN_MIB, New), (256, Made(128 * MIB))], Ok(vec![32 * MIB])),
            (Some(MIB), &[(1_024, Made(MIB)), (4_096, New)], Err(short)),
            // No more than its part where that is more than what is usual, and much is left.
            (Some(130 * MIB), &[(256, New), (2 * TIB_IN_MIB, Made(64 * MIB))], Ok(vec![2 * MIB])),
            // Beside one that is away, and had 32 MiB.
            (
                Some(96 * MIB),
                &[(TIB_IN_MIB, Made(32 * MIB)), (TIB_IN_MIB, New), (256, Gone)],
                Ok(vec![32 * MIB]),
            ),
            // One that an earlier version made, which has less than 1 MiB.
            (None, &[(TIB_IN_MIB, Made(33_940_112)), (20_480, New)], Ok(vec![662_896])),
            // One of four whose file was removed to be made anew.
            (Some(MIB), &of_four, Ok(vec![MIB / 4])),
        ] {
            let sizes: Vec<u64> = volumes.iter().map(|(mib, _)| *mib).collect();
            let ssd = known(new(index_bytes, &sizes), volumes.iter().map(|(_, one)| *one));
            assert_eq!(new_ones(&ssd), expected, "{index_bytes:?} {volumes:?}");
        }
    }

    #[test]
    fn what_is_to_be_written_is_enough_when_it_is_written_once() {
        let all = [New, Gone, Made(4_096), Made(3 * MIB + 16), Made(128 * MIB)];
        let mut refused = 0;
        for mib in [[256; 3], [256, 40_000, 256], [3 * TIB_IN_MIB, 256, 40_000]] {
            let all_new = new(None, &mib);
            for number in 0..all.len().pow(3) {
                let each = [1, 5, 25].map(|step| all[number / step % 5]);
                let mut ssd = known(all_new.clone(), each);
                for index_bytes in [MIB, 3 * MIB, 100 * MIB] {
                    ssd.index_bytes = index_bytes;
                    let Err(short) = new_ones(&ssd) else { continue };
                    ssd.index_bytes = short.enough_bytes;
                    let have = new_ones(&ssd).unwrap_or_else(|short| {
                        panic!("{mib:?}, {each:?}, {index_bytes}: {short:?}")
                    });
                    let own = ssd.volumes.iter().filter_map(|one| one.own_index_bytes).sum::<u64>();
                    assert!(own + have.iter().sum::<u64>() <= ssd.index_bytes, "{mib:?} {each:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }
}
