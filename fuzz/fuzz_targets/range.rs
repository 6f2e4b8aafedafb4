//! `Range`: a resolved range lies within the object.
//!
//! Run with `fuzz/run 300 range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::range(bytes));
