//! The decision that a viewer comes by: short and plain in the log, and of ours where it counts.
//!
//! Run with `fuzz/run 300 decision`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::decision(bytes));
