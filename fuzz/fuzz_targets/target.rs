//! Paths, queries and hosts: each has one spelling, which is kept.
//!
//! Run with `cargo +nightly fuzz run target fuzz/corpus/target fuzz/seeds/target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::target(bytes));
