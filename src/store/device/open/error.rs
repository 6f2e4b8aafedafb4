//! Why a device can't be opened or a file not be made: one line each.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a device can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is nothing there.
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// It is a directory.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// It is neither a file nor a block device.
    NoStorage {
        /// Where.
        path: PathBuf,
    },
    /// Not even one granule.
    Tiny {
        /// Where.
        path: PathBuf,
        /// What it has.
        size_bytes: u64,
    },
    /// Another process uses it, or the system does, which only a block device can be.
    InUse {
        /// Where.
        path: PathBuf,
        /// Whether the system may be who uses it.
        is_device: bool,
    },
    /// A file system is on it, and in use.
    Mounted {
        /// Where it is.
        path: PathBuf,
        /// Where that is mounted.
        at: String,
    },
    /// Who runs this may not.
    NoPermission {
        /// Where.
        path: PathBuf,
    },
    /// It can't be written: write-protected, or mounted so.
    ReadOnly {
        /// Where.
        path: PathBuf,
    },
    /// The filesystem has no direct I/O.
    NoDirectIo {
        /// Where.
        path: PathBuf,
    },
    /// Direct I/O only in larger parts than a granule.
    Alignment {
        /// Where.
        path: PathBuf,
        /// What it needs.
        needs_bytes: u32,
    },
    /// io_uring was asked for, and the kernel does not allow it.
    NoUring {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    Failed {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn failed(path: &Path, source: io::Error) -> OpenError {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => OpenError::Missing { path },
            Some(libc::EACCES | libc::EPERM) => OpenError::NoPermission { path },
            Some(libc::EROFS) => OpenError::ReadOnly { path },
            Some(libc::EBUSY) => OpenError::busy(path),
            _ => OpenError::Failed { path, source },
        }
    }

    /// Only block devices are refused so by the system.
    fn busy(path: PathBuf) -> OpenError {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let number = fs::metadata(&path).map(|found| found.rdev()).unwrap_or_default();
        match mounted_at(&mounts, number) {
            Some(at) => OpenError::Mounted { path, at },
            None => OpenError::InUse { path, is_device: true },
        }
    }
}

impl OpenError {
    /// What to do about it, to be appended to it.
    pub fn remedy(&self) -> &'static str {
        match self {
            OpenError::InUse { .. } => {
                "; if that is the appliance, `tidegate status` shows the volume, and the appliance \
                 has to be stopped first"
            }
            OpenError::ReadOnly { .. } => {
                "; remount its file system, or make the device, so that it can be written"
            }
            OpenError::NoPermission { .. } => {
                "; let this user read and write it, by mode or owner (`lsattr` shows what is \
                 immutable)"
            }
            _ => "",
        }
    }
}

