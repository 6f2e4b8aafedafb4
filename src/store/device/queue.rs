//! What waits for a device, and what goes next.
//!
//! Reads, writes and flushes have lanes of their own: so many waiting, so many under way. Within a
//! lane the most urgent goes first, then the oldest; who is patient is not passed over for ever. So
//! reads can't starve writes nor fill their queue, and what nobody waits for can't keep a viewer
//! out; one such read may wait and goes first when none is under way, so that viewers can't keep it
//! out either. Does no I/O, reads no clock.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Operation, Transfer, Urgency};

/// Reads that may wait, by urgency: whoever comes is refused when so many wait already, of any
/// urgency, so that what is less urgent leaves room.
const READS_WAITING_MAX: [usize; Urgency::ALL.len()] = [192, 168, 144, 96, 96, 48];
/// Writes and flushes that may wait.
const WRITES_WAITING_MAX: usize = 64;
/// While somebody waits for a read, so many reads are under way for each write.
const READS_PER_WRITE: usize = 8;
/// Of the reads under way, one in so many may be for reclaim and verify.
const READS_PER_BACKGROUND_READ: usize = 8;
const FLUSHES_MAX: usize = 1;
/// Who lets others go first goes after so many of them all the same: a read that waits for ever is
/// late, and a volume that is late is left alone.
const READS_PER_PATIENT_READ: usize = 8;

/// What shares places under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Read,
    Write,
    Flush,
}

impl Operation {
    pub(super) fn lane(&self) -> Lane {
        match self {
            Operation::Read { .. } => Lane::Read,
            Operation::Write { .. } => Lane::Write,
            Operation::Flush => Lane::Flush,
        }
    }
}

/// How many may be under way at once, of reads and of writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub(super) reads: usize,
    pub(super) writes: usize,
}

impl Lanes {
    /// All together.
    pub(super) fn places(self) -> usize {
        self.reads + self.writes + FLUSHES_MAX
    }
}

/// A transfer and when it came.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) transfer: Transfer,
    pub(super) since: Instant,
}

/// What holds a place under way: given back when its transfer is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    lane: Lane,
    background: bool,
}

impl Waiting {
    /// The place it takes.
    pub(super) fn place(&self) -> Place {
        let lane = self.transfer.operation.lane();
        Place { lane, background: is_background(self.transfer.urgency) }
    }
}

type ByUrgency = [VecDeque<Waiting>; Urgency::ALL.len()];

/// The queue of one device.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Lanes,
    reads: ByUrgency,
    writes: ByUrgency,
    flushes: VecDeque<Waiting>,
    reads_under_way: usize,
    background_reads_under_way: usize,
    writes_under_way: usize,
    flushes_under_way: usize,
    /// Reads that went before one that lets others go first.
    gone_before: usize,
}

impl Queue {
    pub(super) fn new(lanes: Lanes) -> Queue {
        Queue {
            lanes,
            reads: Default::default(),
            writes: Default::default(),
            flushes: VecDeque::new(),
            reads_under_way: 0,
            background_reads_under_way: 0,
            writes_under_way: 0,
            flushes_under_way: 0,
            gone_before: 0,
        }
    }

    /// Lets `transfer` wait; gives it back when the queue is full for it.
    pub(super) fn push(&mut self, transfer: Transfer, since: Instant) -> Result<(), Box<Transfer>> {
        let urgency = transfer.urgency as usize;
        let lane = transfer.operation.lane();
        let full = match lane {
            Lane::Read => {
                let is_first = is_background(transfer.urgency) && !self.background_waits();
                !is_first && count(&self.reads) >= READS_WAITING_MAX[urgency]
            }
            Lane::Write | Lane::Flush => {
                count(&self.writes) + self.flushes.len() >= WRITES_WAITING_MAX
            }
        };
        if full {
            return Err(Box::new(transfer));
        }
        let waiting = Waiting { transfer, since };
        match lane {
            Lane::Read => self.reads[urgency].push_back(waiting),
            Lane::Write => self.writes[urgency].push_back(waiting),
            Lane::Flush => self.flushes.push_back(waiting),
        }
        Ok(())
    }

