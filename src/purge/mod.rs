//! Purges: what an operator declared gone, or to be asked about, before a certain moment.
//!
//! A purge has a number, one more than the one before. A head has a birth: the number of the last
//! purge when its origin was asked for it. A purge covers what it names if that was born before
//! it. Nothing is searched for when a purge comes: who looks a head up compares the two, and that
//! costs one comparison unless there was a purge since the last time. Always holds: a purge that
//! was acknowledged is in the journal, if there is one, and covers what it names from then on.

pub mod elsewhere;
pub mod fuzz;
mod invalidation;
mod journal;
mod keeper;
pub mod request;
mod scope;
mod table;
mod tags;
mod token;
mod tokens;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

use self::elsewhere::Elsewhere;
use self::invalidation::Marks;
use self::journal::Journal;
use self::keeper::{Figures, Job};
pub use self::keeper::{Keeper, PurgeError, Purged};
pub use self::scope::{Hardness, Kind, Scope};
use self::table::{Covered, Purge, Table};
pub use self::tags::Tags;
pub use self::token::Token;
pub use self::tokens::{Bearer, Role, Tokens, TokensError};
use crate::object::ObjectKey;
use crate::site::CurrentSites;

/// When a head's origin was asked for it, reckoned in purges.
#[derive(Debug, Default)]
pub struct Birth {
    /// Whose numbers those are; zero: nobody counted.
    journal: u64,
    /// The purges there had been.
    number: u64,
    /// The invalidations there had been, in this process.
    invalidations: u64,
    /// One more than the last purge that was reckoned with.
    reckoned: AtomicU64,
}

impl Birth {
    /// As it is written with a head: whose number it is, and the number.
    pub fn to_recorded(&self) -> Option<[u64; 2]> {
        (self.journal != 0).then_some([self.journal, self.number])
    }

    /// Of a head that was written; nothing was reckoned with yet.
    pub fn recorded(recorded: Option<[u64; 2]>) -> Birth {
        let [journal, number] = recorded.unwrap_or_default();
        Birth { journal, number, ..Birth::default() }
    }

    /// Whether the other one is younger.
    pub fn is_before(&self, other: &Birth) -> bool {
        self.number < other.number
    }
}

impl Clone for Birth {
    fn clone(&self) -> Birth {
        let reckoned = AtomicU64::new(self.reckoned.load(Ordering::Relaxed));
        Birth { reckoned, ..*self }
    }
}

/// What purges leave of a head.
#[derive(Clone, Debug)]
pub enum Standing {
    /// None that came since the last time covers it.
    Untouched,
    /// Stale, from this moment on. A head that says so has this birth, which is not reckoned with
    /// again; until there is one everybody is told.
    StaleSince(SystemTime, Birth),
    /// Nobody knows: its origin is asked about it before it is used, whatever else allows it. A
    /// head that says so has this birth.
    Doubted(Birth),
    /// Gone.
    Gone,
}

impl Standing {
    /// What is to be told of it; `None`: nothing.
    pub fn in_words(&self) -> Option<&'static str> {
        match self {
            Standing::Untouched => None,
            Standing::StaleSince(..) => Some("it was purged softly: stale from then on"),
            Standing::Doubted(_) => Some("nobody knows whether it was purged: its origin is asked"),
            Standing::Gone => Some("what was stored was purged"),
        }
    }
}

/// What is to be purged next, to be looked for among what is held.
pub struct Sought {
    table: Table,
    /// Its objects, where they alone are named.
    objects: Option<Vec<ObjectKey>>,
}

impl Sought {
    /// All that these cover; `objects` where they are nothing but those.
    pub fn new(scopes: &[Scope], objects: Option<Vec<ObjectKey>>) -> Sought {
        let mut table = Table::default();
        for scope in scopes {
            let (scope, hardness) = (*scope, Hardness::Hard);
            table.apply(&Purge { number: 1, at_seconds: 1, scope, hardness });
        }
        Sought { table, objects }
    }

    /// Its objects, where they alone are named.
    pub fn objects(&self) -> Option<&[ObjectKey]> {
        self.objects.as_deref()
    }
}

/// All purges there have been, as far as they matter; one for the process.
pub struct Purges {
    sites: Arc<CurrentSites>,
    journal: u64,
    /// Heads of another journal, or of none, may have been purged and nobody knows.
    forgot: bool,
    count: AtomicU64,
    table: RwLock<Table>,
    marks: Marks,
    figures: Figures,
    jobs: Mutex<Option<SyncSender<Job>>>,
    elsewhere: ArcSwapOption<Elsewhere>,
}

