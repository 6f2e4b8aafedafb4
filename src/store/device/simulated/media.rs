//! What a simulated device holds: what readers see, what would survive, and the writes between.
//!
//! Sparse: granules never written are zeros and cost nothing. A granule is shared by whoever holds
//! it and never changed in place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::chance::Chance;
use crate::limits::GRANULE_SIZE_BYTES;

const GRANULE: usize = GRANULE_SIZE_BYTES as usize;
/// What a device writes whole or not at all.
const SECTOR: usize = 512;

type Granule = Arc<[u8; GRANULE]>;

/// The bytes of a device.
#[derive(Clone)]
pub struct Image {
    size_bytes: u64,
    granules: BTreeMap<u64, Granule>,
}

impl Image {
    /// Zeros.
    pub fn empty(size_bytes: u64) -> Image {
        Image { size_bytes, granules: BTreeMap::new() }
    }

    /// How large it is.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `into` from `at` on; zeros beyond the end.
    pub fn read(&self, at: u64, into: &mut [u8]) {
        for (index, range, from) in parts(at, into.len()) {
            let part = &mut into[range.clone()];
            match self.granules.get(&index) {
                Some(granule) => part.copy_from_slice(&granule[from..from + range.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Puts `bytes` at `at`; for tests that damage what is there.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (index, range, from) in parts(at, bytes.len()) {
            let granule = self.granules.entry(index).or_insert_with(|| Arc::new([0; GRANULE]));
            Arc::make_mut(granule)[from..from + range.len()].copy_from_slice(&bytes[range]);
        }
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
        write!(f, "Image of {} bytes, {} granules", self.size_bytes, self.granules.len())
    }
}

/// `length` bytes from `at` on, by granule: its index, where its part lies in the bytes, and where
/// that starts in the granule.
fn parts(at: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
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

/// What is on the device, and in its cache.
#[derive(Debug)]
pub(super) struct Media {
    seen: Image,
    durable: Image,
    unflushed: Vec<Write>,
    writes: u64,
    completions: u64,
}

impl Media {
    pub(super) fn new(image: Image) -> Media {
        let (seen, durable) = (image.clone(), image);
        Media { seen, durable, unflushed: Vec::new(), writes: 0, completions: 0 }
    }

    /// What a reader finds.
    pub(super) fn seen(&self) -> &Image {
        &self.seen
    }

    /// A write of whole granules is under way.
    pub(super) fn begin_write(&mut self, at: u64, bytes: &[u8]) -> Written {
        let whole = |chunk: &[u8]| Arc::new(chunk.try_into().expect("writes are whole granules"));
        self.writes += 1;
        self.unflushed.push(Write {
            number: self.writes,
            first: at / GRANULE_SIZE_BYTES,
            granules: bytes.chunks(GRANULE).map(whole).collect(),
            completed: None,
        });
        Written(self.writes)
    }

    /// The write is complete: readers see it.
    pub(super) fn end_write(&mut self, written: Written) {
        self.completions += 1;
        let write = self.unflushed.iter_mut().find(|write| write.number == written.0);
        let write = write.expect("a write under way is not flushed");
        write.completed = Some(self.completions);
        apply(write, &mut self.seen);
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
    pub(super) fn crash(&self, chance: &mut Chance) -> Image {
        let mut image = self.durable.clone();
        let mood = chance.below(4);
        if mood == 0 {
            return image;
        }
        let mut writes: Vec<&Write> = self.unflushed.iter().collect();
        if mood == 1 {
            writes.retain(|write| write.completed.is_some());
            writes.sort_by_key(|write| write.completed);
            writes.into_iter().for_each(|write| apply(write, &mut image));
            return image;
        }
        for last in (1..writes.len()).rev() {
            writes.swap(last, chance.below(last as u64 + 1) as usize);
        }
        for write in writes {
            match chance.below(3) {
                0 => {}
                1 => apply(write, &mut image),
                _ => tear(write, &mut image, chance),
            }
        }
        image
    }
}

fn apply(write: &Write, image: &mut Image) {
    let granules = (write.first..).zip(write.granules.iter().map(Arc::clone));
    image.granules.extend(granules);
}

/// Of every sector the old or the new.
fn tear(write: &Write, image: &mut Image, chance: &mut Chance) {
    for (index, granule) in (write.first..).zip(&write.granules) {
        let sectors = chance.draw();
        for sector in (0..GRANULE / SECTOR).filter(|sector| sectors & (1 << sector) != 0) {
            let at = index * GRANULE_SIZE_BYTES + (sector * SECTOR) as u64;
            image.write(at, &granule[sector * SECTOR..][..SECTOR]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(media: &mut Media, at: u64, byte: u8) {
        let written = media.begin_write(at, &[byte; 2 * GRANULE]);
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
        let left = |seed| bytes(&media.crash(&mut Chance::new(seed)), 0);
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
        media.begin_write(65_536, &[4; GRANULE]);
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
    }
}
