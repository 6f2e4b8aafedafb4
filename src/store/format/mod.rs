//! What is on a volume, byte by byte: pure encoding and decoding. `ARCHITECTURE.md` writes it down.
//!
//! Knows no device and no clock. Everything but a piece is a frame: it names its kind, its volume
//! and its own place, and has a checksum over all of it, so what is torn, stale or written to a
//! wrong place is told from what is right. A value that was decoded is valid. What a later version
//! adds (compatible feature bits, fields at the end, kinds of records and of sections) is ignored
//! or skipped by its length.

mod block;
mod checkpoint;
mod checksum;
mod footer;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod geometry;
mod packet;
mod record;
mod region;
mod superblock;
mod table;

use std::fmt;
use std::path::Path;

use super::shell_word;
use crate::limits::VOLUME_BYTES_MIN;

pub use self::block::{BlockHeader, BlockLabel, piece_checksum};
pub use self::checkpoint::{
    CheckpointHeader, REGION_SNAPSHOT_BYTES, RegionSnapshot, Section, SectionKind, SectionSum,
};
pub use self::footer::{Footer, FooterEntry, Indexed};
pub use self::geometry::{Geometry, GeometryError, Spot, VolumeId};
pub use self::packet::{Body, HeadEntry, HeadLabel, Packet, PacketBuilder};
pub use self::record::Record;
pub use self::region::RegionHeader;
pub use self::superblock::{Access, SUPERBLOCK_COPIES, Superblock, superblock_places};
pub use self::table::{ENTRIES_PER_PAGE, PageCopy, RegionEntry, RegionState, TablePage};

/// Why bytes were filled. Blocks that viewers asked for lie apart from planned ones, so a region is
/// of one or the other, whichever [`ledger::Stream`](super::ledger::Stream) brought it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilledFor {
    /// What viewers asked for.
    Demand,
    /// What was filled before anyone asked.
    Planned,
}

impl FilledFor {
    fn to_byte(self) -> u8 {
        match self {
            FilledFor::Demand => 0,
            FilledFor::Planned => 1,
        }
    }

    fn from_byte(byte: u8) -> Result<FilledFor, FormatError> {
        match byte {
            0 => Ok(FilledFor::Demand),
            1 => Ok(FilledFor::Planned),
            _ => Err(FormatError::Invalid { what: "what it was filled for", found: byte.into() }),
        }
    }
}

/// Why bytes of a volume are not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// There are only zeros: nothing was written here.
    NotAVolume,
    /// Something else is here, not written by Tidegate.
    Foreign,
    /// The frame goes on: so many bytes are needed to judge it.
    Short {
        /// From its first byte.
        needs_bytes: usize,
    },
    /// The frame's checksum is not right: the write was torn, or bits have changed.
    Torn,
    /// A frame, but not of this kind.
    WrongKind {
        /// The kind it is.
        found: u16,
    },
    /// It was written for another volume.
    AnotherVolume {
        /// For that one.
        found: VolumeId,
    },
    /// It was written for another place: a write went astray.
    WrongPlace {
        /// Where it belongs: bytes of the volume, or region (upper half) and granule in it.
        found: u64,
    },
    /// It is of another generation of its region: left from an earlier lap.
    WrongGeneration {
        /// The generation it was written in.
        found: u64,
    },
    /// A later version made the volume, in a way that this one can't read.
    Incompatible {
        /// The feature bits that are not known.
        bits: u64,
    },
    /// The volume has a shape that this version can't use.
    Geometry(GeometryError),
    /// The device is smaller than the volume on it.
    Truncated {
        /// What the volume should have.
        volume_bytes: u64,
        /// What the device has.
        device_bytes: u64,
    },
    /// The checksum is right, and a value can't be.
    Invalid {
        /// Which one.
        what: &'static str,
        /// What it is.
        found: u64,
    },
    /// It counts in blocks of another size than who wants to use it: under one key both have other
    /// bytes.
    OtherBlocks {
        /// The size of its blocks.
        block_bytes: u64,
        /// The size that is wanted.
        wanted_bytes: u64,
    },
    /// A piece is not what was written.
    Checksum {
        /// Its number in the block.
        piece: u32,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FormatError as E;
        match self {
            E::NotAVolume => f.write_str("nothing was written here"),
            E::Foreign => f.write_str("what is here was not written by Tidegate"),
            E::Short { needs_bytes } => write!(f, "cut off: it has {needs_bytes} bytes"),
            E::Torn => f.write_str("the checksum is wrong: torn or damaged"),
            E::WrongKind { found } => write!(f, "it is of kind {found}, which is not expected"),
            E::AnotherVolume { found } => write!(f, "it belongs to volume {found}"),
            E::WrongPlace { found } => write!(f, "it belongs to place {found:#x}"),
            E::WrongGeneration { found } => write!(f, "it is of generation {found}"),
            E::Incompatible { bits } => {
                write!(f, "made by a later version: features {bits:#x} are not known to this one")
            }
            E::Geometry(fault) => write!(f, "the geometry can't be used: {fault}"),
            E::Truncated { volume_bytes, device_bytes } => write!(
                f,
                "it was cut short: the volume has {}, what it lies on has {}",
                size(*volume_bytes),
                size(*device_bytes)
            ),
            E::Invalid { what, found } => {
                write!(f, "{what} has a value that is never written: {found}")
            }
            E::OtherBlocks { block_bytes, wanted_bytes } => write!(
                f,
                "it has blocks of {}, and block_size is {}",
                size(*block_bytes),
                size(*wanted_bytes)
            ),
            E::Checksum { piece } => write!(f, "the checksum of piece {piece} is wrong"),
        }
    }
}

/// Exactly, and as short as that allows.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

impl FormatError {
    /// What to do about it where it keeps the volume at `path` from being opened, to be appended
    /// to it.
    pub fn remedy(&self, path: &Path) -> String {
        let format = format!("`tidegate volume format {}`", shell_word(path));
        match self {
            FormatError::NotAVolume | FormatError::Foreign => {
                format!("; {format} makes a volume of it, and what is there is lost")
            }
            FormatError::Truncated { device_bytes, .. } if *device_bytes < VOLUME_BYTES_MIN => {
                "; give it its size back: as it is, it is too small to be made anew".to_owned()
            }
            FormatError::Truncated { .. } => {
                format!("; give it its size back, or make it anew: {format}")
            }
            FormatError::Incompatible { .. } => {
                format!("; use that version, or make it anew: {format}")
            }
            FormatError::OtherBlocks { wanted_bytes, .. } => {
                let (path, blocks) = (shell_word(path), size(*wanted_bytes));
                format!(
                    "; change that back, or make the volume anew: `tidegate volume format {path} \
                     --block-size '{blocks}'`"
                )
            }
            _ => format!("; {format} makes it anew, and what it holds is lost"),
        }
    }
}

impl std::error::Error for FormatError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FormatError::Geometry(source) => Some(source),
            _ => None,
        }
    }
}

impl From<bytes::TryGetError> for FormatError {
    fn from(error: bytes::TryGetError) -> FormatError {
        FormatError::Invalid { what: "a length", found: error.available as u64 }
    }
}

#[cfg(test)]
mod tests;
