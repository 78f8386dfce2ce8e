//! Models that predict something about whole sequences.

use burn::prelude::*;
use std::ops::ControlFlow;
use vqdna_data::bucket::by_budget;

use super::embed::Embed;
use crate::backbone::{Backbone, Hidden};
use crate::batch::TokenBatch;
use crate::head::sequence::SequenceHead;
use crate::layers::Linear;
use crate::ops;
use crate::seed::Stream;
use crate::tokenizer::rows::TokenRows;
use crate::weights::{constant, to_array};

/// What turns a batch of sequences into outputs: logits of classes or labels, or standardized values.
pub trait Predictor: Module {
    /// A batch of sequences, without autodiff.
    type Input;

    /// With `dropout`, which draws what is dropped or jittered, the model has autodiff.
    fn forward(&self, input: &Self::Input, dropout: Option<&mut Stream>) -> Output;
}

/// What a model predicts of a batch.
#[derive(Clone, Debug)]
pub struct Output {
    /// `[batch, outputs]`.
    pub outputs: Tensor<2>,
    /// What training adds to its loss: see [`Hidden`].
    pub penalty: Option<Tensor<1>>,
}

/// Encoder and head.
#[derive(Module, Debug)]
pub struct SequenceModel {
    /// Tokens to vectors; without it, the head sees the vectors that the tokenizer has learned.
    pub embed: Option<Embed>,
    /// Vectors to hidden states; there if the embedding is.
    pub backbone: Option<Backbone>,
    /// Hidden states to outputs.
    pub head: SequenceHead,
}

impl SequenceModel {
    /// The pooled hidden states of each sequence, `[batch, d_model]`; no dropout.
    pub fn features(&self, batch: &TokenBatch) -> Tensor<2> {
        let Hidden { states, real, .. } = self.hidden(batch, None);
        self.head.pool(states, real)
    }

    /// Outputs of a batch, `[batch, outputs]`; no dropout.
    pub fn outputs(&self, batch: &TokenBatch) -> Tensor<2> {
        let Hidden { states, real, .. } = self.hidden(batch, None);
        self.head.forward(states, real)
    }

    /// Outputs of rows in their order, `[rows, outputs]`, computed in batches of like length; the model is without autodiff. Before each
    /// batch `poll` is asked whether to go on; none if not.
    #[must_use]
    pub fn outputs_of(
        &self,
        rows: &TokenRows,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Vec<f32>> {
        in_batches(rows, device, poll, |batch| self.outputs(batch))
    }

    /// [`SequenceModel::features`] of rows in their order, `[rows, d_model]`; `poll` as in [`SequenceModel::outputs_of`].
    #[must_use]
    pub fn features_of(
        &self,
        rows: &TokenRows,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Vec<f32>> {
        in_batches(rows, device, poll, |batch| self.features(batch))
    }

    /// The hidden states of a batch; with `jitter`, what routes positions is jittered.
    fn hidden(&self, batch: &TokenBatch, jitter: Option<&mut Stream>) -> Hidden {
        let (Some(embed), Some(backbone)) = (&self.embed, &self.backbone) else {
            let states = batch.vectors.clone().expect("vectors of learned tokens");
            return Hidden { states, real: batch.layout.real.clone(), covers: None, penalty: None };
        };
        let (x, layout) = embed.forward(batch, None);
        backbone.forward(x, &layout, jitter)
    }

    /// The model with adapters folded into its weights.
    #[must_use]
    pub fn merged(self) -> Self {
        Self { backbone: self.backbone.map(Backbone::merged), ..self }
    }
}

/// Padded positions that are computed together.
pub const POSITIONS_TOGETHER: usize = 16_384;

/// A row of numbers for each row, in their order; none if `poll` ends it.
fn in_batches(
    rows: &TokenRows,
    device: &Device,
    poll: &dyn Fn() -> ControlFlow<()>,
    compute: impl Fn(&TokenBatch) -> Tensor<2>,
) -> Option<Vec<f32>> {
    let lengths = rows.lengths();
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); lengths.len()];
    ops::with_frozen_weights(|| {
        for batch in by_budget(&lengths, POSITIONS_TOGETHER) {
            if poll().is_break() {
                return None;
            }
            let computed = compute(&rows.batch(&batch, device));
            let [_, width] = computed.dims();
            for (&row, values) in batch.iter().zip(to_array(computed).values.chunks(width)) {
                found[row as usize] = values.to_vec();
            }
        }
        Some(())
    })?;
    Some(found.concat())
}

impl Predictor for SequenceModel {
    type Input = TokenBatch;

    fn forward(&self, batch: &TokenBatch, dropout: Option<&mut Stream>) -> Output {
        let Some(random) = dropout else { return Output { outputs: self.outputs(batch), penalty: None } };
        let dropped = self.backbone.as_ref().map(|backbone| backbone.with_dropped_adapters(random));
        let model = Self { backbone: dropped, ..self.clone() };
        let Hidden { states, real, penalty, .. } = model.hidden(&batch.clone().autodiff(), Some(&mut *random));
        let pooled = self.head.pool(states, real);
        let kept = self.head.dropout_mask(pooled.dims()[0], random);
        Output { outputs: self.head.outputs(pooled, Some(kept)), penalty }
    }
}

/// A linear layer over features of a sequence: logistic or linear regression.
#[derive(Module, Debug)]
pub struct Probe {
    /// Features to outputs.
    pub classifier: Linear,
}

impl Probe {
    /// Outputs, `[batch, outputs]`, of features, `[batch, features]`.
    pub fn outputs(&self, features: Tensor<2>) -> Tensor<2> {
        self.classifier.forward(features.unsqueeze_dim(0)).squeeze_dim(0)
    }

    /// All weights 0, so that what is learned depends on the features alone.
    #[must_use]
    pub fn new(features: usize, outputs: usize, device: &Device) -> Self {
        Self {
            classifier: Linear {
                weight: constant([outputs, features], 0.0, device),
                bias: constant([outputs], 0.0, device),
            },
        }
    }
}

impl Predictor for Probe {
    /// `[batch, features]`.
    type Input = Tensor<2>;

    fn forward(&self, features: &Tensor<2>, dropout: Option<&mut Stream>) -> Output {
        let features = if dropout.is_some() { Tensor::from_inner(features.clone()) } else { features.clone() };
        Output { outputs: self.outputs(features), penalty: None }
    }
}
