//! A state in one file, which one process has: redb, each change a transaction that is on the disk
//! before it is answered.
//!
//! What blocks runs on threads for that. Whatever fails, the file is opened again before it is used
//! next: redb itself refuses everything after an error of the disk. The file's format is redb's;
//! what is in it has a version of its own.

use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};
use tokio::task::spawn_blocking;

use super::{AuditRecord, By, Change, Entry, Expect, Known, SNAPSHOT, StateError, json};
use crate::limits::{AUDIT_OF_BOXES_MAX, AUDIT_RECORDS_MAX};

/// The file.
#[derive(Clone)]
pub(super) struct Redb {
    /// Whose turn it is has it: a change is made, and what is known then learnt. None after
    /// something failed.
    database: Arc<Mutex<Option<Database>>>,
    /// Opens it again, and makes none.
    opens: Opens,
    path: PathBuf,
    /// The version of the latest change that was seen in it.
    version: Arc<AtomicU64>,
    known: Arc<ArcSwap<Known>>,
}

/// What opens the file.
type Opens = fn(&Path) -> Result<Database, DatabaseError>;

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("path", &self.path).finish_non_exhaustive()
    }
}

type Failure = Box<dyn Error + Send + Sync>;

impl Redb {
    /// Opens the file or makes it. Blocks.
    pub(super) fn open(path: &Path) -> Result<Redb, StateError> {
        let path = path.to_owned();
        // There are secrets in it.
        let made =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        if let Err(error) = made {
            return Err(StateError::Broken { path, source: error.into() });
        }
        Redb::open_by(path, |path| Database::create(path), |path| Database::open(path))
    }

    fn open_by(path: PathBuf, creates: Opens, opens: Opens) -> Result<Redb, StateError> {
        let (known, version) = Default::default();
        let redb = Redb { database: Arc::default(), opens, path, version, known };
        let opened = creates(&redb.path).map_err(Failure::from);
        let looked = opened.and_then(|database| redb.looked_at(database));
        let database = looked.map_err(|failure| match failure.downcast::<StateError>() {
            Ok(error) => *error,
            Err(failure) => match failure.downcast_ref::<DatabaseError>() {
                Some(DatabaseError::DatabaseAlreadyOpen) => {
                    StateError::InUse { path: redb.path.clone() }
                }
                _ => redb.broken(failure),
            },
        })?;
        *redb.turn() = Some(database);
        Ok(redb)
    }

    /// Learns what is in a file that was opened just now.
    ///
    /// # Errors
    /// It is none of ours, or another than before.
    fn looked_at(&self, database: Database) -> Result<Database, Failure> {
        begin(&database)?;
        let (version, seen) = (version(&database)?, self.version.load(Ordering::Relaxed));
        if version < seen {
            let text = "it is older than what was known of it: start the control plane again to \
                        go by it";
            return Err(text.into());
        }
        self.known.store(Arc::new(Known::of(entries(&database)?)?));
        self.version.store(version, Ordering::Relaxed);
        Ok(database)
    }

    fn turn(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is.
    pub(super) fn known(&self) -> Arc<ArcSwap<Known>> {
        self.known.clone()
    }

    /// Does something with the file, which is opened again after it failed. Blocks.
    fn in_turn<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut turn = self.turn();
        // Whoever panics leaves none either.
        let database = match turn.take() {
            Some(database) => database,
            None => self.looked_at((self.opens)(&self.path)?)?,
        };
        let done = work(&database);
        if done.is_ok() {
            *turn = Some(database);
        }
        done
    }

