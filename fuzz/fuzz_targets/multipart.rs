//! Answers in several parts: they are read back as they were meant.
//!
//! Run with `cargo +nightly fuzz run multipart fuzz/corpus/multipart fuzz/seeds/multipart`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::multipart(bytes));
