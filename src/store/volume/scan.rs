//! What a region holds: what its footer says, or, if it has none, what is found in it.

use crate::store::ObjectHash;
use crate::store::format::{FooterEntry, FormatError, Packet};
use crate::store::index::{Entry, Location, RegionId};

use super::window::{Found, Reader};

/// Errors after which the rest of a region is left unread.
const READ_ERRORS_MAX: u32 = 64;

/// What was found in a region.
pub(super) struct Contents {
    pub(super) region: RegionId,
    /// Its place in the order of sealing, if it has a footer.
    pub(super) sealed: Option<u64>,
    pub(super) entries: Vec<FooterEntry>,
    /// The first granule the checkpoint does not speak for.
    pub(super) from: u32,
    /// What began like a record and was none.
    pub(super) dropped: u64,
    /// Whether something of it could not be read: then nobody knows what is missing.
    pub(super) unread: bool,
}

/// Reads what `region` holds in `generation`.
pub(super) async fn contents(
    reader: &Reader,
    region: RegionId,
    generation: u64,
    from: u32,
) -> Contents {
    let mut contents =
        Contents { region, sealed: None, entries: Vec::new(), from, dropped: 0, unread: false };
    if let Ok(footer) = reader.footer(region, generation).await {
        (contents.sealed, contents.entries) = (Some(footer.sealed), footer.entries);
    } else {
        read_records(reader, generation, &mut contents).await;
    }
    contents
}

/// The number of the head that the index knows of an object, in a region of `generation`; `None` if
/// it can't be read.
pub(super) async fn sequence_of(
    reader: &Reader,
    generation: u64,
    object: ObjectHash,
    entry: &Entry,
) -> Option<u64> {
    let Location { region, granule } = entry.location;
    let spot = reader.geometry.spot(reader.volume, region.0, granule.into(), generation)?;
    let granules = entry.shape.granules().min(spot.room());
    let read = reader.granules(spot.at(), granules).await.ok()?;
    let packet = Packet::decode(read.bytes(), &spot).ok()?;
    packet.find(object).map(|head| head.label.sequence)
}

/// Every record of the region, granule by granule where none begins.
async fn read_records(reader: &Reader, generation: u64, contents: &mut Contents) {
    let mut window = reader.window(contents.region, generation);
    let (mut granule, mut errors) = (1, 0);
    while granule < reader.geometry.region_granules() && errors < READ_ERRORS_MAX {
        granule += match window.record(granule).await {
            Ok(Ok(found)) => list(&found, granule, &mut contents.entries),
            Ok(Err(fault)) => {
                contents.dropped += u64::from(was_a_record(&fault));
                1
            }
            // Nothing is known of this granule; the next may be readable.
            Err(_) => {
                (contents.unread, errors) = (true, errors + 1);
                1
            }
        };
    }
}

/// Adds what was found at `granule`; returns what it takes.
fn list(found: &Found<'_>, granule: u32, entries: &mut Vec<FooterEntry>) -> u32 {
    match found {
        Found::Block(header, _) => {
            entries.push(FooterEntry::of_block(granule, header));
            header.granules()
        }
        Found::Heads(packet) => {
            let granules = packet.granules();
            entries.extend(packet.heads().map(|head| match head.is_tombstone() {
                true => FooterEntry::of_tombstone(granule, granules, &head.label),
                false => FooterEntry::of_head(granule, granules, &head.label),
            }));
            granules
        }
        Found::Unknown(granules) => *granules,
    }
}

/// Whether something of this generation had begun there: everything else is the past.
fn was_a_record(fault: &FormatError) -> bool {
    matches!(fault, FormatError::Checksum { .. } | FormatError::Torn)
}
