//! A device in memory that fails as it is told to, and loses what was not flushed.
//!
//! Everything it decides follows from a seed, and it waits with tokio's clock: on a current-thread
//! runtime with a paused clock every run of a seed is the same. It works on any other runtime too,
//! so that a real binary can be given a sick volume.

mod chance;
mod faults;
mod media;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::chance::Chance;
pub use self::faults::{Faults, Harm, Share, Simulation, SimulationError};
pub use self::media::Image;
use self::media::{Flushing, Media, Written, granules};
use super::queue::{Lane, Lanes, Place, Queue, Waiting};
use super::tally::Tally;
use super::{Buffer, Device, DeviceFigures, Done, Engine, Operation, Transfer};
use crate::limits::GRANULE_SIZE_BYTES;

/// As many under way as a ring has.
const LANES: Lanes = super::uring::LANES;

/// A device in memory.
pub struct Simulated {
    shared: Arc<Shared>,
    /// Where it was made: what it does outlives the runtimes of its callers.
    runtime: Option<Handle>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    tally: Tally,
    stopped: watch::Sender<bool>,
    size_bytes: u64,
    born: Instant,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    media: Media,
    faults: Faults,
    chance: Chance,
    begun: u64,
    /// What never ends: kept, because its memory is the device's.
    stuck: Vec<Under>,
}

/// A transfer under way.
#[derive(Debug)]
struct Under {
    waiting: Waiting,
    after: Duration,
    ending: Ending,
    effect: Effect,
}

/// How a transfer will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Well,
    /// With this error number.
    Badly(i32),
    Never,
}

/// What a transfer does to the media when it ends.
#[derive(Debug)]
enum Effect {
    Read,
    Write(Written),
    Flush(Flushing),
    /// It can't be done.
    Refused(&'static str),
}

impl Simulated {
    /// An empty device of `simulation`.
    pub fn new(simulation: &Simulation) -> Simulated {
        let image = Image::empty(simulation.size_bytes);
        Simulated::from_image(image, simulation.seed, simulation.faults.clone())
    }

    /// A device that holds `image`, durably.
    pub fn from_image(image: Image, seed: u64, faults: Faults) -> Simulated {
        Simulated::with_lanes(image, seed, faults, LANES)
    }

    pub(super) fn with_lanes(image: Image, seed: u64, faults: Faults, lanes: Lanes) -> Simulated {
        let size_bytes = image.size_bytes();
        let state = State {
            queue: Queue::new(lanes),
            media: Media::new(image),
            faults,
            chance: Chance::new(seed),
            begun: 0,
            stuck: Vec::new(),
        };
        let shared = Shared {
            state: Mutex::new(state),
            tally: Tally::default(),
            stopped: watch::Sender::new(false),
            size_bytes,
            born: Instant::now(),
        };
        Simulated { shared: Arc::new(shared), runtime: Handle::try_current().ok() }
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state().faults = faults;
    }

    /// Operations begun until now.
    pub fn operations(&self) -> u64 {
        self.shared.state().begun
    }

    /// Returns when the device has stopped (`Faults::stop_after`). Dropping it midway is safe.
    pub async fn stopped(&self) {
        let mut stopped = self.shared.stopped.subscribe();
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// What a reader would find now: every write that was completed, and nothing else.
    pub fn image(&self) -> Image {
        self.shared.state().media.seen().clone()
    }

    /// What has gone wrong until now.
    pub fn harm(&self) -> Harm {
        self.shared.state().media.harm
    }

    /// What is left when the power fails now: all that was flushed, and of every other write,
    /// complete or not, whatever the seed says.
    pub fn crash(&self) -> Image {
        let state = &mut *self.shared.state();
        state.media.crash(&mut state.chance)
    }
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").field("size_bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}

impl Device for Simulated {
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>> {
        let mut state = self.shared.state();
        state.queue.push(transfer, Instant::now().into_std())?;
        self.shared.tally.queued();
        // A caller outside any runtime can only be one whose runtime is the device's.
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        self.shared.begin_all(&mut state, &runtime);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.shared.size_bytes
    }

    fn engine(&self) -> Engine {
        Engine::Simulated
    }

    fn figures(&self) -> DeviceFigures {
        self.shared.tally.figures()
    }

    fn simulated(&self) -> Option<&Simulated> {
        Some(self)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding a simulated device")
    }

    /// Begins whatever may begin.
    fn begin_all(self: &Arc<Shared>, state: &mut State, runtime: &Handle) {
        while let Some(waiting) = state.queue.next() {
            let under = state.begin(waiting, self.born.elapsed());
            if under.ending == Ending::Never {
                // Its place stays taken, as in a device that hangs.
                state.stuck.push(under);
                self.stopped.send_replace(true);
                continue;
            }
            let shared = Arc::clone(self);
            let task_runtime = runtime.clone();
            runtime.spawn(async move {
                if !under.after.is_zero() {
                    sleep(under.after).await;
                }
                shared.end(under, &task_runtime);
            });
        }
    }

