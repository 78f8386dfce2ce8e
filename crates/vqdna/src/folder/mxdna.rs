//! A pre-trained model that cuts sequences itself, and the head that tells masked bases from its units.
//!
//! One file holds all weights. Names begin with `encoder.` or `masked.`.

use burn::prelude::*;
use std::path::Path;

use super::pretrained::{HEADS, rename, rename_one};
use super::{FolderError, Kind, ModelConfig, digest, misfit, read_weights};
use crate::objective::letters::LetterModel;
use crate::tokenizer::mxdna::MxdnaConfig;
use crate::weights::{self, Arrays};

/// A pre-trained model, ready for use.
#[derive(Clone, Debug)]
pub struct PretrainedMxdna {
    /// What its folder holds.
    pub config: ModelConfig,
    /// The section of it that is its own.
    pub network: MxdnaConfig,
    /// Letters to hidden states, and those to letters. Its encoder alone is what a further stage builds on.
    pub model: LetterModel,
    /// Names the weights: BLAKE3 of `model.safetensors`.
    pub digest: String,
}

impl PretrainedMxdna {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::OtherKind`] or [`FolderError::NoMxdna`] if the folder holds something else.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let Some(network) = config.mxdna.clone() else {
            return Err(FolderError::NoMxdna { folder: folder.to_owned(), found: config.kind() });
        };
        config.require(Kind::Pretrained, folder)?;
        let arrays = rename(read_weights(folder, &config, "")?, HEADS);
        let model = weights::assign(LetterModel::new(&network, 0, device), &arrays)
            .map_err(|error| misfit(folder)(error.rename(|name| rename_one(name, [HEADS[1], HEADS[0]]))))?;
        Ok(Self { network, model, digest: digest(folder)?, config })
    }
}

/// All weights under the names of the file.
#[must_use]
pub fn publish(model: &LetterModel) -> Arrays {
    rename(weights::collect(model), [HEADS[1], HEADS[0]])
}
