//! A request to purge: what is accepted is bounded, and means the same again.
//!
//! Run with `fuzz/run 300 purge_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::purge::fuzz::request(bytes));
