//! Workloads of a model that cuts sequences itself.

use burn::prelude::*;
use rand::RngExt;
use std::hint::black_box;
use std::time::Instant;

use super::{Measurement, RATE, WARMUP, Workload, measure, measure_training, optimizer, report};
use crate::batch::{CodeBatch, CodeWindow};
use crate::folder::PretrainedMxdna;
use crate::objective::Objective;
use crate::objective::letters::{LetterModel, MaskedLetters};
use crate::ops;
use crate::run::mxdna::PretrainMxdnaConfig;
use crate::seed::{Stream, stream};
use crate::tokenizer::mxdna::{LetterBatch, Mxdna, Selection, letter};
use crate::train::optimizer::{Adamw, Gradients};

/// Steps of training before a fresh model that cuts sequences itself is measured.
const BALANCING: usize = 5;

/// What a workload begins with.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Fresh weights after a few steps, which count in the memory: a fresh model may cut nearly everything to single bases.
    Fresh,
    /// Those of a pre-trained model, with autodiff.
    Of(&'a PretrainedMxdna),
}

impl Workload {
    /// Random bases for it.
    fn letters(&self, device: &Device) -> LetterBatch {
        let mut random = stream(0, "benchmark", &[]);
        let mut row = || (0..self.length).map(|_| letter(random.random_range(0..4u8))).collect();
        LetterBatch::new(&(0..self.batch).map(|_| row()).collect::<Vec<_>>(), device)
    }
}

/// A model that cuts sequences itself and is being pre-trained on random bases in memory.
struct Cutting<'a> {
    work: &'a Workload,
    device: Device,
    random: Stream,
    objective: MaskedLetters,
    optimizer: Adamw,
    model: Option<LetterModel>,
    /// Windows so far.
    drawn: u64,
}

impl<'a> Cutting<'a> {
    fn new(work: &'a Workload, weights: Weights, device: &Device) -> Self {
        let (config, device) = (PretrainMxdnaConfig::preset(work.preset), device.clone().autodiff());
        let objective = MaskedLetters { masking: config.masking, balance: config.balance, seed: 0 };
        let (model, steps) = match weights {
            Weights::Fresh => (LetterModel::new(&config.mxdna, 0, &device), BALANCING),
            Weights::Of(pretrained) => (pretrained.model.clone(), 0),
        };
        let random = stream(0, "benchmark", &[]);
        let mut begun = Self { work, device, random, objective, optimizer: optimizer(), model: Some(model), drawn: 0 };
        ops::with_precision(work.precision, || {
            for _ in 0..steps {
                begun.step();
            }
        });
        begun
    }

    /// Draws masks and jitter, runs forward, backward and AdamW; the number of units.
    fn step(&mut self) -> f64 {
        let Some(current) = self.model.take() else { return 0.0 };
        let windows = (0..self.work.batch as u64).map(|n| CodeWindow {
            codes: vec![(0..self.work.length).map(|_| self.random.random_range(0..4u16)).collect()],
            is_target: vec![true; self.work.length],
            number: self.drawn + n,
        });
        let windows = windows.collect();
        self.drawn += self.work.batch as u64;
        let batch = CodeBatch { windows, device: self.device.clone() };
        let outcome = self.objective.forward(&current, &batch);
        let size = outcome.parts.iter().find(|(name, _)| name == "bases_per_unit").map(|(_, size)| size.clone());
        let gradients = Gradients::of(&current, &outcome.loss.backward());
        self.model = Some(self.optimizer.step(current, gradients, RATE, 1.0).0);
        self.work.size() as f64 / f64::from(size.map_or(1.0, Tensor::into_scalar::<f32>))
    }

    /// The encoder without autodiff.
    fn encoder(self) -> Mxdna {
        self.model.expect("the model of the last step").encoder.valid()
    }
}

/// Pre-training of a model that cuts sequences itself: masks and jitter drawn, forward, backward and AdamW on random bases in memory.
#[must_use]
pub fn mxdna_train(work: &Workload, weights: Weights, device: &Device) -> Measurement {
    let (mut cutting, mut units) = (Cutting::new(work, weights, device), Vec::new());
    let measured = measure_training("mxdna-train", work, || units.push(cutting.step()));
    with_units(measured, work, &units, &cutting.encoder(), &work.letters(device))
}

/// A frozen model that cuts sequences itself, on random bases in memory, to the states of units.
#[must_use]
pub fn mxdna_embed(work: &Workload, weights: Weights, device: &Device) -> Measurement {
    let (model, batch) = (Cutting::new(work, weights, device).encoder(), work.letters(device));
    let mut units = Vec::new();
    let measured = ops::with_frozen_weights(|| {
        measure("mxdna-embed", work, || {
            let hidden = model.forward(&batch.view(), None);
            units.push(hidden.tokens.selection.anchors.iter().filter(|&&anchor| anchor >= 0).count() as f64);
            // On the host, so that lazy devices are done.
            drop(hidden.units.states.into_data());
        })
    });
    with_units(measured, work, &units, &model, &batch)
}

/// Units of the measured runs, with two special tokens of each sequence, and what their choice takes.
fn with_units(
    measured: Measurement,
    work: &Workload,
    units: &[f64],
    model: &Mxdna,
    batch: &LetterBatch,
) -> Measurement {
    let runs = &units[units.len().saturating_sub(work.runs.max(1))..];
    let mean = runs.iter().sum::<f64>() / runs.len().max(1) as f64 + 2.0 * work.batch as f64;
    let scores = model.forward(&batch.view(), None).tokens.scores;
    let choose = || {
        let start = Instant::now();
        let scores = scores.clone().into_data().try_into_vec_as::<f32>().expect("f32");
        black_box(Selection::new(&scores, model.sizes(), &batch.lengths, &batch.special));
        start.elapsed().as_secs_f64()
    };
    let chosen = report("selection", work, 0, (0..WARMUP + work.runs).map(|_| choose()).collect()).seconds;
    let tokens_per_s = Some(mean / measured.seconds);
    Measurement { tokens_per_s, selection_share: Some(chosen / measured.seconds), ..measured }
}
