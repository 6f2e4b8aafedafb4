//! The facts of a machine as files: `/proc`, `/sys` and `/run` under a root folder, which tests
//! bring themselves. What cannot be read is `None`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where `/proc`, `/sys` and `/run` are.
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
    use super::super::tests::with;

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
