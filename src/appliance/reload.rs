//! A changed configuration in the place of the one that is served by: checked whole, then all of it
//! or nothing. Who has begun goes on with what he began with; what needs a start is named.

mod dates;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use tokio::sync::OwnedSemaphorePermit;

pub(super) use self::dates::{Outdated, look_at_dates};
use super::doors::{Lodge, NextDoors};
use super::parts::{Budget, Parts, forwarders, log_settings, viewer_settings};
use super::ssd::{Added, Tier, unusable};
use super::{load, look_at_volumes};
use crate::access_log::{AccessLog, NextOutput};
use crate::config::{
    self, Certificate, Change, Config, ConfigError, ConfigErrors, Counts, ListenerKind, LogLevel,
    is_of_volumes,
};
use crate::fill::client::Upstreams;
use crate::limits::SITES_MAX;
use crate::memory::{Class, Reservation, Use};
use crate::moment::unix_seconds;
use crate::site::Sites;

/// Reloads an appliance.
#[derive(Clone)]
pub struct Reloads {
    parts: Arc<Parts>,
    bound: Bound,
}

/// Where it listens.
#[derive(Clone)]
pub(super) struct Bound {
    pub(super) addresses: Vec<SocketAddr>,
    /// Kinds of which sockets were passed: what is written of them nobody binds.
    pub(super) passed: Vec<ListenerKind>,
}

impl Reloads {
    pub(super) fn new(parts: Arc<Parts>, bound: Bound) -> Reloads {
        Reloads { parts, bound }
    }

    /// Reads the configuration again and serves by it; what that comes to. Who has begun goes on as
    /// he began. Blocks, as long as the disks that it names do.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.parts.reload(&self.bound)
    }

    /// How much is told on standard error, as the configuration of now has it.
    pub fn log_level(&self) -> LogLevel {
        self.parts.log_level()
    }
}

/// A configuration that is served by now.
#[derive(Debug)]
pub struct Reloaded {
    /// What it changes.
    pub changes: Vec<Change>,
    /// What is to be looked at in it.
    pub warnings: Vec<ConfigError>,
}

/// What is served by now.
pub(super) struct Current {
    config: Config,
    /// What only a start can change, as it was then, and the volumes that came since.
    pub(super) started: Config,
    /// As many connections as memory was ever reserved for: it is not given back.
    reserved_for: usize,
    reserved: Vec<Reservation>,
    pub(super) lodge: Lodge,
}

impl Current {
    pub(super) fn new(config: Config, reserved_for: usize) -> Current {
        let started = config.clone();
        let (reserved, lodge) = (Vec::new(), Lodge::default());
        Current { config, started, reserved_for, reserved, lodge }
    }
}

/// Whether a start would take the volumes that were added.
fn look_at_added(before: &Config, next: &Config) -> Result<(), ReloadError> {
    let was_there = |path: &Path| before.ssd.volumes.iter().any(|known| known.path == path);
    if next.ssd.volumes.iter().all(|volume| was_there(&volume.path)) {
        return Ok(());
    }
    let left_out =
        look_at_volumes(next).map_err(|fault| ReloadError::Config(ConfigErrors(vec![fault])))?;
    let added = left_out.iter().find(|one| !was_there(&next.ssd.volumes[one.index].path));
    match added {
        Some(one) => {
            let fault = unusable(&next.file, &next.ssd.volumes[one.index], &one.why);
            Err(ReloadError::Config(ConfigErrors(vec![fault])))
        }
        None => Ok(()),
    }
}

