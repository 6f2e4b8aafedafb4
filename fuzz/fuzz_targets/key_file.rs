//! The keys of tokens.
//!
//! Run with `fuzz/run 300 key_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::key_file(bytes));
