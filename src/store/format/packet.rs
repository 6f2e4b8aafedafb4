//! A packet: heads, packed without padding between them, under one checksum.
//!
//! Many heads share one granule. A head that needs more, or that has its object's body with it,
//! has a packet of its own. A head without a payload is a tombstone: the object has no head any
//! more.

use bytes::{Buf, BufMut};

use crate::limits::PIECE_SIZE_BYTES;
use crate::object::{BlockKey, VersionId};
use crate::store::device::Granules;
use crate::store::{ObjectHash, SiteHash};

use super::block::piece_checksum;
use super::frame::{self, Frame, GRANULE, HEAD_BYTES, kind};
use super::record::record_at;
use super::{FormatError, Spot};

/// Fields before the heads.
const FIELDS_BYTES: usize = 32;
/// Fields of a head before its payload.
const ENTRY_BYTES: usize = 44;
/// The largest packet, and so the largest head: as a whole block.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Whose head it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLabel {
    /// The object.
    pub object: ObjectHash,
    /// Its site.
    pub site: SiteHash,
    /// The number of the write: of two heads of an object the higher counts.
    pub sequence: u64,
    /// When it was asked for, in microseconds of Unix time; kept when it is carried on.
    pub birth: u64,
}

/// One head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadEntry<'a> {
    /// Whose head it is.
    pub label: HeadLabel,
    /// The head, as the cache wrote it; nothing in a tombstone.
    pub payload: &'a [u8],
}

impl HeadEntry<'_> {
    /// Whether it says that the object has no head any more.
    pub fn is_tombstone(&self) -> bool {
        self.payload.is_empty()
    }
}

/// The body of an object of at most one piece, beside its head. Its checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Whose bytes they are.
    pub version: VersionId,
    /// All of them, one at least.
    pub bytes: &'a [u8],
}

/// A packet as it was read. Its checksum was right, and so is everything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    entry_bytes: usize,
    entries: &'a [u8],
    body: Option<Body<'a>>,
    granules: u32,
}

impl<'a> Packet<'a> {
    /// As it was read from `spot`.
    ///
    /// # Errors
    /// `Short` if it has more granules than `bytes`; anything but a packet of this generation.
    pub fn decode(bytes: &'a [u8], spot: &Spot) -> Result<Packet<'a>, FormatError> {
        let frame = record_at(bytes, spot)?;
        frame.is(kind::PACKET)?;
        Packet::parse(&frame)
    }

    /// Its heads, in the order they were written.
    pub fn heads(&self) -> impl Iterator<Item = HeadEntry<'a>> + use<'a> {
        let (mut rest, entry_bytes) = (self.entries, self.entry_bytes);
        // They were all read once when the packet was decoded.
        std::iter::from_fn(move || take_entry(&mut rest, entry_bytes).ok())
    }

    /// The newest head of `object` in it.
    pub fn find(&self, object: ObjectHash) -> Option<HeadEntry<'a>> {
        let of_object = self.heads().filter(|head| head.label.object == object);
        of_object.max_by_key(|head| head.label.sequence)
    }

    /// The body of the one object it tells of.
    pub fn body(&self) -> Option<Body<'a>> {
        self.body
    }

    /// What it takes in its region.
    pub fn granules(&self) -> u32 {
        self.granules
    }

    pub(super) fn parse(frame: &Frame<'a>) -> Result<Packet<'a>, FormatError> {
        let mut fields = frame.body();
        let count = fields.try_get_u16_le()?;
        let entry_bytes = usize::from(fields.try_get_u16_le()?);
        let body_bytes = fields.try_get_u32_le()? as usize;
        let version = VersionId::from_bytes(fields.try_get_u128_le()?.to_le_bytes());
        let checksum = fields.try_get_u64_le()?;
        let mut rest = fields;
        let mut has_payload = false;
        for _ in 0..count {
            has_payload |= !take_entry(&mut rest, entry_bytes)?.is_tombstone();
        }
        let entries = &fields[..fields.len() - rest.len()];
        let alone = count == 1;
        if count == 0 || !alone && (frame.granules != 1 || body_bytes != 0) {
            return Err(FormatError::Invalid { what: "the number of heads", found: count.into() });
        }
        if frame.granules != frame::granules_for(frame.bytes.len()) {
            let found = frame.granules.into();
            return Err(FormatError::Invalid { what: "the number of granules", found });
        }
        let packet = Packet { entry_bytes, entries, body: None, granules: frame.granules };
        if body_bytes == 0 {
            return Ok(packet);
        }
        let wrong =
            FormatError::Invalid { what: "a small body's length", found: body_bytes as u64 };
        let version = version.filter(|_| has_payload).ok_or(wrong.clone())?;
        let bytes = rest.get(..body_bytes).ok_or(wrong.clone())?;
        if bytes.len() as u64 > PIECE_SIZE_BYTES {
            return Err(wrong);
        }
        if piece_checksum(BlockKey { version, index: 0 }, 0, bytes) != checksum {
            return Err(FormatError::Checksum { piece: 0 });
        }
        Ok(Packet { body: Some(Body { version, bytes }), ..packet })
    }
}

