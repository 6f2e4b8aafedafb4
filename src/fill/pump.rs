//! The pump: writes an origin's body into pieces, for the readers of one run.
//!
//! It reads on while its readers allow it, goes on from where a broken connection stopped, and
//! publishes pieces only when they are whole. It holds memory only for what its readers still
//! need: when none is free or nobody moves, a run that can be taken up again ends, and its readers
//! start another when they come there.

mod extent;
mod finish;
mod source;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::extent::Writing;
use self::finish::Finish;
pub(super) use self::source::Source;
use crate::fill::Filler;
use crate::fill::client::{Ask, deepest};
use crate::fill::error::FillError;
use crate::fill::run::{Ended, Pace, Run, Sharing};
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::Class;
use crate::object::BlockKey;

/// Brings a run's bytes, then ends it and takes it off the table.
///
/// `source` is the body already here, or `None` when it must be asked for; `class` says how badly
/// its first piece is wanted. The next ones are a response already begun.
pub(super) async fn pump(
    filler: Arc<Filler>,
    run: Arc<Run>,
    source: Option<Source>,
    ask: Ask,
    class: Class,
) {
    let mut guard = Finish { filler: filler.clone(), run: run.clone(), ended: None };
    let position = run.standing().written;
    // Read-ahead is begun only where there is room for all of it.
    let class = if class == Class::Prefetch { Class::Miss } else { class };
    let paid_to = run.standing().bounds.paid_to;
    let mut pump = Pump { filler, run, ask, extent: None, position, class, begun: false, paid_to };
    guard.ended = Some(pump.bring(source).await);
    pump.close_extent();
    pump.offer_last();
}

/// Ends a run that brings nothing.
pub(super) fn give_up(filler: Arc<Filler>, run: Arc<Run>, why: FillError) {
    drop(Finish { filler, run, ended: Some(Ended::Failed(Arc::new(why))) });
}

struct Pump {
    filler: Arc<Filler>,
    run: Arc<Run>,
    ask: Ask,
    extent: Option<Writing>,
    /// Where in the version the next byte goes.
    position: u64,
    /// How badly the next piece is wanted.
    class: Class,
    /// It has had memory: its readers got something from it.
    begun: bool,
    /// From here on it must be paid for from the bypass.
    paid_to: Option<u64>,
}

/// Where the slowest reader is, and when he has stood there for too long.
struct Still {
    at: Option<u64>,
    until: Instant,
}

/// Why reading a body stopped.
enum Stop {
    Complete,
    Parked,
    /// Worth another attempt.
    Broke(FillError),
    /// Final.
    Failed(FillError),
}

impl Pump {
    async fn bring(&mut self, mut source: Option<Source>) -> Ended {
        let mut attempts = 1;
        let mut counted_from = self.position;
        loop {
            let stop = match self.source(source.take(), attempts - 1).await {
                Ok(source) => self.write_from(source).await,
                Err(stop) => stop,
            };
            match stop {
                Stop::Complete => return Ended::Complete,
                Stop::Parked => return Ended::Parked,
                Stop::Failed(error) => {
                    self.filler.count_error(self.run.key.site(), &error);
                    return Ended::Failed(Arc::new(error));
                }
                Stop::Broke(error) => {
                    // A piece at least, or an origin that sends byte by byte is asked for ever.
                    if self.position >= counted_from + PIECE_SIZE_BYTES {
                        (attempts, counted_from) = (1, self.position);
                    }
                    self.filler.count_error(self.run.key.site(), &error);
                    if attempts > self.filler.client.retries() || !self.run.may_be_asked_for() {
                        return Ended::Failed(Arc::new(error));
                    }
                    attempts += 1;
                    sleep(PAUSE * attempts).await;
                }
            }
        }
    }

