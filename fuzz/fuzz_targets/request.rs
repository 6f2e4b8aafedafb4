//! Request heads: what is accepted is normal, and stays so.
//!
//! Run with `cargo +nightly fuzz run request fuzz/corpus/request fuzz/seeds/request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::request(bytes));
