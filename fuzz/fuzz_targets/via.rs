//! `Via`: who comes back is known again.
//!
//! Run with `cargo +nightly fuzz run via fuzz/corpus/via fuzz/seeds/via`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::via(bytes));
