//! The header of a block record: believed, its pieces lie in it and it in its region.
//!
//! Run with `fuzz/run 300 block_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::block_record(bytes));
