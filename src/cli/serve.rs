//! `tidegate serve`: runs the appliance until it is told to stop.
//!
//! Everything in the configuration is checked before a port is bound. Readiness is told to the
//! service manager; SIGTERM and SIGINT drain within the limit set and exit 0, SIGHUP reopens the
//! access log.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::{Failure, USUAL_CONFIG};
use crate::appliance::{Appliance, ApplianceError, Running};
use crate::config::{self, Config, LogLevel};
use crate::limits::LOG_LINES_WAITING_MAX;
use crate::server::{PassedSocket, take_passed_sockets};

const EXAMPLES: &str = "\
Examples:
  tidegate serve --config /etc/tidegate/tidegate.toml
  TIDEGATE_LOG=tidegate=debug tidegate serve --config tidegate.toml

SIGTERM and SIGINT drain and end with exit code 0; SIGHUP opens the access log's file anew.
A changed configuration counts from the next start.";

/// Serve viewers until told to stop
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
}

/// Serves until a signal says stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = config::load(&args.config).map_err(|e| Failure::Misused(e.to_string()))?;
    let passed = take_passed_sockets().map_err(|e| Failure::Misused(e.to_string()))?;
    let inherited: Vec<SocketAddr> = inherited(&config, &passed);
    config.try_ports(&inherited).map_err(|e| Failure::Misused(e.to_string()))?;
    let _written_at_exit = log_to_stderr(config.log.level);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let running = Appliance::start_with(config, passed).map_err(|error| match error {
        ApplianceError::Settings(fault) => Failure::Misused(fault.to_string()),
        error => Failure::Failed(format!("tidegate: {error}")),
    })?;
    wait_for_stop(&running, || {
        announce(&running);
        notify(&[NotifyState::Ready]);
    })?;
    notify(&[NotifyState::Stopping]);
    tracing::info!("draining");
    running.drain();
    tracing::info!("drained");
    Ok(())
}

/// The configured addresses of a kind that the service manager passes sockets of are not ours to
/// bind.
fn inherited(config: &Config, passed: &[PassedSocket]) -> Vec<SocketAddr> {
    let kinds: Vec<&str> = passed.iter().map(|socket| socket.name.as_str()).collect();
    let of_kind = config.listeners.iter().filter(|l| kinds.contains(&l.kind.name()));
    of_kind.map(|listener| listener.address).chain(passed.iter().map(|s| s.address)).collect()
}

/// Diagnostics go to standard error, where the service manager takes them, through a thread of
/// their own: lines that nobody takes are lost, and no worker waits for them. What is returned is
/// kept until the end, when it writes what is left.
pub(super) fn log_to_stderr(level: LogLevel) -> WorkerGuard {
    // Set to nothing it would hide warnings: that is how a unit file takes it back.
    let written = std::env::var("TIDEGATE_LOG").ok().filter(|text| !text.is_empty());
    let wanted = written.as_deref().map(EnvFilter::try_new);
    let fault = wanted.as_ref().and_then(|filter| filter.as_ref().err().map(ToString::to_string));
    let filter = wanted
        .and_then(Result::ok)
        .unwrap_or_else(|| EnvFilter::new(format!("tidegate={}", level.as_str())));
    let (stderr, written_at_exit) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES_WAITING_MAX)
        .finish(std::io::stderr());
    // Set twice only where one process runs several appliances, as tests do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if let Some(fault) = fault {
        tracing::warn!(
            "TIDEGATE_LOG is no filter such as \"tidegate=debug\" and is ignored: {fault}"
        );
    }
    written_at_exit
}

/// Every connection is a descriptor: the soft limit of old shells would be the first to be reached.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn announce(running: &Running) {
    for (kind, addresses) in [
        ("http", running.http_addresses()),
        ("https", running.https_addresses()),
        ("admin", running.admin_addresses()),
    ] {
        for address in addresses {
            tracing::info!("{kind} at {address}");
        }
    }
}

/// Tells the service manager; without one there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// Calls `ready` when signals are taken: who is told may send one at once.
fn wait_for_stop(running: &Running, ready: impl FnOnce()) -> Result<(), Failure> {
    let failed = |error| Failure::Failed(format!("signals cannot be waited for: {error}"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        ready();
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => running.reopen_log(),
            }
        }
    })
}
