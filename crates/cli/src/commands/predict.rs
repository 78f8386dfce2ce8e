//! `vqdna predict`: a fine-tuned model and sequences to classes and probabilities.

use anyhow::{Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use std::path::{Path, PathBuf};
use vqdna::infer::input::Input;
use vqdna::infer::predict::{FineTuned, Merge, predict};
use vqdna::infer::{Budget, Execution, Sequence, Windows};
use vqdna_data::labelled::{Carry, ColumnRequest, TakenColumns};

use super::Verdict;
use crate::arguments::{Compute, at_least_one, check_output};
use crate::inputs::{self, LetterArgs};
use crate::output::RowsSeen;
use crate::predictions::{Format, Predictions};
use crate::progress::Progress;
use crate::sample;
use crate::words::{are, counted};

/// Predict for sequences: a row for each, in their order, with the class (or labels, or values) and the probabilities.
///
/// INPUT is a table (CSV, TSV, JSON Lines, Parquet), FASTA or FASTQ, which its content tells, or with --fasta a BED file; `-` is
/// standard input. A sequence without letters has a row without values.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna predict runs/promoters examples/data/prom_core_tata/test.csv.gz -o predictions.tsv\n\
    \x20 vqdna predict runs/promoters examples/data/lambda.fa > windows.tsv\n\
    \x20 vqdna predict runs/promoters peaks.bed --fasta genome.fa.gz -o peaks.tsv")]
pub struct Args {
    /// Folder of a fine-tuned model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Sequences.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub windows: WindowArgs,
    /// What becomes of the windows of a long sequence.
    #[arg(long, value_enum, default_value_t = MergeName::Mean)]
    pub merge: MergeName,
    /// Columns of a table that are kept, as text, in the table of predictions: those named, or without names all that hold neither
    /// sequences nor the names of rows. Stands after MODEL and INPUT.
    #[arg(long, value_name = "NAME", num_args = 0..=1, value_delimiter = ',')]
    pub keep_columns: Option<Vec<String>>,
    /// Where predictions go; `-` is standard output. The ending names the format: .tsv, .csv, .jsonl (or .json), .parquet, .bed or
    /// .bedgraph; texts also with .gz, .bgz or .zst.
    #[arg(long, short, default_value = "-")]
    pub output: PathBuf,
    /// Format, where the name of the output has no ending. BED and bedGraph want a BED file as INPUT, or records that are contigs.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Print a JSON object a line, as --format jsonl does.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Class, label or target that the score of BED (a probability in thousandths) or the value of bedGraph is of. Default: the second
    /// of two classes; in BED of more, the one that is predicted.
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub compute: Compute,
}

/// How sequences are read.
#[derive(ClapArgs, Clone, Debug)]
pub struct ReadArgs {
    /// Genome of a BED file.
    #[arg(long, value_name = "FASTA")]
    pub fasta: Option<PathBuf>,
    /// Column of sequences; twice for pairs.
    #[arg(long, value_name = "COLUMN")]
    pub sequence: Vec<String>,
    #[command(flatten)]
    pub letters: LetterArgs,
}

impl ReadArgs {
    /// What `path` is; `model` are the columns that a model learned from, which are looked for in tables.
    pub fn input(&self, path: &Path, model: Option<&TakenColumns>) -> Input {
        if let Some(genome) = &self.fasta {
            return Input::Bed { bed: path.to_owned(), genome: genome.clone() };
        }
        Input::Any { path: path.to_owned(), columns: ColumnRequest::of_model(&self.sequence, model.cloned()) }
    }
}

/// How long sequences are cut.
#[derive(ClapArgs, Clone, Debug)]
pub struct WindowArgs {
    /// Bases that are seen together; longer sequences are seen window by window. Default: the longest sequence that the model was
    /// fine-tuned on, else a window of its pre-training.
    #[arg(long, value_parser = at_least_one)]
    pub window: Option<usize>,
    /// Bases from the start of a window to that of the next. Default: half a window; where vectors of windows are pooled, a whole one.
    #[arg(long, value_parser = at_least_one)]
    pub stride: Option<usize>,
}

impl WindowArgs {
    /// Windows of `length` bases unless said otherwise.
    pub fn windows(&self, length: usize, stride: impl FnOnce(usize) -> usize) -> Result<Windows> {
        let length = self.window.unwrap_or(length).max(1);
        let stride = self.stride.unwrap_or_else(|| stride(length).max(1));
        ensure!(
            stride <= length,
            "--stride {stride} is longer than the window of {}: bases would be skipped",
            counted(length as u64, "base")
        );
        Ok(Windows { length, stride })
    }
}

/// How much is worked on at a time.
#[derive(ClapArgs, Clone, Debug)]
pub struct BudgetArgs {
    /// Memory for batches and what waits for them, in MiB, beside the program, the weights and the longest sequence.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = at_least_one)]
    pub memory: usize,
}

impl BudgetArgs {
    /// As the library names it.
    pub fn budget(&self) -> Budget {
        Budget::mebibytes(self.memory)
    }
}

/// What becomes of the windows of a long sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MergeName {
    /// The mean of their probabilities or values.
    Mean,
    /// Of each probability or value the largest.
    Max,
    /// A row for each.
    None,
}

