//! How well a volume is: online, read-only, or offline, and what brought it there.
//!
//! It only gets worse. A few errors on reads are borne, eight in ten minutes are not; one on a
//! write is not. A device that is gone, or that can't keep the region table, makes a volume that
//! is not used at all. A region that fails twice is taken out of use.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::VOLUME_ILL_REGIONS_MAX;
use crate::store::index::RegionId;

use super::metadata::MetadataError;

const ERRORS_MAX: usize = 8;
const ERRORS_WITHIN: Duration = Duration::from_secs(600);
const ERRORS_PER_REGION_MAX: u32 = 2;

/// Reads that fail are told one by one this far apart; between, they are counted.
const TOLD_EVERY: Duration = Duration::from_secs(60);

const ONLINE: u8 = 0;
const READ_ONLY: u8 = 1;
const OFFLINE: u8 = 2;
const CLOSED: u8 = 3;

/// What a volume may be used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Everything.
    #[default]
    Online,
    /// Reading.
    ReadOnly {
        /// What brought it there.
        why: String,
    },
    /// Nothing.
    Offline {
        /// What brought it there.
        why: String,
    },
}

impl State {
    /// The metrics label.
    pub fn label(&self) -> &'static str {
        match self {
            State::Online => "online",
            State::ReadOnly { .. } => "read-only",
            State::Offline { .. } => "offline",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Online => f.write_str("online"),
            State::ReadOnly { why } => write!(f, "read-only: {why}"),
            State::Offline { why } => write!(f, "offline: {why}"),
        }
    }
}

/// What is to be done about a region after an error in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Bear,
    Quarantine,
}

pub(super) struct Health {
    /// Of the volume, for the log.
    name: Arc<str>,
    /// What an operator can do when it fails: the end of a line in the log.
    remedy: Arc<str>,
    /// Of the condition, to be read without a lock.
    level: AtomicU8,
    condition: Mutex<Condition>,
    /// Another process writes to it.
    is_handed_over: AtomicBool,
}

struct Condition {
    state: State,
    errors: VecDeque<Instant>,
    ill_regions: HashMap<RegionId, u32>,
    /// When the log was last told of a read that failed, and how many failed since.
    told: Option<Instant>,
    untold: u64,
}

impl Health {
    pub(super) fn new(name: Arc<str>, remedy: Arc<str>) -> Health {
        let condition = Condition {
            state: State::Online,
            errors: VecDeque::new(),
            ill_regions: HashMap::new(),
            told: None,
            untold: 0,
        };
        let (level, condition) = (AtomicU8::new(ONLINE), Mutex::new(condition));
        Health { name, remedy, level, condition, is_handed_over: AtomicBool::new(false) }
    }

    pub(super) fn state(&self) -> State {
        self.condition().state.clone()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.level.load(Ordering::Relaxed) == ONLINE
    }

    pub(super) fn is_readable(&self) -> bool {
        self.level.load(Ordering::Relaxed) < OFFLINE
    }

    /// Whether it is offline because it failed.
    pub(super) fn is_lost(&self) -> bool {
        self.level.load(Ordering::Relaxed) == OFFLINE
    }

    /// It is no better than it was left.
    pub(super) fn left_as(&self, state: &State) {
        let (level, why) = match state {
            State::Online => return,
            State::ReadOnly { why } => (READ_ONLY, why),
            State::Offline { why } => (OFFLINE, why),
        };
        let Health { name, remedy, .. } = self;
        tracing::error!("volume {name} is still {} {why}; {remedy}", state.label());
        self.condition().state = state.clone();
        self.level.store(level, Ordering::Relaxed);
    }

    /// It failed.
    pub(super) fn read_only(&self, why: String) {
        if self.write_no_more(&why) {
            let Health { name, remedy, .. } = self;
            tracing::error!("volume {name} is read-only from now on: {why}; {remedy}");
        }
    }

    /// It is well, but nothing for this version to write.
    pub(super) fn not_ours_to_write(&self, why: &str) {
        if self.write_no_more(why) {
            tracing::warn!("volume {} is read-only: {why}", self.name);
        }
    }

    fn write_no_more(&self, why: &str) -> bool {
        let mut condition = self.condition();
        let news = condition.state == State::Online;
        if news {
            condition.state = State::ReadOnly { why: why.to_owned() };
            self.level.store(READ_ONLY, Ordering::Relaxed);
        }
        news
    }

    pub(super) fn offline(&self, why: String) {
        let mut condition = self.condition();
        if !matches!(condition.state, State::Offline { .. }) {
            let Health { name, remedy, .. } = self;
            tracing::error!("volume {name} is offline from now on: {why}; {remedy}");
            condition.state = State::Offline { why };
            self.level.store(OFFLINE, Ordering::Relaxed);
        }
    }

    /// Closed by its owner: nobody has to act.
    pub(super) fn closed(&self) {
        let mut condition = self.condition();
        if !matches!(condition.state, State::Offline { .. }) {
            condition.state = State::Offline { why: "it was closed".to_owned() };
        }
        self.level.store(CLOSED, Ordering::Relaxed);
    }

