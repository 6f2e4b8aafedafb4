//! Prefix files: what is read says the same when it is written again.
//!
//! Run with `fuzz/run 300 route_prefixes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::prefix_file(bytes));
