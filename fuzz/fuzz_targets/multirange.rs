//! Several ranges: parts are disjoint and in order, and the answer is as long as it says.
//!
//! Run with `fuzz/run 300 multirange`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::multirange(bytes));
