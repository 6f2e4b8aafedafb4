//! What is to be read of routes, and what came of a look at it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::control::routes::clusters::{Cluster, Uneven};
use crate::control::routes::difference::Difference;
use crate::control::routes::error::RoutesError;
use crate::control::routes::gathering::Guards;

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Files of routes.
    pub files: Vec<RouteFile>,
    /// Databases of countries, ASes and positions; of two that know, the first counts.
    pub databases: Vec<PathBuf>,
    /// What no file may tell.
    pub guards: Guards,
    /// Who must announce the same.
    pub clusters: Vec<Cluster>,
    /// How long what a file told counts when the file is gone.
    pub hold: Duration,
}

impl Default for Plan {
    /// Nothing is to be read.
    fn default() -> Plan {
        Plan {
            files: Vec::new(),
            databases: Vec::new(),
            guards: Guards::default(),
            clusters: Vec::new(),
            hold: Duration::from_secs(600),
        }
    }
}

/// A file of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

/// How a file of routes is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Ours: a line for each prefix.
    Prefixes,
    /// Traffic Control's coverage zones.
    CoverageZones {
        /// The boxes of zones that have none there and are not called as one.
        boxes: BTreeMap<String, Vec<Arc<str>>>,
    },
    /// A dump of a router's table.
    Mrt {
        /// Who announces what it holds.
        boxes: Vec<Arc<str>>,
    },
}

/// What came of a look at the files.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many files were read and used.
    pub read: usize,
    /// Those that were not.
    pub refused: Vec<RefusedFile>,
    /// Those that have been gone for so long that what they told counts no more.
    pub withdrawn: Vec<PathBuf>,
    /// What an operator should know of those that were, a line each.
    pub notices: Vec<String>,
    /// What the table says otherwise; nothing where it is the one before.
    pub difference: Option<Difference>,
    /// Boxes that lack what others of their cluster announce.
    pub uneven: Vec<Uneven>,
}

/// A file of which nothing new is used.
#[derive(Debug)]
pub struct RefusedFile {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: RoutesError,
    /// Whether what it told before is used.
    pub is_kept: bool,
    /// For how long, if it is gone.
    pub hold: Option<Duration>,
}

impl fmt::Display for RefusedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RefusedFile { path, error, is_kept, hold } = self;
        let kept = if *is_kept { "what it told before stays" } else { "nothing of it is used" };
        write!(f, "\"{}\": {error}; {kept}", path.display())?;
        match hold {
            Some(hold) => write!(f, " for {} s", hold.as_secs()),
            None => Ok(()),
        }
    }
}
