//! What boxes go by: the fleet as it is now, and the snapshot that says so.
//!
//! The fleet is looked at whenever something is said, and every second, as silence says something
//! too. A new snapshot is published only when boxes should know something else: not for every
//! heartbeat. Its number is kept before anybody sees it, so that no number is ever given twice.

use std::collections::BTreeSet;
use std::fmt;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::figures::Last;
use super::{Plane, PlaneError, lock};
use crate::control::issuer::Issuer;
use crate::control::registry::fleet::{Fleet, Member, Standing};
use crate::control::registry::{Family, Registry, Room, Rules};
use crate::control::snapshot::{Number, PublicKeys, Serial, Signed, Snapshot, SnapshotError};
use crate::control::state::{Known, State, StateError};
use crate::limits::{SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_BYTES_PER_SECOND_ILL};
use crate::moment::unix_seconds;

/// The snapshot that was published last, and who waits for the next one.
pub(super) struct Published {
    latest: watch::Sender<Option<Arc<Latest>>>,
    /// Something was said.
    heard: Notify,
    /// Nothing can be published; told once.
    is_stuck: AtomicBool,
    /// What another control plane published last, as it was taken.
    taken: Mutex<Option<Arc<Bytes>>>,
    /// Whom the fleet has no place for; told once.
    left_out: Mutex<BTreeSet<String>>,
}

/// A snapshot as it is sent, and what it says.
pub(super) struct Latest {
    pub(super) bytes: Bytes,
    pub(super) snapshot: Snapshot,
}

impl Published {
    /// Who waits for what is published from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Latest>>> {
        self.latest.subscribe()
    }

    /// The number of the last one.
    pub(super) fn number(&self) -> Number {
        self.latest.borrow().as_ref().map(|latest| latest.snapshot.number).unwrap_or_default()
    }

    /// The last one as it counts now.
    pub(super) fn last(&self, now: u64) -> Last {
        let latest = self.latest.borrow();
        let snapshot = latest.as_ref().map(|latest| &latest.snapshot);
        Last {
            number: snapshot.map(|one| one.number).unwrap_or_default(),
            age_seconds: snapshot.map_or(0, |one| now.saturating_sub(one.made_at)),
            is_stuck: self.is_stuck.load(Ordering::Relaxed),
        }
    }

    /// Somebody said something: look again.
    pub(super) fn look(&self) {
        self.heard.notify_one();
    }
}

/// Refuses a state whose epoch nobody has begun who may.
pub(super) fn look_at_epoch(state: &State, issuer: &Issuer) -> Result<(), PlaneError> {
    let Known { number, order, .. } = &*state.known();
    let keys = PublicKeys::of(&[issuer.signing().public()]).expect("it is a key");
    let is_ordered =
        order.as_ref().is_some_and(|order| order.epoch == number.epoch && order.is_of(&keys));
    match number.epoch <= FIRST_EPOCH || is_ordered {
        true => Ok(()),
        false => Err(PlaneError::Epoch { epoch: number.epoch }),
    }
}

/// The registry and the snapshot as they were before the start; of appliances that were imported
/// all count as well until they are heard. Blocks.
pub(super) fn resumed(
    state: &State,
    issuer: &Issuer,
    rules: &Rules,
    now: Instant,
) -> Result<(Registry, Published), PlaneError> {
    let keys = PublicKeys::of(&[issuer.signing().public()]).expect("it is a key");
    let latest = match state.last_snapshot_now()? {
        None => None,
        Some(bytes) => match Signed::open(&bytes, &keys) {
            Ok(snapshot) => Some(Arc::new(Latest { bytes, snapshot })),
            // Boxes would not believe the next one either.
            Err(SnapshotError::Unverified) => return Err(PlaneError::SigningKey),
            // One of another version is of no use: the next one follows at once.
            Err(_) => None,
        },
    };
    let known = state.known();
    let imported = || match known.number == Number::default() {
        true => Fleet::default(),
        false => Fleet::from(known.appliances.values().cloned().collect::<Vec<_>>()),
    };
    let before =
        latest.as_ref().map_or_else(imported, |latest: &Arc<Latest>| latest.snapshot.fleet.clone());
    let mut registry = Registry::resumed(rules.clone(), &before, now);
    let left_out = settle(&mut registry, &known, BTreeSet::new(), now);
    let published = Published {
        latest: watch::Sender::new(latest),
        heard: Notify::new(),
        is_stuck: AtomicBool::new(false),
        taken: Mutex::default(),
        left_out: Mutex::new(left_out),
    };
    Ok((registry, published))
}

