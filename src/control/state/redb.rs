//! A state in one file, which one process has: redb, each change a transaction that is on the disk
//! before it is answered.
//!
//! What blocks runs on threads for that. The file's format is redb's; what is in it has a version
//! of its own.

use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, WriteTransaction,
};
use tokio::task::spawn_blocking;

use super::{AuditRecord, Change, Entry, Expect, Known, SNAPSHOT, StateError, json};
use crate::limits::AUDIT_RECORDS_MAX;

/// The file.
#[derive(Clone)]
pub(super) struct Redb {
    database: Arc<Database>,
    path: PathBuf,
    known: Arc<ArcSwap<Known>>,
    /// Whose change is made, and what is known then learnt.
    turn: Arc<Mutex<()>>,
}

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
        let database = match Database::create(&path) {
            Ok(database) => Arc::new(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StateError::InUse { path }),
            Err(error) => return Err(StateError::Broken { path, source: error.into() }),
        };
        let redb = Redb { database, path, known: Arc::default(), turn: Arc::default() };
        redb.begin().map_err(|error| redb.broken(error))?;
        redb.known.store(Arc::new(Known::of(redb.read_all()?)?));
        Ok(redb)
    }

    /// What there is.
    pub(super) fn known(&self) -> Arc<ArcSwap<Known>> {
        self.known.clone()
    }

    /// Makes the tables, in a file that is new.
    fn begin(&self) -> Result<(), Failure> {
        let transaction = self.database.begin_write()?;
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
        }
        Ok(transaction.commit()?)
    }

    /// All but what is read alone. Blocks.
    fn read_all(&self) -> Result<Vec<Entry>, StateError> {
        self.entries().map_err(|error| self.broken(error))
    }

    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
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

    /// What is under one key. Blocks.
    pub(super) fn read_now(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let read = || -> Result<_, Failure> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key)?.map(|value| value.value().1.to_vec()))
        };
        read().map_err(|error| self.broken(error))
    }

    /// Whether the change was made; what there is then is known either way. Made to its end once it
    /// has begun.
    pub(super) async fn commit(&self, change: Change) -> Result<bool, StateError> {
        self.off_thread(move |this| {
            // What was made for who is gone is known even so, and nothing older after it.
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let is_made = this.make(&change)?;
            this.known.store(Arc::new(Known::of(this.entries()?)?));
            Ok(is_made)
        })
        .await
    }

    fn make(&self, change: &Change) -> Result<bool, Failure> {
        let transaction = self.database.begin_write()?;
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

    /// The latest changes, the newest first.
    pub(super) async fn audit(&self, count_max: usize) -> Result<Vec<AuditRecord>, StateError> {
        self.off_thread(move |this| {
            let table = this.database.begin_read()?.open_table(AUDIT)?;
            let mut records = Vec::new();
            for record in table.iter()?.rev().take(count_max) {
                records.push(serde_json::from_slice(record?.1.value())?);
            }
            Ok(records)
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Redb) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StateError> {
        let this = self.clone();
        let done = spawn_blocking(move || work(&this)).await;
        let done = done.unwrap_or_else(|panicked| Err(panicked.into()));
        done.map_err(|error| self.broken(error))
    }

    fn broken(&self, source: Failure) -> StateError {
        StateError::Broken { path: self.path.clone(), source }
    }
}

/// Writes down who changed what, and forgets the oldest of too many.
fn remember(transaction: &WriteTransaction, record: &AuditRecord) -> Result<(), Failure> {
    let mut audit = transaction.open_table(AUDIT)?;
    let next = audit.last()?.map_or(0, |(number, _)| number.value() + 1);
    audit.insert(next, json(record).as_slice())?;
    while audit.len()? > AUDIT_RECORDS_MAX as u64 {
        audit.pop_first()?;
    }
    Ok(())
}

/// Each key with its version and its value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Who changed what, numbered.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FORMAT: u64 = 1;
/// The version of the latest change.
const VERSION_KEY: &str = "version";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::State;
    use crate::control::state::store::Backend;

    #[tokio::test]
    async fn changes_that_are_remembered_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb")).unwrap();
        let redb = match &state.backend {
            Backend::Redb(redb) => redb,
            #[cfg(feature = "etcd")]
            Backend::Etcd(_) => panic!("it is in a file"),
        };
        let transaction = redb.database.begin_write().unwrap();
        let record = |what: &str| AuditRecord {
            at: 0,
            by: String::new(),
            from: None,
            what: what.to_owned(),
        };
        let before = json(&record("before"));
        {
            let mut audit = transaction.open_table(AUDIT).unwrap();
            for number in 0..AUDIT_RECORDS_MAX as u64 {
                audit.insert(number, before.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
        state.put_keys("film", "{}", record("the last one")).await.unwrap();
        let audit = state.audit(usize::MAX).await.unwrap();
        assert_eq!((audit.len(), audit[0].what.as_str()), (AUDIT_RECORDS_MAX, "the last one"));
    }
}
