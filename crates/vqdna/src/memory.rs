//! The parts of the memory that a training step takes, and what they are counted from: before a device opens or a file is read.
//!
//! Each room counts what is its own; [`estimate`](crate::estimate) adds it up. Sizes are bytes; `rows` are positions of a micro-batch.

use crate::ops::Precision;

/// What a backward pass finds of its forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Wide layers are computed again: see [`crate::ops::with_recomputation`].
    pub recompute: bool,
    /// Only the input of each transformer layer is kept: see [`TransformerConfig`](crate::backbone::transformer::TransformerConfig).
    pub checkpoint: bool,
}

/// The size of a micro-batch, and how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Sequences.
    pub batch: usize,
    /// Bases of a sequence.
    pub length: usize,
    /// Whether wide layers are computed again: see [`crate::ops::with_recomputation`].
    pub recompute: bool,
    /// How products are computed: in bf16, what they need is kept in it too.
    pub precision: Precision,
    /// Threads of the pool.
    pub threads: usize,
}

impl Step {
    /// Floats that so many numbers take where they are kept in the precision of products.
    pub(crate) fn units(&self, numbers: u64) -> u64 {
        match self.precision {
            Precision::F32 => numbers,
            Precision::Bf16 => numbers.div_ceil(2),
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        size(self.batch).saturating_mul(size(self.length))
    }
}

/// Bytes in memory at the peak of training, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Numbers of the module, codebooks and their averages included: what `num_params` of the module counts.
    pub numbers: u64,
    /// Those that the optimiser moves.
    pub learned: u64,
    /// The program before it does anything, its libraries and threads.
    pub program: u64,
    /// 4 bytes a number (`weights::uniform` and its relatives).
    pub parameters: u64,
    /// 4 bytes a learned number (the backward passes of `ops::flex`), less the place of what was kept: a backward pass finds the former
    /// as it drops the latter.
    pub gradients: u64,
    /// 8 bytes a learned number (`train::optimizer::Adamw`).
    pub moments: u64,
    /// What the forward pass keeps for the backward pass (the states of `ops::flex`): rows times the widths that each operation
    /// keeps.
    pub kept: u64,
    /// Temporary buffers: gradients of rows, the groups of rows in `kernels::mlp`, weights in the order of a kernel, scratch of
    /// threads; or what is needed before the first step or between two, where that is more.
    pub work: u64,
    /// The micro-batch (`batch::Batch`) and the bases that it is drawn from (`vqdna_data::corpus`).
    pub data: u64,
}

impl Memory {
    /// All parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Each part with its name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("program", self.program),
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("kept", self.kept),
            ("work", self.work),
            ("data", self.data),
        ]
    }

    pub(crate) fn of_module(numbers: u64, learned: u64, threads: usize) -> Self {
        Self {
            numbers,
            learned,
            program: PROGRAM.saturating_add(size(threads).saturating_mul(THREAD)),
            parameters: floats(numbers),
            moments: floats(learned).saturating_mul(2),
            ..Self::default()
        }
    }

    /// With gradients in the place of what was kept.
    pub(crate) fn with_gradients(mut self) -> Self {
        self.gradients = floats(self.learned).saturating_sub(self.kept);
        self
    }

    /// With room for `bytes` at a moment when neither activations nor gradients are held.
    pub(crate) fn besides_steps(mut self, bytes: u64) -> Self {
        let shared = self.kept.saturating_add(self.gradients).saturating_add(self.work);
        self.work = self.work.saturating_add(bytes.saturating_sub(shared));
        self
    }

    /// With checkpoints: copies of all numbers, of `others` and of moments on the host (`train::Training::save`), and the moments as
    /// bytes and as the file that is written (`weights::write`).
    #[must_use]
    pub fn with_checkpoints(self, others: u64) -> Self {
        let arrays = floats(self.numbers.saturating_add(others)).saturating_add(floats(self.learned).saturating_mul(2));
        self.besides_steps(arrays.saturating_add(floats(self.learned).saturating_mul(4)))
    }
}

/// Resident before any work: code, libraries, the allocator.
const PROGRAM: u64 = 24 << 20;
/// Stack and scratch of a thread of the pool.
const THREAD: u64 = 2 << 20;
/// Rows whose gradients `kernels::mlp` computes together.
const GROUP: u64 = 2048;
/// Weight gradients of a block beside the weights in two orders, in matrices of its inner layer: `up`, `down` and a transpose.
pub(crate) const MATRICES: u64 = 5;

pub(crate) fn size(n: usize) -> u64 {
    n as u64
}

pub(crate) fn floats(count: u64) -> u64 {
    count.saturating_mul(4)
}

/// Rows whose inner layer exists at a time in a backward pass: groups of equal size, as `kernels::mlp` forms them.
pub(crate) fn group(rows: u64) -> u64 {
    rows.div_ceil(rows.div_ceil(GROUP).max(1))
}

/// Floats of a linear layer.
pub(crate) fn linear(d_in: u64, d_out: u64) -> u64 {
    d_out * (d_in + 1)
}
