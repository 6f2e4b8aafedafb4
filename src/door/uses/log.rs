//! The file of what was used: it grows by 40 bytes for each use, and is written anew when most of
//! it does not count any more and nobody else has it.
//!
//! A kill costs nothing that was written, a power cut what the system had not written yet. A record
//! that is not whole, or damaged, is passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_64;

use super::{Owner, Used, Uses, seconds};

/// The file, open, and what of it has been read.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    read_bytes: u64,
    /// How long it may become before it is written anew.
    compacted_from_bytes: u64,
}

impl Log {
    /// Opens a file, or makes it, and reads all that is in it.
    ///
    /// # Errors
    /// It cannot be.
    pub(super) fn open(path: &Path, learn: impl FnMut(Used)) -> io::Result<Log> {
        let (path, file) = (path.to_owned(), shared(path)?);
        let compacted_from_bytes = COMPACTED_FROM_BYTES;
        let mut log = Log { path, file, read_bytes: 0, compacted_from_bytes };
        log.read(learn)?;
        Ok(log)
    }

    /// Writes what comes, and learns what others write, until nobody uses tokens any more.
    pub(super) fn write(mut self, waiting: &Receiver<Used>, uses: &Weak<Uses>) {
        let mut batch = Vec::new();
        loop {
            match waiting.recv_timeout(LOOKED_EVERY) {
                Ok(used) => batch.extend(record(&used)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(waiting.try_iter().flat_map(|used| record(&used)));
            let Some(uses) = uses.upgrade() else { return };
            let written = self.exchange(&mut batch).and_then(|all| {
                uses.learn(&all, seconds(SystemTime::now()));
                self.compact(&uses)
            });
            uses.has_failed.store(written.is_err(), Ordering::Relaxed);
            if let Err(error) = written {
                let path = self.path.display();
                tracing::error!("{path}: {error}; tokens that may be used once are refused");
                thread::sleep(FAILED_PAUSE);
            }
        }
    }

    /// Writes the batch; what has been written since the last time, by whomever.
    fn exchange(&mut self, batch: &mut Vec<u8>) -> io::Result<Vec<Used>> {
        if !batch.is_empty() {
            // Behind one that is not whole all would be.
            let odd = self.file.metadata()?.len() as usize % RECORD_BYTES;
            let filler = [0; RECORD_BYTES];
            self.file.write_all(&filler[..(RECORD_BYTES - odd) % RECORD_BYTES])?;
            self.file.write_all(batch)?;
            batch.clear();
        }
        let mut all = Vec::new();
        self.read(|used| all.push(used))?;
        Ok(all)
    }

    fn read(&mut self, mut learn: impl FnMut(Used)) -> io::Result<()> {
        let bytes = self.file.metadata()?.len().saturating_sub(self.read_bytes);
        let whole = bytes / RECORD_BYTES as u64;
        self.file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut from = BufReader::new(&self.file).take(whole * RECORD_BYTES as u64);
        let mut bytes = [0; RECORD_BYTES];
        for _ in 0..whole {
            from.read_exact(&mut bytes)?;
            read(&bytes).into_iter().for_each(&mut learn);
            self.read_bytes += RECORD_BYTES as u64;
        }
        Ok(())
    }

    /// Writes only what counts yet, if that is little of what is there and nobody else has it.
    /// Where that fails, what is there is as good as before, and grows.
    fn compact(&mut self, uses: &Uses) -> io::Result<()> {
        if self.read_bytes < self.compacted_from_bytes {
            return Ok(());
        }
        let now = seconds(SystemTime::now());
        let kept = uses.kept(now);
        let bytes: Vec<u8> = kept.iter().flat_map(record).collect();
        if self.read_bytes < 2 * bytes.len() as u64 {
            return Ok(());
        }
        if flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            flock(&self.file, FlockOperation::NonBlockingLockShared)?;
            return Ok(());
        }
        if let Err(error) = self.write_anew(&bytes) {
            flock(&self.file, FlockOperation::NonBlockingLockShared)?;
            self.compacted_from_bytes = self.read_bytes + COMPACTED_FROM_BYTES;
            tracing::warn!("{}: it cannot be written anew: {error}", self.path.display());
        }
        Ok(())
    }

    fn write_anew(&mut self, bytes: &[u8]) -> io::Result<()> {
        let next = self.path.with_extension("next");
        fs::remove_file(&next).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut file = opened(&next)?;
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        // The lock of the one before goes with it: who waits for that looks again.
        (self.file, self.read_bytes) = (file, bytes.len() as u64);
        self.compacted_from_bytes = COMPACTED_FROM_BYTES;
        Ok(())
    }
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// The file that has the name, as long as it is not replaced.
fn shared(path: &Path) -> io::Result<File> {
    let mut tries = 0;
    loop {
        let file = opened(path)?;
        tries += 1;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let (held, named) = (file.metadata()?, fs::metadata(path)?);
                if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
                    return Ok(file);
                }
            }
            Err(error) if tries == TRIES_MAX => return Err(error.into()),
            Err(_) => {}
        }
        thread::sleep(TRIED_EVERY);
    }
}

/// Digest, until, owner, checksum.
fn record(used: &Used) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..16].copy_from_slice(&used.digest.to_le_bytes());
    record[16..24].copy_from_slice(&used.until.to_le_bytes());
    record[24..28].copy_from_slice(&used.owner.site.to_le_bytes());
    record[28..32].copy_from_slice(&used.owner.token.to_le_bytes());
    let sum = xxh3_64(&record[..32]);
    record[32..].copy_from_slice(&sum.to_le_bytes());
    record
}

fn read(record: &[u8; RECORD_BYTES]) -> Option<Used> {
    let (said, sum) = record.split_last_chunk::<8>()?;
    let (digest, rest) = said.split_first_chunk::<16>()?;
    let (until, rest) = rest.split_first_chunk::<8>()?;
    let (site, token) = rest.split_first_chunk::<4>()?;
    let owner =
        Owner { site: u32::from_le_bytes(*site), token: u32::from_le_bytes(*token.first_chunk()?) };
    let (digest, until) = (u128::from_le_bytes(*digest), u64::from_le_bytes(*until));
    (u64::from_le_bytes(*sum) == xxh3_64(said)).then_some(Used { digest, until, owner })
}

const RECORD_BYTES: usize = 40;
const COMPACTED_FROM_BYTES: u64 = 1 << 20;
/// How soon what another process was shown is known here.
const LOOKED_EVERY: Duration = Duration::from_millis(100);
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Whoever writes it anew does so within a moment.
const TRIED_EVERY: Duration = Duration::from_millis(20);
const TRIES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_anew_goes_on_as_it_is_until_it_has_grown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        fs::write(&path, vec![0; 2 << 20]).unwrap();
        let next = path.with_extension("next");
        fs::create_dir(&next).unwrap();
        let uses = Uses::nowhere();
        let mut log = Log::open(&path, drop).unwrap();
        let length = |log: &Log| log.file.metadata().unwrap().len();
        log.compact(&uses).unwrap();
        assert!(length(&log) > 2_000_000);
        assert!(shared(&path).is_ok(), "it is not kept from others");
        fs::remove_dir(&next).unwrap();
        log.compact(&uses).unwrap();
        assert!(length(&log) > 2_000_000, "it is not tried each time");
        let mut batch = vec![0; 1 << 20];
        log.exchange(&mut batch).unwrap();
        log.compact(&uses).unwrap();
        assert_eq!(length(&log), 0);
    }
}
