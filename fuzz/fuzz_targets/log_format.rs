//! What viewers send, in the log's other formats: one line each, with its fields and no more.
//!
//! Run with `cargo +nightly fuzz run log_format fuzz/corpus/log_format fuzz/seeds/log_format`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::access_log::format::fuzz(bytes));
