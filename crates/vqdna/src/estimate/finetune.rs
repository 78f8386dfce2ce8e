//! Stage 3.

use super::pretrain::{encode, encoder};
use super::{Memory, Step, floats, learn_step, linear, size};
use crate::backbone::BackboneConfig;
use crate::head::sequence::HeadKind;
use crate::model::sequence::POSITIONS_TOGETHER;
use crate::run::finetune::{FinetuneConfig, Mode, ReverseComplement};
use crate::tokenizer::Source;
use crate::tokenizer::vqdna::VqdnaConfig;
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

/// A run of `vqdna finetune`: an encoder over a vocabulary (none for a probe of code vectors), and what it learns from. `pretrained`
/// says that the encoder is loaded, so that there are two of it. None for an encoder that forms units, of which nothing is known yet.
#[must_use]
pub fn finetune(
    run: &FinetuneConfig,
    network: Option<&BackboneConfig>,
    pretrained: bool,
    vocabulary: &VqdnaConfig,
    data: &Labelled,
    threads: usize,
) -> Option<Memory> {
    let network = match network {
        Some(BackboneConfig::Stack(stack)) => Some(stack),
        Some(BackboneConfig::Mxdna(_)) => return None,
        None => None,
    };
    let TrainConfig { batch, recompute, precision, .. } = run.train;
    let step = Step { batch, length: data.longest, recompute, precision, threads };
    let (d_code, levels) = (vocabulary.d_code, size(vocabulary.quantizer.codebook_sizes().len()));
    let encoder = network.map(|network| encoder(network, Source::Vectors(d_code), &step, None));
    let d = network.map_or(size(d_code), |network| size(network.d_model));
    let inner = (run.head.kind == HeadKind::Mlp).then(|| run.head.d_hidden.map_or(d, size));
    let head = inner.map_or(0, |inner| linear(d, inner)) + linear(inner.unwrap_or(d), size(data.outputs));
    let backbone = encoder.as_ref().map_or(0, |encoder| encoder.numbers);
    let adapters = network.map_or(0, |network| size(network.layers * run.lora.numbers(network.d_model, network.d_ff)));
    let (numbers, learned) = match run.mode {
        Mode::Probe => (backbone + head, head),
        Mode::Lora => (backbone + adapters + head, adapters + head),
        Mode::Full => (backbone + head, backbone + head - encoder.as_ref().map_or(0, |encoder| encoder.mask_vector)),
    };
    let mut memory = Memory::of_module(numbers, learned, threads);
    let batch = floats(step.rows().saturating_mul(size(d_code) + levels + 2));
    match (run.mode, &encoder) {
        (Mode::Lora | Mode::Full, Some(encoder)) => {
            memory.kept = floats(encoder.kept);
            memory.work = floats(encoder.work);
            memory.data = batch;
        }
        // Features of all sequences, and again where they are brought to one scale.
        _ => memory.data = floats(data.rows.saturating_mul(2 * d)),
    }
    memory = memory.with_gradients();
    // With every checkpoint goes the best evaluation's model.
    memory = memory.with_checkpoints(numbers);
    let frozen = learn_step(vocabulary, &Step { batch: 0, ..step }).numbers;
    let loaded = if pretrained { backbone } else { 0 };
    // That model is kept as well.
    let known = frozen.saturating_add(loaded).saturating_add(memory.numbers);
    memory.numbers = memory.numbers.saturating_add(frozen).saturating_add(loaded);
    memory.parameters = floats(known.saturating_add(numbers));
    // Letters, and the codes of one strand or both.
    let strands = if run.reverse_complement == ReverseComplement::None { 1 } else { 2 };
    memory.data = memory.data.saturating_add(data.bases.saturating_mul(1 + 2 * levels * strands));
    // An evaluation sees this many positions at a time, of which a layer's widest moment holds eight vectors.
    let positions = size(POSITIONS_TOGETHER).min(data.bases);
    let evaluated = floats(positions.saturating_mul(2 * size(d_code) + 8 * d / network.map_or(1, |n| size(n.pool))));
    let coded = encode(vocabulary, size(BASES_TOGETHER).min(data.bases));
    // At the end the model is copied to the host and made a file; adapters are folded into a copy first.
    let copies = if run.mode == Mode::Lora { 3 } else { 2 };
    let saved = floats(frozen.saturating_add(numbers)).saturating_mul(copies);
    Some(memory.besides_steps(evaluated.max(coded).max(saved)))
}
