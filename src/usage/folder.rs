//! Samples in files, one for each month: lines of a checksum and a process's part of a sample.
//!
//! A line is appended by one write and synced, so several processes may write one file, as they do
//! during an upgrade. A line begins with an end of line: what a crash, or a full disk, left of the
//! one before then spoils nothing. What has not its checksum counts nothing and is told.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};

use super::{Counts, Month, SAMPLE_SECONDS};
use crate::limits::SITES_MAX;

/// What one process counted within one sample; of a sample there may be several parts, which are
/// summed. A site of which nothing was counted is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// When the sample begins, in seconds since 1970.
    pub(super) start: u64,
    pub(super) sites: BTreeMap<String, Counts>,
}

/// The folder with the files of all months.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// At this path; it need not be there.
    pub fn at(path: PathBuf) -> Folder {
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, month: Month) -> PathBuf {
        self.0.join(format!("{month}{ENDING}"))
    }

    /// Appends a part to the file of its month. Blocks.
    ///
    /// # Errors
    /// It does not count.
    pub(super) fn append(&self, part: &Part) -> io::Result<()> {
        let file = self.file(Month::of(part.start));
        let opened = OpenOptions::new().append(true).create(true).open(&file);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.0)?;
                OpenOptions::new().append(true).create(true).open(&file)?
            }
            opened => opened?,
        };
        let line = line(part);
        // At once or not at all: what another process writes must not come between.
        if file.write(line.as_bytes())? < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // It is there: to write it once more would count it twice.
        if let Err(error) = file.sync_data() {
            tracing::warn!("usage is written and may not outlive a crash: {error}");
        }
        Ok(())
    }

    /// Reads the parts of a month; how many lines are damaged. A line without an end is one that is
    /// just being written, or that a crash left. Blocks.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn read(&self, month: Month, mut each: impl FnMut(Part)) -> io::Result<u64> {
        let mut reader = match File::open(self.file(month)) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let (mut line, mut damaged) = (Vec::new(), 0);
        loop {
            line.clear();
            reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            match line.split_last() {
                None => return Ok(damaged),
                Some((b'\n', [])) => {}
                Some((b'\n', text)) => match part(text).filter(|part| month.has(part.start)) {
                    Some(part) => each(part),
                    None => damaged += 1,
                },
                // Longer than any of ours, or the last one.
                Some(_) => damaged += u64::from(line.len() as u64 == LINE_BYTES_MAX),
            }
        }
    }

    /// Whether something is kept of a month before this one. Blocks.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub(super) fn has_before(&self, month: Month) -> io::Result<bool> {
        match self.months() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            months => Ok(months?.iter().any(|kept| *kept < month)),
        }
    }

    fn months(&self) -> io::Result<Vec<Month>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let month = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            kept.extend(month.and_then(|month| month.parse::<Month>().ok()));
        }
        Ok(kept)
    }

    /// Removes the oldest months beyond so many: not by the clock, which may be wrong for a while.
    ///
    /// # Errors
    /// One that cannot be removed stays.
    pub(super) fn keep(&self, months: usize) -> io::Result<()> {
        let mut kept = self.months()?;
        kept.sort_unstable();
        kept[..kept.len().saturating_sub(months)].iter().try_for_each(|month| {
            match fs::remove_file(self.file(*month)) {
                // Another process did.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        })
    }
}

impl Month {
    fn has(self, start: u64) -> bool {
        start.is_multiple_of(SAMPLE_SECONDS) && (self.start()..self.end()).contains(&start)
    }
}

fn line(part: &Part) -> String {
    let text = serde_json::to_string(part).expect("it is made of numbers and names");
    format!("\n{:08x} {text}\n", sum_of(text.as_bytes()))
}

fn part(line: &[u8]) -> Option<Part> {
    let (sum, text) = line.split_at_checked(9)?;
    let sum = u32::from_str_radix(str::from_utf8(sum.strip_suffix(b" ")?).ok()?, 16).ok()?;
    if sum != sum_of(text) {
        return None;
    }
    serde_json::from_slice(text).ok()
}

fn sum_of(text: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, text) as u32
}

const ENDING: &str = ".usage";
/// A name of 64 bytes and three numbers for each site there may be.
const LINE_BYTES_MAX: u64 = (SITES_MAX as u64 + 1) * 160;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_356_600;

    fn of(start: u64, served_bytes: u64) -> Part {
        let counts = Counts { served_bytes, origin_bytes: 1, requests: 2 };
        Part { start, sites: BTreeMap::from([("film".to_owned(), counts)]) }
    }

    fn read(folder: &Folder, month: &str) -> (Vec<Part>, u64) {
        let mut parts = Vec::new();
        let damaged = folder.read(month.parse().unwrap(), |part| parts.push(part)).unwrap();
        (parts, damaged)
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::at(there.path().join("usage"));
        (there, folder)
    }

    #[test]
    fn a_part_is_read_as_it_was_written_in_the_file_of_its_month() {
        let (_there, folder) = folder();
        assert_eq!(read(&folder, "2026-11"), (Vec::new(), 0));
        let december = "2026-12".parse::<Month>().unwrap().start();
        let parts = [of(START, 7), of(december - 300, 8), of(december, 9)];
        parts.iter().for_each(|part| folder.append(part).unwrap());
        assert_eq!(read(&folder, "2026-11"), (parts[..2].to_vec(), 0));
        assert_eq!(read(&folder, "2026-12"), (parts[2..].to_vec(), 0));
    }

    #[test]
    fn a_torn_line_is_left_out_wherever_it_was_torn_and_those_after_it_count() {
        let (_there, folder) = folder();
        folder.append(&of(START, 7)).unwrap();
        let file = folder.file(Month::of(START));
        let whole = fs::read(&file).unwrap();
        for torn in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes.extend(&whole[..torn]);
            fs::write(&file, &bytes).unwrap();
            let before = read(&folder, "2026-11");
            // All but its end of line is not whole.
            assert_eq!(before, (vec![of(START, 7)], 0), "torn at {torn}");
            folder.append(&of(START + 300, 8)).unwrap();
            let (parts, damaged) = read(&folder, "2026-11");
            let end = parts.len() - 1;
            assert_eq!(parts[end], of(START + 300, 8), "torn at {torn}");
            // Of all but its end of line the next one brings that.
            let is_whole = torn == whole.len() - 1;
            assert_eq!(
                (end, damaged),
                (if is_whole { 2 } else { 1 }, u64::from(torn > 1 && !is_whole))
            );
        }
    }

    #[test]
    fn a_byte_that_changed_costs_its_line_and_no_other() {
        let (_there, folder) = folder();
        for number in 0..3 {
            folder.append(&of(START + 300 * number, number)).unwrap();
        }
        let file = folder.file(Month::of(START));
        let whole = fs::read(&file).unwrap();
        let length = whole.len() / 3;
        for at in length + 1..2 * length - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let (parts, damaged) = read(&folder, "2026-11");
            assert_eq!((parts.len(), damaged > 0), (2, true), "at {at}: {parts:?}");
        }
    }

    #[test]
    fn two_writers_at_once_lose_nothing() {
        let (_there, folder) = folder();
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let folder = &folder;
                scope.spawn(move || {
                    (0..200).for_each(|_| folder.append(&of(START, writer)).unwrap());
                });
            }
        });
        let (parts, damaged) = read(&folder, "2026-11");
        let second = parts.iter().filter(|part| **part == of(START, 1)).count();
        assert_eq!((parts.len(), second, damaged), (400, 200, 0));
    }

    #[test]
    fn the_newest_months_are_kept_whatever_the_clock_says() {
        let (_there, folder) = folder();
        for month in ["2025-12", "2026-01", "2026-02", "2099-01"] {
            folder.append(&of(month.parse::<Month>().unwrap().start(), 1)).unwrap();
        }
        fs::write(folder.path().join("notes.txt"), "an operator's").unwrap();
        folder.keep(3).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["2026-01.usage", "2026-02.usage", "2099-01.usage", "notes.txt"]);
    }
}
