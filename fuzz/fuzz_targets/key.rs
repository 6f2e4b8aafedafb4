//! Targets and hosts: an object has one key, and it stays as it is.
//!
//! Run with `fuzz/run 300 key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::key(bytes));
