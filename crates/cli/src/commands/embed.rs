//! `vqdna embed`: a model and sequences to vectors.

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use std::path::PathBuf;
use vqdna::head::sequence::Pooling;
use vqdna::infer::embed::Embedder;
use vqdna::infer::{Execution, Sequence};
use vqdna_data::labelled::TakenColumns;
use vqdna_data::vectors::{Header, Writer};

use super::Verdict;
use super::predict::{BudgetArgs, ReadArgs, WindowArgs, windows_seen};
use crate::arguments::{Compute, check_output};
use crate::inputs;
use crate::interrupt;
use crate::output::RowsSeen;
use crate::progress::Progress;
use crate::sample;

/// Turn sequences into vectors: one for each, in their order, or with --pool none one for each base, pool or unit.
///
/// INPUT is a table (CSV, TSV, JSON Lines, Parquet), FASTA or FASTQ, which its content tells, or with --fasta a BED file; `-` is
/// standard input. A sequence without letters has a vector of NaN (nothing in text), and with --pool none no vector.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna embed runs/encoder examples/data/prom_core_tata/test.csv.gz -o test.parquet\n\
    \x20 vqdna embed runs/encoder examples/data/lambda.fa -o bases.npy --pool none")]
pub struct Args {
    /// Folder of a model: fine-tuned, pre-trained, or a vocabulary.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Sequences.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,
    /// Where vectors go: .parquet, .npy (with a sidecar of rows), .tsv (also .tsv.gz or .tsv.zst), or `-` for text on standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Layer of the encoder; 0 are the vectors of codes or letters. Default: the last.
    #[arg(long)]
    pub layer: Option<usize>,
    /// What stands for a sequence. Padding never counts.
    #[arg(long, value_enum, default_value_t = PoolName::Mean)]
    pub pool: PoolName,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub windows: WindowArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub compute: Compute,
}

/// What stands for a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolName {
    /// The mean of its vectors.
    Mean,
    /// The largest value of each channel.
    Max,
    /// Its first vector.
    First,
    /// Each vector, with the bases that it stands for.
    None,
}

impl PoolName {
    fn pooling(self) -> Option<Pooling> {
        match self {
            Self::Mean => Some(Pooling::Mean),
            Self::Max => Some(Pooling::Max),
            Self::First => Some(Pooling::First),
            Self::None => None,
        }
    }
}

/// Embeds into a file.
pub fn run(args: &Args) -> Result<Verdict> {
    check_output(&args.output, args.read.fasta.iter().chain([&args.input]))?;
    let device = args.compute.open()?;
    let embedder = Embedder::load(&args.model, args.layer, &device)?;
    // Windows of pooled vectors need not overlap; single ones are better off with context on both sides.
    let overlap = |length: usize| if args.pool == PoolName::None { length.div_ceil(2) } else { length };
    let windows = args.windows.windows(embedder.window().unwrap_or(inputs::WINDOW), overlap)?;
    let word = args.pool.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let note = |name: &str, value: String| (name.to_owned(), value);
    let header = Header {
        width: embedder.width(),
        notes: vec![
            note("model", embedder.digest.clone()),
            note("layer", embedder.layer().to_string()),
            note("pool", word),
            note("window", windows.length.to_string()),
            note("stride", windows.stride.to_string()),
        ],
    };
    interrupt::listen()?;
    let mut opened = inputs::open(&args.read.input(&args.input, None))?;
    if opened.columns().is_some_and(TakenColumns::are_pairs) {
        message!("note: of each pair, the first sequence alone is embedded");
    }
    let mut writer = Writer::create(&args.output, &header)?;
    let (mut seen, mut cut) = (RowsSeen::of(&args.output), 0_u64);
    let progress = Progress::new("embedding", "bases", sample::bases(std::slice::from_ref(&args.input)));
    let poll = |bases| {
        progress.add(bases);
        interrupt::go_on()
    };
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    let counts = opened.read(args.read.letters.over(embedder.letters()), |sequences| -> Result<()> {
        let is_cut = |sequence: &&Sequence| sequence.parts.iter().any(|part| part.len() > windows.length);
        cut += sequences.iter().filter(is_cut).count() as u64;
        for found in embedder.embed(&sequences, windows, args.pool.pooling(), execution) {
            let found = found?;
            let bases = found.bases.start as u64..found.bases.end as u64;
            writer.write(&sequences[found.sequence].id, bases, &found.vector)?;
            seen.add(|| Ok(writer.flush()?))?;
        }
        interrupt::check()
    })?;
    drop(progress);
    writer.finish()?;
    inputs::report(&counts, opened.comments());
    if cut > 0 {
        windows_seen(cut, windows);
    }
    Ok(Verdict::Passed)
}
