//! Fixed workloads for measuring speed: the same shapes, steps and JSON line as the PyTorch definition's `bench.py`, so that
//! the two can be run side by side.

mod mxdna;

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use rand::RngExt;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vqdna_data::codes::Writer;
use vqdna_data::segment::Policy;

use crate::backbone::transformer::TransformerConfig;
use crate::backbone::{Backbone, BackboneConfig};
use crate::batch::{Batch, HostWindow, TokenBatch};
use crate::estimate::{self, Keeping, Memory};
use crate::head::sequence::{SequenceHead, SequenceHeadConfig};
use crate::layers::lora::LoraConfig;
use crate::model::{Embed, LanguageModel, Masked};
use crate::model_dir::Vocabulary;
use crate::objective::{Objective, reconstruct::Reconstruct};
use crate::ops::{self, Precision};
use crate::run::pretrain::PretrainConfig;
use crate::seed::{Stream, normal, stream};
use crate::tokenizer::Source;
use crate::tokenizer::vqdna::{Kind, Preset, VqdnaConfig};
use crate::train::optimizer::{Adamw, AdamwConfig, Gradients};
use crate::transcode::TranscodeError;
use crate::transcode::encode::Tokenize;

pub use mxdna::{Weights, mxdna_embed, mxdna_train};

/// Bases of a sequence, unless told otherwise.
const LENGTH: usize = 512;
/// Steps before the clock starts.
const WARMUP: usize = 2;
/// Learning rate of the measured steps.
const RATE: f64 = 1e-4;
/// Decay of the weights in the measured steps.
const WEIGHT_DECAY: f64 = 0.01;
/// Share of positions that are masked.
const MASKED: f64 = 0.25;
/// Bases of a piece when tokenizing.
const CHUNK: usize = 4096;
/// Sequences and bases of a step of fine-tuning, unless told otherwise: sequences as long as those of GUE's transcription factors (Zhou
/// et al. 2024).
const FINE_TUNED: [usize; 2] = [32, 101];
/// Classes that fine-tuning tells apart.
const CLASSES: usize = 2;

/// One line of results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Program and version.
    pub peer: String,
    /// Name of the workload.
    pub work: &'static str,
    /// Size of the network.
    pub preset: &'static str,
    /// Whether products were computed in bf16.
    pub bf16: bool,
    /// Bases of a run.
    pub bases: u64,
    /// Median duration of a run, seconds.
    pub seconds: f64,
    /// Shortest.
    pub min: f64,
    /// Longest.
    pub max: f64,
    /// Bases of a run over its median duration.
    pub bases_per_s: f64,
    /// Units, the special ones included, of the mean run over the median duration; of a model that forms units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
    /// Share of the median duration that the choice of units takes, scores brought to the host included; of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_share: Option<f64>,
    /// Largest resident memory of the process so far, MiB (2²⁰ bytes); absent where the system does not tell.
    pub peak_rss_mb: Option<f64>,
}

/// Names a preset in results; the PyTorch side has no `tiny`.
fn preset_name(preset: Preset) -> &'static str {
    match preset {
        Preset::Tiny => "tiny",
        Preset::Small => "small",
        Preset::Base => "base",
    }
}

/// What is computed in one run, and how often it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Size of the network.
    pub preset: Preset,
    /// Measured runs, at least 1.
    pub runs: usize,
    /// Sequences of a run.
    pub batch: usize,
    /// Bases of a sequence.
    pub length: usize,
    /// How products are computed.
    pub precision: Precision,
    /// What training keeps for its backward pass.
    pub keeping: Keeping,
}

impl Workload {
    /// The batch that the PyTorch definition measures: 16 sequences of 512 bases, or 4 with the base network.
    #[must_use]
    pub fn new(preset: Preset, runs: usize) -> Self {
        let batch = match preset {
            Preset::Tiny | Preset::Small => 16,
            Preset::Base => 4,
        };
        Self { preset, runs, batch, length: LENGTH, precision: Precision::F32, keeping: Keeping::default() }
    }

    /// The batch that fine-tuning measures.
    #[must_use]
    pub fn fine_tuning(preset: Preset, runs: usize) -> Self {
        let [batch, length] = FINE_TUNED;
        Self { batch, length, ..Self::new(preset, runs) }
    }

