//! What players report when they ask where to go on: bounded; a session comes back as sent.
//!
//! Run with
//! `cargo +nightly fuzz run steering_query fuzz/corpus/steering_query fuzz/seeds/steering_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::fuzz::steering_query(bytes));