    async fn write_from(&mut self, mut source: Source) -> Stop {
        loop {
            if self.run.end() == Some(self.position) {
                return self.ends_here(&mut source).await;
            }
            if let Err(stop) = self.pace().await {
                return stop;
            }
            if !self.is_paid() {
                sleep(PAY_AGAIN).await;
                continue;
            }
            if self.extent.is_none() {
                if self.is_held_or_claimed() {
                    return Stop::Complete;
                }
                if let Err(stop) = self.open_extent().await {
                    return stop;
                }
            }
            match timeout(self.patience(), source.body.frame()).await {
                Err(_) => return Stop::Broke(FillError::ProgressTimeout { offset: self.position }),
                Ok(None) => {
                    return match self.write_last(&mut source).await {
                        Ok(()) => self.body_ended(&source),
                        Err(stop) => stop,
                    };
                }
                Ok(Some(Err(error))) => {
                    let reason = deepest(&error);
                    return Stop::Broke(FillError::Closed { offset: self.position, reason });
                }
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    let checked = match source.checked(bytes) {
                        Ok(checked) => checked,
                        Err(error) => return self.disown(error),
                    };
                    for bytes in checked {
                        if let Err(stop) = self.write(&mut source, bytes).await {
                            return stop;
                        }
                    }
                }
            }
        }
    }

    /// Writes what was kept back until the body had ended. A body that ended early is no less to be
    /// checked than a whole one, but what is missing of it is the worse news.
    async fn write_last(&mut self, source: &mut Source) -> Result<(), Stop> {
        if source.is_cut_short() {
            return Ok(());
        }
        match source.checked_end() {
            Ok(bytes) => self.write(source, bytes).await,
            Err(error) => Err(self.disown(error)),
        }
    }

    async fn write(&mut self, source: &mut Source, mut bytes: Bytes) -> Result<(), Stop> {
        let counters = &self.filler.counters;
        counters.origin_bytes.add((), bytes.len() as u64);
        counters.sites.of(self.run.key.site()).origin_bytes.add((), bytes.len() as u64);
        if source.overflows(bytes.len()) {
            return Err(self.disown(self.more_than_asked()));
        }
        let before = self.position.saturating_sub(source.at).min(bytes.len() as u64);
        bytes.advance(before as usize);
        source.at += before;
        while !bytes.is_empty() {
            if let Some(end) = self.run.end() {
                let room = end - self.position;
                if room == 0 {
                    return Ok(());
                }
                bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX).max(1));
            }
            if self.extent.is_none() {
                self.open_extent().await?;
            }
            let writing = self.extent.as_mut().expect("an extent was just opened");
            let taken = writing.extent.append(&bytes);
            bytes.advance(taken);
            self.position += taken as u64;
            source.at += taken as u64;
            self.run.land(writing.extent.prefix());
            if writing.extent.written_bytes() == writing.extent.capacity_bytes() {
                self.close_extent();
            }
            if self.position.is_multiple_of(self.filler.block_size.bytes()) {
                self.offer_block(self.position - 1);
                if !bytes.is_empty() {
                    self.pace().await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the readers; ends the run when nobody needs it now.
    async fn pace(&mut self) -> Result<(), Stop> {
        let mut still = Still { at: None, until: Instant::now() };
        loop {
            match self.run.pace() {
                Pace::Go => return Ok(()),
                Pace::Wait if self.may_park() => self.reader_moved().await?,
                Pace::Wait => self.slowest_moved(&mut still).await,
                Pace::Deserted => {
                    let block_size_bytes = self.filler.block_size.bytes();
                    let at_border = self.position.is_multiple_of(block_size_bytes);
                    let left = match self.run.end() {
                        Some(end) => end - self.position,
                        // As a rule it is short, such as a playlist that nobody needs as it is.
                        None if !self.begun => 0,
                        None => u64::MAX,
                    };
                    let stop_here = at_border && left > block_size_bytes;
                    return match self.run.sharing == Sharing::Alone || stop_here {
                        true => Err(Stop::Parked),
                        false => Ok(()),
                    };
                }
            }
        }
    }

    /// Waits until a reader moves; parks the run if none does for a while, or none is left.
    async fn reader_moved(&self) -> Result<(), Stop> {
        if self.run.pace() == Pace::Deserted {
            return Err(Stop::Parked);
        }
        let moved = timeout(PARK_AFTER, self.run.reader_moved()).await;
        match moved {
            Err(_) if self.may_park() => Err(Stop::Parked),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Waits until any reader moves, and leaves behind the slowest when it is he who did not.
    async fn slowest_moved(&self, still: &mut Still) {
        let slowest = self.run.slowest();
        // Who comes behind him and goes changes nothing.
        if slowest > still.at {
            *still = Still { at: slowest, until: Instant::now() + PARK_AFTER };
        }
        // Others may move all the while.
        let in_time = Instant::now() < still.until;
        if in_time && timeout_at(still.until, self.run.reader_moved()).await.is_ok() {
            return;
        }
        if let Some(at) = still.at.take() {
            self.run.leave_behind(at);
        }
    }

    /// How long the body's next bytes may take: as long as its head, where the origin makes it as
    /// it is watched.
    fn patience(&self) -> Duration {
        self.filler.client.patience().progress + self.ask.hold
    }

    fn may_park(&self) -> bool {
        self.run.sharing == Sharing::Shared && self.run.version.is_resumable()
    }

    /// Whether the next bytes may be asked of an origin although a volume may hold them.
    fn is_paid(&mut self) -> bool {
        let Some(paid_to) = self.paid_to.filter(|paid_to| *paid_to <= self.position) else {
            return true;
        };
        let end = self.run.end().or(self.run.version.length_bytes()).unwrap_or(u64::MAX);
        let bytes = self.filler.block_size.bytes().min(end.saturating_sub(paid_to));
        let paid = self.filler.ssd.may_go_on(&self.run.key, bytes);
        if paid {
            self.paid_to = Some(paid_to.saturating_add(bytes.max(1)));
        }
        paid
    }

    /// Whether the next piece is held already, or another run will bring it: then this one is done.
    fn is_held_or_claimed(&self) -> bool {
        if self.position == self.run.standing().bounds.start || !self.may_park() {
            return false;
        }
        self.filler.is_held(&self.run.version, self.position)
            || self.filler.runs.is_claimed_by_another(&self.run, self.position)
    }

    /// The body ended by itself.
    fn body_ended(&mut self, source: &Source) -> Stop {
        match self.run.end() {
            Some(end) if self.position < end => Stop::Broke(FillError::Closed {
                offset: self.position,
                reason: format!("{} bytes are missing", end - self.position),
            }),
            Some(_) => Stop::Complete,
            None if source.at == self.position && self.run.version.learn_length(source.at) => {
                self.run.set_end(Some(self.position));
                Stop::Complete
            }
            None => {
                self.run.version.mark_changed();
                Stop::Failed(FillError::Changed)
            }
        }
    }

    /// The run has what it was to bring. Where the answer should end too, it must: one that goes on
    /// contradicts its head, and none of it can be believed.
    async fn ends_here(&mut self, source: &mut Source) -> Stop {
        let ends_too = source.promised == Some(self.position);
        if source.body.is_end_stream() || !ends_too {
            return Stop::Complete;
        }
        // What overlaps with bytes that are here already is still to come.
        let overlap = self.position.saturating_sub(source.at);
        let is_more = |bytes: &Bytes| bytes.len() as u64 > overlap;
        match timeout(self.patience(), source.body.frame()).await {
            Ok(Some(Ok(frame))) if frame.data_ref().is_some_and(is_more) => {
                self.disown(self.more_than_asked())
            }
            _ => Stop::Complete,
        }
    }

    fn more_than_asked(&self) -> FillError {
        let asked = format!("the bytes up to {}", self.position);
        FillError::WrongRange { asked, answered: "more".to_owned() }
    }

    /// Forgets everything this run has published.
    fn disown(&mut self, why: FillError) -> Stop {
        let version = &self.run.version;
        version.mark_changed();
        let block_size = self.filler.block_size;
        let start = self.run.standing().bounds.start;
        let first = block_size.block_at(start).unwrap_or(u32::MAX);
        let last = block_size.block_at(self.position).unwrap_or(u32::MAX);
        for index in first..=last {
            let key = BlockKey { version: version.id, index };
            self.filler.ram.forget(&key);
            self.filler.ssd.forget_block(&key);
        }
        if let FillError::Digest { .. } = why {
            version.mark_false();
            // Nobody who was cut short can tell: it is said here, once.
            tracing::warn!(site = %self.ask.site.name, "{}: {why}", self.run.key.path());
        }
        Stop::Failed(why)
    }
}

/// Between looks whether the bypass has room.
const PAY_AGAIN: Duration = Duration::from_millis(100);
/// Between attempts, times their number.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a run waits for a reader to move before it gives its connection and memory back, or
/// leaves behind who keeps the others waiting.
const PARK_AFTER: Duration = Duration::from_secs(1);
