//! The volumes that have failed, remembered in a small file so that a restart does not forget them,
//! and those that were told of every change: what others say of an object is to be trusted only if
//! the origin confirms it, since it may have been replaced while they were away.
//!
//! The file is read and replaced as a whole, by rename, under a lock: the appliance and a command
//! may both write it. A damaged file never keeps an appliance from starting: it is kept aside then,
//! or when something is to be written, and at worst a volume that failed is tried once more. Who
//! only reads leaves it where it is. Everything here blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::limits::{VOLUMES_MAX, VOLUMES_REMEMBERED_MAX};
use crate::moment::unix_seconds;

mod watch;

/// Where the volumes that have failed are remembered.
#[derive(Clone, Debug)]
pub struct Remembered {
    file: PathBuf,
}

/// What is remembered of a volume that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illness {
    /// What may still be done with it.
    pub state: IllState,
    /// What it did wrong, in a few words.
    pub reason: String,
    /// Since when; whole seconds.
    pub since: SystemTime,
}

/// What may still be done with a volume that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IllState {
    /// It may be read.
    ReadOnly,
    /// Nothing.
    Offline,
}

impl IllState {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            IllState::ReadOnly => "read-only",
            IllState::Offline => "offline",
        }
    }
}

/// Why nothing is remembered although there is a file; what to tell the operator, once.
#[derive(Debug)]
pub enum Forgotten {
    /// The file could not be understood.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where it was moved to; `None` if it is where it was.
        kept: Option<PathBuf>,
        /// What was wrong with it.
        reason: String,
    },
    /// The file could not be read and was left where it is.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A start that tells of it goes on: it uses those volumes again.
impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not known which volumes failed before: ")?;
        match self {
            Forgotten::Damaged { file, kept, reason } => {
                write!(f, "{} is damaged ({reason})", file.display())?;
                match kept {
                    Some(kept) => write!(f, " and was moved to {}", kept.display()),
                    None => Ok(()),
                }
            }
            Forgotten::Unreadable { file, source } => {
                write!(f, "{} cannot be read: {source}", file.display())
            }
        }
    }
}

impl std::error::Error for Forgotten {}

impl Remembered {
    /// What is remembered in `file`, which need not be there.
    pub fn at(file: &Path) -> Remembered {
        Remembered { file: file.to_owned() }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// As [`Remembered::all`], for an appliance that starts: a damaged file is kept aside, so that
    /// it is told of once.
    pub fn all_at_start(&self) -> (BTreeMap<u128, Illness>, Option<Forgotten>) {
        match self.read() {
            Err(Forgotten::Damaged { reason, .. }) => {
                (BTreeMap::new(), Some(self.keep_aside(reason)))
            }
            _ => self.all(),
        }
    }

    /// Every volume that has failed; nothing, and why, if that cannot be known. Changes nothing.
    pub fn all(&self) -> (BTreeMap<u128, Illness>, Option<Forgotten>) {
        match self.read() {
            Ok(known) => (known.ill, None),
            Err(forgotten) => (BTreeMap::new(), Some(forgotten)),
        }
    }

    /// The volumes that were told of every change until the last process ended.
    pub fn in_use(&self) -> BTreeSet<u128> {
        self.read().map(|known| known.in_use).unwrap_or_default()
    }

    /// Whether it is known at all which volumes those are: there is a file, and it can be read.
    pub fn knows(&self) -> bool {
        self.file.exists() && self.read().is_ok()
    }

    /// The paths that the last process had volumes at.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        self.read().map(|known| known.paths).unwrap_or_default()
    }

    /// From now on these are told of every change, and no others. Before anything changes. The
    /// paths are those of all volumes.
    ///
    /// # Errors
    /// As [`Remembered::remember`].
    pub fn begin(&self, volumes: BTreeSet<u128>, paths: BTreeSet<PathBuf>) -> io::Result<()> {
        self.change(|known| (known.in_use, known.paths) = (volumes, paths))
    }

