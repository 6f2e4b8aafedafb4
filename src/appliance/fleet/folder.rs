//! Files of the fleet's state folder: replaced whole, safe when that returns, and for their owner.
//!
//! Whoever enrols a box may be root, and not who serves: what root writes belongs to whom the
//! folder belongs to. All here blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::config::paths::folder_of;

/// A file that is to be put in the place of another, if that comes to an end.
pub(super) struct Replacement {
    file: File,
    new: PathBuf,
    path: PathBuf,
}

impl Replacement {
    /// Begins one, and its folder where there is none: from then on it is known that it can be
    /// written there.
    pub(super) fn begin(path: &Path) -> io::Result<Replacement> {
        let folder = folder_of(path);
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            give(folder, folder_of(folder))?;
        }
        // Another process may write one too.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", std::process::id()));
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let begun = Replacement { file, new, path: path.to_owned() };
        if geteuid().is_root() {
            let owner = fs::metadata(folder)?;
            fchown(&begun.file, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(begun)
    }

    /// Writes it, and puts it in its place.
    pub(super) fn finish(mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        fs::rename(&self.new, &self.path)?;
        File::open(folder_of(&self.path))?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Where it is in its place, there is none of this name.
        let _ = fs::remove_file(&self.new);
    }
}

/// Replaces a file whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Replacement::begin(path)?.finish(bytes)
}

/// A file of no more than `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let bytes = fs::metadata(path)?.len();
    match bytes <= bytes_max as u64 {
        true => fs::read(path),
        false => Err(io::Error::other(format!("{bytes} bytes are too many"))),
    }
}

/// What root made is theirs to whom `other` belongs.
fn give(made: &Path, other: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(other)?;
    chown(made, Some(owner.uid()), Some(owner.gid()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_stays_as_it_was_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/secret");
        replace(&path, b"one").unwrap();
        drop(Replacement::begin(&path).unwrap());
        assert_eq!(read(&path, 3).unwrap(), b"one");
        replace(&path, b"two and more").unwrap();
        assert_eq!(read(&path, 100).unwrap(), b"two and more");
        assert!(read(&path, 3).is_err());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left");
    }
}
