//! One process takes over from another one, and no viewer notices.
//!
//! The one before starts the one that follows, by the command it was started with, and hands it its
//! listening sockets. That one checks whatever can be checked, then asks for the volumes and the
//! journal of purges, opens them, accepts, and says so: only then does the one before stop
//! accepting, and finishes what it has begun. Until then it serves, whatever becomes of the other,
//! and takes the volumes back where the other one had them and failed.
//! Volumes have one writer at any time; who has handed them over reads on, and what was given up
//! under him is a miss. What ends in one of the two ends in the other before it is told; what ends
//! while nobody can write it is asked about at the next start. What one version says that the other
//! does not know is passed over.

mod carrying;
mod channel;
mod fate;
mod leaving;
mod neighbour;
mod predecessor;
mod room;
mod starting;
mod volumes;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::carrying::Takes;
use self::channel::Channel;
pub(super) use self::fate::Fate;
pub(super) use self::leaving::Hurried;
pub use self::leaving::{Leaving, LeftAlone};
use self::neighbour::Neighbour;
pub use self::predecessor::Predecessor;
pub(super) use self::predecessor::PredecessorState;
pub use self::room::{NoRoom, beside_bytes};
pub use self::starting::TakeoverError;
use self::starting::{Starting, end, spawned, told_to_stop};
use super::parts::Parts;
use super::reload::{Outdated, look_at_dates};
use super::ssd;
use crate::config;
use crate::server::ListeningSocket;

/// What the two say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
enum Message {
    /// The first thing said; what its ram tier holds is missing where nobody knows.
    Hello { version: String, held_bytes: Option<u64> },
    /// Beside it comes a listening socket; `bound_for` is missing where it is the manager's.
    Listener { kind: String, bound_for: Option<SocketAddr>, address: SocketAddr },
    /// That were all.
    Listeners,
    /// Everything is checked that can be: the volumes are wanted, and these certificates shown.
    Checked {
        #[serde(default)]
        outdated: Vec<Value>,
    },
    /// They are handed over.
    Volumes,
    /// The volumes are open: what ends is heard from now on.
    Listening,
    /// What had ended was told.
    Told,
    /// Viewers are accepted; what of the ram tier is to come along, if anything is: [`Takes`], or
    /// what a later version makes of it.
    Serving {
        version: String,
        #[serde(default)]
        takes: Option<Value>,
    },
    /// So many connections are left, where no new ones come any more.
    Leaving { connections: u64 },
    /// Who says so is told to stop: what the other one has begun is to end soon.
    Hurry,
    /// Beside it comes a file in memory with some of what the ram tier keeps.
    Carried { bytes: usize },
    /// What became of one of these; where it says why, nothing more is wanted.
    Taken { blocks: u64, bytes: u64, refused: Option<String> },
    /// That was all that comes along.
    CarriedAll,
    /// It was not to be.
    Failed { why: String },
    /// Something ends: an `Ending`, or what a later version makes of it.
    End { id: u64, ending: Value },
    /// It has ended.
    Ended { id: u64 },
    /// What a later version says: nothing that this one has to know.
    #[serde(other)]
    Unknown,
}

/// The environment variable of who is to take over; the channel is its standard input.
const TAKEOVER: &str = "TIDEGATE_TAKEOVER";

/// Hands over what a running appliance has.
#[derive(Clone)]
pub struct HandOver {
    parts: Arc<Parts>,
    sockets: Arc<Mutex<Vec<ListeningSocket>>>,
    /// Until then operators ask this process.
    asking: CancellationToken,
    fate: Arc<Fate>,
    /// The volumes were handed over, whoever has them now.
    are_given: Arc<AtomicBool>,
    successor: Arc<OnceLock<ReachedSuccessor>>,
}

/// The process that follows, as it is reached from here.
struct ReachedSuccessor {
    neighbour: Arc<Neighbour>,
    /// What it wants of the ram tier.
    takes: Option<Takes>,
}

/// The process that follows, which serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

impl HandOver {
    pub(super) fn new(
        parts: Arc<Parts>,
        sockets: Arc<Mutex<Vec<ListeningSocket>>>,
        asking: CancellationToken,
        fate: Arc<Fate>,
    ) -> HandOver {
        let (are_given, successor) = Default::default();
        HandOver { parts, sockets, asking, fate, are_given, successor }
    }

    /// Whether this process was told to stop before another one followed.
    pub fn is_over(&self) -> bool {
        self.fate.is_over()
    }

    /// Starts the one that follows by `command` and hands it all there is. Blocks until it serves.
    ///
    /// # Errors
    /// Nobody took over; this process serves on, with its volumes, and the other one has ended.
    pub fn to(&self, command: Command) -> Result<Successor, TakeoverError> {
        let _under_way = self.fate.begin();
        match self.attempt(command) {
            Err(TakeoverError::Broken(why)) if !self.is_over() => {
                let lost = self.take_back().err().unwrap_or_default();
                Err(TakeoverError::Broken(why + &lost))
            }
            followed => followed,
        }
    }

