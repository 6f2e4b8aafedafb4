//! Devices: where a volume's bytes are, and the queue in front of them.
//!
//! A device moves whole granules between memory and a volume, most urgent first, and says when it
//! is done. Knows nothing of records. Always holds: a queue is bounded; memory handed over stays
//! the device's until the transfer is complete, however long that takes; `Ok` means that every
//! byte was moved.

mod flight;
mod front;
mod memory;
mod open;
mod queue;
mod simulated;
mod tally;
#[cfg(test)]
mod tests;
mod threads;
mod uring;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub use self::memory::{Buffer, Granules, Lent};
pub use self::open::{
    Access, CreateError, EngineChoice, OpenError, Options, create, look, open, try_uring,
};
pub use self::simulated::{Faults, Harm, Image, Share, Simulated, Simulation, SimulationError};

/// How soon a transfer is wanted; the first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A viewer waits for it.
    Viewer,
    /// A viewer waits for it and lets others go first (RFC 9218).
    Patient,
    /// Read-ahead: a viewer will come to it.
    Promote,
    /// What is kept.
    Write,
    /// What makes room.
    Reclaim,
    /// What nobody waits for: scrub, inspection.
    Verify,
}

impl Urgency {
    /// Every urgency, the most urgent first.
    pub const ALL: [Urgency; 6] = [
        Urgency::Viewer,
        Urgency::Patient,
        Urgency::Promote,
        Urgency::Write,
        Urgency::Reclaim,
        Urgency::Verify,
    ];

    /// Whether a viewer waits for it.
    pub fn is_awaited(self) -> bool {
        matches!(self, Urgency::Viewer | Urgency::Patient)
    }

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Urgency::Viewer => "viewer",
            Urgency::Patient => "patient",
            Urgency::Promote => "promote",
            Urgency::Write => "write",
            Urgency::Reclaim => "reclaim",
            Urgency::Verify => "verify",
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Operation {
    /// Fills the buffers, in order, from consecutive granules; `at` in bytes of the volume.
    Read {
        /// Where the first byte lies.
        at: u64,
        /// Where the bytes go.
        into: Vec<Buffer>,
    },
    /// Writes the buffers, in order, to consecutive granules.
    Write {
        /// Where the first byte goes.
        at: u64,
        /// The bytes.
        from: Vec<Buffer>,
    },
    /// Returns when everything completed before it survives a loss of power.
    Flush,
}

/// One operation on its way through a device's queue.
pub struct Transfer {
    /// What.
    pub operation: Operation,
    /// How soon.
    pub urgency: Urgency,
    /// Called once, on a thread of the device, when the operation is over; the buffers come back
    /// with it. It must not block.
    pub done: Box<dyn FnOnce(Done) + Send>,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, urgency) = (&self.operation, self.urgency);
        f.debug_struct("Transfer")
            .field("operation", operation)
            .field("urgency", &urgency)
            .finish_non_exhaustive()
    }
}

/// How an operation ended.
#[derive(Debug)]
pub struct Done {
    /// `Ok` when every byte was moved.
    pub result: io::Result<()>,
    /// The operation's buffers, in order; none where a device broke down and can't say whether the
    /// kernel still uses them.
    pub buffers: Vec<Buffer>,
}

/// How a device talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, on a thread of its own.
    Uring,
    /// `preadv` and `pwritev` on a pool of threads.
    Threads,
    /// None: in memory, with the faults that were asked for.
    Simulated,
}

impl Engine {
    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Engine::Uring => "uring",
            Engine::Threads => "threads",
            Engine::Simulated => "simulated",
        }
    }
}

/// What a device has done since it was opened.
#[derive(Clone, Debug, Default)]
pub struct DeviceFigures {
    /// Reads completed, by urgency.
    pub reads: [u64; Urgency::ALL.len()],
    /// Writes completed, by urgency.
    pub writes: [u64; Urgency::ALL.len()],
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Operations that ended with an error.
    pub errors: u64,
    /// Flushes among them.
    pub flush_errors: u64,
    /// Operations in the queue and under way.
    pub depth: u64,
    /// Reads by how long they took, queue included: at most `LATENCY_BOUNDS[n]`, and the rest.
    pub read_latency: [u64; LATENCY_BOUNDS.len() + 1],
    /// Their time together.
    pub read_latency_sum: Duration,
}

