//! What a fine-tuned model predicts of a sequence: `cargo run --release --example predict -- MODEL ACGTACGT`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::path::Path;
use vqdna::infer::predict::{FineTuned, Merge, predict};
use vqdna::infer::{Execution, Sequence, Windows};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, letters] = &arguments[..] else { return Err("arguments: MODEL SEQUENCE".into()) };
    let device = vqdna::device::open("cpu")?;
    let model = FineTuned::load(Path::new(folder), &device)?;

    let sequence = Sequence::new("one", letters.as_bytes());
    let windows = Windows { length: model.task().window, stride: model.task().window };
    for found in predict(&model, &[sequence], windows, Merge::Mean, Execution::on(&device)) {
        let found = found?;
        for (name, value) in model.task().labelling.outputs().iter().zip(&found.values) {
            println!("{name}\t{value:.4}");
        }
    }
    Ok(())
}
