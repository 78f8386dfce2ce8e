//! Stage 3.

use super::pretrain::{embedding, encode, width};
use super::{Memory, Step, learn_step};
use crate::backbone::BackboneConfig;
use crate::head::sequence::HeadKind;
use crate::memory::{floats, linear, size};
use crate::model::sequence::POSITIONS_TOGETHER;
use crate::run::finetune::{FinetuneConfig, Mode, ReverseComplement};
use crate::tokenizer::TokenizerConfig;
use crate::train::TrainConfig;
use crate::transcode::encode::BASES_TOGETHER;

/// Labelled sequences, by what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Bases of all sequences.
    pub bases: u64,
    /// Sequences to train on.
    pub rows: u64,
    /// Bases of the longest one, or of the longest pair.
    pub longest: usize,
    /// Classes, labels or values.
    pub outputs: usize,
}

/// A run of `vqdna finetune`: an encoder over a tokenizer (none for a probe of code vectors), and what it learns from. `pretrained` says that
/// the encoder is loaded, so that there are two of it.
#[must_use]
pub fn finetune(
    run: &FinetuneConfig,
    network: Option<&BackboneConfig>,
    pretrained: bool,
    tokenizer: &TokenizerConfig,
    data: &Labelled,
    threads: usize,
) -> Memory {
    let TrainConfig { batch, recompute, precision, .. } = run.train;
    let step = Step { batch, length: data.longest, recompute, precision, threads };
    let (source, levels) = (tokenizer.source(), size(tokenizer.sizes().len()));
    let found = network.map(|network| network.step_memory(&step, None));
    let d = network.map_or(width(source), |network| size(network.width()));
    let inner = (run.head.kind == HeadKind::Mlp).then(|| run.head.d_hidden.map_or(d, size));
    let head = inner.map_or(0, |inner| linear(d, inner)) + linear(inner.unwrap_or(d), size(data.outputs));
    let (embed, mask_vector) = network.map_or((0, 0), |network| embedding(network, source));
    let backbone = network.map_or(0, |network| embed + network.numbers());
    let adapters = network.map_or(0, |network| network.adapter_numbers(&run.lora));
    let (numbers, learned) = match run.mode {
        Mode::Probe => (backbone + head, head),
        Mode::Lora => (backbone + adapters + head, adapters + head),
        Mode::Full => (backbone + head, backbone + head - mask_vector),
    };
    let mut memory = Memory::of_module(numbers, learned, threads);
    let batch = floats(step.rows().saturating_mul(width(source) + levels + 2));
    match (run.mode, &found) {
        (Mode::Lora | Mode::Full, Some(found)) => {
            memory.kept = floats(found.kept);
            memory.work = floats(found.work);
            memory.data = batch.saturating_add(floats(found.data));
        }
        // Features of all sequences, and again where they are brought to one scale.
        _ => memory.data = floats(data.rows.saturating_mul(2 * d)),
    }
    memory = memory.with_gradients();
    // With every checkpoint goes the best evaluation's model.
    memory = memory.with_checkpoints(numbers);
    let vocabulary = tokenizer.learned();
    let frozen = vocabulary.map_or(0, |vocabulary| learn_step(vocabulary, &Step { batch: 0, ..step }).numbers);
    let loaded = if pretrained { backbone } else { 0 };
    // That model is kept as well.
    let known = frozen.saturating_add(loaded).saturating_add(memory.numbers);
    memory.numbers = memory.numbers.saturating_add(frozen).saturating_add(loaded);
    memory.parameters = floats(known.saturating_add(numbers));
    // Letters, and the codes of one strand or both.
    let strands = if run.reverse_complement == ReverseComplement::None { 1 } else { 2 };
    memory.data = memory.data.saturating_add(data.bases.saturating_mul(1 + 4 * levels * strands));
    // An evaluation sees this many positions at a time, of which a layer's widest moment holds eight vectors.
    let positions = size(POSITIONS_TOGETHER).min(data.bases);
    let evaluated = 2 * width(source) + 8 * d / network.map_or(1, |network| size(network.pool()));
    let evaluated = floats(positions.saturating_mul(evaluated));
    let together = size(BASES_TOGETHER).min(data.bases);
    let coded = vocabulary.map_or(0, |vocabulary| encode(vocabulary, together));
    // At the end the model is copied to the host and made a file; adapters are folded into a copy first.
    let copies = if run.mode == Mode::Lora { 3 } else { 2 };
    let saved = floats(frozen.saturating_add(numbers)).saturating_mul(copies);
    memory.besides_steps(evaluated.max(coded).max(saved))
}
