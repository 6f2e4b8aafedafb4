//! Opening a volume's file or block device, and making the file.
//!
//! Direct I/O or not at all: on a filesystem that can't do it a volume is refused, because its
//! bytes would pass the page cache. A volume belongs to one process: who opens it holds a lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, MemfdFlags, StatxFlags, fallocate, flock, fstatvfs,
    ioctl_blksszget, memfd_create, statx,
};
use rustix::io::Errno;

pub use self::error::{CreateError, OpenError};
use super::threads::Threads;
use super::uring::Uring;
use super::{Buffer, Device, Granules, Operation, Transfer, Urgency, threads, uring};
use crate::limits::GRANULE_SIZE_BYTES;

mod error;

/// How long the first read may take before it counts as begun well: a slow device is no reason to
/// do without io_uring.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// How long a volume may be in use before it counts as another process's: one that is just ending
/// has let go of it by then.
const LOCK_WITHIN: Duration = Duration::from_secs(3);
/// Between looks whether it is: a lock can't be waited for with a limit, and in a start nobody
/// notices so little.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring if a read through it succeeds, else threads.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Threads.
    Threads,
}

/// What a device is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody else may have it open.
    #[default]
    ReadWrite,
    /// Others may have it open to read too, unless it is a block device.
    ReadOnly,
}

/// How to open a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How to talk to the kernel.
    pub engine: EngineChoice,
    /// What for.
    pub access: Access,
}

/// Opens the file or block device at `path`, all of it. Blocks: not for a serving thread. Nor is
/// dropping the last of the device, which waits for what is under way, five seconds at most.
///
/// # Errors
/// One line about what is wrong; nothing was changed.
pub fn open(path: &Path, options: &Options) -> Result<Arc<dyn Device>, OpenError> {
    let kind = kind_of(path)?;
    let claim = match kind {
        Kind::BlockDevice => Some(open_direct(path, options.access, libc::O_EXCL)?),
        Kind::File => None,
    };
    let mut file = open_direct(path, options.access, 0)?;
    let end_bytes = file.seek(SeekFrom::End(0)).map_err(|e| OpenError::failed(path, e))?;
    let size_bytes = end_bytes - end_bytes % GRANULE_SIZE_BYTES;
    check_size(path, end_bytes)?;
    if is_write_protected(kind, &file, options.access) {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    check_alignment(path, kind, &file)?;
    let file = Arc::new(Locked::lock(path, file, claim, options.access)?);
    match options.engine {
        EngineChoice::Threads => on_threads(path, file, size_bytes),
        EngineChoice::Uring => on_uring(path, file, size_bytes),
        EngineChoice::Auto => match on_uring(path, Arc::clone(&file), size_bytes) {
            Err(OpenError::NoUring { source, .. }) => {
                tracing::info!(path = %path.display(), error = %source, "no io_uring: threads");
                on_threads(path, file, size_bytes)
            }
            opened => opened,
        },
    }
}

/// Whether a ring can be made, and read through: of memory, so that no drive has to be there.
/// Blocks.
///
/// # Errors
/// The kernel's about the ring.
pub fn try_uring() -> io::Result<()> {
    let file = File::from(memfd_create("tidegate-ring", MemfdFlags::CLOEXEC)?);
    file.set_len(GRANULE_SIZE_BYTES)?;
    let device = Uring::start(Arc::new(Locked::new(file, None)), GRANULE_SIZE_BYTES, uring::LANES)?;
    probe(&device)
}

/// Opens it to look at it beside whoever has it open: nothing is locked, and what is written in the
/// meantime may not be seen. And its size. Blocks.
///
/// # Errors
/// One line about what is wrong.
pub fn look(path: &Path) -> Result<(File, u64), OpenError> {
    kind_of(path)?;
    let mut file = File::open(path).map_err(|e| OpenError::failed(path, e))?;
    let size_bytes = file.seek(SeekFrom::End(0)).map_err(|e| OpenError::failed(path, e))?;
    check_size(path, size_bytes)?;
    Ok((file, size_bytes))
}

fn check_size(path: &Path, size_bytes: u64) -> Result<(), OpenError> {
    match size_bytes < GRANULE_SIZE_BYTES {
        true => Err(OpenError::Tiny { path: path.to_owned(), size_bytes }),
        false => Ok(()),
    }
}

/// Makes a file of `size_bytes` at `path` and takes all its space from the filesystem, so that it
/// can't run out of it later. Blocks: seconds, on some filesystems.
///
/// # Errors
/// One line about what is wrong. Nothing that exists is touched, and nothing new is left.
pub fn create(path: &Path, size_bytes: u64) -> Result<(), CreateError> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(GRANULE_SIZE_BYTES) {
        return Err(CreateError::Size { size_bytes });
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|source| CreateError::of_file(path, size_bytes, source))?;
    let allocated = allocate(path, &file, size_bytes).and_then(|()| settle(path, &file));
    if allocated.is_err()
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "a file could not be removed again");
    }
    allocated
}

fn allocate(path: &Path, file: &File, size_bytes: u64) -> Result<(), CreateError> {
    // Asked first: some filesystems take what there is before they say that it is not enough.
    if let Ok(free) = fstatvfs(file) {
        let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        if free_bytes < size_bytes {
            let path = path.to_owned();
            return Err(CreateError::NoSpace { path, size_bytes, free_bytes: Some(free_bytes) });
        }
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(CreateError::of_space(path, size_bytes, error.into())),
        }
    }
}

/// The file and its name survive a loss of power.
fn settle(path: &Path, file: &File) -> Result<(), CreateError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let synced =
        file.sync_all().and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all());
    synced.map_err(|source| CreateError::Failed { path: path.to_owned(), source })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    BlockDevice,
}

