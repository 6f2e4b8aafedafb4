//! `Content-Range`: what is believed is consistent.
//!
//! Run with `cargo +nightly fuzz run content_range fuzz/corpus/content_range
//! fuzz/seeds/content_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::content_range(bytes));