    /// From now on this one is too, unless it has failed meanwhile.
    ///
    /// # Errors
    /// As [`Remembered::remember`].
    pub fn keep_up(&self, volume: u128) -> io::Result<()> {
        self.change(|known| {
            let is_well = !known.ill.contains_key(&volume);
            if is_well && known.in_use.len() < VOLUMES_REMEMBERED_MAX {
                known.in_use.insert(volume);
            }
        })
    }

    /// From now on a volume is at this path too.
    ///
    /// # Errors
    /// As [`Remembered::remember`].
    pub fn know_path(&self, path: PathBuf) -> io::Result<()> {
        self.change(|known| _ = known.paths.insert(path))
    }

    /// Remembers a volume; what was remembered of it before is replaced. On its way to the disk
    /// when this returns.
    ///
    /// # Errors
    /// The file or its folder cannot be written; what was remembered before still is.
    pub fn remember(&self, volume: u128, illness: Illness) -> io::Result<()> {
        self.change(|known| {
            known.ill.insert(volume, illness);
            known.in_use.remove(&volume);
        })
    }

    /// Takes a volume for well again; whether it had been remembered.
    ///
    /// # Errors
    /// As [`Remembered::remember`].
    pub fn forgive(&self, volume: u128) -> io::Result<bool> {
        // Nothing to write, and perhaps no folder, if nothing was remembered.
        if !self.all().0.contains_key(&volume) {
            return Ok(false);
        }
        let mut known = false;
        self.change(|all| known = all.ill.remove(&volume).is_some())?;
        Ok(known)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> io::Result<()> {
        let folder = self.folder();
        fs::create_dir_all(folder)?;
        let folder = File::open(folder)?;
        // Held until the folder is closed, at the end.
        flock(&folder, FlockOperation::LockExclusive)?;
        let mut known = match self.read() {
            Ok(known) => known,
            Err(Forgotten::Damaged { reason, .. }) => {
                self.keep_aside(reason);
                Known::default()
            }
            Err(Forgotten::Unreadable { source, .. }) => return Err(source),
        };
        change(&mut known);
        let all = &mut known.ill;
        while all.len() > VOLUMES_REMEMBERED_MAX {
            let oldest = all.iter().min_by_key(|(_, illness)| illness.since).map(|(id, _)| *id);
            oldest.map(|id| all.remove(&id));
        }
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let new = self.file.with_file_name(format!(".{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(written(&known).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.file)?;
        folder.sync_all()
    }

    fn read(&self) -> Result<Known, Forgotten> {
        let mut text = Vec::new();
        let opened = File::open(&self.file);
        match opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)) {
            Ok(_) => meant(&text).map_err(|reason| self.damaged(None, reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
            Err(source) => Err(Forgotten::Unreadable { file: self.file.clone(), source }),
        }
    }

    /// For whoever wants to know what it said; the next one damaged takes its place.
    fn keep_aside(&self, reason: String) -> Forgotten {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let kept = self.file.with_file_name(format!("{name}.damaged"));
        let kept = fs::rename(&self.file, &kept).ok().map(|()| kept);
        self.damaged(kept, reason)
    }

    fn damaged(&self, kept: Option<PathBuf>, reason: String) -> Forgotten {
        Forgotten::Damaged { file: self.file.clone(), kept, reason }
    }

    fn folder(&self) -> &Path {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }
}

/// More than any file of ours: what is longer is none.
const FILE_BYTES_MAX: u64 = 1 << 20;
const REASON_BYTES_MAX: usize = 256;

/// What the file says.
#[derive(Default)]
struct Known {
    ill: BTreeMap<u128, Illness>,
    in_use: BTreeSet<u128>,
    paths: BTreeSet<PathBuf>,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Document {
    volumes: BTreeMap<String, Entry>,
    #[serde(default)]
    in_use: Vec<String>,
    /// Those that are text.
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    state: IllState,
    reason: String,
    since_unix_seconds: u64,
}

fn written(known: &Known) -> String {
    let entry = |(id, illness): (&u128, &Illness)| {
        let end = illness.reason.floor_char_boundary(REASON_BYTES_MAX);
        let entry = Entry {
            state: illness.state,
            reason: illness.reason[..end].to_owned(),
            since_unix_seconds: unix_seconds(illness.since),
        };
        (format!("{id:032x}"), entry)
    };
    let document = Document {
        volumes: known.ill.iter().map(entry).collect(),
        in_use: known.in_use.iter().map(|id| format!("{id:032x}")).collect(),
        paths: known.paths.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect(),
    };
    let text = serde_json::to_string_pretty(&document);
    text.expect("a map of texts and numbers is JSON") + "\n"
}

fn meant(text: &[u8]) -> Result<Known, String> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("it is far too long".to_owned());
    }
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let illness = |(id, entry): (String, Entry)| {
        let wrong = || format!("{id:?} with {} seconds is no entry", entry.since_unix_seconds);
        let number = number_of(&id);
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(entry.since_unix_seconds));
        let (number, since) = number.zip(since).ok_or_else(wrong)?;
        Ok((number, Illness { state: entry.state, reason: entry.reason, since }))
    };
    let ill = document.volumes.into_iter().map(illness).collect::<Result<_, String>>()?;
    let in_use = document.in_use.iter().map(|id| number_of(id)).collect::<Option<_>>();
    let paths = document.paths.into_iter().map(PathBuf::from).collect();
    Ok(Known { ill, in_use: in_use.ok_or("a volume in use has no name")?, paths })
}

fn number_of(id: &str) -> Option<u128> {
    u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)
}

