//! Codes of a sequence, and the bases that they decode to: `cargo run --release --example tokenize -- MODEL ACGTACGT`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::path::Path;
use vqdna::batch::{Batch, HostWindow};
use vqdna::model_dir::Vocabulary;
use vqdna::tokenizer::bases_of;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, letters] = &arguments[..] else { return Err("arguments: MODEL SEQUENCE".into()) };
    let device = vqdna::device::open("cpu")?;
    let vocabulary = Vocabulary::load(Path::new(folder), &device)?;

    // Windows side by side make a batch; here it is one.
    let window = HostWindow { bases: bases_of(letters.as_bytes()), soft_masked: Vec::new() };
    let batch = Batch::new(&[window], 1.0, &device);
    let codes = vocabulary.model.encode(&batch);
    for (level, codes) in (1..).zip(&codes) {
        println!("level {level}: {:?}", codes.clone().into_data().try_into_vec_as::<i32>()?);
    }

    let logits = vocabulary.model.decode(&codes, &batch.padding);
    let bases = logits.argmax(2).into_data().try_into_vec_as::<i32>()?;
    let decoded: String = bases.iter().map(|&base| char::from(b"ACGT"[base as usize])).collect();
    println!("decoded: {decoded}");
    Ok(())
}
