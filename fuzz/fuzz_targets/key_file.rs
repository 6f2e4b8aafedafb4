//! The keys of tokens.
//!
//! Run with `cargo +nightly fuzz run key_file fuzz/corpus/key_file fuzz/seeds/key_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::key_file(bytes));
