//! What paths name, however they are written.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};

/// The folder a path names something in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The same wherever it is read, and wherever the process was started.
pub fn absolute(path: &Path) -> PathBuf {
    path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A device's number, or a file's own: one for all names of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Of the device itself, not of the file that names it.
    Device(u64),
    /// The file system's device, and the inode there.
    File(u64, u64),
}

impl Identity {
    /// Of what was found at a path.
    pub fn of(found: &Metadata) -> Identity {
        match found.file_type().is_block_device() {
            true => Identity::Device(found.rdev()),
            false => Identity::File(found.dev(), found.ino()),
        }
    }
}
