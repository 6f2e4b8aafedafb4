//! What the ram tier keeps, as one process gives it to the one that follows: block by block, each
//! with what is known of its object.
//!
//! Heads are written as volumes have them, and pieces have the same checksums; whatever is not as
//! it was written ends the reading. What is read is put into ram only where nothing is known of the
//! object yet, and nothing has ended it since. Integers are little endian; of each entry: bytes of
//! the record u32 · bytes of the pieces u32 · version 16 bytes · block u32 · piece map u16 ·
//! checksums u64, of the record and of each piece · the record (`head_record`) · the pieces.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, TryGetError};

use crate::cache::block::RamBlock;
use crate::cache::head_record::{ObjectName, decoded_of_any, encoded, is_doubted};
use crate::cache::heads::{Head, Heads};
use crate::cache::ram::Ram;
use crate::limits::{CARRIED_RECORD_BYTES_MAX, PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::object::{BlockKey, BlockSize, ObjectKey, PieceMap, VersionId};
use crate::purge::Birth;
use crate::site::{Site, Sites};
use crate::store::format::piece_checksum;

/// Who does not know this number is given nothing.
pub const FORMAT: u32 = 1;

const PIECE: usize = PIECE_SIZE_BYTES as usize;

/// An entry: the pieces of `block` that `held` has, which is of the object `key` with these heads;
/// without `held` the heads alone. `None` where what is known of it is not to be kept, or is in
/// doubt: who reads it makes its freshness anew.
pub fn entry(
    (site, key): (&Site, &ObjectKey),
    heads: &[Arc<Head>],
    block: BlockKey,
    held: Option<&RamBlock>,
) -> Option<Vec<u8>> {
    let rule = site.rule_for(key.path());
    let heads: Vec<_> = heads.iter().filter(|head| !is_doubted(head, rule)).cloned().collect();
    let head = heads.iter().find(|head| head.version.id == block.version)?;
    head.version.length_bytes().filter(|_| !head.version.is_changed())?;
    let edits = (rule, &site.edited_before[..]);
    let record = encoded(ObjectName::of(site, key), edits, &heads)?;
    let pieces = held.map(RamBlock::pieces).unwrap_or_default();
    let parts: Vec<Bytes> = held.into_iter().flat_map(RamBlock::parts).collect();
    let chunks = || parts.iter().flat_map(|part| part.chunks(PIECE));
    if record.len() > CARRIED_RECORD_BYTES_MAX || chunks().count() != pieces.count() as usize {
        return None;
    }
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let mut entry = Vec::with_capacity(HEADER_BYTES + 8 * 17 + record.len() + length);
    entry.put_u32_le(record.len() as u32);
    entry.put_u32_le(length as u32);
    entry.put_slice(&block.version.to_bytes());
    entry.put_u32_le(block.index);
    entry.put_u16_le(pieces.0);
    entry.put_u64_le(piece_checksum(block, RECORD, &record));
    for (piece, bytes) in held_in(pieces).zip(chunks()) {
        entry.put_u64_le(piece_checksum(block, piece, bytes));
    }
    entry.put_slice(&record);
    parts.iter().for_each(|part| entry.put_slice(part));
    Some(entry)
}

const HEADER_BYTES: usize = 4 + 4 + 16 + 4 + 2;
/// No piece has this number: the record's checksum is made as if it were one.
const RECORD: u32 = u32::MAX;

/// Where what is read goes.
pub struct Receiver<'a> {
    /// Blocks.
    pub ram: &'a Ram,
    /// What is known of objects.
    pub heads: &'a Heads,
    /// Those of now, by whose rules it is judged.
    pub sites: &'a Sites,
    /// The size of a block, the same in both processes.
    pub block_size: BlockSize,
    /// From when on it is known here what ends.
    pub birth: &'a Birth,
    /// Whose heads have come: one that is not known any more has ended here, or had no room.
    pub restored: &'a mut HashSet<VersionId>,
    /// So many at most: no other head is taken then.
    pub restored_max: usize,
}

/// What was put into ram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why what came is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedError {
    /// It ends within an entry.
    Short,
    /// No version is called so.
    Version,
    /// Pieces lie where the version has none, or are not as long as they are there.
    Pieces(PieceMap),
    /// Heads have another checksum.
    Record,
    /// A piece has another checksum.
    Checksum {
        /// Which one of its block.
        piece: u32,
    },
}

