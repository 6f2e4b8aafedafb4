//! What is known of the process before this one: whether it is still there, and what it has left.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getppid};
use tokio::sync::watch;

use super::super::{LOG_ENDS_WITHIN, Running};
use super::{Hurried, Message, Predecessor};
use crate::control::reload::PredecessorStatus;

/// Told by the process before this one, if there was one.
#[derive(Debug, Default)]
pub(in crate::appliance) struct Before {
    stage: watch::Sender<Stage>,
    /// This one is told to stop, and waits for it.
    awaited: OnceLock<Awaited>,
}

#[derive(Debug)]
struct Awaited {
    pid: Option<Pid>,
    /// When it should have ended.
    until: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Nobody,
    Serves,
    Leaves {
        connections: u64,
    },
    Gone,
}

impl Before {
    /// There is one.
    pub(super) fn serves(&self) {
        self.stage.send_replace(Stage::Serves);
    }

    /// It says what it has left.
    pub(super) fn leaves(&self, connections: u64) {
        self.become_stage(Stage::Leaves { connections });
    }

    /// It is there no longer.
    pub(super) fn gone(&self) {
        self.become_stage(Stage::Gone);
    }

    /// Of nobody nothing is told.
    fn become_stage(&self, next: Stage) {
        self.stage.send_if_modified(|stage| {
            let changes = *stage != Stage::Nobody && *stage != next;
            if changes {
                *stage = next;
            }
            changes
        });
    }

    /// While it is there; one of an earlier version does not say what it has left.
    pub(in crate::appliance) fn status(&self) -> Option<PredecessorStatus> {
        match *self.stage.borrow() {
            Stage::Nobody | Stage::Gone => None,
            Stage::Serves => Some(PredecessorStatus { connections: None }),
            Stage::Leaves { connections } => {
                Some(PredecessorStatus { connections: Some(connections) })
            }
        }
    }

    /// Waits until it has ended, where this one is told to stop: what ends there is for this one to
    /// write, and a service manager kills what is left of a service when its main process has
    /// ended. One that is told to stop too waits for this one. Blocks.
    pub(in crate::appliance) fn see_off(&self, hurried: &Hurried) {
        let Some(Awaited { pid, until }) = self.awaited.get() else { return };
        // Who has lost its parent is another one's child.
        let is_there = || pid.is_some() && getppid() == *pid && !hurried.other_stops();
        if is_there() {
            tracing::info!("the process before this one has not ended yet: it is waited for");
        }
        while is_there() {
            if Instant::now() >= *until {
                return tracing::warn!("the process before this one does not end");
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Running {
    /// Waits until the process before this one has left it the service, or is gone; for ever where
    /// there was none. Safe to drop.
    pub(in crate::appliance) fn is_alone(&self) -> impl Future<Output = ()> + use<> {
        let mut seen = self.parts.before.stage.subscribe();
        async move {
            let left = |stage: &Stage| matches!(stage, Stage::Leaves { .. } | Stage::Gone);
            if seen.wait_for(left).await.is_err() {
                std::future::pending().await
            }
        }
    }
}

impl Predecessor {
    /// This process is told to stop: what the other one has begun has the drain limit from now on
    /// too.
    pub fn hurry(self, running: &Running) {
        // Where it has ended nothing is left to be hurried.
        let _ = self.channel.send(&Message::Hurry, None);
        let drain_timeout = running.parts.live.server.load().drain_timeout;
        let until = Instant::now() + drain_timeout + LOG_ENDS_WITHIN;
        running.parts.before.awaited.get_or_init(|| Awaited { pid: self.pid, until });
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_has_left_is_told_while_it_is_there() {
        let before = Before::default();
        before.leaves(3);
        assert_eq!(before.status(), None, "there was none");
        before.serves();
        assert_eq!(before.status(), Some(PredecessorStatus { connections: None }));
        before.leaves(3);
        assert_eq!(before.status(), Some(PredecessorStatus { connections: Some(3) }));
        before.gone();
        assert_eq!(before.status(), None);
    }
}
