//! `tidegate serve`: runs the appliance until it is told to stop.
//!
//! Everything in the configuration is checked before a port is bound. Readiness is told to the
//! service manager; SIGTERM and SIGINT drain within the limit set and exit 0, SIGHUP reopens the
//! access log and reads the configuration again, SIGUSR2 has the binary of now take over.

mod signals;
mod systemd;

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::mem::take;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::signals::{ServingSignals, Signals, pass_on_end, pass_on_hangup};
pub(super) use self::systemd::notify;
use self::systemd::tell;
use super::{Failure, USUAL_CONFIG};
use crate::appliance::{
    Appliance, ApplianceError, HandOver, LeftAlone, Predecessor, ReloadError, Reloaded, Reloads,
    Running, Successor,
};
use crate::config::{self, Change, Counts, LogLevel};
use crate::control::reload::{Asked, Order};
use crate::limits::LOG_LINES_WAITING_MAX;

const EXAMPLES: &str = "\
Examples:
  tidegate serve --config /etc/tidegate/tidegate.toml
  TIDEGATE_LOG=tidegate=debug tidegate serve --config tidegate.toml

SIGTERM and SIGINT drain and end with exit code 0. SIGHUP opens the access log's file anew and
reads the configuration again, as `tidegate reload` has it done; one with a fault changes nothing.
SIGUSR2 has the binary that is now where this one was started from take over: `tidegate upgrade`.
A process that another one has followed passes SIGHUP on to it; SIGTERM has it drain at once, and a
second one cuts off what is left. The one that follows has it drain when it is told to stop itself,
and ends after it; where that one ends by itself, it drains at once, and the exit code is 1.

Exit codes: 0 told to stop, or followed, 1 failed, 64 misused, or a fault in the configuration";

/// Serve viewers until told to stop
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
}

/// Serves until a signal says stop, or another process serves.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let lost = |error| Failure::Failed(format!("nothing is handed over: {error}"));
    let mut signals = Signals::taken().map_err(no_signals)?;
    let mut predecessor = Predecessor::found().map_err(lost)?;
    let ended = started(args, predecessor.as_mut(), &signals);
    let (mut running, told, serving) = ended.map_err(|failure| match &predecessor {
        // It logs each line, in the same place.
        Some(one) if one.say_failed(&failure.to_string()) => failure.told(),
        _ => failure,
    })?;
    // Who follows is heard by the service manager only when it is known to be the main process.
    if predecessor.is_none() {
        tell(running.keep_sockets());
    }
    let hand_over = running.hand_over();
    match wait_for_stop(&mut running, &told, &hand_over, (&mut signals, serving)) {
        Stop::Wanted => {
            let followed_by = hand_over.end();
            // Who has followed unseen is told to stop in his place.
            followed_by.iter().for_each(|successor| pass_on_end(successor.pid));
            signals.runtime.shutdown_background();
            predecessor.into_iter().for_each(|before| before.hurry(&running));
            tell(running.keep_sockets());
            notify(&[NotifyState::Stopping]);
            tracing::info!("draining");
            running.drain();
            match followed_by {
                Some(successor) => successor.until_ended(),
                None => hand_over.give_up(),
            }
            tracing::info!("drained");
        }
        Stop::Followed { successor: Successor { pid, version }, serving, is_due } => {
            tracing::info!("process {pid} serves, version {version}: what has begun is finished");
            tell(running.keep_sockets_no_longer());
            notify(&[NotifyState::MainPid(pid)]);
            // Only now the service manager hears what that one says of it.
            if is_due {
                pass_on_hangup(pid);
            }
            if let Err(error) = signals.leave(serving, running.leaving(), pid) {
                tracing::error!("signals are not heard while this process leaves: {error}");
            }
            let left = running.leave(&hand_over);
            tracing::info!("what had begun is finished");
            // It may be this one that a service manager looks at.
            left.map_err(|LeftAlone| {
                Failure::Failed(format!("nobody serves: process {pid} has ended by itself"))
            })?;
        }
    }
    Ok(())
}

fn no_signals(error: io::Error) -> Failure {
    Failure::Failed(format!("signals cannot be waited for: {error}"))
}

