//! The journal of purges: what it says is bounded, and it owns to what it forgot.
//!
//! Run with `fuzz/run 300 purge_journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::purge::fuzz::journal(bytes));
