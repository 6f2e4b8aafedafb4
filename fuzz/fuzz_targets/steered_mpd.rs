//! An MPD that steering is put into: what it was and more, and once.
//!
//! Run with `fuzz/run 300 steered_mpd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::steered_mpd(bytes));
