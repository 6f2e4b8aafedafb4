//! What goes into a volume and what comes out: the values of its interface.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::object::{BlockKey, BlockSize, PieceMap, VersionId};
use crate::store::device::{DeviceError, Lent};
use crate::store::format::{FilledFor, FormatError, VolumeId};
use crate::store::ledger::ReappendRule;
use crate::store::{ObjectHash, SiteHash};

use super::health::State;

/// How a volume behaves.
#[derive(Clone, Debug)]
pub struct VolumeSettings {
    /// As the operator calls it: what the log says of it begins so. Empty: its id.
    pub name: String,
    /// What the operator is told to do when it has failed: the end of a line in the log.
    pub remedy: String,
    /// The size of blocks that it is used with: a volume made for another is refused. `None`:
    /// whatever it was made for.
    pub block: Option<BlockSize>,
    /// What a read may take, queue included; later it is given up.
    pub read_deadline: Duration,
    /// From one checkpoint to the next.
    pub checkpoint_interval: Duration,
    /// What is appended again when its region is given up.
    pub reappend: ReappendRule,
    /// How long a head waits for others to share a granule with.
    pub head_linger: Duration,
    /// What is remembered of it: it is used no more than this allows, and not written when it is
    /// opened either. Unless it is online, its heads must be revalidated: what was forgotten since
    /// it could not be written is on it still.
    pub left_as: State,
}

impl Default for VolumeSettings {
    fn default() -> VolumeSettings {
        VolumeSettings {
            name: String::new(),
            remedy: "`tidegate volume verify` looks at it, `tidegate volume forgive` takes it for \
                     well"
                .to_owned(),
            block: None,
            read_deadline: Duration::from_secs(2),
            checkpoint_interval: Duration::from_secs(300),
            reappend: ReappendRule::default(),
            head_linger: Duration::from_millis(50),
            left_as: State::Online,
        }
    }
}

impl VolumeSettings {
    /// What the log calls the volume of this id.
    pub(super) fn name_of(&self, id: VolumeId) -> Arc<str> {
        if self.name.is_empty() { id.to_string().into() } else { self.name.as_str().into() }
    }
}

/// Pieces of a block to be written.
pub struct BlockWrite {
    /// The object whose version it is.
    pub object: ObjectHash,
    /// Its site.
    pub site: SiteHash,
    /// Which block.
    pub block: BlockKey,
    /// When the bytes were asked for, in microseconds of Unix time.
    pub birth: u64,
    /// Which pieces.
    pub pieces: PieceMap,
    /// Their bytes in order; each part starts with a piece, and only the last piece of all may be
    /// short. What is aligned to a granule is written from where it is.
    pub parts: Vec<Bytes>,
    /// Why it was filled.
    pub filled_for: FilledFor,
    /// Dropped when the write is over: what the bytes are reserved with.
    pub guard: Box<dyn Send>,
}

/// A head to be written; it takes the place of the object's head, if it has one.
pub struct HeadWrite {
    /// Whose head.
    pub object: ObjectHash,
    /// Its site.
    pub site: SiteHash,
    /// When it was asked for, in microseconds of Unix time.
    pub birth: u64,
    /// The head, as the caller writes it; never empty.
    pub payload: Bytes,
    /// The body too, if it is at most a piece.
    pub body: Option<SmallBody>,
    /// Dropped when the write is over.
    pub guard: Box<dyn Send>,
}

/// The whole body of a small object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallBody {
    /// Its version.
    pub version: VersionId,
    /// All its bytes: one at least, a piece at most.
    pub bytes: Bytes,
}

/// Consecutive pieces of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The first.
    pub first: u32,
    /// How many; one at least.
    pub count: u32,
}

/// What was read of a block.
pub struct Read {
    /// The memory that was lent for it.
    pub lent: Box<dyn Lent>,
    /// So many bytes from its start are the pieces, verified.
    pub bytes: usize,
    /// So many pieces, from the first one that was asked for.
    pub pieces: u32,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pieces of {} bytes", self.pieces, self.bytes)
    }
}

/// How far a head is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is the last one that was written.
    Newest,
    /// What was known of the volume is lost: there may have been a newer one.
    MustRevalidate,
}

/// A head that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadFound {
    /// The object's site.
    pub site: SiteHash,
    /// When it was asked for, in microseconds of Unix time.
    pub birth: u64,
    /// As it was written.
    pub payload: Bytes,
    /// The body, if it was written with it.
    pub body: Option<SmallBody>,
    /// How far it is to be believed.
    pub trust: Trust,
}

/// Why nothing was read. All but `Absent` are worth a metric; to a viewer all are a miss.
#[derive(Debug)]
pub enum ReadError {
    /// It is not on the volume, or not any more.
    Absent,
    /// What is there is not what was written; it is forgotten now.
    Mismatch,
    /// It took longer than it may.
    Late,
    /// The device said so.
    Failed(io::Error),
    /// The queue of the device is full.
    Busy,
    /// The volume is offline.
    Offline,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Absent => f.write_str("it is not on the volume"),
            ReadError::Mismatch => f.write_str("what was read is not what was written"),
            ReadError::Late => f.write_str("the volume did not answer in time"),
            ReadError::Failed(source) => write!(f, "the volume could not be read: {source}"),
            ReadError::Busy => f.write_str("the queue of the volume is full"),
            ReadError::Offline => f.write_str("the volume is offline"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Failed(source) => Some(source),
            _ => None,
        }
    }
}

/// Why a write was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Too much is waiting already.
    QueueFull,
    /// The index has no place for another record.
    IndexFull,
    /// It does not fit into a region, or no region can be given up for it.
    NoRoom,
    /// The volume is not written any more.
    ReadOnly,
    /// The volume is offline, or being closed.
    Offline,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Refused; 5] = [
        Refused::QueueFull,
        Refused::IndexFull,
        Refused::NoRoom,
        Refused::ReadOnly,
        Refused::Offline,
    ];

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Refused::QueueFull => "queue-full",
            Refused::IndexFull => "index-full",
            Refused::NoRoom => "no-room",
            Refused::ReadOnly => "read-only",
            Refused::Offline => "offline",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::QueueFull => "too much waits to be written",
            Refused::IndexFull => "the index is full",
            Refused::NoRoom => "there is no room for it",
            Refused::ReadOnly => "the volume is read-only",
            Refused::Offline => "the volume is offline",
        })
    }
}

impl std::error::Error for Refused {}

/// Why a volume could not be made or opened.
#[derive(Debug)]
pub enum VolumeError {
    /// What is on the device is no volume that can be used.
    Format(FormatError),
    /// The device failed.
    Device(DeviceError),
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeError::Format(source) => source.fmt(f),
            VolumeError::Device(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for VolumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            VolumeError::Format(source) => Some(source),
            VolumeError::Device(source) => Some(source),
        }
    }
}

impl From<FormatError> for VolumeError {
    fn from(source: FormatError) -> VolumeError {
        VolumeError::Format(source)
    }
}

impl From<DeviceError> for VolumeError {
    fn from(source: DeviceError) -> VolumeError {
        VolumeError::Device(source)
    }
}
