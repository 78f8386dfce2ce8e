//! `vqdna bench`: speed and memory of fixed workloads.

use anyhow::{Context, Result, bail, ensure};
use burn::prelude::Device;
use clap::{Args as ClapArgs, ValueEnum};
use std::path::{Path, PathBuf};
use vqdna::benchmark::{self, FineTuning, Weights, Workload};
use vqdna::estimate::Keeping;
use vqdna::model::LanguageModel;
use vqdna::model_dir::{Kind, Model, Network};
use vqdna::ops::Precision;

use super::Verdict;
use crate::arguments::{Compute, PrecisionName, PresetName, at_least_one};
use crate::memory::print_memory;

/// Measure a fixed workload and print one line of JSON, in the form of the PyTorch definition's bench.py.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna bench learn --preset small\n\
    \x20 vqdna bench tokenize --preset tiny examples/data/lambda.fa codes.npy\n\
    \x20 vqdna bench pretrain --preset base --dry-run")]
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
    /// Bases of a sequence; not with `tokenize`, which cuts pieces of 4096. Default: 512, or 101 with `finetune`.
    #[arg(long, value_parser = at_least_one)]
    pub length: Option<usize>,
    /// Sequences of a run; not with `tokenize`. Default: 16, 4 with `--preset base`, 32 with `finetune`.
    #[arg(long, value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// How products are computed.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,
    /// What `finetune` learns beside its head. Default: lora.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Begin with the weights of this folder, made by `pretrain --tokenizer mxdna` (only with `mxdna-train` and `mxdna-embed`).
    /// Default: fresh weights, after a few steps.
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Compute wide layers again in the backward pass instead of keeping them (`learn`, `pretrain` and `finetune`).
    #[arg(long)]
    pub recompute: bool,
    /// Keep only the input of each transformer layer for the backward pass (`pretrain` and `finetune`).
    #[arg(long)]
    pub checkpoint: bool,
    /// Print the memory that `learn` or `pretrain` will take, part by part, and compute nothing.
    #[arg(long)]
    pub dry_run: bool,
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
    /// A training step of stage 3.
    Finetune,
    /// A training step of a model that cuts sequences itself.
    MxdnaTrain,
    /// The same model, frozen, from bases in memory to the states of units.
    MxdnaEmbed,
    /// Matrix products that stay in the caches: what no work can exceed.
    Peak,
}

/// What fine-tuning learns.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Mode {
    /// Low-rank adapters of a frozen encoder.
    #[default]
    Lora,
    /// The whole encoder.
    Full,
}

impl From<Mode> for FineTuning {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Lora => Self::Lora,
            Mode::Full => Self::Full,
        }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<Verdict> {
    let (learns, pretrains) = (matches!(args.work, Work::Learn), matches!(args.work, Work::Pretrain));
    let cuts = matches!(args.work, Work::MxdnaTrain);
    let fine_tunes = matches!(args.work, Work::Finetune);
    let trains = learns || pretrains || fine_tunes || cuts;
    ensure!(trains || !args.recompute, "--recompute is for benches of training");
    ensure!(pretrains || fine_tunes || !args.checkpoint, "--checkpoint is for bench pretrain and bench finetune");
    ensure!(fine_tunes || args.mode.is_none(), "--mode is for bench finetune");
    let cuts_itself = matches!(args.work, Work::MxdnaTrain | Work::MxdnaEmbed);
    ensure!(cuts_itself || args.model.is_none(), "--model is for bench mxdna-train and bench mxdna-embed");
    let is_estimated = learns || pretrains || cuts;
    ensure!(is_estimated || !args.dry_run, "--dry-run is for bench learn, bench pretrain and bench mxdna-train");
    if args.dry_run {
        let threads = args.compute.threads()?;
        let work = workload(args, args.precision.into());
        let memory = match args.work {
            Work::Learn => work.learn_memory(threads),
            Work::MxdnaTrain => work.mxdna_memory(threads),
            _ => work.pretrain_memory(threads),
        };
        print_memory(&memory, &args.compute)?;
        return Ok(Verdict::Passed);
    }
    let device = args.compute.open()?;
    let work = workload(args, args.precision.on(&device)?);
    let pretrained = args.model.as_deref().map(|folder| load(folder, &work, &device)).transpose()?;
    let weights = pretrained.as_ref().map_or(Weights::Fresh, Weights::Of);
    let measurement = match args.work {
        Work::Learn => benchmark::learn(&work, &device),
        Work::Encode => benchmark::encode(&work, &device),
        Work::Pretrain => benchmark::pretrain(&work, &device),
        Work::Embed => benchmark::embed(&work, &device),
        Work::Finetune => benchmark::finetune(&work, args.mode.unwrap_or_default().into(), &device),
        Work::MxdnaTrain => benchmark::mxdna_train(&work, weights, &device),
        Work::MxdnaEmbed => benchmark::mxdna_embed(&work, weights, &device),
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

/// A pre-trained model of the workload's network.
fn load(folder: &Path, work: &Workload, device: &Device) -> Result<LanguageModel> {
    let model = Model::load_kind(folder, Kind::Pretrained, &device.clone().autodiff())?;
    let is_fitting = model.config.backbone.as_ref() == Some(&work.mxdna());
    match model.network {
        Network::Language(network) if is_fitting => Ok(*network),
        _ => bail!("{}: `backbone` in config.json is not the network of `--preset {}`", folder.display(), work.name()),
    }
}

/// What the arguments ask for; what they leave open is as usual.
fn workload(args: &Args, precision: Precision) -> Workload {
    let runs = args.runs.unwrap_or(if matches!(args.work, Work::Tokenize) { 1 } else { 7 });
    let usual = match args.work {
        Work::Finetune => Workload::fine_tuning(args.preset.into(), runs),
        _ => Workload::new(args.preset.into(), runs),
    };
    Workload {
        length: args.length.unwrap_or(usual.length),
        batch: args.batch.unwrap_or(usual.batch),
        keeping: Keeping { recompute: args.recompute, checkpoint: args.checkpoint },
        precision,
        ..usual
    }
}
