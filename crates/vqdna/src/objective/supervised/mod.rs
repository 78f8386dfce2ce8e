//! Stage 3 of VQDNA: something is told about whole sequences, by an encoder that saw many others before.
//!
//! Loss: cross-entropy of classes, binary cross-entropy of labels, or squared error of standardized values, each the mean over the
//! sequences of a batch.

pub mod prediction;

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, log_softmax};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use vqdna_data::bucket::by_budget;
use vqdna_data::labelled::{Labelling, Target};
use vqdna_data::metric::{Predictions, Scores};

use super::{Measures, Objective, Outcome};
use crate::backbone::transformer::Transformer;
use crate::head::sequence::SequenceHead;
use crate::layers::Linear;
use crate::ops;
use crate::seed::{Stream, stream};
use crate::tokenizer::mxdna::Mxdna;
use crate::tokenizer::sequences::{SequenceBatch, SequenceRows};
use crate::weights::{constant, to_array};

/// What turns a batch of sequences into outputs: logits of classes or labels, or standardized values.
pub trait Predictor: Module {
    /// A batch of sequences, without autodiff.
    type Input;

    /// With `dropout`, which draws what is dropped or jittered, the model has autodiff.
    fn tell(&self, input: &Self::Input, dropout: Option<&mut Stream>) -> Told;
}

/// What a model says of a batch.
#[derive(Clone, Debug)]
pub struct Told {
    /// `[batch, outputs]`.
    pub outputs: Tensor<2>,
    /// How unevenly a model that cuts sequences itself chooses its experts, `[1]`.
    pub balance: Option<Tensor<1>>,
}

/// Encoder and head.
#[derive(Module, Debug)]
pub struct SequenceModel {
    /// Code vectors to hidden states; without it, the head sees code vectors.
    pub backbone: Option<Transformer>,
    /// Letters to hidden states, in a model that cuts sequences itself.
    pub encoder: Option<Mxdna>,
    /// Hidden states to outputs.
    pub head: SequenceHead,
}

impl SequenceModel {
    /// What stands for each sequence before the head's layers, `[batch, d_model]`; no dropout.
    pub fn features(&self, batch: &SequenceBatch) -> Tensor<2> {
        let Seen { states, real, .. } = self.hidden(batch, None);
        self.head.pool(states, real)
    }

    /// Outputs of a batch, `[batch, outputs]`; no dropout.
    pub fn outputs(&self, batch: &SequenceBatch) -> Tensor<2> {
        let Seen { states, real, .. } = self.hidden(batch, None);
        self.head.forward(states, real)
    }

