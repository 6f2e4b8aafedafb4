//! What players report when they ask where to go on: bounded; a session comes back as sent.
//!
//! Run with `fuzz/run 300 steering_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::steering_query(bytes));
