//! A head as it comes over the wire: what passes can be read in one way only.
//!
//! Run with `fuzz/run 300 head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::head(bytes));
