//! A record of any kind, as found in a region. Unknown kinds are skipped by their granules.

use super::frame::{Frame, kind};
use super::{BlockHeader, FormatError, Packet, Spot};

/// What was appended to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Pieces of a block; they follow the header.
    Block(BlockHeader),
    /// Heads.
    Heads(Packet<'a>),
    /// Of a later version.
    Unknown {
        /// The kind it says it is.
        kind: u16,
        /// What it takes.
        granules: u32,
    },
}

impl<'a> Record<'a> {
    /// The record that `bytes` begin with, read from `spot`. One granule is enough for a block's
    /// header; a packet must be there whole.
    ///
    /// # Errors
    /// `Short` says how much is needed, never more than `spot` has room for: read it and decode
    /// again. Anything else: no record of this generation begins here; the next granule may have
    /// one.
    pub fn decode(bytes: &'a [u8], spot: &Spot) -> Result<Record<'a>, FormatError> {
        let frame = record_at(bytes, spot)?;
        match frame.kind {
            kind::BLOCK => BlockHeader::parse(&frame).map(Record::Block),
            kind::PACKET => Packet::parse(&frame).map(Record::Heads),
            kind => Ok(Record::Unknown { kind, granules: frame.granules }),
        }
    }

    /// What it takes in its region: the next record comes so many granules later.
    pub fn granules(&self) -> u32 {
        match self {
            Record::Block(header) => header.granules(),
            Record::Heads(packet) => packet.granules(),
            Record::Unknown { granules, .. } => *granules,
        }
    }
}

/// The frame of a record of any kind that was written to `spot`.
pub(super) fn record_at<'a>(bytes: &'a [u8], spot: &Spot) -> Result<Frame<'a>, FormatError> {
    let frame = match Frame::open(bytes) {
        Err(FormatError::Short { needs_bytes })
            if needs_bytes.div_ceil(super::frame::GRANULE) > spot.room() as usize =>
        {
            return Err(FormatError::Torn);
        }
        frame => frame?,
    };
    if frame.kind < kind::RECORDS_START {
        return Err(FormatError::WrongKind { found: frame.kind });
    }
    let address = spot.address();
    frame.belongs(address.volume, address.place)?;
    if frame.address.generation != address.generation {
        return Err(FormatError::WrongGeneration { found: frame.address.generation });
    }
    if frame.granules > spot.room() {
        let found = frame.granules.into();
        return Err(FormatError::Invalid { what: "the number of granules", found });
    }
    Ok(frame)
}
