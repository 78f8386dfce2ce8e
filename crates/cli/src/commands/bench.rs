//! `vqdna bench`: speed and memory of fixed workloads.

use anyhow::{Context, Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use std::path::PathBuf;
use vqdna::benchmark::{self, Workload};

use super::Verdict;
use super::tokenize::at_least_one;
use crate::arguments::{Compute, PrecisionName, PresetName};

/// Measure a fixed workload and print one line of JSON, in the form of the PyTorch definition's bench.py.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// What to measure.
    #[arg(value_enum)]
    pub work: Work,
    /// Size of the network.
    #[arg(long, value_enum, default_value_t = PresetName::Small)]
    pub preset: PresetName,
    /// Measured runs; tokenize runs once unless told otherwise.
    #[arg(long, value_parser = at_least_one)]
    pub runs: Option<usize>,
    /// Bases of a sequence; not with `tokenize`, which cuts pieces of 4096. Default: 512.
    #[arg(long, value_parser = at_least_one)]
    pub length: Option<usize>,
    /// Sequences of a run; not with `tokenize`. Default: 16, or 4 with `--preset base`.
    #[arg(long, value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// How products are computed.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,
    /// FASTA to tokenize (only with `tokenize`).
    pub fasta: Option<PathBuf>,
    /// Where its codes go (only with `tokenize`).
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub compute: Compute,
}

/// A workload.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Work {
    /// A training step of stage 1.
    Learn,
    /// A frozen tokenizer on windows in memory.
    Encode,
    /// The whole job: read FASTA, encode, write codes.
    Tokenize,
    /// A training step of stage 2.
    Pretrain,
    /// A frozen encoder over code vectors in memory.
    Embed,
    /// Matrix products that stay in the caches: what no work can exceed.
    Peak,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let preset = args.preset.into();
    let precision = args.precision.on(&device)?;
    let runs = args.runs.unwrap_or(if matches!(args.work, Work::Tokenize) { 1 } else { 7 });
    let usual = Workload { precision, ..Workload::new(preset, runs) };
    let work =
        Workload { length: args.length.unwrap_or(usual.length), batch: args.batch.unwrap_or(usual.batch), ..usual };
    let measurement = match args.work {
        Work::Learn => benchmark::learn(&work, &device),
        Work::Encode => benchmark::encode(&work, &device),
        Work::Pretrain => benchmark::pretrain(&work, &device),
        Work::Embed => benchmark::embed(&work, &device),
        Work::Peak => {
            data!("{}", serde_json::to_string(&benchmark::peak())?);
            return Ok(Verdict::Passed);
        }
        Work::Tokenize => {
            let is_usual = args.length.is_none() && args.batch.is_none();
            ensure!(is_usual, "bench tokenize reads all of its FASTA file; it takes no --length and no --batch");
            let fasta =
                args.fasta.as_deref().context("bench tokenize needs a FASTA file and an output: FASTA OUT.npy")?;
            let output =
                args.output.as_deref().context("bench tokenize needs an output after the FASTA file: OUT.npy")?;
            benchmark::tokenize(&work, &device, fasta, output)?
        }
    };
    data!("{}", serde_json::to_string(&measurement)?);
    Ok(Verdict::Passed)
}
