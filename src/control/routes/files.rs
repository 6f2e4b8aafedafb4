//! Files of routes: read when they change, judged, and used whole or not at all.
//!
//! What of a file cannot be used leaves what it told before. Nobody waits for it: who looks up has
//! the table before until another one takes its place. Blocks its thread on disks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::control::routes::builder::Builder;
use crate::control::routes::clusters::{Cluster, Uneven, uneven};
use crate::control::routes::difference::Difference;
use crate::control::routes::error::RoutesError;
use crate::control::routes::gathering::{Gathering, Guards};
use crate::control::routes::geo::Geo;
use crate::control::routes::table::Table;
use crate::control::routes::{coverage_zones, mrt, prefix_file};
use crate::limits::{COVERAGE_ZONES_BYTES_MAX, PLACES_BYTES_MAX, ROUTE_FILE_BYTES_MAX};

/// What is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files of routes.
    pub files: Vec<RouteFile>,
    /// Databases of countries, ASes and positions; of two that know, the first counts.
    pub databases: Vec<PathBuf>,
    /// What no file may tell.
    pub guards: Guards,
    /// Who must announce the same.
    pub clusters: Vec<Cluster>,
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

/// The table that counts, and the files it is from.
#[derive(Default)]
pub struct Routes {
    table: ArcSwap<Table>,
    known: Mutex<Known>,
}

/// What came of a look at the files.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many files were read and used.
    pub read: usize,
    /// Those that were not.
    pub refused: Vec<RefusedFile>,
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
}

impl Routes {
    /// The table that counts now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Looks at all files at `now`, reads those that changed, and puts another table in the place
    /// of the one before if that changes anything.
    pub fn reread(&self, plan: &Plan, now: SystemTime) -> Outcome {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.guards != plan.guards {
            known.guards = plan.guards;
            known.files.iter_mut().for_each(|file| file.stamp = None);
        }
        let before = self.table();
        let mut outcome = Outcome::default();
        let geo = reread_databases(&mut known, plan, &before, &mut outcome);
        let planned: HashSet<&RouteFile> = plan.files.iter().collect();
        let gone = known.files.iter().any(|one| !planned.contains(&one.file));
        let kept: HashMap<&RouteFile, &Kept> =
            known.files.iter().map(|one| (&one.file, one)).collect();
        let looked: Vec<Looked> =
            plan.files.iter().map(|file| Looked::at(file, kept.get(file).copied(), now)).collect();
        let has_new = looked.iter().any(|one| one.is_new);
        if !has_new && !gone && geo.is_none() {
            return outcome;
        }
        let mut builder = Builder::default();
        let files = gather(looked, plan.guards, &before, &mut builder, &mut outcome);
        if outcome.read == 0 && !gone && geo.is_none() {
            // Their numbers are still those of the table before.
            known.files =
                files.into_iter().map(|(file, was)| Kept { source: was, ..file }).collect();
            return outcome;
        }
        known.files = files.into_iter().map(|(file, _)| file).collect();
        let table = builder.build(geo.unwrap_or_else(|| before.geo.clone()));
        if !table.places.is_empty() && table.geo.is_empty() {
            outcome.notices.push(
                "routes are for ASes or countries, and no database says whose addresses those are"
                    .to_owned(),
            );
        }
        outcome.uneven = uneven(&table, &plan.clusters);
        outcome.difference = Some(Difference::between(&before, &table));
        self.table.store(Arc::new(table));
        outcome
    }
}

/// What is remembered of files between two looks.
#[derive(Default)]
struct Known {
    files: Vec<Kept>,
    databases: Vec<(PathBuf, Option<Stamp>)>,
    guards: Guards,
}

/// A file as it was when it was read last, used or not.
struct Kept {
    file: RouteFile,
    stamp: Option<Stamp>,
    /// Its number in the table, if anything of it is used.
    source: Option<u32>,
}

/// By what a file is known to be another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length_bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Stamp> {
        let found = fs::metadata(path)?;
        if !found.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let (length_bytes, inode) = (found.len(), found.ino());
        Ok(Stamp { modified: found.modified()?, length_bytes, inode })
    }
}

/// A file of the plan, looked at.
struct Looked<'a> {
    file: &'a RouteFile,
    stamp: io::Result<Stamp>,
    /// Its number in the table before.
    was: Option<u32>,
    is_new: bool,
}

