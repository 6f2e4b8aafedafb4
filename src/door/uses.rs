//! Which tokens were used for what, of those that may be used once for each URI (`jti`).
//!
//! What was used is known at once, and written soon after by a thread of its own to a file that
//! only grows: 32 bytes for each use, read again at the next start, and by a process beside this
//! one while both serve. A kill costs nothing that was written, a power cut the last seconds. There
//! are so many at most: of more, and where they cannot be written, tokens that have to be
//! remembered are refused (RFC 9246 section 2.1.7).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{TOKEN_USES_MAX, TOKEN_USES_WAITING_MAX};
use crate::token::uri_signing::Use;

/// What was used.
#[derive(Debug, Default)]
pub struct Uses {
    /// When each is forgotten, in seconds since 1970.
    known: Mutex<HashMap<u128, u64>>,
    /// To whoever writes; nobody, where they cannot be written.
    writer: Option<SyncSender<Record>>,
    has_failed: AtomicBool,
}

type Record = [u8; RECORD_BYTES];

impl Uses {
    /// None can be remembered.
    pub fn nowhere() -> Arc<Uses> {
        Arc::default()
    }

    /// Those in a file, which is made if it is not there; and of this process from now on.
    ///
    /// # Errors
    /// It cannot be read or written, or there is no thread to be had.
    pub fn start(path: &Path, now: SystemTime) -> io::Result<Arc<Uses>> {
        let opened =
            || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = opened()?;
        let mut known = HashMap::new();
        let (now, mut read) = (seconds(now), Reader::default());
        let written = read.read(&mut file, |digest, until| {
            known.insert(digest, until);
        })?;
        known.retain(|_, until| *until > now);
        // Whoever else serves writes to the file that is there.
        let is_alone = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_alone && written > 2 * known.len() as u64 + COMPACTED_FROM {
            compact(path, &known)?;
            file = opened()?;
            read = Reader::default();
            read.read(&mut file, |_, _| {})?;
        }
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        let (writer, records) = sync_channel(TOKEN_USES_WAITING_MAX);
        let (known, writer) = (Mutex::new(known), Some(writer));
        let uses = Arc::new(Uses { known, writer, has_failed: AtomicBool::new(false) });
        let (weak, path) = (Arc::downgrade(&uses), path.to_owned());
        let log = Log { path, file, read };
        let write = move || log.write(&records, &weak);
        thread::Builder::new().name("token-uses".to_owned()).spawn(write)?;
        Ok(uses)
    }

    /// Whether this is the first time a token of `site` is used for that; remembers it.
    pub(super) fn is_first(&self, site: &str, used: &Use<'_>, now: Duration) -> bool {
        let Some(writer) = &self.writer else { return false };
        if self.has_failed.load(Ordering::Relaxed) {
            return false;
        }
        let digest = digest(site, used);
        let now = now.as_secs();
        let until = used.expires.map_or(now + KEPT_SECONDS, |expires| expires.ceil() as u64);
        let mut known = self.known();
        if known.get(&digest).is_some_and(|until| *until > now) {
            return false;
        }
        if known.len() >= TOKEN_USES_MAX {
            known.retain(|_, until| *until > now);
            if known.len() >= TOKEN_USES_MAX {
                return false;
            }
        }
        // What cannot be written would be forgotten.
        let is_told = writer.try_send(record(digest, until)).is_ok();
        if is_told {
            known.insert(digest, until);
        }
        is_told
    }

