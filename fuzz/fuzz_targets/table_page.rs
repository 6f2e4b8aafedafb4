//! A page of the region table: believed, it tells of each of its regions.
//!
//! Run with `cargo +nightly fuzz run table_page fuzz/corpus/table_page fuzz/seeds/table_page`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::table_page(bytes));
