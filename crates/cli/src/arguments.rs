//! Arguments that several commands share, and what they stand for.

use anyhow::{Context, Result};
use burn::prelude::Device;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use vqdna::device;
use vqdna::ops::{self, Precision};
use vqdna::run::changes::Origin;
use vqdna::run::config::{ConfigError, StageConfig};
use vqdna::run::stage::{Job, StageObserver};
use vqdna::tokenizer::vqdna::{Kind, Preset};

use crate::interrupt;
use crate::progress::StageProgress;

/// Size of a network.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PresetName {
    /// For tests: stem 32, width 64, codebooks of 64 and 128; encoder of 2 layers, 64 wide; MxDNA of 1 + 1 layers, 64 wide.
    Tiny,
    /// For a laptop: stem 64, width 128, codebooks of 256 and 512; encoder of 6 layers, 384 wide; MxDNA of 2 + 4 layers, 384 wide.
    Small,
    /// The papers': stem 256, width 384, codebooks of 1024 and 2048; encoder of 12 layers, 768 wide; MxDNA of 4 + 16 layers, 512 wide.
    Base,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Tiny => Self::Tiny,
            PresetName::Small => Self::Small,
            PresetName::Base => Self::Base,
        }
    }
}

/// Kind of quantizer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum QuantizerName {
    /// One codebook at the last block.
    Vq,
    /// Hierarchical residual quantization: coarse codes after block 3, fine ones after block 6.
    Hrq,
    /// Classical residual quantization at the last block.
    Rq,
    /// Finite scalar quantization: no codebook, cannot collapse.
    Fsq,
}

impl From<QuantizerName> for Kind {
    fn from(name: QuantizerName) -> Self {
        match name {
            QuantizerName::Vq => Self::Vq,
            QuantizerName::Hrq => Self::Hrq,
            QuantizerName::Rq => Self::Rq,
            QuantizerName::Fsq => Self::Fsq,
        }
    }
}

/// Refuses an output that is one of the inputs, which it would destroy.
pub fn check_output<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let same =
        |input: &Path| matches!((input.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b && a.is_file());
    for input in inputs {
        anyhow::ensure!(!same(input), "{} is an input; choose another output", output.display());
    }
    Ok(())
}

/// Strands to tokenize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strands {
    /// As the records read.
    Forward,
    /// Each record, then its reverse complement.
    Both,
}

/// How matrix products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    /// Single precision.
    F32,
    /// Operands rounded to bf16, sums in f32; CPU only, fast where the processor has AVX-512 BF16.
    Bf16,
}

impl From<Precision> for PrecisionName {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}

impl PrecisionName {
    /// As the library names it, if the device can.
    pub fn on(self, device: &Device) -> Result<Precision> {
        match self {
            Self::F32 => Ok(Precision::F32),
            Self::Bf16 => {
                anyhow::ensure!(ops::is_fused(device), "--precision bf16 is for the CPU; leave it out, or --device");
                Ok(Precision::Bf16)
            }
        }
    }
}

/// Where to compute.
#[derive(Args, Clone, Debug)]
pub struct Compute {
    /// Device: cpu, or cuda[:N] or wgpu where built in.
    #[arg(long, default_value = "cpu", env = "VQDNA_DEVICE")]
    pub device: String,
    /// Threads for CPU work. Default: what Slurm grants, else all cores.
    #[arg(long, short = 't', visible_short_alias = '@')]
    pub threads: Option<usize>,
}

/// More than any machine has cores.
const MOST_THREADS: usize = 4096;

impl Compute {
    /// Opens the device and starts the threads. Must be called once, before any work.
    pub fn open(&self) -> Result<Device> {
        let threads = self.threads()?;
        // This thread is one of them: it waits for no other to wake up. No thread but it calls operations.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
        pool.build_global().context("starting threads")?;
        Ok(device::open(&self.device)?)
    }

