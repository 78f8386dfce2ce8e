//! `vqdna generate`: DNA by a model that predicts the next token.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use std::io::Write;
use std::path::PathBuf;
use vqdna::infer::Interrupted;
use vqdna::infer::generate::{GenerateError, Generator, Sampling};
use vqdna::model_dir::Model;
use vqdna_data::alphabet::{Letter, classify, letter};

use super::Verdict;
use crate::arguments::{Compute, at_least_one};
use crate::interrupt;
use crate::output::{FASTA, Output};
use crate::progress::Progress;

/// Bases of a FASTA line.
const LINE: usize = 60;

/// Generate DNA with a model that was pre-trained to predict the next token.
///
/// Each sequence begins with the prompt. The model sees the last bases, as many as in a window of its training. For a seed, the same
/// sequences come out, however many are generated.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna pretrain --tokenizer character examples/data/lambda.fa -o runs/next --preset tiny --steps 200 --set objective.kind=next\n\
    \x20 vqdna generate runs/next --prompt ATGAAACGC --length 600 --temperature 0.9 --top-k 3 -o generated.fa")]
pub struct Args {
    /// Folder of the model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Bases that every sequence begins with. Over codes at least 21, which is what a code sees on one side and one more.
    #[arg(long, default_value = "", value_parser = prompt, value_name = "BASES")]
    pub prompt: Prompt,
    /// Bases after the prompt.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    pub length: usize,
    /// Number of sequences.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = at_least_one)]
    pub number: usize,
    /// Logits are divided by it: below 1 likely tokens become likelier; 0 takes the most likely one.
    #[arg(long, default_value_t = 1.0, value_parser = not_negative, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw from this many most likely tokens only; 0 for all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Draw from the fewest most likely tokens with more than this probability together; 0 for all.
    #[arg(long, default_value_t = 0.0, value_parser = share, allow_negative_numbers = true, value_name = "P")]
    pub top_p: f64,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the FASTA goes; `-` is standard output. With .gz or .bgz after its ending it is compressed by bgzip, with .zst by Zstandard.
    #[arg(long, short, default_value = "-", value_name = "FASTA")]
    pub output: PathBuf,
    #[command(flatten)]
    pub compute: Compute,
}

/// Bases of a prompt.
#[derive(Clone, Debug, Default)]
pub struct Prompt(Vec<u8>);

fn prompt(text: &str) -> Result<Prompt, String> {
    let base = |(at, symbol): (usize, u8)| match classify(symbol) {
        Letter::Base(base) => Ok(base),
        _ => Err(format!("letter {} is {}, not one of A, C, G and T", at + 1, char::from(symbol).escape_default())),
    };
    text.bytes().enumerate().map(base).collect::<Result<_, _>>().map(Prompt)
}

fn not_negative(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&number: &f64| number >= 0.0 && number.is_finite()).ok_or_else(|| "0 or more".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| (0.0..1.0).contains(number)).ok_or_else(|| "0 or more, and below 1".to_owned())
}

/// Writes the sequences as FASTA.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let model = Model::load(&args.model, &device)?;
    let Args { temperature, top_k, top_p, seed, .. } = *args;
    let generator = Generator::new(&model, &device, Sampling { temperature, top_k, top_p, seed })
        .with_context(|| args.model.display().to_string())?;
    interrupt::listen()?;
    let shown = Progress::new("generating", "bases", Some((args.number * args.length) as u64));
    let place = || format!("writing {}", args.output.display());
    let mut file = Output::create(&args.output, &FASTA)?;
    for number in 0..args.number {
        let poll = &mut |bases| {
            shown.set((number * args.length + bases) as u64);
            interrupt::go_on()
        };
        let bases = match generator.sequence(&args.prompt.0, args.length, number as u64, poll) {
            Err(GenerateError::Interrupted) => return Err(Interrupted.into()),
            made => made.with_context(|| args.model.display().to_string())?,
        };
        let letters: Vec<u8> = bases.into_iter().map(letter).collect();
        writeln!(file, ">generated_{} seed={seed} prompt={}", number + 1, args.prompt.0.len()).with_context(place)?;
        for line in letters.chunks(LINE) {
            file.write_all(line).and_then(|()| file.write_all(b"\n")).with_context(place)?;
        }
    }
    file.finish()?;
    drop(shown);
    Ok(Verdict::Passed)
}
