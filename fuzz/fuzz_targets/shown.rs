//! What of a request is a token, and what is left without it.
//!
//! Run with `cargo +nightly fuzz run shown fuzz/corpus/shown fuzz/seeds/shown`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::door::fuzz::shown(bytes));
