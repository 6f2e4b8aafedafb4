//! Files of networks: what is taken holds what it names, and is taken again as it is written.
//!
//! Run with `fuzz/run 300 networks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::site::fuzz::networks(bytes));
