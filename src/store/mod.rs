//! The SSD engine: records on volumes, found by key. Knows bytes and keys, and no HTTP.
//!
//! A volume is a file of fixed size or a block device. What is kept is appended to regions of it,
//! and found through an index in memory. Room is made by giving up whole regions. What is on a
//! device is never believed without its checksum; a volume that fails makes misses.

pub mod device;
pub mod index;
pub mod ledger;
pub mod remembered;

/// Names an object on a volume: a hash of its site's name and its target, made above the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectHash(pub u128);

/// Names a site on a volume: a hash of its name, for it outlives its place in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteHash(pub u64);
