//! Stage 1.

use super::{Memory, Step, of_run, step};
use crate::memory::{MATRICES, floats, group, linear, size};
use crate::quantizer::QuantizerConfig;
use crate::run::learn::{LearnConfig, START_ROWS};
use crate::tokenizer::vqdna::{STEM_KERNEL, VqdnaConfig};

/// A run of `vqdna learn` on inputs of about `bases` bases.
#[must_use]
pub fn learn(run: &LearnConfig, bases: u64, threads: usize) -> Memory {
    let step = step(&run.train, &run.data, threads);
    let memory = of_run(learn_step(&run.tokenizer, &step), &run.train, &run.data, bases);
    match run.tokenizer.quantizer.codebook() {
        Some(codebook) if codebook.kmeans_iterations > 0 => memory.besides_steps(start(run, &step, bases)),
        _ => memory,
    }
}

/// K-means before the first step: rows of every tap, twice while they are joined, then three times more while a level is searched
/// (`objective::reconstruct`, `quantizer::hierarchy`).
fn start(run: &LearnConfig, step: &Step, bases: u64) -> u64 {
    let batches = size(START_ROWS).div_ceil(step.rows().max(1)).max(1);
    // Batches come round again where there are few bases, so only the batch bounds the rows.
    let rows = batches.saturating_mul(step.rows().min(bases.max(1)));
    let taps = size(run.tokenizer.quantizer.taps());
    floats(rows.saturating_mul(size(run.tokenizer.d_code)).saturating_mul(2 * taps + 3))
}

/// A step of stage 1: [`Reconstruct`](crate::objective::reconstruct::Reconstruct) and the optimiser.
#[must_use]
pub fn learn_step(config: &VqdnaConfig, step: &Step) -> Memory {
    let (rows, here) = (step.rows(), group(step.rows()));
    let (d_stem, d, kernel, blocks) =
        (size(config.d_stem), size(config.d_code), size(config.kernel), size(config.blocks));
    let taps = size(STEM_KERNEL);
    let block = d * (kernel + 1) + 2 * d + linear(d, 4 * d) + linear(4 * d, d);
    let encoder = linear(4 * taps, d_stem) + 2 * d_stem + linear(d_stem, d) + blocks * block;
    let decoder = blocks * block + linear(d, d_stem) + 2 * d_stem + linear(taps * d_stem, 4);
    let codes: u64 = config.quantizer.codebook_sizes().iter().map(|&codes| size(codes)).sum();
    let levels = size(config.quantizer.codebook_sizes().len());
    let (learned, averaged, quantizer) = match &config.quantizer {
        QuantizerConfig::Fsq(fsq) => {
            let channels = size(fsq.levels.len());
            // Bounded, rounded and scaled channels, about a dozen times; what is widened, and again without padding.
            (linear(d, channels) + linear(channels, d), 0, 12 * channels + d)
        }
        // Codes and their sums, counts twice. A level keeps what it is compared with, the difference and its square.
        _ => (0, codes * (2 * d + 2), levels * (3 * d + 2)),
    };
    let inner = if step.recompute { 0 } else { step.units(4 * d) };
    // Stem before and after its norm, the projection, every block its output and the input of GELU.
    let encoder_kept = 2 * d_stem + d + blocks * (d + inner);
    // Vectors without padding, blocks, the projection, the same after GELU; four logits of each of five taps, twice, and the loss.
    let decoder_kept = d + blocks * (d + inner) + 2 * d_stem + 2 * 4 * taps + 16;
    let mut memory =
        Memory::of_module(encoder + decoder + learned + averaged, encoder + decoder + learned, step.threads);
    memory.kept = floats(rows.saturating_mul(encoder_kept + quantizer + decoder_kept));
    // The gradient of a block's output, of its input and of its convolution.
    let gradients = rows.saturating_mul(3 * d.max(d_stem));
    // Rows after the norm, the inner layer and its gradient.
    let grouped = here * (d + 2 * step.units(4 * d));
    memory.work = floats(gradients.saturating_add(grouped).saturating_add(MATRICES * 4 * d * d));
    memory.data = floats(rows.saturating_mul(6 + 2 * levels));
    memory.with_gradients()
}
