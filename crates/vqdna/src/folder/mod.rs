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
mod finetuned;
pub mod import;
mod mxdna;
mod pretrained;
mod vocabulary;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use vqdna_data::aside::write_aside;
use vqdna_data::segment::Policy;

use crate::backbone::transformer::{TransformerConfig, TransformerConfigError};
use crate::tokenizer::mxdna::{MxdnaConfig, MxdnaConfigError};
use crate::tokenizer::vqdna::{VqdnaConfig, VqdnaConfigError};
use crate::weights::{self, Arrays, WeightError};

pub use card::{Manifest, measures_json};
pub use finetuned::{Finetuned, FinetunedConfig, publish as publish_finetuned};
pub use mxdna::{PretrainedMxdna, publish as publish_mxdna};
pub use pretrained::{Pretrained, PretrainedConfig, publish};
pub use vocabulary::Vocabulary;

/// The newest `format_version` of `config.json` that this program reads. Version 2 knows models that cut sequences themselves; folders of
/// others are written as version 1, which older programs read.
pub const FORMAT_VERSION: u64 = 2;

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
    /// What became of letters when it learned, and becomes of them when it tokenizes. A model that cuts sequences itself reads what is no
    /// certain base as N then.
    pub letters: Policy,
    /// What was pre-trained; none in a vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PretrainedConfig>,
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

const UNFINISHED: &str = ". If a run was interrupted there, finish it with its command and `--resume`";

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

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
            finetuned: None,
        }
    }

    /// The config of a model that was fine-tuned over the vocabulary of `base`, or from a model that cuts sequences itself.
    #[must_use]
    pub fn of_finetuned(base: &Self, finetuned: FinetunedConfig) -> Self {
        let network = if base.mxdna.is_some() { "Mxdna" } else { "Vqdna" };
        let architectures = vec![format!("{network}ForSequenceClassification")];
        Self { architectures, finetuned: Some(finetuned), pretrained: None, ..base.clone() }
    }

    /// The config of a model that was pre-trained over a vocabulary.
    #[must_use]
    pub fn of_pretrained(tokenizer: &VqdnaConfig, letters: Policy, pretrained: PretrainedConfig) -> Self {
        let architectures = vec!["VqdnaForMaskedLM".to_owned()];
        Self { architectures, pretrained: Some(pretrained), ..Self::new(tokenizer, letters) }
    }

    /// The config of a pre-trained model that cuts sequences itself.
    #[must_use]
    pub fn of_mxdna(mxdna: &MxdnaConfig, letters: Policy) -> Self {
        Self {
            architectures: vec!["MxdnaForMaskedLM".to_owned()],
            model_type: "vqdna".to_owned(),
            format_version: FORMAT_VERSION,
            tokenizer: None,
            mxdna: Some(mxdna.clone()),
            letters,
            pretrained: None,
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
                source: std::io::Error::other("there is no such folder"),
            });
        }
        if !path.is_file() {
            let hint = if folder.join("checkpoint").is_dir() { UNFINISHED } else { "" };
            return Err(FolderError::NoModel { folder: folder.to_owned(), missing: CONFIG, hint });
        }
        let text = std::fs::read_to_string(&path).map_err(|source| FolderError::Io { path: path.clone(), source })?;
        let wrong = |reason: String| FolderError::Config { path: path.clone(), reason };
        let value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        if value.get("model_type").and_then(Value::as_str) != Some("vqdna") {
            return Err(wrong("`model_type` is not `vqdna`".to_owned()));
        }
        // Before anything else, because the fields of a newer format are unknown here.
        match value.get("format_version").and_then(Value::as_u64) {
            None => return Err(wrong("`format_version` is missing or no number".to_owned())),
            Some(found) if found > FORMAT_VERSION => return Err(FolderError::Newer { path, found }),
            Some(_) => {}
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

/// The weights of a folder, or those whose names begin with `prefix`.
fn read_weights(folder: &Path, prefix: &str) -> Result<Arrays, FolderError> {
    let path = folder.join(WEIGHTS);
    if !path.is_file() {
        return Err(FolderError::NoModel { folder: folder.to_owned(), missing: WEIGHTS, hint: UNFINISHED });
    }
    let read = weights::read_named(&path, |name| name.starts_with(prefix));
    read.map(|(arrays, _)| arrays).map_err(|source| FolderError::Weights { path, source })
}

/// BLAKE3 of the weights of a folder, which names its model.
///
/// # Errors
/// If they cannot be read.
pub fn digest(folder: &Path) -> Result<String, FolderError> {
    digest_of(&folder.join(WEIGHTS))
}

/// BLAKE3 of a file.
fn digest_of(path: &Path) -> Result<String, FolderError> {
    let bytes = std::fs::read(path).map_err(|source| FolderError::Io { path: path.to_owned(), source })?;
    Ok(blake3::hash(&bytes).to_string())
}

/// An error of weights names the file of its folder.
fn misfit(folder: &Path) -> impl FnOnce(WeightError) -> FolderError {
    let path = folder.join(WEIGHTS);
    move |source| FolderError::Weights { path, source }
}

/// Writes a model with its manifest and card; the weights last, so that a folder with weights is whole.
///
/// # Errors
/// If a file cannot be written.
pub fn save<C: Serialize>(
    folder: &Path,
    config: &ModelConfig,
    weights: &Arrays,
    manifest: &Manifest<C>,
) -> Result<(), FolderError> {
    write_folder(folder, config, weights, manifest, &card::card(config, manifest))
}

/// Writes the files of a folder; the weights last.
fn write_folder(
    folder: &Path,
    config: &ModelConfig,
    weights: &Arrays,
    run: &impl Serialize,
    card: &str,
) -> Result<(), FolderError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        write_aside(&path, bytes).map_err(|source| FolderError::Io { path, source })
    };
    std::fs::create_dir_all(folder).map_err(|source| FolderError::Io { path: folder.to_owned(), source })?;
    write(CONFIG, &json(config))?;
    write("run.json", &json(run))?;
    write("README.md", card.as_bytes())?;
    // "pt" is what PyTorch-side readers expect to find for files with PyTorch's layouts.
    weights::write(&folder.join(WEIGHTS), weights, &[("format", "pt")]).map_err(misfit(folder))
}

/// Pretty JSON with a final line end.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("plain fields");
    (text + "\n").into_bytes()
}
