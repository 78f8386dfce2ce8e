//! Configs of older folders. Version 1 had a tokenizer and, in further sections, what was made over it; version 2 knew MxDNA beside it;
//! version 3 what a model was trained on: its window, columns and letters. Weights have the same names in all.

use serde::Deserialize;
use serde_json::Value;
use vqdna_data::labelled::{Labelling, TakenColumns};
use vqdna_data::segment::Policy;

use super::{FORMAT_VERSION, ModelConfig, TaskConfig};
use crate::backbone::mxdna::MxdnaConfig;
use crate::backbone::transformer::TransformerConfig;
use crate::head::sequence::SequenceHeadConfig;
use crate::layers::lora::LoraConfig;
use crate::objective::ObjectiveConfig;
use crate::objective::masking::MaskingConfig;
use crate::tokenizer::TokenizerConfig;
use crate::tokenizer::vqdna::VqdnaConfig;

/// `config.json` of versions 1 to 3.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Legacy {
    architectures: Vec<String>,
    model_type: String,
    #[serde(rename = "format_version")]
    _format_version: u64,
    tokenizer: Option<VqdnaConfig>,
    mxdna: Option<MxdnaConfig>,
    letters: Policy,
    pretrained: Option<Pretrained>,
    window: Option<usize>,
    finetuned: Option<Finetuned>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pretrained {
    vocabulary: String,
    codebook_sizes: Vec<usize>,
    backbone: TransformerConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finetuned {
    vocabulary: Option<String>,
    backbone: Option<TransformerConfig>,
    lora: Option<LoraConfig>,
    head: SequenceHeadConfig,
    labelling: Labelling,
    columns: Option<TakenColumns>,
    window: usize,
    both_strands: bool,
}

/// The config as this program has it; else what is wrong with it.
pub(super) fn read(value: Value) -> Result<ModelConfig, String> {
    let legacy: Legacy =
        serde_path_to_error::deserialize(value).map_err(|e| format!("field `{}`: {}", e.path(), e.inner()))?;
    let Legacy { architectures, model_type, tokenizer, mxdna, letters, pretrained, window, finetuned, .. } = legacy;
    if let (Some(pretrained), Some(tokenizer)) = (&pretrained, &tokenizer) {
        let (found, expected) = (&pretrained.codebook_sizes, tokenizer.quantizer.codebook_sizes());
        if *found != expected {
            let field = "`pretrained.codebook_sizes`";
            return Err(format!("{field} is {found:?}, but `tokenizer.quantizer` has {expected:?}"));
        }
    }
    let is_pretrained = pretrained.is_some() || (mxdna.is_some() && finetuned.is_none());
    let named = pretrained.as_ref().map(|pretrained| pretrained.vocabulary.clone());
    let vocabulary = named.or(finetuned.as_ref().and_then(|finetuned| finetuned.vocabulary.clone()));
    if finetuned.as_ref().is_some_and(|finetuned| finetuned.vocabulary.is_some() != tokenizer.is_some()) {
        return Err("there must be both `finetuned.vocabulary` and `tokenizer`, or none".to_owned());
    }
    let of_codes = pretrained.map(|pretrained| pretrained.backbone);
    let of_codes = of_codes.or(finetuned.as_ref().and_then(|finetuned| finetuned.backbone.clone()));
    let (tokenizer, backbone) = match (tokenizer, mxdna) {
        (Some(tokenizer), None) => (tokenizer.into(), of_codes.map(Into::into)),
        (None, Some(mxdna)) => (TokenizerConfig::mxdna(), Some(mxdna.into())),
        _ => return Err("there must be either `tokenizer` or `mxdna`".to_owned()),
    };
    let task = finetuned.map(|finetuned| TaskConfig {
        lora: finetuned.lora,
        head: finetuned.head,
        labelling: finetuned.labelling,
        columns: finetuned.columns,
        window: finetuned.window,
        both_strands: finetuned.both_strands,
    });
    Ok(ModelConfig {
        architectures,
        model_type,
        format_version: FORMAT_VERSION,
        tokenizer,
        vocabulary,
        letters,
        backbone,
        window,
        // How it masked stands in the manifest alone.
        objective: is_pretrained.then(|| ObjectiveConfig::Masked(MaskingConfig::default())),
        task,
    })
}
