//! The control plane's thread: alone, or beside an appliance, which never waits for it.
//!
//! It has a runtime of its own and ends when it is told to. Beside an appliance it is started
//! whatever its state is like: what is wrong is told in the log, and it is tried again; also while
//! the process that this one takes over from still has the state.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{ApplianceError, join};
use crate::config::Control;
use crate::control::plane::{Plane, PlaneHandler, Settings};
use crate::control::registry::Rules;
use crate::control::registry::fleet::Fleet;
use crate::limits::{PLANE_CONNECTIONS_MAX, PLANE_CONNECTIONS_PER_CLIENT_MAX};
use crate::overload::{self, ClientLimits, Gate, Overload};
use crate::purge::Tokens;
use crate::server::{self, ReusePort, ServerContext, ServerSettings, Source, Stop, Wishes};

/// A running control plane.
pub struct ControlPlane {
    stop: Stop,
    thread: JoinHandle<()>,
    tokens: Arc<ArcSwapOption<Tokens>>,
    addresses: Vec<SocketAddr>,
}

/// A control plane that has what it needs.
struct Opened {
    plane: Arc<Plane>,
    listeners: Vec<TcpListener>,
}

impl ControlPlane {
    /// Starts one alone; returns when it listens. Blocks.
    ///
    /// # Errors
    /// Its state, its keys or its addresses cannot be had; nothing keeps running then.
    pub fn start(control: &Control) -> Result<ControlPlane, ApplianceError> {
        let tokens = Arc::new(ArcSwapOption::from_pointee(control.tokens.clone()));
        let (settings, fleet) = (settings(control, tokens.clone()), Arc::default());
        let opened = open(settings, control, fleet)?;
        let addresses = opened.addresses();
        let stop = Stop::default();
        let ends = stop.clone();
        let thread = spawn(move |runtime| runtime.block_on(serve(opened, &ends)))?;
        Ok(ControlPlane { stop, thread, tokens, addresses })
    }

