//! Steering: what answers viewers who ask where to go, on a thread of its own, and the watch over
//! files of routes. Delivery waits for neither.
//!
//! The thread accepts nobody before routes have been read once, and the fleet is known where a
//! control plane beside it says who that is: an answer without them would send viewers to the wrong
//! place, or nowhere.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::ApplianceError;
use super::control_plane::ControlPlane;
use super::figures::reading;
use super::load;
use super::parts::{Parts, viewer_settings};
use super::threads::spawn;
use crate::config::{Config, Listener, ListenerKind, Routes as RoutesSettings};
use crate::control::Phase;
use crate::control::content_steering::session::Session;
use crate::control::content_steering::signature::Secret;
use crate::control::content_steering::{mpd, playlist};
use crate::control::registry::Family;
use crate::control::registry::fleet::{Fleet, Member, Standing};
use crate::control::routes::{Figures as RouteFigures, FileState, Outcome, Routes, RoutesError};
use crate::control::steer::{Figures, Kind, Settings, Steer, endpoint_at};
use crate::delivery::{Manifest, Rewriter, Steering as Served};
use crate::limits::{
    CLIENTS_BYTES, CONNECTION_BYTES, STEERING_CONNECTIONS_MAX, STEERING_SHARE, TLS_CONNECTION_BYTES,
};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::metrics::{Metrics, steering as series};
use crate::overload::{self, Gate, Overload};
use crate::server::{self, ServerContext, ServerSettings, Source, Stop, Tls, Wishes};

/// What viewers are steered by; a reload puts other settings in the place of these.
pub(super) struct Steering {
    pub(super) fleet: Arc<ArcSwap<Fleet>>,
    /// Which box this is, as routes call it; `None`: nobody knows.
    pub(super) own: Arc<ArcSwapOption<String>>,
    /// The same as a fleet calls it, of which a box is from its start on.
    own_in_fleet: Option<String>,
    pub(super) routes: Arc<Routes>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) files: Arc<ArcSwap<RoutesSettings>>,
    server: Arc<ArcSwap<ServerSettings>>,
    figures: Arc<Figures>,
    refused: [AtomicU64; RoutesError::WORDS.len()],
    withdrawn: AtomicU64,
    /// What those who are served are served by.
    pub(super) served: Arc<Served>,
    /// Where no secret is written: good until this process ends.
    own_secret: Option<Secret>,
    is_started: AtomicBool,
    /// A control plane says who the appliances are: one beside it, or by its snapshots.
    is_told: bool,
    /// Whether the fleet is known by now.
    is_known: Arc<watch::Sender<bool>>,
    /// What one client may have; none before somebody listens.
    overload: OnceLock<Arc<Overload>>,
    reserved: Mutex<Option<Reservation>>,
}

impl Steering {
    pub(super) fn of(config: &Config) -> Steering {
        let own_secret = Secret::random();
        Steering {
            fleet: Arc::new(ArcSwap::from_pointee(Fleet::from(config.steering.appliances.clone()))),
            own: Arc::new(ArcSwapOption::from_pointee(config.own_name().map(str::to_owned))),
            own_in_fleet: config.fleet.as_ref().map(|fleet| fleet.appliance.name().to_owned()),
            routes: Arc::default(),
            settings: Arc::new(ArcSwap::from_pointee(settings(config, &own_secret))),
            files: Arc::new(ArcSwap::from_pointee(config.routes.clone())),
            server: Arc::new(ArcSwap::from_pointee(server_settings(config))),
            figures: Arc::default(),
            refused: Default::default(),
            withdrawn: AtomicU64::new(0),
            served: Arc::new(Served {
                seal: ArcSwapOption::from_pointee(config.steering.settings.seal.clone()),
                rewriter: ArcSwapOption::from_pointee(rewriter(config)),
            }),
            own_secret,
            is_started: AtomicBool::new(false),
            is_told: config.control.is_some() || config.fleet.is_some(),
            is_known: Arc::new(watch::Sender::new(config.control.is_none())),
            overload: OnceLock::new(),
            reserved: Mutex::default(),
        }
    }

