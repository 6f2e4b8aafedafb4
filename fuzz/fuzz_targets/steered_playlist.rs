//! A playlist that steering is put into: what it was and more, and once.
//!
//! Run with `fuzz/run 300 steered_playlist`., then `fuzz/corpus/steered_playlist` and
//! `fuzz/seeds/steered_playlist`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::steered_playlist(bytes));
