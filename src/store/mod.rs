//! The SSD engine: records on volumes, found by key. Knows bytes and keys, and no HTTP.
//!
//! A volume is a file of fixed size or a block device. What is kept is appended to regions of it,
//! and found through an index in memory. Room is made by giving up whole regions. What is on a
//! device is never believed without its checksum; a volume that fails makes misses.

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
