//! What a request asks of a cache: what is used is fresh, or both sides take it stale.
//!
//! Run with `cargo +nightly fuzz run request_cache_control fuzz/corpus/request_cache_control
//! fuzz/seeds/request_cache_control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::request_cache_control(bytes));
