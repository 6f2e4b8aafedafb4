//! Configurations: what is taken is valid, what is not has its place and a line.
//!
//! Run with `cargo +nightly fuzz run config fuzz/corpus/config fuzz/seeds/config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::config::fuzz::config(bytes));
