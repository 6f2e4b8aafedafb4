//! The threads that serve: one for each worker, one for each passed socket, one for the admin
//! listener (steering's own is in `steering.rs`).
//!
//! Each has a runtime of its own and ends when its token is cancelled and its connections are
//! done. Whoever starts one joins it.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::{LocalRuntime, Runtime};
use tokio::sync::{Semaphore, mpsc};

use super::parts::{Parts, server_settings};
use super::{ApplianceError, explain, figures, load, sought};
use crate::config::{Config, ListenerKind};
use crate::control::api::Admin;
use crate::control::drain::Drainer;
use crate::control::explained::Explaining;
use crate::control::history::History;
use crate::control::log::LogSource;
use crate::control::purge::Purger;
use crate::control::reload::{Asked, Reloader};
use crate::control::usage::UsageSource;
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::overload::{Gate, Overload};
use crate::purge::Sought;
use crate::server::{
    self, DealtOut, Inbox, ServerContext, ServerSettings, Source, Stop, Tls, Wishes,
};

/// What one worker accepts from.
type Sources = Vec<(ListenerKind, WorkerSource)>;

enum WorkerSource {
    Own(TcpListener),
    DealtOut(DealtOut),
}

/// What fills, and all that is done beside viewers.
pub(super) fn fill_runtime(config: &Config) -> Result<Runtime, ApplianceError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads.fill)
        .thread_name("fill")
        .enable_all()
        .build();
    runtime.map_err(|source| ApplianceError::System { what: "the fill runtime", source })
}

pub(super) fn start_workers(
    parts: &Arc<Parts>,
    own: Vec<(ListenerKind, Vec<Vec<TcpListener>>)>,
    passed: Vec<(ListenerKind, TcpListener)>,
    tls: Option<Tls>,
    stop: &Stop,
) -> Result<Vec<JoinHandle<()>>, ApplianceError> {
    let count = parts.config.threads.workers;
    let mut sources: Vec<Sources> = (0..count).map(|_| Vec::new()).collect();
    for (kind, group) in own {
        for (worker, listeners) in group.into_iter().enumerate() {
            let own = listeners.into_iter().map(|one| (kind, WorkerSource::Own(one)));
            sources[worker].extend(own);
        }
    }
    let mut threads = Vec::new();
    for (kind, listener) in passed {
        let mut inboxes = Vec::new();
        for (worker, sources) in sources.iter_mut().enumerate() {
            let (inbox, dealt_out) = server::inbox(parts.connections[worker].clone());
            inboxes.push(inbox);
            sources.push((kind, WorkerSource::DealtOut(dealt_out)));
        }
        threads.push(start_acceptor(parts, listener, inboxes, stop)?);
    }
    for (worker, sources) in sources.into_iter().enumerate() {
        let (parts, tls, stop) = (parts.clone(), tls.clone(), stop.clone());
        let work = move || work(worker, &parts, sources, tls, stop);
        threads.push(spawn(format!("worker-{worker}"), work)?);
    }
    Ok(threads)
}

/// One worker: every listener's share of viewers, on a runtime of its own.
fn work(worker: usize, parts: &Arc<Parts>, sources: Sources, tls: Option<Tls>, stop: Stop) {
    let runtime = LocalRuntime::new().expect("a runtime of one thread needs an epoll descriptor");
    runtime.block_on(async {
        let delivery = Rc::new(parts.delivery(worker));
        let context = parts.context(worker);
        let watching = tokio::task::spawn_local(load::watch_lag(parts.gates[worker].clone()));
        let mut serving = tokio::task::JoinSet::new();
        for (kind, source) in sources {
            let source = match source {
                WorkerSource::Own(listener) => Source::listening(listener),
                WorkerSource::DealtOut(dealt_out) => Ok(Source::dealt_out(dealt_out)),
            };
            let source = source.expect("a listener that was bound can be polled");
            let tls = (kind == ListenerKind::Https).then(|| tls.clone()).flatten();
            serving.spawn_local(server::serve(
                source,
                tls,
                delivery.clone(),
                context.clone(),
                stop.clone(),
            ));
        }
        while serving.join_next().await.is_some() {}
        watching.abort();
    });
}

