//! A packet of heads: believed, it has the heads it counts.
//!
//! Run with `cargo +nightly fuzz run head_packet fuzz/corpus/head_packet fuzz/seeds/head_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::store::format::fuzz::head_packet(bytes));
