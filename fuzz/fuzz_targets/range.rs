//! `Range`: a resolved range lies within the object.
//!
//! Run with `cargo +nightly fuzz run range fuzz/corpus/range fuzz/seeds/range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::range(bytes));
