#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| watchkeep_testkit::fuzz::cursors(bytes).unwrap());
