//! A volume as it lies: looked at without bringing it online, changed in nothing.
//!
//! For operators: what a volume says of itself, what its regions hold, and whether every checksum
//! is right. Reads with the lowest urgency and believes nothing without its checksum. What is wrong
//! is a [`Fault`] with its place; a volume with faults is still looked at to its end.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{Buffer, DeviceError, Disk, Granules, Urgency};
use crate::store::format::{
    CheckpointHeader, ENTRIES_PER_PAGE, FormatError, PageCopy, REGION_SNAPSHOT_BYTES, RegionEntry,
    RegionSnapshot, RegionState, SUPERBLOCK_COPIES, SectionKind, SectionSum, Superblock, TablePage,
    superblock_places,
};
use crate::store::volume::{PREAMBLE_BYTES, Preamble};

pub use self::glance::{GlanceError, glance};
pub use self::region::{Contents, check_region, contents_by_footer};

mod checkpoints;
mod glance;
mod region;

/// What one read may take: whoever looks can wait, but not for ever. The kernel gives a command of
/// a drive up after 30 s, so its error comes before this.
const READ_MAX: Duration = Duration::from_secs(60);
/// What is read at once.
const READ_BYTES: u64 = 1 << 20;

/// What a volume says of itself.
#[derive(Debug)]
pub struct Survey {
    /// Its newest good superblock.
    pub superblock: Superblock,
    /// What it lies on has so many bytes.
    pub device_bytes: u64,
    /// What the region table says, region by region; where a copy of its page is damaged, also what
    /// the regions say of themselves, as a start finds it.
    pub regions: Vec<RegionEntry>,
    /// The two checkpoint slots.
    pub checkpoints: [Slot; 2],
    /// What is wrong with all that.
    pub faults: Vec<Fault>,
    /// Of each region that the newest whole checkpoint knows as it is now: the first granule of
    /// which it does not know that all was written.
    noted: HashMap<u32, u32>,
}

/// What stands in a checkpoint slot.
#[derive(Clone, Debug)]
pub enum Slot {
    /// No checkpoint yet.
    Empty,
    /// A checkpoint; its sections are checked by [`Survey::check_checkpoints`].
    Holds(CheckpointHeader),
    /// One that was being overwritten when the process ended: the other slot's is newer and whole.
    Overwritten(CheckpointHeader),
    /// One that is damaged; the other slot counts.
    Damaged(String),
}

/// Why there is nothing to look at.
#[derive(Debug)]
pub enum SurveyError {
    /// No good superblock.
    Format(FormatError),
    /// No good superblock, and not every copy of it could be read.
    Device(DeviceError),
}

/// What is said of a path: it follows that.
impl fmt::Display for SurveyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SurveyError::Format(source) => {
                use FormatError::{Geometry, Incompatible, OtherBlocks, Truncated};
                let is_one = matches!(
                    source,
                    Truncated { .. } | OtherBlocks { .. } | Incompatible { .. } | Geometry(_)
                );
                let what = if is_one { "cannot be used" } else { "is no volume" };
                write!(f, "{what}: {source}")
            }
            SurveyError::Device(source) => write!(f, "cannot be read: {source}"),
        }
    }
}

impl SurveyError {
    /// All there is to say of what is at `path`, with what to do about it.
    pub fn told_of(&self, path: &Path) -> String {
        let remedy = match self {
            SurveyError::Format(source) => source.remedy(path),
            SurveyError::Device(_) => String::new(),
        };
        format!("{} {self}{remedy}", path.display())
    }
}

impl std::error::Error for SurveyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SurveyError::Format(source) => Some(source),
            SurveyError::Device(source) => Some(source),
        }
    }
}

impl From<FormatError> for SurveyError {
    fn from(source: FormatError) -> SurveyError {
        SurveyError::Format(source)
    }
}

/// Something on a volume that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, in bytes of the volume.
    pub at: u64,
    /// What should be there.
    pub part: Part,
    /// What is wrong with it.
    pub why: String,
    /// Whether a crash alone may leave that: then it says nothing of the drive.
    pub may_be_torn: bool,
}

/// A part of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A copy of the superblock.
    Superblock,
    /// A copy of a page of the region table.
    TablePage,
    /// A checkpoint.
    Checkpoint,
    /// The header of a region.
    RegionHeader(u32),
    /// The footer of a region.
    Footer(u32),
    /// A record in a region.
    Record(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Superblock => f.write_str("superblock"),
            Part::TablePage => f.write_str("copy of a page of the region table"),
            Part::Checkpoint => f.write_str("checkpoint"),
            Part::RegionHeader(region) => write!(f, "header of region {region}"),
            Part::Footer(region) => write!(f, "footer of region {region}"),
            Part::Record(region) => write!(f, "record in region {region}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.part, self.at, self.why)
    }
}

