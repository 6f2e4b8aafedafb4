//! The journal of purges: a file that outlives the process, beside the other state.
//!
//! Records of 64 bytes, each with its checksum: a header, then one for each purge. A purge is
//! appended and synced before anybody is told that it is done. Half a record at the end is what a
//! crash leaves of a purge that nobody was told of. Anything else that is wrong is damage: what was
//! purged may have been forgotten, and what heads say of this journal's numbers counts no more, so
//! that each is asked about before it is used. Integers are little endian.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use crc_fast::{CrcAlgorithm, checksum};

use super::scope::{Hardness, Kind, Scope};
use super::table::{Purge, Table};
use crate::limits::{PURGE_RECORDS_SPARE_MAX, PURGES_HELD_MAX};

/// The file, and whether what it holds is what was appended to it.
pub(super) struct Journal {
    path: PathBuf,
    id: u64,
    forgot: bool,
    /// None: it must be written anew before something is appended.
    file: Option<File>,
    /// What is there could neither be read nor kept aside: it is not written over.
    is_spared: bool,
    records: usize,
}

/// What a journal says.
#[derive(Debug)]
pub(super) struct Replayed {
    /// Whose numbers its are.
    pub(super) id: u64,
    /// Something that was purged may not be in it.
    pub(super) forgot: bool,
    /// The number of the last purge.
    pub(super) count: u64,
    pub(super) table: Table,
    /// Where it is damaged.
    damage: Option<usize>,
}

