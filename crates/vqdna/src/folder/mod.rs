//! A model folder: `config.json`, `model.safetensors`, `run.json`, `README.md`. It can be moved and holds everything that the
//! model needs.
//!
//! | [`Kind`] | made by | holds | loaded as |
//! | --- | --- | --- | --- |
//! | vocabulary | `learn` | the tokenizer | [`Vocabulary`] |
//! | pre-trained model | `pretrain` | a vocabulary, an encoder over its codes, masked heads | [`Pretrained`], or its [`Vocabulary`] alone |
//! | | `pretrain --tokenizer mxdna`, `import mxdna` | an encoder that cuts sequences itself, its masked head | [`PretrainedMxdna`] |
//! | fine-tuned model | `finetune` | a vocabulary, an encoder, a head, what its outputs stand for | [`Finetuned`], or its [`Vocabulary`] alone |
//! | | `finetune` | an encoder that cuts sequences itself, a head, what its outputs stand for | [`Finetuned`] |
//!
//! A further kind is a section of [`ModelConfig`], a variant of [`Kind`] and a file here.

mod card;
mod files;
mod finetuned;
pub mod import;
mod mxdna;
mod pretrained;
mod size;
mod vocabulary;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use vqdna_data::bounded;
use vqdna_data::segment::Policy;

use crate::backbone::transformer::{TransformerConfig, TransformerConfigError};
use crate::tokenizer::mxdna::{MxdnaConfig, MxdnaConfigError};
use crate::tokenizer::vqdna::{VqdnaConfig, VqdnaConfigError};
use crate::weights::WeightError;

use files::{CONFIG, MOST_CONFIG, UNFINISHED, controlled, digest_of, misfit, read_weights, write_folder};

pub use card::{Manifest, measures_json};
pub use files::{digest, manifest, save};
pub use finetuned::{Finetuned, FinetunedConfig, publish as publish_finetuned};
pub use mxdna::{PretrainedMxdna, publish as publish_mxdna};
pub use pretrained::{Pretrained, PretrainedConfig, publish};
pub use vocabulary::Vocabulary;

/// The newest `format_version` of `config.json` that this program reads. Version 2 knows models that cut sequences themselves, version 3
/// what a model was trained on: its window, columns and letters. Vocabularies are written as version 1, which older programs read.
pub const FORMAT_VERSION: u64 = 3;

/// Sanity limit: bases of a window beyond which a config is an error.
const MOST_WINDOW: usize = 1 << 32;

/// What `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Names of the networks inside, in the manner of Hugging Face.
    pub architectures: Vec<String>,
    /// Always `vqdna`.
    pub model_type: String,
    /// Counts up when older programs could no longer read the folder.
    pub format_version: u64,
    /// The network of the vocabulary; none in a model that cuts sequences itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<VqdnaConfig>,
    /// The encoder of a model that cuts sequences itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mxdna: Option<MxdnaConfig>,
    /// What became of letters when it learned, and becomes of them when it is used.
    pub letters: Policy,
    /// What was pre-trained; none in a vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PretrainedConfig>,
    /// Bases of a window of pre-training, which is what a pre-trained encoder sees together best. None in a vocabulary, and in folders of
    /// version 2 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// What was fine-tuned, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetuned: Option<FinetunedConfig>,
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tokenizer.
    Vocabulary,
    /// A vocabulary and an encoder over its codes.
    Pretrained,
    /// A vocabulary, an encoder and a head.
    Finetuned,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vocabulary => "a vocabulary",
            Self::Pretrained => "a pre-trained model",
            Self::Finetuned => "a fine-tuned model",
        })
    }
}

impl Kind {
    /// The command that makes such a folder.
    #[must_use]
    pub const fn made_by(self) -> &'static str {
        match self {
            Self::Vocabulary => "learn",
            Self::Pretrained => "pretrain",
            Self::Finetuned => "finetune",
        }
    }
}

