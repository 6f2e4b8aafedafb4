//! What a simulated device holds: what readers see, what would survive, and the writes between.
//!
//! Sparse: granules never written are zeros and cost nothing. A granule is shared by whoever holds
//! it and never changed in place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::chance::Chance;
use super::faults::Harm;
use crate::limits::GRANULE_SIZE_BYTES;

const GRANULE: usize = GRANULE_SIZE_BYTES as usize;
/// What a device writes whole or not at all.
const SECTOR: usize = 512;

pub(super) type Granule = Arc<[u8; GRANULE]>;

/// Granules that are shared together: a copy of an image costs one count for so many.
const CHUNK_GRANULES: u64 = 64;

type Chunk = [Option<Granule>; CHUNK_GRANULES as usize];

/// The bytes of a device.
#[derive(Clone)]
pub struct Image {
    size_bytes: u64,
    /// By their number. A chunk is shared by the copies of an image until one of them changes it.
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

impl Image {
    /// Zeros.
    pub fn empty(size_bytes: u64) -> Image {
        Image { size_bytes, chunks: BTreeMap::new() }
    }

    /// How large it is.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `into` from `at` on; zeros beyond the end.
    pub fn read(&self, at: u64, into: &mut [u8]) {
        for (index, range, from) in parts(at, into.len()) {
            let part = &mut into[range.clone()];
            match self.granule(index) {
                Some(granule) => part.copy_from_slice(&granule[from..from + range.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Puts `bytes` at `at`; for tests that damage what is there.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (index, range, from) in parts(at, bytes.len()) {
            let granule = self.place(index).get_or_insert_with(|| Arc::new([0; GRANULE]));
            Arc::make_mut(granule)[from..from + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    fn granule(&self, index: u64) -> Option<&Granule> {
        let chunk = self.chunks.get(&(index / CHUNK_GRANULES))?;
        chunk[(index % CHUNK_GRANULES) as usize].as_ref()
    }

    fn place(&mut self, index: u64) -> &mut Option<Granule> {
        let chunk = self.chunks.entry(index / CHUNK_GRANULES);
        let chunk = chunk.or_insert_with(|| Arc::new([const { None }; CHUNK_GRANULES as usize]));
        &mut Arc::make_mut(chunk)[(index % CHUNK_GRANULES) as usize]
    }

    /// Turns over one bit of the byte at `at`.
    pub fn flip(&mut self, at: u64, bit: u8) {
        let mut byte = [0];
        self.read(at, &mut byte);
        byte[0] ^= 1 << (bit % 8);
        self.write(at, &byte);
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granules = self.chunks.values().flat_map(|chunk| chunk.iter().flatten()).count();
        write!(f, "Image of {} bytes, {granules} granules", self.size_bytes)
    }
}

/// `length` bytes from `at` on, by granule: its index, where its part lies in the bytes, and where
/// that starts in the granule.
fn parts(at: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let place = at + done as u64;
        let from = (place % GRANULE_SIZE_BYTES) as usize;
        let start = done;
        done = (done + GRANULE - from).min(length);
        (start < length).then_some((place / GRANULE_SIZE_BYTES, start..done, from))
    })
}

/// A write that has begun.
#[derive(Debug)]
pub(super) struct Written(u64);

/// A flush that has begun: what was complete before it.
#[derive(Debug)]
pub(super) struct Flushing(u64);

/// A write that a loss of power may undo.
#[derive(Debug)]
struct Write {
    number: u64,
    first: u64,
    granules: Vec<Granule>,
    /// When it was completed, counted in completions; `None` while it is under way.
    completed: Option<u64>,
}

impl Write {
    /// Its granules, each with its number.
    fn parts(&self) -> impl Iterator<Item = (u64, &Granule)> {
        (self.first..).zip(&self.granules)
    }
}

/// `bytes` in granules; they are whole ones.
pub(super) fn granules(bytes: &[u8]) -> impl Iterator<Item = Granule> {
    let whole = |chunk: &[u8]| Arc::<[u8]>::from(chunk).try_into().expect("whole granules");
    bytes.chunks(GRANULE).map(whole)
}

/// What is on the device, and in its cache.
#[derive(Debug)]
pub(super) struct Media {
    pub(super) harm: Harm,
    seen: Image,
    durable: Image,
    unflushed: Vec<Write>,
    writes: u64,
    completions: u64,
    /// The latest write that was completed.
    latest: u64,
}

impl Media {
    pub(super) fn new(image: Image) -> Media {
        let (seen, durable, harm) = (image.clone(), image, Harm::default());
        let unflushed = Vec::new();
        Media { harm, seen, durable, unflushed, writes: 0, completions: 0, latest: 0 }
    }

    /// What has been written.
    pub(super) fn seen(&self) -> &Image {
        &self.seen
    }

    /// Fills `into` with what a reader of whole granules finds: where a write is under way, of
    /// every sector the old or the new.
    pub(super) fn read(&mut self, at: u64, into: &mut [u8], chance: &mut Chance) {
        self.seen.read(at, into);
        let first = at / GRANULE_SIZE_BYTES;
        let places = first..first + (into.len() / GRANULE) as u64;
        let mut mixed = false;
        for write in self.unflushed.iter().filter(|write| write.completed.is_none()) {
            for (index, granule) in write.parts().filter(|(index, _)| places.contains(index)) {
                let from = (index - first) as usize * GRANULE;
                mixed = true;
                for sector in some_sectors(chance) {
                    into[from..][sector.clone()].copy_from_slice(&granule[sector]);
                }
            }
        }
        self.harm.reads_mixed += u64::from(mixed);
    }

    /// A write of these granules, from the `first` on, is under way.
    pub(super) fn begin_write(&mut self, first: u64, granules: Vec<Granule>) -> Written {
        self.writes += 1;
        self.unflushed.push(Write { number: self.writes, first, granules, completed: None });
        Written(self.writes)
    }

    /// The write is complete: readers see it.
    pub(super) fn end_write(&mut self, written: Written) {
        self.completions += 1;
        let write = self.unflushed.iter_mut().find(|write| write.number == written.0);
        let write = write.expect("a write under way is not flushed");
        write.completed = Some(self.completions);
        apply(write, &mut self.seen);
        self.harm.writes_overtaken += u64::from(written.0 < self.latest);
        self.latest = self.latest.max(written.0);
    }

    /// A flush is under way.
    pub(super) fn begin_flush(&self) -> Flushing {
        Flushing(self.completions)
    }

    /// The flush is complete: what was complete before it survives.
    pub(super) fn end_flush(&mut self, flushing: Flushing) {
        let reached = |write: &mut Write| write.completed.is_some_and(|at| at <= flushing.0);
        let mut flushed: Vec<Write> = self.unflushed.extract_if(.., reached).collect();
        flushed.sort_by_key(|write| write.completed);
        flushed.iter().for_each(|write| apply(write, &mut self.durable));
    }

    /// What is left without power. One time in four nothing that was not flushed, one time in four
    /// all that was complete; else some writes, whole or torn, in any order.
    pub(super) fn crash(&mut self, chance: &mut Chance) -> Image {
        let mut image = self.durable.clone();
        let mood = chance.below(4);
        if mood == 0 {
            self.harm.writes_lost += self.unflushed.len() as u64;
            return image;
        }
        let mut writes: Vec<&Write> = self.unflushed.iter().collect();
        if mood == 1 {
            writes.retain(|write| write.completed.is_some());
            writes.sort_by_key(|write| write.completed);
            self.harm.writes_kept += writes.len() as u64;
            self.harm.writes_lost += (self.unflushed.len() - writes.len()) as u64;
            writes.into_iter().for_each(|write| apply(write, &mut image));
            return image;
        }
        for last in (1..writes.len()).rev() {
            writes.swap(last, chance.below(last as u64 + 1) as usize);
        }
        let (mut lost, mut kept) = (None::<u64>, None::<u64>);
        for write in writes {
            match chance.below(3) {
                0 => {
                    self.harm.writes_lost += 1;
                    lost = lost.into_iter().chain(write.completed).min();
                }
                1 => {
                    self.harm.writes_kept += 1;
                    kept = kept.max(write.completed);
                    apply(write, &mut image);
                }
                _ => {
                    self.harm.writes_torn += 1;
                    tear(write, &mut image, chance);
                }
            }
        }
        let reordered = lost.zip(kept).is_some_and(|(lost, kept)| lost < kept);
        self.harm.crashes_reordered += u64::from(reordered);
        image
    }
}

fn apply(write: &Write, image: &mut Image) {
    for (index, granule) in write.parts() {
        *image.place(index) = Some(Arc::clone(granule));
    }
}

/// Of every sector the old or the new.
fn tear(write: &Write, image: &mut Image, chance: &mut Chance) {
    for (index, granule) in write.parts() {
        for sector in some_sectors(chance) {
            let at = index * GRANULE_SIZE_BYTES + sector.start as u64;
            image.write(at, &granule[sector]);
        }
    }
}

/// Half of a granule's sectors, more or less.
fn some_sectors(chance: &mut Chance) -> impl Iterator<Item = Range<usize>> + use<> {
    let sectors = chance.draw();
    let chosen = (0..GRANULE / SECTOR).filter(move |sector| sectors & (1 << sector) != 0);
    chosen.map(|sector| sector * SECTOR..(sector + 1) * SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(media: &mut Media, at: u64, byte: u8) {
        let written = media.begin_write(at / 4096, granules(&[byte; 2 * GRANULE]).collect());
        media.end_write(written);
    }

    fn bytes(image: &Image, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; 2 * GRANULE];
        image.read(at, &mut bytes);
        bytes
    }

    #[test]
    fn an_image_is_read_and_written_at_any_place() {
        let mut image = Image::empty(1 << 20);
        image.write(4090, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let mut read = [9; 10];
        image.read(4089, &mut read);
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        image.flip(4096, 0);
        image.read(4095, &mut read[..2]);
        assert_eq!(read[..2], [6, 6]);
    }

    #[test]
    fn what_was_flushed_survives_every_crash() {
        let mut media = Media::new(Image::empty(1 << 20));
        write(&mut media, 0, 1);
        write(&mut media, 4096, 2);
        let flush = media.begin_flush();
        media.end_flush(flush);
        for seed in 0..50 {
            let image = media.crash(&mut Chance::new(seed));
            assert_eq!(bytes(&image, 0), [[1; GRANULE], [2; GRANULE]].concat(), "seed {seed}");
        }
    }

    #[test]
    fn what_completes_while_a_flush_is_under_way_may_be_lost() {
        let mut media = Media::new(Image::empty(1 << 20));
        let flush = media.begin_flush();
        write(&mut media, 0, 1);
        media.end_flush(flush);
        let mut left = |seed| bytes(&media.crash(&mut Chance::new(seed)), 0);
        assert!((0..50).any(|seed| left(seed) == vec![0; 2 * GRANULE]));
        assert!((0..50).any(|seed| left(seed) == vec![1; 2 * GRANULE]));
    }

    #[test]
    fn a_crash_keeps_loses_tears_and_reorders_what_was_not_flushed() {
        let mut media = Media::new(Image::empty(1 << 20));
        write(&mut media, 0, 1);
        let flush = media.begin_flush();
        media.end_flush(flush);
        write(&mut media, 0, 2);
        write(&mut media, 0, 3);
        media.begin_write(16, granules(&[4; GRANULE]).collect());
        let crashes: Vec<Image> = (0..200).map(|s| media.crash(&mut Chance::new(s))).collect();
        let whole = |byte| move |image: &&Image| bytes(image, 0) == vec![byte; 2 * GRANULE];
        for byte in [1, 2, 3] {
            assert!(crashes.iter().any(|image| whole(byte)(&image)), "{byte}");
        }
        let mut left = crashes.iter().map(|image| bytes(image, 0));
        let torn = left.find(|bytes| bytes[..GRANULE].iter().any(|byte| *byte != bytes[0]));
        let torn = torn.expect("a granule is torn at its sectors");
        assert!(torn.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        let under_way = |image: &Image| bytes(image, 65_536)[0] == 4;
        assert!(crashes.iter().any(under_way) && !crashes.iter().all(under_way));
        let Harm { writes_lost, writes_torn, writes_kept, crashes_reordered, .. } = media.harm;
        assert!([writes_lost, writes_torn, writes_kept, crashes_reordered].iter().all(|n| *n > 0));
        assert!(writes_lost + writes_torn + writes_kept == 3 * 200 && crashes_reordered < 200);
    }

    #[test]
    fn a_copy_of_an_image_does_not_change_with_it() {
        let mut image = Image::empty(1 << 30);
        image.write(4096, &[1; 3 * GRANULE]);
        let copy = image.clone();
        image.write(8192, &[2; GRANULE]);
        image.write(1 << 29, &[3; GRANULE]);
        assert_eq!(bytes(&copy, 4096), [1; 2 * GRANULE]);
        assert_eq!(bytes(&image, 4096), [[1; GRANULE], [2; GRANULE]].concat());
        assert_eq!((bytes(&copy, 1 << 29)[0], bytes(&image, 1 << 29)[0]), (0, 3));
    }

    #[test]
    fn who_reads_what_is_being_written_finds_sectors_of_both() {
        let mut media = Media::new(Image::empty(1 << 20));
        write(&mut media, 4096, 1);
        media.begin_write(2, granules(&[2; 2 * GRANULE]).collect());
        let mut read = vec![0; 2 * GRANULE];
        media.read(4096, &mut read, &mut Chance::new(1));
        assert_eq!(read[..GRANULE], [1; GRANULE]);
        assert!(read[GRANULE..].chunks(SECTOR).all(|s| s == [1; SECTOR] || s == [2; SECTOR]));
        assert!(read[GRANULE..].contains(&1) && read[GRANULE..].contains(&2));
        assert_eq!((media.harm.reads_mixed, bytes(media.seen(), 4096)[GRANULE]), (1, 1));
    }
}
