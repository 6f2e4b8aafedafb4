//! One structured line per request, and the latest of them for the status page.
//!
//! Serving threads format a line and put it into a bounded channel; a thread of its own writes it,
//! in another format where that is set.
//! Nothing here waits for the file: a line that finds no room is dropped and counted. Lines that
//! wait are bounded in number and in bytes. Who follows the log live gets more: `follow.rs`.

mod emptying;
mod entry;
mod error;
mod filling;
pub mod filter;
mod follow;
#[doc(hidden)]
pub mod format;
mod output;
mod personal;
mod recent;
mod request_id;
mod spool;
mod target;
mod trace;
mod writer;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub use self::emptying::TakenBatch;
pub use self::entry::{Code, Entry, Outcome, PlayerTold};
pub use self::error::AccessLogError;
use self::filter::Filter;
use self::follow::Readers;
pub use self::follow::{FollowError, Following};
pub use self::format::Format;
use self::output::Output;
pub use self::output::Rotation;
use self::personal::Discretion;
pub use self::personal::{ClientBits, Personal, Shown};
use self::recent::Latest;
pub use self::recent::{Lines, RecentRequest};
pub use self::request_id::{FIELD as REQUEST_ID_FIELD, RequestId};
pub use self::spool::{Batch, Failure, Lost, Spool, SpoolSettings};
pub use self::target::Target;
pub use self::trace::{Decision, Text, Trace, Tracing};
use crate::limits;
use crate::memory::Governor;

/// What is logged, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where lines are written.
    pub destination: Destination,
    /// How they are written there.
    pub format: Format,
    /// When a file is moved; `None`: never.
    pub rotation: Option<Rotation>,
    /// How much of who a viewer is is written.
    pub personal: Personal,
    /// Whether the latest requests are kept for the status page.
    pub recent: Recent,
    /// Where lines wait to be shipped; `None`: they are not. Stays as it was at the start.
    pub spool: Option<SpoolSettings>,
}

impl Settings {
    /// Whole lines of JSON.
    pub fn of(destination: Destination, recent: Recent) -> Settings {
        let (format, rotation, personal) = (Format::Json, None, Personal::WHOLE);
        Settings { destination, format, rotation, personal, recent, spool: None }
    }

    /// Whether both have lines written to one place in one way.
    pub fn writes_as(&self, other: &Settings) -> bool {
        let of = |one: &Settings| (one.destination.clone(), one.format, one.rotation);
        of(self) == of(other)
    }
}

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// The process's standard output.
    Stdout,
    /// Appended to a file, created if it is not there.
    File(PathBuf),
}

/// Whether the latest requests are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recent {
    /// As many as these bytes hold, also when no line is written.
    Kept {
        /// At least `limits::RECENT_BYTES_MIN`.
        bytes: usize,
    },
    /// None.
    NotKept,
}

