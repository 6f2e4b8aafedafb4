//! The process that is to follow, on its way: waited for, and ended where nothing comes of it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::fate::Fate;
use super::neighbour::Neighbour;
use super::{Message, TAKEOVER};

/// Why nobody has taken over.
#[derive(Debug)]
pub enum TakeoverError {
    /// Not now.
    Busy(String),
    /// It cannot be started: which file it would be of, and why.
    NotStarted(PathBuf, io::Error),
    /// It does not want to, or cannot; nothing has changed.
    Refused(String),
    /// It had the volumes already: they are taken back.
    Broken(String),
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeoverError::Busy(why) => f.write_str(why),
            TakeoverError::NotStarted(binary, error) => {
                write!(f, "the new process ({}) cannot be started: {error}", binary.display())
            }
            TakeoverError::Refused(why) | TakeoverError::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TakeoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TakeoverError::NotStarted(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Starts it, with the end of the channel that is its alone: else its death would not be noticed.
pub(super) fn spawned(mut command: Command, theirs: OwnedFd) -> io::Result<Child> {
    for name in PASSED {
        command.env_remove(name);
    }
    command.env(TAKEOVER, "1").stdin(Stdio::from(theirs)).spawn()
}

/// A process on its way, ended where nothing comes of it.
pub(super) struct Starting {
    pub(super) child: Option<Child>,
    /// The file that it is started from.
    pub(super) binary: PathBuf,
    pub(super) neighbour: Arc<Neighbour>,
    /// Of this process.
    pub(super) fate: Arc<Fate>,
}

impl Starting {
    /// What it says, if it is what is wanted; else why it does not.
    pub(super) fn wait_for(
        &mut self,
        within: Duration,
        is_wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, String> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.neighbour.hear(left.min(LOOK_FOR_END)) {
                Ok(said) if is_wanted(&said) => return Ok(said),
                Ok(Message::Failed { why }) => return Err(why),
                Ok(said) => {
                    return Err(format!("the new process says what nobody asked it: {said:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.last_words()),
                Err(RecvTimeoutError::Timeout) if self.fate.is_over() => {
                    return Err(TOLD_TO_STOP.to_owned());
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let seconds = within.as_secs();
                    let it = self.binary.display();
                    return Err(format!(
                        "the new process ({it}) said nothing for {seconds} s, and was ended"
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// How it ended; it is soon gone, or fell silent.
    pub(super) fn last_words(&mut self) -> String {
        let until = Instant::now() + ENDED_WITHIN;
        let it = format!("the new process ({})", self.binary.display());
        while let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => format!("{it} ended with exit code {code}"),
                        (_, Some(signal)) => format!("{it} was ended by signal {signal}"),
                        _ => format!("{it} ended"),
                    };
                }
                _ => break,
            }
        }
        format!("{it} fell silent, and was ended")
    }

    /// It serves, and is no longer ended, unless this process was told to stop.
    pub(super) fn let_go(mut self) -> Option<u32> {
        let pid = self.child.as_ref()?.id();
        self.fate.follow(pid).then(|| {
            self.child = None;
            pid
        })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        end(&mut child);
        // What it started may hold its end open for ever.
        self.neighbour.part();
        // Another that is started next is not told of before this one is forgotten.
        while self.neighbour.hear(ENDED_WITHIN).is_ok() {}
    }
}

/// Ends it, and waits until it has, but not for ever: a disk that hangs may hold it.
pub(super) fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let until = Instant::now() + KILLED_WITHIN;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            tracing::error!("process {} does not end although it was killed", child.id());
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Who is told to stop brings nobody any further.
pub(super) fn told_to_stop() -> TakeoverError {
    TakeoverError::Refused(TOLD_TO_STOP.to_owned())
}

/// By which a service manager passes sockets to the process that it starts: to no other one.
const PASSED: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
const ENDED_WITHIN: Duration = Duration::from_secs(2);
/// The kernel frees what it had in this time, which for a large ram tier is long.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOK_FOR_END: Duration = Duration::from_millis(100);
const TOLD_TO_STOP: &str = "this process was told to stop";