fn started(
    args: &Args,
    mut predecessor: Option<&mut Predecessor>,
    signals: &Signals,
) -> Result<(Running, Told, ServingSignals), Failure> {
    let config = config::load(&args.config).map_err(|e| Failure::Misused(e.to_string()))?;
    let passed = systemd::passed(&config).map_err(|e| Failure::Misused(e.to_string()))?;
    let mut inherited = systemd::inherited(&config, &passed);
    inherited.extend(predecessor.iter().flat_map(|one| one.addresses()));
    let told = log_to_stderr(config.log.level);
    // What is to listen now may be in the way of what listened before.
    let until = systemd::forget(passed.stale);
    let tried = systemd::try_ports_until(until, || config.try_ports(&inherited));
    tried.map_err(|e| Failure::Misused(e.to_string()))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let failed = |error| match error {
        ApplianceError::Settings(fault) => Failure::Misused(fault.to_string()),
        error => Failure::Failed(format!("tidegate: {error}")),
    };
    let running = match &mut predecessor {
        Some(predecessor) => Appliance::start_after(config, predecessor),
        None => Appliance::start_with(config, passed.sockets),
    };
    let running = running.map_err(failed)?;
    // Whoever is told that it serves may send one at once.
    let serving = signals.serving().map_err(no_signals)?;
    if let Some(predecessor) = predecessor {
        predecessor.say_serving(&running).map_err(failed)?;
    }
    Ok((running, told, serving))
}

/// Diagnostics go to standard error, where the service manager takes them, through a thread of
/// their own: lines that nobody takes are lost, and no worker waits for them. What is returned is
/// kept until the end, when it writes what is left.
pub(super) fn log_to_stderr(level: LogLevel) -> Told {
    // Set to nothing it would hide warnings: that is how a unit file takes it back.
    let written = std::env::var("TIDEGATE_LOG").ok().filter(|text| !text.is_empty());
    let wanted = written.as_deref().map(EnvFilter::try_new);
    let fault = wanted.as_ref().and_then(|filter| filter.as_ref().err().map(ToString::to_string));
    let wanted = wanted.and_then(Result::ok);
    let is_fixed = wanted.is_some();
    let (filter, handle) = reload::Layer::new(wanted.unwrap_or_else(|| filter_of(level)));
    let (stderr, written_at_exit) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES_WAITING_MAX)
        .finish(std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Set twice only where one process runs several appliances, as tests do.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if let Some(fault) = fault {
        tracing::warn!(
            "TIDEGATE_LOG is no filter such as \"tidegate=debug\" and is ignored: {fault}"
        );
    }
    Told { _written_at_exit: written_at_exit, filter: (!is_fixed).then_some(handle) }
}

fn filter_of(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("tidegate={}", level.as_str()))
}

/// What is told on standard error.
pub(super) struct Told {
    _written_at_exit: WorkerGuard,
    /// None where the environment says what is told.
    filter: Option<Levels>,
}

type Levels = reload::Handle<EnvFilter, Registry>;

/// Every connection is a descriptor: the soft limit of old shells would be the first to be reached.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn announce(running: &Running) {
    let [steering, steering_tls] = running.steering_addresses();
    for (kind, addresses) in [
        ("steering", steering),
        ("steering_tls", steering_tls),
        ("http", running.http_addresses()),
        ("https", running.https_addresses()),
        ("admin", running.admin_addresses()),
    ] {
        for address in addresses {
            tracing::info!("{kind} at {address}");
        }
    }
}

/// Why it serves no longer.
enum Stop {
    /// Somebody said so.
    Wanted,
    /// Another process does, which is to reload if that `is_due`.
    Followed { successor: Successor, serving: ServingSignals, is_due: bool },
}

/// Says that it is ready. Reloads, and has another process take over, when it is asked to.
fn wait_for_stop(
    running: &mut Running,
    told: &Told,
    hand_over: &HandOver,
    (Signals { runtime, hangup, upgrade: replace }, mut serving): (&mut Signals, ServingSignals),
) -> Stop {
    let (reloads, levels) = (running.reloads(), told.filter.clone());
    let reload = move || reload(&reloads, levels.as_ref());
    let (hand_over, own) = (hand_over.clone(), own_binary());
    let upgrade = move || upgrade(&hand_over, &own);
    runtime.block_on(async {
        announce(running);
        notify(&[NotifyState::Ready]);
        // A disk that hangs may hold it up, and nobody who says stop.
        let mut working: Option<JoinHandle<Option<Successor>>> = None;
        let mut is_due = false;
        let kept = running.keep_sockets_when_alone();
        tokio::spawn(async move { tell(kept.await) });
        loop {
            let (reload, upgrade) = (reload.clone(), upgrade.clone());
            if working.is_none() && take(&mut is_due) {
                // Told in the log.
                let reload = reload.clone();
                working = Some(spawn_blocking(move || none(reload())));
            }
            let is_free = working.is_none();
            tokio::select! {
                _ = serving.terminate.recv() => return Stop::Wanted,
                _ = serving.interrupt.recv() => return Stop::Wanted,
                _ = hangup.recv() => {
                    running.reopen_log();
                    is_due = true;
                }
                _ = replace.recv(), if is_free => {
                    // Told in the log.
                    working = Some(spawn_blocking(move || upgrade().0));
                }
                Asked { order, tell } = running.asked(), if is_free => {
                    // Who asked may have left.
                    working = Some(spawn_blocking(move || match order {
                        Order::Reload => none(tell.send(reload())),
                        Order::Upgrade => {
                            let (followed, told) = upgrade();
                            let _ = tell.send(told);
                            followed
                        }
                    }));
                }
                ended = ended(&mut working), if !is_free => {
                    working = None;
                    match ended {
                        Ok(None) => {}
                        Ok(Some(successor)) => {
                            return Stop::Followed { successor, serving, is_due };
                        }
                        Err(error) => tracing::error!("what was asked for broke off: {error}"),
                    }
                }
            }
        }
    })
}

