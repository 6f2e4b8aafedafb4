//! Writing what says where records are: tried again while the device is busy, because a volume
//! that can't write it is of no use.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::store::device::{Buffer, DeviceError, Disk, Granules, Urgency};
use crate::store::format::{Geometry, VolumeId};

use super::health::room_first;

/// How long a full queue of the device is left alone: a drive writes a mebibyte in about as long,
/// and then there is a place.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What failed, and how.
#[derive(Debug)]
pub(super) struct MetadataError {
    pub(super) what: &'static str,
    pub(super) source: DeviceError,
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl MetadataError {
    /// For the operator.
    pub(super) fn told(&self) -> String {
        let first = match &self.source {
            DeviceError::Failed(source) => room_first(source),
            _ => "",
        };
        format!("{} could not be written: {}{first}", self.what, self.source)
    }
}

/// The way metadata goes.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a> {
    pub(super) disk: &'a Disk,
    pub(super) volume: VolumeId,
    pub(super) geometry: &'a Geometry,
    pub(super) written_bytes: &'a super::tally::Counter,
}

impl Metadata<'_> {
    pub(super) async fn write(
        &self,
        what: &'static str,
        at: u64,
        granules: Granules,
    ) -> Result<(), MetadataError> {
        self.write_bytes(what, at, Bytes::from_owner(granules), Urgency::Write).await
    }

    pub(super) async fn write_bytes(
        &self,
        what: &'static str,
        at: u64,
        bytes: Bytes,
        urgency: Urgency,
    ) -> Result<(), MetadataError> {
        self.written_bytes.add(bytes.len() as u64);
        let written = write_patiently(self.disk, at, &[bytes], urgency).await;
        written.map_err(|source| MetadataError { what, source })
    }

    pub(super) async fn flush(&self) -> Result<(), MetadataError> {
        let flushed = flush_patiently(self.disk).await;
        flushed.map_err(|source| MetadataError { what: "a flush", source })
    }
}

/// Writes granule-aligned `parts`; waits while the queue of the device is full.
pub(super) async fn write_patiently(
    disk: &Disk,
    at: u64,
    parts: &[Bytes],
    urgency: Urgency,
) -> Result<(), DeviceError> {
    loop {
        let from = parts
            .iter()
            .map(|part| Buffer::shared(part.clone()).expect("what is written was aligned before"));
        match disk.write(at, from.collect(), urgency).await {
            Err(DeviceError::Busy) => sleep(BUSY_PAUSE).await,
            ended => return ended,
        }
    }
}

/// Flushes; waits while the queue of the device is full.
async fn flush_patiently(disk: &Disk) -> Result<(), DeviceError> {
    loop {
        match disk.flush(Urgency::Write).await {
            Err(DeviceError::Busy) => sleep(BUSY_PAUSE).await,
            ended => return ended,
        }
    }
}
