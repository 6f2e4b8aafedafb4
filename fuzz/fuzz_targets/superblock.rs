//! A superblock: believed, it describes a volume that there can be.
//!
//! Run with `fuzz/run 300 superblock`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::superblock(bytes));
