//! Builds every part once, in order, and owns start and drain.
//!
//! A thread for each worker with listeners of its own, a runtime for fills, a thread for the admin
//! listener. Every thread and task started here is awaited in [`Running::drain`]. Nobody listens
//! before everything that can be refused has been built, and of what another process gives up for
//! this one nothing is taken before that.

mod control_plane;
mod doors;
mod drain;
mod entrances;
mod error;
mod explain;
mod figures;
mod fleet;
mod groundwork;
mod load;
mod parts;
mod reload;
mod renewal;
mod routed;
mod shipping;
mod sockets;
mod sought;
mod ssd;
mod steering;
mod takeover;
mod threads;
mod turn_up;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

pub use self::control_plane::ControlPlane;
pub use self::error::ApplianceError;
pub use self::fleet::{Before, EnrolError, Enrolled, enrol};
use self::fleet::{Ending, FleetAgent};
use self::groundwork::Groundwork;
use self::parts::{Parts, log_settings};
pub use self::parts::{connections_affordable, ram_kept_bytes, readers_affordable};
use self::reload::Bound;
pub use self::reload::{ReloadError, Reloaded, Reloads};
pub use self::shipping::look_at_shipping;
use self::sockets::Sockets;
pub use self::ssd::{LeftOut, look_at_failed, look_at_volumes};
use self::takeover::Fate;
pub use self::takeover::{
    HandOver, Leaving, LeftAlone, NoRoom, Predecessor, Successor, TakeoverError, beside_bytes,
};
use self::threads::{start_admin, start_workers};
use crate::access_log::{AccessLog, LogWriter};
use crate::config::{Config, ListenerKind};
use crate::control::Phase;
use crate::control::reload::Asked;
use crate::control::status::{Detail, Status};
use crate::server::{ListeningSocket, Stop};
use crate::store::device::Faults;
use crate::usage::keeper::Keeper;

/// A running appliance.
pub struct Running {
    parts: Arc<Parts>,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    passed_kinds: Vec<ListenerKind>,
    workers: Vec<JoinHandle<()>>,
    /// Those that answer operators, and viewers who ask where to go.
    askable: Vec<JoinHandle<()>>,
    fill_runtime: Runtime,
    stop: Stop,
    close_admin: Stop,
    log_writer: LogWriter,
    asked: mpsc::Receiver<Asked>,
    /// Whether another process follows, or this one stops before.
    fate: Arc<Fate>,
    usage: Option<Keeper>,
    control: Option<ControlPlane>,
    fleet: Option<FleetAgent>,
    /// For the process that follows. As long as they are here, who comes waits for it.
    sockets: Arc<Mutex<Vec<ListeningSocket>>>,
}

/// The way to start one.
pub struct Appliance;

impl Appliance {
    /// Starts with listeners of its own, and wants viewers at once. Blocks until every listener
    /// accepts.
    ///
    /// # Errors
    /// The first part that could not be built; nothing keeps running then.
    pub fn start(config: Config) -> Result<Running, ApplianceError> {
        let running = Appliance::built(config, Vec::new(), None)?;
        running.parts.readiness.set_ready();
        Ok(running)
    }