/// A folder that does not hold a model this program can use; each message names the file or the field.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No such folder, or no model in it.
    #[error("{} holds no model: it has no `{missing}`{hint}", folder.display())]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        missing: &'static str,
        /// What to do, where that is known.
        hint: &'static str,
    },
    /// A model of another kind.
    #[error("{} holds {found}, but {needed} is needed here, as `vqdna {}` makes it", folder.display(), needed.made_by())]
    OtherKind {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        found: Kind,
        /// What it should hold.
        needed: Kind,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not a config of ours.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A config that describes more than there is, for which no memory is taken.
    #[error(
        "{} describes a model of {numbers} numbers, but {} holds {found}: they do not belong together",
        config.display(),
        weights.display()
    )]
    Larger {
        /// The config.
        config: PathBuf,
        /// Numbers of its model.
        numbers: u64,
        /// The file of weights.
        weights: PathBuf,
        /// Numbers in there.
        found: u64,
    },
    /// From a program newer than this one.
    #[error("{}: `format_version` is {found}, but this program reads up to {FORMAT_VERSION}; use a newer vqdna", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// A vocabulary that contradicts itself.
    #[error("{}: {source}", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: VqdnaConfigError,
    },
    /// An encoder that cuts sequences itself, and contradicts itself.
    #[error("{}: {source}", path.display())]
    Mxdna {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: MxdnaConfigError,
    },
    /// A model without codes where they are needed.
    #[error("{} holds an MxDNA model, which cuts sequences itself: it has no vocabulary and no codes", folder.display())]
    NoVocabulary {
        /// The folder.
        folder: PathBuf,
    },
    /// A model over codes where one that cuts sequences itself is needed.
    #[error("{} holds {found} over codes, but an MxDNA model is needed here, as `vqdna pretrain --tokenizer mxdna` makes it", folder.display())]
    NoMxdna {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        found: Kind,
    },
    /// An encoder that contradicts itself.
    #[error("{}: {source}", path.display())]
    Backbone {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: TransformerConfigError,
    },
    /// Weights that do not fit the config.
    #[error("{} does not fit its config.json: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: WeightError,
    },
}

impl ModelConfig {
    /// The config of a vocabulary.
    #[must_use]
    pub fn new(tokenizer: &VqdnaConfig, letters: Policy) -> Self {
        Self {
            architectures: vec!["Vqdna".to_owned()],
            model_type: "vqdna".to_owned(),
            format_version: 1,
            tokenizer: Some(tokenizer.clone()),
            mxdna: None,
            letters,
            pretrained: None,
            window: None,
            finetuned: None,
        }
    }

    /// The config of a model that was fine-tuned over the vocabulary of `base`, or from a model that cuts sequences itself.
    #[must_use]
    pub fn of_finetuned(base: &Self, finetuned: FinetunedConfig) -> Self {
        let network = if base.mxdna.is_some() { "Mxdna" } else { "Vqdna" };
        let architectures = vec![format!("{network}ForSequenceClassification")];
        let format_version = FORMAT_VERSION;
        Self { architectures, format_version, finetuned: Some(finetuned), pretrained: None, ..base.clone() }
    }

    /// The config of a model that was pre-trained over a vocabulary, on windows of `window` bases.
    #[must_use]
    pub fn of_pretrained(
        tokenizer: &VqdnaConfig,
        letters: Policy,
        window: usize,
        pretrained: PretrainedConfig,
    ) -> Self {
        Self {
            architectures: vec!["VqdnaForMaskedLM".to_owned()],
            format_version: FORMAT_VERSION,
            pretrained: Some(pretrained),
            window: Some(window),
            ..Self::new(tokenizer, letters)
        }
    }

    /// The config of a pre-trained model that cuts sequences itself; `window` is in bases, none if nobody knows.
    #[must_use]
    pub fn of_mxdna(mxdna: &MxdnaConfig, letters: Policy, window: Option<usize>) -> Self {
        Self {
            architectures: vec!["MxdnaForMaskedLM".to_owned()],
            model_type: "vqdna".to_owned(),
            format_version: FORMAT_VERSION,
            tokenizer: None,
            mxdna: Some(mxdna.clone()),
            letters,
            pretrained: None,
            window,
            finetuned: None,
        }
    }