fn start_acceptor(
    parts: &Arc<Parts>,
    listener: TcpListener,
    inboxes: Vec<Inbox>,
    stop: &Stop,
) -> Result<JoinHandle<()>, ApplianceError> {
    let (permits, stop) = (parts.permits.clone(), stop.clone());
    spawn("acceptor".to_owned(), move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        let accepting = server::deal_out(listener, inboxes, permits, stop);
        if let Err(error) = runtime.block_on(accepting) {
            tracing::error!("a passed socket cannot be accepted from: {error}");
        }
    })
}

pub(super) fn start_admin(
    parts: &Arc<Parts>,
    listeners: Vec<TcpListener>,
    ask: mpsc::Sender<Asked>,
    close: &Stop,
) -> Result<Option<JoinHandle<()>>, ApplianceError> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let (parts, close) = (parts.clone(), close.clone());
    let thread = spawn("admin".to_owned(), move || {
        let runtime = LocalRuntime::new().expect("a runtime of one thread needs a descriptor");
        let admin = Rc::new(admin(&parts, ask));
        let history = admin.history.clone();
        let context = Arc::new(ServerContext {
            settings: Arc::new(ArcSwap::from_pointee(ServerSettings {
                drain_timeout: ADMIN_ENDS_WITHIN,
                ..server_settings(&parts.config.limits)
            })),
            permits: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            counts: Arc::default(),
            wishes: Wishes::default(),
            gate: Arc::new(Gate::new(Overload::unlimited(Instant::now()))),
        });
        runtime.block_on(async {
            let mut serving = tokio::task::JoinSet::new();
            for listener in listeners {
                let source = Source::listening(listener).expect("a bound listener can be polled");
                let (admin, context) = (admin.clone(), context.clone());
                serving.spawn_local(server::serve(source, None, admin, context, close.clone()));
            }
            let serve = async { while serving.join_next().await.is_some() {} };
            tokio::select! {
                () = serve => {}
                () = history.follow(parts.metrics.clone()) => {}
            }
        });
    })?;
    Ok(Some(thread))
}

/// What answers operators.
fn admin(parts: &Arc<Parts>, ask: mpsc::Sender<Asked>) -> Admin {
    let for_status = parts.clone();
    let status = Box::new(move |detail| figures::status(&for_status, detail));
    let for_explain = parts.clone();
    let explain = Box::new(move |head| -> Explaining {
        Box::pin(explain::explain(for_explain.clone(), head))
    });
    let (metrics, readiness) = (parts.metrics.clone(), parts.readiness.clone());
    let (purges, sites) = (parts.purges.clone(), parts.live.sites.clone());
    let for_purges = parts.clone();
    let find = Arc::new(move |sought: &Sought| sought::found(&for_purges, sought));
    let look = Arc::new(Semaphore::new(1));
    let purger = Purger { purges, sites: sites.clone(), find, look };
    let reloader = Reloader { ask };
    let for_drain = parts.clone();
    let planning = Box::new(move |plan| for_drain.plan_drain(plan));
    let drainer = Drainer { planning };
    let (log, governor) = (parts.log.clone(), parts.governor.clone());
    let log = LogSource { log, governor: governor.clone(), look: Semaphore::new(1) };
    let (usage, look) = (parts.usage.clone(), Semaphore::new(1));
    let usage = UsageSource { usage, sites, governor, look };
    let (history, tokens) = (Rc::new(History::default()), parts.live.token.clone());
    Admin {
        metrics,
        readiness,
        tokens,
        status,
        explain,
        purger,
        reloader,
        drainer,
        log,
        usage,
        history,
    }
}

const ADMIN_ENDS_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn spawn(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ApplianceError> {
    let failed = |source| ApplianceError::System { what: "a thread", source };
    thread::Builder::new().name(name).spawn(work).map_err(failed)
}
