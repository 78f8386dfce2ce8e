//! `vqdna decode`: codes back to FASTA.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use vqdna::model_dir::Vocabulary;
use vqdna::transcode::decode::{Decode, Decoded};
use vqdna_data::corpus::Corpus;
use vqdna_data::number::Shortest;
use vqdna_data::output::{self, TextOutput};
use vqdna_data::segment::Policy;

use super::Verdict;
use crate::arguments::{Compute, at_least_one, check_output};
use crate::interrupt;
use crate::output::{FASTA, note_stream};
use crate::progress::Progress;
use crate::words::counted;

/// Turn codes back into bases, and measure how many are right.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna decode runs/lambda lambda.parquet -o restored.fa --original examples/data/lambda.fa")]
pub struct Args {
    /// Folder of the vocabulary, or of a model with one inside.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Codes: .parquet, .npy or .tsv as written by `vqdna tokenize`.
    #[arg(value_name = "CODES")]
    pub codes: PathBuf,
    /// Where the FASTA goes; `-` is standard output. With .gz or .bgz after its ending it is compressed by bgzip, with .zst by Zstandard.
    #[arg(long, short, value_name = "FASTA")]
    pub output: PathBuf,
    /// The genome the codes were made from: prints the share of bases decoded right. May be repeated for several files.
    #[arg(long, value_name = "FASTA")]
    pub original: Vec<PathBuf>,
    /// Positions computed in one piece.
    #[arg(long, default_value_t = 4096, value_parser = at_least_one)]
    pub chunk: usize,
    #[command(flatten)]
    pub compute: Compute,
}

/// Bases of an original kept in memory, in bytes; beyond, they go to a temporary file.
const ORIGINAL_MEMORY: u64 = 1_000_000_000;

/// Decodes and prints the accuracy where it is known: on stdout, or on stderr if the FASTA goes to stdout.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let vocabulary = Vocabulary::load(&args.model, &device)?;
    let decoded = decode(args, &vocabulary, &device)?;
    message!("{} decoded", counted(decoded.bases, "base"));
    if !args.original.is_empty() && decoded.compared == 0 {
        message!("note: the original knows none of these bases (N), so there is nothing to compare");
    }
    if let Some(accuracy) = decoded.accuracy() {
        let text =
            format!("reconstruction\t{}\ncompared\t{}\nright\t{}", Shortest(accuracy), decoded.compared, decoded.right);
        if args.output == Path::new("-") { message!("{text}") } else { data!("{text}") }
    }
    Ok(Verdict::Passed)
}

/// Decodes into the output file.
pub fn decode(args: &Args, vocabulary: &Vocabulary, device: &burn::prelude::Device) -> Result<Decoded> {
    output::ending(&args.output, &FASTA)?;
    check_output(&args.output, args.original.iter().chain([&args.codes]))?;
    let original = match args.original.as_slice() {
        [] => None,
        paths => Some(Corpus::read(paths, Policy::default(), ORIGINAL_MEMORY)?),
    };
    let job = Decode { vocabulary, device, chunk: args.chunk };
    interrupt::listen()?;
    note_stream(&args.output);
    let shown = Progress::new("decoding", "bases", None);
    let progress = &mut |bases| {
        shown.set(bases);
        interrupt::go_on()
    };
    let place = || format!("writing {}", args.output.display());
    let mut output = TextOutput::create(&args.output).with_context(place)?;
    let decoded = job.run(&args.codes, original.as_ref(), &mut output, progress)?;
    output.finish().with_context(place)?;
    drop(shown);
    Ok(decoded)
}
