//! A bag of k-mers under logistic (or linear) regression: what a learned vocabulary has to beat.
//!
//! Features are how often each k-mer occurs in a sequence, per base, brought to mean 0 and deviation 1. k and the weight decay are
//! those with the lowest loss on dev.

use burn::prelude::*;
use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use vqdna_data::alphabet;
use vqdna_data::labelled::{Rows, Set, Splits};
use vqdna_data::metric::Scores;

use super::finetune::Scaling;
use super::labelled::{Features, Inputs};
use super::stage::{StageError, poll};
use crate::model::Probe;
use crate::objective::Objective;
use crate::objective::supervised::prediction::Prediction;
use crate::objective::supervised::{Batch, Supervised, Truth};
use crate::tokenizer::bases_of;
use crate::train::optimizer::{Adamw, AdamwConfig, Gradients};
use crate::weights::to_array;

/// Lengths of k-mers that are tried.
const LENGTHS: [u32; 4] = [3, 4, 5, 6];
/// Weight decays that are tried.
const DECAYS: [f64; 3] = [0.01, 0.3, 3.0];
/// Full-batch steps: the loss is convex, and flat by then.
const STEPS: u64 = 200;
/// The highest rate.
const RATE: f64 = 0.02;

/// What k-mers achieve.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Length of the k-mers.
    pub k: u32,
    /// Loss on dev.
    pub dev_loss: f64,
    /// All measures on the set that was asked for.
    pub scores: Scores,
}

/// Fits k-mers to the training set of a task, chooses by dev, and measures on test; none without dev and test, or for pairs.
///
/// # Errors
/// [`StageError::Interrupted`] soon after `stop` is set.
pub fn baseline(splits: &Splits, device: &Device, stop: &AtomicBool) -> Result<Option<Baseline>, StageError> {
    let (Some(dev), Some(test)) = (&splits.dev, &splits.test) else { return Ok(None) };
    if splits.train.rows.iter().any(|row| row.second.is_some()) {
        return Ok(None);
    }
    let mut best: Option<(f64, u32, Vec<f32>)> = None;
    for k in LENGTHS {
        let [mut train, mut held_out, mut last] = [&splits.train, dev, test].map(|set| counts(&set.rows, k));
        let scaling = Scaling::of(&train);
        for features in [&mut train, &mut held_out, &mut last] {
            scaling.apply(features);
        }
        for decay in DECAYS {
            let fit = Fit { splits, device, decay, stop };
            let model = fit.run(&train)?;
            let loss = fit.loss(&model, &held_out, dev);
            if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
                best = Some((loss, k, fit.outputs(&model, &last)));
            }
        }
    }
    let measured = |(dev_loss, k, outputs): (f64, u32, Vec<f32>)| {
        let scores = Prediction::new(&splits.labelling, &outputs).scores(&test.targets, None);
        Baseline { k, dev_loss, scores }
    };
    Ok(best.map(measured))
}

/// How often each k-mer occurs, per base; those with an N count nowhere.
fn counts(rows: &Rows, k: u32) -> Features {
    let width = 4usize.pow(k);
    let mut values = vec![0.0; rows.len() * width];
    for (row, out) in rows.iter().zip(values.chunks_mut(width)) {
        let share = 1.0 / row.sequence.len().max(1) as f32;
        let (mut kmer, mut known) = (0, 0);
        for base in bases_of(row.sequence) {
            known = if base == alphabet::N { 0 } else { known + 1 };
            kmer = (kmer * 4 + usize::from(base % alphabet::N)) % width;
            if known >= k {
                out[kmer] += share;
            }
        }
    }
    Features { values, width }
}

struct Fit<'a> {
    splits: &'a Splits,
    device: &'a Device,
    decay: f64,
    stop: &'a AtomicBool,
}

impl Fit<'_> {
    fn objective(&self) -> Supervised<'_, Probe> {
        let labelling = &self.splits.labelling;
        Supervised { labelling, weights: None, balance: 0.0, seed: 0, model: PhantomData }
    }

    fn batch(&self, features: &Features, set: &Set, draw: Option<u64>) -> Batch<Tensor<2>> {
        let rows: Vec<u32> = (0..set.len() as u32).collect();
        let device = if draw.is_some() { self.device.clone().autodiff() } else { self.device.clone() };
        let truth = Truth::of(&self.splits.labelling, (0..set.len()).map(|row| set.targets.get(row)), &device);
        Batch { input: features.batch(&rows, self.device), truth, draw }
    }

    fn run(&self, train: &Features) -> Result<Probe, StageError> {
        let device = self.device.clone().autodiff();
        let batch = self.batch(train, &self.splits.train, Some(0));
        let config = AdamwConfig { weight_decay: self.decay, clip: 0.0, ..AdamwConfig::default() };
        let mut optimizer = Adamw::new(&config);
        let mut model = Probe::new(train.width, self.splits.labelling.outputs().len(), &device);
        for step in 0..STEPS {
            if poll(self.stop).is_break() {
                return Err(StageError::Interrupted);
            }
            let graph = self.objective().forward(&model, &batch).loss.backward();
            let rate = RATE * (1.0 - step as f64 / STEPS as f64);
            let gradients = Gradients::of(&model, &graph);
            model = optimizer.step(model, gradients, rate, 1.0).0;
        }
        Ok(model.valid())
    }

    fn loss(&self, model: &Probe, features: &Features, set: &Set) -> f64 {
        let measures = self.objective().evaluate(model, &mut std::iter::once(self.batch(features, set, None)));
        measures.iter().find(|(name, _)| name == "loss").map_or(f64::INFINITY, |(_, value)| *value)
    }

    fn outputs(&self, model: &Probe, features: &Features) -> Vec<f32> {
        let rows: Vec<u32> = (0..(features.values.len() / features.width) as u32).collect();
        to_array(model.outputs(features.batch(&rows, self.device))).values
    }
}