impl Survey {
    /// Reads what a volume says of itself. Dropping it midway is safe.
    ///
    /// # Errors
    /// There is no volume that this version can read.
    pub async fn of(disk: &Disk) -> Result<Survey, SurveyError> {
        let device_bytes = disk.device().size_bytes();
        let mut faults = Vec::new();
        let superblock = superblock(disk, device_bytes, &mut faults).await?;
        let mut survey = Survey {
            superblock,
            device_bytes,
            regions: Vec::new(),
            checkpoints: [Slot::Empty, Slot::Empty],
            faults,
            noted: HashMap::new(),
        };
        survey.read_table(disk).await;
        for slot in 0..2 {
            survey.checkpoints[slot] = survey.slot(disk, slot).await;
        }
        survey.judge_checkpoints();
        Ok(survey)
    }

    /// Regions in this state, by number.
    pub fn regions_in(&self, state: RegionState) -> impl Iterator<Item = u32> {
        let all = self.regions.iter().zip(0..);
        all.filter(move |(entry, _)| entry.state == state).map(|(_, region)| region)
    }

    async fn read_table(&mut self, disk: &Disk) {
        let (geometry, id) = (*self.superblock.geometry(), self.superblock.id());
        let mut damaged = Vec::new();
        for page in 0..geometry.table_pages() {
            let (mut copies, mut bad) = (Vec::with_capacity(2), Vec::new());
            for copy in [PageCopy::A, PageCopy::B] {
                let at = TablePage::place(&geometry, page, copy);
                let decoded = match read(disk, at, GRANULE_SIZE_BYTES).await {
                    Ok(bytes) => {
                        let page = TablePage::decode(bytes.bytes(), id, &geometry, page, copy);
                        let wrong = page.as_ref().err().map(|why| fault(at, Part::TablePage, why));
                        let is_torn = matches!(page, Err(FormatError::Torn));
                        bad.extend(wrong.map(|wrong| Fault { may_be_torn: is_torn, ..wrong }));
                        page
                    }
                    Err(error) => {
                        bad.push(fault(at, Part::TablePage, &error));
                        Err(FormatError::Torn)
                    }
                };
                copies.push(decoded);
            }
            // Both were written when the volume was made, and then one at a time.
            let is_one = bad.len() == 1;
            damaged.extend((!bad.is_empty()).then_some(page));
            let torn = |bad: Fault| Fault { may_be_torn: bad.may_be_torn && is_one, ..bad };
            self.faults.extend(bad.into_iter().map(torn));
            let (b, a) = (copies.pop(), copies.pop());
            let copies = a.zip(b).expect("two copies were read");
            let chosen = TablePage::choose(copies.0, copies.1).map(|(page, _)| page);
            let page = chosen.unwrap_or_else(|_| TablePage::unused(&geometry, page));
            self.regions.extend_from_slice(page.entries());
        }
        for page in damaged {
            let first = page * ENTRIES_PER_PAGE as u32;
            for region in first..(first + ENTRIES_PER_PAGE as u32).min(geometry.regions()) {
                region::ask(disk, self, region).await;
            }
        }
    }
}

async fn superblock(
    disk: &Disk,
    device_bytes: u64,
    faults: &mut Vec<Fault>,
) -> Result<Superblock, SurveyError> {
    let mut copies: Vec<(u64, Granules)> = Vec::with_capacity(SUPERBLOCK_COPIES);
    let mut failed = None;
    for at in superblock_places(device_bytes) {
        match read(disk, at, GRANULE_SIZE_BYTES).await {
            Ok(bytes) => copies.push((at, bytes)),
            Err(error) => failed = Some(SurveyError::Device(error)),
        }
    }
    let found: Vec<(u64, &[u8])> = copies.iter().map(|(at, g)| (*at, g.bytes())).collect();
    let chosen = Superblock::choose(&found, failed, device_bytes)?;
    // The device may be larger than the volume: then its copies are not all where we looked.
    for at in superblock_places(chosen.geometry().volume_bytes()) {
        let wrong = match read(disk, at, GRANULE_SIZE_BYTES).await {
            Ok(bytes) => match Superblock::decode(bytes.bytes(), at) {
                Ok(_) => continue,
                Err(error) => {
                    // They are blank until all else of a new volume is there.
                    let may_be_torn = error == FormatError::NotAVolume;
                    Fault { may_be_torn, ..fault(at, Part::Superblock, &error) }
                }
            },
            Err(error) => fault(at, Part::Superblock, &error),
        };
        faults.push(wrong);
    }
    Ok(chosen)
}

/// `length` bytes from `at` on, rounded up to granules.
async fn read(disk: &Disk, at: u64, length: u64) -> Result<Granules, DeviceError> {
    let granules = length.div_ceil(GRANULE_SIZE_BYTES).max(1) as usize;
    let into = vec![Buffer::Own(Granules::zeroed(granules))];
    let mut read = disk.read(at, into, Urgency::Verify, Instant::now() + READ_MAX).await?;
    match read.pop() {
        Some(Buffer::Own(granules)) => Ok(granules),
        _ => Err(DeviceError::Failed(std::io::Error::other("the memory did not come back"))),
    }
}

fn fault(at: u64, part: Part, why: &dyn fmt::Display) -> Fault {
    Fault { at, part, why: why.to_string(), may_be_torn: false }
}

#[cfg(test)]
mod tests;