/// Has the registry know the appliances that the state knows, and no others; whom it has no place
/// for, which is told of those who were not `left_out` before.
fn settle(
    registry: &mut Registry,
    known: &Known,
    left_out: BTreeSet<String>,
    now: Instant,
) -> BTreeSet<String> {
    let gone = registry.names().filter(|name| !known.appliances.contains_key(*name));
    let gone: Vec<String> = gone.map(str::to_owned).collect();
    for name in gone {
        registry.remove(&name);
    }
    let mut still = BTreeSet::new();
    for appliance in known.appliances.values() {
        // Most are as they were, at nearly every look.
        if registry.has(appliance) {
            continue;
        }
        let Err(error) = registry.register(appliance.clone(), now) else { continue };
        if !left_out.contains(appliance.name()) {
            tracing::warn!("{} is left out of the fleet: {error}", appliance.name());
        }
        still.insert(appliance.name().to_owned());
    }
    still
}

impl Plane {
    /// Keeps the fleet and the snapshot as they should be, for ever. Safe to drop.
    pub async fn keep_current(&self) {
        loop {
            self.look(Instant::now(), SystemTime::now()).await;
            sleep(BETWEEN_LOOKS).await;
            // Nothing said for a while says something too.
            let said = async {
                tokio::select! {
                    () = self.published.heard.notified() => {}
                    () = self.state.changed() => {}
                }
            };
            let _ = timeout(LOOKS_AT_LEAST, said).await;
        }
    }

    /// Looks once.
    pub(super) async fn look(&self, now: Instant, time: SystemTime) {
        self.renew_own(time);
        self.take_latest();
        if self.state.is_away() {
            // Boxes may well be heard by others: what was so last counts.
            return;
        }
        let fleet = Arc::new(self.judged(now));
        self.fleet.store(fleet.clone());
        if !self.state.is_leading() {
            self.published.is_stuck.store(false, Ordering::Relaxed);
            return;
        }
        match self.publish(&fleet, time).await {
            Ok(()) => self.published.is_stuck.store(false, Ordering::Relaxed),
            // Who was first has published; the next look sees what.
            Err(error) if error.is_contended() => {}
            Err(error) => {
                if !self.published.is_stuck.swap(true, Ordering::Relaxed) {
                    tracing::error!("no snapshot can be published, the last one stays: {error}");
                }
            }
        }
    }

    /// How all boxes are, by what all control planes heard.
    fn judged(&self, now: Instant) -> Fleet {
        let mut registry = lock(&self.registry);
        if self.state.has_returned() {
            let latest = self.published.latest.borrow().clone();
            let none = Fleet::default();
            let before = latest.as_ref().map_or(&none, |latest| &latest.snapshot.fleet);
            *registry = Registry::resumed(self.settings.rules.clone(), before, now);
        }
        let mut left_out = lock(&self.published.left_out);
        *left_out = settle(&mut registry, &self.state.known(), take(&mut left_out), now);
        for (name, beat) in self.state.heard() {
            // Who was removed meanwhile says so himself.
            let _ = registry.hear(&name, beat, now);
        }
        registry.fleet(now)
    }

    /// Hands on what another control plane has published.
    fn take_latest(&self) {
        if let Some(bytes) = self.state.latest() {
            self.hand_on(bytes);
        }
    }

    /// The same of one that is seen now.
    pub(super) fn hand_on(&self, bytes: Arc<Bytes>) {
        let is_taken = lock(&self.published.taken).replace(bytes.clone());
        if is_taken.is_some_and(|taken| Arc::ptr_eq(&taken, &bytes)) {
            return;
        }
        let keys = PublicKeys::of(&[self.issuer.signing().public()]).expect("it is a key");
        match Signed::open(&bytes, &keys) {
            Ok(snapshot) => {
                let (number, last) = (snapshot.number, self.published.number());
                // Where the state has gone back, what was offered before is none of it.
                let has_gone_back = number < last && number == self.state.known().number;
                if number > last || has_gone_back {
                    let latest = Latest { bytes: Bytes::clone(&bytes), snapshot };
                    self.published.latest.send_replace(Some(Arc::new(latest)));
                }
            }
            Err(error) => tracing::error!("a snapshot on etcd is none of this fleet: {error}"),
        }
    }

