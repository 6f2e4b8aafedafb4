//! The header of a checkpoint: believed, its sections lie in its slot.
//!
//! Run with `fuzz/run 300 checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::checkpoint(bytes));
