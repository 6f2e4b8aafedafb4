//! Where lines go: a file that is opened by its name, again when it was moved, and is moved when
//! that is due; or any stream.
//!
//! A file is moved between two writes of whole lines, so that no line is lost or torn by it. Who
//! else writes to it keeps what he has open, and finds by himself that it was moved: to `NAME.1`,
//! after `NAME.1` became `NAME.2` and so on.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;

use super::format::{Begins, Format};
use super::{AccessLogError, Destination, Settings};
use crate::moment::unix_seconds;

/// Between two attempts at a file that would block although it should not.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);
/// Between two attempts to move a file that could not be moved.
const MOVE_PAUSE: Duration = Duration::from_secs(60);

/// When a file is moved, and what stays of those that were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Before it would have more bytes than these.
    pub bytes_max: Option<u64>,
    /// At the first line after each multiple of this since 1970 (UTC).
    pub every: Option<Duration>,
    /// So many of those that were moved stay; at least one.
    pub keep: u64,
}

impl Rotation {
    fn period(&self, time: SystemTime) -> u64 {
        self.every.map_or(0, |every| unix_seconds(time) / every.as_secs().max(1))
    }
}

/// Where lines go.
pub(super) struct Output {
    pub(super) format: Format,
    stream: Box<dyn Write + Send>,
    /// The same, where it has a name.
    named: Option<Named>,
    /// What stands before the next line.
    head: String,
    /// The last byte written was not a line feed.
    torn: bool,
}

/// A file that can be opened again.
struct Named {
    path: PathBuf,
    file: File,
    rotation: Option<Rotation>,
    /// In which its first line was written.
    period: u64,
    /// No attempt to move it before.
    not_before: Option<SystemTime>,
    /// Of all that is in it; `None` where others wrote to it, or nobody asks.
    digest: Option<(u64, digest::Context)>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.named.as_ref().map(|named| &named.path);
        f.debug_struct("Output").field("path", &path).finish_non_exhaustive()
    }
}

impl Output {
    /// Opens the destination.
    pub(super) fn open(settings: &Settings) -> Result<Output, AccessLogError> {
        match &settings.destination {
            Destination::Off => Ok(Output::to(io::sink())),
            Destination::Stdout => {
                // Unbuffered: what is written is, and a failure is known.
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|source| AccessLogError::Stdout { source })?;
                let (format, head) = (settings.format, settings.format.head(Begins::Empty));
                Ok(Output { format, head, ..Output::to(WholeLines(File::from(stdout))) })
            }
            Destination::File(path) => {
                let opened = Output::of_file(path, settings.format, settings.rotation);
                opened.map_err(|source| AccessLogError::Open { path: path.clone(), source })
            }
        }
    }

    /// Writes JSON to `stream`.
    pub(super) fn to(stream: impl Write + Send + 'static) -> Output {
        let (format, head) = (Format::Json, String::new());
        Output { format, stream: Box::new(stream), named: None, head, torn: false }
    }

    fn of_file(path: &Path, format: Format, rotation: Option<Rotation>) -> io::Result<Output> {
        // Addresses of viewers are nobody else's business.
        let file = File::options().append(true).create(true).mode(0o640).open(path)?;
        let metadata = file.metadata()?;
        let begins = if metadata.len() == 0 { Begins::Empty } else { Begins::After };
        let since = match begins {
            Begins::Empty => SystemTime::now(),
            Begins::After => metadata.modified()?,
        };
        let is_ours = begins == Begins::Empty && metadata.is_file() && format == Format::Cdni;
        let named = Named {
            path: path.to_owned(),
            file: file.try_clone()?,
            rotation,
            period: rotation.map_or(0, |rotation| rotation.period(since)),
            not_before: None,
            digest: is_ours.then(|| (0, digest::Context::new(&digest::SHA256))),
        };
        Ok(Output {
            format,
            stream: Box::new(file),
            named: Some(named),
            head: format.head(begins),
            torn: metadata.is_file() && ends_torn(path, metadata.len()),
        })
    }

    /// Opens the file by its name again, if it has one; the one before is finished.
    pub(super) fn reopen(&mut self) {
        let Some(named) = &mut self.named else { return };
        named.finish();
        match Output::of_file(&named.path, self.format, named.rotation) {
            Ok(next) => *self = next,
            Err(error) => {
                let path = named.path.display();
                tracing::warn!(%path, %error, "access log could not be reopened");
                named.not_before = Some(SystemTime::now() + MOVE_PAUSE);
            }
        }
    }

    /// Moves the file if that is due before so many more bytes.
    pub(super) fn move_if_due(&mut self, now: SystemTime, more_bytes: usize) {
        let Some(named) = &mut self.named else { return };
        let Some(rotation) = named.rotation else { return };
        if !named.is_due(rotation, now, more_bytes as u64) {
            return;
        }
        match named.move_away(rotation.keep) {
            Ok(true) => self.reopen(),
            Ok(false) => {}
            Err(error) => {
                let path = named.path.display();
                tracing::warn!(%path, %error, "access log cannot be moved: it grows on");
                named.not_before = Some(now + MOVE_PAUSE);
            }
        }
    }

    /// Writes lines; tells how many of them were lost, and why.
    pub(super) fn write(&mut self, lines: &str) -> (u64, io::Result<()>) {
        let mut text = Cow::from(lines);
        let mut before = 0;
        if self.torn || !self.head.is_empty() {
            let end = if self.torn { self.format.line_end() } else { "" };
            text = format!("{end}{}{lines}", self.head).into();
            before = text.len() - lines.len();
        }
        let bytes = text.as_bytes();
        let (written, result) = write_what_goes(&mut self.stream, bytes);
        if written > 0 {
            self.torn = bytes[written - 1] != b'\n';
        }
        if written >= before {
            self.head.clear();
        }
        if let Some((length, digest)) = self.named.as_mut().and_then(|one| one.digest.as_mut()) {
            *length += written as u64;
            digest.update(&bytes[..written]);
        }
        let lost = bytes[written.max(before)..].iter().filter(|byte| **byte == b'\n').count();
        (lost as u64, result)
    }
}

