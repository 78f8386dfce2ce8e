//! Labelled sequences as batches: what fine-tuning learns from.

use burn::prelude::*;
use rand::RngExt;
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use vqdna_data::bucket::{batches, by_budget};
use vqdna_data::labelled::{Labelling, Rows, Set, Targets};

use crate::batch::TokenBatch;
use crate::model::sequence::POSITIONS_TOGETHER;
use crate::objective::supervised::{Batch, Truth};
use crate::tokenizer::rows::TokenRows;
use crate::tokenizer::{Tokenizer, bases_of};
use crate::train::Source;

/// Sequences in the form that a model takes.
pub trait Inputs {
    /// Some of them, side by side.
    type Batch;

    /// Positions of each sequence.
    fn lengths(&self) -> Vec<usize>;

    /// Some rows side by side, on a device without autodiff.
    fn batch(&self, rows: &[u32], device: &Device) -> Self::Batch;
}

impl Inputs for TokenRows {
    type Batch = TokenBatch;

    fn lengths(&self) -> Vec<usize> {
        TokenRows::lengths(self)
    }

    fn batch(&self, rows: &[u32], device: &Device) -> TokenBatch {
        TokenRows::batch(self, rows, device)
    }
}

/// A row of numbers for each sequence.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[rows, width]`.
    pub values: Vec<f32>,
    /// Numbers of a row.
    pub width: usize,
}

impl Inputs for Features {
    type Batch = Tensor<2>;

    fn lengths(&self) -> Vec<usize> {
        vec![1; self.values.len() / self.width]
    }

    fn batch(&self, rows: &[u32], device: &Device) -> Tensor<2> {
        let row = |&row: &u32| &self.values[row as usize * self.width..][..self.width];
        let values: Vec<f32> = rows.iter().flat_map(row).copied().collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), self.width]), device)
    }
}

/// Sequences as tokens, each on its own; `reverse` reads the other strand of each. `poll` is asked now and then whether to go on; none if
/// not.
#[must_use]
pub fn sequences(
    tokenizer: &Tokenizer,
    rows: &Rows,
    reverse: bool,
    device: &Device,
    poll: &dyn Fn() -> ControlFlow<()>,
) -> Option<TokenRows> {
    let bases = |letters: &[u8]| {
        let mut bases = bases_of(letters);
        if reverse {
            vqdna_data::alphabet::reverse_complement(&mut bases);
        }
        bases
    };
    let first: Vec<_> = rows.iter().map(|row| bases(row.sequence)).collect();
    let second: Option<Vec<_>> = rows.iter().map(|row| row.second.map(bases)).collect();
    let second = second.filter(|second| !second.is_empty());
    TokenRows::new(tokenizer, &first, second.as_deref(), device, poll)
}

/// A set and its sequences as a model takes them.
#[derive(Debug)]
pub struct Labelled<'a, I> {
    /// The sequences.
    pub inputs: &'a I,
    /// What is true of them.
    pub targets: &'a Targets,
}

impl<I> Clone for Labelled<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Labelled<'_, I> {}

impl<'a, I> Labelled<'a, I> {
    /// A set, and its sequences as a model takes them.
    #[must_use]
    pub fn new(inputs: &'a I, set: &'a Set) -> Self {
        Self { inputs, targets: &set.targets }
    }
}

/// Micro-batches of sequences of like length, each epoch in an order of its own.
pub struct LabelledSource<'a, I> {
    /// What is learned from.
    pub train: Labelled<'a, I>,
    /// The same sequences read from the other strand; if given, each micro-batch is read from either.
    pub reverse: Option<&'a I>,
    /// What is measured on the way.
    pub held_out: Option<Labelled<'a, I>>,
    /// What the targets mean.
    pub labelling: &'a Labelling,
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulate: u64,
    /// Seed of all orders.
    pub seed: u64,
    /// The device, with autodiff.
    pub device: &'a Device,
    /// Positions of the training sequences, by which they are put together.
    pub lengths: Vec<usize>,
    /// Their bases.
    pub bases: Vec<usize>,
    /// Orders of the epochs in use.
    pub orders: Mutex<HashMap<u64, Arc<Vec<Vec<u32>>>>>,
}

impl<I: Inputs> LabelledSource<'_, I> {
    fn order(&self, epoch: u64) -> Arc<Vec<Vec<u32>>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|&known, _| known + 1 >= epoch);
        let order = || Arc::new(batches(&self.lengths, self.batch, self.seed, epoch));
        Arc::clone(orders.entry(epoch).or_insert_with(order))
    }

    fn make(&self, of: Labelled<'_, I>, rows: &[u32], draw: Option<u64>) -> Batch<I::Batch> {
        let plain = self.device.clone().without_autodiff();
        let device = if draw.is_some() { self.device } else { &plain };
        let targets = rows.iter().map(|&row| of.targets.get(row as usize));
        Batch { input: of.inputs.batch(rows, &plain), truth: Truth::of(self.labelling, targets, device), draw }
    }
}

impl<I: Inputs> Source for LabelledSource<'_, I> {
    type Batch = Batch<I::Batch>;

    fn micro_batch(&self, step: u64, micro: u64) -> io::Result<(Self::Batch, usize)> {
        let draw = step * self.accumulate.max(1) + micro;
        // Every epoch has as many batches.
        let per_epoch = self.lengths.len().div_ceil(self.batch) as u64;
        let order = self.order(draw / per_epoch);
        let rows = &order[(draw % per_epoch) as usize];
        let inputs = match self.reverse {
            Some(reverse) if crate::seed::stream(self.seed, "strand", &[draw]).random() => reverse,
            _ => self.train.inputs,
        };
        let bases = rows.iter().map(|&row| self.bases[row as usize]).sum();
        Ok((self.make(Labelled { inputs, ..self.train }, rows, Some(draw)), bases))
    }

    fn held_out_windows(&self) -> usize {
        self.held_out.map_or(0, |held_out| held_out.inputs.lengths().len())
    }

    fn held_out(&self, _: usize) -> Box<dyn Iterator<Item = io::Result<Self::Batch>> + '_> {
        let Some(held_out) = self.held_out else { return Box::new(std::iter::empty()) };
        let batches = by_budget(&held_out.inputs.lengths(), POSITIONS_TOGETHER);
        Box::new(batches.into_iter().map(move |rows| Ok(self.make(held_out, &rows, None))))
    }
}