    fn learn(&self, digest: u128, until: u64) {
        let mut known = self.known();
        if known.len() < TOKEN_USES_MAX || known.contains_key(&digest) {
            known.insert(digest, until);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u128, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, with whoever writes it.
struct Log {
    path: PathBuf,
    file: File,
    read: Reader,
}

impl Log {
    /// Writes what comes, and learns what others write, until nobody uses tokens any more.
    fn write(mut self, records: &Receiver<Record>, uses: &Weak<Uses>) {
        let mut batch = Vec::new();
        loop {
            match records.recv_timeout(LOOKED_EVERY) {
                Ok(record) => batch.extend(record),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(records.try_iter().flatten());
            let written = self.exchange(&mut batch);
            let Some(uses) = uses.upgrade() else { return };
            uses.has_failed.store(written.is_err(), Ordering::Relaxed);
            match written {
                Ok(all) => all.into_iter().for_each(|(digest, until)| uses.learn(digest, until)),
                Err(error) => {
                    let path = self.path.display();
                    tracing::error!("{path}: {error}; tokens that may be used once are refused");
                    thread::sleep(FAILED_PAUSE);
                }
            }
        }
    }

    /// Writes the batch; what has been written since the last time, by whomever.
    fn exchange(&mut self, batch: &mut Vec<u8>) -> io::Result<Vec<(u128, u64)>> {
        if !batch.is_empty() {
            // Behind one that is not whole all would be.
            let odd = self.file.metadata()?.len() as usize % RECORD_BYTES;
            let filler = [0; RECORD_BYTES];
            self.file.write_all(&filler[..(RECORD_BYTES - odd) % RECORD_BYTES])?;
            self.file.write_all(batch)?;
            batch.clear();
        }
        let mut all = Vec::new();
        self.read.read(&mut self.file, |digest, until| all.push((digest, until)))?;
        Ok(all)
    }
}

/// Reads records from where it last came to.
#[derive(Default)]
struct Reader {
    at_bytes: u64,
}

impl Reader {
    /// How many records it has read; one that is not whole is read the next time, one that is
    /// damaged is passed over.
    fn read(&mut self, file: &mut File, mut learn: impl FnMut(u128, u64)) -> io::Result<u64> {
        let bytes = file.metadata()?.len().saturating_sub(self.at_bytes);
        let whole = bytes / RECORD_BYTES as u64;
        file.seek(SeekFrom::Start(self.at_bytes))?;
        let mut from = io::BufReader::new(file).take(whole * RECORD_BYTES as u64);
        let mut bytes = [0; RECORD_BYTES];
        for _ in 0..whole {
            from.read_exact(&mut bytes)?;
            if let Some((digest, until)) = read(&bytes) {
                learn(digest, until);
            }
        }
        self.at_bytes += whole * RECORD_BYTES as u64;
        Ok(whole)
    }
}

/// Writes only what counts yet.
fn compact(path: &Path, known: &HashMap<u128, u64>) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    let mut bytes = Vec::with_capacity(known.len() * RECORD_BYTES);
    known.iter().for_each(|(digest, until)| bytes.extend(record(*digest, *until)));
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(next, path)
}

/// Digest, until, checksum.
fn record(digest: u128, until: u64) -> Record {
    let mut record = [0; RECORD_BYTES];
    record[..16].copy_from_slice(&digest.to_le_bytes());
    record[16..24].copy_from_slice(&until.to_le_bytes());
    let sum = xxh3_64(&record[..24]);
    record[24..].copy_from_slice(&sum.to_le_bytes());
    record
}

fn read(record: &Record) -> Option<(u128, u64)> {
    let number = |range: std::ops::Range<usize>| record[range].try_into().map(u64::from_le_bytes);
    let is_whole = number(24..32).is_ok_and(|sum| sum == xxh3_64(&record[..24]));
    let digest = record[..16].try_into().map(u128::from_le_bytes).ok()?;
    Some((digest, number(16..24).ok()?)).filter(|_| is_whole)
}

/// Each part with its length, so that no two uses are told apart by where one ends alone.
fn digest(site: &str, used: &Use<'_>) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in [site, used.issuer, used.id, used.uri] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let half = digest.as_ref()[..16].try_into().expect("SHA-256 has more bytes");
    u128::from_le_bytes(half)
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const RECORD_BYTES: usize = 32;
/// So many that do not count any more may lie there.
const COMPACTED_FROM: u64 = 4_096;
/// One that does not expire is remembered for 30 days.
const KEPT_SECONDS: u64 = 30 * 86_400;
/// How soon what another process was shown is known here.
const LOOKED_EVERY: Duration = Duration::from_millis(100);
const FAILED_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn used(uri: &str) -> Use<'_> {
        Use { issuer: "i", id: "one", uri, expires: Some(NOW.as_secs_f64() + 60.5) }
    }

    fn start(path: &Path, now: Duration) -> Arc<Uses> {
        Uses::start(path, UNIX_EPOCH + now).unwrap()
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is so in vain");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_use_is_the_first_once_and_again_when_it_has_expired() {
        let folder = tempfile::tempdir().unwrap();
        let uses = start(&folder.path().join("uses"), NOW);
        let is_first = |uri, now| uses.is_first("film", &used(uri), now);
        assert!(is_first("a", NOW));
        assert!(!is_first("a", NOW));
        assert!(is_first("b", NOW), "for each URI by itself");
        assert!(uses.is_first("other", &used("a"), NOW), "for each site by itself");
        assert!(!is_first("a", NOW + Duration::from_secs(60)));
        assert!(is_first("a", NOW + Duration::from_secs(61)));
    }

    #[test]
    fn what_was_used_is_known_after_a_restart_and_to_a_process_beside_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        let (one, other) = (start(&path, NOW), start(&path, NOW));
        assert!(one.is_first("film", &used("a"), NOW));
        wait_until(|| other.known().len() == 1);
        assert!(!other.is_first("film", &used("a"), NOW));
        assert!(other.is_first("film", &used("b"), NOW));
        wait_until(|| std::fs::metadata(&path).unwrap().len() == 2 * RECORD_BYTES as u64);
        drop((one, other));
        // A record that was cut off, and one of zeros.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[0; RECORD_BYTES]).unwrap();
        file.write_all(&[1; 7]).unwrap();
        let again = start(&path, NOW);
        assert!(!again.is_first("film", &used("a"), NOW));
        assert!(!again.is_first("film", &used("b"), NOW));
        assert!(again.is_first("film", &used("c"), NOW));
        wait_until(|| std::fs::metadata(&path).unwrap().len() == 5 * RECORD_BYTES as u64);
        assert!(!start(&path, NOW).is_first("film", &used("c"), NOW));
    }

    #[test]
    fn what_has_expired_is_written_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        let bytes: Vec<u8> = (0..10_000_u64)
            .flat_map(|number| record(number.into(), NOW.as_secs() + number % 2))
            .collect();
        std::fs::write(&path, bytes).unwrap();
        let uses = start(&path, NOW);
        assert_eq!(uses.known().len(), 5_000);
        drop(uses);
        // No process has the file any more once its thread has ended.
        wait_until(|| {
            drop(start(&path, NOW + Duration::from_secs(2)));
            std::fs::metadata(&path).unwrap().len() == 0
        });
    }

    #[test]
    fn what_cannot_be_remembered_is_no_first_use() {
        assert!(!Uses::nowhere().is_first("film", &used("a"), NOW));
        let missing = Path::new("/nowhere/uses");
        assert!(Uses::start(missing, UNIX_EPOCH + NOW).is_err());
    }

    #[test]
    fn uses_are_bounded_and_those_that_expired_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let uses = start(&folder.path().join("uses"), NOW);
        let fill = |until| {
            let all = (0..TOKEN_USES_MAX as u128).map(|digest| (digest, until)).collect();
            *uses.known() = all;
        };
        fill(NOW.as_secs() + 1);
        assert!(!uses.is_first("film", &used("a"), NOW));
        fill(NOW.as_secs());
        assert!(uses.is_first("film", &used("a"), NOW));
    }
}