    fn end(self: &Arc<Shared>, under: Under, runtime: &Handle) {
        let Under { waiting, ending, effect, .. } = under;
        let place = waiting.place();
        let Transfer { operation, urgency, done } = waiting.transfer;
        let lane = operation.lane();
        let took = Instant::now().into_std().saturating_duration_since(waiting.since);
        let (result, buffers) = {
            let mut state = self.state();
            let result = state.finish(effect, ending);
            let buffers = state.moved(operation, &result);
            self.give_back(&mut state, place, runtime);
            (result, buffers)
        };
        let bytes = buffers.iter().map(Buffer::length_bytes).sum();
        match &result {
            Ok(()) => self.tally.succeeded(lane, urgency, bytes, took),
            Err(_) => self.tally.failed(lane, took),
        }
        done(Done { result, buffers });
    }

    fn give_back(self: &Arc<Shared>, state: &mut State, place: Place, runtime: &Handle) {
        state.queue.ended(place);
        self.begin_all(state, runtime);
    }
}

impl State {
    /// Decides how `waiting` will go. `age` is the device's.
    fn begin(&mut self, mut waiting: Waiting, age: Duration) -> Under {
        self.begun += 1;
        let lane = waiting.transfer.operation.lane();
        let (after, ending) = self.faults.decide(lane, self.begun, age, &mut self.chance);
        self.count(lane, after, ending);
        let effect = match self.check(&mut waiting.transfer.operation) {
            Err(wrong) => Effect::Refused(wrong),
            Ok(()) => self.effect(&waiting.transfer.operation, ending),
        };
        Under { waiting, after, ending, effect }
    }

    fn count(&mut self, lane: Lane, after: Duration, ending: Ending) {
        let (faults, harm) = (&self.faults, &mut self.media.harm);
        let (stall, stalled, failed) = match lane {
            Lane::Read => (faults.stall_reads, &mut harm.reads_stalled, &mut harm.reads_failed),
            Lane::Write => (faults.stall_writes, &mut harm.writes_stalled, &mut harm.writes_failed),
            Lane::Flush => {
                (faults.stall_writes, &mut harm.writes_stalled, &mut harm.flushes_failed)
            }
        };
        *stalled += u64::from(!stall.is_zero() && after >= stall);
        *failed += u64::from(matches!(ending, Ending::Badly(_)));
    }

    fn effect(&mut self, operation: &Operation, ending: Ending) -> Effect {
        match operation {
            Operation::Read { .. } => Effect::Read,
            Operation::Write { at, from } => {
                let size_bytes = self.media.seen().size_bytes();
                let mut written: Vec<_> = from.iter().flat_map(|b| granules(b.bytes())).collect();
                let length = written.len() as u64 * GRANULE_SIZE_BYTES;
                let to = self.faults.misdirected(*at, length, size_bytes, &mut self.chance);
                self.media.harm.writes_misdirected += u64::from(to != *at);
                if let Some(bit) = self.faults.flipped(length as usize, &mut self.chance) {
                    let (byte, bit) = (bit / 8, bit % 8);
                    let granule = &mut written[byte / GRANULE_SIZE_BYTES as usize];
                    Arc::make_mut(granule)[byte % GRANULE_SIZE_BYTES as usize] ^= 1 << bit;
                    self.media.harm.bits_flipped += 1;
                }
                if let Ending::Badly(_) = ending {
                    // What fails may have been done in part.
                    written.truncate(self.chance.below(written.len() as u64 + 1) as usize);
                }
                Effect::Write(self.media.begin_write(to / GRANULE_SIZE_BYTES, written))
            }
            Operation::Flush => Effect::Flush(self.media.begin_flush()),
        }
    }

    fn finish(&mut self, effect: Effect, ending: Ending) -> io::Result<()> {
        match (effect, ending) {
            (Effect::Refused(wrong), _) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, wrong));
            }
            (Effect::Write(written), _) => self.media.end_write(written),
            (Effect::Flush(flushing), Ending::Well) => self.media.end_flush(flushing),
            (Effect::Read | Effect::Flush(_), _) => {}
        }
        match ending {
            Ending::Badly(errno) => Err(io::Error::from_raw_os_error(errno)),
            Ending::Well | Ending::Never => Ok(()),
        }
    }

    /// Moves the bytes of a read, and takes the buffers out of the operation.
    fn moved(&mut self, operation: Operation, result: &io::Result<()>) -> Vec<Buffer> {
        match operation {
            Operation::Read { mut at, mut into } => {
                for buffer in into.iter_mut().filter(|_| result.is_ok()) {
                    let bytes = buffer.bytes_mut().expect("checked when it was begun");
                    self.media.read(at, bytes, &mut self.chance);
                    at += bytes.len() as u64;
                }
                into
            }
            Operation::Write { from, .. } => from,
            Operation::Flush => Vec::new(),
        }
    }

    fn check(&self, operation: &mut Operation) -> Result<(), &'static str> {
        super::flight::check(operation, self.media.seen().size_bytes())
    }
}

#[cfg(test)]
mod tests;
