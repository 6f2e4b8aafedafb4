//! `Via`: who comes back is known again.
//!
//! Run with `fuzz/run 300 via`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::via(bytes));
