//! An MPD that steering is put into: what it was and more, and once.
//!
//! Run with `cargo +nightly fuzz run steered_mpd fuzz/corpus/steered_mpd fuzz/seeds/steered_mpd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::steered_mpd(bytes));
