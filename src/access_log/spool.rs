//! Lines that wait to be shipped: batches in files of one folder, bounded in bytes.
//!
//! A batch is filled by the thread that writes the log. Full or old enough, its file gets a name
//! that says how much is in it, and is never written again, so that it is the same batch however
//! often it is sent. Beyond the bound the oldest go: what is newest is worth most to who looks.
//! Several processes may share a folder, as they do in an upgrade: each holds a lock on the file it
//! fills, and one of them the lock of who ships. What a killed process left is cut to whole lines.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tokio::sync::Notify;

/// Where batches wait, and how large they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Made if it is not there.
    pub folder: PathBuf,
    /// Of the batches that wait together, without the one that is filled.
    pub bytes_max: u64,
    /// A batch is closed when it has these bytes,
    pub batch_bytes: u64,
    /// these lines,
    pub batch_lines: u64,
    /// or is this old.
    pub batch_period: Duration,
}

/// The batches of a folder, and what became of those before them.
#[derive(Debug)]
pub struct Spool {
    pub(super) settings: SpoolSettings,
    /// A batch waits that was not there before.
    pub arrived: Notify,
    /// The batch that is being sent, which must not go.
    sending: Mutex<Option<OsString>>,
    /// Batches that are counted, and whose files would not go: they wait no more.
    stuck: Mutex<BTreeSet<OsString>>,
    /// What processes that are no more were filling, and that cannot be closed: said once.
    pub(super) unclosed: Mutex<BTreeSet<OsString>>,
    /// Lines by what became of them.
    shipped: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    waiting_bytes: AtomicU64,
    waiting_lines: AtomicU64,
    /// When the oldest batch was begun, in milliseconds of Unix time; 0: none waits.
    oldest_ms: AtomicU64,
    failure: Mutex<Failure>,
}

/// What went wrong last with who receives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Since when no batch arrives; `None`: the last one did, or was refused.
    pub since: Option<SystemTime>,
    /// What he answered last that was no good, or why he could not be asked.
    pub last: Option<String>,
}

/// Why lines were not shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was no room: the oldest go.
    Full,
    /// The receiver will not have them.
    Refused,
    /// The spool could not be written or read.
    Failed,
}

impl Lost {
    /// Each with its word.
    pub const ALL: [(Lost, &'static str); 3] =
        [(Lost::Full, "full"), (Lost::Refused, "refused"), (Lost::Failed, "failed")];
}

/// A batch that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    name: OsString,
    begun_ms: u64,
    /// What a receiver knows it by.
    pub id: String,
    /// How many it has.
    pub lines: u64,
    bytes: u64,
}

impl Batch {
    /// `BEGUN-ID-LINES-BYTES.ndjson`; of another name it is none.
    fn of(name: OsString) -> Option<Batch> {
        let parts: Vec<&str> = name.to_str()?.strip_suffix(CLOSED)?.split('-').collect();
        let [begun, id, lines, bytes] = parts.try_into().ok()?;
        let id = id.to_owned();
        let number = |text: &str| text.parse().ok();
        let (begun_ms, lines, bytes) = (number(begun)?, number(lines)?, number(bytes)?);
        Some(Batch { name, begun_ms, id, lines, bytes })
    }

