//! io_uring: one thread for each volume, which sleeps in the kernel until something is queued or
//! over.
//!
//! No registered buffers: memory of the ram tier is punched out and reused. No polling: an
//! interrupt for a mebibyte is cheap. Memory the kernel works on is never freed before the kernel
//! has given it back, whatever happens here; rather it leaks.

// The kernel is given raw memory. `Flights` keeps it until its completion was seen.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use super::flight::{Flight, Step};
use super::front::{Door, Front, Leaving, Wake};
use super::open::Locked;
use super::queue::{Lanes, Place, Waiting};
use super::{Device, DeviceFigures, Engine, Transfer};

/// What may be under way.
pub(super) const LANES: Lanes = Lanes { reads: 64, writes: 8 };
/// Entries of the ring: a power of two, all that may be under way and the bell.
const ENTRIES: u32 = 128;
/// The completion of the bell.
const BELL: u64 = u64::MAX;
/// The registered files.
const VOLUME: types::Fixed = types::Fixed(0);
const BELL_FILE: types::Fixed = types::Fixed(1);
/// Before a kernel that is short of memory is asked again: soon, because viewers wait, and without
/// spinning.
const PAUSE: Duration = Duration::from_millis(1);

const _: () = assert!(LANES.reads + LANES.writes + 2 <= ENTRIES as usize);

/// A file or block device behind a ring.
#[derive(Debug)]
pub(super) struct Uring {
    front: Arc<Front>,
    /// An eventfd the ring waits for: what is written to it ends the thread's sleep.
    bell: Arc<OwnedFd>,
    thread: ThreadId,
    /// The threads keep it.
    file: Weak<Locked>,
}

impl Uring {
    /// Starts the thread; the error is the kernel's about the ring.
    pub(super) fn start(file: Arc<Locked>, size_bytes: u64, lanes: Lanes) -> io::Result<Uring> {
        // Not `NONBLOCK`: io_uring would not wait for it then.
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let front = Arc::new(Front::new(lanes, size_bytes, 1));
        let (say, heard) = sync_channel(1);
        let weak = Arc::downgrade(&file);
        let thread = {
            let (front, bell) = (Arc::clone(&front), Arc::clone(&bell));
            thread::Builder::new().name("ssd-uring".to_owned()).spawn(move || {
                let _leaving = Leaving::of(Arc::clone(&front));
                // The lock goes first, so that whoever waits finds it gone.
                let file = file;
                // On its own thread: a ring for a single issuer belongs to who makes it.
                match Ring::new(&file, bell, front) {
                    Ok(ring) => {
                        let _ = say.send(Ok(()));
                        ring.run();
                    }
                    Err(error) => {
                        let _ = say.send(Err(error));
                    }
                }
            })?
        };
        if let Err(error) = heard.recv().expect("the thread says how it began") {
            // It lets go of the file, which may be opened in another way now.
            front.wait_until_over();
            return Err(error);
        }
        Ok(Uring { front, bell, thread: thread.thread().id(), file: weak })
    }

    fn ring_bell(&self) {
        // Can't block: the counter is read long before it is full.
        if let Err(error) = rustix::io::write(&*self.bell, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "the thread of a device can't be woken");
        }
    }
}