    /// Reads the config of a folder, and nothing else.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn load(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(CONFIG);
        if !folder.is_dir() {
            return Err(FolderError::Io {
                path: folder.to_owned(),
                source: std::io::Error::other(if folder.exists() {
                    "is a file, not the folder of a model"
                } else {
                    "there is no such folder"
                }),
            });
        }
        if !path.exists() {
            let hint = if folder.join("checkpoint").is_dir() { UNFINISHED } else { "" };
            return Err(FolderError::NoModel { folder: folder.to_owned(), missing: CONFIG, hint });
        }
        let text =
            bounded::read_text(&path, MOST_CONFIG).map_err(|source| FolderError::Io { path: path.clone(), source })?;
        let wrong = |reason: String| FolderError::Config { path: path.clone(), reason };
        let value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        if value.get("model_type").and_then(Value::as_str) != Some("vqdna") {
            return Err(wrong("`model_type` is not `vqdna`".to_owned()));
        }
        // Before anything else, because the fields of a newer format are unknown here.
        match value.get("format_version").and_then(Value::as_u64) {
            None => return Err(wrong("`format_version` is missing or no number".to_owned())),
            Some(0) => return Err(wrong("`format_version` is 0, but versions count from 1".to_owned())),
            Some(found) if found > FORMAT_VERSION => return Err(FolderError::Newer { path, found }),
            Some(_) => {}
        }
        if let Some(field) = controlled(&value) {
            let field = field.escape_debug();
            return Err(wrong(format!("field `{field}` holds a control character, such as a tab or a line end")));
        }
        let config: Self = serde_path_to_error::deserialize(value)
            .map_err(|e| wrong(format!("field `{}`: {}", e.path(), e.inner())))?;
        match (&config.tokenizer, &config.mxdna) {
            (Some(tokenizer), None) => {
                tokenizer.check().map_err(|source| FolderError::Network { path: path.clone(), source })?;
            }
            (None, Some(mxdna)) => mxdna.check().map_err(|source| FolderError::Mxdna { path: path.clone(), source })?,
            _ => return Err(wrong("there must be either `tokenizer` or `mxdna`".to_owned())),
        }
        if let Some(pretrained) = &config.pretrained {
            pretrained.backbone.check().map_err(|source| FolderError::Backbone { path: path.clone(), source })?;
            let tokenizer = config.tokenizer.as_ref();
            let tokenizer = tokenizer.ok_or_else(|| wrong("`pretrained` needs `tokenizer`".to_owned()))?;
            let (found, expected) = (&pretrained.codebook_sizes, tokenizer.quantizer.codebook_sizes());
            if *found != expected {
                let field = "`pretrained.codebook_sizes`";
                return Err(wrong(format!("{field} is {found:?}, but `tokenizer.quantizer` has {expected:?}")));
            }
        }
        if let Some(finetuned) = &config.finetuned {
            if let Some(backbone) = &finetuned.backbone {
                backbone.check().map_err(|source| FolderError::Backbone { path: path.clone(), source })?;
            }
            if finetuned.vocabulary.is_some() != config.tokenizer.is_some() {
                return Err(wrong("there must be both `finetuned.vocabulary` and `tokenizer`, or none".to_owned()));
            }
            finetuned.check().map_err(wrong)?;
        }
        if config.window.is_some_and(|window| !(1..=MOST_WINDOW).contains(&window)) {
            return Err(wrong(format!("`window` must be 1 to {MOST_WINDOW}")));
        }
        Ok(config)
    }

    /// The encoder over codes of a model that was pre-trained or fine-tuned; none in others.
    #[must_use]
    pub fn backbone(&self) -> Option<&TransformerConfig> {
        let pretrained = self.pretrained.as_ref().map(|pretrained| &pretrained.backbone);
        pretrained.or(self.finetuned.as_ref().and_then(|finetuned| finetuned.backbone.as_ref()))
    }

    /// What a folder with this config holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.finetuned, &self.pretrained, &self.mxdna) {
            (Some(_), _, _) => Kind::Finetuned,
            (None, Some(_), _) | (None, None, Some(_)) => Kind::Pretrained,
            (None, None, None) => Kind::Vocabulary,
        }
    }

    /// The network of the vocabulary.
    ///
    /// # Errors
    /// If the model cuts sequences itself.
    pub fn tokenizer(&self, folder: &Path) -> Result<&VqdnaConfig, FolderError> {
        self.tokenizer.as_ref().ok_or_else(|| FolderError::NoVocabulary { folder: folder.to_owned() })
    }

    /// Refuses a folder that holds anything but `needed`.
    ///
    /// # Errors
    /// If it does.
    pub fn require(&self, needed: Kind, folder: &Path) -> Result<(), FolderError> {
        if self.kind() == needed { Ok(()) } else { Err(self.other_than(needed, folder)) }
    }

    pub(crate) fn other_than(&self, needed: Kind, folder: &Path) -> FolderError {
        FolderError::OtherKind { folder: folder.to_owned(), found: self.kind(), needed }
    }
}
