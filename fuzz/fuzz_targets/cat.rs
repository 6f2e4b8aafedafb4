//! A Common Access Token, and what it says.
//!
//! Run with `fuzz/run 300 cat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::cat(bytes));
