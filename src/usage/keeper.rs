//! Who samples: a thread of its own, because it waits for a disk.
//!
//! What was counted since the last time is spread over the time that has passed, so that nothing is
//! lost or counted twice when the clock is set, the machine slept or the disk hung; it is written
//! when its sample has ended, or this process does. So of one sample each process writes its part:
//! a restart, or an upgrade, within it changes no sum. A kill costs what the sample has so far.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::folder::{Folder, Part};
use super::told::{Asked, MonthTold, Tally, Unreckoned};
use super::{Counts, SAMPLE_SECONDS};
use crate::moment::{Moment, since_1970, unix_seconds};

/// What every site has been served so far, by the names of sites in the order of their ids, which
/// they keep.
pub type ReadCounts = Box<dyn Fn() -> Vec<(String, Counts)> + Send + Sync>;

/// The usage of one appliance.
pub struct Usage {
    folder: Folder,
    months: usize,
    read: ReadCounts,
    counting: Mutex<Counting>,
}

/// What is counted and not written.
struct Counting {
    /// What was read at last, and when.
    last: Vec<Counts>,
    until: Instant,
    /// By the start of their sample.
    waiting: BTreeMap<u64, BTreeMap<String, Counts>>,
    is_failing: bool,
}

impl Usage {
    /// Counts from now on, into a folder in which so many months are kept.
    pub fn new(folder: Folder, months: usize, read: ReadCounts, now: Moment) -> Usage {
        let last = read().into_iter().map(|(_, counts)| counts).collect();
        let (until, waiting) = (now.instant, BTreeMap::new());
        let counting = Mutex::new(Counting { last, until, waiting, is_failing: false });
        Usage { folder, months, read, counting }
    }

    /// Writes the samples that have ended. Blocks.
    pub fn sample(&self, now: Moment) {
        let mut counting = self.take(now);
        let seconds = unix_seconds(now.time);
        let current = seconds - seconds % SAMPLE_SECONDS;
        // One that is yet to come was under way before the clock was set back.
        self.write(&mut counting, |start| start != current);
    }

    /// Writes all there is: nothing is counted any more. Blocks.
    pub fn end(&self, now: Moment) {
        let mut counting = self.take(now);
        self.write(&mut counting, |_| true);
    }

    /// What is told of a month, what is not written yet included. Blocks.
    ///
    /// # Errors
    /// The files cannot be read, or there is no room for so many sites.
    pub fn told(
        &self,
        asked: &Asked,
        now: Moment,
        room: impl FnMut() -> bool,
    ) -> Result<MonthTold, Unreckoned> {
        let counting = self.take(now);
        let mut tally = Tally::new(asked, now.time, room);
        tally.read(&self.folder)?;
        for (start, sites) in &counting.waiting {
            tally.add(Part { start: *start, sites: sites.clone() });
        }
        tally.told()
    }

    /// Takes what was counted since the last time.
    fn take(&self, now: Moment) -> MutexGuard<'_, Counting> {
        let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        // Else it is taken when there is room again.
        if counting.waiting.len() < WAITING_MAX {
            counting.take((self.read)(), now);
        }
        counting
    }

    fn write(&self, counting: &mut Counting, is_due: impl Fn(u64) -> bool) {
        let due: Vec<u64> = counting.waiting.keys().copied().filter(|at| is_due(*at)).collect();
        if due.is_empty() {
            return;
        }
        for start in due {
            let Some(sites) = counting.waiting.get(&start) else { continue };
            let part = Part { start, sites: sites.clone() };
            if let Err(error) = self.folder.append(&part) {
                counting.failed(&self.folder, &error);
                return;
            }
            counting.waiting.remove(&start);
        }
        counting.is_failing = false;
        if let Err(error) = self.folder.keep(self.months) {
            tracing::warn!("usage of months that are over cannot be removed: {error}");
        }
    }
}

