//! A model of a folder, ready for use.
//!
//! One file holds all weights. Names of the tokenizer's begin with `tokenizer.`, but in a vocabulary, which is nothing else; those of the
//! head of a language model with `masked.`, of others with `head.`; those of the encoder with `backbone.`, or with `encoder.` if it forms
//! units. They go on as those of the PyTorch definition of that part.

use burn::prelude::*;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::{FolderError, Kind, ModelConfig, TaskConfig, digest, misfit, read_weights};
use crate::backbone::{Backbone, BackboneConfig};
use crate::head::sequence::SequenceHead;
use crate::model::embed::encoder;
use crate::model::{Embed, LanguageModel, SequenceModel};
use crate::tokenizer::vqdna::{self, Vqdna, VqdnaConfig, load_published};
use crate::tokenizer::{Source, Tokenizer};
use crate::weights::{self, Arrays};

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
        config.learned(folder)?;
        let arrays = read_weights(folder, &config, prefix(&config))?;
        Self::of(&config, arrays, folder, device)
    }

    /// The vocabulary among the weights of a folder.
    fn of(config: &ModelConfig, arrays: Arrays, folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let tokenizer = config.learned(folder)?.clone();
        let model = learned(config, &tokenizer, arrays, folder, device)?;
        let digest = match &config.vocabulary {
            None => digest(folder)?,
            Some(named) => named.clone(),
        };
        Ok(Self { tokenizer, letters: config.letters, model, digest })
    }
}

/// A tokenizer, and a network over its tokens.
#[derive(Clone, Debug)]
pub struct Model {
    /// What its folder holds.
    pub config: ModelConfig,
    /// Bases to tokens, without autodiff.
    pub tokenizer: Tokenizer,
    /// Tokens to what the model predicts.
    pub network: Network,
    /// Names the weights: BLAKE3 of `model.safetensors`.
    pub digest: String,
}

/// What a model has over its tokens.
#[derive(Clone, Debug)]
pub enum Network {
    /// Nothing: it is a vocabulary.
    Nothing,
    /// Ids of tokens are predicted.
    Language(Box<LanguageModel>),
    /// Something about whole sequences is predicted; adapters are folded in.
    Sequence(Box<SequenceModel>),
}

impl Network {
    /// What turns tokens into hidden states, without any head.
    #[must_use]
    pub fn encoder(self) -> Option<(Embed, Backbone)> {
        match self {
            Self::Nothing => None,
            Self::Language(model) => Some((model.embed, model.backbone.without_decoder())),
            Self::Sequence(model) => model.embed.zip(model.backbone),
        }
    }
}

impl Model {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let inside = prefix(&config);
        let arrays = read_weights(folder, &config, "")?;
        let (of_tokenizer, arrays): (Arrays, Arrays) =
            arrays.into_iter().partition(|(name, _)| config.tokenizer.learned().is_some() && name.starts_with(inside));
        let tokenizer = if let Some(fixed) = config.tokenizer.fixed() {
            fixed
        } else {
            learned(&config, config.learned(folder)?, of_tokenizer, folder, device)?.into()
        };
        let network = match (&config.task, &config.backbone) {
            (Some(task), backbone) => {
                let fresh = fresh_sequence(&config, task, backbone.as_ref(), device);
                Network::Sequence(Box::new(assign(fresh, &arrays, &config, folder)?.merged()))
            }
            (None, Some(backbone)) => {
                let (source, sizes) = (config.tokenizer.source(), config.tokenizer.sizes());
                let fresh = LanguageModel::new(backbone, source, &sizes, 0, device);
                Network::Language(Box::new(assign(fresh, &arrays, &config, folder)?))
            }
            (None, None) => Network::Nothing,
        };
        Ok(Self { tokenizer, network, digest: digest(folder)?, config })
    }

    /// Loads a folder that holds what is needed.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::OtherKind`] if the folder holds something else.
    pub fn load_kind(folder: &Path, needed: Kind, device: &Device) -> Result<Self, FolderError> {
        ModelConfig::load(folder)?.require(needed, folder)?;
        Self::load(folder, device)
    }

    /// The fine-tuned network and its task; none of other models.
    #[must_use]
    pub fn task(&self) -> Option<(&SequenceModel, &TaskConfig)> {
        match (&self.network, &self.config.task) {
            (Network::Sequence(network), Some(task)) => Some((network, task)),
            _ => None,
        }
    }

    /// The vocabulary inside; none over a tokenizer that was not learned.
    #[must_use]
    pub fn vocabulary(&self) -> Option<Vocabulary> {
        let tokenizer = self.config.tokenizer.learned()?.clone();
        let model = self.tokenizer.learned()?.clone();
        let digest = self.config.vocabulary.clone().unwrap_or_else(|| self.digest.clone());
        Some(Vocabulary { tokenizer, letters: self.config.letters, model, digest })
    }
}

