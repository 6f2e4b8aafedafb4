//! The process before this one: what it hands over, and what is known of it until it is gone.

use std::fs::File;
use std::io::{self, stdin};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, getppid};
use tokio::sync::watch;

use super::super::parts::Parts;
use super::super::reload::Outdated;
use super::super::{ApplianceError, LOG_ENDS_WITHIN, Running, lost, ssd};
use super::carrying::Takes;
use super::channel::Channel;
use super::neighbour::Neighbour;
use super::{HANDED_OVER_WITHIN, Hurried, Message, TAKEOVER, room};
use crate::config::{self, Config, ListenerKind};
use crate::control::reload::PredecessorStatus;
use crate::purge::elsewhere::{Elsewhere, Side};
use crate::server::{ListeningSocket, Owner};

/// The process before this one, which still serves.
pub struct Predecessor {
    channel: Arc<Channel>,
    pid: Option<Pid>,
    sockets: Vec<ListeningSocket>,
    version: String,
    held_bytes: Option<u64>,
}

impl Predecessor {
    /// The one that started this process, if one did.
    ///
    /// # Errors
    /// What it was to hand over does not come.
    pub fn found() -> io::Result<Option<Predecessor>> {
        if std::env::var_os(TAKEOVER).is_none() {
            return Ok(None);
        }
        let channel = Channel::inherited(stdin().as_fd().try_clone_to_owned()?)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (mut sockets, mut hello) = (Vec::new(), (String::new(), None));
        loop {
            match channel.receive(Some(HEARD_WITHIN))? {
                Some((Message::Listener { kind, bound_for, address }, Some(socket))) => {
                    let kind = ListenerKind::named(&kind).ok_or(io::ErrorKind::InvalidData)?;
                    let owner = bound_for.map_or(Owner::Manager, Owner::Own);
                    let listener = TcpListener::from(socket);
                    sockets.push(ListeningSocket { kind, owner, address, listener });
                }
                Some((Message::Listeners, _)) => break,
                Some((Message::Hello { version, held_bytes }, _)) => hello = (version, held_bytes),
                Some((Message::Unknown, _)) => {}
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let (channel, pid, (version, held_bytes)) = (Arc::new(channel), getppid(), hello);
        Ok(Some(Predecessor { channel, pid, sockets, version, held_bytes }))
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its sockets listen, and what they were bound for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().flat_map(ListeningSocket::addresses)
    }

    /// Whether there is memory for both.
    pub(in crate::appliance) fn look_for_room(
        &self,
        config: &Config,
    ) -> Result<(), ApplianceError> {
        room::look(config, self.held_bytes, config::available_bytes())
    }

    /// Its sockets, once.
    pub(in crate::appliance) fn take_sockets(&mut self) -> Vec<ListeningSocket> {
        std::mem::take(&mut self.sockets)
    }

    /// Waits until it has handed over what only one of the two may have.
    pub(in crate::appliance) fn wait_for_volumes(&self, config: &Config) -> io::Result<()> {
        let outdated = Outdated::told_of(config, SystemTime::now());
        self.channel.send(&Message::Checked { outdated }, None)?;
        loop {
            match self.channel.receive(Some(HANDED_OVER_WITHIN))? {
                Some((Message::Volumes, _)) => return Ok(()),
                Some((Message::Unknown, _)) => {}
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// What ends in one of the two ends in the other, from now on until it is gone; what had ended
    /// there has ended here when this returns, and the volumes are online.
    pub(in crate::appliance) fn listen(&self, parts: &Arc<Parts>) -> io::Result<()> {
        let way = Elsewhere::new(Side::Before);
        let neighbour = Neighbour::start(self.channel.clone(), way, parts)?;
        parts.predecessor.serves();
        // Until this one says that it serves, the other one may go on alone.
        parts.drains.hold();
        neighbour.hold();
        neighbour.listens();
        self.channel.send(&Message::Listening, None)?;
        match neighbour.hear(TOLD_WITHIN) {
            Ok(Message::Told) => {
                ssd::until_online(&parts.ssd, || parts.purges.has_before());
                // From its first moment on: a load balancer may ask either of the two.
                parts.readiness.set_ready();
                Ok(())
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Viewers are accepted here: it leaves.
    ///
    /// # Errors
    /// It fell silent.
    pub fn say_serving(&self, running: &Running) -> Result<(), ApplianceError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let takes = Takes::of(&running.parts).map(|takes| takes.to_said());
        running.parts.drains.release();
        self.channel.send(&Message::Serving { version, takes }, None).map_err(lost)
    }

    /// Nothing comes of it: it serves on. Whether it is told why; it notices anyway.
    pub fn say_failed(&self, why: &str) -> bool {
        self.channel.send(&Message::Failed { why: why.to_owned() }, None).is_ok()
    }

    /// This process is told to stop: what the other one has begun has the drain limit from now on
    /// too.
    pub fn hurry(self, running: &Running) {
        // Where it has ended nothing is left to be hurried.
        let _ = self.channel.send(&Message::Hurry, None);
        let drain_timeout = running.parts.live.server.load().drain_timeout;
        let until = Instant::now() + drain_timeout + LOG_ENDS_WITHIN;
        running.parts.predecessor.awaited.get_or_init(|| Awaited { pid: self.pid, until });
    }
}

/// What the process before this one has told, if there was one.
#[derive(Debug, Default)]
pub(in crate::appliance) struct PredecessorState {
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

impl PredecessorState {
    /// There is one.
    pub(in crate::appliance) fn serves(&self) {
        self.stage.send_replace(Stage::Serves);
    }

    /// It says what it has left.
    pub(in crate::appliance) fn leaves(&self, connections: u64) {
        self.become_stage(Stage::Leaves { connections });
    }

    /// It is there no longer.
    pub(in crate::appliance) fn gone(&self) {
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
    pub(in crate::appliance) fn until_ended(&self, hurried: &Hurried) {
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
    pub(in crate::appliance) fn until_alone(&self) -> impl Future<Output = ()> + use<> {
        let mut seen = self.parts.predecessor.stage.subscribe();
        async move {
            let left = |stage: &Stage| matches!(stage, Stage::Leaves { .. } | Stage::Gone);
            if seen.wait_for(left).await.is_err() {
                std::future::pending().await
            }
        }
    }
}

/// Sockets are shown at once.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// The process before this one has it at hand.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_has_left_is_told_while_it_is_there() {
        let before = PredecessorState::default();
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
