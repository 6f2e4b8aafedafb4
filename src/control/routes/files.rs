//! Files of routes: read when they change, judged, and used whole or not at all.
//!
//! What of a file cannot be used leaves what it told before, as long as the file is there; what is
//! gone is held for a while, and so is a dump that tells nothing any more: its router knows nobody,
//! or has just begun. Nobody waits for it: who looks up has the table before until another
//! one takes its place. Blocks its thread on disks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::control::routes::builder::Builder;
use crate::control::routes::clusters::uneven;
use crate::control::routes::difference::Difference;
use crate::control::routes::error::RoutesError;
use crate::control::routes::figures::{Figures, FileState};
use crate::control::routes::gathering::{Gathering, Guards};
use crate::control::routes::plan::{Format, Outcome, Plan, RefusedFile, RouteFile};
use crate::control::routes::table::Table;
use crate::control::routes::{coverage_zones, mrt, prefix_file};
use crate::geo::Geo;
use crate::limits::{COVERAGE_ZONES_BYTES_MAX, PLACES_BYTES_MAX, ROUTE_FILE_BYTES_MAX};
use crate::moment::unix_seconds;

/// The table that counts, and the files it is from.
#[derive(Default)]
pub struct Routes {
    table: Arc<ArcSwap<Table>>,
    known: Mutex<Known>,
    /// How each file stands, and when it was written what is used of it.
    states: ArcSwap<Vec<(FileState, Option<SystemTime>)>>,
    /// When all were looked at last, in seconds since 1970.
    looked_at: AtomicU64,
}

impl Routes {
    /// The table that counts now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// What one file tells alone, as a source of that name; a notice is a line.
    ///
    /// # Errors
    /// Why nothing of it would be used.
    pub fn read_alone(
        file: &RouteFile,
        name: &str,
        guards: Guards,
    ) -> Result<(Table, Vec<String>), RoutesError> {
        let mut builder = Builder::default();
        let (_, notices) = read(file, name, guards, &mut builder)?;
        Ok((builder.build(Arc::default()), notices))
    }

    /// Where it is found, whichever it is by then.
    pub fn current(&self) -> Arc<ArcSwap<Table>> {
        self.table.clone()
    }

    /// How the files stand, and what they tell.
    pub fn figures(&self, now: SystemTime) -> Figures {
        Figures::of(&self.states.load(), &self.table.load(), now)
    }

    /// Whether something of each file is used, and all were looked at so lately.
    pub fn are_whole(&self, now: SystemTime, within: Duration) -> bool {
        let states = self.states.load();
        let looked_at = Duration::from_secs(self.looked_at.load(Ordering::Relaxed));
        let looked_at = SystemTime::UNIX_EPOCH + looked_at;
        // To the second; a clock that was set back says nothing.
        let is_late = now.duration_since(looked_at).is_ok_and(|it| it > within + ONE_SECOND);
        let is_used = states.iter().all(|(state, _)| *state != FileState::Unused);
        !states.is_empty() && is_used && !is_late
    }

    /// Looks at all files at `now`, reads those that changed, and puts another table in the place
    /// of the one before if that changes anything.
    pub fn reread(&self, plan: &Plan, now: SystemTime) -> Outcome {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.looked(&mut known, plan, now);
        let states = known.files.iter().map(|one| (one.state(), one.told.map(|it| it.modified)));
        self.states.store(Arc::new(states.collect()));
        self.looked_at.store(unix_seconds(now), Ordering::Relaxed);
        outcome
    }

