//! What players tell: of a closed set, bounded, and never in a key or on its way to an origin.
//!
//! Run with `fuzz/run 300 cmcd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::cmcd(bytes));
