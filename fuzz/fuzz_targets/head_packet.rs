//! A packet of heads: believed, it has the heads it counts.
//!
//! Run with `fuzz/run 300 head_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::head_packet(bytes));
