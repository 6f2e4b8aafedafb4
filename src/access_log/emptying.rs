//! Empties the spool: takes batches to be sent, and lets go of what has arrived or is lost.
//!
//! A batch that cannot be read, or has no room in memory, holds up no other. Which errors are for
//! ever, and which are those of the machine rather than of the file, is said here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::spool::{Batch, Lost, Spool};
use crate::limits::SHIPPING_BATCHES_MAX;

/// A batch to be sent.
#[derive(Debug)]
pub struct TakenBatch {
    /// Which.
    pub batch: Batch,
    /// What is in it.
    pub lines: Vec<u8>,
}

impl Spool {
    /// The oldest batch, or the first one `after` another, if one waits, to be sent: it stays until
    /// [`Spool::shipped`], [`Spool::lose`] or the next one is taken. One that has not what its name
    /// says, or never can be read, is lost; one that cannot be read otherwise, or is larger than
    /// any that is filled now, waits, and the next is taken. For who holds the lock alone: what was
    /// left is closed first, and what is beyond the bounds lost.
    ///
    /// # Errors
    /// The folder cannot be read, or nothing now: so it is with the machine.
    pub fn take(&self, after: Option<&Batch>) -> io::Result<Option<TakenBatch>> {
        self.remove_stuck();
        let mut batches = self.make_room(self.close_what_was_left()?);
        batches.retain(|batch| after.is_none_or(|after| after.place() < batch.place()));
        let mut taken = Ok(None);
        for batch in batches {
            if batch.bytes > self.settings.batch_bytes_max() {
                let why = "waits until `log.ship.batch.bytes` is raised again";
                self.leave(&batch.name, &no_room(batch.bytes), why);
                continue;
            }
            *self.sending() = Some(batch.name.clone());
            match self.read(&batch) {
                Ok(Some(lines)) => return Ok(Some(TakenBatch { batch, lines })),
                // A power cut left the name and not all that it names.
                Ok(None) => {
                    let (had, id) = (batch.bytes, &*batch.id);
                    tracing::warn!(batch = id, had, "a batch of the log is not whole");
                    self.lose(&batch, Lost::Failed);
                }
                // It went, and was counted.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_for_ever(&error) => {
                    tracing::warn!(batch = batch.id, %error, "a batch of the log cannot be read");
                    self.lose(&batch, Lost::Failed);
                }
                Err(error) if is_of_now(&error) => {
                    taken = Err(error);
                    break;
                }
                Err(error) => self.leave(&batch.name, &error, "cannot be read, and waits"),
            }
        }
        *self.sending() = None;
        taken
    }

    /// What is in it; `None`: not what its name says.
    fn read(&self, batch: &Batch) -> io::Result<Option<Vec<u8>>> {
        let file = File::open(self.path(&batch.name))?;
        let mut lines = Vec::with_capacity(batch.bytes as usize);
        if file.metadata()?.len() == batch.bytes {
            file.take(batch.bytes).read_to_end(&mut lines)?;
        }
        Ok((lines.len() as u64 == batch.bytes).then_some(lines))
    }

    /// A file is of no use now, and left; said once.
    pub(super) fn leave(&self, name: &OsStr, error: &io::Error, why: &str) {
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        if unusable.len() >= SHIPPING_BATCHES_MAX {
            unusable.clear();
        }
        if unusable.insert(name.to_owned()) {
            let file = self.path(name);
            tracing::warn!(file = %file.display(), %error, "a batch of the log {why}");
        }
    }

    /// It has arrived. Whether its file went: if not, it waits no more, but does after a restart.
    pub fn shipped(&self, batch: &Batch) -> bool {
        self.remove(batch, |lines| {
            self.shipped.fetch_add(lines, Ordering::Relaxed);
        })
    }

    /// It never will; like [`Spool::shipped`].
    pub fn lose(&self, batch: &Batch, why: Lost) -> bool {
        self.remove(batch, |lines| self.count_lost(why, lines))
    }

    /// Counts it if it was there, and removes its file.
    fn remove(&self, batch: &Batch, count: impl FnOnce(u64)) -> bool {
        match fs::remove_file(self.path(&batch.name)) {
            Ok(()) => count(batch.lines),
            // It went, and was counted.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                if self.stuck().insert(batch.name.clone()) {
                    count(batch.lines);
                    let batch = &*batch.id;
                    tracing::warn!(batch, %error, "a batch of the log cannot be removed");
                }
                return false;
            }
        }
        true
    }

    /// Removes what could not be removed, up to the first that still cannot.
    fn remove_stuck(&self) {
        let mut stuck = self.stuck();
        while let Some(name) = stuck.first() {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => break,
                _ => stuck.pop_first(),
            };
        }
    }
}

/// Whether what cannot be read never will: it is no file, or its disk has lost it.
fn is_for_ever(error: &io::Error) -> bool {
    let lost = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::LOOP];
    matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::InvalidData)
        || Errno::from_io_error(error).is_some_and(|errno| lost.contains(&errno))
}

/// Whether nothing can be read now, whatever it is.
fn is_of_now(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::Interrupted)
        || errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

fn no_room(bytes: u64) -> io::Error {
    io::Error::other(format!("there is no memory for {bytes} bytes: another setting filled it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_lost_only_for_what_will_not_pass() {
        let of = |error: Errno| is_for_ever(&error.into());
        let lasting = [Errno::ISDIR, Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::LOOP];
        assert!(lasting.into_iter().all(of) && is_for_ever(&ErrorKind::InvalidData.into()));
        let now = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
        assert!(now.into_iter().all(|error| is_of_now(&error.into()) && !of(error)));
        let its_own = [Errno::ACCESS, Errno::PERM, Errno::NXIO];
        assert!(its_own.into_iter().all(|error| !is_of_now(&error.into()) && !of(error)));
    }
}
