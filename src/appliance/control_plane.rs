//! The control plane's thread: alone, or beside an appliance, which never waits for it.
//!
//! It has a runtime of its own and ends when it is told to. Alone, one that ends before is noticed
//! by who runs it. Beside an appliance it is started whatever its state is like: what is wrong is
//! told in the log and the status, and it is tried again; also while the process that this one
//! takes over from still has the state, and after it broke off.

mod shown;

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::shown::Shown;
use super::{ApplianceError, join};
use crate::config::Control;
use crate::control::plane::{Plane, PlaneHandler, Settings};
use crate::control::registry::Rules;
use crate::control::registry::fleet::Fleet;
use crate::control::status::ControlStatus;
use crate::limits::{PLANE_CONNECTIONS_MAX, PLANE_CONNECTIONS_PER_CLIENT_MAX};
use crate::overload::{self, ClientLimits, Gate, Overload};
use crate::purge::Tokens;
use crate::server::{self, ReusePort, ServerContext, ServerSettings, Source, Stop, Wishes};

/// A running control plane.
pub struct ControlPlane {
    stop: Stop,
    thread: JoinHandle<()>,
    has_ended: CancellationToken,
    beside: Beside,
    addresses: Vec<SocketAddr>,
}

/// What a control plane and who started it know of each other: what counts anew after a reload, and
/// how it is. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Beside {
    tokens: Arc<ArcSwapOption<Tokens>>,
    shown: Arc<Shown>,
    status: Arc<Mutex<ControlStatus>>,
}

impl Beside {
    pub(super) fn of(control: Option<&Control>) -> Beside {
        let beside = Beside::default();
        beside.adopt(control);
        beside
    }

    /// Goes by another configuration from now on.
    pub(super) fn adopt(&self, control: Option<&Control>) {
        let tokens = control.and_then(|control| control.tokens.clone());
        self.tokens.store(tokens.map(Arc::new));
        // Without the section the control plane there is goes on until the next start.
        if let Some(control) = control {
            self.shown.adopt(control.certificate.clone());
        }
    }

    /// How the control plane is.
    pub(super) fn status(&self) -> ControlStatus {
        self.told().clone()
    }

