//! Configurations: what is taken is valid, what is not has its place and a line.
//!
//! Run with `fuzz/run 300 config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::config::fuzz::config(bytes));
