//! A state that several control planes share: on etcd, where each change is a transaction that says
//! what it expects.
//!
//! A thread of its own asks etcd; what it sees there is in memory (`mirror.rs`) and swapped whole,
//! and a copy of it is on the disk for the time when nobody answers. Who leads, by a lease,
//! publishes snapshots; the others hand them on. Heartbeats are no state: they go from one control
//! plane to the others through keys that live no longer than a lease does.

mod beats;
mod client;
mod commit;
mod copy;
mod follow;
mod identity;
mod mirror;
mod presence;
mod upkeep;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::mirror::Seats;
use super::{AuditRecord, By, Change, EtcdSettings, Expect, Known, Node, Peers};
use super::{Purpose, StateError};
use crate::control::registry::Heartbeat;

/// The state on etcd, until it is dropped; blocks for a moment then.
pub(super) struct Etcd {
    shared: Arc<Shared>,
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// What the thread sees, and who asks for it.
struct Shared {
    settings: EtcdSettings,
    client: Client,
    /// What this one is called.
    node: String,
    known: Arc<ArcSwap<Known>>,
    latest: ArcSwapOption<Bytes>,
    seats: ArcSwap<Seats>,
    /// Values that were split, by the names of their parts.
    whole: Mutex<BTreeMap<String, Bytes>>,
    /// The names of all that are named, whether they could be read or not.
    named: Mutex<BTreeSet<String>>,
    /// Nothing is there any more where a fleet was.
    is_gone: AtomicBool,
    /// Up to which revision it is seen.
    seen: watch::Sender<i64>,
    /// Something else is seen than before.
    changed: Notify,
    /// Since when nobody answers.
    away_since: Mutex<Option<Instant>>,
    has_returned: AtomicBool,
    /// By what names it takes part, if it does.
    attends: watch::Sender<Option<Vec<String>>>,
    held: Mutex<Held>,
    beats: Mutex<Beats>,
}

/// What this one holds on etcd.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    lease: Option<i64>,
    /// The revision of the key that says that it leads, and how long that is so at least.
    leads: Option<(i64, Instant)>,
}

/// What boxes said: to this one, to be told to the others; and to the others.
#[derive(Debug, Default)]
struct Beats {
    ours: BTreeMap<String, Heartbeat>,
    theirs: Vec<(String, Heartbeat)>,
}

impl Etcd {
    /// Reads what is there, or the copy of it where nobody answers. Blocks.
    pub(super) fn open(
        settings: EtcdSettings,
        to: Purpose,
        now: SystemTime,
    ) -> Result<Etcd, StateError> {
        let shared = Arc::new(Shared::new(settings));
        let failed = |what: String| StateError::Away { what };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(error.to_string()))?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let (opened, is_opened) = mpsc::sync_channel(1);
        let (here, ends) = (shared.clone(), stop.clone());
        let work = move || runtime.block_on(here.run(&opened, &ends, (to, now)));
        let thread = thread::Builder::new().name("etcd".to_owned()).spawn(work);
        let thread = Some(thread.map_err(|error| failed(error.to_string()))?);
        let etcd = Etcd { shared, handle, stop, thread };
        let gone = || Err(failed("its thread has ended".to_owned()));
        is_opened.recv().unwrap_or_else(|_| gone()).map(|()| etcd)
    }

    /// What there is, as far as it was seen.
    pub(super) fn known(&self) -> Arc<ArcSwap<Known>> {
        self.shared.known.clone()
    }

    /// Whether the change was made, and seen. Made to its end once it has begun.
    pub(super) async fn commit(&self, change: Change) -> Result<bool, StateError> {
        self.shared.is_to_be_changed()?;
        self.there(|shared| async move { commit::make(&shared, change).await }).await
    }

    /// The latest changes of these, the newest first.
    pub(super) async fn audit(
        &self,
        of: &'static [By],
        count_max: usize,
    ) -> Result<Vec<AuditRecord>, StateError> {
        self.there(move |shared| async move { commit::audit(&shared, of, count_max).await }).await
    }

    async fn there<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<T, StateError>
    where
        F: Future<Output = Result<T, StateError>> + Send + 'static,
    {
        let done = self.handle.spawn(work(self.shared.clone())).await;
        done.unwrap_or_else(|error| Err(StateError::Away { what: error.to_string() }))
    }

    /// Takes part as a control plane, by these names.
    pub(super) fn attend(&self, names: &[String]) {
        self.shared.attends.send_replace(Some(names.to_vec()));
    }

    /// What a change expects that only who leads may make; `None`: another one does.
    pub(super) fn leads(&self) -> Option<(String, Expect)> {
        let (version, until) = self.shared.held().leads?;
        (Instant::now() < until)
            .then(|| (mirror::LEADER.to_owned(), Expect::Version(version as u64)))
    }

    /// The snapshot that was published last, as far as that is seen.
    pub(super) fn latest(&self) -> Option<Arc<Bytes>> {
        self.shared.latest.load_full()
    }

    /// Why nobody answers, if that is so for longer than a moment.
    pub(super) fn is_away(&self) -> bool {
        self.shared.is_away()
    }

    /// Whether somebody answers again since this was asked last, and something may have been
    /// missed.
    pub(super) fn has_returned(&self) -> bool {
        self.shared.has_returned.swap(false, Ordering::Relaxed)
    }

    /// Ends when something else is seen than before.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Has the others know what a box says.
    pub(super) fn tell(&self, name: &str, beat: &Heartbeat) {
        self.shared.beats().tell(name, beat);
    }

    /// What boxes said to the others since this was asked last.
    pub(super) fn heard(&self) -> Vec<(String, Heartbeat)> {
        mem::take(&mut self.shared.beats().theirs)
    }

    /// Who shares this state.
    pub(super) fn peers(&self) -> Peers {
        let (seats, this) = (self.shared.seats.load(), &self.shared.node);
        let node = |seat: &mirror::Seat| Node {
            id: seat.id.clone(),
            names: seat.names.clone(),
            since: seat.since,
            // Of itself it knows better than what is written there.
            leads: match seat.id == *this {
                true => self.leads().is_some(),
                false => seats.leader.as_ref().is_some_and(|leader| leader.id == seat.id),
            },
            is_this: seat.id == *this,
        };
        Peers { nodes: seats.all.iter().map(node).collect(), is_in_touch: !self.is_away() }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the thread that asks etcd has panicked");
        }
    }
}

