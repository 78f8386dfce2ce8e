//! How many numbers the weights of a model hold, computed from its config alone, so that no memory is taken for a config that its weights
//! do not bear out.

use super::{FinetunedConfig, ModelConfig};
use crate::backbone::transformer::TransformerConfig;
use crate::head::sequence::{HeadKind, SequenceHeadConfig};
use crate::quantizer::QuantizerConfig;
use crate::tokenizer::mxdna::{LETTERS, MxdnaConfig, groups};
use crate::tokenizer::vqdna::{STEM_KERNEL, VqdnaConfig};

/// Numbers in the file of weights of a model.
pub(super) fn numbers(config: &ModelConfig) -> u64 {
    let d_code = config.tokenizer.as_ref().map_or(0, |tokenizer| size(tokenizer.d_code));
    let vocabulary = config.tokenizer.as_ref().map_or(0, vocabulary);
    let rest = match (&config.finetuned, &config.pretrained, &config.mxdna) {
        (Some(finetuned), _, mxdna) => of_finetuned(finetuned, d_code, mxdna.as_ref()),
        (None, Some(pretrained), _) => {
            let d = size(pretrained.backbone.d_model);
            let heads = sum(pretrained.codebook_sizes.iter().map(|&codes| linear(d, size(codes))));
            let heads = heads.saturating_mul(size(pretrained.backbone.pool));
            sum([encoder(&pretrained.backbone, d_code), linear(d, d), 2 * d, heads])
        }
        (None, None, Some(mxdna)) => letter_model(mxdna),
        (None, None, None) => 0,
    };
    vocabulary.saturating_add(rest)
}

/// Of an encoder that cuts sequences itself, and the head that tells masked bases.
pub(super) fn letter_model(config: &MxdnaConfig) -> u64 {
    let d = size(config.d_model);
    sum([letter_encoder(config), gated(config), linear(d, d), 4 * d, linear(d, size(LETTERS))])
}

fn of_finetuned(config: &FinetunedConfig, d_code: u64, mxdna: Option<&MxdnaConfig>) -> u64 {
    let adapters = config.lora.as_ref().zip(config.backbone.as_ref()).map_or(0, |(lora, backbone)| {
        size(lora.numbers(backbone.d_model, backbone.d_ff)).saturating_mul(size(backbone.layers))
    });
    let widths = [config.backbone.as_ref().map(|backbone| backbone.d_model), mxdna.map(|mxdna| mxdna.d_model)];
    let d = widths.into_iter().flatten().next().map_or(d_code, size);
    let encoders = [config.backbone.as_ref().map_or(0, |it| encoder(it, d_code)), mxdna.map_or(0, letter_encoder)];
    sum(encoders).saturating_add(sum([adapters, head(&config.head, d, size(config.labelling.outputs().len()))]))
}

fn vocabulary(config: &VqdnaConfig) -> u64 {
    let (d_stem, d, taps) = (size(config.d_stem), size(config.d_code), size(STEM_KERNEL));
    let block = sum([d * (size(config.kernel) + 1), 2 * d, linear(d, 4 * d), linear(4 * d, d)]);
    let blocks = block.saturating_mul(2 * size(config.blocks));
    let ends = [linear(4 * taps, d_stem), linear(taps * d_stem, 4), 4 * d_stem, linear(d_stem, d), linear(d, d_stem)];
    let quantizer = match &config.quantizer {
        QuantizerConfig::Fsq(fsq) => linear(d, size(fsq.levels.len())) + linear(size(fsq.levels.len()), d),
        // Codes, their counts and their sums.
        other => sum(other.codebook_sizes().into_iter().map(|codes| size(codes) * (2 * d + 1))),
    };
    sum([blocks, sum(ends), quantizer])
}

fn encoder(config: &TransformerConfig, d_input: u64) -> u64 {
    let (d, inner) = (size(config.d_model), size(config.d_ff));
    let layer = sum([linear(d, 3 * d), linear(d, d), linear(d, inner), linear(inner, d), 4 * d]);
    sum([linear(d_input, d), 3 * d, layer.saturating_mul(size(config.layers))])
}