const _: () = assert!(VOLUMES_REMEMBERED_MAX >= VOLUMES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn illness(state: IllState, seconds: u64) -> Illness {
        let since = UNIX_EPOCH + Duration::from_secs(seconds);
        Illness { state, reason: "20 reads in a minute failed: \"EIO\"".to_owned(), since }
    }

    fn place() -> (tempfile::TempDir, Remembered) {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(&folder.path().join("state/volumes.json"));
        (folder, remembered)
    }

    fn names(remembered: &Remembered) -> Vec<String> {
        let entries = fs::read_dir(remembered.folder()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_failed_is_remembered_by_the_next_process_until_it_is_forgiven() {
        let (_folder, remembered) = place();
        assert!(remembered.all().0.is_empty() && remembered.all().1.is_none());
        assert!(!remembered.forgive(1).unwrap(), "nothing was remembered, nothing is made");
        assert!(!remembered.folder().exists());

        let (offline, read_only) =
            (illness(IllState::Offline, 5), illness(IllState::ReadOnly, 1_795_262_128));
        remembered.remember(u128::MAX, illness(IllState::ReadOnly, 4)).unwrap();
        remembered.remember(1, read_only.clone()).unwrap();
        remembered.remember(u128::MAX, offline.clone()).unwrap();
        let next = Remembered::at(remembered.file());
        assert_eq!(next.all().0, BTreeMap::from([(1, read_only.clone()), (u128::MAX, offline)]));
        assert!(next.forgive(u128::MAX).unwrap());
        assert!(!next.forgive(u128::MAX).unwrap());
        assert_eq!(remembered.all().0, BTreeMap::from([(1, read_only)]));
        assert_eq!(names(&remembered), ["volumes.json"]);
    }

    #[test]
    fn only_who_was_there_all_the_time_was_told_of_every_change() {
        let (_folder, remembered) = place();
        assert!(remembered.in_use().is_empty());
        assert!(!remembered.knows(), "there is no file");
        let path = PathBuf::from("/ssd/a.volume");
        remembered.begin([1, 2].into(), [path.clone()].into()).unwrap();
        assert!(remembered.knows());
        let text = fs::read_to_string(remembered.file()).unwrap();
        let paths = "  \"paths\": [\n    \"/ssd/a.volume\"\n  ]\n";
        assert!(text.contains(paths), "{text}");
        fs::write(remembered.file(), text.replace(&format!(",\n{paths}"), "\n")).unwrap();
        assert_eq!(remembered.in_use(), [1, 2].into(), "an older one wrote no paths");
        assert!(remembered.paths().is_empty());
        fs::write(remembered.file(), text).unwrap();
        remembered.keep_up(3).unwrap();
        assert_eq!(remembered.in_use(), [1, 2, 3].into());
        assert_eq!(remembered.paths(), [path].into());
        remembered.remember(2, illness(IllState::ReadOnly, 5)).unwrap();
        remembered.keep_up(2).unwrap();
        assert!(remembered.forgive(2).unwrap());
        assert_eq!(remembered.in_use(), [1, 3].into(), "it had failed, forgiven or not");
        remembered.begin([3].into(), BTreeSet::new()).unwrap();
        assert_eq!(remembered.in_use(), [3].into(), "the other one was away");
        fs::write(remembered.file(), "{").unwrap();
        assert!(!remembered.knows() && remembered.in_use().is_empty(), "nobody knows");
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_told_of_once() {
        let (_folder, remembered) = place();
        remembered.remember(7, illness(IllState::Offline, 5)).unwrap();
        let good = fs::read(remembered.file()).unwrap();
        let bad_id = String::from_utf8(good.clone()).unwrap().replace("0000", "zzzz");
        let cuts = (0..good.len() - 2).map(|end| good[..end].to_vec());
        let long = vec![b' '; FILE_BYTES_MAX as usize + 1];
        for bad in cuts.chain([bad_id.into_bytes(), long, vec![0xff; 40], b"[]".to_vec()]) {
            fs::write(remembered.file(), &bad).unwrap();
            assert!(matches!(remembered.all().1, Some(Forgotten::Damaged { kept: None, .. })));
            assert!(remembered.in_use().is_empty() && !remembered.forgive(7).unwrap());
            assert_eq!(fs::read(remembered.file()).unwrap(), bad, "it was only read");
            let (all, forgotten) = remembered.all_at_start();
            let text = forgotten.expect("it is damaged").to_string();
            assert!(all.is_empty() && text.ends_with("volumes.json.damaged"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            assert_eq!(fs::read(remembered.folder().join("volumes.json.damaged")).unwrap(), bad);
            assert!(remembered.all_at_start().1.is_none(), "told once");
        }
        fs::write(remembered.file(), "{").unwrap();
        remembered.remember(8, illness(IllState::ReadOnly, 6)).unwrap();
        assert_eq!(remembered.all().0.len(), 1);
        assert_eq!(names(&remembered), ["volumes.json", "volumes.json.damaged"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_where_it_is() {
        let (_folder, remembered) = place();
        fs::create_dir_all(remembered.file()).unwrap();
        let (all, forgotten) = remembered.all_at_start();
        assert!(all.is_empty() && matches!(forgotten, Some(Forgotten::Unreadable { .. })));
        remembered.remember(7, illness(IllState::Offline, 5)).unwrap_err();
        assert!(remembered.file().is_dir());
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let (_folder, remembered) = place();
        let whole = (0..=VOLUMES_REMEMBERED_MAX as u128)
            .map(|id| (id, illness(IllState::Offline, id as u64)))
            .collect::<BTreeMap<_, _>>();
        fs::create_dir_all(remembered.folder()).unwrap();
        let known = Known { ill: whole, ..Known::default() };
        fs::write(remembered.file(), written(&known)).unwrap();
        remembered.remember(9_999, illness(IllState::Offline, 9_999)).unwrap();
        let (all, _) = remembered.all();
        assert_eq!(all.len(), VOLUMES_REMEMBERED_MAX);
        assert!(!all.contains_key(&1) && all.contains_key(&2) && all.contains_key(&9_999));
        let mut talkative = illness(IllState::Offline, 10_000);
        talkative.reason = "é".repeat(REASON_BYTES_MAX);
        remembered.remember(9_999, talkative).unwrap();
        assert_eq!(remembered.all().0[&9_999].reason.len(), REASON_BYTES_MAX);
    }

    #[test]
    fn two_who_remember_at_once_lose_nothing() {
        let (_folder, remembered) = place();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let remembered = &remembered;
                scope.spawn(move || {
                    for id in thread * 8..thread * 8 + 8 {
                        remembered.remember(id, illness(IllState::Offline, 1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(remembered.all().0.len(), 32);
    }
}
