//! Targeted fields: one that is sound counts alone, one that is broken not at all.
//!
//! Run with `fuzz/run 300 targeted`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::targeted(bytes));