    /// Number of threads that will be used; never more than a job scheduler grants.
    pub fn threads(&self) -> Result<usize> {
        let granted = std::env::var("SLURM_CPUS_PER_TASK").ok().and_then(|n| n.parse().ok());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.or(granted).unwrap_or(cores);
        anyhow::ensure!((1..=MOST_THREADS).contains(&threads), "--threads must be 1 to {MOST_THREADS}");
        Ok(threads)
    }
}

/// How a config is put together.
#[derive(Args, Clone, Debug)]
pub struct Configure {
    /// Size of the network; sets the defaults of the config.
    #[arg(long, value_enum, default_value_t = PresetName::Small)]
    pub preset: PresetName,
    /// TOML file whose fields replace the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One field of the config, such as `data.length=1024`; may be repeated.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Optimiser steps (`train.steps`).
    #[arg(long)]
    pub steps: Option<u64>,
    /// How products are computed (`train.precision`).
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionName>,
    /// Compute wide layers again in the backward pass instead of keeping them: less memory, the same result (`train.recompute`).
    #[arg(long)]
    pub recompute: bool,
    /// Seed of everything random.
    #[arg(long)]
    pub seed: Option<u64>,
}

impl Configure {
    /// The config: what `preset` gives for the size, then file, then single fields.
    pub fn resolve<C: StageConfig>(&self, preset: impl FnOnce(Preset) -> C) -> Result<C> {
        let mut assignments = self.set.clone();
        // Settings with a flag of their own, and the flag.
        let mut flags = Vec::new();
        let mut flag = |assignment: String, flag: String| {
            assignments.push(assignment);
            flags.push(flag);
        };
        if let Some(steps) = self.steps {
            flag(format!("train.steps={steps}"), format!("--steps {steps}"));
        }
        if let Some(precision) = self.precision {
            let name = match precision {
                PrecisionName::F32 => "f32",
                PrecisionName::Bf16 => "bf16",
            };
            flag(format!("train.precision={name}"), format!("--precision {name}"));
        }
        if self.recompute {
            flag("train.recompute=true".to_owned(), "--recompute".to_owned());
        }
        if let Some(seed) = self.seed {
            flag(format!("seed={seed}"), format!("--seed {seed}"));
        }
        let resolved = preset(self.preset.into()).resolve(self.config.as_deref(), &assignments);
        resolved.map_err(|error| match error {
            ConfigError::From { origin: Origin::Assignment(n, _), error } if n >= self.set.len() => {
                anyhow::anyhow!("{}: {error}", flags[n - self.set.len()])
            }
            error => error.into(),
        })
    }
}

/// Where the run of a stage writes, and how it begins.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Folder for what is made, its logs and checkpoints.
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Go on from the folder's last checkpoint.
    #[arg(long)]
    pub resume: bool,
    /// Print the memory that the run will take, part by part, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub compute: Compute,
}

impl RunArgs {
    /// Opens the device, if it can compute in the precision of the run.
    pub fn open(&self, precision: Precision) -> Result<Device> {
        let device = self.compute.open()?;
        PrecisionName::from(precision).on(&device)?;
        Ok(device)
    }

    /// Runs a stage of `steps` steps with a bar on stderr, until it ends or a signal stops it.
    pub fn start<T>(
        &self,
        label: &'static str,
        inputs: &[PathBuf],
        device: &Device,
        steps: u64,
        stage: impl FnOnce(Job, &mut dyn StageObserver) -> Result<T>,
    ) -> Result<T> {
        // While inputs are read there is nothing to keep: a signal ends the program. The observer listens once there is.
        interrupt::makes(&self.output);
        let command_line: Vec<String> = std::env::args().collect();
        let mut progress = StageProgress::new(label, steps, self.resume);
        let job = Job {
            inputs,
            folder: &self.output,
            device_name: &self.compute.device,
            device,
            resume: self.resume,
            command_line: &command_line,
            stop: interrupt::flag(),
        };
        stage(job, &mut progress)
    }
}

/// A number of at least one.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}