impl Journal {
    /// Reads the journal at `path`, or begins one, which is known by `new_id`. Tells of what is
    /// wrong with it.
    pub(super) fn open(path: &Path, new_id: u64) -> (Journal, Replayed) {
        let mut bytes = Vec::new();
        let opened = File::open(path);
        let read = opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let nothing = |forgot| Replayed {
            id: new_id,
            forgot,
            count: 0,
            table: Table::default(),
            damage: None,
        };
        let (replayed, fault) = match read {
            Ok(_) => {
                let replayed = replay(&bytes, new_id);
                let fault = replayed.damage.map(|at| format!("is damaged at byte {at}"));
                (replayed, fault)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (nothing(false), None),
            Err(error) => (nothing(true), Some(format!("cannot be read: {error}"))),
        };
        let (id, forgot) = (replayed.id, replayed.forgot);
        let mut journal =
            Journal { path: path.to_owned(), id, forgot, file: None, is_spared: false, records: 0 };
        if let Some(fault) = fault {
            journal.spare(&fault);
        }
        if let Err(error) = journal.rewrite(replayed.count, &replayed.table) {
            let file = path.display();
            tracing::error!(
                "nothing can be purged, as the journal {file} cannot be written: {error}"
            );
        }
        (journal, replayed)
    }

    /// The same under the id of who goes on with it, with all that one knows. Where it cannot be
    /// written, that is tried again before something is appended.
    pub(super) fn taken_on(self, id: u64, count: u64, table: &Table) -> Journal {
        let mut journal = Journal { id, ..self };
        if let Err(error) = journal.rewrite(count, table) {
            let file = journal.path.display();
            tracing::error!("the journal of purges {file} cannot be written: {error}");
        }
        journal
    }

    /// Keeps what has this fault aside, and tells of it: what it says is not lost for good.
    fn spare(&mut self, fault: &str) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let kept = self.path.with_file_name(format!("{name}.damaged"));
        let (file, kept_file) = (self.path.display(), kept.display());
        let doubt = "whatever is kept is asked about before it is used";
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.is_dir()) {
            // A folder is nobody's journal, and stays where it is.
            return tracing::error!("the journal of purges {file} {fault}: {doubt}");
        }
        match fs::rename(&self.path, &kept) {
            Ok(()) => tracing::error!(
                "the journal of purges {file} {fault}: {doubt}; it is now {kept_file}"
            ),
            Err(error) => {
                tracing::error!(
                    "the journal of purges {file} {fault}: {doubt}; nothing can be purged until \
                     it is moved out of the way, as it cannot be kept as {kept_file}: {error}"
                );
                self.is_spared = true;
            }
        }
    }

    /// Appends purges and syncs them; when this returns they outlive the process. `count` and
    /// `table` have them too: the file is written anew where that is due.
    ///
    /// # Errors
    /// They may be found after a restart, or not.
    pub(super) fn append(&mut self, purges: &[Purge], count: u64, table: &Table) -> io::Result<()> {
        let spare = self.records.saturating_sub(2 * table.len());
        let Some(file) = self.file.as_mut().filter(|_| spare <= PURGE_RECORDS_SPARE_MAX) else {
            return self.rewrite(count, table);
        };
        let mut bytes = Vec::with_capacity(purges.len() * RECORD_BYTES);
        purges.iter().for_each(|purge| put(&mut bytes, self.id, purge));
        let appended = file.write_all(&bytes).and_then(|()| file.sync_data());
        match &appended {
            Ok(()) => self.records += purges.len(),
            // Nobody knows what of it is there.
            Err(_) => self.file = None,
        }
        appended
    }

    /// Writes all that is known to a new file in place of this one.
    fn rewrite(&mut self, count: u64, table: &Table) -> io::Result<()> {
        self.file = None;
        if self.is_spared && fs::symlink_metadata(&self.path).is_ok() {
            return Err(io::Error::other("what is there is to be moved out of the way"));
        }
        let purges = table.purges();
        let mut bytes = Vec::with_capacity((purges.len() + 1) * RECORD_BYTES);
        put_header(&mut bytes, self.id, count, self.forgot);
        purges.iter().for_each(|purge| put(&mut bytes, self.id, purge));
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let new = self.path.with_file_name(format!(".{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.is_spared = false;
        File::open(folder)?.sync_all()?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.records = purges.len();
        Ok(())
    }
}

/// What the bytes of a journal say. One that is damaged goes on as another, `new_id`.
pub(super) fn replay(bytes: &[u8], new_id: u64) -> Replayed {
    let mut replayed = Replayed {
        id: new_id,
        forgot: true,
        count: 0,
        table: Table::default(),
        damage: (bytes.len() as u64 > FILE_BYTES_MAX).then_some(FILE_BYTES_MAX as usize),
    };
    // What is cut is half a record.
    let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
    let header = records.first().and_then(header_of);
    let Some((id, count, forgot)) = header else {
        replayed.damage = Some(0);
        return replayed;
    };
    replayed.count = count;
    // Room that a crash left empty.
    let blank = |record: &&[u8; RECORD_BYTES]| record.iter().all(|byte| *byte == 0);
    let written = records.len() - records.iter().rev().take_while(blank).count();
    for (place, record) in records[1..written].iter().enumerate() {
        if let Some(purge) = purge_of(record, id) {
            replayed.count = replayed.count.max(purge.number);
            replayed.table.apply(&purge);
            continue;
        }
        replayed.damage = replayed.damage.or(Some((place + 1) * RECORD_BYTES));
    }
    if replayed.damage.is_none() {
        (replayed.id, replayed.forgot) = (id, forgot);
    }
    replayed
}

/// Id, count and whether something was forgotten before.
fn header_of(record: &[u8; RECORD_BYTES]) -> Option<(u64, u64, bool)> {
    let mut fields = checked(record)?;
    let magic = fields.get_u64_le() == MAGIC;
    let (id, count, forgot) = (fields.get_u64_le(), fields.get_u64_le(), fields.get_u64_le());
    (magic && id != 0 && count < u64::MAX).then_some((id, count, forgot != 0))
}

fn put_header(bytes: &mut Vec<u8>, id: u64, count: u64, forgot: bool) {
    let start = bytes.len();
    for field in [MAGIC, id, count, u64::from(forgot)] {
        bytes.put_u64_le(field);
    }
    seal(bytes, start);
}

fn purge_of(record: &[u8; RECORD_BYTES], of: u64) -> Option<Purge> {
    let mut fields = checked(record)?;
    let (id, number, at_seconds) = (fields.get_u64_le(), fields.get_u64_le(), fields.get_u64_le());
    let (site, name) = (fields.get_u64_le(), fields.get_u128_le());
    let (kind, hardness) = (fields.get_u8(), fields.get_u8());
    let prefix_bytes = fields.get_u16_le();
    let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind)?;
    let hardness = match hardness {
        1 => Hardness::Hard,
        2 => Hardness::Soft,
        _ => return None,
    };
    let scope = Scope { kind, site, name, prefix_bytes };
    let is_right = id == of && (1..u64::MAX).contains(&number) && at_seconds <= SECONDS_MAX;
    is_right.then_some(Purge { number, at_seconds, scope, hardness })
}

