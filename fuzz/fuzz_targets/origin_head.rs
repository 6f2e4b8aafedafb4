//! The head of an origin's response: nothing of its connection or its framing is stored.
//!
//! Run with `fuzz/run 300 origin_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::origin_head(bytes));
