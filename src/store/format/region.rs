//! A region's own header: a second witness of its generation, for when the table's page is lost.

use bytes::{Buf, BufMut};

use crate::store::device::Granules;

use super::frame::{self, Frame, kind};
use super::{FilledFor, FormatError, Spot, VolumeId};

/// What stands in granule 0 of a region that was ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHeader {
    /// The generation it was opened in.
    pub generation: u64,
    /// What it is written with.
    pub filled_for: FilledFor,
}

impl RegionHeader {
    /// As it is written to granule 0 of a region that is opened; `spot` names the generation.
    pub fn encode(spot: &Spot, filled_for: FilledFor) -> Granules {
        let mut bytes = frame::begin();
        bytes.put_u8(filled_for.to_byte());
        bytes.put_bytes(0, 7);
        frame::seal(bytes, kind::REGION_HEADER, spot.address(), 1)
    }

    /// As it was read from granule 0 of region `region`.
    ///
    /// # Errors
    /// Anything but the header of this region of this volume.
    pub fn decode(
        bytes: &[u8],
        volume: VolumeId,
        region: u32,
    ) -> Result<RegionHeader, FormatError> {
        let frame = Frame::open(bytes)?;
        frame.is(kind::REGION_HEADER)?;
        frame.belongs(volume, u64::from(region) << 32)?;
        let filled_for = FilledFor::from_byte(frame.body().try_get_u8()?)?;
        Ok(RegionHeader { generation: frame.address.generation, filled_for })
    }
}
