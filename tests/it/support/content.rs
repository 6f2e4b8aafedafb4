//! What an object's bytes are: a pure function of path, version and offset.
//!
//! Nothing is stored, so an object of 8 GB costs nothing and any byte of any answer can be checked.
//! A page of 4 KiB is a slice of one random table, at a place drawn from (path, version, page): two
//! versions, two paths or two places of one body agree by chance in about one page of a million.

use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The bytes of one version of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    seed: u64,
}

impl Content {
    /// The bytes of `version` of the object at `path`.
    pub(crate) fn of(path: &str, version: u32) -> Content {
        Content { seed: xxh3_64_with_seed(path.as_bytes(), u64::from(version)) }
    }

    /// Appends the `length_bytes` bytes from `offset` on.
    pub(crate) fn append_to(self, buffer: &mut Vec<u8>, offset: u64, length_bytes: usize) {
        let mut at = offset;
        let end = offset + length_bytes as u64;
        while at < end {
            let page = self.rest_of_page(at);
            let taken = page.len().min((end - at) as usize);
            buffer.extend_from_slice(&page[..taken]);
            at += taken as u64;
        }
    }

    /// The `length_bytes` bytes from `offset` on.
    pub(crate) fn bytes(self, offset: u64, length_bytes: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(length_bytes);
        self.append_to(&mut buffer, offset, length_bytes);
        buffer
    }

    /// Where `bytes`, said to start at `offset`, first differ from this version.
    pub(crate) fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = self.rest_of_page(at);
            let compared = page.len().min(rest.len());
            if page[..compared] != rest[..compared] {
                let differs = page.iter().zip(rest).position(|(ours, theirs)| ours != theirs);
                return differs.map(|place| at + place as u64);
            }
            at += compared as u64;
            rest = &rest[compared..];
        }
        None
    }

    /// From `offset` to the end of its page.
    fn rest_of_page(self, offset: u64) -> &'static [u8] {
        let (page, within) = (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize);
        let start = (mixed(self.seed ^ mixed(page)) % TABLE_PLACES) as usize;
        &table()[start + within..start + PAGE_BYTES as usize]
    }
}

/// One step of splitmix64: a good spread for few operations, tests being built unoptimised.
pub(crate) fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let words = (TABLE_PLACES + PAGE_BYTES) / 8;
        (0..words).flat_map(|word| mixed(word).to_le_bytes()).collect()
    })
}

const PAGE_BYTES: u64 = 4096;
const TABLE_PLACES: u64 = 1 << 20;
