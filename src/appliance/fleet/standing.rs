//! How a box stands with its control planes, for who looks at it: metrics, the status page,
//! `tidegate status`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::held::Held;
use crate::control::snapshot::Snapshot;
use crate::control::status::{FleetStatus, SnapshotStatus};
use crate::metrics::{Metrics, fleet};

/// Shared by the agent and by who asks.
pub(in crate::appliance) struct Standing {
    name: String,
    pub(super) held: Held,
    is_heard: AtomicBool,
    pub(super) beats_failed: AtomicU64,
    /// In seconds since 1970; 0 where there is none.
    certificate_ends: AtomicU64,
    told: Mutex<Told>,
}

/// What was told of it.
#[derive(Default)]
struct Told {
    /// Who heard it last.
    control: Option<String>,
    /// Since when nobody has, and why not.
    failing: Option<(Instant, String)>,
    /// What was logged of that.
    logged: Vec<String>,
}

impl Standing {
    pub(super) fn new(name: &str, held: Held) -> Standing {
        Standing {
            name: name.to_owned(),
            held,
            is_heard: AtomicBool::new(false),
            beats_failed: AtomicU64::new(0),
            certificate_ends: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    /// A control plane has heard it.
    pub(super) fn heard(&self, control: String) {
        let mut told = self.told();
        if !self.is_heard.swap(true, Ordering::Relaxed) {
            tracing::info!("{control} hears this box, {}", self.name);
        }
        *told = Told { control: Some(control), ..Told::default() };
    }

    /// Whom it says that there is, the snapshot of now.
    pub(in crate::appliance) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.held.current()
    }

    /// For how long nobody has said that it is the latest; `None`: there is none.
    pub(in crate::appliance) fn age(&self, now: SystemTime) -> Option<Duration> {
        self.held.age(now)
    }

    /// None has; what nobody mends by waiting is worse.
    pub(super) fn unheard(&self, why: String, mends: Mends) {
        self.is_heard.store(false, Ordering::Relaxed);
        let mut told = self.told();
        let since = told.failing.take().map_or_else(Instant::now, |(since, _)| since);
        // Several control planes may fail in turn, each in its way.
        if !told.logged.contains(&why) && told.logged.len() < LOGGED_MAX {
            told.logged.push(why.clone());
            match mends {
                Mends::ByItself => tracing::warn!("no control plane hears this box: {why}"),
                Mends::ByHand => tracing::error!("no control plane hears this box: {why}"),
            }
        }
        told.failing = Some((since, why));
    }

    pub(super) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    pub(super) fn certificate_ends(&self, at: u64) {
        self.certificate_ends.store(at, Ordering::Relaxed);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the status page.
    pub(in crate::appliance) fn status(&self) -> FleetStatus {
        let (now, ends) = (SystemTime::now(), self.certificate_ends.load(Ordering::Relaxed));
        let told = self.told();
        let snapshot = |one: Arc<crate::control::snapshot::Snapshot>| SnapshotStatus {
            epoch: one.number.epoch,
            counter: one.number.counter,
            made_at: one.made_at,
            age_seconds: self.held.age(now).unwrap_or_default().as_secs(),
            appliances: one.fleet.members().len() as u64,
            key_files: one.keys.len() as u64,
        };
        FleetStatus {
            name: self.name.clone(),
            is_heard: self.is_heard(),
            control: told.control.clone(),
            failing_seconds: told.failing.as_ref().map(|(since, _)| since.elapsed().as_secs()),
            why: told.failing.as_ref().map(|(_, why)| why.clone()),
            certificate_ends_at: (ends > 0).then_some(ends),
            snapshot: self.held.current().map(snapshot),
            refused: self.held.refused().into_iter().collect(),
            last_refusal: self.held.last_refusal(),
        }
    }

    /// Has metrics tell of it.
    pub(super) fn register(self: &Arc<Standing>, metrics: &Metrics) {
        let gauge = |series, read: fn(&Standing) -> u64| {
            let standing = self.clone();
            metrics.read_at_scrape(series, move || read(&standing));
        };
        gauge(fleet::SNAPSHOT_AGE, |it| {
            it.held.age(SystemTime::now()).unwrap_or_default().as_secs()
        });
        gauge(fleet::SNAPSHOT_EPOCH, |it| it.held.current().map_or(0, |one| one.number.epoch));
        gauge(fleet::SNAPSHOT_COUNTER, |it| it.held.current().map_or(0, |one| one.number.counter));
        gauge(fleet::IS_HEARD, |it| u64::from(it.is_heard()));
        gauge(fleet::BEATS_FAILED, |it| it.beats_failed.load(Ordering::Relaxed));
        gauge(fleet::CERTIFICATE_ENDS, |it| it.certificate_ends.load(Ordering::Relaxed));
        let standing = self.clone();
        metrics.read_each_at_scrape(fleet::SNAPSHOTS_REFUSED, move || standing.held.refused());
    }
}

/// Whether somebody has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mends {
    /// It passes.
    ByItself,
    /// An operator has to.
    ByHand,
}

const LOGGED_MAX: usize = 16;
