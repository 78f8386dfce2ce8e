//! A fine-tuned model: a vocabulary and an encoder over its codes, or an encoder that cuts sequences itself; a head, and what the
//! outputs stand for.
//!
//! One file holds all weights. Names begin with `tokenizer.`, `backbone.`, `encoder.` or `head.`, and go on as those of the PyTorch
//! definition of that part.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;
use vqdna_data::labelled::{Labelling, Standardization, TakenColumns};

use super::pretrained::TOKENIZER;
use super::{FolderError, Kind, MOST_WINDOW, ModelConfig, Vocabulary, digest, misfit, read_weights};
use crate::backbone::transformer::{Transformer, TransformerConfig};
use crate::head::sequence::{SequenceHead, SequenceHeadConfig};
use crate::layers::lora::LoraConfig;
use crate::objective::supervised::SequenceModel;
use crate::tokenizer::vqdna::{self, Vqdna};
use crate::weights::{self, Arrays};

/// The section `finetuned` of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetunedConfig {
    /// Digest of the vocabulary: BLAKE3 of the `model.safetensors` that `learn` wrote. Files of codes name it. None in a model that cuts
    /// sequences itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
    /// The encoder over codes; none for a probe of code vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<TransformerConfig>,
    /// Adapters that stand beside its weights; none if they are folded in, or there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The head.
    pub head: SequenceHeadConfig,
    /// What the outputs stand for.
    pub labelling: Labelling,
    /// The columns that it learned from, by which it knows whether it takes pairs; none in a folder of an older program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<TakenColumns>,
    /// Positions of the longest sequence that it learned from: longer ones are predicted window by window.
    pub window: usize,
    /// Whether outputs are the mean over both strands.
    pub both_strands: bool,
}

impl FinetunedConfig {
    /// Whether it takes pairs of sequences; none if it does not remember.
    #[must_use]
    pub fn takes_pairs(&self) -> Option<bool> {
        let columns = self.columns.as_ref().filter(|columns| !columns.sequence.is_empty());
        columns.map(TakenColumns::are_pairs)
    }

    /// Checks what no type does; says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let within = |reason: &dyn std::fmt::Display| format!("in `finetuned`: {reason}");
        self.head.check().map_err(|e| within(&e))?;
        if let Some(lora) = &self.lora {
            lora.check().map_err(|e| within(&e))?;
        }
        if self.window > MOST_WINDOW {
            return Err(format!("`finetuned.window` must be at most {MOST_WINDOW}"));
        }
        let outputs = self.labelling.outputs();
        if outputs.is_empty() {
            return Err("`finetuned.labelling` has no outputs".to_owned());
        }
        let columns =
            self.columns.iter().flat_map(|columns| columns.sequence.iter().chain(&columns.label).chain(&columns.id));
        let broken = |name: &&String| name.contains(char::is_control);
        if let Some(name) = outputs.iter().chain(self.labelling.columns()).chain(columns).find(broken) {
            let name = name.escape_debug();
            return Err(format!(
                "the name `{name}` in `finetuned` holds a tab, a line end or another control character"
            ));
        }
        if let Some((_, name)) = outputs.iter().enumerate().find(|(place, name)| outputs[..*place].contains(name)) {
            return Err(format!("`finetuned.labelling` names `{name}` twice"));
        }
        let Labelling::Values { columns, standardization } = &self.labelling else { return Ok(()) };
        let is_sound = |scale: &Standardization| scale.mean.is_finite() && scale.sd.is_finite() && scale.sd > 0.0;
        if columns.len() != standardization.len() || !standardization.iter().all(is_sound) {
            return Err(
                "`finetuned.labelling.standardization` has not a finite mean and a spread above 0 for each column"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// A fine-tuned model, ready for use.
#[derive(Clone, Debug)]
pub struct Finetuned {
    /// What its folder holds.
    pub config: ModelConfig,
    /// The section of it that is its own.
    pub finetuned: FinetunedConfig,
    /// Bases to codes, and codes to vectors; without autodiff. None in a model that cuts sequences itself.
    pub vocabulary: Option<Vocabulary>,
    /// Vectors or letters to outputs, with adapters folded in.
    pub model: SequenceModel,
    /// Names the weights: BLAKE3 of `model.safetensors`.
    pub digest: String,
}

impl Finetuned {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::OtherKind`] if the folder holds something else.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let Some(finetuned) = config.finetuned.clone() else {
            return Err(config.other_than(Kind::Finetuned, folder));
        };
        let (tokenizer, arrays): (Arrays, Arrays) =
            read_weights(folder, &config, "")?.into_iter().partition(|(name, _)| name.starts_with(TOKENIZER));
        let FinetunedConfig { backbone, lora, head, labelling, .. } = &finetuned;
        let d_code = config.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.d_code);
        let encoder = config.mxdna.as_ref().map(|mxdna| mxdna.init(0, device));
        let backbone_model = backbone.as_ref().map(|backbone| {
            let fresh = backbone.init(d_code, 0, device);
            match lora {
                Some(lora) => fresh.with_adapters(lora, 0),
                None => fresh,
            }
        });
        let widths =
            [backbone.as_ref().map(|backbone| backbone.d_model), config.mxdna.as_ref().map(|mxdna| mxdna.d_model)];
        let d_model = widths.into_iter().flatten().next().unwrap_or(d_code);
        let head = SequenceHead::new(head, d_model, labelling.outputs().len(), 0, device);
        let fresh = SequenceModel { backbone: backbone_model, encoder, head };
        let model = weights::assign(fresh, &arrays).map_err(misfit(folder))?;
        let model = SequenceModel { backbone: model.backbone.map(Transformer::merged), ..model };
        let has_vocabulary = config.tokenizer.is_some();
        let vocabulary =
            has_vocabulary.then(|| Vocabulary::from_weights(&config, tokenizer, folder, device)).transpose()?;
        Ok(Self { config, finetuned, vocabulary, model, digest: digest(folder)? })
    }
}

/// All weights under the names of the file.
#[must_use]
pub fn publish(vocabulary: Option<&Vqdna>, model: &SequenceModel) -> Arrays {
    let tokenizer = vocabulary
        .map(vqdna::publish)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, array)| (format!("{TOKENIZER}{name}"), array));
    tokenizer.chain(weights::collect(model)).collect()
}
