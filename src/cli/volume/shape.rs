//! What a new volume is like, and how it is laid out.

use super::size;
use crate::cli::Failure;
use crate::config::units::bytes_text;
use crate::config::usual_index_bytes_of;
use crate::limits::{
    INDEX_BYTES_MIN, INDEX_ENTRY_BYTES, SLOT_SIZE_BYTES, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN,
};
use crate::object::BlockSize;
use crate::store::device::{Buffer, DeviceError, Disk, Granules, Urgency};
use crate::store::survey::Survey;
use crate::store::{Geometry, Volume, VolumeId};

/// What is decided for good when a volume is made.
#[derive(Debug, clap::Args)]
pub(super) struct Shape {
    /// Memory that the index of this volume may take later (`ssd.index`); left out: 32 MiB for
    /// each TiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    index: Option<u64>,
    /// The size of blocks, as `block_size` in the configuration
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1 MiB")]
    block_size: u64,
}

impl Shape {
    /// A volume of `bytes`, which are rounded down to MiB; `what` has so many.
    pub(super) fn of(&self, given_bytes: u64, what: &str) -> Result<Geometry, Failure> {
        let bytes = given_bytes - given_bytes % SLOT_SIZE_BYTES;
        if !(VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX).contains(&bytes) {
            let (given, least) = (bytes_text(given_bytes), bytes_text(VOLUME_BYTES_MIN));
            let most = bytes_text(VOLUME_BYTES_MAX);
            return Err(Failure::Misused(format!(
                "{what} is {given}; a volume has at least {least} and at most {most}"
            )));
        }
        let block = BlockSize::new(self.block_size).ok_or_else(|| {
            Failure::Misused("--block-size is a power of two from 64 KiB to 1 MiB".to_owned())
        })?;
        let index_bytes = self.index.unwrap_or_else(|| usual_index_bytes_of(bytes));
        let index_bytes = index_bytes.max(INDEX_BYTES_MIN);
        Geometry::for_new(bytes, block, index_bytes / INDEX_ENTRY_BYTES)
            .map_err(|error| Failure::Misused(format!("there is no such volume: {error}")))
    }
}

/// Makes what `disk` lies on a new volume; what is then there, read again.
pub(super) async fn made(disk: &Disk, geometry: Geometry) -> Result<Survey, Failure> {
    Volume::format(disk, geometry, VolumeId::random())
        .await
        .map_err(|error| Failure::Failed(format!("it cannot be made a volume: {error}")))?;
    let survey = Survey::of(disk).await;
    survey.map_err(|error| Failure::Failed(format!("what was written cannot be read: {error}")))
}

/// Zeros over the granules at these places, for good.
pub(super) async fn unmake(disk: &Disk, places: &[u64]) -> Result<(), DeviceError> {
    for at in places {
        disk.write(*at, vec![Buffer::Own(Granules::zeroed(1))], Urgency::Write).await?;
    }
    disk.flush(Urgency::Write).await
}