    fn attempt(&self, command: Command) -> Result<Successor, TakeoverError> {
        self.goes_on()?;
        if let Some(volume) = ssd::on_its_way(&self.parts.ssd) {
            let why = format!("volume {volume} is not online yet; try again when it is");
            return Err(TakeoverError::Busy(why));
        }
        if self.parts.purges.has_before() {
            let why = "the process before this one still serves viewers, for `limits.idle_timeout` \
                       and `limits.drain_timeout` at most; try again then";
            return Err(TakeoverError::Busy(why.to_owned()));
        }
        if !self.parts.drains.hold() {
            let why = "viewers are sent elsewhere, and who takes over would want them back: \
                       `tidegate undrain` first, or restart the service";
            return Err(TakeoverError::Busy(why.to_owned()));
        }
        let brought = catch_unwind(AssertUnwindSafe(|| self.bring(command)));
        let followed = brought.unwrap_or_else(|_| Err(self.panicked()));
        if followed.is_err() {
            self.parts.drains.release();
        }
        followed
    }

    fn bring(&self, command: Command) -> Result<Successor, TakeoverError> {
        let binary = PathBuf::from(command.get_program());
        let not_started = |error| TakeoverError::NotStarted(binary.clone(), error);
        let (channel, theirs) = Channel::pair().map_err(not_started)?;
        let mut child = spawned(command, theirs).map_err(not_started)?;
        let channel = Arc::new(channel);
        let way = self.parts.purges.way_after();
        let neighbour = match Neighbour::start(channel.clone(), way, &self.parts) {
            Ok(neighbour) => Arc::new(neighbour),
            Err(error) => {
                end(&mut child);
                return Err(not_started(error));
            }
        };
        let fate = self.fate.clone();
        let mut child = Starting { child: Some(child), binary: binary.clone(), neighbour, fate };
        // Who has ended already does not read.
        let shown = self.show_sockets(&channel);
        shown.map_err(|_| TakeoverError::Refused(child.last_words()))?;
        let checked = |said: &Message| matches!(said, Message::Checked { .. });
        let said = child.wait_for(CHECKED_WITHIN, checked).map_err(TakeoverError::Refused)?;
        if let Message::Checked { outdated } = said {
            let shown = self.parts.live.certificates.load();
            look_at_dates(&shown, &Outdated::heard(outdated), SystemTime::now())
                .map_err(TakeoverError::Refused)?;
        }
        // What ends while it waits for the volumes, and opens them, it hears of before it accepts.
        child.neighbour.hold();
        let broken = TakeoverError::Broken;
        self.goes_on()?;
        self.give_volumes().map_err(broken)?;
        self.goes_on()?;
        let told = channel.send(&Message::Volumes, None);
        told.map_err(|error| broken(error.to_string()))?;
        let serving = |said: &Message| matches!(said, Message::Serving { .. });
        let said = child.wait_for(HANDED_OVER_WITHIN, serving).map_err(broken)?;
        let Message::Serving { version, takes } = said else {
            unreachable!("it is what was waited for")
        };
        let neighbour = child.neighbour.clone();
        let pid = child.let_go().ok_or_else(told_to_stop)?;
        neighbour.follows(&self.parts);
        // Whoever is told of it and asks for something else asks who does it.
        self.asking.cancel();
        let takes = takes.and_then(Takes::said);
        self.successor.get_or_init(|| ReachedSuccessor { neighbour, takes });
        Ok(Successor { pid, version })
    }

    fn panicked(&self) -> TakeoverError {
        let why = "it panicked, which is a mistake in Tidegate; standard error has its message, \
                   and says where"
            .to_owned();
        match self.are_given.load(Ordering::Acquire) {
            true => TakeoverError::Broken(why),
            false => TakeoverError::Refused(why),
        }
    }

    fn goes_on(&self) -> Result<(), TakeoverError> {
        if self.is_over() { Err(told_to_stop()) } else { Ok(()) }
    }

    fn show_sockets(&self, channel: &Channel) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let held_bytes = config::shared_bytes_held();
        channel.send(&Message::Hello { version, held_bytes }, None)?;
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for ListeningSocket { kind, owner, address, listener } in &*sockets {
            let (kind, bound_for, address) = (kind.name().to_owned(), owner.bound_for(), *address);
            channel
                .send(&Message::Listener { kind, bound_for, address }, Some(listener.as_fd()))?;
        }
        channel.send(&Message::Listeners, None)
    }
}

/// A configuration that names many certificates on a slow disk is read by then.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);
/// Volumes are written to their end and opened by then.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use tokio::task::spawn_blocking;

    use super::super::Appliance;
    use super::*;
    use crate::config::Config;
    use crate::control::drain::Plan;

    #[tokio::test]
    async fn who_panics_on_the_way_has_taken_back_what_was_given_and_may_be_drained() {
        let text = "listeners.http = '127.0.0.1:0'\nlog.access = 'off'\nmemory.ram = '64 MiB'\n\
                    [[sites]]\nname = 'a'\nhosts = 'a'\norigins = 'http://o'\n";
        let config = Config::from_toml(text, "t.toml").unwrap();
        let running = spawn_blocking(|| Appliance::start(config)).await.unwrap().unwrap();
        let hand_over = running.hand_over();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "printf '{\"say\":\"checked\"}' >&0; exec sleep 1000"]);
        // Whoever blocks where tasks run panics: here it does when it gives up the volumes.
        match hand_over.to(command) {
            Err(TakeoverError::Broken(why)) => assert!(why.starts_with("it panicked"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(!hand_over.are_given.load(Ordering::Acquire));
        let plan = Plan { begins: None, within: Duration::ZERO, lasts: None };
        assert!(running.parts.plan_drain(Some(plan)).is_ok());
        spawn_blocking(|| running.drain()).await.unwrap();
    }
}