    /// Whether files are watched, and those answered who ask: that begins with a start.
    pub(super) fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Relaxed)
    }

    /// Steers by another configuration from now on; its files of routes are read at the next look.
    pub(super) fn adopt(&self, next: &Config) {
        // To a fleet that knows it by another name its own viewers would be sent: nobody is until
        // both are here.
        let own = self.own_in_fleet.clone().or_else(|| next.steering.own_name.clone());
        let is_renamed = self.own.load().as_deref() != own.as_ref();
        if is_renamed {
            self.own.store(None);
        }
        // A control plane knows better; it comes and goes with a start.
        if !self.is_told {
            self.fleet.store(Arc::new(Fleet::from(next.steering.appliances.clone())));
        }
        if is_renamed {
            self.own.store(own.map(Arc::new));
        }
        self.settings.store(Arc::new(settings(next, &self.own_secret)));
        self.served.seal.store(next.steering.settings.seal.clone().map(Arc::new));
        self.served.rewriter.store(rewriter(next).map(Arc::new));
        self.files.store(Arc::new(next.routes.clone()));
        self.server.store(Arc::new(server_settings(next)));
        self.overload.get().into_iter().for_each(|all| all.adopt(client_limits(next)));
    }

    fn of_routes(&self) -> RouteFigures {
        self.routes.figures(SystemTime::now())
    }

    /// One look at the files of routes. Blocks.
    fn look(&self, governor: &Arc<Governor>) {
        let outcome = self.routes.reread(&self.files.load().plan, SystemTime::now());
        for one in &outcome.refused {
            let place = RoutesError::WORDS.iter().position(|word| *word == one.error.word());
            place.into_iter().for_each(|place| count(&self.refused[place], 1));
        }
        count(&self.withdrawn, outcome.withdrawn.len() as u64);
        tell(&outcome);
        self.reserve(governor, outcome.difference.is_some());
    }

    /// Accounts for the memory of the table and its databases. Viewers are steered by it even where
    /// there is no room, which is asked for again.
    fn reserve(&self, governor: &Arc<Governor>, is_other: bool) {
        let table = self.routes.table();
        let bytes = table.bytes() as u64 + table.places_bytes();
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_other && (reserved.is_some() || bytes == 0) {
            return;
        }
        *reserved = None;
        *reserved = governor.try_reserve(Use::Routes, Class::Viewer, bytes);
        if reserved.is_none() && bytes > 0 && is_other {
            let mib = bytes >> 20;
            tracing::warn!("routes take {mib} MiB that are not free; raise `memory.total`");
        }
    }
}

fn settings(config: &Config, own_secret: &Option<Secret>) -> Settings {
    let settings = config.steering.settings.clone();
    let secret = settings.secret.clone().or_else(|| own_secret.clone());
    Settings { secret, ..settings }
}