fn put(bytes: &mut Vec<u8>, id: u64, purge: &Purge) {
    let (start, scope) = (bytes.len(), &purge.scope);
    for field in [id, purge.number, purge.at_seconds, scope.site] {
        bytes.put_u64_le(field);
    }
    bytes.put_u128_le(scope.name);
    bytes.put_u8(scope.kind as u8);
    bytes.put_u8(match purge.hardness {
        Hardness::Hard => 1,
        Hardness::Soft => 2,
    });
    bytes.put_u16_le(scope.prefix_bytes);
    seal(bytes, start);
}

/// The fields of a record whose checksum is right.
fn checked(record: &[u8; RECORD_BYTES]) -> Option<&[u8]> {
    let (fields, mut sum) = record.split_at(RECORD_BYTES - size_of::<u64>());
    (checksum(CrcAlgorithm::Crc64Nvme, fields) == sum.get_u64_le()).then_some(fields)
}

fn seal(bytes: &mut Vec<u8>, start: usize) {
    bytes.resize(start + RECORD_BYTES - size_of::<u64>(), 0);
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &bytes[start..]);
    bytes.put_u64_le(sum);
}

const MAGIC: u64 = u64::from_le_bytes(*b"TIDEPURG");
const RECORD_BYTES: usize = 64;
/// More than any journal of ours has: two records for each thing, hard and soft, as often again
/// before it is written anew, and what is spare.
const FILE_BYTES_MAX: u64 =
    ((6 * PURGES_HELD_MAX + 2 * PURGE_RECORDS_SPARE_MAX) * RECORD_BYTES) as u64;
