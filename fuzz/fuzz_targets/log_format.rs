//! What viewers send, in the log's other formats: one line each, with its fields and no more.
//!
//! Run with `fuzz/run 300 log_format`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::access_log::format::fuzz(bytes));
