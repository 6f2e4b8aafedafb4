//! Who does purges: a thread of its own, because the journal waits for a disk.
//!
//! What waits is done together, with one sync. The order of each purge: it is in the table, it is
//! in the journal, it counts, it is acknowledged. What a fill that begins before it counts brings
//! is covered by it.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Purges;
use super::elsewhere::Ending;
use super::journal::Journal;
use super::scope::{Hardness, Kind, Scope};
use super::table::{Purge, Table, UNKNOWN_SINCE};
use crate::limits::PURGES_WAITING_MAX;
use crate::moment::unix_seconds;

/// What is counted of purges.
#[derive(Debug, Default)]
pub struct Figures {
    pub(super) entries: AtomicU64,
    counts: [[AtomicU64; 2]; Kind::ALL.len()],
}

impl Figures {
    /// Things remembered.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Purges since the start.
    pub fn count(&self, kind: Kind, hardness: Hardness) -> u64 {
        self.of(kind, hardness).load(Ordering::Relaxed)
    }

    fn of(&self, kind: Kind, hardness: Hardness) -> &AtomicU64 {
        &self.counts[kind as usize - 1][hardness as usize]
    }
}

/// What is to be purged together.
pub(super) struct Job {
    scopes: Vec<Scope>,
    hardness: Hardness,
    reply: oneshot::Sender<Result<Purged, PurgeError>>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The number of the last purge.
    pub number: u64,
    /// Sites of which more was purged than is remembered: whatever is kept of them is in doubt,
    /// and asked about before it is used; `*` is all.
    pub overflowed: Vec<String>,
}

/// Why something was not purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeError {
    /// Too many wait.
    Busy,
    /// The appliance stops.
    Draining,
    /// The journal does not answer in time; it may be purged or not.
    Late,
    /// It is purged in this process; the other one of an upgrade does not answer in time.
    Elsewhere,
    /// The journal cannot be written; it may have been purged all the same.
    Journal {
        /// What the system said.
        reason: String,
    },
}

impl fmt::Display for PurgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PurgeError::Busy => f.write_str("too many purges wait; try again"),
            PurgeError::Draining => {
                f.write_str("the appliance stops, or another process takes over; try again")
            }
            PurgeError::Late => f.write_str(
                "the disk of the journal does not answer: it may be purged or not; purge again, \
                 and look at the disk of `ssd.state`",
            ),
            PurgeError::Elsewhere => f.write_str(
                "the other process of an upgrade does not say that it is purged there too: purge \
                 again",
            ),
            PurgeError::Journal { reason } => {
                write!(f, "not purged for good: the journal cannot be written: {reason}")
            }
        }
    }
}

impl std::error::Error for PurgeError {}

impl Purges {
    /// Purges all of it. When this returns it is remembered and holds for whoever asks from now on,
    /// or it is known that the journal does not answer `within` that time. Dropping it midway is
    /// safe: it is done all the same, and `log` is told of what is said here and of what comes of
    /// it then.
    ///
    /// # Errors
    /// What was not purged may be purged all the same, but must be purged again.
    pub async fn purge(
        self: &Arc<Purges>,
        scopes: Vec<Scope>,
        hardness: Hardness,
        within: Duration,
        log: impl Fn(&Result<Purged, PurgeError>) + Send + Sync + 'static,
    ) -> Result<Purged, PurgeError> {
        let (tell, told) = oneshot::channel();
        let purges = self.clone();
        tokio::spawn(async move {
            let mut tell = Some(tell);
            let mut say = |purged: Result<Purged, PurgeError>| {
                log(&purged);
                // Who asked may be gone, or was told already.
                tell.take().map(|tell| tell.send(purged))
            };
            let mut here = pin!(purges.purge_here(scopes, hardness));
            let purged = match timeout(within, &mut here).await {
                Ok(purged) => purged,
                Err(_) => {
                    let _ = say(Err(PurgeError::Late));
                    here.await
                }
            };
            let is_told = purges.are_told();
            let _ = say(match purged {
                Ok(purged) if is_told => purges.end_elsewhere(Ending::All).await.map(|()| purged),
                purged => purged,
            });
        });
        told.await.unwrap_or(Err(PurgeError::Draining))
    }

    pub(super) async fn purge_here(
        &self,
        scopes: Vec<Scope>,
        hardness: Hardness,
    ) -> Result<Purged, PurgeError> {
        let (reply, done) = oneshot::channel();
        {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let jobs = jobs.as_ref().ok_or(PurgeError::Draining)?;
            jobs.try_send(Job { scopes, hardness, reply }).map_err(|error| match error {
                TrySendError::Full(_) => PurgeError::Busy,
                TrySendError::Disconnected(_) => PurgeError::Draining,
            })?;
        }
        done.await.unwrap_or(Err(PurgeError::Draining))
    }
}