/// The year 3000: no moment beyond it is one of ours, and each can be reckoned with.
const SECONDS_MAX: u64 = 32_503_680_000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn object(number: u64, path: &str) -> Purge {
        let scope = Scope::object("film", path);
        Purge { number, at_seconds: 0, scope, hardness: Hardness::Hard }
    }

    fn journal_of(purges: &[Purge]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_header(&mut bytes, 7, 0, false);
        purges.iter().for_each(|purge| put(&mut bytes, 7, purge));
        bytes
    }

    #[test]
    fn what_is_appended_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/volumes.purges");
        let (mut journal, begun) = Journal::open(&path, 7);
        assert_eq!((begun.id, begun.forgot, begun.count, begun.table.len()), (7, false, 0, 0));
        let prefix = Scope::prefix("film", "/a/").unwrap();
        let scopes =
            [Scope::site("film"), Scope::object("film", "/a?b"), prefix, Scope::tag(None, "t")];
        let mut table = Table::default();
        let mut purges = Vec::new();
        for (number, scope) in (1..).zip(scopes) {
            for (half, hardness) in [Hardness::Hard, Hardness::Soft].into_iter().enumerate() {
                let number = 2 * number + half as u64;
                // Since when something is gone does not matter.
                let at_seconds = 1_800_000_000 * half as u64;
                let purge = Purge { number, at_seconds, scope, hardness };
                table.apply(&purge);
                journal.append(&[purge], number, &table).unwrap();
                purges.push(purge);
            }
        }
        for _ in 0..2 {
            let (_, again) = Journal::open(&path, 8);
            assert_eq!((again.id, again.forgot, again.count), (7, false, 9));
            assert_eq!(again.table.purges(), purges);
        }
    }

    #[test]
    fn half_a_record_at_the_end_was_acknowledged_to_nobody() {
        let (one, two) = (object(1, "/a"), object(2, "/b"));
        let (whole, first) = (journal_of(&[one, two]), journal_of(&[one]));
        for end in first.len()..whole.len() {
            for blank in [0, 200] {
                let torn = [&whole[..end], vec![0; blank].as_slice()].concat();
                if end > first.len() && blank > 0 {
                    continue;
                }
                let read = replay(&torn, 9);
                assert_eq!((read.id, read.forgot, read.count), (7, false, 1), "{end} {blank}");
                assert_eq!(read.table.purges(), [one]);
            }
        }
    }

    #[test]
    fn a_journal_that_is_damaged_goes_on_as_another_with_what_can_be_read() {
        let purges = [object(1, "/a"), object(2, "/b"), object(3, "/c")];
        let whole = journal_of(&purges);
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            let read = replay(&damaged, 9);
            assert_eq!((read.id, read.forgot), (9, true), "{byte}");
            let left: Vec<Purge> = match byte / RECORD_BYTES {
                0 => Vec::new(),
                lost => purges.iter().filter(|p| p.number != lost as u64).copied().collect(),
            };
            assert_eq!(read.table.purges(), left, "{byte}");
        }
        assert_eq!(replay(&[], 9).damage, Some(0));
    }

    #[test]
    fn damage_is_kept_aside_and_what_follows_is_remembered_that_something_was_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let mut damaged = journal_of(&[object(1, "/a"), object(2, "/b")]);
        damaged[70] ^= 1;
        fs::write(&path, &damaged).unwrap();
        for (id, count) in [(9, 2), (10, 2)] {
            let read = Journal::open(&path, id).1;
            assert_eq!((read.id, read.forgot, read.count), (9, true, count));
            assert_eq!(read.table.purges(), [object(2, "/b")]);
        }
        assert_eq!(fs::read(folder.path().join("purges.damaged")).unwrap(), damaged);
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("purges"), folder.path().join("purges.damaged"));
        // Nothing is mapped at its beginning.
        symlink("/proc/self/mem", &path).unwrap();
        let (mut journal, read) = Journal::open(&path, 9);
        assert_eq!((read.id, read.forgot, read.table.len()), (9, true, 0));
        assert!(fs::read_link(&kept).is_ok(), "it is kept aside");
        let (purge, mut table) = (object(1, "/a"), Table::default());
        table.apply(&purge);
        journal.append(&[purge], 1, &table).unwrap();
        assert_eq!(Journal::open(&path, 10).1.table.purges(), [purge]);

        // Where it cannot be, it stays where it is.
        fs::remove_file(&path).unwrap();
        fs::remove_file(&kept).unwrap();
        fs::create_dir_all(kept.join("full")).unwrap();
        symlink("/proc/self/mem", &path).unwrap();
        let (mut journal, read) = Journal::open(&path, 11);
        assert!(read.forgot);
        journal.append(&[purge], 1, &table).unwrap_err();
        assert!(fs::read_link(&path).is_ok());
        fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            journal.append(&[purge], 1, &table).unwrap();
            // As after a disk that was full.
            journal.file = None;
        }
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/purges");
        fs::write(folder.path().join("state"), "no folder").unwrap();
        let (mut journal, read) = Journal::open(&path, 7);
        assert!(read.forgot, "whether there was one is not known");
        let (purge, mut table) = (object(1, "/a"), Table::default());
        table.apply(&purge);
        journal.append(&[purge], 1, &table).unwrap_err();
        fs::remove_file(folder.path().join("state")).unwrap();
        journal.append(&[purge], 1, &table).unwrap();
        assert_eq!(Journal::open(&path, 8).1.table.purges(), [purge]);
    }

    #[test]
    fn records_that_say_nothing_new_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let (mut journal, _) = Journal::open(&path, 7);
        let mut table = Table::default();
        let batch = 1 << 12;
        let mut most = 0;
        for first in (1..=3 * PURGE_RECORDS_SPARE_MAX as u64).step_by(batch) {
            let purges: Vec<Purge> =
                (first..first + batch as u64).map(|number| object(number, "/a")).collect();
            purges.iter().for_each(|purge| table.apply(purge));
            let count = purges.last().unwrap().number;
            journal.append(&purges, count, &table).unwrap();
            most = most.max(fs::metadata(&path).unwrap().len());
            assert_eq!(replay(&fs::read(&path).unwrap(), 9).count, count);
        }
        let bound = (PURGE_RECORDS_SPARE_MAX + 2 * batch) * RECORD_BYTES;
        assert!((bound as u64 / 2..bound as u64).contains(&most), "{most}");
    }
}
