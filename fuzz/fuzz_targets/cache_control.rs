//! `Cache-Control`: what says that it is not to be shared is not.
//!
//! Run with `fuzz/run 300 cache_control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::cache_control(bytes));
