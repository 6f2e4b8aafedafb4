//! A page of the region table: believed, it tells of each of its regions.
//!
//! Run with `fuzz/run 300 table_page`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::table_page(bytes));