/// Takes the head that `rest` begins with off it.
fn take_entry<'a>(rest: &mut &'a [u8], entry_bytes: usize) -> Result<HeadEntry<'a>, FormatError> {
    let invalid =
        |found: usize| FormatError::Invalid { what: "a head's length", found: found as u64 };
    if entry_bytes < ENTRY_BYTES {
        return Err(invalid(entry_bytes));
    }
    let (mut fields, behind) =
        rest.split_at_checked(entry_bytes).ok_or_else(|| invalid(rest.len()))?;
    let label = HeadLabel {
        object: ObjectHash(fields.try_get_u128_le()?),
        site: SiteHash(fields.try_get_u64_le()?),
        sequence: fields.try_get_u64_le()?,
        birth: fields.try_get_u64_le()?,
    };
    let length = fields.try_get_u32_le()? as usize;
    let (payload, behind) = behind.split_at_checked(length).ok_or_else(|| invalid(length))?;
    *rest = behind;
    Ok(HeadEntry { label, payload })
}

/// A packet that is being made.
#[derive(Clone, Debug, Default)]
pub struct PacketBuilder {
    count: u16,
    entries: Vec<u8>,
    body: Option<(VersionId, Vec<u8>)>,
}

impl PacketBuilder {
    /// Without heads yet.
    pub fn new() -> PacketBuilder {
        PacketBuilder::default()
    }

    /// Of one head with the body of its object. `None` if the body is empty or larger than a
    /// piece, or the payload is empty, or both are too large together.
    pub fn with_body(
        label: HeadLabel,
        payload: &[u8],
        version: VersionId,
        body: &[u8],
    ) -> Option<PacketBuilder> {
        let fits = !body.is_empty() && body.len() as u64 <= PIECE_SIZE_BYTES;
        let mut packet = PacketBuilder::new();
        if !fits || payload.is_empty() || !packet.push(label, payload) {
            return None;
        }
        packet.body = Some((version, body.to_vec()));
        (packet.length_bytes() <= PACKET_BYTES_MAX).then_some(packet)
    }

    /// Adds a head, or a tombstone if `payload` is empty. `false`, and nothing is changed, if it
    /// does not fit: a first head may take up to a mebibyte, further ones what is left of the
    /// first granule.
    #[must_use]
    pub fn push(&mut self, label: HeadLabel, payload: &[u8]) -> bool {
        let length = self.length_bytes() + ENTRY_BYTES + payload.len();
        let bound = if self.count == 0 { PACKET_BYTES_MAX } else { GRANULE };
        if length > bound || self.body.is_some() {
            return false;
        }
        self.entries.put_u128_le(label.object.0);
        self.entries.put_u64_le(label.site.0);
        self.entries.put_u64_le(label.sequence);
        self.entries.put_u64_le(label.birth);
        self.entries.put_u32_le(payload.len() as u32);
        self.entries.put_slice(payload);
        self.count += 1;
        true
    }

    /// Whether it holds no head yet: then there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What it will take in its region.
    pub fn granules(&self) -> u32 {
        frame::granules_for(self.length_bytes())
    }

    /// As it is written to `spot`.
    ///
    /// # Panics
    /// If it is empty.
    pub fn encode(&self, spot: &Spot) -> Granules {
        assert!(!self.is_empty(), "a packet tells of one object at least");
        let mut bytes = frame::begin();
        bytes.put_u16_le(self.count);
        bytes.put_u16_le(ENTRY_BYTES as u16);
        let (version, body) = match &self.body {
            Some((version, body)) => (Some(*version), body.as_slice()),
            None => (None, [].as_slice()),
        };
        bytes.put_u32_le(body.len() as u32);
        bytes.put_slice(&version.map_or([0; 16], VersionId::to_bytes));
        let sum = version.map(|version| piece_checksum(BlockKey { version, index: 0 }, 0, body));
        bytes.put_u64_le(sum.unwrap_or(0));
        bytes.put_slice(&self.entries);
        bytes.put_slice(body);
        frame::seal(bytes, kind::PACKET, spot.address(), self.granules())
    }

    fn length_bytes(&self) -> usize {
        let body = self.body.as_ref().map_or(0, |(_, body)| body.len());
        HEAD_BYTES + FIELDS_BYTES + self.entries.len() + body
    }
}
