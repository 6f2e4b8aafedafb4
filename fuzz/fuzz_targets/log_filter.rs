//! Filters of the log: what is taken is shown as it can be read again, what is not has its column.
//!
//! Run with `fuzz/run 300 log_filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::access_log::filter::fuzz(bytes));