    fn looked(&self, known: &mut Known, plan: &Plan, now: SystemTime) -> Outcome {
        if known.guards != plan.guards {
            known.guards = plan.guards;
            known.files.iter_mut().for_each(|file| file.stamp = None);
        }
        let before = self.table();
        let mut outcome = Outcome::default();
        let geo = reread_databases(known, plan, &before, &mut outcome);
        let planned: HashSet<&RouteFile> = plan.files.iter().collect();
        let kept: HashMap<&RouteFile, &Kept> =
            known.files.iter().map(|one| (&one.file, one)).collect();
        let look = |file| Looked::at(file, kept.get(file).copied(), plan.hold, now);
        let looked: Vec<Looked> = plan.files.iter().map(look).collect();
        let withdrawn = looked.iter().filter(|one| one.is_withdrawn);
        outcome.withdrawn = withdrawn.map(|one| one.file.path.clone()).collect();
        let gone = known.files.iter().any(|one| !planned.contains(&one.file));
        let fewer = gone || !outcome.withdrawn.is_empty();
        let has_new = looked.iter().any(|one| one.is_new);
        if !has_new && !fewer && geo.is_none() {
            return outcome;
        }
        let mut builder = Builder::default();
        let files = gather(looked, plan, &before, &mut builder, &mut outcome);
        if outcome.read == 0 && !fewer && geo.is_none() {
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
    /// As it was when it told what is used of it.
    told: Option<Stamp>,
    /// Since when it has been gone, or told nothing.
    gone_since: Option<SystemTime>,
    /// Its number in the table, if anything of it is used.
    source: Option<u32>,
}

impl Kept {
    fn state(&self) -> FileState {
        match (self.source, self.stamp) {
            (None, _) => FileState::Unused,
            (_, None) => FileState::Held,
            _ if self.gone_since.is_some() => FileState::Held,
            _ if self.stamp == self.told => FileState::Used,
            _ => FileState::Kept,
        }
    }
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
    told: Option<Stamp>,
    gone_since: Option<SystemTime>,
    /// Since when it is gone if it turns out to tell nothing.
    empty_since: SystemTime,
    is_new: bool,
    /// It was gone for so long that what it told counts no more.
    is_withdrawn: bool,
}

impl<'a> Looked<'a> {
    fn at(file: &'a RouteFile, kept: Option<&Kept>, hold: Duration, now: SystemTime) -> Looked<'a> {
        let stamp = Stamp::of(&file.path);
        let (was, told) = kept.map_or((None, None), |one| (one.source, one.told));
        let is_other = kept.is_none_or(|one| one.stamp != stamp.as_ref().ok().copied());
        // Who dumps a table writes for a while. What there is of it is better than nothing.
        let modified = stamp.as_ref().ok().map(|stamp| stamp.modified);
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        let is_settled = was.is_none() || age.is_none_or(|age| age >= SETTLED_AFTER);
        let is_gone = stamp.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
        let empty_since = kept.and_then(|one| one.gone_since).unwrap_or(now);
        // There it was, and told nothing.
        let was_empty = kept.is_some_and(|one| one.stamp.is_some() && one.gone_since.is_some());
        let is_held = is_gone || was_empty && stamp.is_ok();
        let gone_since = (is_held && was.is_some()).then_some(empty_since);
        let held = gone_since.and_then(|since| now.duration_since(since).ok());
        // What is another one than before is read first.
        let is_withdrawn = held.is_some_and(|held| held >= hold) && (is_gone || !is_other);
        let is_new = is_other && is_settled && !is_withdrawn;
        // Known as it was: the next look sees that it is another one.
        let as_it_was = || kept.and_then(|one| one.stamp).ok_or_else(|| io::Error::other("gone"));
        Looked {
            file,
            stamp: if is_new { stamp } else { as_it_was() },
            was: was.filter(|_| !is_withdrawn),
            told,
            gone_since,
            empty_since,
            is_new,
            is_withdrawn,
        }
    }
}

/// Reads what is new, and carries over the rest: what is kept of each file, and the number that it
/// had in the table before.
fn gather(
    looked: Vec<Looked<'_>>,
    plan: &Plan,
    before: &Table,
    builder: &mut Builder,
    outcome: &mut Outcome,
) -> Vec<(Kept, Option<u32>)> {
    let mut carried = vec![None; before.sources.len()];
    let counts = before.routes_by_source();
    let before_of = |was: Option<u32>| was.map_or(0, |was| counts[was as usize]);
    // Room is left for what the others told: it stays if what they tell now is refused.
    let mut others: usize = looked.iter().map(|one| before_of(one.was)).sum();
    let mut files = Vec::new();
    for one in looked {
        let Looked { file, stamp, was, told: told_as, mut gone_since, empty_since, is_new, .. } =
            one;
        let name = file.path.display().to_string();
        let (stamp, missing) = match stamp {
            Ok(stamp) => (Some(stamp), None),
            Err(error) => (None, Some(RoutesError::Read(error))),
        };
        let all_max = plan.guards.all_max.saturating_sub(others - before_of(was));
        let told = is_new.then(|| match missing {
            Some(error) => Err(error),
            None => read(file, &name, Guards { all_max, ..plan.guards }, builder),
        });
        let (source, told_as) = match told {
            Some(Ok((source, notices))) => {
                others -= before_of(was);
                gone_since = None;
                outcome.read += 1;
                outcome.notices.extend(notices.iter().map(|line| format!("\"{name}\": {line}")));
                (Some(source), stamp)
            }
            told => {
                if let Some(Err(error)) = told {
                    if stamp.is_some() {
                        let is_empty = is_empty_dump(file, &error) && was.is_some();
                        gone_since = is_empty.then_some(empty_since);
                    }
                    let hold = gone_since.map(|_| plan.hold);
                    let (path, is_kept) = (file.path.clone(), was.is_some());
                    outcome.refused.push(RefusedFile { path, error, is_kept, hold });
                }
                let number = was.map(|was| (was, builder.source(&name)));
                let number = number.map(|(was, number)| {
                    carried[was as usize] = Some(number);
                    number
                });
                (number, told_as)
            }
        };
        files.push((Kept { file: file.clone(), stamp, told: told_as, gone_since, source }, was));
    }
    if carried.iter().any(Option::is_some) {
        builder.carry(before, &carried);
    }
    files
}

/// A router that knows nobody: what people write is kept until they write something.
fn is_empty_dump(file: &RouteFile, error: &RoutesError) -> bool {
    matches!(file.format, Format::Mrt { .. }) && matches!(error, RoutesError::Empty)
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
            geo.add(path, bytes).map_err(RoutesError::Database)
        });
        match added {
            Ok(()) => outcome.read += 1,
            Err(error) => {
                let is_kept = geo.keep(path, &before.geo);
                let path = path.clone();
                outcome.refused.push(RefusedFile { path, error, is_kept, hold: None });
            }
        }
    }
    known.databases = looked;
    Some(Arc::new(geo))
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("prefixes", &self.table.load().prefixes()).finish()
    }
}

/// A file that was changed this long ago is not being written any more.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
const ONE_SECOND: Duration = Duration::from_secs(1);
/// What is read of a file at once.
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