    /// By which the oldest comes first.
    fn place(&self) -> (u64, &OsStr) {
        (self.begun_ms, &self.name)
    }
}

impl Spool {
    /// Takes the folder, and what an earlier process left in it.
    ///
    /// # Errors
    /// It cannot be made, or not be written.
    pub fn open(settings: &SpoolSettings) -> io::Result<Spool> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.folder)?;
        let spool = Spool {
            settings: settings.clone(),
            arrived: Notify::new(),
            sending: Mutex::default(),
            stuck: Mutex::default(),
            unclosed: Mutex::default(),
            shipped: AtomicU64::new(0),
            lost: Default::default(),
            waiting_bytes: AtomicU64::new(0),
            waiting_lines: AtomicU64::new(0),
            oldest_ms: AtomicU64::new(0),
            failure: Mutex::default(),
        };
        spool.take_over()?;
        Ok(spool)
    }

    /// The lock of who ships; `None` while another process holds it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let mut options = File::options();
        let file =
            options.create(true).append(true).mode(0o600).open(self.path("lock".as_ref()))?;
        is_locked(&file).map(|is_ours| is_ours.then_some(file))
    }

    /// The batches that wait, oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn batches(&self) -> io::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for entry in fs::read_dir(&self.settings.folder)? {
            batches.extend(Batch::of(entry?.file_name()));
        }
        let stuck = self.stuck();
        batches.retain(|batch| !stuck.contains(&batch.name));
        drop(stuck);
        batches.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
        let bytes = batches.iter().map(|batch| batch.bytes).sum();
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
        let lines = batches.iter().map(|batch| batch.lines).sum();
        self.waiting_lines.store(lines, Ordering::Relaxed);
        let oldest_ms = batches.first().map_or(0, |batch| batch.begun_ms);
        self.oldest_ms.store(oldest_ms, Ordering::Relaxed);
        Ok(batches)
    }

    /// The oldest batch, or the first one `after` another, if one waits, to be sent: it stays until
    /// [`Spool::shipped`], [`Spool::lose`] or the next one is taken. One that cannot be read, or
    /// has not what its name says, is lost.
    ///
    /// # Errors
    /// The folder cannot be read, or not the batch now.
    pub fn take(&self, after: Option<&Batch>) -> io::Result<Option<(Batch, Vec<u8>)>> {
        self.remove_stuck();
        let mut batches = self.batches()?;
        batches.retain(|batch| after.is_none_or(|after| after.place() < batch.place()));
        for batch in batches {
            *self.sending() = Some(batch.name.clone());
            match fs::read(self.path(&batch.name)) {
                Ok(lines) if lines.len() as u64 == batch.bytes => return Ok(Some((batch, lines))),
                // A power cut left the name and not all that it names.
                Ok(lines) => {
                    let (had, has) = (batch.bytes, lines.len());
                    tracing::warn!(batch = batch.id, had, has, "a batch of the log is not whole");
                    self.lose(&batch, Lost::Failed);
                }
                // It went, and was counted.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_for_ever(&error) => {
                    tracing::warn!(batch = batch.id, %error, "a batch of the log cannot be read");
                    self.lose(&batch, Lost::Failed);
                }
                Err(error) => return Err(error),
            }
        }
        *self.sending() = None;
        Ok(None)
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

    /// Lines that have arrived.
    pub fn shipped_lines(&self) -> u64 {
        self.shipped.load(Ordering::Relaxed)
    }

    /// Lines that never will, by why not.
    pub fn lost_lines(&self) -> [(&'static str, u64); Lost::ALL.len()] {
        Lost::ALL.map(|(why, word)| (word, self.lost[why as usize].load(Ordering::Relaxed)))
    }

    /// Bytes of the batches that wait.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Lines in them.
    pub fn waiting_lines(&self) -> u64 {
        self.waiting_lines.load(Ordering::Relaxed)
    }

    /// A batch has not arrived, and is sent again.
    pub fn note_failing(&self, now: SystemTime, why: &str) {
        let mut failure = self.failed();
        failure.since.get_or_insert(now);
        failure.last = Some(why.to_owned());
    }

    /// A batch has arrived, or `refused` says why it never will.
    pub fn note_answer(&self, refused: Option<String>) {
        let mut failure = self.failed();
        failure.since = None;
        failure.last = refused.or(failure.last.take());
    }

    /// What went wrong last.
    pub fn failure(&self) -> Failure {
        self.failed().clone()
    }

    /// How long ago the oldest of them was begun.
    pub fn age(&self, now: SystemTime) -> Duration {
        match self.oldest_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            oldest => Duration::from_millis(millis(now).saturating_sub(oldest)),
        }
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

    /// Gives what was filled its name.
    pub(super) fn close(&self, stem: &str, lines: u64, bytes: u64) -> io::Result<()> {
        let open = self.path(format!("{stem}{OPEN}").as_ref());
        if lines == 0 {
            return fs::remove_file(open);
        }
        fs::rename(open, self.path(format!("{stem}-{lines}-{bytes}{CLOSED}").as_ref()))?;
        self.make_room()?;
        self.arrived.notify_one();
        Ok(())
    }

    fn make_room(&self) -> io::Result<()> {
        let batches = self.batches()?;
        let mut bytes = self.waiting_bytes();
        for batch in batches {
            if bytes <= self.settings.bytes_max {
                break;
            }
            // Held until it is gone: it must not be taken meanwhile.
            let sending = self.sending();
            if sending.as_deref() != Some(&batch.name) {
                self.lose(&batch, Lost::Full);
                bytes -= batch.bytes;
            }
        }
        self.batches().map(drop)
    }

    pub(super) fn count_lost(&self, why: Lost, lines: u64) {
        let before = self.lost[why as usize].fetch_add(lines, Ordering::Relaxed);
        if why == Lost::Full && before == 0 {
            let folder = self.settings.folder.display();
            tracing::warn!(
                %folder,
                "`log.ship.spool` is full: the oldest lines that wait to be shipped are lost"
            );
        }
    }

    fn sending(&self) -> MutexGuard<'_, Option<OsString>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self) -> MutexGuard<'_, BTreeSet<OsString>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, name: &OsStr) -> PathBuf {
        self.settings.folder.join(name)
    }
}