    fn told(&self) -> MutexGuard<'_, ControlStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let beside = Beside::of(Some(control));
        let opened = open(settings(control, &beside), control, Arc::default())?;
        let (addresses, stop) = (opened.addresses(), Stop::default());
        let (ends, shown) = (stop.clone(), beside.shown.clone());
        let work = move || runtime().block_on(serve(opened, &shown, &ends));
        let (thread, has_ended) = spawn(work)?;
        Ok(ControlPlane { stop, thread, has_ended, beside, addresses })
    }

    /// Starts one beside an appliance, which sees in `fleet` what it knows of the others, once
    /// `is_known` says so, and in `beside` how it is.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start_beside(
        control: &Control,
        beside: Beside,
        fleet: Arc<ArcSwap<Fleet>>,
        is_known: Arc<watch::Sender<bool>>,
    ) -> Result<ControlPlane, ApplianceError> {
        let (settings, stop) = (settings(control, &beside), Stop::default());
        let (ends, control, told) = (stop.clone(), control.clone(), beside.clone());
        let once = move |runtime: &LocalRuntime| {
            runtime.block_on(async {
                let opening = opened_at_last(settings.clone(), &control, fleet.clone(), &told);
                let opened = tokio::select! {
                    () = ends.all.cancelled() => return,
                    opened = opening => opened,
                };
                is_known.send_replace(true);
                for address in opened.addresses() {
                    tracing::info!("control at {address}");
                }
                *told.told() = ControlStatus { is_running: true, why: None, ..told.status() };
                serve(opened, &told.shown, &ends).await;
            });
        };
        let (ends, told) = (stop.clone(), beside.clone());
        let work = move || keep_up(once, &told, &ends.all, BEGUN_AGAIN_AFTER);
        let ((thread, has_ended), addresses) = (spawn(work)?, Vec::new());
        Ok(ControlPlane { stop, thread, has_ended, beside, addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Goes by another configuration from now on, as far as that needs no start: who may what, and
    /// what it shows.
    pub fn adopt(&self, control: &Control) {
        self.beside.adopt(Some(control));
    }

    /// Waits until it has ended by itself, which it never should. Safe to drop.
    pub async fn ended(&self) {
        self.has_ended.cancelled().await;
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

/// Begins it again after it broke off, until it is told to end. Blocks as long.
fn keep_up(
    mut once: impl FnMut(&LocalRuntime),
    beside: &Beside,
    ends: &CancellationToken,
    again_after: Duration,
) {
    let pauses = runtime();
    loop {
        let runtime = runtime();
        let ended = catch_unwind(AssertUnwindSafe(|| once(&runtime)));
        // A state that does not answer is not waited for.
        runtime.shutdown_timeout(ENDS_WITHIN);
        let why = match ended {
            _ if ends.is_cancelled() => return,
            Ok(()) => "it ended by itself",
            Err(_) => "it panicked, which is a mistake in Tidegate; standard error says where",
        };
        tracing::error!("the control plane broke off, and is begun again: {why}");
        {
            let mut status = beside.told();
            (status.is_running, status.why) = (false, Some(why.to_owned()));
            status.broken_off += 1;
        }
        pauses.block_on(async {
            tokio::select! {
                () = ends.cancelled() => {}
                () = sleep(again_after) => {}
            }
        });
    }
}

/// Tries until it has what it needs; what is wrong is told when that is something else than before.
async fn opened_at_last(
    settings: Settings,
    control: &Control,
    fleet: Arc<ArcSwap<Fleet>>,
    beside: &Beside,
) -> Opened {
    let (mut told, since) = (String::new(), Instant::now());
    loop {
        let (settings, control, fleet) = (settings.clone(), control.clone(), fleet.clone());
        let error = match spawn_blocking(move || open(settings, &control, fleet)).await {
            Ok(Ok(opened)) => return opened,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        beside.told().why = Some(error.clone());
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

/// Until it is told to stop; whatever panics in it does so here.
async fn serve(Opened { plane, listeners }: Opened, shown: &Arc<Shown>, stop: &Stop) {
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
    let all = async {
        while let Some(ended) = serving.join_next().await {
            ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        }
    };
    tokio::select! {
        () = all => {}
        () = plane.keep_current() => {}
        () = shown.follow() => {}
    }
}

fn settings(control: &Control, beside: &Beside) -> Settings {
    let health = &control.health;
    Settings {
        folder: control.folder.clone(),
        store: control.store.clone(),
        names: control.names.clone(),
        shown: beside.shown.key(),
        operators_ca: control.operators_ca.clone(),
        tokens: beside.tokens.clone(),
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

/// A thread, and when it has ended, however that was.
fn spawn(
    work: impl FnOnce() + Send + 'static,
) -> Result<(JoinHandle<()>, CancellationToken), ApplianceError> {
    let failed = |source| ApplianceError::System { what: "a thread", source };
    let has_ended = CancellationToken::new();
    let ending = has_ended.clone().drop_guard();
    let work = move || {
        // A panic drops it too.
        let _ending = ending;
        work();
    };
    let thread = thread::Builder::new().name("control".to_owned()).spawn(work).map_err(failed)?;
    Ok((thread, has_ended))
}

fn runtime() -> LocalRuntime {
    LocalRuntime::new().expect("a runtime of one thread needs an epoll descriptor")
}

const ENDS_WITHIN: Duration = Duration::from_millis(500);
const TRIED_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A process that has been followed leaves it at once.
const LEFT_WITHIN: Duration = Duration::from_secs(2);
/// What panics once may do so again.
const BEGUN_AGAIN_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_is_noticed() {
        let (thread, has_ended) = spawn(|| panic!("as a mistake would")).unwrap();
        has_ended.cancelled().await;
        assert!(thread.join().is_err());
    }

    #[test]
    fn one_beside_an_appliance_that_broke_off_is_begun_again_and_says_so() {
        let (beside, ends) = (Beside::default(), CancellationToken::new());
        let (mut begun, mut said) = (0, Vec::new());
        let (never, answer) = tokio::sync::oneshot::channel::<()>();
        let mut answer = Some(answer);
        let once = |runtime: &LocalRuntime| {
            begun += 1;
            said.push(beside.status());
            match begun {
                1 => {
                    // A state that never answers.
                    let answer = answer.take().unwrap();
                    runtime.spawn_blocking(move || answer.blocking_recv());
                    panic!("as a mistake would")
                }
                2 => beside.told().is_running = true,
                _ => ends.cancel(),
            }
        };
        keep_up(once, &beside, &ends, Duration::ZERO);
        drop(never);
        let why: Vec<_> = said.iter().map(|one| one.why.as_deref().unwrap_or_default()).collect();
        assert!(why[0].is_empty() && why[1].contains("panicked"), "{why:?}");
        assert_eq!((why[2], said[2].is_running), ("it ended by itself", false));
        assert_eq!(said.iter().map(|one| one.broken_off).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
