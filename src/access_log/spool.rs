//! Lines that wait to be shipped: batches in files of one folder, bounded in bytes and number.
//!
//! A batch is filled by the thread that writes the log. Full or old enough, its file gets a name
//! that says how much is in it, and is never written again, so that it is the same batch however
//! often it is sent. Beyond a bound the oldest go: what is newest is worth most to who looks.
//! Several processes may share a folder, as they do in an upgrade: each holds a lock on the file it
//! fills, and one of them the lock of who ships. Who only looks removes nothing, nor does one that
//! another follows. What a killed process left is cut to whole lines.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::limits::{
    ACCESS_LOG_BYTES_WAITING_MAX, ACCESS_LOG_WRITE_BYTES_MAX, SHIPPING_BATCH_BYTES_MAX,
    SHIPPING_BATCHES_MAX,
};
use crate::moment::unix_millis;

/// Where batches wait, and how large they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Made if it is not there.
    pub folder: PathBuf,
    /// Of the batches that wait together, without the one that is filled.
    pub bytes_max: u64,
    /// A batch is closed when it has these bytes,
    pub batch_bytes: u64,
    /// or is this old.
    pub batch_period: Duration,
}

impl SpoolSettings {
    /// No batch that is filled by these has more bytes: it is closed after the write that fills it.
    pub fn batch_bytes_max(&self) -> u64 {
        self.batch_bytes + ACCESS_LOG_WRITE_BYTES_MAX
    }
}

/// The batches of a folder, and what became of those before them.
#[derive(Debug)]
pub struct Spool {
    pub(super) settings: SpoolSettings,
    /// A batch waits that was not there before.
    pub arrived: Notify,
    /// The batch that is being sent, which must not go.
    sending: Mutex<Option<OsString>>,
    /// Another process ships what comes here, or may: that one makes room.
    followed: AtomicBool,
    /// Batches that are counted, and whose files would not go: they wait no more.
    stuck: Mutex<BTreeSet<OsString>>,
    /// Files that cannot be closed or read, and are left: each was said once.
    pub(super) unusable: Mutex<BTreeSet<OsString>>,
    /// Lines by what became of them.
    pub(super) shipped: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    waiting_bytes: AtomicU64,
    waiting_lines: AtomicU64,
    /// When the oldest batch was begun, in milliseconds of Unix time; 0: none waits.
    oldest_ms: AtomicU64,
    failure: Mutex<Failure>,
}

/// Whether who receives batches takes them now, and what he said when he last took none.
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
    /// Each with what metrics call it.
    pub const ALL: [(Lost, &'static str); 3] =
        [(Lost::Full, "full"), (Lost::Refused, "refused"), (Lost::Failed, "failed")];
}

/// A batch that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub(super) name: OsString,
    begun_ms: u64,
    /// What a receiver knows it by.
    pub id: String,
    /// How many lines of the log are in it.
    pub lines: u64,
    pub(super) bytes: u64,
}

impl Batch {
    /// `BEGUN-ID-LINES-BYTES.ndjson`; of another name, or with more than any has, it is none.
    fn of(name: OsString) -> Option<Batch> {
        let mut parts = name.to_str()?.strip_suffix(CLOSED)?.rsplitn(3, '-');
        let (bytes, lines) = (number(parts.next()?)?, number(parts.next()?)?);
        let (begun_ms, id) = begun(parts.next()?)?;
        let id = id.to_owned();
        let is_one = lines <= bytes && bytes <= BATCH_BYTES_MOST;
        is_one.then_some(Batch { name, begun_ms, id, lines, bytes })
    }

    /// By which the oldest comes first.
    pub(super) fn place(&self) -> (u64, &OsStr) {
        (self.begun_ms, &self.name)
    }
}