    /// Starts with sockets of the service manager's, in place of the configured ones of their kind,
    /// and with those of ours that it kept; wants viewers when what it needs is there.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn start_with(
        config: Config,
        sockets: Vec<ListeningSocket>,
    ) -> Result<Running, ApplianceError> {
        let running = Appliance::built(config, sockets, None)?;
        turn_up::start(&running.parts);
        Ok(running)
    }

    /// Takes over from the process before this one, whose viewers are wanted here at once; it
    /// serves too until it is told so ([`Predecessor::say_serving`]).
    ///
    /// # Errors
    /// As [`Appliance::start`]; the other one serves on then.
    pub fn start_after(
        config: Config,
        predecessor: &mut Predecessor,
    ) -> Result<Running, ApplianceError> {
        predecessor.look_for_room(&config)?;
        look_at_volumes(&config).map_err(ApplianceError::Settings)?;
        let running = Appliance::built(config, Vec::new(), Some(predecessor))?;
        tracing::info!("takes over from version {}", predecessor.version());
        Ok(running)
    }

    fn built(
        config: Config,
        sockets: Vec<ListeningSocket>,
        mut predecessor: Option<&mut Predecessor>,
    ) -> Result<Running, ApplianceError> {
        let system = |what| move |source| ApplianceError::System { what, source };
        look_at_shipping(&config).map_err(ApplianceError::Settings)?;
        let fill_runtime = threads::fill_runtime(&config)?;
        let (log, log_writer) =
            AccessLog::start(&log_settings(&config)).map_err(ApplianceError::Log)?;
        let (shipper, groundwork) = (shipping::shipper(&config, &log)?, Groundwork::of(&config)?);
        let tls = renewal::tls(&groundwork.live)?;
        let (mut bound, mut start) = (None, ssd::Start::Alone);
        if let Some(predecessor) = &mut predecessor {
            bound = Some(Sockets::bind(&config, predecessor.take_sockets())?);
            predecessor.wait_for_volumes(&config).map_err(lost)?;
            start = ssd::Start::Follows;
        }
        let parts = Arc::new(Parts::build(config, groundwork, &fill_runtime, log, start)?);
        if let Some(predecessor) = &predecessor {
            predecessor.listen(&parts).map_err(lost)?;
        }
        parts.open_doors().map_err(ApplianceError::Settings)?;
        figures::register(&parts);
        let bound = bound.map_or_else(|| Sockets::bind(&parts.config, sockets), Ok)?;
        bound.listen(&parts.config)?;
        let Sockets { own, passed, admin, steering, addresses, passed_kinds, all } = bound;
        let (stop, close_admin) = (Stop::default(), Stop::default());
        // Threads that run already when another cannot be started end again.
        let guards = [&stop, &close_admin].map(|stop| stop.all.clone().drop_guard());
        let viewers: Vec<SocketAddr> =
            addresses.iter().filter(is_of_viewers).map(|one| one.1).collect();
        let workers = start_workers(&parts, own, passed, tls.clone(), &stop)?;
        let (ask, asked) = mpsc::channel(1);
        let admin = start_admin(&parts, admin, ask, &close_admin)?;
        let steering = steering::start(&parts, steering, tls, &close_admin)?;
        let askable = admin.into_iter().chain(steering).collect();
        let usage = parts.usage.clone().map(Keeper::start).transpose();
        let usage = usage.map_err(system("a thread"))?;
        let control = steering::start_control(&parts)?;
        let fleet = fleet::start(&parts, &viewers)?;
        for guard in guards {
            guard.disarm();
        }
        renewal::start(&parts, &stop, predecessor.is_some());
        doors::start(&parts);
        drain::start(&parts);
        load::start(&parts);
        shipper.into_iter().for_each(|shipper| parts.ship(shipper));
        Ok(Running {
            parts,
            addresses,
            passed_kinds,
            workers,
            askable,
            fill_runtime,
            stop,
            close_admin,
            log_writer,
            asked,
            fate: Arc::default(),
            usage,
            control,
            fleet,
            sockets: Arc::new(Mutex::new(all)),
        })
    }
}

