//! Learning tasks: which parts a task joins, its loss, what it does after a step and what it reports. The loop in
//! [`crate::train`] knows nothing else of a task.

pub mod masked;
pub mod masking;
pub mod next;
pub mod reconstruct;
pub mod supervised;

use burn::module::Module;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneConfig, BackboneConfigError};
use crate::batch::TokenWindows;
use crate::model::LanguageModel;
use crate::tokenizer::{Tokenizer, TokenizerConfig};
use masked::MaskedTokens;
use masking::MaskingConfig;
use next::{NextConfig, NextTokens};

/// One forward pass.
#[derive(Clone, Debug)]
pub struct Outcome<C> {
    /// What is minimised, `[1]`.
    pub loss: Tensor<1>,
    /// Named parts for the log, `[1]` each, outside the graph.
    pub parts: Vec<(String, Tensor<1>)>,
    /// What [`Objective::after_step`] needs of this pass.
    pub carry: C,
}

/// Named numbers, in the order in which they are shown.
pub type Measures = Vec<(String, f64)>;

/// A learning task.
pub trait Objective {
    /// What learns.
    type Model: Module;
    /// What a step is made of.
    type Batch;
    /// What a forward pass leaves for [`Objective::after_step`].
    type Carry;

    /// Sets what is drawn from data before the first step; `batches` are the first micro-batches of training, of which
    /// `micro_batches` make a step. Once `go_on` says no, the model is not wanted, and it ends soon.
    fn start(
        &self,
        model: Self::Model,
        batches: &mut dyn Iterator<Item = Self::Batch>,
        micro_batches: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Self::Model {
        let _ = (batches, micro_batches, go_on);
        model
    }

    /// Loss of one micro-batch.
    fn forward(&self, model: &Self::Model, batch: &Self::Batch) -> Outcome<Self::Carry>;

    /// Changes outside the optimiser (codebooks), once per step, with the carries of its micro-batches.
    fn after_step(&self, model: Self::Model, carries: Vec<Self::Carry>, step: u64) -> Self::Model {
        let _ = (carries, step);
        model
    }

    /// What can be read off the model at a step without data.
    fn observe(&self, model: &Self::Model) -> Measures {
        let _ = model;
        Measures::new()
    }

    /// Measures on held-out batches; `model` is without autodiff.
    fn evaluate(&self, model: &Self::Model, batches: &mut dyn Iterator<Item = Self::Batch>) -> Measures;
}

/// What an encoder is pre-trained by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ObjectiveConfig {
    /// Masked tokens are predicted from those around them.
    Masked(MaskingConfig),
    /// Each token is predicted from those before it.
    Next(NextConfig),
}

/// What a [`LanguageObjective`] depends on besides its config.
#[derive(Clone, Copy, Debug)]
pub struct Over<'a> {
    /// The tokenizer of the windows, as a config.
    pub named: &'a TokenizerConfig,
    /// The same in use, without autodiff.
    pub tokenizer: &'a Tokenizer,
    /// Adjacent tokens that are one position of the model.
    pub pool: usize,
    /// Weight in the loss of what the encoder adds.
    pub balance: f64,
    /// The run's seed.
    pub seed: u64,
}

impl ObjectiveConfig {
    /// Expected share of the tokens of a window that are predicted.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self {
            Self::Masked(masking) => masking.share,
            Self::Next(_) => 1.0,
        }
    }

    /// What a model is named after that was trained so, as Hugging Face has it.
    #[must_use]
    pub fn suffix(&self) -> &'static str {
        match self {
            Self::Masked(_) => "MaskedLM",
            Self::Next(_) => "CausalLM",
        }
    }

    /// The encoder as this objective needs it.
    ///
    /// # Errors
    /// If the encoder has no such form.
    pub fn encoder(&self, backbone: &BackboneConfig) -> Result<BackboneConfig, BackboneConfigError> {
        match self {
            Self::Masked(_) => Ok(backbone.clone()),
            Self::Next(_) => backbone.causal(),
        }
    }

    /// Its tag on a model card.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Masked(_) => "masked-lm",
            Self::Next(_) => "causal-lm",
        }
    }

    /// What it predicts, for people.
    #[must_use]
    pub fn described(&self) -> &'static str {
        match self {
            Self::Masked(_) => "masked tokens",
            Self::Next(_) => "each token from those before it",
        }
    }

    /// The objective itself.
    #[must_use]
    pub fn over<'a>(&self, over: Over<'a>) -> LanguageObjective<'a> {
        match self {
            Self::Masked(masking) => LanguageObjective::Masked(MaskedTokens::new(masking.clone(), over)),
            Self::Next(_) => LanguageObjective::Next(NextTokens::new(over)),
        }
    }
}

/// What a [`LanguageModel`] learns by: one variant for each of [`ObjectiveConfig`].
#[derive(Debug)]
pub enum LanguageObjective<'a> {
    /// See [`MaskedTokens`].
    Masked(MaskedTokens<'a>),
    /// See [`NextTokens`].
    Next(NextTokens<'a>),
}

impl Objective for LanguageObjective<'_> {
    type Model = LanguageModel;
    type Batch = TokenWindows;
    type Carry = ();

    fn forward(&self, model: &LanguageModel, batch: &TokenWindows) -> Outcome<()> {
        match self {
            Self::Masked(masked) => masked.forward(model, batch),
            Self::Next(next) => next.forward(model, batch),
        }
    }

    fn evaluate(&self, model: &LanguageModel, batches: &mut dyn Iterator<Item = TokenWindows>) -> Measures {
        match self {
            Self::Masked(masked) => masked.evaluate(model, batches),
            Self::Next(next) => next.evaluate(model, batches),
        }
    }
}
