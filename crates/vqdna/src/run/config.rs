//! The configuration of a run: defaults of a preset, then a TOML file, then single fields, then checked as a whole.
//!
//! Each stage has a config of its own, beside what it does; this file holds what they share.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use vqdna_data::segment::Policy;
use vqdna_data::span::StrandPolicy;
use vqdna_data::split::{SplitError, SplitPolicy};
use vqdna_data::window::Windowing;

use super::changes::{Changes, Origin};
use crate::backbone::BackboneConfigError;
use crate::head::sequence::SequenceHeadConfigError;
use crate::layers::lora::LoraConfigError;
use crate::objective::ObjectiveConfig;
use crate::tokenizer::TokenizerConfigError;
use crate::train::TrainConfig;

/// Everything that a run of one stage depends on, but its inputs.
pub trait StageConfig: Clone + Serialize + DeserializeOwned {
    /// Fields that were a choice of another one: the former name, the present one, and the kind that it was.
    const FORMER: &'static [[&'static str; 3]] = &[];

    /// Fields that may be absent, and the kind that they are of where a change names none.
    const KINDS: &'static [[&'static str; 2]] = &[];

    /// A field that changes may not touch, and why.
    fn settled(&self) -> Option<[&'static str; 2]> {
        None
    }

    /// The one seed, from which all others are derived.
    fn seed(&self) -> u64;

    /// The loop.
    fn train(&self) -> &TrainConfig;

    /// Checks everything that spans fields. After this, a run fails on its data only.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    fn check(&self) -> Result<(), ConfigError>;

    /// The config without what changes no bit of a result. A run goes on with another config of the same essence.
    #[must_use]
    fn essence(&self) -> Self;

    /// This config with the fields of a TOML file, then with single assignments `path.to.field=value`.
    ///
    /// # Errors
    /// If the file cannot be read, or a field is unknown or of another type; see [`ConfigError::From`].
    fn with_changes(&self, file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        Changes::read(file, assignments)?.renamed(Self::FORMER).apply(self)
    }

    /// As [`StageConfig::with_changes`], checked.
    ///
    /// # Errors
    /// Those of [`StageConfig::with_changes`] and [`StageConfig::check`].
    fn resolve(&self, file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        let changes = Changes::read(file, assignments)?.renamed(Self::FORMER);
        let config = changes.apply(self)?;
        config.check().map_err(|error| changes.blame(error))?;
        Ok(config)
    }
}

/// Everything that a run of a stage depends on that learns from windows of a corpus.
pub trait CorpusConfig: StageConfig {
    /// What becomes of letters, and which windows are seen.
    fn data(&self) -> &DataConfig;
}

/// From records to windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Ambiguous letters and soft-masked bases.
    pub letters: Policy,
    /// Weight of soft-masked bases in the loss; others weigh 1.
    pub soft_masked_weight: f32,
    /// Which strand a training window is read from.
    pub strand: StrandPolicy,
    /// Bases of a window.
    pub length: usize,
    /// Bases from the start of a window to that of the next; the length if 0.
    pub stride: usize,
    /// Which windows are held out.
    pub split: SplitPolicy,
    /// Bases kept in memory, in millions; beyond, they go to a temporary file.
    pub memory_megabases: u64,
    /// Where codes come from, in a stage that learns from codes; none in one that learns from bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<CodesFrom>,
}

/// Where the codes of a window come from. They are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodesFrom {
    /// From a file in the run's folder, computed before the first step.
    #[default]
    Cached,
    /// From the window and its neighbourhood, each time it is seen.
    OnTheFly,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            letters: Policy::default(),
            soft_masked_weight: 1.0,
            strand: StrandPolicy::Random,
            length: 512,
            stride: 0,
            split: SplitPolicy::default(),
            memory_megabases: 2000,
            codes: None,
        }
    }
}

impl DataConfig {
    /// Windows as the data crate cuts them.
    #[must_use]
    pub fn windowing(&self) -> Windowing {
        let stride = if self.stride == 0 { self.length } else { self.stride };
        Windowing { length: self.length, stride, halo: 0 }
    }
}

