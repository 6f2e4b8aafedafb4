//! The end of a process that another one has followed: it finishes what it has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, waitpid};

use super::super::fleet::Ending;
use super::super::parts::Parts;
use super::super::{LOG_ENDS_WITHIN, Running, figures, join};
use super::neighbour::Neighbour;
use super::{HandOver, Message, carrying};
use crate::access_log::AccessLog;
use crate::server;
use crate::shipping::FOLLOWED_WITHIN;

/// Who says that what has begun is to end sooner, when another process serves.
#[derive(Debug, Default)]
pub(in crate::appliance) struct Hurried {
    /// Somebody told this process to stop.
    is_told: AtomicBool,
    /// The other process says that it stops.
    other_stops: AtomicBool,
    /// The other process had followed, and is gone.
    other_is_gone: AtomicBool,
}

impl Hurried {
    pub(super) fn note_other_stops(&self) {
        self.other_stops.store(true, Ordering::Release);
    }

    pub(super) fn other_stops(&self) -> bool {
        self.other_stops.load(Ordering::Acquire)
    }

    pub(super) fn note_left_alone(&self) {
        self.other_is_gone.store(true, Ordering::Release);
    }

    /// Whether the process that had followed is gone without a word.
    fn is_left_alone(&self) -> bool {
        self.other_is_gone.load(Ordering::Acquire) && !self.other_stops()
    }

    /// Whether anybody does.
    fn by_anybody(&self) -> bool {
        self.is_told.load(Ordering::Acquire) || self.other_ends()
    }

    /// Whether the other process stops, or has.
    fn other_ends(&self) -> bool {
        self.other_stops() || self.is_left_alone()
    }
}

/// What can be asked of it meanwhile, on any thread.
pub struct Leaving {
    parts: Arc<Parts>,
}

impl Leaving {
    /// It drains now, as if viewers had left; asked again, it cuts them off. What the other
    /// process says counts for neither: both may be told to stop at once, once.
    pub fn hurry(&self) {
        if self.parts.hurried.is_told.swap(true, Ordering::AcqRel) {
            server::Wish::Abandoned.at_least(&self.parts.wishes);
        }
    }

    /// Opens the access log's file anew, after it has been moved.
    pub fn reopen_log(&self) {
        self.parts.log.reopen();
    }
}

/// Nobody serves: the process that followed has ended without being told to.
#[derive(Debug)]
pub struct LeftAlone;

/// The process that follows one that was told to stop before it knew, and is to stop too.
pub struct StoppingSuccessor {
    /// Its process id: it is for the caller to tell.
    pub pid: u32,
    /// When it should have ended.
    until: Instant,
}

impl HandOver {
    /// This process is told to stop: so is who would follow. Who has followed by now hears that it
    /// is not to wait for this one.
    pub fn end(&self) -> Option<StoppingSuccessor> {
        let pid = self.fate.end()?;
        // Whoever brought it is about to make it known.
        self.fate.settle();
        if let Some(successor) = self.successor.get() {
            // It waits in vain then, but not for ever.
            let _ = successor.neighbour.say(&Message::Hurry);
        }
        let drain_timeout = self.parts.live.server.load().drain_timeout;
        Some(StoppingSuccessor { pid, until: Instant::now() + drain_timeout + LOG_ENDS_WITHIN })
    }
}

