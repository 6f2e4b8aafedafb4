//! Whom a request is of, as proxies have it.
//!
//! Run with `fuzz/run 300 forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::forwarded(bytes));
