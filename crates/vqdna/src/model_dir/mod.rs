//! The folder of a model: `config.json`, `model.safetensors`, `run.json`, `README.md`, and over a fixed tokenizer `tokenizer.json`, which
//! Hugging Face's library reads. It can be moved and holds everything that the
//! model needs.
//!
//! What it holds follows from the sections of its config: see [`Kind`]. There is one loader, [`Model`]; folders of older formats are
//! read by `legacy`.

mod card;
mod files;
pub mod import;
mod legacy;
mod model;
mod size;
mod task;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use vqdna_data::bounded;
use vqdna_data::segment::Policy;

use crate::backbone::{BackboneConfig, BackboneConfigError};
use crate::objective::ObjectiveConfig;
use crate::tokenizer::vqdna::VqdnaConfig;
use crate::tokenizer::{TokenizerConfig, TokenizerConfigError};
use crate::weights::WeightError;

use files::{CONFIG, MOST_CONFIG, UNFINISHED, controlled, digest_of, misfit, read_weights, write_folder};

pub use card::{Manifest, measures_json};
pub use files::{digest, manifest, save};
pub use model::{Model, Network, Vocabulary, publish, publish_finetuned};
pub use task::TaskConfig;

/// The `format_version` of `config.json` that this program writes, and the newest that it reads. Version 4 has one tokenizer and one
/// encoder, each of a kind that is named.
pub const FORMAT_VERSION: u64 = 4;

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
    /// What turns bases into tokens.
    pub tokenizer: TokenizerConfig,
    /// Digest of the vocabulary that the model was made over: BLAKE3 of the `model.safetensors` that `learn` wrote. Files of codes name it.
    /// None in a vocabulary, and over a tokenizer that was not learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
    /// What became of letters when it learned, and becomes of them when it is used.
    pub letters: Policy,
    /// The encoder over tokens; none in a vocabulary, and in a probe of its vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneConfig>,
    /// Bases of a window of pre-training, which is what a pre-trained encoder sees together best. None in a vocabulary, and in folders of
    /// version 2 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// What the encoder was pre-trained by; none if it was not, or if it was fine-tuned since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveConfig>,
    /// What was fine-tuned, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskConfig>,
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tokenizer.
    Vocabulary,
    /// A tokenizer, an encoder over its tokens and a head that predicts them.
    Pretrained,
    /// A tokenizer, an encoder and a head of a task.
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
    /// A tokenizer that contradicts itself.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: TokenizerConfigError,
    },
    /// An encoder that contradicts itself.
    #[error("{}: {source}", path.display())]
    Backbone {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: BackboneConfigError,
    },
    /// A model without codes where they are needed.
    #[error("{} holds a model over a fixed tokenizer: it has no vocabulary and no codes", folder.display())]
    NoVocabulary {
        /// The folder.
        folder: PathBuf,
    },
    /// A model that forms no units where one is needed that does.
    #[error("{} holds {found} that forms no units, but an MxDNA model is needed here, as `vqdna pretrain --tokenizer mxdna` makes it", folder.display())]
    NoUnits {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        found: Kind,
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

/// Name of the network of an encoder.
fn network(backbone: &BackboneConfig) -> &'static str {
    if backbone.forms_units() { "Mxdna" } else { "Vqdna" }
}

impl ModelConfig {
    /// The config of a vocabulary.
    #[must_use]
    pub fn new(tokenizer: impl Into<TokenizerConfig>, letters: Policy) -> Self {
        Self {
            architectures: vec!["Vqdna".to_owned()],
            model_type: "vqdna".to_owned(),
            format_version: FORMAT_VERSION,
            tokenizer: tokenizer.into(),
            vocabulary: None,
            letters,
            backbone: None,
            window: None,
            objective: None,
            task: None,
        }
    }