/// What is in the folder, in no order.
#[derive(Default)]
pub(super) struct Found {
    pub(super) batches: Vec<Batch>,
    /// What is being filled, or was when a process was killed.
    pub(super) open: Vec<OsString>,
    /// What is being made to be filled, or was.
    pub(super) new: Vec<OsString>,
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
            followed: AtomicBool::new(true),
            stuck: Mutex::default(),
            unusable: Mutex::default(),
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
        let path = self.path("lock".as_ref());
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(named)?;
        take_lock(&file).map(|is_ours| is_ours.then_some(file))
    }

    /// The folder that batches wait in.
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// Another process ships from now on, or this one does: who ships makes room.
    pub fn note_followed(&self, is_followed: bool) {
        self.followed.store(is_followed, Ordering::Relaxed);
    }

    /// Reads the folder.
    pub(super) fn found(&self) -> io::Result<Found> {
        let (mut found, stuck) = (Found::default(), self.stuck());
        for entry in fs::read_dir(&self.settings.folder)? {
            let name = entry?.file_name();
            let ends = |end| name.to_str().is_some_and(|name| name.ends_with(end));
            if ends(OPEN) {
                found.open.push(name);
            } else if ends(NEW) {
                found.new.push(name);
            } else if !stuck.contains(&name) {
                found.batches.extend(Batch::of(name));
            }
        }
        Ok(found)
    }

    /// These wait, and no others; the oldest comes first.
    fn note_waiting(&self, batches: &[Batch]) {
        let bytes = batches.iter().map(|batch| batch.bytes).sum();
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
        let lines = batches.iter().map(|batch| batch.lines).sum();
        self.waiting_lines.store(lines, Ordering::Relaxed);
        let oldest_ms = batches.first().map_or(0, |batch| batch.begun_ms);
        self.oldest_ms.store(oldest_ms, Ordering::Relaxed);
    }

    /// Lines that have arrived.
    pub fn shipped_lines(&self) -> u64 {
        self.shipped.load(Ordering::Relaxed)
    }

    /// Lines that never will arrive, by the word for why not.
    pub fn lost_lines(&self) -> [(&'static str, u64); Lost::ALL.len()] {
        Lost::ALL.map(|(why, word)| (word, self.lost[why as usize].load(Ordering::Relaxed)))
    }

    /// Bytes of the batches that wait.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Lines in the batches that wait.
    pub fn waiting_lines(&self) -> u64 {
        self.waiting_lines.load(Ordering::Relaxed)
    }

    /// A batch has not arrived, for this reason, and is sent again.
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

    /// How it stands with who receives them.
    pub fn failure(&self) -> Failure {
        self.failed().clone()
    }

    /// How long ago the oldest batch that waits was begun; nothing where none waits.
    pub fn age(&self, now: SystemTime) -> Duration {
        match self.oldest_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            oldest => Duration::from_millis(unix_millis(now).saturating_sub(oldest)),
        }
    }

    /// Gives the file that was filled the name of a batch with so many lines and bytes, which then
    /// waits; removes it, and gives `None`, where it has no line.
    pub(super) fn close(&self, stem: &str, lines: u64, bytes: u64) -> io::Result<Option<Batch>> {
        let open = self.path(format!("{stem}{OPEN}").as_ref());
        if lines == 0 {
            return fs::remove_file(open).map(|()| None);
        }
        let name = OsString::from(format!("{stem}-{lines}-{bytes}{CLOSED}"));
        fs::rename(open, self.path(&name))?;
        Ok(Batch::of(name))
    }

    /// Those that wait, in order, when what processes that are no more were filling is closed.
    /// None of them is lost. What cannot be closed is left.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn take_over(&self) -> io::Result<Vec<Batch>> {
        let batches = in_order(self.close_what_was_left()?);
        self.note_waiting(&batches);
        Ok(batches)
    }

    /// A batch was closed, and these wait now: of too many the oldest go, where this process ships.
    pub(super) fn note_filled(&self, batches: Vec<Batch>) {
        match self.followed.load(Ordering::Relaxed) {
            true => self.note_waiting(&in_order(batches)),
            false => drop(self.make_room(batches)),
        }
    }

    /// Those that wait when the oldest beyond the bounds are lost, in order.
    pub(super) fn make_room(&self, batches: Vec<Batch>) -> Vec<Batch> {
        let mut batches = in_order(batches);
        let mut bytes: u64 = batches.iter().map(|batch| batch.bytes).sum();
        let mut count = batches.len();
        batches.retain(|batch| {
            if bytes <= self.settings.bytes_max && count <= SHIPPING_BATCHES_MAX {
                return true;
            }
            // Held until it is gone: it must not be taken meanwhile.
            let sending = self.sending();
            if sending.as_deref() == Some(&batch.name) {
                return true;
            }
            self.lose(batch, Lost::Full);
            (bytes, count) = (bytes - batch.bytes, count - 1);
            false
        });
        // Told only now: there is never more than there may be.
        self.note_waiting(&batches);
        batches
    }

    pub(super) fn count_lost(&self, why: Lost, lines: u64) {
        let before = self.lost[why as usize].fetch_add(lines, Ordering::Relaxed);
        if why == Lost::Full && before == 0 {
            let folder = self.settings.folder.display();
            tracing::warn!(
                %folder,
                "`log.ship.spool` is full, or {SHIPPING_BATCHES_MAX} batches are in it: the oldest \
                 lines that wait to be shipped are lost"
            );
        }
    }

    pub(super) fn sending(&self) -> MutexGuard<'_, Option<OsString>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stuck(&self) -> MutexGuard<'_, BTreeSet<OsString>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, name: &OsStr) -> PathBuf {
        self.settings.folder.join(name)
    }
}