impl Shared {
    fn new(settings: EtcdSettings) -> Shared {
        Shared {
            client: Client::new(&settings),
            settings,
            node: values::unique(),
            known: Arc::default(),
            latest: ArcSwapOption::empty(),
            seats: ArcSwap::default(),
            whole: Mutex::default(),
            named: Mutex::default(),
            is_gone: AtomicBool::new(false),
            seen: watch::Sender::new(0),
            changed: Notify::new(),
            away_since: Mutex::new(Some(Instant::now())),
            has_returned: AtomicBool::new(false),
            attends: watch::Sender::new(None),
            held: Mutex::default(),
            beats: Mutex::default(),
        }
    }

    /// All that the thread does.
    async fn run(
        &self,
        opened: &mpsc::SyncSender<Result<(), StateError>>,
        stop: &CancellationToken,
        (to, now): (Purpose, SystemTime),
    ) {
        // What etcd has is looked at beside what was there before.
        let is_known = to == Purpose::GoOn && copy::resume(self);
        let (mirror, begun) = match self.begin(now).await {
            Ok(mirror) => (Some(mirror), Ok(())),
            Err(why @ StateError::Away { .. }) if is_known => {
                let what = "the last state that was known is gone by, and it is asked again";
                tracing::error!("{why}; {what}");
                (None, Ok(()))
            }
            Err(error) => (None, Err(error)),
        };
        let is_begun = begun.is_ok();
        // Nobody waits for it where this fails.
        let _ = opened.send(begun);
        if !is_begun {
            return;
        }
        let all = async {
            tokio::join!(
                self.follow(mirror),
                self.attend(),
                self.tell_leaderless(),
                self.tell_beats(),
                self.keep_up(),
                self.keep_copy(),
            );
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
        let _ = timeout(LEFT_WITHIN, self.leave()).await;
    }

    /// The keys of the fleet, then all that is there.
    async fn begin(&self, now: SystemTime) -> Result<mirror::Mirror, StateError> {
        identity::settle(self, now).await?;
        let mut mirror = self.read_all().await?;
        self.look_back(mirror.revision);
        self.take(&mut mirror).await?;
        self.in_touch();
        Ok(mirror)
    }

    /// Refuses a change where it is not seen what is there, or nothing is.
    fn is_to_be_changed(&self) -> Result<(), StateError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        match *self.seen.borrow() {
            0 => Err(StateError::Away { what: "etcd was not read yet".to_owned() }),
            _ => Ok(()),
        }
    }

    /// Nothing is there of what was known.
    fn gone(&self) -> StateError {
        self.is_gone.store(true, Ordering::Relaxed);
        StateError::Gone { copy: self.settings.folder.join(copy::STATE_COPY) }
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.settings.prefix)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        lock(&self.beats)
    }

    fn is_away(&self) -> bool {
        let since = *lock(&self.away_since);
        since.is_some_and(|since| since.elapsed() > self.settings.timeout / 2)
    }

    /// Somebody answers, and what is there is seen.
    fn in_touch(&self) {
        let was_away = self.is_away();
        *lock(&self.away_since) = None;
        if was_away {
            tracing::info!("etcd answers: the state of the fleet is followed");
            self.has_returned.store(true, Ordering::Relaxed);
        }
        self.changed.notify_one();
    }

    /// Nobody does.
    fn out_of_touch(&self) {
        lock(&self.away_since).get_or_insert_with(Instant::now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody waits longer for a lease to be given back: it ends by itself.
const LEFT_WITHIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is shared where no member answers.
    pub(super) fn alone() -> Shared {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Shared::new(EtcdSettings {
            endpoints: vec![format!("http://{gone}")],
            prefix: "/tidegate".to_owned(),
            user: None,
            ca: None,
            shown: None,
            lease: Duration::from_secs(2),
            timeout: Duration::from_millis(200),
            folder: tempfile::tempdir().unwrap().path().to_owned(),
        })
    }
}