impl Named {
    fn is_due(&mut self, rotation: Rotation, now: SystemTime, more_bytes: u64) -> bool {
        if self.not_before.is_some_and(|then| now < then) {
            return false;
        }
        let Ok(length) = self.file.metadata().map(|metadata| metadata.len()) else { return false };
        if length == 0 {
            self.period = rotation.period(now);
            return false;
        }
        let is_full = rotation.bytes_max.is_some_and(|most| length + more_bytes > most);
        is_full || self.period != rotation.period(now)
    }

    /// Whether it was moved, by us or by somebody else; not while another process is about it.
    fn move_away(&mut self, keep: u64) -> io::Result<bool> {
        match self.file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(false),
            // A file system without locks: as well as it goes.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let moved = self.move_alone(keep);
        let _ = self.file.unlock();
        moved.map(|()| true)
    }

    /// Moves it where it is still the one of that name: who had the lock before may have moved it.
    fn move_alone(&self, keep: u64) -> io::Result<()> {
        let there = fs::metadata(&self.path).map(|there| (there.dev(), there.ino()));
        let ours = self.file.metadata().map(|ours| (ours.dev(), ours.ino()))?;
        if there.ok() != Some(ours) {
            // Somebody else has moved it.
            return Ok(());
        }
        for number in (1..keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u64) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// Ends a file of which every byte is known with what it can be checked by (RFC 7937
    /// section 3.3: `SHA256-hash`).
    fn finish(&mut self) {
        let Some((length, digest)) = self.digest.take() else { return };
        if length == 0 || self.file.metadata().is_ok_and(|metadata| metadata.len() != length) {
            return;
        }
        let mut line = "#SHA256-hash:\t".to_owned();
        for byte in digest.finish().as_ref() {
            write!(line, "{byte:02x}").expect("a String takes everything");
        }
        line.push_str("\r\n");
        let (_, result) = write_what_goes(&mut self.file, line.as_bytes());
        if let Err(error) = result {
            tracing::warn!(path = %self.path.display(), %error, "access log has no hash");
        }
    }
}

/// A stream that another process may write to as well, as in an upgrade: at once it is given whole
/// lines, of no more bytes than a pipe keeps together (pipe(7), `PIPE_BUF`). Only a longer line may
/// have others' in it.
struct WholeLines<W>(W);

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let kept_together = &bytes[..bytes.len().min(libc::PIPE_BUF)];
        let is_end = |byte: &u8| *byte == b'\n';
        let end = kept_together.iter().rposition(is_end);
        let end = end.or_else(|| bytes.iter().position(is_end)).map_or(bytes.len(), |at| at + 1);
        self.0.write(&bytes[..end])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a process that was killed, or a full disk, left half a line.
fn ends_torn(path: &Path, length: u64) -> bool {
    let mut last = [b'\n'];
    let Some(at) = length.checked_sub(1) else { return false };
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, at));
    read.is_ok() && last != [b'\n']
}