/// Whatever came of it, nobody follows.
fn none<T>(_: T) -> Option<Successor> {
    None
}

/// Of none there is no end.
async fn ended(
    working: &mut Option<JoinHandle<Option<Successor>>>,
) -> Result<Option<Successor>, JoinError> {
    match working {
        Some(working) => working.await,
        None => std::future::pending().await,
    }
}

fn as_json(change: &Change) -> Value {
    let Change { setting, before, after, counts, but: _, moves: _ } = change;
    let from_now = *counts == Counts::Now;
    json!({
        "text": change.to_string(),
        "setting": setting,
        "before": before,
        "after": after,
        "needs_restart": !from_now,
    })
}

/// Reloads, which the service manager is told of; what has changed, or why nothing has.
fn reload(reloads: &Reloads, levels: Option<&Levels>) -> Result<Value, String> {
    let since = NotifyState::monotonic_usec_now().ok();
    notify(&[Some(NotifyState::Reloading), since].into_iter().flatten().collect::<Vec<_>>());
    let reloaded = whole(|| reloads.reload());
    // Nobody listens any more only where one process runs several appliances.
    let _ = levels.map(|levels| levels.reload(filter_of(reloads.log_level())));
    let reloaded = match reloaded {
        Ok(Reloaded { changes, warnings }) => {
            tracing::info!(changes = changes.len(), "reloaded");
            let changes: Vec<_> = changes.iter().map(as_json).collect();
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            Ok(json!({ "changes": changes, "warnings": warnings }))
        }
        Err(why) => {
            for line in why.lines() {
                tracing::error!("not reloaded: {line}");
            }
            Err(why)
        }
    };
    notify(&[NotifyState::Ready]);
    reloaded
}

/// Has the binary take over that is now where this one was started from: who follows, if anybody
/// does, and what is told of it.
fn upgrade(hand_over: &HandOver, own: &Path) -> (Option<Successor>, Result<Value, String>) {
    if let Err(why) = may_be_followed(process::id()) {
        tracing::error!("not upgraded: {why}");
        return (None, Err(why.to_owned()));
    }
    let mut command = Command::new(own);
    command.args(env::args_os().skip(1));
    match hand_over.to(command) {
        Ok(successor) => {
            let Successor { pid, version } = &successor;
            let before = env!("CARGO_PKG_VERSION");
            let told = json!({ "pid": pid, "version": version, "version_before": before });
            (Some(successor), Ok(told))
        }
        Err(error) => {
            error.to_string().lines().for_each(|line| tracing::error!("not upgraded: {line}"));
            (None, Err(error.to_string()))
        }
    }
}

/// Whether a process with this id may leave while another one serves.
fn may_be_followed(id: u32) -> Result<(), &'static str> {
    match id {
        1 => Err("this is process 1 of a container, which ends when it leaves: start a container \
                  of the new image in its place"),
        _ => Ok(()),
    }
}

/// Where this process was started from; what is there now may be another binary.
fn own_binary() -> PathBuf {
    let Ok(path) = env::current_exe() else { return "/proc/self/exe".into() };
    let name = path.as_os_str().as_bytes();
    // So the kernel names what was replaced before this process began.
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    PathBuf::from(OsStr::from_bytes(name))
}

/// What came of it; one that panics is refused, and viewers are served on.
fn whole<T>(reload: impl FnOnce() -> Result<T, ReloadError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(reload)) {
        Ok(reloaded) => reloaded.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked, which is a mistake in Tidegate; standard error has its \
                       message, and says where"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_container_is_followed_by_none() {
        assert!(may_be_followed(1).is_err_and(|why| why.contains("process 1 of a container")));
        assert_eq!(may_be_followed(std::process::id()), Ok(()));
    }

    #[test]
    fn a_reload_that_panics_is_refused_and_ends_nothing() {
        let broken = || -> Result<(), ReloadError> { panic!("as a mistake would") };
        assert!(whole(broken).unwrap_err().contains("panicked"));
        let refused = || -> Result<(), _> { Err(ReloadError::Refused("no".to_owned())) };
        assert_eq!(whole(refused), Err("no".to_owned()));
        assert_eq!(whole(|| Ok(1)), Ok(1));
    }
}