    /// The next that may begin. Its place is taken until `ended`.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        let waiting = match self.startable()? {
            (Lane::Read, urgency) => self.reads[urgency].pop_front(),
            (Lane::Write, urgency) => self.writes[urgency].pop_front(),
            (Lane::Flush, _) => self.flushes.pop_front(),
        }?;
        self.count_under_way(waiting.place(), |count| *count += 1);
        self.gone_before = match waiting.transfer.urgency {
            _ if self.reads[Urgency::Patient as usize].is_empty() => 0,
            Urgency::Viewer => self.gone_before + 1,
            Urgency::Patient => 0,
            _ => self.gone_before,
        };
        Some(waiting)
    }

    /// Whether `next` would find one.
    pub(super) fn has_next(&self) -> bool {
        self.startable().is_some()
    }

    /// A transfer that `next` gave out is over.
    pub(super) fn ended(&mut self, place: Place) {
        self.count_under_way(place, |count| *count -= 1);
    }

    /// All that wait; none does then.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        let lanes = self.reads.iter_mut().chain(&mut self.writes).chain([&mut self.flushes]);
        lanes.flat_map(|lane| lane.drain(..)).collect()
    }

    fn startable(&self) -> Option<(Lane, usize)> {
        let read = self.reads_under_way < self.lanes.reads;
        let background = self.background_reads_under_way < self.background_reads_max();
        let write = self.writes_under_way < self.writes_max();
        let flush = self.flushes_under_way < FLUSHES_MAX && !self.flushes.is_empty();
        let may_read = |urgency: &Urgency| read && (background || !is_background(*urgency));
        // Else a flood of viewers would never let room be made. Of a single place it would be all.
        let owed = read && self.background_reads_under_way == 0 && self.lanes.reads > 1;
        let is_owed = |urgency: &Urgency| owed && is_background(*urgency);
        let first = |lane: &ByUrgency, may: &dyn Fn(&Urgency) -> bool| {
            let holds = |urgency: &&Urgency| !lane[**urgency as usize].is_empty();
            Urgency::ALL.iter().filter(holds).find(|urgency| may(urgency)).map(|u| *u as usize)
        };
        let was_patient = read && self.gone_before >= READS_PER_PATIENT_READ;
        let goes_now = |urgency: &Urgency| was_patient && *urgency == Urgency::Patient;
        first(&self.reads, &is_owed)
            .or_else(|| first(&self.reads, &goes_now))
            .or_else(|| first(&self.reads, &may_read))
            .map(|urgency| (Lane::Read, urgency))
            .or_else(|| first(&self.writes, &|_| write).map(|urgency| (Lane::Write, urgency)))
            .or_else(|| flush.then_some((Lane::Flush, 0)))
    }

    fn writes_max(&self) -> usize {
        let foreground = self.reads_under_way > self.background_reads_under_way
            || Urgency::ALL.iter().any(|urgency| {
                !is_background(*urgency) && !self.reads[*urgency as usize].is_empty()
            });
        match foreground {
            true => (self.reads_under_way / READS_PER_WRITE).clamp(1, self.lanes.writes),
            false => self.lanes.writes,
        }
    }

    fn background_waits(&self) -> bool {
        let waits = |urgency: &Urgency| !self.reads[*urgency as usize].is_empty();
        Urgency::ALL.iter().any(|urgency| is_background(*urgency) && waits(urgency))
    }

    fn background_reads_max(&self) -> usize {
        (self.lanes.reads / READS_PER_BACKGROUND_READ).max(1)
    }

    fn count_under_way(&mut self, place: Place, change: impl Fn(&mut usize)) {
        match place.lane {
            Lane::Read => {
                change(&mut self.reads_under_way);
                if place.background {
                    change(&mut self.background_reads_under_way);
                }
            }
            Lane::Write => change(&mut self.writes_under_way),
            Lane::Flush => change(&mut self.flushes_under_way),
        }
    }
}

fn is_background(urgency: Urgency) -> bool {
    matches!(urgency, Urgency::Reclaim | Urgency::Verify)
}

