//! What callers and threads of a device share: the queue behind its lock, who is awake, who still
//! works.
//!
//! Callers hold the lock for a push and never wait. What is still queued when the device is closed
//! is given back untried; what is under way is waited for, for a bounded time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::queue::{Lanes, Place, Queue, Waiting};
use super::tally::Tally;
use super::{DeviceFigures, Operation, Transfer};

/// How long a device that is dropped waits for what is under way: on one that works that is over in
/// milliseconds, and one that hangs must not keep a process from ending.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Why a transfer comes back untried.
const CLOSED: &str = "the device was closed";
const RELEASED: &str = "another process writes to the device";

/// The queue of a device, between callers and threads.
#[derive(Debug)]
pub(super) struct Front {
    state: Mutex<State>,
    /// Told when something may begin.
    work: Condvar,
    /// Told when the last thread has left.
    over: Condvar,
    pub(super) tally: Tally,
    pub(super) size_bytes: u64,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    threads: usize,
    closed: bool,
    /// Reads alone are taken.
    released: bool,
    /// Who waits in the kernel was told already that there is something.
    woken: bool,
}

/// Whether a thread that waits in the kernel must be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    Needed,
    NotNeeded,
}

/// Whether a device still takes transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    Closed,
}

impl Front {
    pub(super) fn new(lanes: Lanes, size_bytes: u64, threads: usize) -> Front {
        let queue = Queue::new(lanes);
        let state = State { queue, threads, closed: false, released: false, woken: false };
        Front {
            state: Mutex::new(state),
            work: Condvar::new(),
            over: Condvar::new(),
            tally: Tally::default(),
            size_bytes,
        }
    }

    /// Queues `transfer`, or gives it back when the queue is full.
    pub(super) fn submit(&self, transfer: Transfer) -> Result<Wake, Box<Transfer>> {
        let now = Instant::now();
        let mut state = self.state();
        let is_read = matches!(transfer.operation, Operation::Read { .. });
        let refused = match (state.closed, state.released && !is_read) {
            (true, _) => Some(CLOSED),
            (_, true) => Some(RELEASED),
            _ => None,
        };
        if let Some(why) = refused {
            drop(state);
            self.tally.queued();
            Waiting { transfer, since: now }.refuse(why, &self.tally);
            return Ok(Wake::NotNeeded);
        }
        state.queue.push(transfer, now)?;
        self.tally.queued();
        // If it can't begin, something is under way, and the thread looks when that is over.
        let needed = !state.woken && state.queue.has_next();
        state.woken |= needed;
        Ok(if needed { Wake::Needed } else { Wake::NotNeeded })
    }

    /// Takes reads alone from now on.
    pub(super) fn release(&self) {
        self.state().released = true;
    }

    /// Wakes one thread that is in `next`.
    pub(super) fn wake_one(&self) {
        self.work.notify_one();
    }

    /// Gives back the places of `ended` and moves all that may begin to `begin`. Does not wait.
    pub(super) fn exchange(&self, ended: &mut Vec<Place>, begin: &mut Vec<Waiting>) -> Door {
        let mut state = self.state();
        state.woken = false;
        ended.drain(..).for_each(|place| state.queue.ended(place));
        begin.extend(std::iter::from_fn(|| state.queue.next()));
        if state.closed { Door::Closed } else { Door::Open }
    }

    /// Gives back the place of `ended` and waits for something that may begin; `None` when the
    /// device is closed.
    pub(super) fn next(&self, ended: Option<Place>) -> Option<Waiting> {
        let mut state = self.state();
        if let Some(place) = ended {
            state.queue.ended(place);
        }
        loop {
            if state.closed {
                return None;
            }
            state.woken = false;
            if let Some(waiting) = state.queue.next() {
                if state.queue.has_next() {
                    self.work.notify_one();
                }
                return Some(waiting);
            }
            state = self.work.wait(state).expect(UNPOISONED);
        }
    }

    /// Takes nothing more, and gives back what waits.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.closed = true;
            self.work.notify_all();
            state.queue.drain()
        };
        waiting.into_iter().for_each(|waiting| waiting.refuse(CLOSED, &self.tally));
    }

    /// Waits until every thread has left, for a while; whether they have.
    pub(super) fn wait_until_over(&self) -> bool {
        let busy = |state: &mut State| state.threads > 0;
        let waited = self.over.wait_timeout_while(self.state(), DRAIN_MAX, busy);
        !waited.expect(UNPOISONED).1.timed_out()
    }

    pub(super) fn figures(&self) -> DeviceFigures {
        self.tally.figures()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

/// Says that a thread has left when it is dropped, after a panic too: nothing is taken then that
/// nobody would answer.
pub(super) struct Leaving(Arc<Front>);

impl Leaving {
    pub(super) fn of(front: Arc<Front>) -> Leaving {
        Leaving(front)
    }

    pub(super) fn front(&self) -> &Front {
        &self.0
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.close();
        let mut state = self.0.state();
        state.threads -= 1;
        if state.threads == 0 {
            self.0.over.notify_all();
        }
    }
}

const UNPOISONED: &str = "nobody panics while holding the queue of a device";
