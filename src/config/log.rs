//! What is written down of requests and of the appliance itself, where, and how.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::raw::Section;
use super::shipping::{self, Shipping};
use super::{error, paths};
use crate::access_log::{ClientBits, Destination, Format, Personal, Rotation, Shown};
use crate::limits::ACCESS_LOG_FILES_MAX;

/// The section `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One line per request.
    pub access: Destination,
    /// How these lines are written there.
    pub format: Format,
    /// When that file is moved; `None`: never.
    pub rotation: Option<Rotation>,
    /// How much of who a viewer is they tell.
    pub personal: Personal,
    /// Who is sent these lines; `None`: nobody.
    pub shipping: Option<Shipping>,
    /// The least severe event told.
    pub level: LogLevel,
}

/// How much is told about the appliance itself, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Wake someone.
    Error,
    /// Look tomorrow.
    Warn,
    /// State changed.
    Info,
    /// Every request.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    const ALL: [(&'static str, LogLevel); 5] = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, level)| *level == self);
        found.map(|(name, _)| *name).expect("every level has a name")
    }
}

/// Reads the section `log`.
pub(super) fn read(section: &Section<'_>) -> Log {
    let bits = |key, all: u8| section.count(key, u64::from(all), 0..=u64::from(all)) as u8;
    let client_bits =
        ClientBits { v4: bits("client_bits_v4", 32), v6: bits("client_bits_v6", 128) };
    let access = access_log(section);
    Log {
        format: section.choice("format", Format::Json, &Format::ALL),
        rotation: section.section("rotate", |rotate| rotation(rotate, &access)),
        personal: section.section("personal", |personal| {
            let shown = |key| personal.choice(key, Shown::Whole, &Shown::ALL);
            Personal {
                client_bits,
                query: shown("query"),
                referer: shown("referer"),
                user_agent: shown("user_agent"),
                session: shown("session"),
            }
        }),
        shipping: section.section("ship", shipping::read),
        level: level(section),
        access,
    }
}

/// How loud the log is.
pub(super) fn level(section: &Section<'_>) -> LogLevel {
    section.choice("level", LogLevel::Info, &LogLevel::ALL)
}

fn rotation(section: &Section<'_>, access: &Destination) -> Option<Rotation> {
    let size = section.setting("size");
    let every = section.setting("every");
    let keep = section.count("keep", KEEP_DEFAULT, 1..=ACCESS_LOG_FILES_MAX);
    if section.is_written() {
        if size.is_none() && every.is_none() {
            section.fail("`log.rotate` says neither `size` nor `every`; write one of them or both");
        } else if !matches!(access, Destination::File(_)) {
            section.fail("`log.rotate` is for a file; write its name in `log.access`");
        }
    }
    let bytes_max = size.and_then(|size| size.bytes(1 << 20..=1 << 40));
    let every = every.and_then(|every| every.duration(MINUTE..=366 * 24 * 60 * MINUTE));
    let is_wanted = bytes_max.is_some() || every.is_some();
    is_wanted.then_some(Rotation { bytes_max, every, keep })
}

fn access_log(section: &Section<'_>) -> Destination {
    let Some((setting, text)) = section.setting("access").and_then(|s| s.with_text()) else {
        return Destination::Stdout;
    };
    match text {
        "off" => Destination::Off,
        "stdout" => Destination::Stdout,
        text => {
            let path = section.source.folder.join(text);
            let folder = path.parent().unwrap_or(Path::new("/"));
            if path.is_dir() || !(folder.as_os_str().is_empty() || folder.is_dir()) {
                setting.fail(format!(
                    "is {text:?}; \"stdout\", \"off\" or a file in a folder that exists"
                ));
            } else if let Err(error) = writable(&path) {
                setting.fail(format!(
                    "is {text:?}, which cannot be written: {}; a file this user may write",
                    error::cause(&error)
                ));
            }
            Destination::File(path)
        }
    }
}

/// Whether this user may write the file, or make it; makes nothing.
pub(super) fn writable(file: &Path) -> io::Result<()> {
    match access(file, Access::WRITE_OK) {
        Err(Errno::NOENT) => {
            Ok(access(paths::folder_of(file), Access::WRITE_OK | Access::EXEC_OK)?)
        }
        result => Ok(result?),
    }
}

const KEEP_DEFAULT: u64 = 14;
const MINUTE: Duration = Duration::from_secs(60);