    /// Its owner wrote all there was to write, and another process writes from now on.
    pub(super) fn handed_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
        if self.write_no_more("the process that follows writes to it") {
            tracing::info!("volume {} is handed over", self.name);
        }
    }

    /// Whether it is: what ends is that process's to write.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Relaxed)
    }

    /// A read failed, or brought something else than was written.
    pub(super) fn read_failed(
        &self,
        region: RegionId,
        why: &dyn fmt::Display,
        now: Instant,
    ) -> Verdict {
        let many = {
            let mut condition = self.condition();
            condition.errors.push_back(now);
            while condition.errors.front().is_some_and(|at| now.duration_since(*at) > ERRORS_WITHIN)
            {
                condition.errors.pop_front();
            }
            condition.errors.len() >= ERRORS_MAX
        };
        if many {
            let minutes = ERRORS_WITHIN.as_secs() / 60;
            let errors = format!("{ERRORS_MAX} errors in {minutes} minutes");
            self.read_only(format!("{errors}, the last one: {why}"));
        }
        self.judge(region)
    }

    /// Tells the log of a read at byte `at` of the volume that failed, now and then.
    pub(super) fn tell_of_read(&self, at: u64, why: &dyn fmt::Display, now: Instant) {
        let untold = {
            let mut condition = self.condition();
            if condition.told.is_some_and(|told| now.duration_since(told) < TOLD_EVERY) {
                condition.untold += 1;
                return;
            }
            condition.told = Some(now);
            std::mem::take(&mut condition.untold)
        };
        let more = match untold {
            0 => String::new(),
            untold => format!("; {untold} more since the last such line"),
        };
        tracing::warn!("volume {}: a read at byte {at} failed: {why}{more}", self.name);
    }

    fn judge(&self, region: RegionId) -> Verdict {
        let mut condition = self.condition();
        let known = condition.ill_regions.len();
        if known >= VOLUME_ILL_REGIONS_MAX && !condition.ill_regions.contains_key(&region) {
            return Verdict::Bear;
        }
        let errors = condition.ill_regions.entry(region).or_insert(0);
        *errors += 1;
        if *errors == ERRORS_PER_REGION_MAX { Verdict::Quarantine } else { Verdict::Bear }
    }

    /// A record could not be written.
    pub(super) fn write_failed(&self, source: &io::Error) {
        if is_gone(source) {
            self.offline(source.to_string());
        } else {
            self.read_only(format!("a write failed: {source}{}", room_first(source)));
        }
    }

    /// What tells where records are could not be written.
    pub(super) fn metadata_failed(&self, error: &MetadataError) {
        self.offline(error.told());
    }

    /// The device is gone, if the error says so.
    pub(super) fn note_gone(&self, source: &io::Error) {
        if is_gone(source) {
            self.offline(source.to_string());
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().expect("nothing panics while it changes the health of a volume")
    }
}

/// What comes before it is taken for well, if a file that takes its room as it is written found
/// none: said where the reason is, so that it is said as long as that is.
pub(super) fn room_first(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            " (first free space where its file lies, or it fails again)"
        }
        _ => "",
    }
}

fn is_gone(source: &io::Error) -> bool {
    matches!(source.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::DeviceError;

    #[tokio::test(start_paused = true)]
    async fn eight_errors_in_ten_minutes_make_a_volume_read_only() {
        let health = Health::new("a".into(), "".into());
        for n in 0..20 {
            assert!(health.is_writable(), "{n}");
            health.read_failed(RegionId(n), &"EIO", Instant::now());
            tokio::time::advance(Duration::from_secs(86)).await;
        }
        health.read_failed(RegionId(30), &"EIO", Instant::now());
        assert!(health.is_writable());
        health.read_failed(RegionId(31), &"EIO", Instant::now());
        assert!(!health.is_writable() && health.is_readable());
        assert!(health.state().to_string().contains("8 errors in 10 minutes"));
    }

    #[test]
    fn one_failed_write_is_enough_and_a_device_that_is_gone_is_not_read() {
        let health = Health::new("a".into(), "".into());
        health.write_failed(&io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(health.state().label(), "read-only");
        health.write_failed(&io::Error::from_raw_os_error(libc::ENODEV));
        assert_eq!(health.state().label(), "offline");
        health.read_only("too late".to_owned());
        assert!(!health.is_readable());
    }

    #[test]
    fn who_found_no_room_is_told_to_make_some_first() {
        for (number, is_told) in [(libc::ENOSPC, true), (libc::EDQUOT, true), (libc::EIO, false)] {
            let source = || io::Error::from_raw_os_error(number);
            let health = Health::new("a".into(), "".into());
            health.write_failed(&source());
            let read_only = health.state().to_string();
            let error = MetadataError { what: "a footer", source: DeviceError::Failed(source()) };
            health.metadata_failed(&error);
            for told in [read_only, health.state().to_string()] {
                assert_eq!(told.contains(" (first free space where its file lies"), is_told);
                assert!(told.contains(&source().to_string()), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn a_region_that_fails_twice_is_taken_out_of_use_once() {
        let health = Health::new("a".into(), "".into());
        let verdicts: Vec<_> =
            (0..3).map(|_| health.read_failed(RegionId(5), &"EIO", Instant::now())).collect();
        assert_eq!(verdicts, [Verdict::Bear, Verdict::Quarantine, Verdict::Bear]);
    }
}
