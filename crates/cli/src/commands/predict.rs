//! `vqdna predict`: a fine-tuned model and sequences to classes and probabilities.

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use vqdna::folder::Finetuned;
use vqdna::infer::input::Input;
use vqdna::infer::predict::{Merge, predict};
use vqdna::infer::{Budget, Execution, Windows};
use vqdna::objective::supervised::prediction::Prediction;
use vqdna_data::labelled::{ColumnRequest, Labelling};

use super::Verdict;
use crate::arguments::{Compute, check_output};
use crate::output::Output;

/// Predict for sequences: a row for each, in their order, with the class (or labels, or values) and the probabilities.
///
/// INPUT is a table (CSV, TSV, JSON Lines, Parquet), FASTA or FASTQ, or with --fasta a BED file; `-` is a table on standard input.
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
    /// Where the table goes, tab-separated; `-` is standard output.
    #[arg(long, short, default_value = "-")]
    pub output: PathBuf,
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
}

impl ReadArgs {
    /// What `path` is.
    pub fn input(&self, path: &Path) -> Input {
        match &self.fasta {
            Some(genome) => Input::Bed { bed: path.to_owned(), genome: genome.clone() },
            None if Input::is_fasta(path) => Input::Fasta(path.to_owned()),
            None => {
                let columns = ColumnRequest::of_model(&self.sequence, None);
                Input::Table { path: path.to_owned(), format: None, columns }
            }
        }
    }
}

/// How long sequences are cut.
#[derive(ClapArgs, Clone, Debug)]
pub struct WindowArgs {
    /// Bases that are seen together; longer sequences are seen window by window. Default: the longest sequence that the model was
    /// fine-tuned on.
    #[arg(long, value_parser = super::tokenize::at_least_one)]
    pub window: Option<usize>,
    /// Bases from the start of a window to that of the next. Default: half a window.
    #[arg(long, value_parser = super::tokenize::at_least_one)]
    pub stride: Option<usize>,
}

impl WindowArgs {
    /// Windows of `length` bases unless said otherwise.
    pub fn windows(&self, length: usize, stride: impl FnOnce(usize) -> usize) -> Result<Windows> {
        let length = self.window.unwrap_or(length).max(1);
        let stride = self.stride.unwrap_or_else(|| stride(length).max(1));
        anyhow::ensure!(
            stride <= length,
            "--stride {stride} is longer than the window of {length} bases: bases would be skipped"
        );
        Ok(Windows { length, stride })
    }
}

/// How much is worked on at a time.
#[derive(ClapArgs, Clone, Debug)]
pub struct BudgetArgs {
    /// Memory for batches and what waits for them, in MiB, beside the program, the weights and the longest sequence.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = super::tokenize::at_least_one)]
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

impl From<MergeName> for Merge {
    fn from(name: MergeName) -> Self {
        match name {
            MergeName::Mean => Self::Mean,
            MergeName::Max => Self::Max,
            MergeName::None => Self::None,
        }
    }
}

/// Predicts into a table.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let model = Finetuned::load(&args.model, &device)?;
    check_output(&args.output, args.read.fasta.iter().chain([&args.input]))?;
    let windows = args.windows.windows(model.finetuned.window, |length| length.div_ceil(2))?;
    let labelling = &model.finetuned.labelling;
    crate::interrupt::listen()?;
    let mut output = Output::create(&args.output)?;
    writeln!(output, "{}", header(labelling))?;
    let mut cut = 0_u64;
    let poll = |_| crate::interrupt::go_on();
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    args.read.input(&args.input).read(|sequences| -> Result<()> {
        for found in predict(&model, &sequences, windows, args.merge.into(), execution) {
            let found = found?;
            cut += u64::from(found.windows > 1);
            let prediction = Prediction::merged(labelling, found.values.clone());
            let values: Vec<String> = found.values.iter().map(|value| format!("{value:.6}")).collect();
            let said = match labelling {
                Labelling::Values { .. } => Vec::new(),
                _ => vec![prediction.said(&found.values)],
            };
            let place = [found.bases.start.to_string(), found.bases.end.to_string(), found.windows.to_string()];
            let id = sequences[found.sequence].id.clone();
            let fields: Vec<String> = [id].into_iter().chain(place).chain(said).chain(values).collect();
            writeln!(output, "{}", fields.join("\t"))?;
        }
        crate::interrupt::check()
    })?;
    output.finish()?;
    if cut > 0 {
        message!(
            "{cut} sequences are longer than a window of {} bases and were seen in several, {} bases apart",
            windows.length,
            windows.stride
        );
    }
    Ok(Verdict::Passed)
}

/// Names of the columns; probabilities carry the name of their class or label.
fn header(labelling: &Labelling) -> String {
    let (said, prefix) = match labelling {
        Labelling::Classes { .. } => (Some("class"), "p_"),
        Labelling::Labels { .. } => (Some("labels"), "p_"),
        Labelling::Values { .. } => (None, ""),
    };
    let names = labelling.outputs().iter().map(|name| format!("{prefix}{name}"));
    let place = ["id", "start", "end", "windows"].map(str::to_owned);
    place.into_iter().chain(said.map(str::to_owned)).chain(names).collect::<Vec<_>>().join("\t")
}
