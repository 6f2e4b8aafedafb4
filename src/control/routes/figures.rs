//! How the files of routes stand, for who watches them.

use std::time::SystemTime;

use crate::control::routes::table::Table;

/// How a file stands that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// What it tells is used.
    Used,
    /// What it tells now was refused: what it told before is used.
    Kept,
    /// It is gone, or cannot be looked at: what it told is held for a while.
    Held,
    /// Nothing of it is used.
    Unused,
}

impl FileState {
    /// All, in the order of the metrics.
    pub const ALL: [FileState; 4] =
        [FileState::Used, FileState::Kept, FileState::Held, FileState::Unused];

    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            FileState::Used => "used",
            FileState::Kept => "kept",
            FileState::Held => "held",
            FileState::Unused => "unused",
        }
    }
}

/// One moment of the files and of what they tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of IPv4 and of IPv6.
    pub prefixes: [u64; 2],
    /// Files, in the order of [`FileState::ALL`].
    pub files: [u64; FileState::ALL.len()],
    /// How long ago what is used of a file was written, of the file for which that is longest.
    pub age_seconds: u64,
    /// The memory the table takes, without databases.
    pub table_bytes: u64,
}

impl Figures {
    /// Of files, each with when it was written what is used of it.
    pub(super) fn of(
        files: &[(FileState, Option<SystemTime>)],
        table: &Table,
        now: SystemTime,
    ) -> Figures {
        let age = |written: &SystemTime| now.duration_since(*written).unwrap_or_default();
        let used = files.iter().filter(|(state, _)| *state != FileState::Unused);
        let oldest = used.filter_map(|(_, written)| written.as_ref().map(age)).max();
        let count = |wanted| files.iter().filter(|(state, _)| *state == wanted).count() as u64;
        Figures {
            prefixes: [table.ipv4.len() as u64, table.ipv6.len() as u64],
            files: FileState::ALL.map(count),
            age_seconds: oldest.unwrap_or_default().as_secs(),
            table_bytes: table.bytes() as u64,
        }
    }
}
