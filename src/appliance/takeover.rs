//! One process takes over from another one, and no viewer notices.
//!
//! The one before starts the one that follows, by the command it was started with, and hands it its
//! listening sockets. That one checks whatever can be checked, then asks for the volumes and the
//! journal of purges, opens them, accepts, and says so: only then does the one before stop
//! accepting, and finishes what it has begun. Until then it serves, whatever becomes of the other.
//! Volumes have one writer at any time; who has handed them over reads on, and what was given up
//! under him is a miss. What ends in one of the two ends in the other before it is told.

mod channel;
mod neighbour;

use std::fmt;
use std::fs::File;
use std::io::{self, stdin};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::channel::Channel;
use self::neighbour::Neighbour;
use super::parts::Parts;
use super::sockets::{Handed, Owner};
use super::{LOG_ENDS_WITHIN, ssd};
use crate::config::ListenerKind;

/// What the two say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
enum Message {
    /// Beside it comes a listening socket; `bound_for` is missing where it is the manager's.
    Listener { kind: String, bound_for: Option<SocketAddr>, address: SocketAddr },
    /// That were all.
    Listeners,
    /// Everything is checked that can be: the volumes are wanted.
    Checked,
    /// They are handed over.
    Volumes,
    /// Viewers are accepted.
    Serving { version: String },
    /// It was not to be.
    Failed { why: String },
    /// Something ends.
    End { id: u64, ending: neighbour::Ends },
    /// It has ended.
    Ended { id: u64 },
}

/// The environment variable of who is to take over; the channel is its standard input.
const TAKEOVER: &str = "TIDEGATE_TAKEOVER";

/// The process before this one, which still serves.
pub struct Predecessor {
    channel: Arc<Channel>,
    sockets: Vec<Handed>,
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
        let mut sockets = Vec::new();
        loop {
            match channel.receive(Some(HEARD_WITHIN))? {
                Some((Message::Listener { kind, bound_for, address }, Some(socket))) => {
                    let kind = ListenerKind::named(&kind).ok_or(io::ErrorKind::InvalidData)?;
                    let owner = bound_for.map_or(Owner::Manager, Owner::Own);
                    let listener = TcpListener::from(socket);
                    sockets.push(Handed { kind, owner, address, listener });
                }
                Some((Message::Listeners, _)) => break,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(Some(Predecessor { channel: Arc::new(channel), sockets }))
    }

    /// Where its sockets listen, and what they were bound for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().flat_map(|one| {
            let bound_for = match one.owner {
                Owner::Own(bound_for) => Some(bound_for),
                Owner::Manager => None,
            };
            [Some(one.address), bound_for].into_iter().flatten()
        })
    }

    /// Its sockets, once.
    pub(super) fn take_sockets(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.sockets)
    }

    /// Waits until it has handed over what only one of the two may have.
    pub(super) fn wait_for_volumes(&self) -> io::Result<()> {
        self.channel.send(&Message::Checked, None)?;
        match self.channel.receive(Some(HANDED_OVER_WITHIN))? {
            Some((Message::Volumes, _)) => Ok(()),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// What ends in one of the two ends in the other, from now on until it is gone.
    pub(super) fn listen(&self, parts: &Arc<Parts>) -> io::Result<()> {
        let neighbour = Neighbour::start(self.channel.clone(), parts)?;
        neighbour.tell(neighbour.hold())
    }

    /// Viewers are accepted here.
    pub(super) fn say_serving(&self) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.channel.send(&Message::Serving { version }, None)
    }

    /// Nothing comes of it: it serves on.
    pub fn say_failed(&self, why: &str) {
        // It notices anyway.
        let _ = self.channel.send(&Message::Failed { why: why.to_owned() }, None);
    }
}

/// Hands over what a running appliance has.
#[derive(Clone)]
pub struct HandOver {
    pub(super) parts: Arc<Parts>,
    pub(super) sockets: Arc<Mutex<Vec<Handed>>>,
    pub(super) is_over: Arc<AtomicBool>,
}

/// The process that follows, which serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// Why nobody has taken over.
#[derive(Debug)]
pub enum TakeoverError {
    /// Not now.
    Busy(String),
    /// It cannot be started.
    NotStarted(io::Error),
    /// It does not want to, or cannot; nothing has changed.
    Refused(String),
    /// It had the volumes already: they are read, and nothing is written to them any more.
    Broken(String),
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeoverError::Busy(why) => f.write_str(why),
            TakeoverError::NotStarted(error) => {
                write!(f, "the new process cannot be started: {error}")
            }
            TakeoverError::Refused(why) | TakeoverError::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TakeoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TakeoverError::NotStarted(error) => Some(error),
            _ => None,
        }
    }
}