fn count(lane: &ByUrgency) -> usize {
    lane.iter().map(VecDeque::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: Lanes = Lanes { reads: 16, writes: 4 };

    fn transfer(operation: Operation, urgency: Urgency) -> Transfer {
        Transfer { operation, urgency, done: Box::new(|_| {}) }
    }

    fn read(urgency: Urgency) -> Transfer {
        transfer(Operation::Read { at: 0, into: Vec::new() }, urgency)
    }

    fn write(urgency: Urgency) -> Transfer {
        transfer(Operation::Write { at: 0, from: Vec::new() }, urgency)
    }

    fn queue_of(transfers: impl IntoIterator<Item = Transfer>) -> Queue {
        let mut queue = Queue::new(LANES);
        for transfer in transfers {
            queue.push(transfer, Instant::now()).unwrap();
        }
        queue
    }

    fn started(queue: &mut Queue) -> Vec<(Lane, Urgency)> {
        let all = std::iter::from_fn(|| queue.next());
        all.map(|waiting| (waiting.transfer.operation.lane(), waiting.transfer.urgency)).collect()
    }

    #[test]
    fn the_most_urgent_read_goes_first_and_then_the_oldest() {
        let mut queue = queue_of(Urgency::ALL.iter().rev().copied().map(read));
        let first = transfer(Operation::Read { at: 4096, into: Vec::new() }, Urgency::Viewer);
        queue.push(first, Instant::now()).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let urgencies: Vec<_> = order.iter().map(|waiting| waiting.transfer.urgency).collect();
        use Urgency::*;
        assert_eq!(urgencies, [Reclaim, Viewer, Viewer, Patient, Promote, Write, Verify]);
        assert!(matches!(order[2].transfer.operation, Operation::Read { at: 4096, .. }));
    }

    #[test]
    fn who_lets_others_go_first_goes_after_eight_of_them() {
        let mut queue = queue_of((0..3).map(|_| read(Urgency::Patient)));
        for _ in 0..20 {
            queue.push(read(Urgency::Viewer), Instant::now()).unwrap();
        }
        let mut order = Vec::new();
        while let Some(waiting) = queue.next() {
            order.push(waiting.transfer.urgency);
            queue.ended(waiting.place());
        }
        let places = order.iter().enumerate().filter(|(_, urgency)| **urgency == Urgency::Patient);
        let places: Vec<_> = places.map(|(place, _)| place).collect();
        assert_eq!((places, order.len()), (vec![8, 17, 22], 23));
    }

    #[test]
    fn one_background_read_is_under_way_however_many_viewers_wait() {
        let mut queue = queue_of((0..192).map(|_| read(Urgency::Viewer)));
        queue.push(read(Urgency::Reclaim), Instant::now()).unwrap();
        assert!(queue.push(read(Urgency::Verify), Instant::now()).is_err(), "one is enough");
        let first = queue.next().unwrap();
        assert_eq!(first.transfer.urgency, Urgency::Reclaim);
        queue.push(read(Urgency::Reclaim), Instant::now()).unwrap();
        assert_eq!(started(&mut queue), vec![(Lane::Read, Urgency::Viewer); 15]);
        queue.ended(first.place());
        assert_eq!(started(&mut queue), [(Lane::Read, Urgency::Reclaim)]);
    }

    #[test]
    fn a_flood_of_reads_leaves_writes_one_place_in_nine_and_always_one() {
        let reads = (0..40).map(|_| read(Urgency::Viewer));
        let writes = (0..8).map(|_| write(Urgency::Write));
        let mut queue = queue_of(reads.chain(writes));
        let under_way = started(&mut queue);
        let writes = under_way.iter().filter(|(lane, _)| *lane == Lane::Write).count();
        assert_eq!((under_way.len(), writes), (18, 2), "sixteen reads and two writes");

        let mut queue = queue_of([read(Urgency::Viewer), write(Urgency::Write)]);
        assert_eq!(started(&mut queue).len(), 2);
    }

    #[test]
    fn without_a_viewer_writes_have_their_whole_lane() {
        let reads = (0..8).map(|_| read(Urgency::Verify));
        let mut queue = queue_of(reads.chain((0..8).map(|_| write(Urgency::Write))));
        let under_way = started(&mut queue);
        let reads = under_way.iter().filter(|(lane, _)| *lane == Lane::Read).count();
        assert_eq!((reads, under_way.len() - reads), (2, LANES.writes));
    }

    #[test]
    fn what_nobody_waits_for_leaves_room_for_viewers_in_the_queue_and_under_way() {
        let mut queue = queue_of((0..48).map(|_| read(Urgency::Verify)));
        assert!(queue.push(read(Urgency::Verify), Instant::now()).is_err());
        assert_eq!(started(&mut queue).len(), 2);
        for _ in 0..146 {
            queue.push(read(Urgency::Viewer), Instant::now()).unwrap();
        }
        let refused = queue.push(read(Urgency::Viewer), Instant::now()).unwrap_err();
        assert_eq!(refused.urgency, Urgency::Viewer);
        assert_eq!(started(&mut queue), vec![(Lane::Read, Urgency::Viewer); 14]);
    }

    #[test]
    fn a_full_queue_of_reads_still_takes_writes_and_flushes() {
        let mut queue = queue_of((0..192).map(|_| read(Urgency::Viewer)));
        assert!(queue.push(read(Urgency::Viewer), Instant::now()).is_err());
        for _ in 0..63 {
            queue.push(write(Urgency::Verify), Instant::now()).unwrap();
        }
        queue.push(transfer(Operation::Flush, Urgency::Write), Instant::now()).unwrap();
        assert!(queue.push(write(Urgency::Write), Instant::now()).is_err());
        assert_eq!(queue.drain().len(), 256);
        assert!(!queue.has_next());
    }

    #[test]
    fn a_place_given_back_is_taken_by_the_next() {
        let mut queue = queue_of((0..17).map(|_| read(Urgency::Viewer)));
        let place = queue.next().unwrap().place();
        assert_eq!(started(&mut queue).len(), 15);
        assert!(!queue.has_next());
        queue.ended(place);
        assert!(queue.has_next());
        assert_eq!(started(&mut queue).len(), 1);
    }
}
