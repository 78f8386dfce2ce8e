//! Stage 2, over codes.

use super::{MATRICES, Memory, Step, floats, group, learn_step, linear, mxdna_step, size};
use crate::backbone::BackboneConfig;
use crate::backbone::transformer::TransformerConfig;
use crate::ops::Positions;
use crate::run::config::CodesFrom;
use crate::run::pretrain::PretrainConfig;
use crate::tokenizer::Source;
use crate::tokenizer::vqdna::VqdnaConfig;
use crate::transcode::encode::BASES_TOGETHER;

/// Floats of gradients of logits that `kernels::cross_entropy` keeps.
const LOGITS: u64 = 1 << 21;
/// Sequences beyond this have gradients of queries in parts, as many at a time as `ATTENTION_PARTS` times the threads
/// (`kernels::attention`).
const ATTENTION_KEYS: u64 = 512;
const ATTENTION_PARTS: u64 = 4;
/// Masked positions, as a share of all: 1 in so many.
const MASKED: u64 = 4;

/// A run of `vqdna pretrain` over a vocabulary, or over the tokenizer that the config names, on inputs of about `bases` bases. Cached
/// codes are read from their file window by window, so they take no memory.
#[must_use]
pub fn pretrain(run: &PretrainConfig, vocabulary: Option<&VqdnaConfig>, bases: u64, threads: usize) -> Memory {
    let step = Step::of(&run.train, &run.data, threads);
    let mut memory = language_step(run, vocabulary, &step).of_run(&run.train, &run.data, bases);
    let Some(vocabulary) = vocabulary else { return memory };
    let frozen = learn_step(vocabulary, &Step { batch: 0, ..step }).numbers;
    memory.numbers = memory.numbers.saturating_add(frozen);
    memory.parameters = memory.parameters.saturating_add(floats(frozen));
    let halo = 2 * size(vocabulary.encoder_halo());
    let rows = match run.data.codes.unwrap_or_default() {
        CodesFrom::Cached => size(BASES_TOGETHER).saturating_add(halo),
        CodesFrom::OnTheFly => size(step.batch).saturating_mul(size(step.length).saturating_add(halo)),
    };
    memory.besides_steps(encode(vocabulary, rows).saturating_add(floats(frozen)))
}

/// A step of such a run.
#[must_use]
pub fn language_step(run: &PretrainConfig, vocabulary: Option<&VqdnaConfig>, step: &Step) -> Memory {
    let named = vocabulary.map(|vocabulary| vocabulary.clone().into()).or(run.tokenizer.clone());
    let (source, sizes) = named.map_or((Source::Table(0), Vec::new()), |it| (it.source(), it.sizes()));
    match &run.backbone {
        BackboneConfig::Stack(stack) => pretrain_step(stack, source, &sizes, step),
        BackboneConfig::Mxdna(mxdna) => mxdna_step(mxdna, sizes.iter().sum(), run.masking.share, step),
    }
}

/// Numbers of the vector of a token that come with a batch.
pub(super) fn width(source: Source) -> u64 {
    match source {
        Source::Vectors(width) => size(width),
        Source::Table(_) => 0,
    }
}

/// Codes of so many bases: a block's input, output and convolution, and what the quantizer keeps of each tap.
pub(super) fn encode(vocabulary: &VqdnaConfig, rows: u64) -> u64 {
    let (d_stem, d) = (size(vocabulary.d_stem), size(vocabulary.d_code));
    let taps = size(vocabulary.taps.len());
    floats(rows.saturating_mul(d_stem + (3 + taps) * d).saturating_add(group(rows) * 4 * d))
}

