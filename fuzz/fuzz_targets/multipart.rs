//! Answers in several parts: they are read back as they were meant.
//!
//! Run with `fuzz/run 300 multipart`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::multipart(bytes));