/// Oldest first.
fn in_order(mut batches: Vec<Batch>) -> Vec<Batch> {
    batches.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
    batches
}

/// When what has this name was begun, and its id, if the name is such as a batch's: others' files
/// are theirs.
pub(super) fn begun(stem: &str) -> Option<(u64, &str)> {
    let (begun, id) = stem.split_once('-')?;
    let is_ours =
        begun.len() == 13 && id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit());
    Some((number(begun)?, id)).filter(|_| is_ours)
}

/// A number, without the sign that `parse` would take too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Locks it, unless another process has; whether it is ours now.
pub(super) fn take_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// What names of files end with.
pub(super) const NEW: &str = ".new";
pub(super) const OPEN: &str = ".open";
const CLOSED: &str = ".ndjson";
/// What any version has put into one: all that waited for the log, beside what it is closed at.
const BATCH_BYTES_MOST: u64 = SHIPPING_BATCH_BYTES_MAX + ACCESS_LOG_BYTES_WAITING_MAX as u64;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixListener;

    use super::super::emptying::TakenBatch;
    use super::super::filling::Filling;
    use super::*;

    fn settings(folder: &Path) -> SpoolSettings {
        SpoolSettings {
            folder: folder.join("spool"),
            bytes_max: 100,
            // Two of the lines of `filled`.
            batch_bytes: 10,
            batch_period: Duration::from_secs(3_600),
        }
    }

    fn spool(folder: &Path) -> Spool {
        let spool = Spool::open(&settings(folder)).unwrap();
        // As who ships has it.
        spool.note_followed(false);
        spool
    }

    fn filled(filling: &mut Filling<'_>, lines: impl IntoIterator<Item = u32>) {
        for line in lines {
            filling.add(&format!("{line:04}\n"));
            filling.write();
        }
    }

    fn taken(spool: &Spool) -> Option<(Batch, Vec<u8>)> {
        spool.take(None).unwrap().map(|TakenBatch { batch, lines }| (batch, lines))
    }

    /// All that waits, each batch taken and shipped.
    fn shipped(spool: &Spool) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((batch, lines)) = taken(spool) {
            all.push(String::from_utf8(lines).unwrap());
            spool.shipped(&batch);
        }
        all
    }

    #[test]
    fn batches_are_closed_at_so_many_bytes_and_leave_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut filling = Filling::of(&spool);
        filled(&mut filling, 0..5);
        assert_eq!(spool.waiting_bytes(), 20);
        assert!(spool.age(SystemTime::now() + Duration::from_secs(9)) >= Duration::from_secs(9));
        assert_eq!(shipped(&spool), ["0000\n0001\n", "0002\n0003\n"]);
        filling.close();
        assert_eq!(shipped(&spool), ["0004\n"]);
        assert_eq!((spool.shipped_lines(), spool.waiting_bytes()), (5, 0));
        assert_eq!(spool.age(SystemTime::now()), Duration::ZERO);
    }

    #[test]
    fn a_batch_is_the_same_each_time_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let first = {
            let spool = spool(folder.path());
            filled(&mut Filling::of(&spool), 0..2);
            taken(&spool).unwrap()
        };
        let spool = spool(folder.path());
        assert_eq!(taken(&spool).unwrap(), first);
        assert_eq!(first.0.lines, 2);
    }

    #[test]
    fn beyond_its_bound_the_oldest_go_but_what_is_being_sent() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut filling = Filling::of(&spool);
        filled(&mut filling, 1_000..1_002);
        let (sent, _) = taken(&spool).unwrap();
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
        let (batch, lines) = taken(&spool).unwrap();
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
        assert!(taken(&other).is_none());
        let lock = one.lock().unwrap();
        assert!(lock.is_some() && other.lock().unwrap().is_none());
        drop((filling, lock));
        assert!(other.lock().unwrap().is_some());
        other.take_over().unwrap();
        assert_eq!(shipped(&other), ["0001\n"]);
    }

    #[test]
    fn who_only_looks_loses_no_line_by_a_smaller_bound() {
        let folder = tempfile::tempdir().unwrap();
        let one = spool(folder.path());
        filled(&mut Filling::of(&one), 0..20);
        let smaller = SpoolSettings { bytes_max: 18, ..settings(folder.path()) };
        let other = Spool::open(&smaller).unwrap();
        assert_eq!((other.take_over().unwrap().len(), other.waiting_lines()), (10, 20));
        assert_eq!((one.take_over().unwrap().len(), other.lost_lines()[0]), (10, ("full", 0)));
        // Nor by what it fills, as long as it does not ship.
        filled(&mut Filling::of(&other), 20..24);
        assert_eq!((one.take_over().unwrap().len(), other.lost_lines()[0]), (12, ("full", 0)));
        assert_eq!(taken(&other).unwrap().1, b"0022\n0023\n");
        assert_eq!(other.lost_lines()[0], ("full", 22));
    }

    #[test]
    fn who_is_followed_makes_no_room_until_it_ships_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut filling = Filling::of(&spool);
        spool.note_followed(true);
        filled(&mut filling, 1_000..1_022);
        assert_eq!((spool.waiting_lines(), spool.lost_lines()[0]), (22, ("full", 0)));
        spool.note_followed(false);
        filled(&mut filling, 1_022..1_024);
        assert_eq!((spool.waiting_lines(), spool.lost_lines()[0]), (20, ("full", 4)));
    }

    #[test]
    fn a_batch_whose_file_will_not_go_is_counted_once_and_not_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..4);
        let (sent, _) = taken(&spool).unwrap();
        let path = spool.path(&sent.name);
        fs::remove_file(&path).unwrap();
        // What cannot be removed as a file, nor be read as one.
        fs::create_dir(&path).unwrap();
        assert!(!spool.shipped(&sent));
        let (next, lines) = taken(&spool).unwrap();
        assert_eq!(lines, b"0002\n0003\n");
        fs::remove_file(spool.path(&next.name)).unwrap();
        fs::create_dir(spool.path(&next.name)).unwrap();
        for _ in 0..2 {
            assert!(taken(&spool).is_none());
        }
        assert_eq!((spool.shipped_lines(), spool.waiting_bytes()), (2, 0));
        assert_eq!(spool.lost_lines()[2], ("failed", 2));
        for batch in [&sent, &next] {
            fs::remove_dir(spool.path(&batch.name)).unwrap();
            fs::write(spool.path(&batch.name), "gone").unwrap();
        }
        assert!(taken(&spool).is_none());
        assert!(!path.exists(), "removed when it can be");
    }

    #[test]
    fn a_batch_that_is_not_whole_is_lost_and_the_next_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..4);
        let (batch, _) = taken(&spool).unwrap();
        fs::write(spool.path(&batch.name), "").unwrap();
        assert_eq!(shipped(&spool), ["0002\n0003\n"]);
        assert_eq!((spool.lost_lines()[2], spool.shipped_lines()), (("failed", 2), 2));
    }

    #[test]
    fn what_is_closed_while_it_is_looked_at_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let stem = format!("0000000000007-{}", "a".repeat(32));
        let path = spool.path(format!("{stem}{OPEN}").as_ref());
        fs::write(&path, "1\n").unwrap();
        let looked_at = File::options().read(true).write(true).open(&path).unwrap();
        spool.close(&stem, 1, 2).unwrap();
        let error = spool.close_left(&stem, &looked_at).unwrap_err();
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
        assert_eq!(spool.unusable.lock().unwrap().len(), 2);
    }

    #[test]
    fn files_of_others_are_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(&settings.folder).unwrap();
        let stem = format!("0000000000007-{}", "a".repeat(32));
        let open: [&str; 6] =
            ["notes", "7-a", "-", &stem[1..], &format!("{stem}-1"), &stem.replace('a', "g")];
        let closed: [&str; 6] = [
            "2026-11-05-14",
            "2026-11-23-1200",
            "7-a-1-4",
            &format!("{stem}-+1-4"),
            &format!("{}-1-4", &stem[1..]),
            &format!("{}-1-4", stem.replace('a', "g")),
        ];
        let named = |names: [&str; 6], end| names.map(|name| format!("{name}{end}"));
        let others = [named(open, OPEN), named(closed, CLOSED)].concat();
        for name in &others {
            fs::write(settings.folder.join(name), "1\nto").unwrap();
        }
        let spool = Spool::open(&settings).unwrap();
        assert_eq!((taken(&spool), spool.waiting_lines()), (None, 0));
        for name in &others {
            let text = fs::read(spool.path(name.as_ref())).unwrap();
            assert_eq!(text, b"1\nto", "{name}");
        }
    }

    #[test]
    fn a_batch_that_cannot_be_read_waits_and_the_next_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..6);
        let (oldest, _) = taken(&spool).unwrap();
        let path = spool.path(&oldest.name);
        fs::remove_file(&path).unwrap();
        // Not to be opened, by nobody, whoever may read all files.
        let socket = UnixListener::bind(&path).unwrap();
        assert_eq!(shipped(&spool), ["0002\n0003\n", "0004\n0005\n"]);
        assert_eq!(spool.lost_lines(), [("full", 0), ("refused", 0), ("failed", 0)]);
        assert_eq!((spool.waiting_lines(), spool.unusable.lock().unwrap().len()), (2, 1));
        // It is spared no more than others.
        assert_eq!(*spool.sending(), None);
        drop(socket);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "0000\n0001\n").unwrap();
        assert_eq!(shipped(&spool), ["0000\n0001\n"]);
    }

    #[test]
    fn a_batch_that_never_can_be_read_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        filled(&mut Filling::of(&spool), 0..4);
        let (oldest, _) = taken(&spool).unwrap();
        let path = spool.path(&oldest.name);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert_eq!(shipped(&spool), ["0002\n0003\n"]);
        assert_eq!((spool.lost_lines()[2], spool.waiting_lines()), (("failed", 2), 0));
    }

    #[test]
    fn a_batch_there_is_no_memory_for_waits_and_the_next_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let of = |batch_bytes| {
            let settings = settings(folder.path());
            let bytes_max = 1 << 30;
            Spool::open(&SpoolSettings { bytes_max, batch_bytes, ..settings }).unwrap()
        };
        let lines = ACCESS_LOG_WRITE_BYTES_MAX / 5 + 2_000;
        let of_before = of(5 * lines);
        filled(&mut Filling::of(&of_before), (0..lines as u32).map(|number| number % 10_000));
        let spool = of(10);
        filled(&mut Filling::of(&spool), 0..2);
        assert!(shipped(&spool) == ["0000\n0001\n"], "not the larger one");
        assert_eq!((spool.waiting_lines(), spool.lost_lines()[2]), (lines, ("failed", 0)));
        assert_eq!(spool.unusable.lock().unwrap().len(), 1);
        assert_eq!(shipped(&of_before).len(), 1);
    }

    #[test]
    fn of_more_batches_than_may_wait_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SpoolSettings { bytes_max: 1 << 30, ..settings(folder.path()) };
        fs::create_dir(&settings.folder).unwrap();
        let id = "a".repeat(32);
        for number in 0..SHIPPING_BATCHES_MAX + 3 {
            let name = format!("{number:013}-{id}-1-2{CLOSED}");
            fs::write(settings.folder.join(name), "1\n").unwrap();
        }
        let spool = Spool::open(&settings).unwrap();
        assert_eq!(taken(&spool).unwrap().0.begun_ms, 3);
        assert_eq!(spool.waiting_lines(), SHIPPING_BATCHES_MAX as u64);
        assert_eq!(spool.lost_lines()[0], ("full", 3));
        spool.note_followed(false);
        // And with each that is filled.
        filled(&mut Filling::of(&spool), 0..2);
        assert_eq!(spool.take_over().unwrap().len(), SHIPPING_BATCHES_MAX);
        assert_eq!(spool.lost_lines()[0], ("full", 4));
        assert!(spool.take_over().unwrap()[0].begun_ms == 3, "what is being sent stays");
    }

    #[test]
    fn what_a_killed_process_was_making_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(&settings.folder).unwrap();
        let now = unix_millis(SystemTime::now());
        let name = |begun: u64, id: &str| {
            settings.folder.join(format!("{begun:013}-{}{NEW}", id.repeat(32)))
        };
        let (left, made, foreign) = (name(7, "a"), name(now, "b"), name(7, "g"));
        for path in [&left, &made, &foreign] {
            fs::write(path, "").unwrap();
        }
        Spool::open(&settings).unwrap();
        assert!(!left.exists() && made.exists() && foreign.exists());
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
        assert_eq!(shipped(&spool), ["0003\n0004\n"]);
    }
}