fn letter_encoder(config: &MxdnaConfig) -> u64 {
    let d = size(config.d_model);
    let expert = |&bases: &usize| {
        let groups = size(groups(config.d_model, bases)).max(1);
        sum([3 * d * d, (d * (d / groups)).saturating_mul(size(bases)), 2 * d])
    };
    let experts = sum(config.units.sizes.iter().map(expert));
    let tokenizer = sum([4 * d, size(config.units.sizes.len()) * d, experts, 3 * d * d, 2 * 3 * (3 * d + 1)]);
    let layers = gated(config).saturating_mul(size(config.base_layers) + size(config.unit_layers));
    sum([size(LETTERS) * d, layers, tokenizer, 2 * d])
}

fn gated(config: &MxdnaConfig) -> u64 {
    let (d, inner) = (size(config.d_model), size(config.d_ff));
    sum([4 * d * d, 3 * d * inner, 4 * d])
}

fn head(config: &SequenceHeadConfig, d: u64, outputs: u64) -> u64 {
    match config.kind {
        HeadKind::Linear => linear(d, outputs),
        HeadKind::Mlp => {
            let hidden = config.d_hidden.map_or(d, size);
            sum([linear(d, hidden), linear(hidden, outputs)])
        }
    }
}

/// Numbers of a linear layer.
fn linear(d_in: u64, d_out: u64) -> u64 {
    d_out.saturating_mul(d_in + 1)
}

fn sum(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

fn size(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::lora::LoraConfig;
    use crate::objective::letters::LetterModel;
    use crate::objective::masked::MaskedModel;
    use crate::tokenizer::vqdna::{Kind, Preset, publish};
    use burn::prelude::*;

    /// The formulas are those of the modules themselves.
    #[test]
    fn numbers_are_those_of_the_modules() {
        let device = Device::flex();
        for preset in [Preset::Tiny, Preset::Small] {
            for kind in [Kind::Vq, Kind::Hrq, Kind::Rq, Kind::Fsq] {
                let config = preset.config(kind);
                let arrays = publish(&config.init(0, &device));
                let found: usize = arrays.values().map(|array| array.values.len()).sum();
                assert_eq!(vocabulary(&config), found as u64, "{preset:?} {kind:?}");
            }
        }
        for config in [TransformerConfig::tiny(), TransformerConfig { pool: 4, layers: 3, ..TransformerConfig::tiny() }]
        {
            let fresh = config.init(48, 0, &device);
            assert_eq!(encoder(&config, 48), fresh.num_params() as u64);
            let (lora, model) = (LoraConfig::default(), MaskedModel::new(&config, 48, &[64, 128], 0, &device));
            let adapters = config.layers * lora.numbers(config.d_model, config.d_ff);
            assert_eq!(fresh.clone().with_adapters(&lora, 0).num_params(), fresh.num_params() + adapters);
            let d = size(config.d_model);
            let heads = (linear(d, 64) + linear(d, 128)) * size(config.pool) + linear(d, d) + 2 * d;
            assert_eq!(encoder(&config, 48) + heads, model.num_params() as u64);
        }
        for config in [MxdnaConfig::tiny(), MxdnaConfig { unit_layers: 3, ..MxdnaConfig::tiny() }] {
            assert_eq!(letter_encoder(&config), config.init(0, &device).num_params() as u64);
            assert_eq!(letter_model(&config), LetterModel::new(&config, 0, &device).num_params() as u64);
        }
        for kind in [HeadKind::Mlp, HeadKind::Linear] {
            for d_hidden in [None, Some(7)] {
                let config = SequenceHeadConfig { kind, d_hidden, ..SequenceHeadConfig::default() };
                let fresh = crate::head::sequence::SequenceHead::new(&config, 16, 3, 0, &device);
                assert_eq!(head(&config, 16, 3), fresh.num_params() as u64);
            }
        }
    }
}