    /// Starts one beside an appliance, which sees in `fleet` what it knows of the others, once
    /// `is_known` says so, and says in `tokens` who may what.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start_beside(
        control: &Control,
        tokens: Arc<ArcSwapOption<Tokens>>,
        fleet: Arc<ArcSwap<Fleet>>,
        is_known: Arc<watch::Sender<bool>>,
    ) -> Result<ControlPlane, ApplianceError> {
        let (settings, stop) = (settings(control, tokens.clone()), Stop::default());
        let (ends, control) = (stop.clone(), control.clone());
        let beside = move |runtime: LocalRuntime| {
            runtime.block_on(async {
                let opening = opened_at_last(settings, &control, fleet);
                let opened = tokio::select! {
                    () = ends.all.cancelled() => return,
                    opened = opening => opened,
                };
                is_known.send_replace(true);
                for address in opened.addresses() {
                    tracing::info!("control at {address}");
                }
                serve(opened, &ends).await;
            });
            // A state that does not answer is not waited for.
            runtime.shutdown_timeout(ENDS_WITHIN);
        };
        let (thread, addresses) = (spawn(beside)?, Vec::new());
        Ok(ControlPlane { stop, thread, tokens, addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Who may what from now on.
    pub fn let_in(&self, tokens: Option<Tokens>) {
        self.tokens.store(tokens.map(Arc::new));
    }

    /// Ends it: who waits for a snapshot is cut off. Blocks, for a second at most.
    pub fn end(self) {
        self.stop.all.cancel();
        join(self.thread);
    }
}

impl Opened {
    fn addresses(&self) -> Vec<SocketAddr> {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        self.listeners.iter().filter_map(address).collect()
    }
}

/// Tries until it has what it needs; what is wrong is told when that is something else than before.
async fn opened_at_last(
    settings: Settings,
    control: &Control,
    fleet: Arc<ArcSwap<Fleet>>,
) -> Opened {
    let (mut told, since) = (String::new(), Instant::now());
    loop {
        let (settings, control, fleet) = (settings.clone(), control.clone(), fleet.clone());
        let error = match spawn_blocking(move || open(settings, &control, fleet)).await {
            Ok(Ok(opened)) => return opened,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        // Another process may be about to leave it to this one.
        if told != error && since.elapsed() > LEFT_WITHIN {
            tracing::error!("there is no control plane, and it is tried again: {error}");
            told = error;
        }
        sleep(TRIED_AGAIN_AFTER).await;
    }
}

fn open(
    settings: Settings,
    control: &Control,
    fleet: Arc<ArcSwap<Fleet>>,
) -> Result<Opened, ApplianceError> {
    let mut listeners = Vec::new();
    for address in &control.listen {
        let failed = |source| ApplianceError::Bind { address: *address, source };
        let listener = server::bind(*address, ReusePort::Exclusive).map_err(failed)?;
        server::listen(&listener).map_err(failed)?;
        listeners.push(listener);
    }
    let plane = Plane::open(settings, fleet, SystemTime::now());
    let plane = Arc::new(plane.map_err(ApplianceError::Control)?);
    Ok(Opened { plane, listeners })
}

async fn serve(Opened { plane, listeners }: Opened, stop: &Stop) {
    let tls = match plane.tls() {
        Ok(tls) => tls,
        Err(error) => return tracing::error!("{error}"),
    };
    let context = Arc::new(ServerContext {
        settings: Arc::new(ArcSwap::from_pointee(server_settings())),
        permits: Arc::new(Semaphore::new(PLANE_CONNECTIONS_MAX)),
        counts: Arc::default(),
        wishes: Wishes::default(),
        gate: Arc::new(Gate::new(overload())),
    });
    let handler = Rc::new(PlaneHandler(plane.clone()));
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        let source = Source::listening(listener).expect("a bound listener can be polled");
        let (tls, handler, context) = (Some(tls.clone()), handler.clone(), context.clone());
        serving.spawn_local(server::serve(source, tls, handler, context, stop.clone()));
    }
    let all = async { while serving.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = plane.keep_current() => {}
    }
}

fn settings(control: &Control, tokens: Arc<ArcSwapOption<Tokens>>) -> Settings {
    let health = &control.health;
    Settings {
        folder: control.folder.clone(),
        store: control.store.clone(),
        names: control.names.clone(),
        shown: control.certificate.clone(),
        operators_ca: control.operators_ca.clone(),
        tokens,
        rules: Rules {
            bad_heartbeats: health.bad_heartbeats,
            good_heartbeats: health.good_heartbeats,
            silent_after: health.silent_after,
            removed_share_percent_max: health.removed_percent_max,
            tight_percent: health.tight_percent,
            full_percent: health.full_percent,
            open_percent: health.open_percent,
        },
        heartbeat: control.heartbeat,
        requests_per_second: control.requests_per_second,
    }
}

/// Who shows no certificate yet does not take all connections.
fn overload() -> Arc<Overload> {
    let connections_max = PLANE_CONNECTIONS_PER_CLIENT_MAX;
    let settings = overload::Settings {
        client: ClientLimits { connections_max, ..ClientLimits::default() },
        ..overload::Settings::default()
    };
    Overload::new(settings, Arc::default(), Instant::now())
}

/// Boxes keep their connections, and are heard of more often than that.
fn server_settings() -> ServerSettings {
    ServerSettings {
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(120),
        handshake_timeout: Duration::from_secs(10),
        slow_reader_bytes: 16 << 10,
        slow_reader_period: Duration::from_secs(60),
        drain_timeout: ENDS_WITHIN,
        proxy_protocol: Vec::new(),
    }
}

fn spawn(
    work: impl FnOnce(LocalRuntime) + Send + 'static,
) -> Result<JoinHandle<()>, ApplianceError> {
    let failed = |source| ApplianceError::System { what: "a thread", source };
    let work = || {
        work(LocalRuntime::new().expect("a runtime of one thread needs an epoll descriptor"));
    };
    thread::Builder::new().name("control".to_owned()).spawn(work).map_err(failed)
}

const ENDS_WITHIN: Duration = Duration::from_millis(500);
const TRIED_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A process that has been followed leaves it at once.
const LEFT_WITHIN: Duration = Duration::from_secs(2);
