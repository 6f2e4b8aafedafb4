//! The SSD engine: records on volumes, found by key. Knows bytes and keys, and no HTTP.
//!
//! A volume is a file of fixed size or a block device. What is kept is appended to regions of it,
//! and found through an index in memory. Room is made by giving up whole regions. What is on a
//! device is never believed without its checksum; a volume that fails makes misses.

pub mod device;
pub mod remembered;