    /// Name of its size.
    #[must_use]
    pub fn name(&self) -> &'static str {
        preset_name(self.preset)
    }

    /// The encoder that forms units, of the size of the preset.
    #[must_use]
    pub fn mxdna(&self) -> BackboneConfig {
        PretrainConfig::mxdna(self.preset).backbone
    }

    /// The encoder of the second stage, of the size of the preset.
    fn backbone(&self) -> TransformerConfig {
        let backbone = match self.preset {
            Preset::Tiny => TransformerConfig::tiny(),
            Preset::Small => TransformerConfig::small(),
            Preset::Base => TransformerConfig::base(),
        };
        TransformerConfig { checkpoint: self.keeping.checkpoint, ..backbone }
    }

    fn step(&self, threads: usize) -> estimate::Step {
        let Self { batch, length, keeping, precision, .. } = *self;
        estimate::Step { batch, length, recompute: keeping.recompute, precision, threads }
    }

    /// The memory that [`learn`] will take.
    #[must_use]
    pub fn learn_memory(&self, threads: usize) -> Memory {
        estimate::learn_step(&self.preset.config(Kind::Hrq), &self.step(threads))
    }

    /// The memory that [`mxdna_train`] will take.
    #[must_use]
    pub fn mxdna_memory(&self, threads: usize) -> Memory {
        let config = PretrainConfig::mxdna(self.preset);
        estimate::language_step(&config, None, &self.step(threads))
    }

    /// The memory that [`pretrain`] will take.
    #[must_use]
    pub fn pretrain_memory(&self, threads: usize) -> Memory {
        let tokenizer = self.preset.config(Kind::Hrq);
        let sizes = tokenizer.quantizer.codebook_sizes();
        let source = Source::Vectors(tokenizer.d_code);
        estimate::pretrain_step(&self.backbone().into(), source, &sizes, MASKED, &self.step(threads))
    }

    fn shape(&self) -> [usize; 2] {
        [self.batch, self.length]
    }

    fn size(&self) -> usize {
        self.batch * self.length
    }
}

/// Stage 1: forward, backward, AdamW and codebook averages on fresh random bases.
#[must_use]
pub fn learn(work: &Workload, device: &Device) -> Measurement {
    let device = &device.clone().autodiff();
    let mut config = work.preset.config(Kind::Hrq);
    without_revival(&mut config);
    let objective = Reconstruct { config: config.clone(), seed: 0, start_rows: 0 };
    let (mut model, mut optimizer) = (Some(config.init(0, device)), optimizer());
    let mut random = stream(0, "benchmark", &[]);
    measure_training("learn", work, || {
        let Some(current) = model.take() else { return };
        let batch = random_batch(work, &mut random, device);
        let outcome = objective.forward(&current, &batch);
        let gradients = Gradients::of(&current, &outcome.loss.backward());
        let (stepped, _) = optimizer.step(current, gradients, RATE, 1.0);
        model = Some(objective.after_step(stepped, vec![outcome.carry], 1));
    })
}

fn optimizer() -> Adamw {
    Adamw::new(&AdamwConfig { weight_decay: WEIGHT_DECAY, clip: 1.0, ..AdamwConfig::default() })
}

/// The PyTorch definition does not revive codes.
fn without_revival(config: &mut VqdnaConfig) {
    use crate::quantizer::QuantizerConfig as Q;
    match &mut config.quantizer {
        Q::Vq(vq) => vq.codebook.revive_below = 0.0,
        Q::Hrq(hrq) => hrq.codebook.revive_below = 0.0,
        Q::Rq(rq) => rq.codebook.revive_below = 0.0,
        Q::Fsq(_) => {}
    }
}

/// A frozen tokenizer on windows in memory.
#[must_use]
pub fn encode(work: &Workload, device: &Device) -> Measurement {
    let model = work.preset.config(Kind::Hrq).init(0, device);
    let batch = random_batch(work, &mut stream(0, "benchmark", &[]), device);
    ops::with_frozen_weights(|| {
        measure("encode", work, || {
            let codes = model.encode(&batch);
            // Codes count when they are there, on any device.
            for level in codes {
                drop(level.into_data());
            }
        })
    })
}

