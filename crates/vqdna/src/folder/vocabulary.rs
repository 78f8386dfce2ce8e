//! A learned vocabulary: what `learn` makes, and what every later model holds.

use burn::prelude::*;
use std::path::Path;

use super::pretrained::TOKENIZER;
use super::{FinetunedConfig, FolderError, Kind, ModelConfig, PretrainedConfig, digest, misfit, read_weights};
use crate::tokenizer::vqdna::{Vqdna, load_published};
use crate::weights::Arrays;

/// A learned vocabulary, ready for use.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// What its folder holds.
    pub config: ModelConfig,
    /// Its weights on a device, without autodiff.
    pub model: Vqdna,
    /// Names the weights: BLAKE3 of the `model.safetensors` that `learn` wrote.
    pub digest: String,
}

impl Vocabulary {
    /// Loads the vocabulary of a folder onto a device: the folder of a vocabulary, or of a model that was made over one.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let prefix = if config.kind() == Kind::Vocabulary { "" } else { TOKENIZER };
        Self::from_weights(config, read_weights(folder, prefix)?, folder, device)
    }

    /// The vocabulary among the weights of a folder.
    pub(super) fn from_weights(
        config: ModelConfig,
        arrays: Arrays,
        folder: &Path,
        device: &Device,
    ) -> Result<Self, FolderError> {
        let fresh = config.tokenizer.init(0, &device.clone().without_autodiff());
        let (prefix, digest) = match (&config.pretrained, &config.finetuned) {
            (None, None) => ("", digest(folder)?),
            (Some(PretrainedConfig { vocabulary, .. }), _) | (None, Some(FinetunedConfig { vocabulary, .. })) => {
                (TOKENIZER, vocabulary.clone())
            }
        };
        let published = arrays.into_iter().map(|(name, array)| (name[prefix.len()..].to_owned(), array));
        let model = load_published(fresh, published.collect())
            .map_err(|error| misfit(folder)(error.rename(|name| format!("{prefix}{name}"))))?;
        Ok(Self { config, model, digest })
    }
}