/// The thread; ends when it is told to.
pub struct Keeper {
    purges: Arc<Purges>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Whether something can be purged: it was not told to end.
    pub fn is_at_work(&self) -> bool {
        self.purges.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Does what waits, and ends. Blocks, but for no longer than `patience`: a disk may hang.
    ///
    /// # Errors
    /// It has not ended yet, which is told; it may write to the journal until it has.
    pub fn finish(self, patience: Duration) -> Result<(), Keeper> {
        *self.purges.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("the journal of purges does not end; it is left behind");
                return Err(self);
            }
            thread::sleep(LOOK_AGAIN);
        }
        if self.thread.join().is_err() {
            tracing::error!("the thread that purges panicked; its message is above");
        }
        Ok(())
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(2);

pub(super) fn start(purges: Arc<Purges>, mut journal: Option<Journal>) -> io::Result<Keeper> {
    let (sender, jobs) = sync_channel(PURGES_WAITING_MAX);
    let kept = purges.clone();
    let work = move || run(&kept, &jobs, journal.as_mut());
    let thread = thread::Builder::new().name("purge".to_owned()).spawn(work)?;
    *purges.jobs.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    Ok(Keeper { purges, thread })
}

fn run(purges: &Purges, jobs: &Receiver<Job>, mut journal: Option<&mut Journal>) {
    // Of a purge that was refused the table has the number: no other purge may have it again, or it
    // would count for what is stored between the two.
    let mut given = purges.count();
    while let Ok(first) = jobs.recv() {
        let mut together = vec![first];
        together.extend(jobs.try_iter().take(PURGES_WAITING_MAX));
        let at_seconds = unix_seconds(SystemTime::now());
        let mut batch = Batch { number: given, at_seconds, purges: Vec::new() };
        let mut replies = Vec::new();
        for Job { scopes, hardness, reply } in together {
            // Workers look at the table between one job and the next.
            let mut table = purges.table.write().unwrap_or_else(PoisonError::into_inner);
            let folded = batch.add(&mut table, &scopes, hardness);
            drop(table);
            replies.push((reply, batch.number, folded));
        }
        given = batch.number;
        // Only this thread changes it: nobody waits for this lock, however long the disk takes.
        let table = purges.table.read().unwrap_or_else(PoisonError::into_inner);
        let appended = match &mut journal {
            Some(journal) => journal.append(&batch.purges, batch.number, &table),
            None => Ok(()),
        };
        purges.figures.entries.store(table.len() as u64, Ordering::Relaxed);
        drop(table);
        if let Err(error) = &appended {
            tracing::error!("a purge was refused, as the journal cannot be written: {error}");
        } else {
            // What ends because another process says so is counted without this thread.
            purges.count.fetch_max(batch.number, Ordering::Release);
            for purge in &batch.purges {
                let count = purges.figures.of(purge.scope.kind, purge.hardness);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (reply, number, folded) in replies {
            let names = folded.into_iter().map(|site| purges.site_name(site));
            let purged = Purged { number, overflowed: names.collect() };
            purged.overflowed.iter().for_each(|site| warn_of_overflow(site));
            let failed = |error: &io::Error| PurgeError::Journal { reason: error.to_string() };
            // Who asked may be gone.
            let _ = reply.send(appended.as_ref().map_err(failed).map(|()| purged));
        }
    }
}

/// What is done together.
struct Batch {
    /// Of the last one.
    number: u64,
    at_seconds: u64,
    purges: Vec<Purge>,
}

impl Batch {
    /// Adds purges to the table; the sites that had to be folded for it.
    fn add(&mut self, table: &mut Table, scopes: &[Scope], hardness: Hardness) -> Vec<u64> {
        let mut folded = Vec::new();
        for scope in scopes {
            if let Some(site) = table.without_room_for(scope) {
                self.apply(table, Scope::whole(Kind::Fold, site), Hardness::Soft);
                folded.push(site);
            }
            self.apply(table, *scope, hardness);
        }
        folded.dedup();
        folded
    }

    fn apply(&mut self, table: &mut Table, scope: Scope, hardness: Hardness) {
        self.number += 1;
        let is_fold = scope.kind == Kind::Fold;
        let at_seconds = if is_fold { UNKNOWN_SINCE } else { self.at_seconds };
        let purge = Purge { number: self.number, at_seconds, scope, hardness };
        table.apply(&purge);
        self.purges.push(purge);
    }
}

fn warn_of_overflow(site: &str) {
    tracing::warn!(
        site,
        "more was purged than is remembered: all of the site is in doubt, and its origin is asked \
         about everything kept before it is used"
    );
}