/// Stage 2: forward, backward and AdamW on random code vectors in memory, masked afresh in each run.
#[must_use]
pub fn pretrain(work: &Workload, device: &Device) -> Measurement {
    let device = &device.clone().autodiff();
    let mut random = stream(0, "benchmark", &[]);
    let inputs = EncoderInputs::new(work, &mut random, device);
    let (mut model, mut optimizer) = (Some(inputs.model), optimizer());
    measure_training("pretrain", work, || {
        let Some(current) = model.take() else { return };
        let masked: Vec<bool> = (0..work.size()).map(|_| random.random_bool(MASKED)).collect();
        let masked = Masked::new(&masked, work.shape(), device);
        let loss = current.loss(&inputs.batch, &masked, &inputs.codes);
        let gradients = Gradients::of(&current, &loss.backward());
        model = Some(optimizer.step(current, gradients, RATE, 1.0).0);
    })
}

/// A frozen encoder over random code vectors in memory, its hidden states averaged over positions.
#[must_use]
pub fn embed(work: &Workload, device: &Device) -> Measurement {
    let inputs = EncoderInputs::new(work, &mut stream(0, "benchmark", &[]), device);
    ops::with_frozen_weights(|| {
        measure("embed", work, || {
            let hidden = inputs.model.hidden(&inputs.batch, None);
            drop(hidden.states.mean_dim(1).into_data());
        })
    })
}

/// What fine-tuning learns beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FineTuning {
    /// Low-rank adapters of a frozen encoder, without dropout.
    Lora,
    /// The encoder.
    Full,
}

/// An encoder and a head over whole sequences.
#[derive(Module, Debug)]
struct Classifier {
    embed: Embed,
    backbone: Backbone,
    head: SequenceHead,
}

/// Stage 3: forward, backward and AdamW on random code vectors in memory, each sequence of one of two classes.
#[must_use]
pub fn finetune(work: &Workload, mode: FineTuning, device: &Device) -> Measurement {
    let device = &device.clone().autodiff();
    let mut random = stream(0, "benchmark", &[]);
    let EncoderInputs { model, batch, .. } = EncoderInputs::new(work, &mut random, device);
    // Heads of the stage before, which would only take memory.
    drop(model.head);
    let (name, embed, backbone) = match mode {
        FineTuning::Lora => {
            ("finetune-lora", model.embed.no_grad(), model.backbone.with_adapters(&LoraConfig::default(), 0))
        }
        FineTuning::Full => ("finetune-full", model.embed, model.backbone),
    };
    let head = SequenceHead::new(&SequenceHeadConfig::default(), work.backbone().d_model, CLASSES, 0, device);
    let labels: Vec<i32> = (0..work.batch).map(|_| random.random_range(0..CLASSES as i32)).collect();
    let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [work.batch, 1]), device);
    let (mut model, mut optimizer) = (Some(Classifier { embed, backbone, head }), optimizer());
    measure_training(name, work, || {
        let Some(current) = model.take() else { return };
        let (x, layout) = current.embed.forward(&batch, None);
        let hidden = current.backbone.forward(x, &layout, None);
        let log_p = log_softmax(current.head.forward(hidden.states, hidden.real), 1);
        let loss = log_p.gather(1, labels.clone()).mean().neg();
        let gradients = Gradients::of(&current, &loss.backward());
        model = Some(optimizer.step(current, gradients, RATE, 1.0).0);
    })
}

/// A fresh encoder and what it is fed.
struct EncoderInputs {
    model: LanguageModel,
    batch: TokenBatch,
    codes: Vec<Tensor<2, Int>>,
}

impl EncoderInputs {
    fn new(work: &Workload, random: &mut Stream, device: &Device) -> Self {
        let tokenizer = work.preset.config(Kind::Hrq);
        let (d_input, codebook_sizes) = (tokenizer.d_code, tokenizer.quantizer.codebook_sizes());
        let backbone = work.backbone();
        let [batch, length] = work.shape();
        let vectors: Vec<f32> = (0..work.size() * d_input).map(|_| normal(random) as f32).collect();
        let mut codes = |codebook_size: usize| {
            let codes: Vec<i32> = (0..work.size()).map(|_| random.random_range(0..codebook_size as i32)).collect();
            Tensor::from_data(TensorData::new(codes, [batch, length]), device)
        };
        Self {
            codes: codebook_sizes.iter().map(|&codebook_size| codes(codebook_size)).collect(),
            model: LanguageModel::new(&backbone.into(), Source::Vectors(d_input), &codebook_sizes, 0, device),
            batch: TokenBatch::of_vectors(
                Tensor::from_data(TensorData::new(vectors, [batch, length, d_input]), device),
                Tensor::ones([batch, length], device),
            ),
        }
    }
}

