//! The SSD engine: records on volumes, found by key. Knows bytes and keys, and no HTTP.
//!
//! A volume is a file of fixed size or a block device. What is kept is appended to regions of it,
//! and found through an index in memory. Room is made by giving up whole regions. What is on a
//! device is never believed without its checksum; a volume that fails makes misses.

use std::path::{self, Path};

pub mod device;
pub mod format;
pub mod index;
pub mod ledger;
pub mod remembered;
pub mod survey;
pub mod volume;

pub use self::format::{FilledFor, Geometry, VolumeId};
pub use self::volume::Volume;

/// Names an object on volumes: a hash of its site's name and its target, the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectHash(pub u128);

/// Names a site on volumes: a hash of its name, the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteHash(pub u64);

/// A path as a shell takes it for one word wherever it is typed: what commands in messages have.
pub fn shell_word(path: &Path) -> String {
    let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-:@%+=,".contains(letter);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        for (path, word) in [
            ("/dev/disk/by-id/nvme-A_b.1", "/dev/disk/by-id/nvme-A_b.1"),
            ("/mnt/my film", "'/mnt/my film'"),
            ("/mnt/$HOME's", r"'/mnt/$HOME'\''s'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