impl MergeName {
    /// As it is written on the command line.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl From<MergeName> for Merge {
    fn from(name: MergeName) -> Self {
        match name {
            MergeName::Mean => Self::Mean,
            MergeName::Max => Self::Max,
            MergeName::None => Self::None,
        }
    }
}

/// Predicts into a table, or onto a genome.
pub fn run(args: &Args) -> Result<Verdict> {
    let format = Format::of(&args.output, if args.json { Some(Format::Jsonl) } else { args.format })?;
    check_output(&args.output, args.read.fasta.iter().chain([&args.input]))?;
    let device = args.compute.open()?;
    let model = FineTuned::load(&args.model, &device)?;
    let windows = args.windows.windows(model.task().window, |length| length.div_ceil(2))?;
    let labelling = &model.task().labelling;
    let mut input = args.read.input(&args.input, model.task().columns.as_ref());
    if let (Some(names), Input::Any { columns, .. }) = (&args.keep_columns, &mut input) {
        columns.carry = if names.is_empty() { Carry::Others } else { Carry::Named(names.clone()) };
    }
    crate::interrupt::listen()?;
    let mut opened = inputs::open(&input)?;
    ensure!(
        args.keep_columns.is_none() || opened.columns().is_some(),
        "--keep-columns: {} is no table, and has no columns to keep",
        args.input.display()
    );
    let of_bed = args.read.fasta.is_some();
    ensure!(
        !format.has_places() || of_bed || opened.columns().is_none(),
        "{}: a table of sequences has no places, which BED and bedGraph are made of; choose a table as output, or give a BED file and its \
         genome (--fasta)",
        args.input.display()
    );
    let class = args.class.as_deref();
    let mut output = Predictions::create(&args.output, format, labelling, class, of_bed, opened.carried())?;
    let (mut seen, mut cut) = (RowsSeen::of(&args.output), 0_u64);
    let progress = Progress::new("predicting", "bases", sample::bases(std::slice::from_ref(&args.input)));
    let poll = |bases| {
        progress.add(bases);
        crate::interrupt::go_on()
    };
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    let counts = opened.read(args.read.letters.over(model.model().config.letters), |sequences| -> Result<()> {
        check_arity(&model, &args.input, &sequences)?;
        for found in predict(&model, &sequences, windows, args.merge.into(), execution) {
            let found = found?;
            cut += u64::from(found.windows > 1);
            output.write(&sequences[found.sequence], &found)?;
            seen.add(|| output.flush())?;
        }
        crate::interrupt::check()
    })?;
    drop(progress);
    output.finish()?;
    inputs::report(&counts, opened.comments());
    if cut > 0 {
        windows_seen(cut, windows);
    }
    Ok(Verdict::Passed)
}

/// Refuses single sequences for a model of pairs, and pairs for one of single sequences: the model would answer, and be wrong.
fn check_arity(model: &FineTuned, input: &Path, sequences: &[Sequence]) -> Result<()> {
    let Some(pairs) = model.task().takes_pairs() else { return Ok(()) };
    let words = |pairs| if pairs { "pairs of sequences" } else { "single sequences" };
    match sequences.iter().find(|sequence| sequence.second.is_some() != pairs) {
        Some(other) => anyhow::bail!(
            "{}: the model was fine-tuned on {}, but `{}` is one of {}{}",
            input.display(),
            words(pairs),
            other.id,
            words(!pairs),
            if pairs { "; pairs are read from a table with two columns of sequences" } else { "" }
        ),
        None => Ok(()),
    }
}

/// Says that sequences were seen in several windows.
pub fn windows_seen(sequences: u64, windows: Windows) {
    let Windows { length, stride } = windows;
    let [length, stride] = [length, stride].map(|bases| counted(bases as u64, "base"));
    let are = are(sequences, "sequence");
    message!("{are} longer than a window of {length}, and seen in several windows that begin {stride} apart");
}
