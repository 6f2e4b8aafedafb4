//! Databases of countries and ASes: where anybody is can be asked of what is taken for one.
//!
//! Run with `fuzz/run 300 places`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::places(bytes));