    /// What is under one key. Blocks.
    pub(super) fn read_now(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let read = self.in_turn(|database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key)?.map(|value| value.value().1.to_vec()))
        });
        read.map_err(|error| self.broken(error))
    }

    /// Whether the change was made; what there is then is known either way. Made to its end once it
    /// has begun.
    pub(super) async fn commit(&self, change: Change) -> Result<bool, StateError> {
        let (known, seen) = (self.known.clone(), self.version.clone());
        self.off_thread(move |database| {
            // What was made for who is gone is known even so, and nothing older after it.
            let is_made = make(database, &change)?;
            known.store(Arc::new(Known::of(entries(database)?)?));
            seen.store(version(database)?, Ordering::Relaxed);
            Ok(is_made)
        })
        .await
    }

    /// The latest changes of these, the newest first.
    pub(super) async fn audit(
        &self,
        of: &'static [By],
        count_max: usize,
    ) -> Result<Vec<AuditRecord>, StateError> {
        self.off_thread(move |database| {
            let read = database.begin_read()?;
            let mut latest = Vec::new();
            for by in of {
                latest.extend(latest_of(&read, table_of(*by).0, count_max)?);
            }
            latest.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
            latest.truncate(count_max);
            Ok(latest.into_iter().map(|(_, record)| record).collect())
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StateError> {
        let this = self.clone();
        let done = spawn_blocking(move || this.in_turn(work)).await;
        let done = done.unwrap_or_else(|panicked| Err(panicked.into()));
        done.map_err(|error| self.broken(error))
    }

    fn broken(&self, source: Failure) -> StateError {
        StateError::Broken { path: self.path.clone(), source }
    }
}

/// Makes the tables, in a file that is new.
fn begin(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get(FORMAT_KEY)?.map(|format| format.value());
        match format {
            Some(FORMAT) => {}
            None => drop(meta.insert(FORMAT_KEY, FORMAT)?),
            Some(other) => return Err(format!("its format is {other}, not {FORMAT}").into()),
        }
        transaction.open_table(ENTRIES)?;
        transaction.open_table(AUDIT)?;
        transaction.open_table(AUDIT_OF_BOXES)?;
    }
    Ok(transaction.commit()?)
}

/// All but what is read alone.
fn entries(database: &Database) -> Result<Vec<Entry>, Failure> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (version, value) = value.value();
        if key.value() != SNAPSHOT {
            let (key, value) = (key.value().to_owned(), value.to_vec());
            entries.push(Entry { key, version, value });
        }
    }
    Ok(entries)
}

/// The version of the latest change.
fn version(database: &Database) -> Result<u64, Failure> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get(VERSION_KEY)?.map_or(0, |version| version.value()))
}