/// A step of stage 2: a [`LanguageModel`](crate::model::LanguageModel) over tokens of such a source, and the optimiser.
#[must_use]
pub fn pretrain_step(config: &TransformerConfig, source: Source, sizes: &[usize], step: &Step) -> Memory {
    let (d, pool, levels) = (size(config.d_model), size(config.pool).max(1), size(sizes.len()));
    let masked = step.rows().div_ceil(pool).div_ceil(MASKED);
    let encoder = encoder(config, source, step, Some(masked));
    let classifiers: u64 = sizes.iter().map(|&codes| linear(d, size(codes))).sum();
    let head = linear(d, d) + 2 * d + pool * classifiers;
    let mut memory = Memory::of_module(encoder.numbers + head, encoder.numbers + head, step.threads);
    // The head keeps masked rows before and after its layer, its norm and GELU.
    memory.kept = floats(encoder.kept.saturating_add(masked.saturating_mul(4 * d + pool * levels)));
    let logits = LOGITS.min(masked.saturating_mul(size(sizes.iter().copied().max().unwrap_or(0))));
    memory.work = floats(encoder.work.saturating_add(logits));
    memory.data = floats(step.rows().saturating_mul(width(source) + levels + 2));
    memory.with_gradients()
}

/// An encoder: its numbers, and the floats that a step keeps of it and works in.
pub(super) struct Encoder {
    pub numbers: u64,
    /// Numbers of the mask vector, which only pre-training learns.
    pub mask_vector: u64,
    pub kept: u64,
    pub work: u64,
}

/// A step through an encoder; positions are pools of the bases of `step`. The last layer may be asked for some rows alone.
pub(super) fn encoder(config: &TransformerConfig, source: Source, step: &Step, asked: Option<u64>) -> Encoder {
    let step = &Step { length: step.length.div_ceil(config.pool.max(1)), ..*step };
    let (rows, here) = (step.rows(), group(step.rows()));
    let (d, inner, heads, layers) = (size(config.d_model), size(config.d_ff), size(config.heads), size(config.layers));
    let layer = linear(d, 3 * d) + linear(d, d) + linear(d, inner) + linear(inner, d) + 4 * d;
    // Queries, keys and values, what was attended to, and a number a head; then the input of GELU.
    let (attention, mlp) = (step.units(4 * d) + heads, step.units(inner));
    let per_layer = match (config.checkpoint, step.recompute) {
        (true, _) => d,
        (false, true) => 2 * d,
        (false, false) => 2 * d + attention + mlp,
    };
    let apart = !config.checkpoint && matches!(config.positions, Positions::Rotary { .. });
    let (per_row, per_asked) = match asked.filter(|_| apart) {
        // Of the last layer the norm and attention of all rows; of those asked for the rest, and the last norm.
        Some(_) => (
            layers.saturating_sub(1) * per_layer + 2 * d + attention,
            2 * d + if step.recompute { d } else { d + mlp } + 2 * d,
        ),
        // The last norm keeps its input.
        None => (layers * per_layer + 2 * d, 0),
    };
    let backward = match (config.checkpoint, step.recompute) {
        // Gradients of a layer's output and input; of what was attended to. That of queries, keys and values takes the place of
        // the inner layer that was kept.
        (false, false) => 3 * d,
        // Queries, keys, values and what was attended to, found again, and the gradients of both.
        (false, true) => 4 * d + attention,
        // One layer as a graph of its own, and the gradient of its output as a product.
        (true, recompute) => 3 * d + if recompute { 4 * d + attention } else { d + attention + mlp },
    };
    let (embed, mask_vector) = match source {
        Source::Vectors(width) => (linear(size(width), d) + d, d),
        Source::Table(ids) => (size(ids) * d, 0),
    };
    let long = if size(step.length) > ATTENTION_KEYS { ATTENTION_PARTS * size(step.threads) } else { 0 };
    let attended = size(step.length).saturating_mul(d / heads.max(1)).saturating_mul(1 + long);
    let work =
        rows.saturating_mul(backward).saturating_add(here * (d + 2 * step.units(inner))).saturating_add(attended);
    Encoder {
        numbers: embed + layers * layer + 2 * d,
        mask_vector,
        kept: rows.saturating_mul(per_row).saturating_add(asked.unwrap_or(0).saturating_mul(per_asked)),
        work: work.saturating_add(MATRICES * d * inner),
    }
}