impl Purges {
    /// Begins with what the journal at `file` remembers; without one what is purged is forgotten
    /// with the process. Blocks. A journal that cannot be read or made is told of, and is tried
    /// again when something is to be purged.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        sites: Arc<CurrentSites>,
        file: Option<&Path>,
    ) -> std::io::Result<(Arc<Purges>, Keeper)> {
        let id = RandomState::new().hash_one(SystemTime::now()).max(1);
        let (journal, read) = file.map(|file| Journal::open(file, id)).unzip();
        let mut purges = Purges {
            sites,
            journal: id,
            forgot: false,
            count: AtomicU64::new(0),
            table: RwLock::default(),
            marks: Marks::new(),
            figures: Figures::default(),
            jobs: Mutex::default(),
            elsewhere: ArcSwapOption::empty(),
        };
        if let Some(read) = read {
            (purges.journal, purges.forgot) = (read.id, read.forgot);
            purges.count = AtomicU64::new(read.count);
            purges.figures.entries.store(read.table.len() as u64, Ordering::Relaxed);
            purges.table = RwLock::new(read.table);
        }
        let purges = Arc::new(purges);
        let keeper = keeper::start(purges.clone(), journal)?;
        Ok((purges, keeper))
    }

    /// Goes on with the journal at `file`, which another process had that follows no more: what it
    /// wrote there counts here too, and nobody is told any more what ends. Blocks.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn go_on(self: &Arc<Self>, file: Option<&Path>) -> std::io::Result<Keeper> {
        let journal = file.map(|file| {
            let (journal, read) = Journal::open(file, self.journal);
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            read.table.purges().iter().for_each(|purge| table.apply(purge));
            let count = self.count().max(read.count);
            self.count.store(count, Ordering::Release);
            self.figures.entries.store(table.len() as u64, Ordering::Relaxed);
            drop(table);
            // Nobody waits for this lock, however long the disk takes.
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            journal.taken_on(self.journal, count, &table)
        });
        self.tell_nobody();
        keeper::start(self.clone(), journal)
    }

    /// The birth of what an origin is asked for now.
    pub fn birth(&self) -> Birth {
        let number = self.count();
        let (journal, invalidations) = (self.journal, self.marks.count());
        Birth { journal, number, invalidations, reckoned: AtomicU64::new(number + 1) }
    }

    /// The number of the last purge.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// What purges leave of a head of `key`.
    pub fn reckon(&self, key: &ObjectKey, birth: &Birth, tags: &Tags) -> Standing {
        let count = self.count();
        if birth.reckoned.load(Ordering::Relaxed) > count {
            return Standing::Untouched;
        }
        let is_ours = birth.journal == self.journal && birth.number <= count;
        let born = if is_ours { birth.number } else { 0 };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let covered = table.covers(self.site_hash(key), key, tags, born);
        drop(table);
        // Nobody knows what was purged where it comes from.
        let is_foreign = !is_ours && (birth.journal != 0 || self.forgot);
        let reckoned = || Birth { reckoned: AtomicU64::new(count + 1), ..*birth };
        match covered {
            Covered::Gone => Standing::Gone,
            Covered::Doubted => Standing::Doubted(reckoned()),
            _ if is_foreign => Standing::Doubted(reckoned()),
            Covered::Stale { since_seconds } => {
                let since = UNIX_EPOCH + Duration::from_secs(since_seconds);
                Standing::StaleSince(since, reckoned())
            }
            Covered::Not => {
                birth.reckoned.store(count + 1, Ordering::Relaxed);
                Standing::Untouched
            }
        }
    }

    /// Whether what is to be purged covers a head of `key`, and it is there: not gone before.
    pub fn is_sought(&self, sought: &Sought, key: &ObjectKey, birth: &Birth, tags: &Tags) -> bool {
        let covered = sought.table.covers(self.site_hash(key), key, tags, 0);
        covered != Covered::Not && !matches!(self.reckon(key, birth, tags), Standing::Gone)
    }

    /// Nothing of `key` that is asked for now, and was not answered yet, is to be kept: what it is
    /// has changed. What is held of it is for the caller to forget, after this.
    pub fn invalidate(&self, key: &ObjectKey) {
        self.marks.add(key);
    }

    /// Whether `key` was invalidated since its origin was asked for it.
    pub fn is_invalid(&self, key: &ObjectKey, birth: &Birth) -> bool {
        self.marks.cover(key, birth.invalidations)
    }

    /// Whether something was purged or invalidated that covers every head of `key` born with
    /// `birth`, whatever its tags.
    pub fn covers(&self, key: &ObjectKey, birth: &Birth) -> bool {
        self.is_invalid(key, birth)
            || self.count() > birth.number && {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                let (site, tags) = (self.site_hash(key), Tags::default());
                table.covers(site, key, &tags, birth.number) != Covered::Not
            }
    }

    /// What is counted of purges.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    fn site_hash(&self, key: &ObjectKey) -> u64 {
        let sites = self.sites.load();
        scope::site_hash(&sites.get(key.site()).expect("a key is of a site that is, or was").name)
    }

    fn site_name(&self, hash: u64) -> String {
        let sites = self.sites.load();
        let site = sites.iter().find(|site| scope::site_hash(&site.name) == hash);
        site.map_or_else(|| "*".to_owned(), |site| site.name.clone())
    }
}

#[cfg(test)]
mod tests;
