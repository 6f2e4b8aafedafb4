//! The signals that a serving process is sent, from before it serves until it has left.

use std::io;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::appliance::Leaving;

/// Each counts from when this is made: one that comes before it is waited for is not lost.
pub(super) struct Signals {
    pub(super) runtime: Runtime,
    pub(super) hangup: Stream,
    pub(super) upgrade: Stream,
}

/// Those that are heard once it serves, before anybody is told so; until then each ends the
/// process at once.
pub(super) struct ServingSignals {
    pub(super) terminate: Stream,
    pub(super) interrupt: Stream,
}

impl Signals {
    /// Those that change nothing of whether it serves, and may be sent to all processes of a
    /// service at once: who is to stop before it serves stops at once.
    pub(super) fn taken() -> io::Result<Signals> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        let upgrade = signal(SignalKind::user_defined2())?;
        drop(inside);
        Ok(Signals { runtime, hangup, upgrade })
    }

    /// From now on the others are heard too.
    pub(super) fn serving(&self) -> io::Result<ServingSignals> {
        let _inside = self.runtime.enter();
        Ok(ServingSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Takes them, on a thread, while this process leaves: the one that follows, `pid`, is told of
    /// what it is to read again.
    pub(super) fn leave(
        self,
        mut serving: ServingSignals,
        leaving: Leaving,
        pid: u32,
    ) -> io::Result<()> {
        let Signals { runtime, mut hangup, .. } = self;
        let taking = async move {
            loop {
                tokio::select! {
                    _ = serving.terminate.recv() => hurry(&leaving),
                    _ = serving.interrupt.recv() => hurry(&leaving),
                    _ = hangup.recv() => {
                        leaving.reopen_log();
                        pass_on_hangup(pid);
                    }
                }
            }
        };
        let taken = move || runtime.block_on(taking);
        thread::Builder::new().name("signals".to_owned()).spawn(taken).map(drop)
    }
}

fn hurry(leaving: &Leaving) {
    tracing::info!("told to stop: what has begun has the drain limit, or ends if told again");
    leaving.hurry();
}

/// Who follows this process is to read the configuration again.
pub(super) fn pass_on_hangup(pid: u32) {
    pass_on(pid, Signal::HUP, "reload");
}

/// Who follows this process, which was told to stop, is to stop.
pub(super) fn pass_on_end(pid: u32) {
    pass_on(pid, Signal::TERM, "stop");
}

/// It is a child of this process, and nobody else has its number before this process has ended.
fn pass_on(pid: u32, signal: Signal, what: &str) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::error!("the process that serves is not told to {what}: {error}");
    }
}
