//! MRT dumps: what is taken keeps to what no file may tell.
//!
//! Run with `fuzz/run 300 route_dump`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::dump(bytes));