impl Running {
    /// Where viewers are served without TLS.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(ListenerKind::Http)
    }

    /// Where viewers are served over TLS.
    pub fn https_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(ListenerKind::Https)
    }

    /// Where operators look.
    pub fn admin_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(ListenerKind::Admin)
    }

    /// Where viewers ask where to go, without TLS and over it.
    pub fn steering_addresses(&self) -> [Vec<SocketAddr>; 2] {
        [ListenerKind::Steering, ListenerKind::SteeringTls].map(|kind| self.addresses_of(kind))
    }

    /// Starting, ready or draining.
    pub fn phase(&self) -> Phase {
        self.parts.readiness.phase()
    }

    /// Answers what the status page shows; stays valid while the appliance drains.
    pub fn status_source(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let parts = self.parts.clone();
        move || figures::status(&parts, Detail::Whole)
    }

    /// Evicts `share` percent of what the ram tier keeps, as if others had needed the room.
    pub fn evict(&self, share_percent: u64) {
        let kept_bytes = self.parts.ram.usage().cached_bytes;
        self.parts.ram.evict(kept_bytes * share_percent / 100);
    }

    /// Forgets what ram knows of objects, as if others had needed the room.
    pub fn forget_heads(&self) {
        self.parts.heads.clear();
    }

    /// Gives a simulated volume that is open other faults from now on: a test says when it falls
    /// ill.
    ///
    /// # Panics
    /// If there is no such volume, or it is none of that kind.
    pub fn simulate(&self, volume: &str, faults: Faults) {
        let all = self.parts.ssd.volumes().all();
        let place = all.iter().find(|place| place.name == volume);
        let volume = place.and_then(|place| place.opened()).expect("the volume is open");
        let device = volume.disk().device();
        device.simulated().expect("the volume's device is simulated").set_faults(faults);
    }

    /// Does what [`Running::evict`] does to all of it; stays valid while the appliance drains.
    pub fn ram_emptier(&self) -> impl Fn() + Send + Sync + 'static {
        let ram = self.parts.ram.clone();
        move || ram.evict(u64::MAX)
    }

    /// What reloads it, on any thread.
    pub fn reloads(&self) -> Reloads {
        let addresses = self.addresses.iter().map(|(_, address)| *address).collect();
        let passed = self.passed_kinds.clone();
        Reloads::new(self.parts.clone(), Bound { addresses, passed })
    }

    /// What hands it over to another process, on any thread.
    pub fn hand_over(&self) -> HandOver {
        let asking = self.close_admin.accepting.clone();
        HandOver::new(self.parts.clone(), self.sockets.clone(), asking, self.fate.clone())
    }

    /// Waits until somebody asks the admin listener for a reload or an upgrade. Safe to drop.
    pub async fn asked(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            // Without an admin listener nobody can.
            None => std::future::pending().await,
        }
    }

    /// Opens the access log's file anew, after it has been moved.
    pub fn reopen_log(&self) {
        self.parts.log.reopen();
    }

    /// Who comes from now on is refused, or waits for who listens there too.
    fn close_sockets(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Who follows has the state of a control plane from now on.
    fn end_control(&mut self) {
        self.control.take().into_iter().for_each(ControlPlane::end);
    }

    /// Who follows is the box from now on; or there is none any more.
    fn end_fleet(&mut self, ending: Ending) {
        self.fleet.take().into_iter().for_each(|agent| agent.end(ending));
    }

    /// Who waits for a reload, or asks for one now, is told that there is none.
    fn refuse_asked(&mut self) {
        self.asked.close();
        while self.asked.try_recv().is_ok() {}
    }

    /// Takes no more viewers, finishes what runs within the drain limit, and ends every thread.
    /// Blocks.
    pub fn drain(mut self) {
        self.refuse_asked();
        self.close_sockets();
        self.end_control();
        self.parts.end_drain();
        self.stop.all.cancel();
        for worker in std::mem::take(&mut self.workers) {
            join(worker);
        }
        // Until here it has said that it drains.
        self.end_fleet(Ending::Over);
        // Nobody hands over any more what is closed now, nor has it ended somewhere else.
        self.fate.settle();
        self.parts.predecessor.until_ended(&self.parts.hurried);
        let filler = self.parts.filler.clone();
        filler.stop.cancel();
        filler.tasks.close();
        self.fill_runtime.block_on(filler.tasks.wait());
        self.fill_runtime.block_on(ssd::close(&self.parts.ssd, &self.parts.ssd_watch));
        // Nothing is counted any more.
        if let Some(usage) = self.usage {
            usage.finish(LOG_ENDS_WITHIN);
        }
        self.parts.log.end_following();
        self.close_admin.all.cancel();
        self.askable.into_iter().for_each(join);
        let keeper = self.parts.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It is told of one that does not end.
        let _ = keeper.map(|keeper| keeper.finish(LOG_ENDS_WITHIN));
        self.fill_runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
        if let Err(error) = self.log_writer.finish(LOG_ENDS_WITHIN) {
            tracing::warn!("{error}");
        }
    }

    fn addresses_of(&self, kind: ListenerKind) -> Vec<SocketAddr> {
        self.addresses.iter().filter(|(k, _)| *k == kind).map(|(_, address)| *address).collect()
    }
}

fn is_of_viewers((kind, _): &&(ListenerKind, SocketAddr)) -> bool {
    *kind != ListenerKind::Admin
}

/// The process before this one fell silent.
fn lost(source: io::Error) -> ApplianceError {
    ApplianceError::System { what: "what the process before this one hands over", source }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread panicked; its message is above");
    }
}

/// What remains on the fill runtime when its tasks have ended is idle connections.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(2);
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(5);