/// Why a configuration is not served by; the one of before is.
#[derive(Debug)]
pub enum ReloadError {
    /// It has faults.
    Config(ConfigErrors),
    /// It asks for what this process cannot do.
    Refused(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Config(errors) => errors.fmt(f),
            ReloadError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ReloadError {}

/// All that a configuration needs and that could be refused.
struct Prepared {
    sites: Sites,
    upstreams: Upstreams,
    doors: NextDoors,
    output: Option<NextOutput>,
    connections_max: usize,
    reserved: Option<Reservation>,
    /// What was started with, and all volumes.
    started: Config,
    added: Added,
}

impl Parts {
    /// Reads the file it was started with again, and serves by it. Blocks.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    fn reload(&self, bound: &Bound) -> Result<Reloaded, ReloadError> {
        let reloaded = self.reload_whole(bound);
        self.live.is_refused.store(reloaded.is_err(), Ordering::Relaxed);
        if reloaded.is_ok() {
            self.live.read_at.store(unix_seconds(SystemTime::now()), Ordering::Relaxed);
        }
        reloaded
    }

    fn reload_whole(&self, Bound { addresses, passed }: &Bound) -> Result<Reloaded, ReloadError> {
        let mut current = self.current();
        let next = config::load(Path::new(&self.config.file)).map_err(ReloadError::Config)?;
        let ours = next.listeners.iter().filter(|one| passed.contains(&one.kind));
        let ours = ours.map(|one| one.address);
        let ours: Vec<_> = addresses.iter().copied().chain(ours).collect();
        next.try_ports(&ours).map_err(ReloadError::Config)?;
        look_at_added(&current.config, &next)?;
        let now = SystemTime::now();
        look_at_dates(&current.config.certificates, &Outdated::all_of(&next, now), now)
            .map_err(ReloadError::Refused)?;
        let mut changes = self.changes(&current, &next);
        let prepared = self.prepare(&mut current, &next)?;
        for late in prepared.added.late() {
            let but = format!("volume {late} comes online when it is known what it holds");
            let of_all = changes.iter_mut().find(|change| change.setting == "ssd.volumes");
            of_all.into_iter().for_each(|change| change.but = Some(but.clone()));
        }
        let warnings = next.warnings.clone();
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.adopt(&mut current, next, &changes, prepared);
        changes.iter().for_each(|change| tracing::info!("{change}"));
        Ok(Reloaded { changes, warnings })
    }

    /// Shows the certificates whose files have changed, where viewers would accept them; of the
    /// others, their files, why not, and what is shown. Blocks.
    pub(super) fn renew_certificates(&self, changed: &[PathBuf]) -> Vec<(PathBuf, String)> {
        let mut current = self.current();
        let (mut refused, now) = (Vec::new(), SystemTime::now());
        let renewed = |one: &Certificate| {
            if !changed.contains(&one.path) && !changed.contains(&one.key_path) {
                return one.clone();
            }
            match one.read_again(now) {
                Ok(again) => {
                    if again.key.cert != one.key.cert {
                        tracing::info!("certificate {} is another one now", one.path.display());
                    }
                    again
                }
                Err(why) => {
                    // What was no good when it was first read is what is shown.
                    let shown = match one.judged(now).as_ref() == Some(&why) {
                        true => "it is shown all the same",
                        false => "the one of before is shown on",
                    };
                    refused.push((one.path.clone(), format!("{why}; {shown}")));
                    one.clone()
                }
            }
        };
        let all = self.live.certificates.load().each(renewed);
        if !current.config.certificates.is_empty() {
            current.config.certificates = all.clone();
        }
        self.live.certificates.store(Arc::new(all));
        refused
    }

    /// Shows a certificate that an authority issued, unless nobody wants it any more. Blocks.
    #[cfg(feature = "acme")]
    pub(super) fn show_certificate(&self, one: Certificate) {
        let mut current = self.current();
        let before = self.live.certificates.load();
        if before.managed().any(|managed| managed.path == one.path) {
            let all = before.with(one);
            current.config.certificates = all.clone();
            self.live.certificates.store(Arc::new(all));
        }
    }

    fn log_level(&self) -> LogLevel {
        self.current().config.log.level
    }

    pub(super) fn current(&self) -> MutexGuard<'_, Current> {
        self.live.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is another than what is served by; of what needs a start, than what was started with.
    fn changes(&self, current: &Current, next: &Config) -> Vec<Change> {
        let Current { config: current, started, .. } = current;
        let comes = !started.volumes_added_in(next).is_empty();
        let counts = |before: &Config, next: &Config| {
            let mut changes = before.changes_to(next);
            for change in &mut changes {
                let needs_start = match change.setting.as_str() {
                    // The mapping is as large as it was made.
                    "memory.ram" => next.memory.ram_bytes > self.config.memory.ram_bytes,
                    name if name.starts_with("certificates") => self.keeps_certificates(next),
                    name if is_of_volumes(name) => !comes,
                    "steering.secret_file" => false,
                    name if name.starts_with("routes") || name.starts_with("steering") => {
                        !self.live.steering.is_started()
                    }
                    _ => continue,
                };
                change.counts = if needs_start { Counts::FromNextStart } else { Counts::Now };
            }
            changes
        };
        let mut changes = counts(current, next);
        let is_of_start =
            |one: &Change| one.counts == Counts::FromNextStart || is_of_volumes(&one.setting);
        changes.retain(|change| !is_of_start(change));
        changes.extend(counts(started, next).into_iter().filter(is_of_start));
        changes.sort_by(|one, other| one.setting.cmp(&other.setting));
        for change in &mut changes {
            change.but = self.but(&change.setting, current, next);
        }
        changes
    }

    /// What of a setting's change does not count at once, or not as it is written.
    fn but(&self, setting: &str, current: &Config, next: &Config) -> Option<String> {
        match setting {
            "limits.connections" => {
                let (wanted, affordable) = (next.limits.connections_max, self.budget.affordable);
                let open = self.connections.iter().map(|one| one.open.load(Ordering::Relaxed));
                let open = open.sum::<u64>();
                (wanted > affordable)
                    .then(|| format!("memory has room for {affordable}"))
                    .or((open > wanted as u64).then(|| format!("{open} are open, which stay")))
            }
            // What was mapped is never given back.
            "memory.ram" => (next.memory.ram_bytes < current.memory.ram_bytes)
                .then(|| "what it has taken of the system stays taken until a restart".to_owned()),
            _ => None,
        }
    }

    /// Whether what is served over TLS goes on with the certificates of before.
    fn keeps_certificates(&self, next: &Config) -> bool {
        next.certificates.is_empty() && !self.live.certificates.load().is_empty()
    }

    fn prepare(&self, current: &mut Current, next: &Config) -> Result<Prepared, ReloadError> {
        let refused = |why: String| ReloadError::Refused(why);
        let sites = next.sites.succeeding(&self.live.sites.load(), SystemTime::now());
        if sites.known().len() > SITES_MAX {
            let text = format!(
                "{}: more than {SITES_MAX} names of sites since the start; restart, and all of \
                 them count anew",
                next.file
            );
            return Err(refused(text));
        }
        let upstreams = self.filler.client.upstreams_of(&sites).map_err(refused)?;
        let doors = self.next_doors(&mut current.lodge, next, &sites).map_err(refused)?;
        let settings = log_settings(next);
        let output = (!settings.writes_as(&log_settings(&current.config)))
            .then(|| AccessLog::next_output(&settings))
            .transpose()
            .map_err(|error| refused(error.to_string()))?;
        let connections_max = next.limits.connections_max.min(self.budget.affordable);
        let more = connections_max.saturating_sub(current.reserved_for) as u64;
        let bytes = more * self.budget.connection_bytes;
        let reserve = || self.governor.try_reserve(Use::Connections, Class::Viewer, bytes);
        let reserved = (more > 0).then(reserve);
        if reserved.as_ref().is_some_and(Option::is_none) {
            let text = format!(
                "{}: `limits.connections` is {}, and there is no memory free for so many now; \
                 restart, or raise it later",
                next.file, next.limits.connections_max
            );
            return Err(refused(text));
        }
        let (reserved, added) = (reserved.flatten(), current.started.volumes_added_in(next));
        let started = match added.is_empty() {
            true => current.started.clone(),
            false => current.started.with_volumes_of(next),
        };
        // Last: a volume that is open has been written to.
        let opened = Added::open(&current.started, &started, &added, &self.tier(&sites));
        let added = opened.map_err(|fault| ReloadError::Config(ConfigErrors(vec![fault])))?;
        Ok(Prepared { sites, upstreams, doors, output, connections_max, reserved, started, added })
    }

    fn tier<'a>(&'a self, sites: &'a Sites) -> Tier<'a> {
        Tier {
            ssd: &self.ssd,
            watch: &self.ssd_watch,
            sites,
            governor: &self.governor,
            runtime: &self.filler.runtime,
        }
    }

    fn adopt(&self, current: &mut Current, next: Config, changes: &[Change], prepared: Prepared) {
        // A request of a new site finds its origins.
        self.filler.client.adopt(prepared.upstreams);
        let Prepared { sites, doors, connections_max, reserved, started, added, .. } = prepared;
        let taken = added.adopt(&self.tier(&sites));
        self.live.volumes.store(Arc::new(started.ssd.volumes.clone()));
        self.ssd.share_among(&sites);
        self.overload().shares().set(sites.iter().map(|site| (site.id, site.share)));
        self.live.forwarders.store(Arc::new(forwarders(&next)));
        self.live.steering.adopt(&next);
        self.swap(sites, doors);
        if !self.keeps_certificates(&next) {
            self.live.certificates.store(Arc::new(next.certificates.clone()));
        }
        self.live.server.store(Arc::new(viewer_settings(&next)));
        self.overload().adopt(load::settings(&next, connections_max));
        self.live.token.store(next.admin.token.clone().map(Arc::new));
        self.live.control.adopt(next.control.as_ref());
        self.log.adopt(&log_settings(&next), prepared.output);
        let resizes = |one: &Change| one.setting == "memory.ram" && one.counts == Counts::Now;
        if changes.iter().any(resizes) {
            self.ram.resize(Budget::of(&next).cached_bytes);
        }
        let before = self.live.connections_max.swap(connections_max, Ordering::Relaxed);
        self.permit(before, connections_max);
        current.reserved_for = current.reserved_for.max(connections_max);
        current.reserved.extend(reserved.into_iter().chain(taken));
        current.started = started;
        current.config = next;
    }

    /// Lets so many connections be open, and not so many as `before`.
    fn permit(&self, before: usize, after: usize) {
        self.permits.add_permits(after.saturating_sub(before));
        let fewer = before.saturating_sub(after);
        if fewer == 0 {
            return;
        }
        // Those that are open stay open: their permits are taken when they come back, before
        // anybody who comes from now on has one.
        let mut take = Box::pin(self.permits.clone().acquire_many_owned(fewer as u32));
        let queued = take.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match queued {
            Poll::Ready(Ok(taken)) => taken.forget(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let taken = async move { take.await.map(OwnedSemaphorePermit::forget) };
                self.filler.runtime.spawn(taken);
            }
        }
    }
}
