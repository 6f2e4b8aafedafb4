//! Why something could not be kept, or is not known.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Why something could not be kept, or is not known.
#[derive(Debug)]
pub enum StateError {
    /// Another process has the file.
    InUse {
        /// Which one.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    Broken {
        /// Which one.
        path: PathBuf,
        /// What the store says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is kept is not understood.
    Malformed {
        /// Under which key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// Nobody answers where it lies; that passes.
    Away {
        /// Who, and why not.
        what: String,
    },
    /// Nothing is there any more where a fleet was.
    Gone {
        /// Where the last state that was known lies.
        copy: PathBuf,
    },
    /// Others were first, again and again.
    Contended,
    /// It was never made, was shown before, is for another name, or has ended.
    NoCode,
    /// The certificate of who asks is not believed any more.
    Revoked,
    /// Two appliances cannot be told apart by players.
    PathwayTaken {
        /// The pathway both have.
        pathway: String,
        /// Whose it is.
        by: String,
    },
    /// There is none of this name.
    Unknown {
        /// What it would be.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is no room for more.
    Full {
        /// Of what.
        what: &'static str,
        /// How many there are at most.
        max: usize,
    },
    /// A state is taken over into none that has something.
    NotEmpty,
    /// Only a part of what is being imported is there.
    Importing,
    /// There is no epoch so late.
    EpochTooLate {
        /// The last one.
        max: u64,
    },
    /// Such an epoch is not later.
    EpochGoesBack {
        /// The one of now.
        epoch: u64,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::InUse { path } => write!(f, "{} is in use", path.display()),
            StateError::Broken { path, source } => {
                write!(f, "{} cannot be used: {source}", path.display())
            }
            StateError::Malformed { key, what } => {
                write!(f, "what is kept as `{key}` is not understood: {what}")
            }
            StateError::Away { what } => {
                write!(f, "the state of the fleet cannot be reached: {what}")
            }
            StateError::Gone { copy } => write!(
                f,
                "etcd has nothing of this fleet any more: restore a backup of etcd, or stop all \
                 control planes and `tidegate control import {}`",
                copy.display()
            ),
            StateError::Contended => {
                write!(f, "other control planes change the same again and again; try once more")
            }
            StateError::NoCode => write!(
                f,
                "this code does not count: it is of another name, was used, or has ended; \
                 `tidegate control code NAME` makes another one"
            ),
            StateError::Revoked => {
                write!(f, "this certificate was revoked: enrol the box again")
            }
            StateError::PathwayTaken { pathway, by } => {
                write!(f, "pathway `{pathway}` is that of `{by}`: choose another one")
            }
            StateError::Unknown { what, name } => write!(f, "no {what} is called `{name}`"),
            StateError::Full { what, max } => {
                write!(f, "there are {max} {what}, which are the most: remove one first")
            }
            StateError::NotEmpty => {
                write!(f, "there is something in this state: import into an empty one")
            }
            StateError::Importing => write!(
                f,
                "an import was not finished: `tidegate control import` with the same file goes on"
            ),
            StateError::EpochTooLate { max } => write!(f, "the last epoch is {max}"),
            StateError::EpochGoesBack { epoch } => {
                write!(f, "the epoch is {epoch}: only a later one can follow")
            }
        }
    }
}

impl Error for StateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StateError::Broken { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
