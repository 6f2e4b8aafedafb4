//! `Content-Range`: what is believed is consistent.
//!
//! Run with `fuzz/run 300 content_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::content_range(bytes));