impl fmt::Display for CarriedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CarriedError::Short => f.write_str("an entry has no end"),
            CarriedError::Version => f.write_str("a block is of no version"),
            CarriedError::Pieces(pieces) => write!(f, "a block has no such pieces: {pieces:?}"),
            CarriedError::Record => f.write_str("heads have another checksum"),
            CarriedError::Checksum { piece } => write!(f, "piece {piece} has another checksum"),
        }
    }
}

impl std::error::Error for CarriedError {}

impl From<TryGetError> for CarriedError {
    fn from(_: TryGetError) -> CarriedError {
        CarriedError::Short
    }
}

impl Receiver<'_> {
    /// Puts the entries of a batch into ram, but not what `is_late` says of its object.
    ///
    /// # Errors
    /// Something is not as it was written; what came before it is in ram.
    pub fn take(
        &mut self,
        mut batch: Bytes,
        is_late: impl Fn(&ObjectKey) -> bool,
    ) -> Result<Taken, CarriedError> {
        let mut taken = Taken::default();
        while !batch.is_empty() {
            let entry = Entry::read(&mut batch)?;
            // What the sites and rules of now do not keep is not kept.
            let Some((key, heads)) = decoded_of_any(&entry.record, self.sites) else { continue };
            let mut versions = heads.iter().map(|head| &head.version);
            let version = versions.find(|version| version.id == entry.block.version);
            let Some(length) = version.and_then(|version| version.length_bytes()) else { continue };
            entry.verify(length, self.block_size)?;
            if self.keep(&entry, key, &heads, &is_late) {
                taken.blocks += u64::from(entry.pieces.count() > 0);
                taken.bytes += entry.bytes.len() as u64;
            }
        }
        Ok(taken)
    }

    /// Whether it is worth it: nothing else is known of the object, and it has not ended here.
    fn keep(
        &mut self,
        entry: &Entry,
        key: ObjectKey,
        heads: &[Arc<Head>],
        is_late: impl Fn(&ObjectKey) -> bool,
    ) -> bool {
        let version = entry.block.version;
        let known = |heads: &Heads| {
            let variants = heads.variants(&key);
            let is_it = |one: &Arc<Head>| one.version.id == version && !one.version.is_changed();
            (!variants.is_empty()).then(|| variants.iter().any(is_it))
        };
        let has_come = self.restored.contains(&version);
        let is_wanted = known(self.heads).unwrap_or(!has_come);
        let has_room = has_come || self.restored.len() + heads.len() <= self.restored_max;
        if !is_wanted || !has_room || is_late(&key) {
            return false;
        }
        for run in entry.runs() {
            let first = (run.start / PIECE) as u32;
            let bytes = entry.slice(&run);
            self.ram.publish(key.site(), entry.block, first, bytes);
        }
        let heads = heads.iter().map(|head| {
            let birth = self.birth.clone();
            Arc::new(Head { birth, ..Head::clone(head) })
        });
        if !has_come {
            self.restored.extend(heads.clone().map(|head| head.version.id));
            self.heads.restore(key.clone(), heads.collect(), || is_late(&key));
        }
        if known(self.heads) == Some(true) {
            return true;
        }
        // Nobody would find it.
        self.ram.forget(&entry.block);
        false
    }
}

/// One block, as it was written.
struct Entry {
    record: Bytes,
    block: BlockKey,
    pieces: PieceMap,
    checksums: Vec<u64>,
    bytes: Bytes,
}

impl Entry {
    fn read(from: &mut Bytes) -> Result<Entry, CarriedError> {
        let record_bytes = from.try_get_u32_le()? as usize;
        let length = from.try_get_u32_le()? as usize;
        let version = from.try_get_u128_le()?.to_le_bytes();
        let version = VersionId::from_bytes(version).ok_or(CarriedError::Version)?;
        let block = BlockKey { version, index: from.try_get_u32_le()? };
        let pieces = PieceMap(from.try_get_u16_le()?);
        let of_record = from.try_get_u64_le()?;
        let checksums = (0..pieces.count()).map(|_| from.try_get_u64_le());
        let checksums = checksums.collect::<Result<Vec<_>, _>>()?;
        let mut part = |bytes| {
            if bytes > from.len() { Err(CarriedError::Short) } else { Ok(from.split_to(bytes)) }
        };
        let (record, bytes) = (part(record_bytes)?, part(length)?);
        match piece_checksum(block, RECORD, &record) == of_record {
            true => Ok(Entry { record, block, pieces, checksums, bytes }),
            false => Err(CarriedError::Record),
        }
    }

