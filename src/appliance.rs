//! Builds every part once, in order, and owns start and drain.
//!
//! A thread for each worker with listeners of its own, a runtime for fills, a thread for the admin
//! listener. Every thread and task started here is awaited in [`Running::drain`]. Nothing is bound
//! before everything that can be refused has been built.

mod explain;
mod figures;
mod load;
mod parts;
mod reload;
mod renewal;
mod sockets;
mod ssd;
mod threads;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::parts::connections_affordable;
use self::parts::{Parts, log_settings, tls};
use self::reload::Bound;
pub use self::reload::{ReloadError, Reloads};
use self::sockets::Sockets;
pub use self::ssd::{LeftOut, look_at_failed, look_at_volumes};
use self::threads::{start_admin, start_workers};
use crate::access_log::{AccessLog, AccessLogError, LogWriter};
use crate::config::{Config, ConfigError, ListenerKind};
use crate::control::Phase;
use crate::control::reload::AskedReload;
use crate::control::status::Status;
use crate::server::PassedSocket;
use crate::store::device::Faults;

/// A running appliance.
pub struct Running {
    parts: Arc<Parts>,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    passed_kinds: Vec<ListenerKind>,
    workers: Vec<JoinHandle<()>>,
    admin: Option<JoinHandle<()>>,
    fill_runtime: Runtime,
    drain: CancellationToken,
    close_admin: CancellationToken,
    log_writer: LogWriter,
    asked: mpsc::Receiver<AskedReload>,
}

/// Why an appliance does not start.
#[derive(Debug)]
pub enum ApplianceError {
    /// A runtime, a thread or the ram tier could not be had from the system.
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A listener could not be bound.
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates or an origin's TLS settings cannot be used.
    Tls(String),
    /// A volume of the ssd tier cannot be used.
    Volume {
        /// As the configuration calls it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The volumes that there are show a mistake in the configuration.
    Settings(ConfigError),
    /// The access log could not be opened.
    Log(AccessLogError),
}

impl fmt::Display for ApplianceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplianceError::System { what, source } => write!(f, "cannot have {what}: {source}"),
            ApplianceError::Bind { address, source } => {
                write!(f, "cannot listen at {address}: {source}")
            }
            ApplianceError::Tls(reason) => write!(f, "TLS cannot be set up: {reason}"),
            ApplianceError::Volume { name, reason } => {
                write!(f, "volume {name} cannot be used: {reason}")
            }
            ApplianceError::Settings(fault) => fault.fmt(f),
            ApplianceError::Log(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for ApplianceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ApplianceError::System { source, .. } | ApplianceError::Bind { source, .. } => {
                Some(source)
            }
            ApplianceError::Log(source) => Some(source),
            ApplianceError::Tls(_)
            | ApplianceError::Volume { .. }
            | ApplianceError::Settings(_) => None,
        }
    }
}

/// The way to start one.
pub struct Appliance;

impl Appliance {
    /// Starts with listeners of its own. Blocks until every listener accepts.
    ///
    /// # Errors
    /// The first part that could not be built; nothing keeps running then.
    pub fn start(config: Config) -> Result<Running, ApplianceError> {
        Appliance::start_with(config, Vec::new())
    }

    /// Starts with sockets the service manager passed, in place of the configured ones of their
    /// kind.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn start_with(
        config: Config,
        passed: Vec<PassedSocket>,
    ) -> Result<Running, ApplianceError> {
        let system = |what| move |source| ApplianceError::System { what, source };
        let fill_runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.fill)
            .thread_name("fill")
            .enable_all()
            .build()
            .map_err(system("the fill runtime"))?;
        let (log, log_writer) =
            AccessLog::start(&log_settings(&config)).map_err(ApplianceError::Log)?;
        let parts = Arc::new(Parts::build(config, &fill_runtime, log)?);
        let tls = tls(parts.live.certificates.clone())?;
        figures::register(&parts);
        let Sockets { own, passed, admin, addresses, passed_kinds } =
            Sockets::open(&parts.config, passed)?;
        let (drain, close_admin) = (CancellationToken::new(), CancellationToken::new());
        // Threads that run already when another cannot be started end again.
        let guards = [drain.clone().drop_guard(), close_admin.clone().drop_guard()];
        let workers = start_workers(&parts, own, passed, tls, &drain)?;
        let (ask, asked) = mpsc::channel(1);
        let admin = start_admin(&parts, admin, ask, &close_admin)?;
        for guard in guards {
            guard.disarm();
        }
        renewal::start(&parts);
        load::start(&parts);
        parts.readiness.set_ready();
        Ok(Running {
            parts,
            addresses,
            passed_kinds,
            workers,
            admin,
            fill_runtime,
            drain,
            close_admin,
            log_writer,
            asked,
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

    /// Starting, ready or draining.
    pub fn phase(&self) -> Phase {
        self.parts.readiness.phase()
    }

    /// Answers what the status page shows; stays valid while the appliance drains.
    pub fn status_source(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let parts = self.parts.clone();
        move || figures::status(&parts)
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
        let place = self.parts.ssd.volumes().all().iter().find(|place| place.name == volume);
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

    /// Waits until somebody asks the admin listener for a reload. Safe to drop.
    pub async fn asked_to_reload(&mut self) -> AskedReload {
        match self.asked.recv().await {
            Some(asked) => asked,
            // Without an admin listener nobody can.
            None => std::future::pending().await,
        }
    }

    /// Opens the access log's file anew, after it has been moved.
    pub fn reopen_log(&self) {
        self.log_writer.reopen();
    }

    /// Takes no more viewers, finishes what runs within the drain limit, and ends every thread.
    /// Blocks.
    pub fn drain(mut self) {
        // Who waits for a reload, or asks for one now, is told that there is none.
        self.asked.close();
        while self.asked.try_recv().is_ok() {}
        self.parts.readiness.set_draining();
        self.drain.cancel();
        for worker in self.workers {
            join(worker);
        }
        let filler = self.parts.filler.clone();
        filler.stop.cancel();
        filler.tasks.close();
        self.fill_runtime.block_on(filler.tasks.wait());
        self.fill_runtime.block_on(ssd::close(&self.parts.ssd, &self.parts.ssd_watch));
        self.close_admin.cancel();
        if let Some(admin) = self.admin {
            join(admin);
        }
        let keeper = self.parts.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.finish(LOG_ENDS_WITHIN);
        }
        self.fill_runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
        if let Err(error) = self.log_writer.finish(LOG_ENDS_WITHIN) {
            tracing::warn!("{error}");
        }
    }

    fn addresses_of(&self, kind: ListenerKind) -> Vec<SocketAddr> {
        self.addresses.iter().filter(|(k, _)| *k == kind).map(|(_, address)| *address).collect()
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread panicked; its message is above");
    }
}

/// What remains on the fill runtime when its tasks have ended is idle connections.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(2);
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(5);
