//! Coverage zone files: what is taken keeps to what no file may tell.
//!
//! Run with `fuzz/run 300 coverage_zones`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::coverage_zones(bytes));