    /// `Ok` if the pieces are what was written, and those of a version of this length.
    fn verify(&self, length: u64, block_size: BlockSize) -> Result<(), CarriedError> {
        let start = block_size.start_of(self.block.index);
        let end = length.saturating_sub(start).min(block_size.bytes()) as usize;
        let wrong = CarriedError::Pieces(self.pieces);
        let mut rest = &self.bytes[..];
        for (piece, checksum) in held_in(self.pieces).zip(&self.checksums) {
            let start = piece as usize * PIECE;
            let bytes = end.checked_sub(start).filter(|bytes| *bytes > 0).ok_or(wrong)?;
            let (bytes, after) = rest.split_at_checked(bytes.min(PIECE)).ok_or(wrong)?;
            if piece_checksum(self.block, piece, bytes) != *checksum {
                return Err(CarriedError::Checksum { piece });
            }
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Consecutive pieces, as places in the block; the last may end before its piece does.
    fn runs(&self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for piece in held_in(self.pieces) {
            let (start, end) = (piece as usize * PIECE, (piece as usize + 1) * PIECE);
            match runs.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => runs.push(start..end),
            }
        }
        runs
    }

    /// The bytes of a run of [`Entry::runs`].
    fn slice(&self, run: &Range<usize>) -> Bytes {
        let first = (run.start / PIECE) as u32;
        let before = held_in(self.pieces).take_while(|piece| *piece < first).count() * PIECE;
        self.bytes.slice(before..self.bytes.len().min(before + run.len()))
    }
}

/// The pieces of a map, in order.
fn held_in(pieces: PieceMap) -> impl Iterator<Item = u32> {
    (0..PIECES_PER_BLOCK_MAX).filter(move |piece| pieces.holds(*piece))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue, StatusCode};

    use crate::cache::heads::{Known, Version};
    use crate::cache::ram::RamSettings;
    use crate::message::freshness::Freshness;
    use crate::message::response::Stored;
    use crate::message::vary::VariantKey;
    use crate::object::{SiteId, VersionNumbers};
    use crate::site::Rule;

    use super::*;

    /// Of one process.
    struct Side {
        ram: Arc<Ram>,
        heads: Heads,
        sites: Sites,
        birth: Birth,
        restored: RefCell<HashSet<VersionId>>,
        restored_max: usize,
    }

    impl Side {
        fn new(id: u16) -> Side {
            let ram = RamSettings {
                mapping_bytes: 8 << 20,
                cached_bytes_max: 8 << 20,
                block_size: BlockSize::MAX,
            };
            // In another process the same site may have another number.
            let other = |number| site(number, &format!("other-{number}"));
            let sites = (0..id).map(other).chain([site(id, "film")]).collect();
            Side {
                ram: Ram::new(ram, &Arc::default()).unwrap(),
                heads: Heads::new(4 << 20),
                sites: Sites::new(sites),
                birth: Birth::recorded(Some([7, u64::from(id)])),
                restored: RefCell::default(),
                restored_max: 1,
            }
        }

        fn takes(&self, batch: Vec<u8>) -> Result<Taken, CarriedError> {
            self.takes_unless(batch, |_| false)
        }

        fn takes_unless(
            &self,
            batch: Vec<u8>,
            is_late: impl Fn(&ObjectKey) -> bool,
        ) -> Result<Taken, CarriedError> {
            let Side { ram, heads, sites, birth, restored, .. } = self;
            let (block_size, restored) = (BlockSize::MAX, &mut *restored.borrow_mut());
            let restored_max = self.restored_max;
            let mut receiver =
                Receiver { ram, heads, sites, birth, block_size, restored, restored_max };
            receiver.take(batch.into(), is_late)
        }

        fn known(&self) -> Option<Arc<Head>> {
            let key = ObjectKey::new(self.sites.iter().last().unwrap().id, TARGET);
            match self.heads.find(&key, &HeaderMap::new(), Instant::now()) {
                Known::Variant(head) => Some(head),
                _ => None,
            }
        }
    }

    const TARGET: &str = "/a.mp4?x=1";