/// The access log; clones are handles of the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Opens the destination and starts the thread that writes to it.
    ///
    /// # Errors
    /// `Open` or `Stdout` by the destination, `Spool`, `Thread`.
    pub fn start(settings: &Settings) -> Result<(AccessLog, LogWriter), AccessLogError> {
        let output = Output::open(settings)?;
        AccessLog::start_with(settings, output)
    }

    fn start_with(
        settings: &Settings,
        output: Output,
    ) -> Result<(AccessLog, LogWriter), AccessLogError> {
        let spool = settings.spool.as_ref().map(|spool| {
            let folder = || spool.folder.clone();
            Spool::open(spool).map_err(|source| AccessLogError::Spool { folder: folder(), source })
        });
        let shared = Arc::new(Shared::new(settings, spool.transpose()?));
        let (sender, receiver) = mpsc::sync_channel(limits::ACCESS_LOG_LINES_WAITING_MAX);
        let log = AccessLog { sender: sender.clone(), shared: Arc::clone(&shared) };
        let (done, ended) = mpsc::sync_channel::<()>(0);
        let run = {
            let shared = Arc::clone(&shared);
            move || {
                writer::run(&receiver, output, &shared);
                // Dropped last: whoever waits for the end learns of it.
                drop(done);
            }
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(run)
            .map_err(|source| AccessLogError::Thread { source })?;
        Ok((log, LogWriter { sender, shared, ended }))
    }

    /// Where the decisions about a request go whose head had been read then.
    pub fn trace(&self, begun: Instant, governor: &Arc<Governor>) -> Tracing {
        self.shared.readers.trace(begun, governor)
    }

    /// Follows the requests that end from now on.
    ///
    /// # Errors
    /// Nobody more may, or there is no memory for it.
    pub fn follow(
        &self,
        filter: Filter,
        governor: &Arc<Governor>,
    ) -> Result<Following, FollowError> {
        Following::join(&self.shared, filter, governor)
    }

    /// Lets go of those who follow, once they have been told what there is.
    pub fn end_following(&self) {
        self.shared.readers.end();
    }

    /// Writes one line about a request, or drops and counts it, and tells those who follow the log;
    /// never waits.
    pub fn record(&self, entry: &Entry<'_>, tracing: &Tracing) {
        let discretion = &self.shared.discretion;
        let logged = OnceCell::new();
        let line = || logged.get_or_init(|| entry.to_line(discretion)).as_str();
        if !matches!(tracing, Tracing::Off) {
            self.shared.readers.tell(entry, tracing, discretion, line);
        }
        if self.shared.unread.load(Ordering::Relaxed) {
            return;
        }
        if self.shared.waiting_bytes.load(Ordering::Relaxed) > limits::ACCESS_LOG_BYTES_WAITING_MAX
        {
            return self.shared.drop_lines(1);
        }
        let text = logged.into_inner().unwrap_or_else(|| entry.to_line(discretion));
        let line = Line { time: entry.time, text };
        let line_bytes = line.text.capacity();
        self.shared.waiting_bytes.fetch_add(line_bytes, Ordering::Relaxed);
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.shared.waiting_bytes.fetch_sub(line_bytes, Ordering::Relaxed);
            self.shared.drop_lines(1);
        }
    }

    /// Opens the destination that `settings` name, for [`AccessLog::adopt`].
    ///
    /// # Errors
    /// `Open` or `Stdout` by the destination.
    pub fn next_output(settings: &Settings) -> Result<NextOutput, AccessLogError> {
        Output::open(settings).map(NextOutput)
    }

    /// Writes what comes from now on as `settings` say, and to `output` where there is one. Whether
    /// the latest requests are kept stays as it was.
    pub fn adopt(&self, settings: &Settings, output: Option<NextOutput>) {
        self.shared.discretion.set(settings.personal);
        self.shared.unread.store(self.shared.is_unread(settings), Ordering::Relaxed);
        let Some(NextOutput(output)) = output else { return };
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        self.shared.reopen.store(true, Ordering::Release);
        // No room: the writer is awake.
        let _ = self.sender.try_send(Message::Wake);
    }

    /// Lines that were lost.
    pub fn dropped_lines(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file by its name again, after what waits was written: its old file has been moved.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // No room: the writer is awake.
        let _ = self.sender.try_send(Message::Wake);
    }

    /// What waits to be shipped; `None`: nothing is.
    pub fn spool(&self) -> Option<&Arc<Spool>> {
        self.shared.spool.as_ref()
    }

    /// What may be told of an object's name now: as much as in a line.
    pub fn shown_target(&self, target: Target<'_>) -> String {
        self.shared.discretion.target(SystemTime::now(), target.as_logged()).into_owned()
    }

    /// The newest of the latest requests, newest first; empty unless they are kept.
    pub fn recent(&self) -> Vec<RecentRequest> {
        self.shared.latest.as_ref().map_or_else(Vec::new, Latest::read)
    }

    /// The lines of all requests that are remembered, oldest first.
    pub fn finished(&self) -> VecDeque<Arc<Lines>> {
        self.shared.latest.as_ref().map_or_else(VecDeque::new, Latest::lines)
    }

    /// For how long all requests that came are remembered, while none is forgotten.
    pub fn whole_for(&self, now: Instant) -> Option<Duration> {
        self.shared.latest.as_ref()?.whole_for(now)
    }
}

/// A destination that was opened, and that nothing was written to yet.
pub struct NextOutput(Output);

/// The writing thread's owner.
#[derive(Debug)]
pub struct LogWriter {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

impl LogWriter {
    /// Writes what waits and ends the thread; waits for it, at most `limit`.
    ///
    /// Lines recorded from now on may be lost. Blocks: not for a serving thread.
    ///
    /// # Errors
    /// `Stalled`; the thread writes on as long as the process lives.
    pub fn finish(self, limit: Duration) -> Result<(), AccessLogError> {
        self.shared.end.store(true, Ordering::Release);
        let _ = self.sender.try_send(Message::Wake);
        match self.ended.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => Err(AccessLogError::Stalled { limit }),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

/// What goes to the writing thread.
enum Message {
    Line(Line),
    /// Look at the flags.
    Wake,
}

/// A line to be written.
#[derive(Clone, Debug)]
struct Line {
    time: SystemTime,
    /// JSON and a line feed.
    text: String,
}

/// What serving threads and the writing thread share.
#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    /// The capacity of lines in the channel.
    waiting_bytes: AtomicUsize,
    /// Nobody would read a line.
    unread: AtomicBool,
    discretion: Discretion,
    readers: Readers,
    reopen: AtomicBool,
    /// What to write to instead of opening the same again.
    next: Mutex<Option<Output>>,
    end: AtomicBool,
    /// `None` when nothing is shipped.
    spool: Option<Arc<Spool>>,
    /// `None` when the latest requests are not kept.
    latest: Option<Latest>,
}

impl Shared {
    fn new(settings: &Settings, spool: Option<Spool>) -> Shared {
        let shared = Shared {
            unread: AtomicBool::new(false),
            discretion: Discretion::new(settings.personal),
            readers: Readers::default(),
            next: Mutex::default(),
            dropped: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
            end: AtomicBool::new(false),
            spool: spool.map(Arc::new),
            latest: match settings.recent {
                Recent::Kept { bytes } => Some(Latest::new(bytes)),
                Recent::NotKept => None,
            },
        };
        shared.unread.store(shared.is_unread(settings), Ordering::Relaxed);
        shared
    }

