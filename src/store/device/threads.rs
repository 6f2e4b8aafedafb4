//! `preadv` and `pwritev` on a pool of threads, for where io_uring is not allowed.
//!
//! A thread for each transfer that may be under way, asleep while there is none. A thread that the
//! kernel keeps holds its transfer's memory for as long.

// The kernel is given raw memory. It has given it back when the call returns.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::thread;

use super::flight::{Flight, Step};
use super::front::{Front, Leaving, Wake};
use super::open::Locked;
use super::queue::Lanes;
use super::{Device, DeviceFigures, Engine, Transfer};

/// What may be under way: twenty threads, with the one for flushes.
pub(super) const LANES: Lanes = Lanes { reads: 16, writes: 3 };
/// Nothing deep is called.
const STACK_BYTES: usize = 128 << 10;

/// A file or block device behind a pool of threads.
#[derive(Debug)]
pub(super) struct Threads {
    front: Arc<Front>,
    ids: Vec<thread::ThreadId>,
    /// The threads keep it.
    file: Weak<Locked>,
}

impl Threads {
    /// Starts the threads.
    pub(super) fn start(file: Arc<Locked>, size_bytes: u64, lanes: Lanes) -> io::Result<Threads> {
        let front = Arc::new(Front::new(lanes, size_bytes, lanes.places()));
        let mut threads =
            Threads { front: Arc::clone(&front), ids: Vec::new(), file: Arc::downgrade(&file) };
        for started in 0..lanes.places() {
            let (shared, file) = (Arc::clone(&front), Arc::clone(&file));
            let builder = thread::Builder::new().name("ssd-io".to_owned()).stack_size(STACK_BYTES);
            let spawned = builder.spawn(move || {
                let leaving = Leaving::of(shared);
                // The lock goes with the last thread, before whoever waits is told.
                let file = file;
                work(leaving.front(), file.file());
            });
            match spawned {
                Ok(handle) => threads.ids.push(handle.thread().id()),
                Err(error) => {
                    (started..lanes.places()).for_each(|_| drop(Leaving::of(Arc::clone(&front))));
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }
}

impl Device for Threads {
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>> {
        if self.front.submit(transfer)? == Wake::Needed {
            self.front.wake_one();
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.front.size_bytes
    }

    fn engine(&self) -> Engine {
        Engine::Threads
    }

    fn figures(&self) -> DeviceFigures {
        self.front.figures()
    }

    fn release(&self) {
        self.front.release();
        if let Some(file) = self.file.upgrade() {
            file.unlock();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.front.close();
        // A callback may be the last that held us: its thread can't wait for itself.
        if !self.ids.contains(&thread::current().id()) && !self.front.wait_until_over() {
            tracing::warn!("a device was closed while the kernel still works on it");
        }
    }
}

fn work(front: &Front, file: &File) {
    let mut ended = None;
    while let Some(waiting) = front.next(ended.take()) {
        ended = Some(waiting.place());
        let (mut flight, checked) = Flight::begin(waiting, front.size_bytes);
        let result = checked.and_then(|()| {
            loop {
                if let Some(result) = flight.answered(ask(file, &flight.step())) {
                    break result;
                }
            }
        });
        flight.end(result, &front.tally);
    }
}

fn ask(file: &File, step: &Step) -> io::Result<usize> {
    let fd = file.as_raw_fd();
    // SAFETY: the flight that made the step keeps the memory, exclusively for a read, and lives
    // until this has returned; 1,024 vectors at most, and a place within an i64.
    let moved = unsafe {
        match step {
            Step::Read(at, vectors) => {
                libc::preadv2(fd, vectors.as_ptr(), vectors.len() as i32, *at as i64, 0)
            }
            Step::Write(at, vectors) => {
                libc::pwritev2(fd, vectors.as_ptr(), vectors.len() as i32, *at as i64, 0)
            }
            Step::Flush => return file.sync_data().map(|()| 0),
        }
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
