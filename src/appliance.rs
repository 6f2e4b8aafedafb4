//! Builds every part once, in order, and owns start and drain.
//!
//! A thread for each worker with listeners of its own, a runtime for fills, a thread for the admin
//! listener. Every thread and task started here is awaited in [`Running::drain`]. Nothing is bound
//! before
//! everything that can be refused has been built.

mod figures;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{LocalRuntime, Runtime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::{self, AccessLog, AccessLogError, ClientBits, Destination, LogWriter};
use crate::cache::heads::Heads;
use crate::cache::ram::{Ram, RamSettings};
use crate::config::{AccessLogTarget, Config, ListenerKind};
use crate::control::api::Admin;
use crate::control::status::Status;
use crate::control::{Phase, Readiness};
use crate::delivery::{Delivery, Shared};
use crate::fill::Filler;
use crate::fill::client::{Client, Patience};
use crate::fill::collapse::{Openings, Runs};
use crate::limits::{CONNECTION_BYTES, PROCESS_BYTES, SLOT_SIZE_BYTES, TLS_CONNECTION_BYTES};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::metrics::Metrics;
use crate::object::VersionNumbers;
use crate::server::{
    self, Certificate, ConnectionCounts, HandedOver, Inbox, ListenerName, PassedSocket,
    ServerContext, ServerSettings, Source, Tls,
};

/// A running appliance.
pub struct Running {
    parts: Arc<Parts>,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    workers: Vec<JoinHandle<()>>,
    admin: Option<JoinHandle<()>>,
    fill_runtime: Runtime,
    drain: CancellationToken,
    close_admin: CancellationToken,
    log_writer: LogWriter,
}

/// What every thread shares.
struct Parts {
    config: Config,
    heads: Arc<Heads>,
    ram: Arc<Ram>,
    governor: Arc<Governor>,
    filler: Arc<Filler>,
    metrics: Arc<Metrics>,
    log: AccessLog,
    readiness: Readiness,
    permits: Arc<Semaphore>,
    connections: Vec<Arc<ConnectionCounts>>,
    started: Instant,
    _heads_reserved: Option<Reservation>,
    _connections_reserved: Option<Reservation>,
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
            ApplianceError::Log(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for ApplianceError {}

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
        let tls = tls(&config)?;
        let parts = Arc::new(Parts::build(config, &fill_runtime, log)?);
        figures::register(&parts);
        let sockets = Sockets::open(&parts.config, passed)?;
        let addresses = sockets.addresses();
        let drain = CancellationToken::new();
        let close_admin = CancellationToken::new();
        let Sockets { own, passed, admin, .. } = sockets;
        let workers = start_workers(&parts, own, passed, tls, &drain)?;
        let admin = start_admin(&parts, admin, &close_admin)?;
        parts.readiness.set_ready();
        Ok(Running {
            parts,
            addresses,
            workers,
            admin,
            fill_runtime,
            drain,
            close_admin,
            log_writer,
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

    /// Answers what the status page shows; stays valid while the appliance drains.
    pub fn status_source(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let parts = self.parts.clone();
        move || figures::status(&parts)
    }

    /// Evicts `share` percent of what the ram tier keeps, as if others had needed the room.
    pub fn evict(&self, share_percent: u64) {
        let kept_bytes = self.parts.ram.usage().cached_bytes;
        let whole = self.parts.ram.usage().cached_bytes_max;
        self.parts.ram.resize(kept_bytes * (100 - share_percent.min(100)) / 100);
        self.parts.ram.resize(whole);
    }

    /// Opens the access log's file anew, after it has been moved.
    pub fn reopen_log(&self) {
        self.log_writer.reopen();
    }

    /// Takes no more viewers, finishes what runs within the drain limit, and ends every thread.
    /// Blocks.
    pub fn drain(self) {
        self.parts.readiness.set_draining();
        self.drain.cancel();
        for worker in self.workers {
            join(worker);
        }
        let filler = self.parts.filler.clone();
        filler.stop.cancel();
        filler.tasks.close();
        self.fill_runtime.block_on(filler.tasks.wait());
        self.close_admin.cancel();
        if let Some(admin) = self.admin {
            join(admin);
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

impl Parts {
    fn build(
        config: Config,
        fill_runtime: &Runtime,
        log: AccessLog,
    ) -> Result<Parts, ApplianceError> {
        let budget = Budget::of(&config);
        let governor = Governor::new(budget.working_bytes, budget.rest_bytes);
        let ram = Ram::new(RamSettings {
            mapping_bytes: config.memory.ram_bytes,
            cached_bytes_max: budget.cached_bytes,
            block_size: config.block_size,
        });
        let ram = ram.map_err(|source| ApplianceError::System { what: "the ram tier", source })?;
        let heads = Arc::new(Heads::new(budget.heads_bytes));
        let patience = Patience {
            connect: config.fill.connect_timeout,
            first_byte: config.fill.first_byte_timeout,
            progress: config.fill.progress_timeout,
        };
        let client = Client::new(&config.sites, governor.clone(), patience, config.fill.retries)
            .map_err(ApplianceError::Tls)?;
        let metrics = Metrics::new();
        let filler = Arc::new(Filler {
            runtime: fill_runtime.handle().clone(),
            heads: heads.clone(),
            ram: ram.clone(),
            client,
            governor: governor.clone(),
            block_size: config.block_size,
            window_bytes: config.fill.window_bytes,
            runs_allowed: Arc::new(Semaphore::new(config.fill.runs_max)),
            versions: VersionNumbers::starting_at(epoch_seconds()),
            counters: metrics.for_thread(),
            runs: Runs::new(),
            openings: Openings::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let connections = (0..config.threads.workers).map(|_| Arc::default()).collect();
        let reserve = |purpose, bytes| governor.try_reserve(purpose, Class::Viewer, bytes);
        Ok(Parts {
            _heads_reserved: reserve(Use::Heads, budget.heads_bytes),
            _connections_reserved: reserve(Use::Connections, budget.connections_bytes()),
            permits: Arc::new(Semaphore::new(budget.connections_max)),
            heads,
            ram,
            filler,
            metrics,
            log,
            readiness: Readiness::new(),
            connections,
            started: Instant::now(),
            governor,
            config,
        })
    }

    fn server_settings(&self) -> ServerSettings {
        let limits = &self.config.limits;
        ServerSettings {
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            slow_reader_bytes: limits.slow_reader.bytes,
            slow_reader_period: limits.slow_reader.period,
            drain_timeout: limits.drain_timeout,
            ..ServerSettings::default()
        }
    }

    fn context(&self, worker: usize) -> Arc<ServerContext> {
        Arc::new(ServerContext {
            settings: self.server_settings(),
            permits: self.permits.clone(),
            counts: self.connections[worker].clone(),
        })
    }

    fn delivery(&self) -> Delivery {
        let patience = self.config.fill.connect_timeout + self.config.fill.first_byte_timeout;
        Delivery::new(Shared {
            sites: Arc::new(self.config.sites.clone()),
            heads: self.heads.clone(),
            ram: self.ram.clone(),
            filler: self.filler.clone(),
            governor: self.governor.clone(),
            block_size: self.config.block_size,
            patience: patience + self.config.fill.progress_timeout,
            log: self.log.clone(),
            counters: self.metrics.for_thread(),
        })
    }
}

/// What `memory.total` is shared out to.
struct Budget {
    /// Of the mapping: what the tier may keep.
    cached_bytes: u64,
    /// Of the mapping: what fills and pinned slices may hold. Together more than the mapping: what
    /// is kept
    /// makes room.
    working_bytes: u64,
    rest_bytes: u64,
    heads_bytes: u64,
    connections_max: usize,
    connection_bytes: u64,
}

impl Budget {
    fn of(config: &Config) -> Budget {
        let memory = &config.memory;
        let rest_bytes = memory.total_bytes.saturating_sub(memory.ram_bytes + PROCESS_BYTES);
        let tls = config.listeners.iter().any(|listener| listener.kind == ListenerKind::Https);
        let connection_bytes = CONNECTION_BYTES + if tls { TLS_CONNECTION_BYTES } else { 0 };
        let affordable = rest_bytes / 16 * 6 / connection_bytes;
        let connections_max = config.limits.connections_max.min(affordable as usize).max(1);
        if connections_max < config.limits.connections_max {
            tracing::info!(connections_max, "memory allows fewer connections than the limit set");
        }
        Budget {
            cached_bytes: (memory.ram_bytes / 16 * 15).max(SLOT_SIZE_BYTES),
            working_bytes: memory.ram_bytes / 4 * 3,
            rest_bytes,
            heads_bytes: rest_bytes / 8,
            connections_max,
            connection_bytes,
        }
    }

    fn connections_bytes(&self) -> u64 {
        self.connections_max as u64 * self.connection_bytes
    }
}

#[allow(clippy::disallowed_methods)]
fn epoch_seconds() -> u32 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs() as u32
}

fn log_settings(config: &Config) -> access_log::Settings {
    access_log::Settings {
        destination: match &config.log.access {
            AccessLogTarget::Off => Destination::Off,
            AccessLogTarget::Stdout => Destination::Stdout,
            AccessLogTarget::File(path) => Destination::File(path.clone()),
        },
        client_bits: ClientBits { v4: config.log.client_bits_v4, v6: config.log.client_bits_v6 },
        recent: match config.listeners.iter().any(|l| l.kind == ListenerKind::Admin) {
            true => access_log::Recent::Kept,
            false => access_log::Recent::NotKept,
        },
    }
}

fn tls(config: &Config) -> Result<Option<Tls>, ApplianceError> {
    if config.certificates.is_empty() {
        return Ok(None);
    }
    let certificates: Vec<_> =
        config.certificates.iter().map(|c| Certificate::of(c.key.clone())).collect();
    let hosts = config.sites.iter().flat_map(|site| site.hosts.iter().map(String::as_str));
    let named = config.certificates.iter().flat_map(|c| c.names.iter().map(String::as_str));
    let tls = Tls::new(&certificates, hosts.chain(named));
    tls.map(Some).map_err(|error| ApplianceError::Tls(error.to_string()))
}

/// Every listening socket, by who accepts from it.
struct Sockets {
    /// For each listener, one socket for each worker.
    own: Vec<(ListenerKind, Vec<TcpListener>)>,
    passed: Vec<(ListenerKind, TcpListener)>,
    admin: Vec<TcpListener>,
    addresses: Vec<(ListenerKind, SocketAddr)>,
}

impl Sockets {
    fn open(config: &Config, passed: Vec<PassedSocket>) -> Result<Sockets, ApplianceError> {
        let mut sockets = Sockets {
            own: Vec::new(),
            passed: Vec::new(),
            admin: Vec::new(),
            addresses: Vec::new(),
        };
        let mut passed_kinds = Vec::new();
        for PassedSocket { name, address, listener } in passed {
            let kind = match name {
                ListenerName::Http => ListenerKind::Http,
                ListenerName::Https => ListenerKind::Https,
                ListenerName::Admin => ListenerKind::Admin,
            };
            passed_kinds.push(kind);
            sockets.addresses.push((kind, address));
            match kind {
                ListenerKind::Admin => sockets.admin.push(listener),
                _ => sockets.passed.push((kind, listener)),
            }
        }
        for listener in &config.listeners {
            if passed_kinds.contains(&listener.kind) {
                continue;
            }
            let count =
                if listener.kind == ListenerKind::Admin { 1 } else { config.threads.workers };
            let failed = |source| ApplianceError::Bind { address: listener.address, source };
            let mut group = server::bind_group(listener.address, count).map_err(failed)?;
            let address = group[0].local_addr().map_err(failed)?;
            sockets.addresses.push((listener.kind, address));
            match listener.kind {
                ListenerKind::Admin => sockets.admin.append(&mut group),
                kind => sockets.own.push((kind, group)),
            }
        }
        Ok(sockets)
    }

    fn addresses(&self) -> Vec<(ListenerKind, SocketAddr)> {
        self.addresses.clone()
    }
}

/// What one worker accepts from.
type Sources = Vec<(ListenerKind, WorkerSource)>;

enum WorkerSource {
    Own(TcpListener),
    HandedOver(HandedOver),
}

fn start_workers(
    parts: &Arc<Parts>,
    own: Vec<(ListenerKind, Vec<TcpListener>)>,
    passed: Vec<(ListenerKind, TcpListener)>,
    tls: Option<Tls>,
    drain: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, ApplianceError> {
    let count = parts.config.threads.workers;
    let mut sources: Vec<Sources> = (0..count).map(|_| Vec::new()).collect();
    for (kind, group) in own {
        for (worker, listener) in group.into_iter().enumerate() {
            sources[worker].push((kind, WorkerSource::Own(listener)));
        }
    }
    let mut threads = Vec::new();
    for (kind, listener) in passed {
        let mut inboxes = Vec::new();
        for (worker, sources) in sources.iter_mut().enumerate() {
            let (inbox, handed_over) = server::inbox(parts.connections[worker].clone());
            inboxes.push(inbox);
            sources.push((kind, WorkerSource::HandedOver(handed_over)));
        }
        threads.push(start_acceptor(parts, listener, inboxes, drain)?);
    }
    for (worker, sources) in sources.into_iter().enumerate() {
        let (parts, tls, drain) = (parts.clone(), tls.clone(), drain.clone());
        let work = move || work(worker, &parts, sources, tls, drain);
        threads.push(spawn(format!("worker-{worker}"), work)?);
    }
    Ok(threads)
}

/// One worker: every listener's share of viewers, on a runtime of its own.
fn work(
    worker: usize,
    parts: &Arc<Parts>,
    sources: Sources,
    tls: Option<Tls>,
    drain: CancellationToken,
) {
    let runtime = LocalRuntime::new().expect("a runtime of one thread needs an epoll descriptor");
    runtime.block_on(async {
        let delivery = Rc::new(parts.delivery());
        let context = parts.context(worker);
        let mut serving = tokio::task::JoinSet::new();
        for (kind, source) in sources {
            let source = match source {
                WorkerSource::Own(listener) => Source::listening(listener),
                WorkerSource::HandedOver(handed_over) => Ok(Source::handed_over(handed_over)),
            };
            let source = source.expect("a listener that was bound can be polled");
            let tls = (kind == ListenerKind::Https).then(|| tls.clone()).flatten();
            serving.spawn_local(server::serve(
                source,
                tls,
                delivery.clone(),
                context.clone(),
                drain.clone(),
            ));
        }
        while serving.join_next().await.is_some() {}
    });
}

fn start_acceptor(
    parts: &Arc<Parts>,
    listener: TcpListener,
    inboxes: Vec<Inbox>,
    drain: &CancellationToken,
) -> Result<JoinHandle<()>, ApplianceError> {
    let (permits, drain) = (parts.permits.clone(), drain.clone());
    spawn("acceptor".to_owned(), move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        let accepting = server::hand_over(listener, inboxes, permits, drain);
        if let Err(error) = runtime.block_on(accepting) {
            tracing::error!("a passed socket cannot be accepted from: {error}");
        }
    })
}

fn start_admin(
    parts: &Arc<Parts>,
    listeners: Vec<TcpListener>,
    close: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, ApplianceError> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let (parts, close) = (parts.clone(), close.clone());
    let thread = spawn("admin".to_owned(), move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        let for_status = parts.clone();
        let status = Box::new(move || figures::status(&for_status));
        let admin = Rc::new(Admin::new(parts.metrics.clone(), parts.readiness.clone(), status));
        let context = Arc::new(ServerContext {
            settings: ServerSettings {
                drain_timeout: ADMIN_ENDS_WITHIN,
                ..parts.server_settings()
            },
            permits: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            counts: Arc::default(),
        });
        runtime.block_on(async {
            let mut serving = tokio::task::JoinSet::new();
            for listener in listeners {
                let source = Source::listening(listener).expect("a bound listener can be polled");
                let (admin, context) = (admin.clone(), context.clone());
                serving.spawn_local(server::serve(source, None, admin, context, close.clone()));
            }
            while serving.join_next().await.is_some() {}
        });
    })?;
    Ok(Some(thread))
}

const ADMIN_ENDS_WITHIN: Duration = Duration::from_secs(1);
const ADMIN_CONNECTIONS_MAX: usize = 64;

fn spawn(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ApplianceError> {
    let failed = |source| ApplianceError::System { what: "a thread", source };
    thread::Builder::new().name(name).spawn(work).map_err(failed)
}

/// Where the appliance is in its life.
impl Running {
    /// Starting, ready or draining.
    pub fn phase(&self) -> Phase {
        self.parts.readiness.phase()
    }
}
