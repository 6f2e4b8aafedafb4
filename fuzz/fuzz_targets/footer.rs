//! A region's footer: believed, it tells of records in front of it.
//!
//! Run with `fuzz/run 300 footer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::footer(bytes));
