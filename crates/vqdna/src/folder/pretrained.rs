//! A pre-trained model: a vocabulary, an encoder over its codes, and the heads that tell masked codes.
//!
//! One file holds all weights. Names begin with `tokenizer.`, `backbone.` or `masked.`, and go on as those of the PyTorch
//! definition of that part.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

use super::{FolderError, Kind, ModelConfig, Vocabulary, digest, misfit, read_weights};
use crate::backbone::transformer::TransformerConfig;
use crate::objective::masked::MaskedModel;
use crate::tokenizer::vqdna::{self, Vqdna};
use crate::weights::{self, Arrays};

/// Prefix of the vocabulary's weights.
pub(super) const TOKENIZER: &str = "tokenizer.";
/// Prefixes of the heads' weights, in the file and in the module.
pub(super) const HEADS: [&str; 2] = ["masked.", "head."];

/// The section `pretrained` of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainedConfig {
    /// Digest of the vocabulary: BLAKE3 of the `model.safetensors` that `learn` wrote. Files of codes name it.
    pub vocabulary: String,
    /// Number of codes, level by level: the classes of the heads.
    pub codebook_sizes: Vec<usize>,
    /// The encoder.
    pub backbone: TransformerConfig,
}

/// A pre-trained model, ready for use.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What its folder holds.
    pub config: ModelConfig,
    /// Bases to codes, and codes to vectors; without autodiff.
    pub vocabulary: Vocabulary,
    /// Vectors to hidden states, and those to codes. Its backbone alone is what a further stage builds on.
    pub model: MaskedModel,
    /// Names the weights: BLAKE3 of `model.safetensors`.
    pub digest: String,
}

impl Pretrained {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::OtherKind`] if the folder holds a vocabulary alone.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let d_code = config.tokenizer(folder)?.d_code;
        let Some(PretrainedConfig { codebook_sizes, backbone, .. }) = &config.pretrained else {
            return Err(config.other_than(Kind::Pretrained, folder));
        };
        let (tokenizer, model): (Arrays, Arrays) =
            read_weights(folder, &config, "")?.into_iter().partition(|(name, _)| name.starts_with(TOKENIZER));
        let fresh = MaskedModel::new(backbone, d_code, codebook_sizes, 0, device);
        let model = weights::assign(fresh, &rename(model, HEADS))
            .map_err(|error| misfit(folder)(error.rename(|name| rename_one(name, [HEADS[1], HEADS[0]]))))?;
        let vocabulary = Vocabulary::from_weights(&config, tokenizer, folder, device)?;
        Ok(Self { vocabulary, model, digest: digest(folder)?, config })
    }
}

/// All weights under the names of the file.
#[must_use]
pub fn publish(vocabulary: &Vqdna, model: &MaskedModel) -> Arrays {
    let tokenizer = vqdna::publish(vocabulary).into_iter().map(|(name, array)| (format!("{TOKENIZER}{name}"), array));
    tokenizer.chain(rename(weights::collect(model), [HEADS[1], HEADS[0]])).collect()
}

pub(super) fn rename(arrays: Arrays, prefixes: [&str; 2]) -> Arrays {
    arrays.into_iter().map(|(name, array)| (rename_one(name, prefixes), array)).collect()
}

/// The name with the second prefix in place of the first.
pub(super) fn rename_one(name: String, [from, to]: [&str; 2]) -> String {
    name.strip_prefix(from).map(|rest| format!("{to}{rest}")).unwrap_or(name)
}