/// A fine-tuned network with fresh weights.
fn fresh_sequence(
    config: &ModelConfig,
    task: &TaskConfig,
    backbone: Option<&BackboneConfig>,
    device: &Device,
) -> SequenceModel {
    let source = config.tokenizer.source();
    let parts = backbone.map(|backbone| {
        let (embed, encoder) = encoder(backbone, source, 0, device);
        (embed, task.lora.iter().fold(encoder, |encoder, lora| encoder.with_adapters(lora, 0)))
    });
    let width = match (backbone, source) {
        (Some(backbone), _) => backbone.width(),
        (None, Source::Vectors(width) | Source::Table(width)) => width,
    };
    let head = SequenceHead::new(&task.head, width, task.labelling.outputs().len(), 0, device);
    let (embed, backbone) = parts.unzip();
    SequenceModel { embed, backbone, head }
}

/// Prefix of the tokenizer's weights.
fn prefix(config: &ModelConfig) -> &'static str {
    if config.kind() == Kind::Vocabulary { "" } else { TOKENIZER }
}

/// Prefix of the tokenizer's weights in a model that is more than it.
const TOKENIZER: &str = "tokenizer.";

/// The network of a vocabulary among the weights of a folder.
fn learned(
    config: &ModelConfig,
    network: &VqdnaConfig,
    arrays: Arrays,
    folder: &Path,
    device: &Device,
) -> Result<Vqdna, FolderError> {
    let (fresh, prefix) = (network.init(0, &device.clone().without_autodiff()), prefix(config));
    let published = arrays.into_iter().map(|(name, array)| (name[prefix.len()..].to_owned(), array));
    load_published(fresh, published.collect())
        .map_err(|error| misfit(folder)(error.rename(|name| format!("{prefix}{name}"))))
}

/// Starts of names in the module and in the file, the first that fits counts.
type Names = &'static [[&'static str; 2]];

/// Names in models whose encoder is a stack of layers over learned vectors.
const OF_VECTORS: Names = &[["embed.", "backbone."], ["head.", "masked."]];
/// Names in other models whose encoder is a stack of layers.
const OF_TABLES: Names = &[["head.", "masked."]];
/// Names in models that form units.
const OF_UNITS: Names = &[
    ["embed.", "encoder.embed."],
    ["backbone.decoder.layer.", "masked.decoder."],
    ["backbone.decoder.norm.", "masked.head_norm."],
    ["backbone.", "encoder."],
    ["head.dense.", "masked.head.dense."],
    ["head.head_norm.", "masked.head.norm."],
    ["head.heads.0.", "masked.head.out."],
];

/// The name of a parameter in the file.
pub(super) fn file_name(config: &ModelConfig, name: &str) -> String {
    let names = match (config.forms_units(), config.tokenizer.source()) {
        (true, _) => OF_UNITS,
        (false, Source::Vectors(_)) => OF_VECTORS,
        (false, Source::Table(_)) => OF_TABLES,
    };
    // The head of a task has the name of its module.
    let is_head_of_task = config.task.is_some() && name.starts_with("head.");
    let of = |[module, file]: &[&str; 2]| Some(format!("{file}{}", name.strip_prefix(module)?));
    names.iter().find_map(of).filter(|_| !is_head_of_task).unwrap_or_else(|| name.to_owned())
}

/// A module with the weights of a file.
fn assign<M: Module>(fresh: M, arrays: &Arrays, config: &ModelConfig, folder: &Path) -> Result<M, FolderError> {
    let mut arrays = arrays.clone();
    let mut named = Arrays::new();
    for name in weights::collect(&fresh).into_keys() {
        named.extend(arrays.remove(&file_name(config, &name)).map(|array| (name, array)));
    }
    // What no parameter is named by stays under the name of the file, which an error then names.
    named.extend(arrays);
    weights::assign(fresh, &named).map_err(|error| misfit(folder)(error.rename(|name| file_name(config, &name))))
}

/// All weights of a pre-trained model under the names of the file.
#[must_use]
pub fn publish(config: &ModelConfig, tokenizer: &Tokenizer, model: &LanguageModel) -> Arrays {
    published(config, tokenizer, weights::collect(model))
}

/// All weights of a fine-tuned model under the names of the file.
#[must_use]
pub fn publish_finetuned(config: &ModelConfig, tokenizer: &Tokenizer, model: &SequenceModel) -> Arrays {
    published(config, tokenizer, weights::collect(model))
}

fn published(config: &ModelConfig, tokenizer: &Tokenizer, arrays: Arrays) -> Arrays {
    let learned = tokenizer.learned().map(vqdna::publish).unwrap_or_default();
    let learned = learned.into_iter().map(|(name, array)| (format!("{TOKENIZER}{name}"), array));
    learned.chain(arrays.into_iter().map(|(name, array)| (file_name(config, &name), array))).collect()
}
