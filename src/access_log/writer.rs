//! The thread that writes the access log: lines from a bounded channel, in batches, to one file and
//! to the spool.
//!
//! Only this thread ever waits for the file. What cannot be written is counted as dropped and not
//! tried again; a line torn by a failed write is closed, so that the next one stands alone.

use std::io;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::filling::Filling;
use super::output::Output;
use super::{Message, Shared};

/// Lines are gathered up to here for one write.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// Between two batches: to be woken for each line would cost more than to write it.
const BATCH_PAUSE: Duration = Duration::from_millis(5);

/// Writes until it is told to end or every log handle is gone.
pub(super) fn run(receiver: &Receiver<Message>, output: Output, shared: &Shared) {
    let filling = shared.spool.as_deref().map(Filling::of);
    let mut writer = Writer { output, shared, filling, batch: String::new(), failing: false };
    while let Some(first) = writer.next(receiver) {
        writer.gather(first, receiver);
        // More waits then, and it must not wait for the pause.
        let full = writer.is_full();
        writer.write_batch();
        if shared.reopening() {
            writer.reopen();
        }
        if !full && !shared.ending() {
            thread::sleep(BATCH_PAUSE);
        }
    }
    writer.filling.iter_mut().for_each(Filling::close);
}

struct Writer<'a> {
    output: Output,
    shared: &'a Shared,
    /// `None` where nothing is shipped.
    filling: Option<Filling<'a>>,
    batch: String,
    /// The last write failed: the next failure is no news.
    failing: bool,
}

impl Writer<'_> {
    /// Asked to end, it writes what waits but waits for nothing more.
    fn next(&mut self, receiver: &Receiver<Message>) -> Option<Message> {
        if self.shared.ending() {
            return receiver.try_recv().ok();
        }
        while let Some(filling) = &mut self.filling
            && let Some(due_in) = filling.due_in()
        {
            match receiver.recv_timeout(due_in) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => filling.close_if_due(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        receiver.recv().ok()
    }

    fn reopen(&mut self) {
        let next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match next {
            Some(next) => self.output = next,
            None => self.output.reopen(),
        }
    }

    /// Takes what waits, up to one batch.
    fn gather(&mut self, first: Message, receiver: &Receiver<Message>) {
        let mut lines = Vec::new();
        let mut next = Some(first);
        let client_bits = self.shared.discretion.personal().client_bits;
        while let Some(message) = next {
            if let Message::Line(line) = message {
                self.shared.taken(&line);
                self.output.format.write(&line, client_bits, &mut self.batch);
                self.filling.iter_mut().for_each(|filling| filling.add(&line.text));
                if self.shared.latest.is_some() {
                    lines.push(line);
                }
            }
            next = if self.is_full() { None } else { receiver.try_recv().ok() };
        }
        if let Some(latest) = &self.shared.latest {
            latest.remember(&lines);
        }
    }

    /// Whether what is gathered is written before more is.
    fn is_full(&self) -> bool {
        let shipped_bytes = self.filling.as_ref().map_or(0, Filling::gathered_bytes);
        self.batch.len().max(shipped_bytes) >= BATCH_BYTES_MAX
    }

    fn write_batch(&mut self) {
        if !self.batch.is_empty() {
            self.output.move_if_due(SystemTime::now(), self.batch.len());
            let (lost, result) = self.output.write(&self.batch);
            self.shared.drop_lines(lost);
            self.report(result);
        }
        self.batch.clear();
        self.filling.iter_mut().for_each(Filling::write);
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
