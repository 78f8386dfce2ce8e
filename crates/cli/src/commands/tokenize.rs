//! `vqdna tokenize`: FASTA to codes.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::time::Instant;
use vqdna::folder::Vocabulary;
use vqdna::transcode::encode::{Tokenize, Tokenized};
use vqdna_data::alphabet::{AmbiguousPolicy, SoftMaskPolicy};
use vqdna_data::codes::{ShardNumber, Writer};
use vqdna_data::segment::Policy;

use super::Verdict;
use crate::arguments::{Compute, PrecisionName, Strands, check_output};
use crate::interrupt;
use crate::progress::{bases_bar, describe};

/// Turn FASTA into codes: one code for each base and level.
///
/// Codes are those of the whole sequence in one piece, whatever --chunk, --batch, --shard and --threads.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder of the vocabulary, or of a model with one inside.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    /// Where the codes go: .parquet, .npy (with a sidecar of records), .tsv, or `-` for TSV on standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Only this region of one FASTA file, as in samtools: chr1:1,000-2,000 (1-based, inclusive).
    #[arg(long)]
    pub region: Option<String>,
    /// Only the I-th of N equal shares of the bases; join the files with `vqdna merge`.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<ShardNumber>,
    /// Strands to tokenize.
    #[arg(long, value_enum, default_value_t = Strands::Forward)]
    pub strand: Strands,
    /// Ambiguous letters: n (become N), split or error. Default: as the vocabulary was learned.
    #[arg(long, value_name = "n|split|error")]
    pub ambiguous: Option<AmbiguousPolicy>,
    /// Soft-masked bases: keep or drop. Default: as the vocabulary was learned.
    #[arg(long, value_name = "keep|drop")]
    pub soft_mask: Option<SoftMaskPolicy>,
    /// Bases computed in one piece.
    #[arg(long, default_value_t = 4096, value_parser = at_least_one)]
    pub chunk: usize,
    /// Pieces computed together. Default: as many as make about 16,384 bases.
    #[arg(long, value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// How products are computed. In bf16 some codes are others; the output names it.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,
    #[command(flatten)]
    pub compute: Compute,
}

/// A number of at least one.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Tokenizes and says on stderr what was done.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let vocabulary = Vocabulary::load(&args.model, &device)?;
    interrupt::listen()?;
    let begun = Instant::now();
    let done = tokenize(args, &vocabulary, &device)?;
    let seconds = begun.elapsed().as_secs_f64();
    message!("{}", describe(&done.counts));
    message!("{} bases tokenized in {seconds:.1} s, {:.0} bases/s", done.bases, done.bases as f64 / seconds);
    Ok(Verdict::Passed)
}

/// Tokenizes into the output file.
pub fn tokenize(args: &Args, vocabulary: &Vocabulary, device: &burn::prelude::Device) -> Result<Tokenized> {
    use vqdna::transcode::TranscodeError as E;
    match (&args.region, args.shard) {
        (Some(_), Some(_)) => return Err(E::ShardOfRegion.into()),
        (Some(_), None) if args.inputs.len() != 1 => return Err(E::RegionOfMany(args.inputs.len()).into()),
        _ => {}
    }
    check_output(&args.output, &args.inputs)?;
    let learned = vocabulary.config.letters;
    let job = Tokenize {
        vocabulary,
        device,
        letters: Policy {
            ambiguous: args.ambiguous.unwrap_or(learned.ambiguous),
            soft_mask: args.soft_mask.unwrap_or(learned.soft_mask),
        },
        both_strands: args.strand == Strands::Both,
        chunk: args.chunk,
        batch: args.batch,
        precision: args.precision.on(device)?,
    };
    let mut writer = Writer::create(&args.output, &job.header(args.shard))?;
    let bar = bases_bar(None, "tokenizing");
    let progress = &mut |bases| {
        bar.set_position(bases);
        interrupt::go_on()
    };
    let done = match &args.region {
        Some(region) => job.region(&args.inputs[0], region, &mut writer, progress),
        None => job.files(&args.inputs, args.shard, &mut writer, progress),
    };
    bar.finish_and_clear();
    let done = done?;
    writer.finish()?;
    Ok(done)
}