impl StoppingSuccessor {
    /// Waits until it has ended: a service manager kills what is left of a service when its main
    /// process has, which is this one. Blocks.
    pub fn until_ended(&self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // An error: it was waited for already.
        while matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)) {
            if Instant::now() >= self.until {
                return tracing::warn!("the process that follows does not end");
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Running {
    /// What can be asked of it while it leaves.
    pub fn leaving(&self) -> Leaving {
        Leaving { parts: self.parts.clone() }
    }

    /// Finishes what has begun, when another process serves: viewers are told to leave with their
    /// next answer, and have for it as long as a connection may be idle. Then it drains. Blocks.
    ///
    /// # Errors
    /// The other process has ended meanwhile, and was not told to.
    pub fn leave(mut self, hand_over: &HandOver) -> Result<(), LeftAlone> {
        let successor = hand_over.successor.get();
        let telling = successor.map(|successor| Telling::start(&successor.neighbour, &self.parts));
        self.refuse_asked();
        self.end_fleet(Ending::Followed);
        self.parts.end_drain();
        server::Wish::Leaving.at_least(&self.parts.wishes);
        self.stop.accepting.cancel();
        self.close_sockets();
        self.end_control();
        self.parts.log.end_following();
        self.parts.stop_shipping.cancel();
        let (since, lost_before) = (Instant::now(), lines_lost(&self.parts.log));
        self.close_admin.all.cancel();
        self.askable.drain(..).for_each(join);
        let until = Instant::now() + self.parts.live.server.load().idle_timeout;
        let is_hurried = || self.parts.hurried.by_anybody();
        if let Some(successor) = successor {
            carrying::carry(successor, &self.parts, &is_hurried);
        }
        // The other one needs the memory.
        self.parts.ram.give_back();
        while figures::connections_open(&self.parts) > 0 && Instant::now() < until && !is_hurried()
        {
            thread::sleep(LOOK_AGAIN);
        }
        let (log, parts) = (self.parts.log.clone(), self.parts.clone());
        self.drain();
        drop(telling);
        let lines = lines_lost(&log) - lost_before;
        if lines > 0 {
            tracing::warn!(lines, "lines of the access log were lost meanwhile, and not shipped");
        }
        if successor.is_some() {
            say_unshipped_in_time(parts.clone(), since);
        }
        if parts.hurried.is_left_alone() { Err(LeftAlone) } else { Ok(()) }
    }
}

/// Lines that were to be shipped and never will; nobody can ask for the figure any more.
fn lines_lost(log: &AccessLog) -> u64 {
    let lost = log.spool().map(|spool| spool.lost_lines());
    lost.into_iter().flatten().map(|(_, lines)| lines).sum()
}

/// As [`say_unshipped`], on a thread: a disk that hangs keeps no process.
fn say_unshipped_in_time(parts: Arc<Parts>, since: Instant) {
    let (until, is_said) = sync_channel::<()>(0);
    let say = move || {
        say_unshipped(&parts, since);
        drop(until);
    };
    let saying = thread::Builder::new().name("unshipped".to_owned()).spawn(say);
    if let Err(error) = saying {
        return tracing::warn!("what of the access log is not shipped is not looked at: {error}");
    }
    if is_said.recv_timeout(SAID_WITHIN) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("what of the access log is not shipped cannot be read in time");
    }
}

/// Closes what waits to be shipped where nobody ships any more, and says what it is. Where the
/// process that follows ends too, the next one ships it.
fn say_unshipped(parts: &Parts, since: Instant) {
    let Some(spool) = parts.log.spool() else { return };
    while !parts.hurried.other_ends() {
        let waiting = spool.take_over();
        let is_followed = matches!(spool.lock(), Ok(None));
        if is_followed || waiting.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        if since.elapsed() < FOLLOWED_WITHIN {
            thread::sleep(LOOK_AGAIN);
            continue;
        }
        let folder = spool.folder().display();
        return match waiting {
            Ok(waiting) => tracing::warn!(
                lines = waiting.iter().map(|batch| batch.lines).sum::<u64>(),
                %folder,
                "lines of the access log wait, and the process that follows ships none from there: \
                 it does when it is started with this `log.ship.folder`"
            ),
            Err(error) => tracing::warn!(
                %folder,
                %error,
                "what waits of the access log cannot be read, and the process that follows ships \
                 none from there: lines are lost, perhaps"
            ),
        };
    }
}

/// Tells the process that follows what is left, on a thread, until it is dropped.
struct Telling {
    /// Dropped first.
    until: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Telling {
    fn start(successor: &Arc<Neighbour>, parts: &Arc<Parts>) -> Telling {
        let (until, is_over) = sync_channel(0);
        let (successor, parts) = (successor.clone(), parts.clone());
        let tell = move || {
            let mut told = Ok(());
            let left = || Message::Leaving { connections: figures::connections_open(&parts) };
            while told.is_ok() {
                told = successor.say(&left());
                if is_over.recv_timeout(TOLD_AGAIN) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        // Without it all else goes on.
        let thread = thread::Builder::new().name("leaving".to_owned()).spawn(tell).ok();
        Telling { until: Some(until), thread }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.until = None;
        self.thread.take().into_iter().for_each(join);
    }
}

/// A disk that is only slow is read by then.
const SAID_WITHIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TOLD_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_has_followed_unseen_is_waited_for_until_it_has_ended() {
        let mut child = Command::new("sleep").arg("0.5").spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        StoppingSuccessor { pid: child.id(), until }.until_ended();
        assert!(child.wait().is_err(), "it was waited for");
        // Nobody is there any more.
        StoppingSuccessor { pid: child.id(), until }.until_ended();
    }
}