    /// Outputs of rows in their order, `[rows, outputs]`, computed in batches of like length; the model is without autodiff. Before each
    /// batch `poll` is asked whether to go on; none if not.
    #[must_use]
    pub fn outputs_of(
        &self,
        rows: &SequenceRows,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Vec<f32>> {
        in_batches(rows, device, poll, |batch| self.outputs(batch))
    }

    /// [`SequenceModel::features`] of rows in their order, `[rows, d_model]`; `poll` as in [`SequenceModel::outputs_of`].
    #[must_use]
    pub fn features_of(
        &self,
        rows: &SequenceRows,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Vec<f32>> {
        in_batches(rows, device, poll, |batch| self.features(batch))
    }

    /// The hidden states of a batch; with `jitter`, what is scored is jittered.
    ///
    /// # Panics
    /// If the batch holds letters, but the model takes codes, or the other way round.
    fn hidden(&self, batch: &SequenceBatch, jitter: Option<&mut Stream>) -> Seen {
        match (batch, &self.encoder) {
            (SequenceBatch::Letters(letters), Some(encoder)) => {
                let letters = letters.view();
                let jitter = jitter.and_then(|random| encoder.jitter(&letters, random));
                let hidden = encoder.forward(&letters, jitter);
                Seen { states: hidden.units.states, real: hidden.units.real, balance: Some(hidden.tokens.balance) }
            }
            (SequenceBatch::Vectors { vectors, real }, None) => {
                let (vectors, real) = (vectors.clone(), real.clone());
                let (states, real) = match &self.backbone {
                    Some(backbone) => (backbone.hidden(vectors, None, &real), backbone.real(real)),
                    None => (vectors, real),
                };
                Seen { states, real, balance: None }
            }
            (SequenceBatch::Letters(_), None) => panic!("letters for a model that takes codes"),
            (SequenceBatch::Vectors { .. }, Some(_)) => panic!("codes for a model that takes letters"),
        }
    }
}

/// Hidden states of a batch: of positions, or of units.
struct Seen {
    /// `[batch, rows, d]`.
    states: Tensor<3>,
    /// `[batch, rows]`.
    real: Tensor<2>,
    /// As in [`Told`].
    balance: Option<Tensor<1>>,
}

/// Padded positions that are computed together.
pub const POSITIONS_TOGETHER: usize = 16_384;

/// A row of numbers for each row, in their order; none if `poll` ends it.
fn in_batches(
    rows: &SequenceRows,
    device: &Device,
    poll: &dyn Fn() -> ControlFlow<()>,
    compute: impl Fn(&SequenceBatch) -> Tensor<2>,
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
    type Input = SequenceBatch;

    fn tell(&self, batch: &SequenceBatch, dropout: Option<&mut Stream>) -> Told {
        let Some(random) = dropout else { return Told { outputs: self.outputs(batch), balance: None } };
        let dropped = self.backbone.as_ref().map(|backbone| backbone.with_dropped_adapters(random));
        let model = Self { backbone: dropped, ..self.clone() };
        let Seen { states, real, balance } = model.hidden(&batch.clone().autodiff(), Some(&mut *random));
        let pooled = self.head.pool(states, real);
        let kept = self.head.dropout_mask(pooled.dims()[0], random);
        Told { outputs: self.head.outputs(pooled, Some(kept)), balance }
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

    fn tell(&self, features: &Tensor<2>, dropout: Option<&mut Stream>) -> Told {
        let features = if dropout.is_some() { Tensor::from_inner(features.clone()) } else { features.clone() };
        Told { outputs: self.outputs(features), balance: None }
    }
}

/// What is true of the sequences of a batch.
#[derive(Clone, Debug)]
pub enum Truth {
    /// The class of each, `[batch]`.
    Classes(Tensor<1, Int>),
    /// 1 where a label applies, `[batch, labels]`.
    Labels(Tensor<2>),
    /// Standardized values, `[batch, targets]`.
    Values(Tensor<2>),
}

impl Truth {
    /// Of some rows, in this order.
    ///
    /// # Panics
    /// If a row has not the kind of target that the labelling has.
    #[must_use]
    pub fn of<'a>(labelling: &Labelling, rows: impl Iterator<Item = Target<'a>>, device: &Device) -> Self {
        let outputs = labelling.outputs().len();
        let floats = |values: Vec<f32>| {
            let batch = values.len() / outputs;
            Tensor::from_data(TensorData::new(values, [batch, outputs]), device)
        };
        match labelling {
            Labelling::Classes { .. } => {
                let classes: Vec<i32> = rows
                    .map(|target| match target {
                        Target::Class(class) => class as i32,
                        _ => panic!("no class"),
                    })
                    .collect();
                let batch = classes.len();
                Self::Classes(Tensor::from_data(TensorData::new(classes, [batch]), device))
            }
            Labelling::Labels { .. } => Self::Labels(floats(
                rows.flat_map(|target| match target {
                    Target::Labels(labels) => labels.iter().map(|&label| f32::from(u8::from(label))),
                    _ => panic!("no labels"),
                })
                .collect(),
            )),
            Labelling::Values { standardization, .. } => Self::Values(floats(
                rows.flat_map(|target| match target {
                    Target::Values(values) => values.iter().zip(standardization).map(|(&v, s)| s.apply(v) as f32),
                    _ => panic!("no values"),
                })
                .collect(),
            )),
        }
    }
}

/// A batch of labelled sequences.
#[derive(Clone, Debug)]
pub struct Batch<I> {
    /// The sequences, without autodiff.
    pub input: I,
    /// What is true of them, with autodiff in training.
    pub truth: Truth,
    /// Number of the micro-batch among all that training sees, which decides what is dropped; none outside of training.
    pub draw: Option<u64>,
}

/// The task.
#[derive(Debug)]
pub struct Supervised<'a, M> {
    /// What the outputs stand for.
    pub labelling: &'a Labelling,
    /// Weight of each class in the loss, or of the positive side of each label; none for 1.
    pub weights: Option<Vec<f64>>,
    /// Weight of the balance of experts in the loss, where there are any.
    pub balance: f64,
    /// Seed of what is dropped or jittered.
    pub seed: u64,
    /// What learns.
    pub model: PhantomData<fn() -> M>,
}

impl<M: Predictor> Supervised<'_, M> {
    fn loss(&self, outputs: Tensor<2>, truth: &Truth, is_weighed: bool) -> Tensor<1> {
        let weights = || {
            let weights =
                self.weights.as_ref().filter(|_| is_weighed)?.iter().map(|&weight| weight as f32).collect::<Vec<_>>();
            let count = weights.len();
            Some(Tensor::<1>::from_data(TensorData::new(weights, [count]), &outputs.device()))
        };
        match truth {
            Truth::Classes(classes) => {
                let nats = log_softmax(outputs.clone(), 1)
                    .gather(1, classes.clone().unsqueeze_dim(1))
                    .squeeze_dim::<1>(1)
                    .neg();
                match weights() {
                    Some(weights) => {
                        let weights = weights.select(0, classes.clone());
                        (nats * weights.clone()).sum() / weights.sum()
                    }
                    None => nats.mean(),
                }
            }
            Truth::Labels(labels) => {
                let applies = log_sigmoid(outputs.clone()) * labels.clone();
                let applies = match weights() {
                    Some(weights) => applies * weights.unsqueeze(),
                    None => applies,
                };
                let not = log_sigmoid(outputs.clone().neg()) * (labels.clone().neg() + 1.0);
                (applies + not).mean().neg()
            }
            Truth::Values(values) => (outputs - values.clone()).powf_scalar(2.0).mean(),
        }
    }

