//! The header of a block record: believed, its pieces lie in it and it in its region.
//!
//! Run with `cargo +nightly fuzz run block_record fuzz/corpus/block_record
//! fuzz/seeds/block_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::block_record(bytes));
