//! A transfer under way: its memory as the kernel takes it, and how far it has come.
//!
//! What stops short goes on from the last whole granule, a bounded number of times; no progress is
//! an error. Whoever holds a `Flight` whose step the kernel has not given back must not drop it.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::queue::{Lane, Place, Waiting};
use super::tally::Tally;
use super::{Buffer, Done, Operation, Transfer, Urgency};
use crate::limits::GRANULE_SIZE_BYTES;

/// How often one transfer is taken up again.
const RESUMES_MAX: u32 = 16;
/// Buffers of one transfer: what the kernel takes at once (`IOV_MAX`).
const BUFFERS_MAX: usize = 1_024;
const GRANULE: usize = GRANULE_SIZE_BYTES as usize;

/// What is to be asked of the kernel next.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Read(u64, &'a [libc::iovec]),
    Write(u64, &'a [libc::iovec]),
    Flush,
}

/// A transfer that has begun.
pub(super) struct Flight {
    at: u64,
    buffers: Vec<Buffer>,
    /// What remains of the buffers. On the heap, so that it stays where it is.
    vectors: Vec<libc::iovec>,
    moved: usize,
    length: usize,
    resumes: u32,
    place: Place,
    lane: Lane,
    urgency: Urgency,
    since: Instant,
    done: Box<dyn FnOnce(Done) + Send>,
}

impl Flight {
    /// Takes `waiting` under way; the error says why the kernel need not be asked.
    pub(super) fn begin(mut waiting: Waiting, size_bytes: u64) -> (Flight, io::Result<()>) {
        let checked = check(&mut waiting.transfer.operation, size_bytes);
        let place = waiting.place();
        let Waiting { transfer: Transfer { operation, urgency, done }, since } = waiting;
        let lane = operation.lane();
        let at = match operation {
            Operation::Read { at, .. } | Operation::Write { at, .. } => at,
            Operation::Flush => 0,
        };
        let buffers = operation.into_buffers();
        let length = buffers.iter().map(Buffer::length_bytes).sum();
        let vectors = Vec::with_capacity(buffers.len());
        let mut flight = Flight {
            at,
            buffers,
            vectors,
            moved: 0,
            length,
            resumes: 0,
            place,
            lane,
            urgency,
            since,
            done,
        };
        if checked.is_ok() {
            flight.map();
        }
        let refused = |wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong);
        (flight, checked.map_err(refused))
    }

    /// The place it holds in the queue.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// What to ask of the kernel. The memory named in it stays valid while the flight lives.
    pub(super) fn step(&self) -> Step<'_> {
        let at = self.at + self.moved as u64;
        match self.lane {
            Lane::Read => Step::Read(at, &self.vectors),
            Lane::Write => Step::Write(at, &self.vectors),
            Lane::Flush => Step::Flush,
        }
    }

    /// Takes the kernel's answer to a step: how it ended, or `None` if another step is needed.
    pub(super) fn answered(&mut self, answer: io::Result<usize>) -> Option<io::Result<()>> {
        let bytes = match answer {
            Ok(_) if self.lane == Lane::Flush => return Some(Ok(())),
            Ok(bytes) => bytes,
            Err(error) if is_passing(&error) => return self.resume(),
            Err(error) => return Some(Err(error)),
        };
        if bytes == self.length - self.moved {
            return Some(Ok(()));
        }
        // Direct I/O goes on at a granule; what was moved of another is moved again.
        let whole = (bytes - bytes % GRANULE).min(self.length - self.moved);
        if whole == 0 {
            return Some(Err(self.stuck()));
        }
        self.moved += whole;
        self.map();
        self.resume()
    }

    /// Says how it ended, and gives the buffers back.
    pub(super) fn end(self, result: io::Result<()>, tally: &Tally) {
        let took = self.since.elapsed();
        match &result {
            Ok(()) => tally.succeeded(self.lane, self.urgency, self.length, took),
            Err(_) => tally.failed(self.lane, took),
        }
        tell(self.done, Done { result, buffers: self.buffers });
    }

    /// Says that nobody knows how it ended. The kernel may still write to the memory: it leaks.
    pub(super) fn lose(self, tally: &Tally) {
        tally.failed(self.lane, self.since.elapsed());
        mem::forget((self.buffers, self.vectors));
        let result = Err(io::Error::other("the device lost it"));
        tell(self.done, Done { result, buffers: Vec::new() });
    }

    fn resume(&mut self) -> Option<io::Result<()>> {
        self.resumes += 1;
        (self.resumes > RESUMES_MAX).then(|| Err(self.stuck()))
    }

    fn stuck(&self) -> io::Error {
        let kind = match self.lane {
            Lane::Read => io::ErrorKind::UnexpectedEof,
            Lane::Write | Lane::Flush => io::ErrorKind::WriteZero,
        };
        let (moved, length) = (self.moved, self.length);
        io::Error::new(kind, format!("only {moved} of {length} bytes were moved"))
    }

    /// Names the memory that remains.
    fn map(&mut self) {
        self.vectors.clear();
        let mut skip = self.moved;
        for buffer in &mut self.buffers {
            let length = buffer.length_bytes();
            if skip >= length {
                skip -= length;
                continue;
            }
            let start = match buffer.bytes_mut() {
                Some(bytes) => bytes[skip..].as_mut_ptr(),
                // Only read from: the check has seen that this is a write.
                None => buffer.bytes()[skip..].as_ptr().cast_mut(),
            };
            self.vectors.push(libc::iovec { iov_base: start.cast(), iov_len: length - skip });
            skip = 0;
        }
    }
}

