//! MRT dumps: what is taken keeps to what no file may tell.
//!
//! Run with `cargo +nightly fuzz run route_dump fuzz/corpus/route_dump fuzz/seeds/route_dump`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::dump(bytes));
