//! Reading regions for ourselves: their footers, and their records from one end to the other.
//!
//! For what is recovered and for what is carried on: a few mebibytes at a time, in which whatever
//! is asked for next lies as a rule. Everything is verified.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{Buffer, DeviceError, Disk, Granules, Urgency};
use crate::store::format::{
    BlockHeader, Footer, FormatError, Geometry, Packet, Record, Spot, VolumeId,
};
use crate::store::index::RegionId;

use super::metadata::BUSY_PAUSE;

/// Granules read at once: more than the largest record has.
const WINDOW_GRANULES: u32 = 1024;
/// Granules of a region's end that are read to find its footer: enough for most.
const FOOTER_GUESS_GRANULES: u32 = 4;
/// What a read may take that finds out what is where: nobody can go on without it, but it must end
/// when the kernel gives up a command by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const GRANULE: usize = GRANULE_SIZE_BYTES as usize;

/// A volume to be read.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) disk: Disk,
    /// As the operator calls it.
    pub(super) name: Arc<str>,
    pub(super) geometry: Geometry,
    pub(super) volume: VolumeId,
    pub(super) urgency: Urgency,
    /// What one read may take.
    pub(super) patience: Duration,
}

/// A region that is being read.
pub(super) struct Window {
    reader: Reader,
    region: RegionId,
    generation: u64,
    held: Option<(u32, Granules)>,
}

/// What begins at a granule.
pub(super) enum Found<'a> {
    /// A block's header, and its pieces with padding; they are verified.
    Block(BlockHeader, &'a [u8]),
    Heads(Packet<'a>),
    /// A record of a later version, of so many granules.
    Unknown(u32),
}

/// Why a region's list is not known.
#[derive(Debug)]
pub(super) enum ListError {
    Format(FormatError),
    Device(DeviceError),
}

impl Reader {
    pub(super) fn window(&self, region: RegionId, generation: u64) -> Window {
        Window { reader: self.clone(), region, generation, held: None }
    }

    /// The footer of `region` in `generation`.
    pub(super) async fn footer(
        &self,
        region: RegionId,
        generation: u64,
    ) -> Result<Footer, ListError> {
        let all = self.geometry.region_granules();
        let spot = |granule| {
            let spot = self.geometry.spot(self.volume, region.0, granule, generation);
            spot.expect("a footer is looked for in a region")
        };
        let mut granules = FOOTER_GUESS_GRANULES.min(all - 1);
        loop {
            let tail = self.granules(spot(all - granules).at(), granules).await;
            match Footer::decode(tail.map_err(ListError::Device)?.bytes(), &spot(all - 1)) {
                Ok(footer) => return Ok(footer),
                Err(FormatError::Short { needs_bytes }) => {
                    let needed = needs_bytes.div_ceil(GRANULE) as u32;
                    if needed <= granules || needed >= all {
                        return Err(ListError::Format(FormatError::Torn));
                    }
                    granules = needed;
                }
                Err(fault) => return Err(ListError::Format(fault)),
            }
        }
    }

    /// `count` granules at `at`, while patience lasts; waits while the queue of the device is full,
    /// and tries once more what has failed.
    pub(super) async fn granules(&self, at: u64, count: u32) -> Result<Granules, DeviceError> {
        let mut failed_before = false;
        let deadline = Instant::now() + self.patience;
        loop {
            let into = vec![Buffer::Own(Granules::zeroed(count as usize))];
            match self.disk.read(at, into, self.urgency, deadline).await.map(|mut b| b.pop()) {
                Ok(Some(Buffer::Own(granules))) => return Ok(granules),
                Ok(_) => return Err(DeviceError::Failed(io::Error::other("a buffer was lost"))),
                Err(DeviceError::Busy) if Instant::now() < deadline => sleep(BUSY_PAUSE).await,
                Err(DeviceError::Failed(_)) if !failed_before => failed_before = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Window {
    /// The record that begins at `granule`, with all its bytes verified; the inner error if there
    /// is none.
    pub(super) async fn record(
        &mut self,
        granule: u32,
    ) -> Result<Result<Found<'_>, FormatError>, DeviceError> {
        let outside = FormatError::Invalid { what: "the place of a record", found: granule.into() };
        let Some(spot) = self.spot(granule) else { return Ok(Err(outside)) };
        let mut granules = match Record::decode(self.granules(granule, 1).await?, &spot) {
            Ok(record) => record.granules(),
            Err(FormatError::Short { needs_bytes }) => needs_bytes.div_ceil(GRANULE) as u32,
            Err(fault) => return Ok(Err(fault)),
        };
        granules = granules.min(spot.room());
        let bytes = self.granules(granule, granules).await?;
        Ok(match Record::decode(bytes, &spot) {
            Ok(Record::Block(header)) => {
                let pieces = &bytes[GRANULE..];
                verify_pieces(&header, pieces).map(|()| Found::Block(header, pieces))
            }
            Ok(Record::Heads(packet)) => Ok(Found::Heads(packet)),
            Ok(Record::Unknown { granules, .. }) => Ok(Found::Unknown(granules)),
            Err(fault) => Err(fault),
        })
    }

    fn spot(&self, granule: u32) -> Option<Spot> {
        let Reader { geometry, volume, .. } = &self.reader;
        geometry.spot(*volume, self.region.0, granule, self.generation)
    }

    /// `count` granules from `first` on.
    async fn granules(&mut self, first: u32, count: u32) -> Result<&[u8], DeviceError> {
        let inside = self.held.as_ref().is_some_and(|(start, held)| {
            let end = start + (held.bytes().len() / GRANULE) as u32;
            *start <= first && first + count <= end
        });
        if !inside {
            let room = self.reader.geometry.region_granules() - first;
            let length = WINDOW_GRANULES.max(count).min(room);
            let at = self.spot(first).expect("it was asked for inside the region").at();
            self.held = Some((first, self.reader.granules(at, length).await?));
        }
        let (start, held) = self.held.as_ref().expect("it was read just now");
        let from = (first - start) as usize * GRANULE;
        Ok(&held.bytes()[from..from + count as usize * GRANULE])
    }
}

fn verify_pieces(header: &BlockHeader, pieces: &[u8]) -> Result<(), FormatError> {
    for piece in 0..crate::limits::PIECES_PER_BLOCK_MAX {
        if let Some(range) = header.piece(piece) {
            let bytes = pieces.get(range).ok_or(FormatError::Checksum { piece })?;
            header.verify_piece(piece, bytes)?;
        }
    }
    Ok(())
}