impl Counting {
    fn take(&mut self, counted: Vec<(String, Counts)>, now: Moment) {
        let passed = now.instant.saturating_duration_since(self.until).min(SPREAD_MAX);
        self.until = now.instant;
        let end = since_1970(now.time);
        let spread = Spread { start: end.saturating_sub(passed), end };
        for start in spread.samples().filter(|_| !passed.is_zero()) {
            self.waiting.entry(start).or_default();
        }
        self.last.resize(counted.len().max(self.last.len()), Counts::default());
        for ((site, counts), last) in counted.into_iter().zip(&mut self.last) {
            let more = counts - *last;
            *last = counts;
            for (start, part) in spread.parts(more) {
                let sites = self.waiting.entry(start).or_default();
                *sites.entry(site.clone()).or_default() += part;
            }
        }
    }

    fn failed(&mut self, folder: &Folder, error: &io::Error) {
        let (path, was_failing) = (folder.path().display(), self.is_failing);
        self.is_failing = true;
        if !was_failing {
            tracing::error!(
                "usage cannot be written to {path}: {error}; it is tried again every 5 minutes, \
                 and what is counted meanwhile is written then"
            );
        }
    }
}

/// The time over which something was counted.
struct Spread {
    start: Duration,
    end: Duration,
}

impl Spread {
    /// The starts of the samples that it touches; of no time at all the one that it is in.
    fn samples(&self) -> impl Iterator<Item = u64> + use<> {
        let first = self.start.as_secs() / SAMPLE_SECONDS;
        let end = self.end.as_nanos().div_ceil(SAMPLE_NANOS) as u64;
        (first..end.max(first + 1)).map(|number| number * SAMPLE_SECONDS)
    }

    /// What of `counts` belongs to each sample: its share of the time. Together they are all of it.
    fn parts(&self, counts: Counts) -> impl Iterator<Item = (u64, Counts)> {
        let (start, length) = (self.start.as_nanos(), (self.end - self.start).as_nanos().max(1));
        let upto = move |number: u64| {
            let end = u128::from(number + SAMPLE_SECONDS) * 1_000_000_000;
            let passed = end.saturating_sub(start).min(length);
            let of = |count: u64| (u128::from(count) * passed / length) as u64;
            counts.each(Counts::default(), |count, _| of(count))
        };
        let mut before = Counts::default();
        let parts = self.samples().map(move |number| {
            let after = upto(number);
            (number, after - std::mem::replace(&mut before, after))
        });
        parts.filter(|(_, part)| *part != Counts::default())
    }
}

/// The thread; ends when it is told to.
pub struct Keeper {
    end: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Samples at each boundary from now on.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(usage: Arc<Usage>) -> io::Result<Keeper> {
        let (end, ended) = sync_channel(1);
        let work = move || run(&usage, &ended);
        let thread = thread::Builder::new().name("usage".to_owned()).spawn(work)?;
        Ok(Keeper { end, thread })
    }

    /// Writes what is left, and ends. Blocks, but for no longer than `patience`: a disk may hang.
    pub fn finish(self, patience: Duration) {
        drop(self.end);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("usage is not written in time, and what is left of it is lost");
                return;
            }
            thread::sleep(LOOK_AGAIN);
        }
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps usage panicked; its message is above");
        }
    }
}