/// Where the device of this number is mounted, by the kernel's list of mounts: the third field of a
/// line is the device, the fifth the place (proc_pid_mountinfo(5)).
fn mounted_at(mounts: &str, number: u64) -> Option<String> {
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let fields = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        fields.next().zip(fields.nth(1)).map(|(device, at)| (device.to_owned(), at.to_owned()))
    };
    mounts.lines().filter_map(fields).find(|(device, _)| *device == number).map(|(_, at)| at)
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use OpenError::*;
        match self {
            Missing { path } => write!(f, "{} does not exist", path.display()),
            Directory { path } => {
                write!(f, "{} is a directory, not a file or a block device", path.display())
            }
            NoStorage { path } => {
                write!(f, "{} is neither a file nor a block device", path.display())
            }
            Tiny { path, size_bytes } => write!(
                f,
                "{} has {size_bytes} bytes, which is no volume: that has 256 MiB at least",
                path.display()
            ),
            InUse { path, is_device: false } => {
                write!(f, "{} is in use by another process", path.display())
            }
            InUse { path, is_device: true } => write!(
                f,
                "{} is in use by another process or by the system (a partition of it is mounted, \
                 or it is a part of a RAID, of LVM or of the swap)",
                path.display()
            ),
            Mounted { path, at } => write!(
                f,
                "{} has a file system that is mounted at {at}; a volume takes a device of its own, \
                 or a file in that file system",
                path.display()
            ),
            NoPermission { path } => write!(f, "no permission to open {}", path.display()),
            ReadOnly { path } => write!(f, "{} is read-only", path.display()),
            NoDirectIo { path } => write!(
                f,
                "the filesystem of {} has no direct I/O (O_DIRECT), which a volume needs",
                path.display()
            ),
            Alignment { path, needs_bytes } => write!(
                f,
                "{} is read and written in {needs_bytes} bytes at a time, a volume in 4096",
                path.display()
            ),
            NoUring { path, source } => {
                write!(f, "{} can't be read through io_uring: {source}", path.display())
            }
            Failed { path, source } => write!(f, "{} can't be opened: {source}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::NoUring { source, .. } | OpenError::Failed { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a file can't be made.
#[derive(Debug)]
pub enum CreateError {
    /// Not a size of whole granules.
    Size {
        /// What was asked for.
        size_bytes: u64,
    },
    /// Something is there already.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Its directory does not exist.
    NoDirectory {
        /// Where.
        path: PathBuf,
    },
    /// Who runs this may not.
    NoPermission {
        /// Where.
        path: PathBuf,
    },
    /// It lies where nothing can be written.
    ReadOnly {
        /// Where.
        path: PathBuf,
    },
    /// The filesystem is too full.
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What was asked for.
        size_bytes: u64,
        /// What there is, if that is known.
        free_bytes: Option<u64>,
    },
    /// Larger than a file may be there.
    TooLarge {
        /// Where.
        path: PathBuf,
        /// What was asked for.
        size_bytes: u64,
    },
    /// The filesystem can't take space in advance.
    NoAllocation {
        /// Where.
        path: PathBuf,
    },
    /// Anything else.
    Failed {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CreateError {
    pub(super) fn of_file(path: &Path, size_bytes: u64, source: io::Error) -> CreateError {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::EEXIST | libc::EISDIR) => CreateError::Exists { path },
            Some(libc::ENOENT | libc::ENOTDIR) => CreateError::NoDirectory { path },
            Some(libc::EACCES | libc::EPERM) => CreateError::NoPermission { path },
            Some(libc::EROFS) => CreateError::ReadOnly { path },
            Some(libc::ENOSPC | libc::EDQUOT) => {
                CreateError::NoSpace { path, size_bytes, free_bytes: None }
            }
            _ => CreateError::Failed { path, source },
        }
    }

    pub(super) fn of_space(path: &Path, size_bytes: u64, source: io::Error) -> CreateError {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                CreateError::NoSpace { path, size_bytes, free_bytes: None }
            }
            Some(libc::EFBIG) => CreateError::TooLarge { path, size_bytes },
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => CreateError::NoAllocation { path },
            _ => CreateError::Failed { path, source },
        }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CreateError::*;
        match self {
            Size { size_bytes } => {
                write!(f, "a volume of {size_bytes} bytes: its size is a multiple of 4096")
            }
            Exists { path } => write!(f, "{} exists already", path.display()),
            NoDirectory { path } => {
                write!(f, "the directory of {} does not exist", path.display())
            }
            NoPermission { path } => write!(f, "no permission to create {}", path.display()),
            ReadOnly { path } => {
                write!(f, "{} can't be created: its place is mounted read-only", path.display())
            }
            NoSpace { path, size_bytes, free_bytes: Some(free_bytes) } => write!(
                f,
                "no room for {} of {size_bytes} bytes: {free_bytes} are free",
                path.display()
            ),
            NoSpace { path, size_bytes, free_bytes: None } => {
                write!(f, "no room for {} of {size_bytes} bytes", path.display())
            }
            TooLarge { path, size_bytes } => write!(
                f,
                "{} would be of {size_bytes} bytes: larger than a file may be there",
                path.display()
            ),
            NoAllocation { path } => write!(
                f,
                "the filesystem of {} can't take space in advance (fallocate)",
                path.display()
            ),
            Failed { path, source } => {
                write!(f, "{} can't be created: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CreateError::Failed { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_mounted_is_told_with_the_place() {
        let mounts = "\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
31 22 259:13 / /mnt/a\\040film rw shared:9 - xfs /dev/nvme1n1 rw
";
        let at = |minor| mounted_at(mounts, rustix::fs::makedev(259, minor));
        assert_eq!(at(13).as_deref(), Some("/mnt/a\\040film"));
        assert_eq!((at(2).as_deref(), at(1), at(3)), (Some("/"), None, None));
        let (path, at) = (PathBuf::from("/dev/nvme1n1"), "/srv".to_owned());
        let told = OpenError::Mounted { path, at }.to_string();
        assert!(told.starts_with("/dev/nvme1n1 has a file system that is mounted at /srv; "));
    }
}
