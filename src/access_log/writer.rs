//! The thread that writes the access log: lines from a bounded channel, in batches, to one file.
//!
//! Only this thread ever waits for the file. What cannot be written is counted as dropped and not
//! tried again; a line torn by a failed write is closed, so that the next one stands alone.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use super::{AccessLogError, Destination, Message, Shared};

/// Lines are gathered up to here for one write.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// Between two batches: to be woken for each line would cost more than to write it.
const BATCH_PAUSE: Duration = Duration::from_millis(5);
/// Between two attempts at a file that would block although it should not.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where lines go.
pub(super) struct Output {
    /// `None` when only the status page reads the lines.
    file: Option<Box<dyn Write + Send>>,
    /// What to open again; `None` when that makes no sense.
    path: Option<PathBuf>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Output {
    /// Opens the destination.
    pub(super) fn open(destination: &Destination) -> Result<Output, AccessLogError> {
        match destination {
            Destination::Off => Ok(Output { file: None, path: None }),
            Destination::Stdout => {
                // Unbuffered: a batch is one write, and its failure is known.
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|source| AccessLogError::Stdout { source })?;
                Ok(Output::to(File::from(stdout)))
            }
            Destination::File(path) => {
                let file = open_file(path)
                    .map_err(|source| AccessLogError::Open { path: path.clone(), source })?;
                Ok(Output { file: Some(Box::new(file)), path: Some(path.clone()) })
            }
        }
    }

    /// Writes to `file`.
    pub(super) fn to(file: impl Write + Send + 'static) -> Output {
        Output { file: Some(Box::new(file)), path: None }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open_file(path) {
            Ok(file) => self.file = Some(Box::new(file)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "access log could not be reopened");
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Addresses of viewers are nobody else's business.
    File::options().append(true).create(true).mode(0o640).open(path)
}

/// Writes until it is told to end or every log handle is gone.
pub(super) fn run(receiver: &Receiver<Message>, output: Output, shared: &Shared) {
    let mut writer = Writer { output, shared, batch: Vec::new(), torn: false, failing: false };
    // Asked to end, it writes what waits but waits for nothing more.
    let next = || if shared.ending() { receiver.try_recv().ok() } else { receiver.recv().ok() };
    while let Some(first) = next() {
        writer.gather(first, receiver);
        // More waits then, and it must not wait for the pause.
        let full = writer.batch.len() >= BATCH_BYTES_MAX;
        writer.write_batch();
        if shared.reopening() {
            writer.reopen();
        }
        if !full && !shared.ending() {
            thread::sleep(BATCH_PAUSE);
        }
    }
}

struct Writer<'a> {
    output: Output,
    shared: &'a Shared,
    batch: Vec<u8>,
    /// The last byte written was not a line feed.
    torn: bool,
    /// The last write failed: the next failure is no news.
    failing: bool,
}

impl Writer<'_> {
    fn reopen(&mut self) {
        let next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match next {
            Some(next) => (self.output, self.torn) = (next, false),
            None => self.output.reopen(),
        }
    }

    /// Takes what waits, up to one batch.
    fn gather(&mut self, first: Message, receiver: &Receiver<Message>) {
        let mut lines = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            if let Message::Line(line) = message {
                self.shared.taken(&line);
                self.batch.extend_from_slice(line.text.as_bytes());
                if self.shared.latest.is_some() {
                    lines.push(line);
                }
            }
            let full = self.batch.len() >= BATCH_BYTES_MAX;
            next = if full { None } else { receiver.try_recv().ok() };
        }
        if let Some(latest) = &self.shared.latest {
            latest.remember(&lines);
        }
    }

    fn write_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        if let Some(file) = &mut self.output.file
            && !batch.is_empty()
        {
            if self.torn {
                batch.insert(0, b'\n');
            }
            let (written, result) = write_what_goes(file, &batch);
            if written > 0 {
                self.torn = batch[written - 1] != b'\n';
            }
            let lost = batch[written..].iter().filter(|byte| **byte == b'\n').count();
            self.shared.drop_lines(lost as u64);
            self.report(result);
        }
        batch.clear();
        self.batch = batch;
    }

    fn report(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) if self.failing => tracing::info!("access log is written again"),
            Err(ref error) if !self.failing => {
                tracing::warn!(%error, "access log cannot be written: lines are dropped");
            }
            _ => {}
        }
        self.failing = result.is_err();
    }
}

/// Like `write_all`, but tells how far it came.
fn write_what_goes(file: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Someone who shares our stdout has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(WOULD_BLOCK_PAUSE);
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