impl HandOver {
    /// This process is told to stop: so is who would follow.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether it was.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Starts the one that follows by `command` and hands it all there is. Blocks until it serves.
    ///
    /// # Errors
    /// Nobody took over; this process serves on, and the other one has ended.
    pub fn to(&self, mut command: Command) -> Result<Successor, TakeoverError> {
        if let Some(volume) = ssd::on_its_way(&self.parts.ssd) {
            let why = format!("volume {volume} is not online yet; try again when it is");
            return Err(TakeoverError::Busy(why));
        }
        if self.parts.purges.has_elsewhere() {
            let why = "the process before this one still serves viewers, for `limits.idle_timeout` \
                       and `limits.drain_timeout` at most; try again then";
            return Err(TakeoverError::Busy(why.to_owned()));
        }
        let not_started = TakeoverError::NotStarted;
        if self.parts.drains.stage().is_some() {
            let why = "viewers are sent elsewhere, and who takes over would want them back: \
                       `tidegate undrain` first, or restart the service";
            return Err(TakeoverError::Busy(why.to_owned()));
        }
        let (channel, theirs) = Channel::pair().map_err(not_started)?;
        let child = command.env(TAKEOVER, "1").stdin(Stdio::from(theirs)).spawn();
        // Its end is its alone: else its death would not be noticed.
        drop(command);
        let mut child = child.map_err(not_started)?;
        let channel = Arc::new(channel);
        let neighbour = match Neighbour::start(channel.clone(), &self.parts) {
            Ok(neighbour) => neighbour,
            Err(error) => {
                end(&mut child);
                return Err(not_started(error));
            }
        };
        let mut child = Starting { child: Some(child), neighbour };
        self.show_sockets(&channel).map_err(not_started)?;
        child
            .wait_for(CHECKED_WITHIN, |said| matches!(said, Message::Checked))
            .map_err(TakeoverError::Refused)?;
        // What ends while it waits for the volumes it hears of when it has them.
        let held = child.neighbour.hold();
        self.give_volumes();
        let broken = TakeoverError::Broken;
        let told = channel.send(&Message::Volumes, None).and_then(|()| child.neighbour.tell(held));
        told.map_err(|error| broken(error.to_string()))?;
        let serving = |said: &Message| matches!(said, Message::Serving { .. });
        let said = child.wait_for(HANDED_OVER_WITHIN, serving).map_err(broken)?;
        if self.is_over() {
            return Err(TakeoverError::Refused("this process was told to stop".to_owned()));
        }
        let Message::Serving { version } = said else { unreachable!("it is what was waited for") };
        Ok(Successor { pid: child.let_go(), version })
    }

    fn show_sockets(&self, channel: &Channel) -> io::Result<()> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for Handed { kind, owner, address, listener } in &*sockets {
            let bound_for = match owner {
                Owner::Own(bound_for) => Some(*bound_for),
                Owner::Manager => None,
            };
            let (kind, address) = (kind.name().to_owned(), *address);
            channel
                .send(&Message::Listener { kind, bound_for, address }, Some(listener.as_fd()))?;
        }
        channel.send(&Message::Listeners, None)
    }

    /// Volumes and journal are as this process would leave them at its end.
    fn give_volumes(&self) {
        let parts = &self.parts;
        parts.filler.runtime.block_on(ssd::hand_over(&parts.ssd, &parts.ssd_watch));
        let keeper = parts.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.finish(LOG_ENDS_WITHIN);
        }
    }
}

/// A process on its way, ended where nothing comes of it.
struct Starting {
    child: Option<Child>,
    neighbour: Neighbour,
}

impl Starting {
    /// What it says, if it is what is wanted; else why it does not.
    fn wait_for(
        &mut self,
        within: Duration,
        is_wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, String> {
        match self.neighbour.said.recv_timeout(within) {
            Ok(said) if is_wanted(&said) => Ok(said),
            Ok(Message::Failed { why }) => Err(why),
            Ok(said) => Err(format!("the new process says what nobody asked it: {said:?}")),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = within.as_secs();
                Err(format!("the new process said nothing for {seconds} s, and was ended"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.last_words()),
        }
    }

    fn last_words(&mut self) -> String {
        let until = Instant::now() + ENDED_WITHIN;
        while let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => format!("the new process ended with exit code {code}"),
                        (_, Some(signal)) => {
                            format!("the new process was ended by signal {signal}")
                        }
                        _ => "the new process ended".to_owned(),
                    };
                }
                _ => break,
            }
        }
        "the new process fell silent, and was ended".to_owned()
    }

    fn let_go(mut self) -> u32 {
        self.child.take().expect("it is let go once").id()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        end(&mut child);
        // What it started may hold its end open for ever.
        self.neighbour.part();
        // Another that is started next is not told of before this one is forgotten.
        while self.neighbour.said.recv_timeout(ENDED_WITHIN).is_ok() {}
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sockets are shown at once.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// A configuration that names many certificates on a slow disk is read by then.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);
/// Volumes are written to their end and opened by then.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(90);
const ENDED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
