#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vqdna_fuzz::tokenizer_json(data));