/// Whether what cannot be read never will: it is no file, or its disk has lost it.
fn is_for_ever(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::InvalidData)
        || Errno::from_io_error(error) == Some(Errno::IO)
}

pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

/// What names of files end with.
pub(super) const NEW: &str = ".new";
pub(super) const OPEN: &str = ".open";
const CLOSED: &str = ".ndjson";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::filling::Filling;
    use super::*;

    fn settings(folder: &Path) -> SpoolSettings {
        SpoolSettings {
            folder: folder.join("spool"),
            bytes_max: 100,
            batch_bytes: 1_000,
            batch_lines: 2,
            batch_period: Duration::from_secs(3_600),
        }
    }

    fn spool(folder: &Path) -> Spool {
        Spool::open(&settings(folder)).unwrap()
    }

    fn filled(filling: &mut Filling<'_>, lines: impl IntoIterator<Item = u32>) {
        for line in lines {
            filling.add(&format!("{line}\n"));
            filling.write();
        }
    }

    /// All that waits, each batch taken and shipped.
    fn shipped(spool: &Spool) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((batch, lines)) = spool.take(None).unwrap() {
            all.push(String::from_utf8(lines).unwrap());
            spool.shipped(&batch);
        }
        all
    }

    #[test]
    fn batches_are_closed_at_so_many_lines_and_leave_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut filling = Filling::of(&spool);
        filled(&mut filling, 0..5);
        assert_eq!(spool.waiting_bytes(), 8);
        assert!(spool.age(SystemTime::now() + Duration::from_secs(9)) >= Duration::from_secs(9));
        assert_eq!(shipped(&spool), ["0\n1\n", "2\n3\n"]);
        filling.close();
        assert_eq!(shipped(&spool), ["4\n"]);
        assert_eq!((spool.shipped_lines(), spool.waiting_bytes()), (5, 0));
        assert_eq!(spool.age(SystemTime::now()), Duration::ZERO);
    }

    #[test]
    fn a_batch_is_the_same_each_time_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let first = {
            let spool = spool(folder.path());
            filled(&mut Filling::of(&spool), 0..2);
            spool.take(None).unwrap().unwrap()
        };
        let spool = spool(folder.path());
        assert_eq!(spool.take(None).unwrap().unwrap(), first);
        assert_eq!(first.0.lines, 2);
    }

    #[test]
    fn beyond_its_bound_the_oldest_go_but_what_is_being_sent() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut filling = Filling::of(&spool);
        filled(&mut filling, 1_000..1_002);
        let (sent, _) = spool.take(None).unwrap().unwrap();
        filled(&mut filling, 1_002..1_100);
        assert_eq!(spool.waiting_bytes(), 100);
        spool.shipped(&sent);
        let left = shipped(&spool);
        assert_eq!((left.len(), &*left[0]), (9, "1082\n1083\n"));
        assert_eq!(spool.lost_lines(), [("full", 80), ("refused", 0), ("failed", 0)]);
        assert_eq!(spool.shipped_lines(), 20);
    }

    #[test]
    fn what_a_killed_process_was_filling_is_cut_to_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(&settings.folder).unwrap();
        let name = |end| settings.folder.join(format!("0000000000007-{}{end}", "a".repeat(32)));
        fs::write(name(OPEN), "1\n2\nto").unwrap();
        let spool = Spool::open(&settings).unwrap();
        let (batch, lines) = spool.take(None).unwrap().unwrap();
        assert_eq!((batch.lines, &*batch.id, &*lines), (2, &*"a".repeat(32), &b"1\n2\n"[..]));
        spool.lose(&batch, Lost::Refused);
        assert_eq!(spool.lost_lines()[1], ("refused", 2));
    }

    #[test]
    fn what_another_process_fills_is_left_to_it_and_one_ships() {
        let folder = tempfile::tempdir().unwrap();
        let one = spool(folder.path());
        let mut filling = Filling::of(&one);
        filled(&mut filling, [1]);
        let other = spool(folder.path());
        assert!(other.take(None).unwrap().is_none());
        let lock = one.lock().unwrap();
        assert!(lock.is_some() && other.lock().unwrap().is_none());
        drop((filling, lock));
        assert!(other.lock().unwrap().is_some());
        other.take_over().unwrap();
        assert_eq!(shipped(&other), ["1\n"]);
    }

    #[test]
    fn a_batch_whose_file_will_not_go_is_counted_once_and_not_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..4);
        let (sent, _) = spool.take(None).unwrap().unwrap();
        let path = spool.path(&sent.name);
        fs::remove_file(&path).unwrap();
        // What cannot be removed as a file, nor be read as one.
        fs::create_dir(&path).unwrap();
        assert!(!spool.shipped(&sent));
        let (next, lines) = spool.take(None).unwrap().unwrap();
        assert_eq!(lines, b"2\n3\n");
        fs::remove_file(spool.path(&next.name)).unwrap();
        fs::create_dir(spool.path(&next.name)).unwrap();
        for _ in 0..2 {
            assert!(spool.take(None).unwrap().is_none());
        }
        assert_eq!((spool.shipped_lines(), spool.waiting_bytes()), (2, 0));
        assert_eq!(spool.lost_lines()[2], ("failed", 2));
        for batch in [&sent, &next] {
            fs::remove_dir(spool.path(&batch.name)).unwrap();
            fs::write(spool.path(&batch.name), "gone").unwrap();
        }
        assert!(spool.take(None).unwrap().is_none());
        assert!(!path.exists(), "removed when it can be");
    }

    #[test]
    fn a_batch_that_is_not_whole_is_lost_and_the_next_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..4);
        let (batch, _) = spool.take(None).unwrap().unwrap();
        fs::write(spool.path(&batch.name), "").unwrap();
        assert_eq!(shipped(&spool), ["2\n3\n"]);
        assert_eq!((spool.lost_lines()[2], spool.shipped_lines()), (("failed", 2), 2));
    }

    #[test]
    fn what_is_closed_while_it_is_looked_at_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let path = spool.path(format!("7-a{OPEN}").as_ref());
        fs::write(&path, "1\n").unwrap();
        let looked_at = File::options().read(true).write(true).open(&path).unwrap();
        spool.close("7-a", 1, 2).unwrap();
        let error = spool.close_left("7-a", &looked_at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(shipped(&spool), ["1\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_closed_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let name = |digit: &str, begun| format!("{begun:013}-{}{OPEN}", digit.repeat(32));
        let path = |digit, begun| settings.folder.join(name(digit, begun));
        for (number, digit) in ["a", "b", "c"].into_iter().enumerate() {
            fs::create_dir_all(&settings.folder).unwrap();
            fs::write(path(digit, number), "1\n").unwrap();
            // What it would be called is taken by what no file can replace.
            if number != 1 {
                let closed = path(digit, number).to_string_lossy().replace(OPEN, "-1-2.ndjson");
                fs::create_dir(closed).unwrap();
            }
        }
        let spool = Spool::open(&settings).unwrap();
        spool.take_over().unwrap();
        assert!(!path("b", 1).exists() && path("a", 0).exists() && path("c", 2).exists());
        assert_eq!(spool.unclosed.lock().unwrap().len(), 2);
    }

    #[test]
    fn files_of_others_are_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(&settings.folder).unwrap();
        let stem = format!("0000000000007-{}", "a".repeat(32));
        let others: [&str; 6] =
            ["notes", "7-a", "-", &stem[1..], &format!("{stem}-1"), &stem.replace('a', "g")];
        for name in others {
            fs::write(settings.folder.join(format!("{name}{OPEN}")), "1\nto").unwrap();
        }
        let spool = Spool::open(&settings).unwrap();
        for name in others {
            let text = fs::read(spool.path(format!("{name}{OPEN}").as_ref())).unwrap();
            assert_eq!(text, b"1\nto", "{name}");
        }
        assert!(spool.batches().unwrap().is_empty());
    }

    #[test]
    fn a_batch_is_lost_only_for_what_will_not_pass() {
        let of = |error: Errno| is_for_ever(&error.into());
        assert!([Errno::ISDIR, Errno::IO].into_iter().all(of));
        let passing = [Errno::ACCESS, Errno::PERM, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        assert!(!passing.into_iter().any(of));
        assert!(is_for_ever(&ErrorKind::InvalidData.into()));
    }

    #[test]
    fn lines_that_cannot_be_kept_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        fs::remove_dir_all(folder.path().join("spool")).unwrap();
        let mut filling = Filling::of(&spool);
        filled(&mut filling, 0..3);
        assert_eq!(spool.lost_lines()[2], ("failed", 3));
        fs::create_dir(folder.path().join("spool")).unwrap();
        filled(&mut filling, 3..5);
        assert_eq!(shipped(&spool), ["3\n4\n"]);
    }
}
