//! The end of a process that another one has followed: it finishes what it has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::parts::Parts;
use super::super::{Running, figures, join};
use crate::server;

/// What can be asked of it meanwhile, on any thread.
pub struct Leaving {
    parts: Arc<Parts>,
    hurried: Arc<AtomicBool>,
}

impl Leaving {
    /// It drains now, as if viewers had left; asked again, it cuts them off.
    pub fn hurry(&self) {
        if self.hurried.swap(true, Ordering::AcqRel) {
            server::Phase::Abandoned.at_least(&self.parts.phases);
        }
    }

    /// Opens the access log's file anew, after it has been moved.
    pub fn reopen_log(&self) {
        self.parts.log.reopen();
    }
}

impl Running {
    /// What can be asked of it while it leaves.
    pub fn leaving(&self) -> Leaving {
        Leaving { parts: self.parts.clone(), hurried: self.hurried.clone() }
    }

    /// Finishes what has begun, when another process serves: viewers are told to leave with their
    /// next answer, and have for it as long as a connection may be idle. Then it drains. Blocks.
    pub fn leave(mut self) {
        self.refuse_asked();
        self.parts.end_drain();
        server::Phase::Leaving.at_least(&self.parts.phases);
        self.stop.accepting.cancel();
        self.close_sockets();
        self.parts.log.end_following();
        self.close_admin.all.cancel();
        self.admin.take().into_iter().for_each(join);
        // The other one needs the memory.
        self.parts.ram.give_back();
        let until = Instant::now() + self.parts.live.server.load().idle_timeout;
        let is_hurried = || self.hurried.load(Ordering::Acquire);
        while figures::connections_open(&self.parts) > 0 && Instant::now() < until && !is_hurried()
        {
            std::thread::sleep(LOOK_AGAIN);
        }
        self.drain();
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(20);