/// Like `write_all`, but tells how far it came.
pub(super) fn write_what_goes(file: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::sync::{Arc, Mutex};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn output(path: &Path, format: Format, rotation: Rotation) -> Output {
        Output::of_file(path, format, Some(rotation)).unwrap()
    }

    fn write(output: &mut Output, lines: &str) {
        let (lost, result) = output.write(lines);
        assert!(lost == 0 && result.is_ok(), "{lost} {result:?}");
    }

    fn read(path: &Path, number: u64) -> Option<String> {
        let name = match number {
            0 => path.to_owned(),
            number => PathBuf::from(format!("{}.{number}", path.display())),
        };
        fs::read_to_string(name).ok()
    }

    /// Tells of each write.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_two_processes_on_one_pipe_are_not_mixed_up() {
        let line = |letter: &str, length: usize| letter.repeat(length - 1) + "\n";
        let (long, nine) = (line("z", 10_000), line("a", 1_000).repeat(9));
        let told = Told::default();
        write(&mut Output::to(WholeLines(told.clone())), &(nine.clone() + &long + &nine));
        let of_nine = [4, 4, 1].map(|lines| line("a", 1_000).repeat(lines));
        assert_eq!(*told.0.lock().unwrap(), [&of_nine[..], &[long], &of_nine].concat());

        let (reader, writer) = io::pipe().unwrap();
        for letter in ["a", "b"] {
            let mut output = Output::to(WholeLines(writer.try_clone().unwrap()));
            let lines = line(letter, 1_000).repeat(64);
            thread::spawn(move || (0..32).for_each(|_| write(&mut output, &lines)));
        }
        drop(writer);
        let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2 * 32 * 64);
        let is_ones =
            |one: &String| [line("a", 1_000), line("b", 1_000)].contains(&format!("{one}\n"));
        assert!(lines.iter().all(is_ones));
    }

    #[test]
    fn a_file_is_moved_before_it_is_too_large_and_no_line_is_lost_or_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotation = Rotation { bytes_max: Some(1_000), every: None, keep: 1_000 };
        let mut output = output(&path, Format::Json, rotation);
        let mut numbers = 0..10_000;
        while let Some(first) = numbers.next() {
            let more = numbers.by_ref().take(first % 7);
            let lines: String = [first].into_iter().chain(more).map(|n| format!("{n}\n")).collect();
            output.move_if_due(SystemTime::now(), lines.len());
            write(&mut output, &lines);
        }
        let files: Vec<String> = (0..).map_while(|number| read(&path, number)).collect();
        assert!(files.len() > 40, "{}", files.len());
        assert!(files.iter().all(|file| file.len() <= 1_000 && file.ends_with('\n')));
        let lines = files.iter().rev().flat_map(|file| file.lines());
        assert!(lines.eq((0..10_000).map(|number| number.to_string())));
    }

    #[test]
    fn a_new_period_begins_a_new_file_and_so_many_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotation = Rotation { bytes_max: None, every: Some(DAY), keep: 2 };
        let mut output = output(&path, Format::Json, rotation);
        let today = SystemTime::now();
        for (days, line) in [(0, "a\n"), (0, "b\n"), (1, "c\n"), (3, "d\n"), (4, "e\n")] {
            output.move_if_due(today + days * DAY, line.len());
            write(&mut output, line);
            // Made now, and not on the day that is told here.
            output.named.as_mut().unwrap().period = rotation.period(today + days * DAY);
        }
        let files = [0, 1, 2, 3].map(|number| read(&path, number));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(files, [some("e\n"), some("d\n"), some("c\n"), None]);
    }

    #[test]
    fn a_file_that_somebody_else_has_moved_is_opened_anew_and_not_moved_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotation = Rotation { bytes_max: Some(4), every: None, keep: 3 };
        let [mut one, mut other] = [(); 2].map(|()| output(&path, Format::Json, rotation));
        write(&mut one, "a\n");
        write(&mut other, "b\n");
        for output in [&mut one, &mut other] {
            output.move_if_due(SystemTime::now(), 2);
            write(output, "c\n");
        }
        assert_eq!([0, 1].map(|n| read(&path, n).unwrap()), ["c\nc\n", "a\nb\n"]);
        assert_eq!(read(&path, 2), None);
    }

    #[test]
    fn a_file_that_another_process_is_about_to_move_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotation = Rotation { bytes_max: Some(4), every: None, keep: 3 };
        let [mut one, mut other] = [(); 2].map(|()| output(&path, Format::Json, rotation));
        write(&mut one, "a\nb\n");
        let file = &one.named.as_ref().unwrap().file;
        file.lock().unwrap();
        other.move_if_due(SystemTime::now(), 2);
        write(&mut other, "c\n");
        assert_eq!(read(&path, 1), None);
        file.unlock().unwrap();
        for output in [&mut one, &mut other] {
            output.move_if_due(SystemTime::now(), 2);
            write(output, "d\n");
        }
        assert_eq!([0, 1].map(|n| read(&path, n).unwrap()), ["d\nd\n", "a\nb\nc\n"]);
        assert_eq!(read(&path, 2), None);
    }

    #[test]
    fn a_file_that_cannot_be_moved_grows_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::create_dir(folder.path().join("access.log.1")).unwrap();
        let rotation = Rotation { bytes_max: Some(4), every: None, keep: 1 };
        let mut output = output(&path, Format::Json, rotation);
        for _ in 0..4 {
            output.move_if_due(SystemTime::now(), 2);
            write(&mut output, "a\n");
        }
        assert_eq!(read(&path, 0).unwrap(), "a\na\na\na\n");
    }

    #[test]
    fn half_a_line_of_before_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(&path, "whole\nha").unwrap();
        write(&mut Output::of_file(&path, Format::Json, None).unwrap(), "a\n");
        assert_eq!(read(&path, 0).unwrap(), "whole\nha\na\n");
    }

    #[test]
    fn a_cdni_file_that_is_moved_ends_with_the_hash_of_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotation = Rotation { bytes_max: Some(1), every: None, keep: 2 };
        let mut output = output(&path, Format::Cdni, rotation);
        write(&mut output, "a record\r\n");
        write(&mut output, "another\r\n");
        output.move_if_due(SystemTime::now(), 1);
        write(&mut output, "the next\r\n");
        let moved = read(&path, 1).unwrap();
        let (content, hash) = moved.split_once("#SHA256-hash:\t").unwrap();
        assert!(content.starts_with("#version:\tcdni/1.0\r\n"));
        assert!(content.ends_with("s-cached\r\na record\r\nanother\r\n"), "{content}");
        let expected = digest::digest(&digest::SHA256, content.as_bytes());
        let hex: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, hex + "\r\n");
        // One that goes on after a restart has a part that nobody has hashed.
        drop(output);
        let mut output = Output::of_file(&path, Format::Cdni, Some(rotation)).unwrap();
        write(&mut output, "after\r\n");
        output.reopen();
        let text = read(&path, 0).unwrap();
        assert!(
            text.ends_with(
                "the next\r\n#record-type:\tcdni_http_request_v1\r\n#fields:\tdate\t\
            time\ttime-taken\tc-groupid\tcs-method\tu-uri\tprotocol\tsc-status\tsc-total-bytes\t\
            sc-entity-bytes\tcs(User-Agent)\tcs(Referer)\ts-cached\r\nafter\r\n"
            ),
            "{text}"
        );
    }
}
