//! Workloads of a model that forms units.

use burn::prelude::*;
use rand::RngExt;
use std::hint::black_box;
use std::time::Instant;

use super::{Measurement, RATE, WARMUP, Workload, measure, measure_training, optimizer, report};
use crate::backbone::mxdna::{Mxdna, Selection};
use crate::batch::{TokenBatch, TokenWindow, TokenWindows};
use crate::model::{Embed, LanguageModel};
use crate::objective::{Objective, Over};
use crate::ops;
use crate::run::pretrain::PretrainConfig;
use crate::seed::{Stream, stream};
use crate::tokenizer::{Tokenizer, TokenizerConfig};
use crate::train::optimizer::{Adamw, Gradients};

/// Steps of training before a fresh model that forms units is measured.
const BALANCING: usize = 5;

/// What a workload begins with.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Fresh weights after a few steps, which count in the memory: a fresh model may cut nearly everything to single bases.
    Fresh,
    /// Those of a pre-trained model, with autodiff.
    Of(&'a LanguageModel),
}

/// The tokenizer of such models.
fn tokenizer(config: &PretrainConfig) -> (TokenizerConfig, Tokenizer) {
    let named = config.tokenizer.clone().expect("that of MxDNA");
    let tokenizer = named.fixed().expect("one without weights");
    (named, tokenizer)
}

/// A model that forms units and is being pre-trained on random bases in memory.
struct Cutting<'a> {
    work: &'a Workload,
    device: Device,
    random: Stream,
    config: PretrainConfig,
    named: TokenizerConfig,
    tokenizer: Tokenizer,
    optimizer: Adamw,
    model: Option<LanguageModel>,
    /// Windows so far.
    drawn: u64,
}

impl<'a> Cutting<'a> {
    fn new(work: &'a Workload, weights: Weights, device: &Device) -> Self {
        let (config, device) = (PretrainConfig::mxdna(work.preset), device.clone().autodiff());
        let (named, tokenizer) = tokenizer(&config);
        let (model, steps) = match weights {
            Weights::Fresh => {
                (LanguageModel::new(&config.backbone, named.source(), &named.sizes(), 0, &device), BALANCING)
            }
            Weights::Of(pretrained) => (pretrained.clone(), 0),
        };
        let (random, optimizer, model) = (stream(0, "benchmark", &[]), optimizer(), Some(model));
        let mut begun = Self { work, device, random, config, named, tokenizer, optimizer, model, drawn: 0 };
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
        let windows = (0..self.work.batch as u64).map(|n| {
            let bases: Vec<u8> = (0..self.work.length).map(|_| self.random.random_range(0..4u8)).collect();
            let tokens = self.tokenizer.encode(&bases).expect("tokens of bases alone");
            TokenWindow { is_target: vec![true; tokens.len()], tokens, number: self.drawn + n }
        });
        let windows = windows.collect();
        self.drawn += self.work.batch as u64;
        let batch = TokenWindows { windows, device: self.device.clone() };
        let objective = self.config.objective.over(Over {
            named: &self.named,
            tokenizer: &self.tokenizer,
            pool: self.config.backbone.pool(),
            balance: self.config.balance,
            seed: 0,
        });
        let outcome = objective.forward(&current, &batch);
        let size = outcome.parts.iter().find(|(name, _)| name == "bases_per_unit").map(|(_, size)| size.clone());
        let gradients = Gradients::of(&current, &outcome.loss.backward());
        self.model = Some(self.optimizer.step(current, gradients, RATE, 1.0).0);
        self.work.size() as f64 / f64::from(size.map_or(1.0, Tensor::into_scalar::<f32>))
    }

    /// Random bases.
    fn letters(&self) -> TokenBatch {
        let mut random = stream(0, "benchmark", &[]);
        let mut row = |_| {
            let bases: Vec<u8> = (0..self.work.length).map(|_| random.random_range(0..4u8)).collect();
            let tokens = self.tokenizer.encode(&bases).expect("tokens of bases alone");
            self.tokenizer.special().row(&tokens.levels, None)
        };
        let rows: Vec<_> = (0..self.work.batch).map(&mut row).collect();
        self.tokenizer.batch(&rows, &self.device.clone().without_autodiff())
    }

    /// The encoder without autodiff.
    fn encoder(self) -> (Embed, Mxdna) {
        let model = self.model.expect("the model of the last step").valid();
        (model.embed, model.backbone.of_units().expect("the network of the workload"))
    }
}

/// Pre-training of a model that forms units: masks and jitter drawn, forward, backward and AdamW on random bases in memory.
#[must_use]
pub fn mxdna_train(work: &Workload, weights: Weights, device: &Device) -> Measurement {
    let (mut cutting, mut units) = (Cutting::new(work, weights, device), Vec::new());
    let measured = measure_training("mxdna-train", work, || units.push(cutting.step()));
    let batch = cutting.letters();
    with_units(measured, work, &units, &cutting.encoder(), &batch)
}

/// A frozen model that forms units, on random bases in memory, to the states of units.
#[must_use]
pub fn mxdna_embed(work: &Workload, weights: Weights, device: &Device) -> Measurement {
    let cutting = Cutting::new(work, weights, device);
    let batch = cutting.letters();
    let (embed, model) = cutting.encoder();
    let mut units = Vec::new();
    let measured = ops::with_frozen_weights(|| {
        measure("mxdna-embed", work, || {
            let (x, layout) = embed.forward(&batch, None);
            let hidden = model.forward(x, &layout, None);
            units.push(hidden.tokens.selection.anchors.iter().filter(|&&anchor| anchor >= 0).count() as f64);
            // On the host, so that lazy devices are done.
            drop(hidden.units.states.into_data());
        })
    });
    with_units(measured, work, &units, &(embed, model), &batch)
}

/// Units of the measured runs, with two special tokens of each sequence, and what their choice takes.
fn with_units(
    measured: Measurement,
    work: &Workload,
    units: &[f64],
    (embed, model): &(Embed, Mxdna),
    batch: &TokenBatch,
) -> Measurement {
    let runs = &units[units.len().saturating_sub(work.runs.max(1))..];
    let mean = runs.iter().sum::<f64>() / runs.len().max(1) as f64 + 2.0 * work.batch as f64;
    let (x, layout) = embed.forward(batch, None);
    let scores = model.forward(x, &layout, None).tokens.scores;
    let choose = || {
        let start = Instant::now();
        let scores = scores.clone().into_data().try_into_vec_as::<f32>().expect("f32");
        black_box(Selection::new(&scores, model.sizes(), &layout.lengths, &layout.special));
        start.elapsed().as_secs_f64()
    };
    let chosen = report("selection", work, 0, (0..WARMUP + work.runs).map(|_| choose()).collect()).seconds;
    let tokens_per_s = Some(mean / measured.seconds);
    Measurement { tokens_per_s, selection_share: Some(chosen / measured.seconds), ..measured }
}
