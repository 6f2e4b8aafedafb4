//! Request heads: what is accepted is normal, and stays so.
//!
//! Run with `fuzz/run 300 request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::request(bytes));
