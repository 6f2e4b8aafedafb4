//! A URL's token, and what it says.
//!
//! Run with `cargo +nightly fuzz run uri_signing fuzz/corpus/uri_signing fuzz/seeds/uri_signing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::uri_signing(bytes));
