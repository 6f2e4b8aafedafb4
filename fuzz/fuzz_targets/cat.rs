//! A Common Access Token, and what it says.
//!
//! Run with `cargo +nightly fuzz run cat fuzz/corpus/cat fuzz/seeds/cat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::cat(bytes));
