//! Settings of stage 3, and what of them a base can take.

use serde::{Deserialize, Serialize};
use vqdna_data::labelled::Options;
use vqdna_data::segment::Policy;

use crate::backbone::BackboneConfig;
use crate::head::sequence::{HeadKind, SequenceHeadConfig};
use crate::layers::lora::LoraConfig;
use crate::model_dir::ModelConfig;
use crate::run::config::{ConfigError, StageConfig, check_train, require};
use crate::run::stage::StageError;
use crate::train::TrainConfig;
use crate::train::optimizer::AdamwConfig;
use crate::train::schedule::{Decay, ScheduleConfig};
use crate::train::selection::SelectionConfig;

/// What learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Low-rank adapters beside the weights of the encoder, and the head.
    #[default]
    Lora,
    /// Encoder and head.
    Full,
    /// A linear layer over pooled hidden states, which are computed once.
    Probe,
}

/// How much the rows of a class, or the positive side of a label, count in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// As many as there are.
    #[default]
    None,
    /// As much as those of any other.
    Balanced,
}

/// Which strand a sequence is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReverseComplement {
    /// The given one.
    #[default]
    None,
    /// In training either, drawn for each batch; afterwards the given one.
    Augment,
    /// In training either; afterwards both, and outputs are their mean.
    Average,
}

/// Everything that a run of `finetune` depends on, but its model and its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneConfig {
    /// The one seed, from which all others are derived.
    pub seed: u64,
    /// What learns.
    pub mode: Mode,
    /// How the data set is read.
    pub data: Options,
    /// Which strand a sequence is read from.
    pub reverse_complement: ReverseComplement,
    /// How much classes count.
    pub class_weights: ClassWeights,
    /// How often the training set is seen, if `train.steps` is 0.
    pub epochs: f64,
    /// Most steps that epochs may take; 0 for as many as they do.
    pub most_steps: u64,
    /// A fresh encoder, over a vocabulary that has none or instead of the one that was pre-trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneConfig>,
    /// Weight in the loss of what the encoder adds: the load-balancing loss of experts.
    pub balance: f64,
    /// Adapters, where they learn.
    pub lora: LoraConfig,
    /// Whether adapters stay beside the weights in the folder, rather than folded into them.
    pub keep_adapters: bool,
    /// The head.
    pub head: SequenceHeadConfig,
    /// Which evaluation on `dev` is kept.
    pub selection: SelectionConfig,
    /// The loop; with 0 steps, `epochs` says how many.
    pub train: TrainConfig,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        Self::of_mode(Mode::default())
    }
}

impl FinetuneConfig {
    /// The defaults of a mode.
    ///
    /// Batch, warm-up, decay and weight decay are those with which DNABERT-2 was fine-tuned on GUE; encoders as small as ours
    /// learn faster with a higher rate.
    #[must_use]
    pub fn of_mode(mode: Mode) -> Self {
        let rate = match mode {
            Mode::Lora => 1e-3,
            Mode::Full => 2e-4,
            Mode::Probe => 1e-2,
        };
        let schedule = ScheduleConfig { rate, warmup: 0.06, decay: Decay::Linear, ..ScheduleConfig::default() };
        let train = TrainConfig {
            steps: 0,
            batch: 32,
            schedule,
            optimizer: AdamwConfig { weight_decay: 0.01, ..AdamwConfig::default() },
            log_every: 20,
            evaluate_every: 100,
            checkpoint_every: 0,
            ..TrainConfig::default()
        };
        let head = match mode {
            Mode::Probe => SequenceHeadConfig { kind: HeadKind::Linear, ..SequenceHeadConfig::default() },
            Mode::Lora | Mode::Full => SequenceHeadConfig { dropout: 0.1, ..SequenceHeadConfig::default() },
        };
        Self {
            seed: 42,
            mode,
            data: Options::default(),
            reverse_complement: ReverseComplement::default(),
            class_weights: ClassWeights::default(),
            epochs: 4.0,
            most_steps: 0,
            backbone: None,
            balance: 0.01,
            lora: LoraConfig::default(),
            keep_adapters: false,
            head,
            selection: SelectionConfig::default(),
            train,
        }
    }

    /// What becomes of letters: as these settings say, or else as in the model.
    #[must_use]
    pub fn letters(&self, base: &ModelConfig) -> Policy {
        self.data.letters.over(base.letters)
    }

    /// Refuses a model that has not what the mode needs.
    ///
    /// # Errors
    /// If it has no encoder, and one is needed, or if adapters have no place in the encoder.
    pub fn fits(&self, base: &ModelConfig) -> Result<(), StageError> {
        match self.backbone.as_ref().or(base.backbone.as_ref()) {
            Some(network) if self.mode == Mode::Lora && !network.takes_adapters() => Err(StageError::NoAdapters),
            None if self.mode != Mode::Probe || base.tokenizer.learned().is_none() => Err(StageError::NoEncoder),
            _ => Ok(()),
        }
    }

    /// The loop, with as many steps as the epochs over so many rows take.
    #[must_use]
    pub fn training(&self, rows: usize) -> TrainConfig {
        let per_epoch = rows.div_ceil(self.train.batch) as u64;
        let micro_batches = (self.epochs * per_epoch as f64).ceil() as u64;
        let steps = match self.train.steps {
            0 => {
                let steps = micro_batches.div_ceil(self.train.accumulate).max(1);
                if self.most_steps == 0 { steps } else { steps.min(self.most_steps) }
            }
            steps => steps,
        };
        let evaluate_every = if self.train.evaluate_every == 0 { 0 } else { self.train.evaluate_every.min(steps) };
        TrainConfig { steps, evaluate_every, ..self.train.clone() }
    }
}

impl StageConfig for FinetuneConfig {
    /// `mxdna` was the encoder of that name before it was a kind of `backbone`.
    const FORMER: &'static [[&'static str; 3]] = &[["mxdna", "backbone", "mxdna"]];
    const KINDS: &'static [[&'static str; 2]] = &[["backbone", "stack"]];

    fn seed(&self) -> u64 {
        self.seed
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some(backbone) = &self.backbone {
            backbone.check()?;
        }
        require(self.balance >= 0.0 && self.balance.is_finite(), "balance", "0 or more")?;
        self.lora.check()?;
        self.head.check()?;
        require(self.epochs > 0.0 && self.epochs.is_finite(), "epochs", "above 0")?;
        let linear = self.head.kind == HeadKind::Linear;
        require(self.mode != Mode::Probe || linear, "head.kind", "`linear` for a probe")?;
        let mut train = self.train.clone();
        train.steps = train.steps.max(train.schedule.warmup_steps.unwrap_or(1)).max(1);
        check_train(&train)
    }

    fn essence(&self) -> Self {
        let mut essence = self.clone();
        essence.train.recompute = false;
        essence
    }
}
