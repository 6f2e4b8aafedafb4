//! What an appliance registers with: what is read is written and read again.
//!
//! Run with `fuzz/run 300 appliance`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::appliance(bytes));
