//! Learning tasks: which parts a task joins, its loss, what it does after a step and what it reports. The loop in
//! [`crate::train`] knows nothing else of a task.

pub mod masked;
pub mod masking;
pub mod reconstruct;
pub mod supervised;

use burn::module::Module;
use burn::prelude::*;

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
    ) -> Self::Model;

    /// Loss of one micro-batch.
    fn forward(&self, model: &Self::Model, batch: &Self::Batch) -> Outcome<Self::Carry>;

    /// Changes outside the optimiser (codebooks), once per step, with the carries of its micro-batches.
    fn after_step(&self, model: Self::Model, carries: Vec<Self::Carry>, step: u64) -> Self::Model;

    /// What can be read off the model at a step without data.
    fn observe(&self, model: &Self::Model) -> Measures;

    /// Measures on held-out batches; `model` is without autodiff.
    fn evaluate(&self, model: &Self::Model, batches: &mut dyn Iterator<Item = Self::Batch>) -> Measures;
}
