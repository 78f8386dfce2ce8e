//! The vector of each record of a FASTA file: `cargo run --release --example embed -- MODEL genes.fa`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::path::Path;
use vqdna::head::sequence::Pooling;
use vqdna::infer::embed::Embedder;
use vqdna::infer::input::Input;
use vqdna::infer::{Execution, Windows};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, fasta] = &arguments[..] else { return Err("arguments: MODEL FASTA".into()) };
    let device = vqdna::device::open("cpu")?;
    // The last layer of the model.
    let embedder = Embedder::load(Path::new(folder), None, &device)?;

    // Longer records are seen in windows of 512 bases; the vector is the mean over all bases.
    let windows = Windows { length: 512, stride: 512 };
    Input::Fasta(fasta.into()).open()?.read(embedder.letters(), |sequences| {
        for found in embedder.embed(&sequences, windows, Some(Pooling::Mean), Execution::on(&device)) {
            let found = found?;
            println!("{}\t{:?}", sequences[found.sequence].id, &found.vector);
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(())
}