    fn tell(&self, model: &M, batch: &Batch<M::Input>) -> Told {
        let mut random = batch.draw.map(|draw| stream(self.seed, "dropout", &[draw]));
        model.tell(&batch.input, random.as_mut())
    }
}

impl<M: Predictor> Objective for Supervised<'_, M> {
    type Model = M;
    type Batch = Batch<M::Input>;
    type Carry = ();

    fn start(&self, model: M, _: &mut dyn Iterator<Item = Batch<M::Input>>, _: usize, _: &dyn Fn() -> bool) -> M {
        model
    }

    fn forward(&self, model: &M, batch: &Batch<M::Input>) -> Outcome<()> {
        let Told { outputs, balance } = self.tell(model, batch);
        let loss = self.loss(outputs, &batch.truth, true);
        match balance {
            None => Outcome { loss, parts: Vec::new(), carry: () },
            Some(balance) => {
                let parts = vec![("balance".to_owned(), balance.clone().inner())];
                Outcome { loss: loss + balance.mul_scalar(self.balance), parts, carry: () }
            }
        }
    }

    fn after_step(&self, model: M, _: Vec<()>, _: u64) -> M {
        model
    }

    fn observe(&self, _: &M) -> Measures {
        Measures::new()
    }

    /// `loss` without weights of classes, then the measures of the task as [`Scores`] names them.
    fn evaluate(&self, model: &M, batches: &mut dyn Iterator<Item = Batch<M::Input>>) -> Measures {
        let (mut outputs, mut truth, mut loss, mut rows) = (Vec::new(), Vec::new(), 0.0, 0);
        for batch in batches {
            let found = self.tell(model, &batch).outputs;
            let here = found.dims()[0];
            loss += f64::from(to_array(self.loss(found.clone(), &batch.truth, false)).values[0]) * here as f64;
            rows += here;
            outputs.extend(to_array(found).values);
            truth.extend(match batch.truth {
                Truth::Classes(classes) => to_array(classes.float()).values,
                Truth::Labels(values) | Truth::Values(values) => to_array(values).values,
            });
        }
        let mut measures = vec![("loss".to_owned(), loss / rows as f64)];
        let scores = scores(self.labelling, &outputs, &truth);
        measures.extend(scores.scores.into_iter().filter_map(|score| Some((score.name, score.value?))));
        measures
    }
}

/// Measures of raw outputs beside raw truths, values standardized in both; what orders or picks is the same for logits as for
/// probabilities.
fn scores(labelling: &Labelling, outputs: &[f32], truth: &[f32]) -> Scores {
    let names = labelling.outputs();
    match labelling {
        Labelling::Classes { .. } => {
            let truth: Vec<u32> = truth.iter().map(|&class| class as u32).collect();
            Scores::of(Predictions::Classes { probabilities: outputs, truth: &truth }, names, None)
        }
        Labelling::Labels { .. } => {
            let truth: Vec<bool> = truth.iter().map(|&label| label > 0.5).collect();
            let probabilities: Vec<f32> = outputs.iter().map(|&logit| 1.0 / (1.0 + (-logit).exp())).collect();
            Scores::of(Predictions::Labels { probabilities: &probabilities, truth: &truth }, names, None)
        }
        Labelling::Values { .. } => {
            let [predicted, truth] = [outputs, truth].map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            Scores::of(Predictions::Values { predicted: &predicted, truth: &truth }, names, None)
        }
    }
}
