#![no_main]
libfuzzer_sys::fuzz_target!(init: vqdna_fuzz::allow_caught_panics(), |data: &[u8]| vqdna_fuzz::codes_parquet(data));
