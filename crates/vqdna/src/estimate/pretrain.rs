//! Stage 2, over codes.

use super::{Memory, Step, learn_step, of_run, step};
use crate::backbone::BackboneConfig;
use crate::memory::{floats, group, linear, size};
use crate::run::config::CodesFrom;
use crate::run::pretrain::PretrainConfig;
use crate::tokenizer::Source;
use crate::tokenizer::vqdna::VqdnaConfig;
use crate::transcode::encode::BASES_TOGETHER;

/// Floats of gradients of logits that `kernels::cross_entropy` keeps.
const LOGITS: u64 = 1 << 21;
/// A run of `vqdna pretrain` over a vocabulary, or over the tokenizer that the config names, on inputs of about `bases` bases. Cached
/// codes are read from their file window by window, so they take no memory.
#[must_use]
pub fn pretrain(run: &PretrainConfig, vocabulary: Option<&VqdnaConfig>, bases: u64, threads: usize) -> Memory {
    let step = step(&run.train, &run.data, threads);
    let memory = language_step(run, vocabulary, &step);
    let mut memory = of_run(memory, &run.train, &run.data, bases);
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
    pretrain_step(&run.encoder(), source, &sizes, run.objective.share(), step)
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

/// A step of stage 2: a [`LanguageModel`](crate::model::LanguageModel) over tokens of such a source, of which this share is masked, and the
/// optimiser.
#[must_use]
pub fn pretrain_step(backbone: &BackboneConfig, source: Source, sizes: &[usize], masked: f64, step: &Step) -> Memory {
    let (d, pool, levels) = (size(backbone.width()), size(backbone.pool()).max(1), size(sizes.len()));
    let found = backbone.step_memory(step, Some(masked));
    let classifiers: u64 = sizes.iter().map(|&ids| linear(d, size(ids))).sum();
    let head = linear(d, d) + 2 * d + pool * classifiers;
    let (embed, _) = embedding(backbone, source);
    let numbers = embed + backbone.numbers() + backbone.decoder_numbers() + head;
    let mut memory = Memory::of_module(numbers, numbers, step.threads);
    // The head keeps masked rows before and after its layer, its norm and GELU.
    memory.kept = floats(found.kept.saturating_add(found.chosen.saturating_mul(4 * d + pool * levels)));
    let logits = LOGITS.min(found.chosen.saturating_mul(size(sizes.iter().copied().max().unwrap_or(0))));
    memory.work = floats(found.work.saturating_add(logits));
    memory.data = floats(step.rows().saturating_mul(width(source) + levels + 2).saturating_add(found.data));
    if found.keeps_little {
        // No place is left for gradients.
        memory.gradients = floats(numbers);
        return memory;
    }
    memory.with_gradients()
}

/// Numbers of the embedding, and those among them that only masking learns.
pub(super) fn embedding(backbone: &BackboneConfig, source: Source) -> (u64, u64) {
    let d = size(backbone.width());
    match source {
        Source::Vectors(width) => (linear(size(width), d) + d, d),
        Source::Table(ids) => (size(ids) * d, 0),
    }
}
