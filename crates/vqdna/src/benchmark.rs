//! Fixed workloads for measuring speed: the same shapes, steps and JSON line as the PyTorch definition's `bench.py`, so that
//! the two can be run side by side.

use burn::prelude::*;
use rand::RngExt;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vqdna_data::codes::Writer;
use vqdna_data::segment::Policy;

use crate::batch::{Batch, HostWindow};
use crate::objective::{Objective, reconstruct::Reconstruct};
use crate::run::folder::{ModelConfig, Vocabulary};
use crate::seed::{Stream, stream};
use crate::tokenizer::vqdna::{Kind, Preset, VqdnaConfig};
use crate::train::optimizer::{Adamw, AdamwConfig, Gradients};
use crate::transcode::TranscodeError;
use crate::transcode::encode::Tokenize;

/// Bases of a window.
const LENGTH: usize = 512;
/// Steps before the clock starts.
const WARMUP: usize = 2;
/// Learning rate of the measured steps.
const RATE: f64 = 1e-4;
/// Bases of a piece when tokenizing.
const CHUNK: usize = 4096;

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
    /// Largest resident memory of the process so far, MiB (2²⁰ bytes); absent where the system does not tell.
    pub peak_rss_mb: Option<f64>,
}

/// Names a preset in results; the PyTorch side has no `tiny`.
fn name(preset: Preset) -> &'static str {
    match preset {
        Preset::Tiny => "tiny",
        Preset::Small => "small",
        Preset::Base => "base",
    }
}

fn windows(preset: Preset) -> usize {
    match preset {
        Preset::Tiny | Preset::Small => 16,
        Preset::Base => 4,
    }
}

/// Stage 1: forward, backward, AdamW and codebook averages on fresh random bases.
#[must_use]
pub fn learn(preset: Preset, runs: usize, device: &Device) -> Measurement {
    let device = &device.clone().autodiff();
    let mut config = preset.config(Kind::Hrq);
    without_revival(&mut config);
    let objective = Reconstruct { config: config.clone(), seed: 0, start_rows: 0 };
    let settings = AdamwConfig { weight_decay: 0.01, ..AdamwConfig::default() };
    let (mut model, mut optimizer) = (Some(config.init(0, device)), Adamw::new(&settings));
    let mut random = stream(0, "benchmark", &[]);
    measure("learn", preset, runs, || {
        let Some(current) = model.take() else { return };
        let batch = random_batch(preset, &mut random, device);
        let outcome = objective.forward(&current, &batch);
        let gradients = Gradients::of(&current, &outcome.loss.backward());
        let (stepped, _) = optimizer.step(current, gradients, RATE, 1.0);
        model = Some(objective.after_step(stepped, vec![outcome.carry], 1));
    })
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
pub fn encode(preset: Preset, runs: usize, device: &Device) -> Measurement {
    let model = preset.config(Kind::Hrq).init(0, device);
    let batch = random_batch(preset, &mut stream(0, "benchmark", &[]), device);
    measure("encode", preset, runs, || {
        let codes = model.encode(&batch);
        // Codes count when they are there, on any device.
        for level in codes {
            drop(level.into_data());
        }
    })
}

/// The whole job, once a run: read FASTA, encode with exact context, write codes.
///
/// # Errors
/// If the FASTA cannot be read or the codes cannot be written.
pub fn tokenize(
    preset: Preset,
    runs: usize,
    device: &Device,
    fasta: &Path,
    output: &Path,
) -> Result<Measurement, TranscodeError> {
    let config = ModelConfig::new(&preset.config(Kind::Hrq), Policy::default());
    let model = config.tokenizer.init(0, device);
    let vocabulary = Vocabulary { config, model, digest: "benchmark".to_owned() };
    let job = Tokenize {
        vocabulary: &vocabulary,
        device,
        letters: Policy::default(),
        both_strands: false,
        chunk: CHUNK,
        batch: None,
    };
    let (mut times, mut bases) = (Vec::new(), 0);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let mut writer = Writer::create(output, &job.header(None))?;
        bases = job.files(&[PathBuf::from(fasta)], None, &mut writer, &mut |_| ControlFlow::Continue(()))?.bases;
        writer.finish()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(report("tokenize", preset, bases, times))
}

fn random_batch(preset: Preset, random: &mut Stream, device: &Device) -> Batch {
    let window = |random: &mut Stream| HostWindow {
        bases: (0..LENGTH).map(|_| random.random_range(0..4u8)).collect(),
        soft_masked: Vec::new(),
    };
    let windows: Vec<HostWindow> = (0..windows(preset)).map(|_| window(random)).collect();
    Batch::new(&windows, 1.0, device)
}

fn measure(work: &'static str, preset: Preset, runs: usize, mut step: impl FnMut()) -> Measurement {
    (0..WARMUP).for_each(|_| step());
    let clocked = |step: &mut dyn FnMut()| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64()
    };
    let times = (0..runs.max(1)).map(|_| clocked(&mut step)).collect();
    report(work, preset, (windows(preset) * LENGTH) as u64, times)
}

fn report(work: &'static str, preset: Preset, bases: u64, mut times: Vec<f64>) -> Measurement {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median = if times.len() % 2 == 1 { times[middle] } else { f64::midpoint(times[middle - 1], times[middle]) };
    Measurement {
        peer: concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned(),
        work,
        preset: name(preset),
        bf16: false,
        bases,
        seconds: median,
        min: times[0],
        max: times[times.len() - 1],
        bases_per_s: bases as f64 / median,
        peak_rss_mb: peak_rss_mb(),
    }
}

/// Largest resident memory of this process in MiB, where `/proc` tells.
#[must_use]
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