    fn site(id: u16, name: &str) -> Site {
        Site {
            id: SiteId(id),
            name: name.to_owned(),
            hosts: vec![],
            origins: vec![],
            share: 1,
            ssd_percent: 100,
            rules: vec![Rule::everything()],
            edited_before: vec![],
        }
    }

    fn head(numbers: &VersionNumbers, length: u64) -> Arc<Head> {
        let mut fields = HeaderMap::new();
        fields.insert("etag", HeaderValue::from_static("\"one\""));
        fields.insert("cache-control", HeaderValue::from_static("max-age=600"));
        let stored = Stored::new(StatusCode::OK, &fields, UNIX_EPOCH);
        let version = Version::new(numbers.assign(), 5, stored.validator().clone(), Some(length));
        let lifetime = Duration::from_secs(600);
        let expired = Freshness::expired(UNIX_EPOCH);
        let freshness = Freshness { lifetime, must_revalidate: false, no_cache: false, ..expired };
        let (variant, (birth, tags)) = (VariantKey::default(), Default::default());
        Arc::new(Head { version: Arc::new(version), stored, freshness, variant, birth, tags })
    }

    const LENGTH: usize = (1 << 20) + 2 * PIECE + 100;

    fn content() -> Bytes {
        (0..LENGTH).map(|at| (at / 251 + at) as u8).collect()
    }

    /// An object of two blocks, the first of which has a gap: its head, and each as an entry.
    fn given() -> (Arc<Head>, [Vec<u8>; 2]) {
        given_of(1)
    }

    fn given_of(epoch: u64) -> (Arc<Head>, [Vec<u8>; 2]) {
        let (from, numbers) = (Side::new(0), VersionNumbers::of_epoch(epoch));
        let (head, key) = (head(&numbers, LENGTH as u64), ObjectKey::new(SiteId(0), TARGET));
        let entries = [(0, 0..3), (0, 5..16), (1, 0..3)].map(|(index, pieces)| {
            let block = BlockKey { version: head.version.id, index };
            let at = |piece| ((index as usize) << 20) + piece * PIECE;
            let bytes = content().slice(at(pieces.start)..at(pieces.end).min(LENGTH));
            from.ram.publish(SiteId(0), block, pieces.start as u32, bytes);
            let (site, heads) = (&from.sites.iter().next().unwrap(), [head.clone()]);
            entry((site, &key), &heads, block, from.ram.peek(&block).as_deref()).unwrap()
        });
        let [_, first, second] = entries;
        (head, [first, second])
    }

    #[test]
    fn what_is_given_is_found_by_the_one_that_follows() {
        let (head, [first, second]) = given();
        let to = Side::new(2);
        let bytes = 14 * PIECE + 2 * PIECE + 100;
        let all = Taken { blocks: 2, bytes: bytes as u64 };
        assert_eq!(to.takes([first, second].concat()), Ok(all));
        let known = to.known().unwrap();
        assert_eq!(known.version.id, head.version.id);
        assert_eq!(known.version.length_bytes(), Some(LENGTH as u64));
        assert_eq!(known.birth.to_recorded(), Some([7, 2]), "it is reckoned from here on");
        for (index, pieces) in [(0, 0..3), (0, 5..16), (1, 0..3)] {
            let at = |piece| ((index as usize) << 20) + piece * PIECE;
            let block = to.ram.peek(&BlockKey { version: known.version.id, index }).unwrap();
            let bytes = block.read((pieces.start * PIECE) as u64).unwrap();
            assert_eq!(bytes, content().slice(at(pieces.start)..at(pieces.end).min(LENGTH)));
        }
    }

    #[test]
    fn nothing_else_that_is_known_of_an_object_is_touched() {
        let (head, [first, second]) = given();
        let to = Side::new(0);
        let key = ObjectKey::new(SiteId(0), TARGET);
        let newer = self::head(&VersionNumbers::of_epoch(2), 5);
        to.heads.store(key.clone(), newer.clone());
        assert_eq!(to.takes(first.clone()), Ok(Taken::default()));
        assert!(Arc::ptr_eq(&to.known().unwrap(), &newer));
        assert_eq!(to.ram.usage().blocks, 0);

        let to = Side::new(0);
        to.heads.remember_uncacheable(key.clone(), Instant::now() + Duration::from_secs(60));
        assert_eq!(to.takes(first.clone()), Ok(Taken::default()));
        assert!(to.known().is_none() && to.ram.usage().blocks == 0);

        // It ended after the first part had come.
        let to = Side::new(0);
        assert_eq!(to.takes(first).unwrap().blocks, 1);
        to.heads.forget_all(&key);
        assert_eq!(to.takes_unless(second, |late| *late == key), Ok(Taken::default()));
        assert!(to.known().is_none());
        let block = |index| BlockKey { version: head.version.id, index };
        assert!(to.ram.peek(&block(1)).is_none());
    }

