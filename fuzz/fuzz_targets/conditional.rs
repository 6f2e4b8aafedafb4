//! Validators and preconditions: only a true match decides over bytes.
//!
//! Run with `cargo +nightly fuzz run conditional fuzz/corpus/conditional fuzz/seeds/conditional`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::conditional(bytes));