    fn is_unread(&self, settings: &Settings) -> bool {
        let is_off = settings.destination == Destination::Off;
        is_off && self.latest.is_none() && self.spool.is_none()
    }

    fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn taken(&self, line: &Line) {
        self.waiting_bytes.fetch_sub(line.text.capacity(), Ordering::Relaxed);
    }

    fn reopening(&self) -> bool {
        self.reopen.swap(false, Ordering::Acquire)
    }

    fn ending(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Read, Write};

    use super::entry::tests::entry;
    use super::*;

    /// More than any test needs; only a broken log waits for it.
    const LONG: Duration = Duration::from_secs(60);

    const KEPT: Recent = Recent::Kept { bytes: limits::RECENT_BYTES_MIN };

    fn settings(destination: Destination, recent: Recent) -> Settings {
        Settings::of(destination, recent)
    }

    fn to(output: Output) -> (AccessLog, LogWriter) {
        // The destination is only looked at for being off.
        let settings = settings(Destination::Stdout, Recent::NotKept);
        AccessLog::start_with(&settings, output).unwrap()
    }

    fn paths(text: &str) -> Vec<String> {
        let path = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            line["path"].as_str().unwrap().to_owned()
        };
        text.lines().map(path).collect()
    }

    #[test]
    fn each_request_is_a_line_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let settings = settings(Destination::File(file.clone()), Recent::NotKept);
        let (log, writer) = AccessLog::start(&settings).unwrap();
        let expected: Vec<String> = (0..1_000).map(|number| format!("/{number}")).collect();
        for path in &expected {
            log.record(&entry(path), &Tracing::Off);
        }
        writer.finish(LONG).unwrap();
        assert_eq!(paths(&fs::read_to_string(&file).unwrap()), expected);
        assert_eq!((log.dropped_lines(), log.recent().len()), (0, 0));
    }

    #[test]
    fn a_stalled_writer_costs_lines_which_are_counted_and_nobody_waits() {
        const RECORDED: usize = limits::ACCESS_LOG_LINES_WAITING_MAX + 4_000;
        let (mut reader, pipe) = io::pipe().unwrap();
        let (log, writer) = to(Output::to(pipe));
        // Nobody reads the pipe: if recording waited for it, this would never end.
        for number in 0..RECORDED {
            log.record(&entry(&format!("/{number}")), &Tracing::Off);
        }
        let dropped = log.dropped_lines() as usize;
        assert!(dropped > 0 && dropped < 4_000, "{dropped}");

        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        writer.finish(LONG).unwrap();
        let written = paths(&reading.join().unwrap());
        assert_eq!(written.len() + dropped, RECORDED);
        assert_eq!(written[..3], ["/0", "/1", "/2"]);
        log.record(&entry("/late"), &Tracing::Off);
        assert_eq!(log.dropped_lines() as usize, dropped + 1);
    }

    #[test]
    fn lines_that_wait_are_bounded_in_bytes_too() {
        let (_reader, pipe) = io::pipe().unwrap();
        let (log, _writer) = to(Output::to(pipe));
        let long = "\u{1}".repeat(2_048);
        for _ in 0..limits::ACCESS_LOG_LINES_WAITING_MAX {
            log.record(&entry(&long), &Tracing::Off);
        }
        assert!(log.dropped_lines() > 0);
        let waiting = log.shared.waiting_bytes.load(Ordering::Relaxed);
        assert!(waiting < limits::ACCESS_LOG_BYTES_WAITING_MAX + (64 << 10), "{waiting}");
    }

    #[test]
    fn a_writer_that_stays_stalled_does_not_hold_up_the_end() {
        let (_reader, pipe) = io::pipe().unwrap();
        let (log, writer) = to(Output::to(pipe));
        for _ in 0..1_000 {
            log.record(&entry("/"), &Tracing::Off);
        }
        let error = writer.finish(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.to_string(), "access log did not take its last lines within 1ms");
    }