fn make(database: &Database, change: &Change) -> Result<bool, Failure> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, expected) in &change.expects {
            let found = entries.get(key.as_str())?.map(|value| value.value().0);
            let found = found.map_or(Expect::Nothing, Expect::Version);
            if found != *expected {
                return Ok(false);
            }
        }
        let mut meta = transaction.open_table(META)?;
        let version = meta.get(VERSION_KEY)?.map_or(0, |version| version.value()) + 1;
        meta.insert(VERSION_KEY, version)?;
        for key in &change.deletes {
            entries.remove(key.as_str())?;
        }
        for (key, value) in &change.puts {
            entries.insert(key.as_str(), (version, value.as_slice()))?;
        }
    }
    if let Some(record) = &change.audit {
        remember(&transaction, record)?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Writes down who changed what, and forgets the oldest of too many: of boxes apart from operators,
/// so that no box has what operators did forgotten.
fn remember(transaction: &WriteTransaction, record: &AuditRecord) -> Result<(), Failure> {
    // One count for both says who was first.
    let mut next = 0;
    for by in By::ALL {
        let last =
            transaction.open_table(table_of(by).0)?.last()?.map(|(number, _)| number.value());
        next = next.max(last.map_or(0, |last| last + 1));
    }
    let (table, records_max) = table_of(record.of);
    let mut audit = transaction.open_table(table)?;
    audit.insert(next, json(record).as_slice())?;
    while audit.len()? > records_max as u64 {
        audit.pop_first()?;
    }
    Ok(())
}

/// Where records of them are, and how many at most.
fn table_of(by: By) -> (TableDefinition<'static, u64, &'static [u8]>, usize) {
    match by {
        By::Operator => (AUDIT, AUDIT_RECORDS_MAX),
        By::Box => (AUDIT_OF_BOXES, AUDIT_OF_BOXES_MAX),
    }
}

/// The latest of one table, numbered, the newest first.
fn latest_of(
    read: &ReadTransaction,
    table: TableDefinition<'_, u64, &[u8]>,
    count_max: usize,
) -> Result<Vec<(u64, AuditRecord)>, Failure> {
    let table = read.open_table(table)?;
    let mut latest = Vec::new();
    for record in table.iter()?.rev().take(count_max) {
        let (number, record) = record?;
        latest.push((number.value(), serde_json::from_slice(record.value())?));
    }
    Ok(latest)
}

/// Each key with its version and its value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// What operators changed, numbered; and boxes, before they had a table of their own.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// The same of boxes.
const AUDIT_OF_BOXES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit-of-boxes");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FORMAT: u64 = 1;
/// The version of the latest change.
const VERSION_KEY: &str = "version";

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::*;

    fn record(of: By, what: &str) -> AuditRecord {
        AuditRecord { at: 0, by: String::new(), of, from: None, what: what.to_owned() }
    }

    fn put(key: &str, audit: AuditRecord) -> Change {
        let puts = vec![(format!("keys/{key}"), b"{}".to_vec())];
        Change { puts, audit: Some(audit), ..Change::default() }
    }

    #[tokio::test]
    async fn changes_that_are_remembered_are_bounded_and_no_box_pushes_out_those_of_operators() {
        let folder = tempfile::tempdir().unwrap();
        let redb = Redb::open(&folder.path().join("state.redb")).unwrap();
        let fill = |table, count: usize, of| {
            let before = json(&record(of, "before"));
            let filled = redb.in_turn(|database| {
                let transaction = database.begin_write()?;
                {
                    let mut audit = transaction.open_table(table)?;
                    for number in 1..=count as u64 {
                        audit.insert(number, before.as_slice())?;
                    }
                }
                Ok(transaction.commit()?)
            });
            filled.unwrap();
        };
        fill(AUDIT, AUDIT_RECORDS_MAX, By::Operator);
        fill(AUDIT_OF_BOXES, AUDIT_OF_BOXES_MAX, By::Box);
        for (of, what) in [(By::Operator, "by anna"), (By::Box, "one"), (By::Box, "another")] {
            assert!(redb.commit(put("film", record(of, what))).await.unwrap());
        }
        let audit = redb.audit(&By::ALL, usize::MAX).await.unwrap();
        let told: Vec<&str> = audit.iter().take(4).map(|record| record.what.as_str()).collect();
        assert_eq!(told, ["another", "one", "by anna", "before"]);
        let count = |of| audit.iter().filter(|record| record.of == of).count();
        assert_eq!(count(By::Operator), AUDIT_RECORDS_MAX);
        assert_eq!(count(By::Box), AUDIT_OF_BOXES_MAX);
        assert_eq!(redb.audit(&By::ALL, 2).await.unwrap(), audit[..2]);
        assert_eq!(redb.audit(&[By::Operator], 1).await.unwrap(), audit[2..3]);
    }

    /// Whether the disk fails.
    static FAILS: AtomicBool = AtomicBool::new(false);

    /// A file on a disk that may fail.
    #[derive(Debug)]
    struct Failing(FileBackend);

    impl Failing {
        fn may_be_written() -> std::io::Result<()> {
            match FAILS.load(Ordering::Relaxed) {
                true => Err(std::io::Error::other("the disk is full")),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Failing {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            Failing::may_be_written()?;
            self.0.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            Failing::may_be_written()?;
            self.0.sync_data()
        }

        fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            Failing::may_be_written()?;
            self.0.write(offset, bytes)
        }

        fn close(&self) -> std::io::Result<()> {
            self.0.close()
        }
    }

    #[tokio::test]
    async fn after_an_error_of_the_disk_it_is_used_again_as_soon_as_that_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let opens: Opens = |path| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            let file = FileBackend::new(file.map_err(redb::StorageError::from)?)?;
            redb::Builder::new().create_with_backend(Failing(file))
        };
        let path = folder.path().join("state.redb");
        drop(Redb::open(&path).unwrap());
        let state = Redb::open_by(path, opens, opens).unwrap();
        let put = async |key: &str| state.commit(put(key, record(By::Operator, key))).await;
        assert!(put("one").await.unwrap());
        FAILS.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let error = put("two").await.unwrap_err().to_string();
            assert!(error.contains("state.redb cannot be used: "), "{error}");
        }
        FAILS.store(false, Ordering::Relaxed);
        assert!(put("three").await.unwrap());
        let known = state.known().load_full();
        assert_eq!(known.keys.keys().collect::<Vec<_>>(), ["one", "three"]);
        assert_eq!(state.audit(&By::ALL, 9).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_older_when_it_is_opened_again_is_not_taken_for_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let state = Redb::open(&path).unwrap();
        let put = async |key: &str| state.commit(put(key, record(By::Operator, key))).await;
        assert!(put("one").await.unwrap());
        let older = folder.path().join("older");
        std::fs::copy(&path, &older).unwrap();
        assert!(put("two").await.unwrap());
        let breaks_off = || drop(state.in_turn(|_| Err::<(), _>("the disk failed".into())));
        let latest = folder.path().join("latest");
        breaks_off();
        std::fs::rename(&path, &latest).unwrap();
        assert!(put("three").await.is_err() && !path.exists());
        std::fs::copy(&older, &path).unwrap();
        let error = put("three").await.unwrap_err().to_string();
        assert!(error.contains("it is older than what was known of it"), "{error}");
        let known = state.known().load_full();
        assert_eq!(known.keys.keys().collect::<Vec<_>>(), ["one", "two"]);
        std::fs::rename(&latest, &path).unwrap();
        assert!(put("three").await.unwrap());
        assert_eq!(state.known().load().keys.len(), 3);
    }
}
