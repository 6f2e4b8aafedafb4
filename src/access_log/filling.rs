//! Fills one batch of the spool after the other, on the thread that writes the log, and closes what
//! a process that is no more was filling.
//!
//! A batch has three names in turn: `.new` until its file is locked, `.open` while it is filled,
//! and at last the one that says how much is in it. So an `.open` file that nobody holds a lock on
//! was left, and what came into it after its last whole line never was one.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::RequestId;
use super::spool::{Batch, Lost, NEW, OPEN, Spool, begun, take_lock};
use crate::moment::unix_millis;

/// Fills one batch after the other.
pub(super) struct Filling<'a> {
    spool: &'a Spool,
    /// What the next write puts into a file.
    lines: String,
    /// As many lines.
    count: u64,
    /// `None` until there is a line for the next batch.
    open: Option<Open>,
    /// The last write failed: the next failure is no news.
    failing: bool,
}

/// A batch that is being filled.
struct Open {
    file: File,
    /// What its names begin with: when it was begun, and its id.
    stem: String,
    begun: Instant,
    lines: u64,
    bytes: u64,
}

impl Filling<'_> {
    pub(super) fn of(spool: &Spool) -> Filling<'_> {
        Filling { spool, lines: String::new(), count: 0, open: None, failing: false }
    }

    /// Adds a line, for the next [`Filling::write`].
    pub(super) fn add(&mut self, line: &str) {
        self.lines.push_str(line);
        self.count += 1;
    }

    /// Bytes of the lines that were added and not written yet.
    pub(super) fn gathered_bytes(&self) -> usize {
        self.lines.len()
    }

    /// Writes what was added; what cannot be written is lost, and leaves nothing of itself.
    pub(super) fn write(&mut self) {
        if self.count == 0 {
            return;
        }
        let written = self.write_lines();
        if let Err(error) = &written {
            self.spool.count_lost(Lost::Failed, self.count);
            if !self.failing {
                let folder = self.spool.settings.folder.display();
                tracing::warn!(%folder, %error, "lines to be shipped cannot be kept and are lost");
            }
        }
        self.failing = written.is_err();
        self.lines.clear();
        self.count = 0;
        self.close_if_due();
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(Open::new(&self.spool.settings.folder)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(error) = open.file.write_all(self.lines.as_bytes()) {
            // A file that cannot be cut either is closed as a killed process's would be.
            if open.file.set_len(open.bytes).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.lines += self.count;
        open.bytes += self.lines.len() as u64;
        Ok(())
    }

    /// How long until the batch is old enough to be closed; `None` where there is none.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let period = self.spool.settings.batch_period;
        self.open.as_ref().map(|open| period.saturating_sub(open.begun.elapsed()))
    }

    /// Closes the batch if it is full, or old enough.
    pub(super) fn close_if_due(&mut self) {
        let settings = &self.spool.settings;
        let is_due = |open: &Open| {
            open.bytes >= settings.batch_bytes || open.begun.elapsed() >= settings.batch_period
        };
        if self.open.as_ref().is_some_and(is_due) {
            self.close();
        }
    }

    /// Closes the batch, if there is one: from then on it waits to be shipped.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Its name says how much is in it: that is there before the name, whatever loses power.
        let kept = open.file.sync_data();
        let closed = kept.and_then(|()| self.spool.close(&open.stem, open.lines, open.bytes));
        let folder = self.spool.settings.folder.display();
        if let Err(error) = closed {
            tracing::warn!(%folder, %error, "a batch of the log cannot be closed now");
            return;
        }
        match self.spool.found() {
            Ok(found) => self.spool.note_filled(found.batches),
            Err(error) => tracing::warn!(%folder, %error, "the spool of the log cannot be read"),
        }
        self.spool.arrived.notify_one();
    }
}

impl Spool {
    /// The batches that wait, when what processes that are no more were filling is closed.
    pub(super) fn close_what_was_left(&self) -> io::Result<Vec<Batch>> {
        let mut found = self.found()?;
        for name in found.open {
            let stem = name.to_str().and_then(|name| name.strip_suffix(OPEN));
            let Some(stem) = stem.filter(|stem| begun(stem).is_some()) else { continue };
            let left = File::options().read(true).write(true).open(self.path(&name));
            match left.and_then(|file| self.close_left(stem, &file)) {
                Ok(batch) => found.batches.extend(batch),
                // Who filled it has closed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.leave(&name, &error, "that was left cannot be closed"),
            }
        }
        let now_ms = unix_millis(SystemTime::now());
        for name in found.new {
            let stem = name.to_str().and_then(|name| name.strip_suffix(NEW));
            let begun = stem.and_then(begun);
            if begun.is_some_and(|(begun_ms, _)| begun_ms + MADE_WITHIN_MS < now_ms) {
                // Nothing is in it. If it stays, it does no harm.
                let _ = fs::remove_file(self.path(&name));
            }
        }
        Ok(found.batches)
    }

    /// Cuts what was left in `file` to whole lines, and closes it; `None` where somebody still
    /// fills it, or no line is whole.
    ///
    /// # Errors
    /// `NotFound` where who filled it has closed it since `file` was opened.
    pub(super) fn close_left(&self, stem: &str, file: &File) -> io::Result<Option<Batch>> {
        if !take_lock(file)? {
            return Ok(None);
        }
        // By its name, which is another one if it was closed before we had the lock: what is
        // closed is never written again.
        let mut left = BufReader::new(File::open(self.path(format!("{stem}{OPEN}").as_ref()))?);
        let (mut lines, mut whole, mut read) = (0, 0, 0);
        loop {
            let text = left.fill_buf()?;
            if text.is_empty() {
                break;
            }
            lines += text.iter().filter(|byte| **byte == b'\n').count();
            let last = text.iter().rposition(|byte| *byte == b'\n');
            whole = last.map_or(whole, |last| read + last + 1);
            read += text.len();
            let taken = text.len();
            left.consume(taken);
        }
        file.set_len(whole as u64)?;
        self.close(stem, lines as u64, whole as u64)
    }
}

impl Open {
    fn new(folder: &Path) -> io::Result<Open> {
        let stem = format!("{:013}-{}", unix_millis(SystemTime::now()), RequestId::assign());
        let name = |end| folder.join(format!("{stem}{end}"));
        let mut options = File::options();
        let file = options.create_new(true).append(true).mode(0o600).open(name(NEW))?;
        // Under its name only when it is locked: nobody takes it for one that was left.
        file.lock()?;
        fs::rename(name(NEW), name(OPEN))?;
        Ok(Open { file, stem, begun: Instant::now(), lines: 0, bytes: 0 })
    }
}

/// A file that is made so long ago is being made by nobody.
const MADE_WITHIN_MS: u64 = 60_000;