/// Upper bounds of the latency histogram.
pub const LATENCY_BOUNDS: [Duration; 10] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// A queue in front of a file, a block device or a simulation.
pub trait Device: fmt::Debug + Send + Sync {
    /// Queues a transfer; gives it back when the queue is full. Never blocks.
    ///
    /// # Errors
    /// The transfer, untouched; its `done` is not called.
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>>;

    /// How large the volume is, in bytes.
    fn size_bytes(&self) -> u64;

    /// How it talks to the kernel.
    fn engine(&self) -> Engine;

    /// What it has done.
    fn figures(&self) -> DeviceFigures;

    /// Lets another process have it, who is the one to write from now on: what this one writes
    /// fails. Called when nothing is under way but reads.
    fn release(&self) {}

    /// Itself, if it is a simulation: its faults may be changed.
    fn simulated(&self) -> Option<&Simulated> {
        None
    }
}

/// Why an operation did not succeed.
#[derive(Debug)]
pub enum DeviceError {
    /// The queue is full: try again later, or elsewhere.
    Busy,
    /// It took too long; it may still be going on.
    Late,
    /// The device said so.
    Failed(io::Error),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Busy => f.write_str("the queue of the device is full"),
            DeviceError::Late => f.write_str("the device did not answer in time"),
            DeviceError::Failed(source) => write!(f, "the device failed: {source}"),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeviceError::Failed(source) => Some(source),
            DeviceError::Busy | DeviceError::Late => None,
        }
    }
}

/// A device as async code uses it. Dropping any of its futures midway is safe: the device keeps
/// the memory until it is done with it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<dyn Device>);

impl Disk {
    /// Waits for transfers of `device`.
    pub fn new(device: Arc<dyn Device>) -> Disk {
        Disk(device)
    }

    /// The device itself.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.0
    }

    /// Fills `into` from `at` on and gives it back.
    ///
    /// # Errors
    /// `Late` at `deadline`; the buffers are the device's then.
    pub async fn read(
        &self,
        at: u64,
        into: Vec<Buffer>,
        urgency: Urgency,
        deadline: Instant,
    ) -> Result<Vec<Buffer>, DeviceError> {
        self.run(Operation::Read { at, into }, urgency, deadline).await
    }

    /// Writes `from` at `at`. Without a deadline: what was begun is waited for, because its place
    /// can't be used before it is over.
    ///
    /// # Errors
    /// Never `Late`.
    pub async fn write(
        &self,
        at: u64,
        from: Vec<Buffer>,
        urgency: Urgency,
    ) -> Result<(), DeviceError> {
        let waiting = self.submit(Operation::Write { at, from }, urgency)?;
        ended(waiting.await).map(drop)
    }

    /// Returns when everything completed before it survives a loss of power.
    ///
    /// # Errors
    /// Never `Late`.
    pub async fn flush(&self, urgency: Urgency) -> Result<(), DeviceError> {
        let waiting = self.submit(Operation::Flush, urgency)?;
        ended(waiting.await).map(drop)
    }

    async fn run(
        &self,
        operation: Operation,
        urgency: Urgency,
        deadline: Instant,
    ) -> Result<Vec<Buffer>, DeviceError> {
        let waiting = self.submit(operation, urgency)?;
        match timeout_at(deadline, waiting).await {
            Ok(done) => ended(done),
            Err(_) => Err(DeviceError::Late),
        }
    }

    fn submit(
        &self,
        operation: Operation,
        urgency: Urgency,
    ) -> Result<oneshot::Receiver<Done>, DeviceError> {
        let (tell, waiting) = oneshot::channel();
        let done = Box::new(move |done| {
            // Nobody may wait any more.
            let _ = tell.send(done);
        });
        let transfer = Transfer { operation, urgency, done };
        self.0.submit(transfer).map_err(|_| DeviceError::Busy)?;
        Ok(waiting)
    }
}

fn ended(done: Result<Done, oneshot::error::RecvError>) -> Result<Vec<Buffer>, DeviceError> {
    let gone = || io::Error::other("it was closed");
    let done = done.map_err(|_| DeviceError::Failed(gone()))?;
    done.result.map(|()| done.buffers).map_err(DeviceError::Failed)
}