impl<'a> Looked<'a> {
    fn at(file: &'a RouteFile, kept: Option<&Kept>, now: SystemTime) -> Looked<'a> {
        let stamp = Stamp::of(&file.path);
        let was = kept.and_then(|one| one.source);
        let is_other = kept.is_none_or(|one| one.stamp != stamp.as_ref().ok().copied());
        // Who dumps a table writes for a while. What there is of it is better than nothing.
        let modified = stamp.as_ref().ok().map(|stamp| stamp.modified);
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        let is_settled = was.is_none() || age.is_none_or(|age| age >= SETTLED_AFTER);
        match (is_other, is_settled) {
            (true, true) => Looked { file, stamp, was, is_new: true },
            // Known as it was: the next look sees that it is another one.
            (_, _) => {
                let stamp = kept.and_then(|one| one.stamp).ok_or_else(|| io::Error::other("gone"));
                Looked { file, stamp, was, is_new: false }
            }
        }
    }
}

/// Reads what is new, and carries over the rest: what is kept of each file, and the number that it
/// had in the table before.
fn gather(
    looked: Vec<Looked<'_>>,
    guards: Guards,
    before: &Table,
    builder: &mut Builder,
    outcome: &mut Outcome,
) -> Vec<(Kept, Option<u32>)> {
    let mut carried = vec![None; before.sources.len()];
    let mut files = Vec::new();
    for Looked { file, stamp, was, is_new } in looked {
        let name = file.path.display().to_string();
        let (stamp, missing) = match stamp {
            Ok(stamp) => (Some(stamp), None),
            Err(error) => (None, Some(RoutesError::Read(error))),
        };
        let told = is_new.then(|| match missing {
            Some(error) => Err(error),
            None => read(file, &name, guards, builder),
        });
        let source = match told {
            Some(Ok((source, notices))) => {
                outcome.read += 1;
                outcome.notices.extend(notices.iter().map(|line| format!("\"{name}\": {line}")));
                Some(source)
            }
            told => {
                if let Some(Err(error)) = told {
                    let (path, is_kept) = (file.path.clone(), was.is_some());
                    outcome.refused.push(RefusedFile { path, error, is_kept });
                }
                let number = was.map(|was| (was, builder.source(&name)));
                number.map(|(was, number)| {
                    carried[was as usize] = Some(number);
                    number
                })
            }
        };
        files.push((Kept { file: file.clone(), stamp, source }, was));
    }
    if carried.iter().any(Option::is_some) {
        builder.carry(before, &carried);
    }
    files
}

/// Reads one file: its number in the table that is being made, and what an operator should know.
fn read(
    file: &RouteFile,
    name: &str,
    guards: Guards,
    builder: &mut Builder,
) -> Result<(u32, Vec<String>), RoutesError> {
    let bytes_max = match &file.format {
        Format::CoverageZones { .. } => COVERAGE_ZONES_BYTES_MAX,
        Format::Prefixes | Format::Mrt { .. } => ROUTE_FILE_BYTES_MAX,
    };
    let mut input = BufReader::with_capacity(READ_BYTES, opened(&file.path, bytes_max)?);
    let gathering = Gathering::new(builder, guards, name);
    let source = gathering.source();
    let notices = gathering.take(|into| match &file.format {
        Format::Prefixes => prefix_file::read(&mut input, into),
        Format::CoverageZones { boxes } => coverage_zones::read(&mut input, boxes, into),
        Format::Mrt { boxes } => {
            let boxes = into.boxes(boxes.iter().map(|one| &**one))?;
            mrt::read(&mut input, boxes, into)
        }
    })?;
    Ok((source, notices))
}

/// A file, if it is no longer than that; what is added while it is read does not count.
fn opened(path: &Path, bytes_max: u64) -> Result<io::Take<File>, RoutesError> {
    let stamp = Stamp::of(path).map_err(RoutesError::Read)?;
    if stamp.length_bytes > bytes_max {
        return Err(RoutesError::TooLong { bytes_max });
    }
    Ok(File::open(path).map_err(RoutesError::Read)?.take(bytes_max))
}

/// The databases, if one of them changed.
fn reread_databases(
    known: &mut Known,
    plan: &Plan,
    before: &Table,
    outcome: &mut Outcome,
) -> Option<Arc<Geo>> {
    let looked = plan.databases.iter().map(|path| (path.clone(), Stamp::of(path).ok()));
    let looked: Vec<(PathBuf, Option<Stamp>)> = looked.collect();
    if looked == known.databases {
        return None;
    }
    let mut geo = Geo::default();
    for one in &looked {
        let path = &one.0;
        if known.databases.contains(one) && geo.keep(path, &before.geo) {
            continue;
        }
        let added = opened(path, PLACES_BYTES_MAX).and_then(|mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(RoutesError::Read)?;
            geo.add(path, bytes)
        });
        match added {
            Ok(()) => outcome.read += 1,
            Err(error) => {
                let is_kept = geo.keep(path, &before.geo);
                outcome.refused.push(RefusedFile { path: path.clone(), error, is_kept });
            }
        }
    }
    known.databases = looked;
    Some(Arc::new(geo))
}

impl fmt::Display for RefusedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.is_kept { "what it told before stays" } else { "nothing of it is used" };
        write!(f, "\"{}\": {}; {kept}", self.path.display(), self.error)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("prefixes", &self.table.load().prefixes()).finish()
    }
}

/// A file that was changed this long ago is not being written any more.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// What is read of a file at once.
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