/// The whole job, once a run: read FASTA, encode with exact context, write codes.
///
/// # Errors
/// If the FASTA cannot be read or the codes cannot be written.
pub fn tokenize(work: &Workload, device: &Device, fasta: &Path, output: &Path) -> Result<Measurement, TranscodeError> {
    let tokenizer = work.preset.config(Kind::Hrq);
    let model = tokenizer.init(0, device);
    let vocabulary = Vocabulary { tokenizer, letters: Policy::default(), model, digest: "benchmark".to_owned() };
    let job = Tokenize {
        vocabulary: &vocabulary,
        device,
        letters: Policy::default(),
        both_strands: false,
        chunk: CHUNK,
        batch: None,
        precision: work.precision,
    };
    let (mut times, mut bases) = (Vec::new(), 0);
    for _ in 0..work.runs.max(1) {
        let start = Instant::now();
        let mut writer = Writer::create(output, &job.header(None))?;
        bases = job.files(&[PathBuf::from(fasta)], None, &mut writer, &mut |_| ControlFlow::Continue(()))?.bases;
        writer.finish()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(report("tokenize", work, bases, times))
}

fn random_batch(work: &Workload, random: &mut Stream, device: &Device) -> Batch {
    let window = |random: &mut Stream| HostWindow {
        bases: (0..work.length).map(|_| random.random_range(0..4u8)).collect(),
        soft_masked: Vec::new(),
    };
    let windows: Vec<HostWindow> = (0..work.batch).map(|_| window(random)).collect();
    Batch::new(&windows, 1.0, device)
}

/// Steps as a run of training takes them.
fn measure_training(name: &'static str, work: &Workload, mut step: impl FnMut()) -> Measurement {
    measure(name, work, || ops::with_awake_threads(&mut step))
}

fn measure(name: &'static str, work: &Workload, step: impl FnMut()) -> Measurement {
    let measured = || ops::with_precision(work.precision, || measure_in_precision(name, work, step));
    if work.keeping.recompute { ops::with_recomputation(measured) } else { measured() }
}

fn measure_in_precision(name: &'static str, work: &Workload, mut step: impl FnMut()) -> Measurement {
    (0..WARMUP).for_each(|_| step());
    let clocked = |step: &mut dyn FnMut()| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64()
    };
    let times = (0..work.runs.max(1)).map(|_| clocked(&mut step)).collect();
    report(name, work, work.size() as u64, times)
}

fn report(name: &'static str, work: &Workload, bases: u64, mut times: Vec<f64>) -> Measurement {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median = if times.len() % 2 == 1 { times[middle] } else { f64::midpoint(times[middle - 1], times[middle]) };
    Measurement {
        peer: concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned(),
        work: name,
        preset: preset_name(work.preset),
        bf16: work.precision == Precision::Bf16,
        bases,
        seconds: median,
        min: times[0],
        max: times[times.len() - 1],
        bases_per_s: bases as f64 / median,
        tokens_per_s: None,
        selection_share: None,
        peak_rss_mb: peak_rss_mb(),
    }
}

/// What the processor can do: GFLOP/s of matrix products that stay in its caches, on all threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Program and version.
    pub peer: String,
    /// Name of the workload.
    pub work: &'static str,
    /// In single precision.
    pub f32_gflops: f64,
    /// In bf16 with sums in f32; absent where the processor does not multiply bf16.
    pub bf16_gflops: Option<f64>,
}

/// Measures the peak of matrix products for about a second.
#[cfg(feature = "cpu")]
#[must_use]
pub fn peak() -> Peak {
    use vqdna_kernels::product::{Precision, peak};
    let bf16 = vqdna_kernels::simd::native_bf16();
    Peak {
        peer: concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned(),
        work: "peak",
        f32_gflops: peak(Precision::F32, 0.5),
        bf16_gflops: bf16.then(|| peak(Precision::Bf16, 0.5)),
    }
}

/// Largest resident memory of this process in MiB, where `/proc` tells.
#[must_use]
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