fn run(usage: &Usage, ended: &Receiver<()>) {
    loop {
        let into = since_1970(SystemTime::now()).as_nanos() % SAMPLE_NANOS;
        let left = Duration::from_nanos((SAMPLE_NANOS - into) as u64);
        match ended.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => sampled(usage, Moment::now()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    usage.end(Moment::now());
}

/// A sample that breaks off is not the last: what it would have had is of the next.
fn sampled(usage: &Usage, now: Moment) {
    if catch_unwind(AssertUnwindSafe(|| usage.sample(now))).is_err() {
        tracing::error!("a sample of the usage panicked; its message is above");
    }
}

const SAMPLE_NANOS: u128 = SAMPLE_SECONDS as u128 * 1_000_000_000;
/// Samples that wait to be written: a day. What is counted then waits to be taken.
const WAITING_MAX: usize = 288;
/// What was counted in more than a day is told as of the last one.
const SPREAD_MAX: Duration = Duration::from_secs(86_400);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any};
    use proptest::{prop_assert_eq, proptest};
    use tempfile::TempDir;

    use super::super::Month;
    use super::*;

    /// Halfway through a sample in November 2026.
    const BEGUN: u64 = 1_795_356_600 + 150;

    /// A machine whose clocks a test sets, and its folder.
    struct Machine {
        _there: TempDir,
        folder: Folder,
        begun: Instant,
    }

    /// A process on it, and what it has served.
    struct Process {
        usage: Usage,
        served: Arc<Mutex<u64>>,
    }

    impl Process {
        fn serve(&self, bytes: u64) {
            *self.served.lock().unwrap() += bytes;
        }
    }

    impl Machine {
        fn new() -> Machine {
            let there = TempDir::new().unwrap();
            let folder = Folder::at(there.path().join("usage"));
            Machine { _there: there, folder, begun: Instant::now() }
        }

        /// So many seconds after it began, by a clock that is wrong by `wrong`.
        fn moment(&self, later: u64, wrong: i64) -> Moment {
            let seconds = BEGUN.strict_add(later).strict_add_signed(wrong);
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            Moment { time, instant: self.begun + Duration::from_secs(later) }
        }

        fn process(&self, now: Moment) -> Process {
            let served = Arc::<Mutex<u64>>::default();
            let counted = served.clone();
            let read = move || {
                let served_bytes = *counted.lock().unwrap();
                vec![("film".to_owned(), Counts { served_bytes, ..Counts::default() })]
            };
            let usage = Usage::new(self.folder.clone(), 13, Box::new(read), now);
            Process { usage, served }
        }

        /// What is written of each sample, by how many samples it is after the first.
        fn written(&self) -> BTreeMap<i64, u64> {
            let mut written = BTreeMap::new();
            for entry in fs::read_dir(self.folder.path()).into_iter().flatten() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let month: Month = name[..7].parse().unwrap();
                let add = |part: Part| {
                    let after = (part.start as i64 - BEGUN as i64 + 150) / SAMPLE_SECONDS as i64;
                    let served = part.sites.values().map(|counts| counts.served_bytes);
                    *written.entry(after).or_default() += served.sum::<u64>();
                };
                assert_eq!(self.folder.read(month, add).unwrap(), 0);
            }
            written
        }
    }

    #[test]
    fn a_restart_within_a_sample_loses_nothing_and_counts_nothing_twice() {
        let machine = Machine::new();
        let first = machine.process(machine.moment(0, 0));
        first.serve(10);
        first.usage.sample(machine.moment(60, 0));
        assert_eq!(machine.written(), BTreeMap::new(), "it has not ended");
        first.usage.end(machine.moment(90, 0));
        let second = machine.process(machine.moment(100, 0));
        second.serve(5);
        second.usage.sample(machine.moment(150, 0));
        assert_eq!(machine.written(), BTreeMap::from([(0, 15)]));
    }

    #[test]
    fn two_processes_write_what_each_of_them_served() {
        let machine = Machine::new();
        let [first, second] = [0, 60].map(|later| machine.process(machine.moment(later, 0)));
        for later in [150, 450] {
            first.serve(10);
            second.serve(7);
            first.usage.sample(machine.moment(later, 0));
            second.usage.sample(machine.moment(later, 0));
        }
        first.usage.end(machine.moment(460, 0));
        assert_eq!(machine.written(), BTreeMap::from([(0, 17), (1, 17), (2, 0)]));
    }

    #[test]
    fn a_clock_that_is_set_moves_what_comes_and_nothing_that_was() {
        let machine = Machine::new();
        let process = machine.process(machine.moment(0, 0));
        process.serve(10);
        process.usage.sample(machine.moment(150, 0));
        // An hour back: the next five minutes are once more those of then.
        process.serve(20);
        process.usage.sample(machine.moment(450, -3_600));
        process.serve(40);
        process.usage.sample(machine.moment(750, 7_200));
        process.usage.end(machine.moment(750, 7_200));
        let expected = [(0, 10), (1 - 12, 20), (2 + 24, 40)];
        assert_eq!(machine.written(), BTreeMap::from(expected));
    }

    #[test]
    fn what_is_taken_late_is_spread_over_the_time_it_took() {
        let machine = Machine::new();
        let process = machine.process(machine.moment(0, 0));
        process.serve(1_000);
        process.usage.sample(machine.moment(150 + 300 + 50, 0));
        process.usage.end(machine.moment(150 + 300 + 50, 0));
        assert_eq!(machine.written(), BTreeMap::from([(0, 300), (1, 600), (2, 100)]));
    }

    #[test]
    fn while_nothing_can_be_written_it_waits_and_is_told() {
        let machine = Machine::new();
        let there = machine.folder.path().to_owned();
        fs::write(&there, "in the way").unwrap();
        let process = machine.process(machine.moment(0, 0));
        for later in [150, 450, 750] {
            process.serve(10);
            process.usage.sample(machine.moment(later, 0));
        }
        fs::remove_file(&there).unwrap();
        let asked = Asked { month: Month::of(BEGUN), site: None, samples: false };
        let told = process.usage.told(&asked, machine.moment(760, 0), || true).unwrap();
        assert_eq!(told.all.unwrap().served_bytes, 30);
        process.usage.sample(machine.moment(1_050, 0));
        let expected = [(0, 10), (1, 10), (2, 10), (3, 0)];
        assert_eq!(machine.written(), BTreeMap::from(expected));
    }

    #[test]
    fn a_sample_that_panics_is_not_the_last_and_loses_nothing() {
        let machine = Machine::new();
        let reads = Mutex::new(0);
        let read = move || {
            let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
            *reads += 1;
            assert_ne!(*reads, 2, "as a mistake would");
            vec![("film".to_owned(), Counts { served_bytes: *reads * 10, ..Counts::default() })]
        };
        let now = |later| machine.moment(later, 0);
        let usage = Usage::new(machine.folder.clone(), 13, Box::new(read), now(0));
        sampled(&usage, now(150));
        sampled(&usage, now(300));
        usage.end(now(300));
        assert_eq!(machine.written().values().sum::<u64>(), 30);
    }

    #[test]
    fn an_outage_of_days_costs_no_byte_and_a_day_of_memory() {
        let machine = Machine::new();
        let there = machine.folder.path().to_owned();
        fs::write(&there, "in the way").unwrap();
        let process = machine.process(machine.moment(0, 0));
        for sample in 0..3 * WAITING_MAX as u64 {
            process.serve(10);
            process.usage.sample(machine.moment(150 + 300 * sample, 0));
        }
        assert_eq!(process.usage.counting.lock().unwrap().waiting.len(), WAITING_MAX);
        fs::remove_file(&there).unwrap();
        let later = 150 + 300 * 3 * WAITING_MAX as u64;
        process.usage.sample(machine.moment(later, 0));
        process.usage.end(machine.moment(later, 0));
        assert_eq!(machine.written().values().sum::<u64>(), 10 * 3 * WAITING_MAX as u64);
    }

    proptest! {
        // Each step may wait for a disk.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever becomes of clocks, processes and who asks: the sum of all samples is what was
        /// served, and what is told is what was served so far.
        #[test]
        fn the_samples_sum_up_to_what_was_served(
            steps in vec((0_u64..2_000, 0_u64..999, -4_000_i64..4_000, any::<[bool; 3]>()), 1..16),
        ) {
            let machine = Machine::new();
            let mut process = machine.process(machine.moment(0, 0));
            let (mut later, mut sum) = (0, 0);
            for (passed, served, wrong, [is_asked, ends, is_due]) in steps {
                later += passed;
                process.serve(served);
                sum += served;
                let now = machine.moment(later, wrong);
                if is_asked {
                    let asked = Asked { month: Month::of(BEGUN), site: None, samples: false };
                    let told = process.usage.told(&asked, now, || true).unwrap();
                    prop_assert_eq!(told.all.unwrap().served_bytes, sum);
                }
                if is_due {
                    process.usage.sample(now);
                }
                if ends {
                    process.usage.end(now);
                    process = machine.process(now);
                }
            }
            process.usage.end(machine.moment(later, 0));
            prop_assert_eq!(machine.written().values().sum::<u64>(), sum);
        }
    }
}