impl Device for Uring {
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>> {
        if self.front.submit(transfer)? == Wake::Needed {
            self.ring_bell();
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.front.size_bytes
    }

    fn engine(&self) -> Engine {
        Engine::Uring
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

impl Drop for Uring {
    fn drop(&mut self) {
        self.front.close();
        self.ring_bell();
        // A callback may be the last that held us: the thread can't wait for itself. If the kernel
        // takes longer, the thread stays with the memory, for as long as the process lives.
        if thread::current().id() != self.thread && !self.front.wait_until_over() {
            tracing::warn!("a device was closed while the kernel still works on it");
        }
    }
}

/// What the thread owns.
struct Ring {
    ring: IoUring,
    front: Arc<Front>,
    flights: Flights,
    bell: Arc<OwnedFd>,
    bell_is_armed: bool,
}

impl Ring {
    fn new(file: &Locked, bell: Arc<OwnedFd>, front: Arc<Front>) -> io::Result<Ring> {
        let ring = build()?;
        ring.submitter().register_files(&[file.file().as_raw_fd(), bell.as_raw_fd()])?;
        let flights = Flights::new(Arc::clone(&front));
        Ok(Ring { ring, front, flights, bell, bell_is_armed: false })
    }

    fn run(mut self) {
        let (mut ended, mut begin) = (Vec::new(), Vec::new());
        loop {
            let door = self.front.exchange(&mut ended, &mut begin);
            begin.drain(..).for_each(|waiting| self.begin(waiting, &mut ended));
            if !ended.is_empty() {
                // Transfers that could not even begin: their places first.
                continue;
            }
            match door {
                Door::Open => self.arm_bell(),
                Door::Closed if self.flights.is_empty() => break,
                Door::Closed => {}
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => thread::sleep(PAUSE),
                    _ => {
                        tracing::error!(%error, "the ring of a device failed");
                        return;
                    }
                },
            }
            self.reap(&mut ended);
        }
        // A read of the bell may be armed still: it has no memory of ours.
        let _ = self.ring.submitter().unregister_files();
    }

    fn begin(&mut self, waiting: Waiting, ended: &mut Vec<Place>) {
        let (flight, checked) = Flight::begin(waiting, self.front.size_bytes);
        match checked {
            Ok(()) => {
                let index = self.flights.insert(flight);
                self.push_step(index);
            }
            Err(error) => {
                ended.push(flight.place());
                flight.end(Err(error), &self.front.tally);
            }
        }
    }

    fn push_step(&mut self, index: usize) {
        let flight = self.flights.at(index);
        let entry = match flight.step() {
            Step::Read(at, vectors) => {
                opcode::Readv::new(VOLUME, vectors.as_ptr(), vectors.len() as u32)
                    .offset(at)
                    .build()
            }
            Step::Write(at, vectors) => {
                opcode::Writev::new(VOLUME, vectors.as_ptr(), vectors.len() as u32)
                    .offset(at)
                    .build()
            }
            Step::Flush => opcode::Fsync::new(VOLUME).flags(types::FsyncFlags::DATASYNC).build(),
        };
        // SAFETY: vectors and memory are the flight's, which stays in `flights` until the
        // completion of this entry was seen.
        unsafe { push(&mut self.ring, &entry.user_data(index as u64)) };
    }

    fn arm_bell(&mut self) {
        if !self.bell_is_armed {
            let entry = opcode::PollAdd::new(BELL_FILE, libc::POLLIN as u32).build();
            // SAFETY: no memory is named.
            unsafe { push(&mut self.ring, &entry.user_data(BELL)) };
            self.bell_is_armed = true;
        }
    }

    /// Sees what is over.
    fn reap(&mut self, ended: &mut Vec<Place>) {
        while let Some(entry) = self.next_completion() {
            if entry.user_data() == BELL {
                self.bell_is_armed = false;
                match entry.result() {
                    // It was rung, so this does not block.
                    1.. => drop(rustix::io::read(&*self.bell, &mut [0; 8])),
                    // It can't be waited for, which never should be: at least no spinning.
                    _ => thread::sleep(PAUSE),
                }
                continue;
            }
            let index = entry.user_data() as usize;
            let answer = match entry.result() {
                moved @ 0.. => Ok(moved as usize),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
            match self.flights.at_mut(index).answered(answer) {
                None => self.push_step(index),
                Some(result) => {
                    let flight = self.flights.remove(index);
                    ended.push(flight.place());
                    flight.end(result, &self.front.tally);
                }
            }
        }
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

/// # Safety
/// What `entry` names stays valid until its completion was seen.
unsafe fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: as the caller promises.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.expect("the ring has an entry for all that may be under way");
}

/// The newest kind of ring this kernel has.
fn build() -> io::Result<IoUring> {
    type Builder = io_uring::Builder;
    let kinds: [fn(&mut Builder) -> &mut Builder; 4] = [
        // 6.1: completions are handled when we ask, in our own thread.
        |ring| ring.setup_single_issuer().setup_defer_taskrun(),
        // 6.0
        |ring| ring.setup_single_issuer().setup_coop_taskrun(),
        // 5.19: no interrupt of ours for a completion.
        |ring| ring.setup_coop_taskrun(),
        |ring| ring,
    ];
    let mut last = None;
    for kind in kinds {
        let mut builder = IoUring::builder();
        kind(&mut builder);
        match builder.build(ENTRIES) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("at least one kind was tried"))
}

/// Transfers under way, by the number their completions carry. If it is dropped with any in it,
/// after a panic or a failure of the ring, the kernel may still write to their memory: it leaks.
struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<usize>,
    front: Arc<Front>,
}

impl Flights {
    fn new(front: Arc<Front>) -> Flights {
        Flights { places: Vec::new(), free: Vec::new(), front }
    }

    fn insert(&mut self, flight: Flight) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[index] = Some(flight);
        index
    }

    fn at(&self, index: usize) -> &Flight {
        self.places[index].as_ref().expect("a completion names a flight")
    }

    fn at_mut(&mut self, index: usize) -> &mut Flight {
        self.places[index].as_mut().expect("a completion names a flight")
    }

    fn remove(&mut self, index: usize) -> Flight {
        self.free.push(index);
        self.places[index].take().expect("a completion names a flight")
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        for flight in self.places.iter_mut().filter_map(Option::take) {
            flight.lose(&self.front.tally);
        }
    }
}
