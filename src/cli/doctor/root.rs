//! The facts of a machine as files, and as what its programs say: `/proc`, `/sys`, `/run` and
//! `/usr` under a root folder, which tests bring themselves. What cannot be read is `None`.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// For a program to say what it knows; a drive that hangs keeps one for longer.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// More than any of them says.
const TOLD_BYTES_MAX: u64 = 1 << 20;

/// Where `/proc`, `/sys`, `/run` and `/usr` are.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn at(folder: impl Into<PathBuf>) -> Root {
        Root(folder.into())
    }

    /// `path` is written as it is on the machine itself, without the first slash.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// What a file says, without white space around it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        // Not all that `/proc` tells is UTF-8.
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The one number a file says.
    pub(super) fn number<T: FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The choice a file says, which is the one in brackets: `always [madvise] never`.
    pub(super) fn choice(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?;
        let (chosen, _) = text.split_once('[')?.1.split_once(']')?;
        Some(chosen.to_owned())
    }

    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// What is in a folder, by name.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The processes that can be seen: number and short name.
    pub(super) fn processes(&self) -> impl Iterator<Item = (u32, String)> {
        let numbers = self.names("proc").into_iter().filter_map(|name| name.parse().ok());
        numbers.filter_map(|number: u32| Some((number, self.text(format!("proc/{number}/comm"))?)))
    }

    /// What a program prints, whatever its exit code says.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or says nothing to its end in five seconds: it is ended then.
    pub(super) fn told_by(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new(self.path(program));
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (said, hear) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut text = String::new();
            let read = output.take(TOLD_BYTES_MAX).read_to_string(&mut text);
            // Nobody hears it who has waited long enough.
            let _ = said.send(read.map(|_| text));
        });
        let Ok(told) = hear.recv_timeout(TOLD_WITHIN) else {
            child.kill()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing"));
        };
        child.wait()?;
        told
    }

    /// The number of an appliance that is running, if one can be seen.
    pub(super) fn appliance(&self) -> Option<u32> {
        let serves = |(number, name): &(u32, String)| {
            let words = self.text(format!("proc/{number}/cmdline")).unwrap_or_default();
            name == "tidegate" && words.split('\0').nth(1) == Some("serve")
        };
        self.processes().find(serves).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{program, with};

    #[test]
    fn a_program_is_told_by_what_it_prints_and_one_that_is_missing_by_an_error() {
        let (folder, root) = with(&[("proc/x", "")]);
        program(folder.path(), "usr/bin/tell", "echo \"$1 of $LC_ALL\"; exit 3");
        assert_eq!(root.told_by("usr/bin/tell", &["a b"]).unwrap(), "a b of C\n");
        assert!(root.told_by("usr/bin/none", &[]).is_err());
    }

    #[test]
    fn an_appliance_is_found_among_the_processes() {
        let (_folder, root) = with(&[
            ("proc/7/comm", "tidegate\n"),
            ("proc/7/cmdline", "tidegate\0doctor\0"),
            ("proc/8/comm", "tidegate\n"),
            ("proc/8/cmdline", "/usr/bin/tidegate\0serve\0"),
            ("proc/self/comm", "tidegate\n"),
        ]);
        assert_eq!((root.appliance(), root.processes().count()), (Some(8), 2));
        assert_eq!(root.number::<u32>("proc/7/comm"), None);
    }
}
