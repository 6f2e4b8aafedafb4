//! Validators and preconditions: only a true match decides over bytes.
//!
//! Run with `fuzz/run 300 conditional`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::conditional(bytes));