/// Puts steering into what is served, as its players are to ask here or elsewhere.
fn rewriter(config: &Config) -> Option<Rewriter> {
    let (url, pathway) = (config.steering.settings.url.clone()?, config.pathway()?.clone());
    Some(Rewriter::new(move |manifest, site, path, text| {
        let kind = match manifest {
            Manifest::Hls => Kind::Hls,
            Manifest::Dash => Kind::Dash,
        };
        let endpoint = endpoint_at(&url, kind, site, Some(path))?;
        match manifest {
            Manifest::Hls => playlist::steered(text, &endpoint, &Session::nobodys(), &pathway),
            Manifest::Dash => mpd::steered(text, &endpoint, &Session::nobodys(), &pathway),
        }
    }))
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What an operator should know of a look at the files.
fn tell(outcome: &Outcome) {
    outcome.refused.iter().for_each(|one| tracing::error!("routes: {one}"));
    for path in &outcome.withdrawn {
        let path = path.display();
        tracing::error!("routes: \"{path}\" has been gone too long; what it told counts no more");
    }
    outcome.notices.iter().for_each(|line| tracing::warn!("routes: {line}"));
    outcome.uneven.iter().for_each(|one| tracing::warn!("routes: {one}"));
    if let Some(difference) = outcome.difference.as_ref().filter(|one| !one.is_none()) {
        let (came, gone, changed) = (difference.came, difference.gone, difference.changed);
        tracing::info!("routes: {came} came, {gone} are gone, {changed} changed");
    }
}

/// Watches files of routes, and answers those who ask where to go, until they are to stop.
pub(super) fn start(
    parts: &Arc<Parts>,
    listeners: Vec<(ListenerKind, TcpListener)>,
    tls: Option<Tls>,
    close: &Stop,
) -> Result<Option<JoinHandle<()>>, ApplianceError> {
    let plan = &parts.config.routes.plan;
    if listeners.is_empty() && plan.files.is_empty() && plan.databases.is_empty() {
        return Ok(None);
    }
    parts.live.steering.is_started.store(true, Ordering::Relaxed);
    register(parts);
    let looked = watch(parts);
    if listeners.is_empty() {
        return Ok(None);
    }
    let steering = &parts.live.steering;
    let mut known = steering.is_known.subscribe();
    let (overload, now) = (client_limits(&parts.config), Instant::now());
    let overload = Overload::new(overload, Arc::default(), now);
    let gate = Arc::new(Gate::new(steering.overload.get_or_init(|| overload).clone()));
    let (parts, close) = (parts.clone(), close.clone());
    let thread = spawn("steering".to_owned(), move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        let (steer, context) = (Rc::new(steer(&parts)), context(&parts, gate));
        runtime.block_on(async {
            // What reads them has ended, or hangs, or there is no control plane: then it answers
            // by what there is.
            let all = async {
                let _ = looked.await;
                let _ = known.wait_for(|is_known| *is_known).await;
            };
            let _ = timeout(FIRST_LOOK_WITHIN, all).await;
            let mut serving = tokio::task::JoinSet::new();
            for (kind, listener) in listeners {
                let source = Source::listening(listener).expect("a bound listener can be polled");
                let tls = tls.clone().filter(|_| kind.is_tls());
                let (steer, context) = (steer.clone(), context.clone());
                serving.spawn_local(server::serve(source, tls, steer, context, close.clone()));
            }
            while serving.join_next().await.is_some() {}
        });
    })?;
    Ok(Some(thread))
}

/// Starts the control plane beside it, if there is one: whom it knows, viewers are sent to.
pub(super) fn start_control(parts: &Parts) -> Result<Option<ControlPlane>, ApplianceError> {
    let Steering { fleet, is_known, .. } = &parts.live.steering;
    let beside = |control| {
        let beside = parts.live.control.clone();
        ControlPlane::start_beside(control, beside, fleet.clone(), is_known.clone())
    };
    parts.config.control.as_ref().map(beside).transpose()
}

fn steer(parts: &Parts) -> Steer {
    let steering = &parts.live.steering;
    Steer {
        fleet: steering.fleet.clone(),
        table: steering.routes.current(),
        settings: steering.settings.clone(),
        forwarders: parts.live.forwarders.clone(),
        figures: steering.figures.clone(),
        rate: RefCell::default(),
    }
}

/// The limits of viewers' connections, but that nobody keeps one open that others want: he asks
/// again in minutes.
fn server_settings(config: &Config) -> ServerSettings {
    let settings = viewer_settings(config);
    ServerSettings { idle_timeout: settings.idle_timeout.min(IDLE_MAX), ..settings }
}

/// Connections that are let in at once.
fn connections(config: &Config) -> u64 {
    let affordable = config.memory.total_bytes / STEERING_SHARE / CONNECTION;
    affordable.clamp(1, STEERING_CONNECTIONS_MAX)
}

/// What they take, which nobody else may have.
pub(super) fn connections_bytes(config: &Config) -> u64 {
    let is_asked = |one: &Listener| !one.kind.is_of_workers() && one.kind != ListenerKind::Admin;
    match config.listeners.iter().any(is_asked) {
        true => connections(config) * CONNECTION + CLIENTS_BYTES,
        false => 0,
    }
}

