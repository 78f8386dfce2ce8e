//! A learned vocabulary: what `learn` makes, and what every later model holds.

use burn::prelude::*;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::pretrained::TOKENIZER;
use super::{FolderError, Kind, ModelConfig, digest, misfit, read_weights};
use crate::tokenizer::vqdna::{Vqdna, VqdnaConfig, load_published};
use crate::weights::Arrays;

/// A learned vocabulary, ready for use.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Its network.
    pub tokenizer: VqdnaConfig,
    /// What became of letters when it learned, and becomes of them when it tokenizes.
    pub letters: Policy,
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
        config.tokenizer(folder)?;
        let prefix = if config.kind() == Kind::Vocabulary { "" } else { TOKENIZER };
        Self::from_weights(&config, read_weights(folder, &config, prefix)?, folder, device)
    }

    /// The vocabulary among the weights of a folder.
    pub(super) fn from_weights(
        config: &ModelConfig,
        arrays: Arrays,
        folder: &Path,
        device: &Device,
    ) -> Result<Self, FolderError> {
        let tokenizer = config.tokenizer(folder)?.clone();
        let fresh = tokenizer.init(0, &device.clone().without_autodiff());
        let pretrained = config.pretrained.as_ref().map(|pretrained| &pretrained.vocabulary);
        let finetuned = config.finetuned.as_ref().and_then(|finetuned| finetuned.vocabulary.as_ref());
        let (prefix, digest) = match pretrained.or(finetuned) {
            None => ("", digest(folder)?),
            Some(vocabulary) => (TOKENIZER, vocabulary.clone()),
        };
        let published = arrays.into_iter().map(|(name, array)| (name[prefix.len()..].to_owned(), array));
        let model = load_published(fresh, published.collect())
            .map_err(|error| misfit(folder)(error.rename(|name| format!("{prefix}{name}"))))?;
        Ok(Self { tokenizer, letters: config.letters, model, digest })
    }
}