/// A config that cannot be used; each message names the file or the field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        reason: String,
    },
    /// An assignment without `=`.
    #[error("`--set {0}`: expected `field=value`, such as `train.steps=100`")]
    Assignment(String),
    /// Any of the others, with where the setting came from.
    #[error("{}{error}", origin.prefix())]
    From {
        /// Where.
        origin: Origin,
        /// What is wrong with it.
        error: Box<ConfigError>,
    },
    /// A field that does not exist, or a value of another type.
    #[error("config field `{field}`: {reason}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field that cannot be set.
    #[error("config field `{field}` is {reason}")]
    Settled {
        /// Name of the field.
        field: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A contradiction in a tokenizer.
    #[error("config: {0}")]
    Tokenizer(#[from] TokenizerConfigError),
    /// A contradiction in an encoder.
    #[error("config: {0}")]
    Backbone(#[from] BackboneConfigError),
    /// Adapters that cannot be.
    #[error("config: {0}")]
    Lora(#[from] LoraConfigError),
    /// A head that cannot be.
    #[error("config: {0}")]
    Head(#[from] SequenceHeadConfigError),
    /// Shares of a split that cannot be.
    #[error("config field `data.split`: {0}")]
    Split(SplitError),
    /// A number outside its range, or two fields that contradict each other.
    #[error("config field `{field}` must be {must}")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// What it may be.
        must: &'static str,
    },
}

/// Windows and bases beyond which a config is refused (sanity limit).
const MOST: usize = 1 << 24;

/// An error that names the field unless `holds`.
pub(super) fn require(holds: bool, field: &'static str, must: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Range { field, must }) }
}

/// Whether a number is a share.
pub(super) fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

/// Checks the fields of `data`.
pub(super) fn check_data(data: &DataConfig) -> Result<(), ConfigError> {
    require(data.length > 0, "data.length", "at least 1")?;
    require(data.length <= MOST, "data.length", "at most 16777216")?;
    require(data.stride <= data.length, "data.stride", "at most `data.length`, or bases would be skipped")?;
    let overlap = data.stride != 0 && data.stride < data.length;
    let hashed = matches!(data.split, SplitPolicy::Hash { valid, test } if valid + test > 0.0);
    require(
        !(overlap && hashed),
        "data.stride",
        "`data.length` when windows are split by hash, or held-out windows would share bases with training windows; \
         use `data.split.kind = \"contig\"`",
    )?;
    require(
        data.soft_masked_weight >= 0.0 && data.soft_masked_weight.is_finite(),
        "data.soft_masked_weight",
        "0 or more",
    )?;
    if let SplitPolicy::Hash { .. } = data.split {
        // Shares need no contigs to be checked against.
        data.split.check([]).map_err(ConfigError::Split)?;
    }
    Ok(())
}

/// Checks the fields of `objective`, and those of `data` that it depends on.
pub(super) fn check_objective(objective: &ObjectiveConfig, data: &DataConfig) -> Result<(), ConfigError> {
    let weight = data.soft_masked_weight;
    require(weight == 0.0 || weight == 1.0, "data.soft_masked_weight", "1, or 0 to never predict soft-masked bases")?;
    let ObjectiveConfig::Masked(masking) = objective else { return Ok(()) };
    require(masking.share > 0.0 && masking.share < 1.0, "objective.share", "above 0 and below 1")?;
    require(masking.span > 0, "objective.span", "at least 1")?;
    require(masking.span <= data.length, "objective.span", "at most `data.length`")?;
    require(is_share(masking.replaced), "objective.replaced", "a share of the masked bases, 0 to 1")?;
    require(is_share(masking.random), "objective.random", "a share of the masked bases, 0 to 1")?;
    let shown = masking.replaced + masking.random;
    require(shown <= 1.0, "objective.random", "at most 1 together with `objective.replaced`")
}

/// Checks the fields of `train`.
pub(super) fn check_train(train: &TrainConfig) -> Result<(), ConfigError> {
    require(train.steps > 0, "train.steps", "at least 1")?;
    require(train.batch > 0, "train.batch", "at least 1")?;
    require(train.batch <= MOST, "train.batch", "at most 16777216")?;
    require(train.accumulate > 0, "train.accumulate", "at least 1")?;
    let schedule = &train.schedule;
    require(schedule.rate > 0.0 && schedule.rate.is_finite(), "train.schedule.rate", "above 0")?;
    require(is_share(schedule.warmup), "train.schedule.warmup", "a share of the steps, 0 to 1")?;
    let fits = schedule.warmup_steps.is_none_or(|steps| steps <= train.steps);
    require(fits, "train.schedule.warmup_steps", "at most `train.steps`")?;
    require(is_share(schedule.floor), "train.schedule.floor", "a share of the rate, 0 to 1")?;
    let optimizer = &train.optimizer;
    require((0.0..1.0).contains(&optimizer.beta1), "train.optimizer.beta1", "at least 0 and below 1")?;
    require((0.0..1.0).contains(&optimizer.beta2), "train.optimizer.beta2", "at least 0 and below 1")?;
    require(optimizer.eps > 0.0 && optimizer.eps.is_finite(), "train.optimizer.eps", "above 0")?;
    require(
        optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite(),
        "train.optimizer.weight_decay",
        "0 or more",
    )?;
    require(optimizer.clip >= 0.0, "train.optimizer.clip", "0 or more")?;
    require(is_share(train.usage_alarm), "train.usage_alarm", "a share of the codes, 0 to 1")
}