/// What one client may have. Nobody is refused for another reason: players that are stop asking.
fn client_limits(config: &Config) -> overload::Settings {
    let overload::Settings { client, proxies, .. } = load::settings(config, 0);
    overload::Settings { client, proxies, ..overload::Settings::default() }
}

fn context(parts: &Parts, gate: Arc<Gate>) -> Arc<ServerContext> {
    Arc::new(ServerContext {
        settings: parts.live.steering.server.clone(),
        permits: Arc::new(Semaphore::new(connections(&parts.config) as usize)),
        counts: Arc::default(),
        wishes: Wishes::default(),
        gate,
    })
}

/// Looks at the files of routes from time to time, and says when it has done so once.
fn watch(parts: &Arc<Parts>) -> oneshot::Receiver<()> {
    let (say, looked) = oneshot::channel();
    let (weak, stop) = (Arc::downgrade(parts), parts.filler.stop.clone());
    let watch = async move {
        let mut say = Some(say);
        loop {
            let Some(parts) = weak.upgrade() else { return };
            let every = parts.live.steering.files.load().reread;
            let look = move || parts.live.steering.look(&parts.governor);
            let look = tokio::task::spawn_blocking(look);
            tokio::select! {
                looked = look => {
                    if let Err(error) = looked {
                        tracing::error!("a look at the files of routes broke off: {error}");
                    }
                }
                () = stop.cancelled() => return,
            }
            // Who waited may have given up.
            let _ = say.take().map(|say| say.send(()));
            tokio::select! {
                () = sleep(every) => {}
                () = stop.cancelled() => return,
            }
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
    looked
}

fn register(parts: &Arc<Parts>) {
    let metrics: &Metrics = &parts.metrics;
    let of = |read: fn(&Steering) -> Vec<(&'static str, u64)>| {
        reading(parts, move |parts| read(&parts.live.steering))
    };
    let each = |series, read| metrics.read_each_at_scrape(series, of(read));
    each(series::ROUTE_PREFIXES, |steering| {
        let figures = steering.of_routes();
        ["ipv4", "ipv6"].into_iter().zip(figures.prefixes).collect()
    });
    each(series::ROUTE_FILES, |steering| {
        let figures = steering.of_routes();
        FileState::ALL.map(FileState::word).into_iter().zip(figures.files).collect()
    });
    each(series::ROUTES_REFUSED, |steering| {
        let counts = steering.refused.iter().map(|count| count.load(Ordering::Relaxed));
        RoutesError::WORDS.into_iter().zip(counts).collect()
    });
    each(series::ANSWERS, |steering| steering.figures.answers());
    each(series::DECISIONS, |steering| steering.figures.decisions());
    each(series::CANDIDATES, |steering| steering.figures.candidates());
    each(series::FLAWS, |steering| steering.figures.flaws());
    each(series::APPLIANCES, |steering| {
        let fleet = steering.fleet.load();
        let ready = fleet.members().iter().filter(|member| is_ready(member)).count();
        vec![("ready", ready as u64), ("other", (fleet.members().len() - ready) as u64)]
    });
    let one = |series, read: fn(&Steering) -> u64| {
        let read = reading(parts, move |parts: &Parts| read(&parts.live.steering));
        metrics.read_at_scrape(series, read);
    };
    one(series::ROUTE_AGE, |steering| steering.of_routes().age_seconds);
    one(series::ROUTE_BYTES, |steering| steering.of_routes().table_bytes);
    one(series::ROUTES_WITHDRAWN, |steering| steering.withdrawn.load(Ordering::Relaxed));
    one(series::SESSIONS, |steering| steering.figures.sessions());
    one(series::SLOWER, |steering| steering.figures.slower());
}

/// Whether viewers of some family are sent there.
fn is_ready(member: &Member) -> bool {
    let is_well = |family| matches!(member.standing(family), Some(Standing::Well | Standing::Kept));
    member.phase() == Phase::Ready && Family::ALL.into_iter().any(is_well)
}

/// A million prefixes are read sooner; a disk that hangs holds up nobody longer.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(20);
const IDLE_MAX: Duration = Duration::from_secs(5);
const CONNECTION: u64 = CONNECTION_BYTES + TLS_CONNECTION_BYTES;
