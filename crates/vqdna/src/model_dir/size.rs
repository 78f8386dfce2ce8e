//! How many numbers the weights of a model hold, computed from its config alone, so that no memory is taken for a config that its weights
//! do not bear out.

use super::ModelConfig;
use crate::head::sequence::{HeadKind, SequenceHeadConfig};
use crate::quantizer::QuantizerConfig;
use crate::tokenizer::Source;
use crate::tokenizer::vqdna::{STEM_KERNEL, VqdnaConfig};

/// Numbers in the file of weights of a model.
pub(super) fn numbers(config: &ModelConfig) -> u64 {
    let learned = config.tokenizer.learned().map_or(0, vocabulary);
    let source = config.tokenizer.source();
    let encoder = config.backbone.as_ref().map_or(0, |backbone| {
        let d = size(backbone.width());
        let embed = match source {
            Source::Vectors(width) => linear(size(width), d).saturating_add(d),
            Source::Table(ids) => size(ids).saturating_mul(d),
        };
        embed.saturating_add(backbone.numbers())
    });
    let head = match (&config.task, &config.backbone) {
        (Some(task), backbone) => {
            let adapters = task.lora.as_ref().zip(backbone.as_ref());
            let adapters = adapters.map_or(0, |(lora, backbone)| backbone.adapter_numbers(lora));
            let width = match (backbone, source) {
                (Some(backbone), _) => backbone.width(),
                (None, Source::Vectors(width) | Source::Table(width)) => width,
            };
            sum([adapters, head(&task.head, size(width), size(task.labelling.outputs().len()))])
        }
        (None, Some(backbone)) => {
            let d = size(backbone.width());
            let classifiers = sum(config.tokenizer.sizes().iter().map(|&ids| linear(d, size(ids))));
            let classifiers = classifiers.saturating_mul(size(backbone.pool()));
            sum([backbone.decoder_numbers(), linear(d, d), 2 * d, classifiers])
        }
        (None, None) => 0,
    };
    sum([learned, encoder, head])
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
    use crate::backbone::BackboneConfig;
    use crate::backbone::mxdna::MxdnaConfig;
    use crate::backbone::transformer::TransformerConfig;
    use crate::head::sequence::SequenceHead;
    use crate::layers::lora::LoraConfig;
    use crate::model::LanguageModel;
    use crate::objective::ObjectiveConfig;
    use crate::objective::masking::MaskingConfig;
    use crate::tokenizer::TokenizerConfig;
    use crate::tokenizer::vqdna::{Kind, Preset, publish};
    use burn::prelude::*;
    use vqdna_data::segment::Policy;

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
        let tiny = TransformerConfig::tiny;
        let backbones: [BackboneConfig; 4] = [
            tiny().into(),
            TransformerConfig { pool: 4, layers: 3, ..tiny() }.into(),
            MxdnaConfig::tiny().into(),
            MxdnaConfig { unit_layers: 3, ..MxdnaConfig::tiny() }.into(),
        ];
        let tokenizers: [TokenizerConfig; 2] = [TokenizerConfig::mxdna(), Preset::Tiny.config(Kind::Hrq).into()];
        for (backbone, tokenizer) in backbones.iter().flat_map(|it| tokenizers.iter().map(move |other| (it, other))) {
            let model = LanguageModel::new(backbone, tokenizer.source(), &tokenizer.sizes(), 0, &device);
            let objective = ObjectiveConfig::Masked(MaskingConfig::default());
            let config = ModelConfig::of_pretrained(
                tokenizer.clone(),
                None,
                Policy::default(),
                backbone.clone(),
                objective,
                None,
            );
            let learned = tokenizer.learned().map_or(0, vocabulary);
            assert_eq!(numbers(&config), model.num_params() as u64 + learned, "{backbone:?}");
            let lora = LoraConfig::default();
            let plain = model.backbone.num_params() as u64;
            let adapted = model.backbone.with_adapters(&lora, 0).num_params() as u64;
            assert_eq!(adapted, plain + backbone.adapter_numbers(&lora));
        }
        for kind in [HeadKind::Mlp, HeadKind::Linear] {
            for d_hidden in [None, Some(7)] {
                let config = SequenceHeadConfig { kind, d_hidden, ..SequenceHeadConfig::default() };
                let fresh = SequenceHead::new(&config, 16, 3, 0, &device);
                assert_eq!(head(&config, 16, 3), fresh.num_params() as u64);
            }
        }
    }
}