    /// The config of a model that was pre-trained over a tokenizer, which `vocabulary` names if it was learned, on windows of `window`
    /// bases, none if nobody knows.
    #[must_use]
    pub fn of_pretrained(
        tokenizer: impl Into<TokenizerConfig>,
        vocabulary: Option<String>,
        letters: Policy,
        backbone: BackboneConfig,
        objective: ObjectiveConfig,
        window: Option<usize>,
    ) -> Self {
        Self {
            architectures: vec![format!("{}For{}", network(&backbone), objective.suffix())],
            vocabulary,
            backbone: Some(backbone),
            window,
            objective: Some(objective),
            ..Self::new(tokenizer, letters)
        }
    }

    /// The config of a model that was fine-tuned from `base`, whose digest `base` names if it is a vocabulary, with this encoder.
    #[must_use]
    pub fn of_finetuned(
        base: &Self,
        vocabulary: Option<String>,
        backbone: Option<BackboneConfig>,
        task: TaskConfig,
    ) -> Self {
        let named = backbone.as_ref().map_or("Vqdna", network);
        let architectures = vec![format!("{named}ForSequenceClassification")];
        let (format_version, task) = (FORMAT_VERSION, Some(task));
        Self { architectures, format_version, vocabulary, backbone, objective: None, task, ..base.clone() }
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
        let mut config = match value.get("format_version").and_then(Value::as_u64) {
            Some(version) if version < FORMAT_VERSION => legacy::read(value).map_err(wrong)?,
            _ => serde_path_to_error::deserialize::<_, Self>(value)
                .map_err(|e| wrong(format!("field `{}`: {}", e.path(), e.inner())))?,
        };
        config.tokenizer = config.tokenizer.within(Some(folder));
        config.tokenizer.check().map_err(|source| FolderError::Tokenizer { path: path.clone(), source })?;
        if let Some(backbone) = &config.backbone {
            backbone.check().map_err(|source| FolderError::Backbone { path: path.clone(), source })?;
        }
        config.check_sections().map_err(wrong)?;
        Ok(config)
    }

    /// Checks what spans sections; says what is wrong.
    fn check_sections(&self) -> Result<(), String> {
        let (is_learned, is_made_over) = (self.tokenizer.learned().is_some(), self.kind() != Kind::Vocabulary);
        if is_made_over && self.vocabulary.is_some() != is_learned {
            return Err("`vocabulary` must name the tokenizer if that was learned, and only then".to_owned());
        }
        if !is_learned && self.backbone.is_none() {
            return Err("`backbone` is missing: this tokenizer has no vectors of its own".to_owned());
        }
        if self.task.is_none() && self.objective.is_some() != self.backbone.is_some() {
            return Err("there must be both `objective` and `backbone`, or none".to_owned());
        }
        if self.window.is_some_and(|window| !(1..=MOST_WINDOW).contains(&window)) {
            return Err(format!("`window` must be 1 to {MOST_WINDOW}"));
        }
        match &self.task {
            Some(task) => task.check(),
            None => Ok(()),
        }
    }

    /// What a folder with this config holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.task, &self.backbone) {
            (Some(_), _) => Kind::Finetuned,
            (None, Some(_)) => Kind::Pretrained,
            (None, None) => Kind::Vocabulary,
        }
    }

    /// The network of the vocabulary.
    ///
    /// # Errors
    /// If the tokenizer was not learned.
    pub fn learned(&self, folder: &Path) -> Result<&VqdnaConfig, FolderError> {
        self.tokenizer.learned().ok_or_else(|| FolderError::NoVocabulary { folder: folder.to_owned() })
    }

    /// Bases that it is best to see together: of the longest sequence that a fine-tuned model learned from, or of a window of
    /// pre-training. None in particular for a vocabulary, and in older folders.
    #[must_use]
    pub fn best_window(&self) -> Option<usize> {
        self.task.as_ref().map(|task| task.window).or(self.window)
    }

    /// Whether its encoder forms units.
    #[must_use]
    pub fn forms_units(&self) -> bool {
        self.backbone.as_ref().is_some_and(BackboneConfig::forms_units)
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