/// What is wrong with an operation on a volume of `size_bytes`, whatever the kernel would say.
pub(super) fn check(operation: &mut Operation, size_bytes: u64) -> Result<(), &'static str> {
    let (at, buffers, reads) = match operation {
        Operation::Read { at, into } => (*at, into, true),
        Operation::Write { at, from } => (*at, from, false),
        Operation::Flush => return Ok(()),
    };
    let is_whole = |buffer: &Buffer| buffer.length_bytes().is_multiple_of(GRANULE);
    let length: usize = buffers.iter().map(Buffer::length_bytes).sum();
    let end = at.checked_add(length as u64);
    match () {
        () if length == 0 || buffers.len() > BUFFERS_MAX => {
            Err("a transfer has from one buffer to 1024")
        }
        () if !at.is_multiple_of(GRANULE_SIZE_BYTES) || !buffers.iter().all(is_whole) => {
            Err("a transfer is whole granules")
        }
        () if end.is_none_or(|end| end > size_bytes) => Err("a transfer ends within the volume"),
        () if reads && buffers.iter_mut().any(|buffer| buffer.bytes_mut().is_none()) => {
            Err("shared memory can't be read into")
        }
        () => Ok(()),
    }
}

impl Operation {
    /// Its memory.
    fn into_buffers(self) -> Vec<Buffer> {
        match self {
            Operation::Read { into: buffers, .. } | Operation::Write { from: buffers, .. } => {
                buffers
            }
            Operation::Flush => Vec::new(),
        }
    }
}

impl Waiting {
    /// Gives the transfer back untried.
    pub(super) fn refuse(self, why: &str, tally: &Tally) {
        tally.abandoned();
        let buffers = self.transfer.operation.into_buffers();
        tell(self.transfer.done, Done { result: Err(io::Error::other(why.to_owned())), buffers });
    }
}

/// A caller that panics must not take the thread with it that holds the memory of others.
fn tell(done: Box<dyn FnOnce(Done) + Send>, how: Done) {
    if catch_unwind(AssertUnwindSafe(|| done(how))).is_err() {
        tracing::error!("what waited for a device panicked");
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::Granules;

    const VOLUME: u64 = 1 << 20;

    fn flight(operation: Operation) -> (Flight, io::Result<()>) {
        let done = Box::new(|_| {});
        let transfer = Transfer { operation, urgency: Urgency::Viewer, done };
        Flight::begin(Waiting { transfer, since: Instant::now() }, VOLUME)
    }

    fn memory(granules: usize) -> Buffer {
        Buffer::Own(Granules::zeroed(granules))
    }

    fn lengths(flight: &Flight) -> (u64, Vec<usize>) {
        match flight.step() {
            Step::Read(at, vectors) | Step::Write(at, vectors) => {
                (at, vectors.iter().map(|vector| vector.iov_len).collect())
            }
            Step::Flush => panic!("not a flush"),
        }
    }

    #[test]
    fn a_short_read_goes_on_from_the_last_whole_granule() {
        let (mut read, checked) =
            flight(Operation::Read { at: 8192, into: vec![memory(1), memory(3)] });
        checked.unwrap();
        assert_eq!(lengths(&read), (8192, vec![4096, 12_288]));
        assert!(read.answered(Ok(4096 + 512)).is_none());
        assert_eq!(lengths(&read), (12_288, vec![12_288]));
        assert!(read.answered(Ok(8192)).is_none());
        assert_eq!(lengths(&read), (20_480, vec![4096]));
        assert!(read.answered(Ok(4096)).unwrap().is_ok());
    }

    #[test]
    fn no_progress_is_an_error() {
        for bytes in [0, 512] {
            let (mut read, _) = flight(Operation::Read { at: 0, into: vec![memory(2)] });
            let error = read.answered(Ok(bytes)).unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            let (mut write, _) = flight(Operation::Write { at: 0, from: vec![memory(2)] });
            let error = write.answered(Ok(bytes)).unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        }
    }

    #[test]
    fn a_transfer_is_taken_up_again_a_bounded_number_of_times() {
        let (mut read, _) = flight(Operation::Read { at: 0, into: vec![memory(100)] });
        let answers = (0..100).map(|_| read.answered(Ok(4096)));
        assert_eq!(answers.take_while(Option::is_none).count(), RESUMES_MAX as usize);

        let (mut write, _) = flight(Operation::Write { at: 0, from: vec![memory(1)] });
        let again = || Err(io::ErrorKind::Interrupted.into());
        let answers = (0..100).map(|_| write.answered(again()));
        assert_eq!(answers.take_while(Option::is_none).count(), RESUMES_MAX as usize);
    }

    #[test]
    fn what_does_not_lie_within_the_volume_is_not_asked_of_the_kernel() {
        let shared = || Buffer::shared(bytes::Bytes::from_owner(Granules::zeroed(1))).unwrap();
        let read = |at, into| Operation::Read { at, into };
        let write = |at, from| Operation::Write { at, from };
        for wrong in [
            read(512, vec![memory(1)]),
            read(VOLUME, vec![memory(1)]),
            read(u64::MAX - 4095, vec![memory(1)]),
            write(VOLUME - 4096, vec![memory(2)]),
            read(0, vec![shared()]),
            read(0, Vec::new()),
        ] {
            let (_, checked) = flight(wrong);
            assert_eq!(checked.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        for right in
            [write(0, vec![shared()]), write(VOLUME - 8192, vec![memory(2)]), Operation::Flush]
        {
            flight(right).1.unwrap();
        }
    }
}