    #[test]
    fn what_is_not_as_it_was_written_is_refused() {
        let (_, [first, second]) = given();
        for entry in [&first, &second] {
            for bytes in (1..entry.len()).step_by(997).chain([entry.len() - 1]) {
                let to = Side::new(0);
                assert_eq!(to.takes(entry[..bytes].to_vec()), Err(CarriedError::Short), "{bytes}");
                assert!(to.known().is_none() && to.ram.usage().blocks == 0);
            }
        }
        for at in (0..second.len()).filter(|at| *at < 1_000 || at % 89 == 0) {
            let mut changed = second.clone();
            changed[at] ^= 1;
            let to = Side::new(0);
            assert!(to.takes(changed).is_err(), "byte {at}");
            assert!(to.known().is_none() && to.ram.usage().blocks == 0, "byte {at}");
        }
        let mut changed = first.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(Side::new(0).takes(changed), Err(CarriedError::Checksum { piece: 15 }));
        assert_eq!(Side::new(0).takes(vec![]), Ok(Taken::default()));
    }

    #[test]
    fn what_has_ended_where_it_came_is_not_put_back() {
        let forget = |to: &Side, version| {
            let key = ObjectKey::new(to.sites.iter().last().unwrap().id, TARGET);
            to.heads.forget(&key, version);
        };
        let change = |_: &Side, _| {};
        let none = Ok(Taken::default());
        for (name, end) in [("forgotten", &forget as &dyn Fn(&Side, _)), ("changed", &change)] {
            let (head, [first, second]) = given();
            let to = Side::new(2);
            assert_eq!(to.takes(first.clone()).map(|taken| taken.blocks), Ok(1), "{name}");
            to.known().unwrap().version.mark_changed();
            end(&to, head.version.id);
            let blocks = to.ram.usage().blocks;
            assert_eq!((to.takes(second), to.takes(first)), (none, none), "{name}");
            assert_eq!(to.ram.usage().blocks, blocks, "{name}");
            assert_eq!(to.known().is_none(), name == "forgotten");
        }
    }

    #[test]
    fn no_more_heads_are_taken_than_can_be_remembered() {
        let [(_, [first, second]), (_, [third, _])] = [given_of(1), given_of(2)];
        let mut to = Side::new(0);
        to.restored_max = 0;
        assert_eq!(to.takes(first.clone()), Ok(Taken::default()));
        assert!(to.known().is_none() && to.ram.usage().blocks == 0);
        to.restored_max = 1;
        assert_eq!(to.takes([first, second].concat()).map(|taken| taken.blocks), Ok(2));
        to.heads.clear();
        assert_eq!(to.takes(third), Ok(Taken::default()), "another version of it");
        assert!(to.known().is_none() && to.restored.borrow().len() == 1);
    }

    #[test]
    fn what_is_in_doubt_stays() {
        let (site, key) = (site(0, "film"), ObjectKey::new(SiteId(0), TARGET));
        let head = head(&VersionNumbers::of_epoch(1), 0);
        let block = BlockKey { version: head.version.id, index: 0 };
        let goes = |head| entry((&site, &key), &[Arc::new(head)], block, None).is_some();
        assert!(goes(Head::clone(&head)));
        let freshness = Freshness::expired(UNIX_EPOCH);
        assert!(!goes(Head { freshness, ..Head::clone(&head) }));
    }

    #[test]
    fn heads_go_along_without_a_block_and_not_where_they_have_changed() {
        let (site, key) = (site(0, "film"), ObjectKey::new(SiteId(0), TARGET));
        let heads = [head(&VersionNumbers::of_epoch(1), 0)];
        let block = BlockKey { version: heads[0].version.id, index: 0 };
        let entry = || entry((&site, &key), &heads, block, None);
        let to = Side::new(0);
        assert_eq!(to.takes(entry().unwrap()), Ok(Taken::default()));
        assert_eq!(to.known().map(|head| head.version.id), Some(block.version));
        heads[0].version.mark_changed();
        assert!(entry().is_none());
    }
}
