//! What of a request is a token, and what is left without it.
//!
//! Run with `fuzz/run 300 shown`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::door::fuzz::shown(bytes));
