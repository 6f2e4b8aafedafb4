//! Why there is no access log, or not all of it.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt, io};

/// Why there is no access log, or not all of it.
#[derive(Debug)]
pub enum AccessLogError {
    /// The file could not be opened or created.
    Open {
        /// Its name.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is to be shipped cannot be kept.
    Spool {
        /// The folder for it.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no standard output.
    Stdout {
        /// Why not.
        source: io::Error,
    },
    /// The writing thread could not be started.
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// The file did not take the last lines in time.
    Stalled {
        /// The time it was given.
        limit: Duration,
    },
}

impl fmt::Display for AccessLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogError::Open { path, source } => {
                write!(f, "access log \"{}\" cannot be opened: {source}", path.display())
            }
            AccessLogError::Spool { folder, source } => {
                let folder = folder.display();
                let help = match source.kind() {
                    io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                        "name a folder in `log.ship.folder`"
                    }
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        "give it to this user, or name another in `log.ship.folder`"
                    }
                    io::ErrorKind::StorageFull => "make room there",
                    _ => "look at it, or name another in `log.ship.folder`",
                };
                write!(f, "the folder \"{folder}\" for lines to be shipped: {source}; {help}")
            }
            AccessLogError::Stdout { source } => {
                write!(f, "standard output cannot be written: {source}")
            }
            AccessLogError::Thread { source } => {
                write!(f, "access-log thread cannot be started: {source}")
            }
            AccessLogError::Stalled { limit } => {
                write!(f, "access log did not take its last lines within {limit:?}")
            }
        }
    }
}

impl error::Error for AccessLogError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            AccessLogError::Open { source, .. }
            | AccessLogError::Spool { source, .. }
            | AccessLogError::Stdout { source }
            | AccessLogError::Thread { source } => Some(source),
            AccessLogError::Stalled { .. } => None,
        }
    }
}