fn kind_of(path: &Path) -> Result<Kind, OpenError> {
    let kind = fs::metadata(path).map_err(|e| OpenError::failed(path, e))?.file_type();
    let path = PathBuf::from(path);
    match () {
        () if kind.is_file() => Ok(Kind::File),
        () if kind.is_block_device() => Ok(Kind::BlockDevice),
        () if kind.is_dir() => Err(OpenError::Directory { path }),
        () => Err(OpenError::NoStorage { path }),
    }
}

/// On a block device `O_EXCL` keeps out whoever else asks for it so, mounts among them.
fn open_direct(path: &Path, access: Access, exclusive: i32) -> Result<File, OpenError> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite);
        options.custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive).open(path)
    };
    let until = Instant::now() + LOCK_WITHIN;
    let mut opened = open();
    // As for the lock of a file.
    while opened.as_ref().is_err_and(is_busy) && Instant::now() < until {
        thread::sleep(LOCK_PAUSE);
        opened = open();
    }
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => OpenError::NoDirectIo { path: path.to_owned() },
        _ => OpenError::failed(path, source),
    })
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

/// A block device that was made read-only opens all the same, and fails at the first write.
fn is_write_protected(kind: Kind, file: &File, access: Access) -> bool {
    let Ok(number) = file.metadata().map(|metadata| metadata.rdev()) else { return false };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    kind == Kind::BlockDevice
        && access == Access::ReadWrite
        && fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro"))
            .is_ok_and(|read_only| read_only.trim() == "1")
}

fn check_alignment(path: &Path, kind: Kind, file: &File) -> Result<(), OpenError> {
    let mut needs_bytes = 0;
    if kind == Kind::BlockDevice {
        needs_bytes = ioctl_blksszget(file).map_err(|e| OpenError::failed(path, e.into()))?;
    }
    // Not every kernel knows; then the first read shows it.
    if let Ok(known) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && known.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        if known.stx_dio_offset_align == 0 {
            return Err(OpenError::NoDirectIo { path: path.to_owned() });
        }
        needs_bytes = needs_bytes.max(known.stx_dio_offset_align).max(known.stx_dio_mem_align);
    }
    match u64::from(needs_bytes) > GRANULE_SIZE_BYTES {
        true => Err(OpenError::Alignment { path: path.to_owned(), needs_bytes }),
        false => Ok(()),
    }
}

/// A file that is ours. The lock is given up when this is dropped, not when the kernel gets round
/// to closing the last reference, which a ring may delay.
#[derive(Debug)]
pub(super) struct Locked {
    file: File,
    /// A block device, open so that nobody else has it so: what is read goes on without.
    claim: Mutex<Option<File>>,
}

impl Locked {
    fn new(file: File, claim: Option<File>) -> Locked {
        Locked { file, claim: Mutex::new(claim) }
    }

    /// Waits a little: of a process that was killed, the kernel keeps the file until what it had
    /// begun is over.
    fn lock(
        path: &Path,
        file: File,
        claim: Option<File>,
        access: Access,
    ) -> Result<Locked, OpenError> {
        let operation = match access {
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        };
        let until = Instant::now() + LOCK_WITHIN;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Locked::new(file, claim)),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(OpenError::InUse { path: path.to_owned(), is_device: false });
                }
                Err(error) => return Err(OpenError::failed(path, error.into())),
            }
        }
    }

    /// A file nobody else can know of.
    #[cfg(test)]
    pub(super) fn unlocked(file: File) -> Arc<Locked> {
        Arc::new(Locked::new(file, None))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Somebody else may have it.
    pub(super) fn unlock(&self) {
        let _ = flock(self.file.as_fd(), FlockOperation::Unlock);
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.unlock();
    }
}

fn on_uring(path: &Path, file: Arc<Locked>, size_bytes: u64) -> Result<Arc<dyn Device>, OpenError> {
    let refused = |source| OpenError::NoUring { path: path.to_owned(), source };
    let device = Uring::start(file, size_bytes, uring::LANES).map_err(refused)?;
    match probe(&device) {
        // What a kernel says that has a ring and does not let it read.
        Err(source)
            if matches!(
                source.raw_os_error(),
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM | libc::EACCES | libc::ENOSYS)
            ) =>
        {
            Err(refused(source))
        }
        // A bad first sector is no reason: the superblock has copies.
        _ => Ok(Arc::new(device)),
    }
}

fn on_threads(
    path: &Path,
    file: Arc<Locked>,
    size_bytes: u64,
) -> Result<Arc<dyn Device>, OpenError> {
    let device = Threads::start(file, size_bytes, threads::LANES);
    let device = device.map_err(|source| OpenError::failed(path, source))?;
    match probe(&device) {
        Err(source) if source.raw_os_error() == Some(libc::EINVAL) => {
            Err(OpenError::NoDirectIo { path: path.to_owned() })
        }
        _ => Ok(Arc::new(device)),
    }
}

/// Reads the first granule.
fn probe(device: &dyn Device) -> io::Result<()> {
    let (tell, heard) = sync_channel(1);
    let done = Box::new(move |done: super::Done| drop(tell.try_send(done.result)));
    let into = vec![Buffer::Own(Granules::zeroed(1))];
    let operation = Operation::Read { at: 0, into };
    let transfer = Transfer { operation, urgency: Urgency::Viewer, done };
    device.submit(transfer).expect("the queue of a new device is empty");
    heard.recv_timeout(PROBE_MAX).unwrap_or(Ok(()))
}
