#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| elements_exporter_fuzz::responses::check(data));
