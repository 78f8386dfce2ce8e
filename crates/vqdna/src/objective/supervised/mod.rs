//! Stage 3 of VQDNA: sequence-level classification or regression, by an encoder that saw many others before.
//!
//! Loss: cross-entropy of classes, binary cross-entropy of labels, or squared error of standardized values, each the mean over the
//! sequences of a batch.

pub mod prediction;

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, log_softmax};
use std::marker::PhantomData;
use vqdna_data::labelled::{Labelling, Target};
use vqdna_data::metric::{Predictions, Scores};

use super::{Measures, Objective, Outcome};
use crate::model::sequence::{Output, Predictor};
use crate::seed::stream;
use crate::weights::to_array;

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
    /// Weight in the loss of what the encoder adds: see [`Hidden`](crate::backbone::Hidden).
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

    fn predict(&self, model: &M, batch: &Batch<M::Input>) -> Output {
        let mut random = batch.draw.map(|draw| stream(self.seed, "dropout", &[draw]));
        model.forward(&batch.input, random.as_mut())
    }
}

impl<M: Predictor> Objective for Supervised<'_, M> {
    type Model = M;
    type Batch = Batch<M::Input>;
    type Carry = ();

    fn forward(&self, model: &M, batch: &Batch<M::Input>) -> Outcome<()> {
        let Output { outputs, penalty } = self.predict(model, batch);
        let loss = self.loss(outputs, &batch.truth, true);
        match penalty {
            None => Outcome { loss, parts: Vec::new(), carry: () },
            Some(penalty) => {
                let parts = vec![("balance".to_owned(), penalty.clone().inner())];
                Outcome { loss: loss + penalty.mul_scalar(self.balance), parts, carry: () }
            }
        }
    }

    /// `loss` without weights of classes, then the measures of the task as [`Scores`] names them.
    fn evaluate(&self, model: &M, batches: &mut dyn Iterator<Item = Batch<M::Input>>) -> Measures {
        let (mut outputs, mut truth, mut loss, mut rows) = (Vec::new(), Vec::new(), 0.0, 0);
        for batch in batches {
            let found = self.predict(model, &batch).outputs;
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