    #[test]
    fn a_line_torn_by_a_full_disk_is_closed_and_what_was_lost_is_counted() {
        /// Takes some bytes, then has no room once, then takes everything.
        struct Full {
            room: Option<usize>,
            file: fs::File,
        }
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.room {
                    Some(0) => {
                        self.room = None;
                        Err(io::ErrorKind::StorageFull.into())
                    }
                    Some(room) => {
                        self.room = Some(0);
                        self.file.write(&bytes[..room.min(bytes.len())])
                    }
                    None => self.file.write(bytes),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let file = fs::File::create(&path).unwrap();
        let (log, writer) = to(Output::to(Full { room: Some(10), file }));
        log.record(&entry("/torn"), &Tracing::Off);
        while log.dropped_lines() == 0 {
            thread::yield_now();
        }
        log.record(&entry("/whole"), &Tracing::Off);
        writer.finish(LONG).unwrap();

        let text = fs::read_to_string(&path).unwrap();
        let (torn, whole) = text.split_once('\n').unwrap();
        assert_eq!(torn, "{\"time\":\"2");
        assert_eq!(paths(whole), ["/whole"]);
        assert_eq!(log.dropped_lines(), 1);
    }

    #[test]
    fn a_batch_to_be_shipped_is_bounded_in_bytes_however_short_the_lines_of_the_log_are() {
        let folder = tempfile::tempdir().unwrap();
        let (mut reader, pipe) = io::pipe().unwrap();
        let spool = SpoolSettings {
            folder: folder.path().to_owned(),
            bytes_max: 1 << 30,
            batch_bytes: 1 << 10,
            batch_period: LONG,
        };
        let bytes_max = spool.batch_bytes_max();
        let mut settings = settings(Destination::Stdout, Recent::NotKept);
        settings.spool = Some(spool);
        let mut output = Output::to(pipe);
        output.format = Format::Combined;
        let (log, writer) = AccessLog::start_with(&settings, output).unwrap();
        // Nobody reads the pipe: they gather.
        for number in 0..10_000 {
            log.record(&entry(&format!("/{number}")), &Tracing::Off);
        }
        let reading = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        writer.finish(LONG).unwrap();
        reading.join().unwrap().unwrap();
        let batches = log.spool().unwrap().take_over().unwrap();
        assert_eq!(batches.iter().map(|batch| batch.lines).sum::<u64>(), 10_000);
        let largest = batches.iter().map(|batch| batch.bytes).max().unwrap();
        assert!(largest <= bytes_max, "{largest}");
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let [current, old] = ["access.log", "access.log.1"].map(|it| directory.path().join(it));
        let settings = settings(Destination::File(current.clone()), Recent::NotKept);
        let (log, writer) = AccessLog::start(&settings).unwrap();
        log.record(&entry("/before"), &Tracing::Off);
        fs::rename(&current, &old).unwrap();
        log.reopen();
        while !current.exists() {
            thread::yield_now();
        }
        log.record(&entry("/after"), &Tracing::Off);
        writer.finish(LONG).unwrap();
        assert_eq!(paths(&fs::read_to_string(&old).unwrap()), ["/before"]);
        assert_eq!(paths(&fs::read_to_string(&current).unwrap()), ["/after"]);
    }

    #[test]
    fn the_latest_requests_are_kept_where_wanted_newest_first() {
        let (log, writer) = AccessLog::start(&settings(Destination::Off, KEPT)).unwrap();
        for number in 0..1_000 {
            log.record(&entry(&format!("/{number}")), &Tracing::Off);
        }
        writer.finish(LONG).unwrap();
        let recent = log.recent();
        assert_eq!(recent.len(), limits::RECENT_REQUESTS_MAX);
        assert_eq!((&*recent[0].path, &*recent[255].path), ("/999", "/744"));
        assert_eq!(
            serde_json::to_value(&recent[0]).unwrap(),
            serde_json::json!({
                "id": recent[0].id, "at_ms": 1_795_262_128_007u64, "method": "GET", "path": "/999",
                "protocol": "http2", "tls": true, "status": 206, "bytes": 100, "ssd_bytes": 40,
                "range": "100-199", "cache": "hit", "ttfb_us": 250, "duration_us": 1_500,
                "outcome": "complete",
            })
        );
    }

    #[test]
    fn a_log_nobody_reads_costs_nothing() {
        let (log, writer) = AccessLog::start(&settings(Destination::Off, Recent::NotKept)).unwrap();
        log.record(&entry("/"), &Tracing::Off);
        writer.finish(LONG).unwrap();
        assert_eq!((log.dropped_lines(), log.recent().len()), (0, 0));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told() {
        let missing = PathBuf::from("/nowhere/access.log");
        let error = AccessLog::start(&settings(Destination::File(missing), Recent::NotKept))
            .expect_err("there is no such directory");
        let told = "access log \"/nowhere/access.log\" cannot be opened: No such file or directory";
        assert!(error.to_string().starts_with(told), "{error}");
    }
}
