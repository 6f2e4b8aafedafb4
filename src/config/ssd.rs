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

    /// Where usage is kept: beside the state too.
    pub fn usage(&self) -> PathBuf {
        usage_beside(&self.state)
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