    /// Publishes what is so now, if boxes were told something else.
    async fn publish(&self, fleet: &Fleet, time: SystemTime) -> Result<(), Unpublished> {
        let (known, now) = (self.state.known(), unix_seconds(time));
        let before = known.number;
        let revoked: BTreeSet<Serial> = known.revoked(now).cloned().collect();
        let latest = self.published.latest.borrow().clone();
        let is_told = latest.is_some_and(|latest| {
            let Snapshot { number, fleet: told, keys, revoked: gone, made_at } = &latest.snapshot;
            let is_as_kept = *number == before && *keys == known.keys && *gone == revoked;
            // How appliances are changes often where they are many.
            let age = made_at.abs_diff(now);
            let bytes_per_second = || match takes_out(told, fleet) {
                true => SNAPSHOT_BYTES_PER_SECOND_ILL,
                false => SNAPSHOT_BYTES_PER_SECOND,
            };
            let next_after = || next_after(latest.bytes.len(), bytes_per_second());
            let waits = || has_same(told, fleet) && age < next_after();
            is_as_kept && (waits() || says(told, fleet))
        });
        if is_told {
            return Ok(());
        }
        let number = Number { epoch: before.epoch.max(FIRST_EPOCH), counter: before.counter + 1 };
        let snapshot = Snapshot {
            number,
            made_at: now,
            fleet: fleet.clone(),
            keys: known.keys.clone(),
            revoked,
        };
        let bytes = snapshot.sign(self.issuer.signing()).map_err(Unpublished::Snapshot)?;
        self.state.publish(before, number, bytes.clone()).await.map_err(Unpublished::State)?;
        tracing::info!("snapshot {number}: {} appliances", snapshot.fleet.members().len());
        self.figures.published();
        let latest = Arc::new(Latest { bytes: bytes.into(), snapshot });
        self.published.latest.send_replace(Some(latest));
        Ok(())
    }

    /// Another certificate of its own, before the one of now ends.
    fn renew_own(&self, now: SystemTime) {
        if now < self.own.load().renew_at {
            return;
        }
        match self.issuer.own(&self.settings.names, now) {
            Ok(own) => self.own.store(Arc::new(own)),
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// Why nothing is published.
enum Unpublished {
    Snapshot(SnapshotError),
    State(StateError),
}

impl Unpublished {
    fn is_contended(&self) -> bool {
        matches!(self, Unpublished::State(StateError::Contended))
    }
}

impl fmt::Display for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpublished::Snapshot(error) => error.fmt(f),
            Unpublished::State(error) => error.fmt(f),
        }
    }
}

/// Seconds until a snapshot may follow one of so many bytes that says no more than how appliances
/// are: what is written stays bounded however large it is.
fn next_after(bytes: usize, bytes_per_second: usize) -> u64 {
    (bytes / bytes_per_second).max(1) as u64
}

/// Whether an appliance gets no viewers now that got them; the same appliances are in both.
fn takes_out(told: &Fleet, now: &Fleet) -> bool {
    let is_out = |member: &Member, family| member.standing(family) == Some(Standing::Ill);
    told.members().iter().zip(now.members()).any(|(told, now)| {
        let mut families = Family::ALL.into_iter();
        families.any(|family| is_out(now, family) && !is_out(told, family))
    })
}

/// Whether who was told `told` of the fleet steers as by what is so now.
fn says(told: &Fleet, now: &Fleet) -> bool {
    told.members().len() == now.members().len()
        && told.members().iter().zip(now.members()).all(|(told, now)| is_alike(told, now))
}

/// Whether the same appliances are in both, however they are.
fn has_same(told: &Fleet, now: &Fleet) -> bool {
    let mut both = told.members().iter().zip(now.members());
    told.members().len() == now.members().len()
        && both.all(|(told, now)| told.appliance == now.appliance)
}

fn is_alike(one: &Member, other: &Member) -> bool {
    let standings = |member: &Member| Family::ALL.map(|family| member.standing(family));
    one.appliance == other.appliance
        && standings(one) == standings(other)
        && one.phase() == other.phase()
        && room(one.room) == room(other.room)
}

/// A share that differs by little is no news.
fn room(room: Room) -> (u8, u8) {
    match room {
        Room::Open => (0, 0),
        Room::Tight { share_percent } => (1, share_percent / SHARE_STEP_PERCENT),
        Room::Full => (2, 0),
    }
}

const FIRST_EPOCH: u64 = 1;
const SHARE_STEP_PERCENT: u8 = 25;
/// Heartbeats of a large fleet are looked at together.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const LOOKS_AT_LEAST: Duration = Duration::from_secs(1);
