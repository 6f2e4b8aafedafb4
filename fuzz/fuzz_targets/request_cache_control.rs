//! What a request asks of a cache: what is used is fresh, or both sides take it stale.
//!
//! Run with `fuzz/run 300 request_cache_control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::request_cache_control(bytes));
