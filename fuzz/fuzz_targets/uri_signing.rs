//! A URL's token, and what it says.
//!
//! Run with `fuzz/run 300 uri_signing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::token::fuzz::uri_signing(bytes));
