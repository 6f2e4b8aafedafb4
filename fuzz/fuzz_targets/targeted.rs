//! Targeted fields: one that is sound counts alone, one that is broken not at all.
//!
//! Run with `cargo +nightly fuzz run targeted fuzz/corpus/targeted fuzz/seeds/targeted`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::targeted(bytes));
