//! What boxes go by.
//!
//! Run with `cargo +nightly fuzz run snapshot fuzz/corpus/snapshot fuzz/seeds/snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::snapshot::fuzz(bytes));
