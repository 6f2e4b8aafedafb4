//! What boxes go by.
//!
//! Run with `fuzz/run 300 snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::snapshot::fuzz(bytes));
