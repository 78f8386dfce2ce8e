//! The tokenization layer of MxDNA (Qiao et al. 2024): the model itself decides how a sequence is cut.
//!
//! A router scores units of several sizes at every base; greedy selection keeps the best that do not overlap; an expert for each size
//! makes a vector of each unit; a deformable convolution assembles them to tokens. Selection and the packing of tokens are
//! constants for the gradient: the router learns from its probability, which scales the vector of each unit, and from the balance
//! of the experts.

mod assembly;
mod encoder;
mod expert;
mod memory;
mod selection;

use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use vqdna_kernels::units::NONE;

use crate::layers::{LayerNorm, Projection};
use crate::ops;
use crate::seed::{Stream, stream};
use crate::weights::to_array;
use selection::numbers;

pub use assembly::{Assembled, Assembly, Edge, PlainConv};
pub use encoder::{Decoder, Mxdna, MxdnaConfig, MxdnaConfigError, States, UnitPlaces};
pub use expert::{Convolution, Expert, groups};
pub use selection::{Kept, Selection, UnitRows};

/// Deviation of fresh weights, as in the published code.
pub(super) const DEVIATION: f64 = 0.02;

/// What shapes a [`UnitLayer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitConfig {
    /// Bases of a unit of each expert.
    pub sizes: Vec<usize>,
    /// ε of the layer norms.
    pub norm_eps: f64,
    /// ε of the norms inside the experts.
    pub expert_norm_eps: f64,
    /// In training, hidden states are multiplied by random factors of 1 ± this before they are scored.
    pub jitter: f64,
    /// Which rows are left when a sequence is cut.
    pub grid: Grid,
    /// What lies right of the last token.
    pub edge: Edge,
}

/// Which rows are left when a sequence is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grid {
    /// Tokens alone, so that the next one is the neighbour.
    #[default]
    Compact,
    /// All positions, of which tokens alone are read and attended to: the neighbour of a token is mostly none. The published weights were
    /// trained so.
    Sparse,
}

impl Default for UnitConfig {
    fn default() -> Self {
        Self {
            sizes: (1..=10).collect(),
            norm_eps: 1e-5,
            expert_norm_eps: 1e-5,
            jitter: 0.01,
            grid: Grid::default(),
            edge: Edge::default(),
        }
    }
}

/// Bases to units to tokens.
#[derive(Module, Debug)]
pub struct UnitLayer {
    /// Norm of the states of bases.
    pub norm: LayerNorm,
    /// Scores of the sizes: `d` to their number.
    pub gate: Projection,
    /// An expert for each size.
    pub experts: Vec<Expert>,
    /// Units to tokens.
    pub assembly: Assembly,
    #[module(skip)]
    sizes: Vec<usize>,
    #[module(skip)]
    grid: Grid,
    #[module(skip)]
    edge: Edge,
    jitter: f64,
}

/// States of bases, with the positions that are no bases.
#[derive(Clone, Debug)]
pub struct Positions<'a> {
    /// `[batch, positions, d]`.
    pub states: Tensor<3>,
    /// Positions of each sequence, the special ones included; the rest is padding.
    pub lengths: &'a [usize],
    /// `[batch, positions]`: the first and the last position of each sequence, and padding if one likes.
    pub special: &'a [bool],
}

/// The tokens of a batch.
#[derive(Clone, Debug)]
pub struct UnitTokens {
    /// `[batch, tokens, d]`; what stands where there is no token says nothing.
    pub assembled: Assembled,
    /// Which positions are left.
    pub kept: Kept,
    /// `[batch, tokens]`, 1 for a token; 0 for padding, and for a position that is none.
    pub real: Tensor<2>,
    /// The units behind them.
    pub selection: Selection,
    /// `[batch, positions, sizes]`; 0 at special positions.
    pub scores: Tensor<3>,
    /// `[batch, positions, d]`: states, at anchors with the vector of their unit added.
    pub aggregated: Tensor<3>,
    /// How unevenly experts are chosen: 1 if all are as likely; 0 without units.
    pub balance: Tensor<1>,
}

/// A unit of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitSpan {
    /// The positions that it covers.
    pub covers: Range<usize>,
    /// The position that its score stands at.
    pub anchor: usize,
    /// The number of its expert.
    pub expert: usize,
    /// Probability of that expert there.
    pub gate: f32,
}

impl UnitTokens {
    /// For each of `batch` sequences, the positions that each of its tokens stands for; none for a special one.
    fn spans(&self, batch: usize, sizes: &[usize]) -> Vec<Vec<Range<usize>>> {
        let positions = self.selection.anchors.len() / batch.max(1);
        let of = |(sequence, kept): (usize, &[i32])| -> Vec<Range<usize>> {
            let anchors = &self.selection.anchors[sequence * positions..][..positions];
            let span = |at: usize| usize::try_from(anchors[at]).map_or(0..0, |expert| positions_of(at, sizes[expert]));
            kept.iter().filter_map(|&at| usize::try_from(at).ok()).map(span).collect()
        };
        self.kept.positions.chunks(self.kept.width.max(1)).enumerate().map(of).collect()
    }

    /// `[batch, tokens]`: how many tokens of its sequence stand before each.
    fn ranks(&self) -> Vec<i32> {
        let real = to_array(self.real.clone()).values;
        let of = |row: &[f32]| -> Vec<i32> {
            let counted = row.iter().scan(0, |before, &real| {
                *before += i32::from(real == 1.0);
                Some((*before - i32::from(real == 1.0)).max(0))
            });
            counted.collect()
        };
        real.chunks(self.kept.width.max(1)).flat_map(of).collect()
    }
}

/// The positions of a unit, by its anchor.
fn positions_of(anchor: usize, size: usize) -> Range<usize> {
    let start = anchor - size / 2;
    start..start + size
}

impl UnitLayer {
    /// A fresh layer over states `d` wide, a pure function of the seed.
    #[must_use]
    pub fn new(config: &UnitConfig, d: usize, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the unit layer", &[]);
        let expert = |random: &mut Stream, size: usize| Expert::new(d, size, config.expert_norm_eps, random, device);
        Self {
            norm: LayerNorm::new(d, config.norm_eps, device),
            gate: Projection::new(d, config.sizes.len(), DEVIATION, random, device),
            experts: config.sizes.iter().map(|&size| expert(random, size)).collect(),
            assembly: Assembly::new(d, config.norm_eps, random, device),
            sizes: config.sizes.clone(),
            grid: config.grid,
            edge: config.edge,
            jitter: config.jitter,
        }
    }

    /// `jitter`, in training, holds factors of the states that are scored, `[batch, positions, d]`.
    pub fn forward(&self, input: Positions, jitter: Option<Tensor<3>>) -> UnitTokens {
        let Positions { states, lengths, special } = input;
        let normed = self.norm.forward(states.clone());
        let scores = self.scores(normed.clone(), special, jitter);
        let selection = Selection::new(&to_array(scores.clone()).values, &self.sizes, lengths, special);
        let units = selection.by_size(&self.sizes);
        let (aggregated, balance) = self.aggregate(states, normed, scores.clone(), &units);
        let kept = match self.grid {
            Grid::Compact => selection.kept(special, lengths),
            Grid::Sparse => selection.all(lengths),
        };
        let (assembled, real) = self.assemble(aggregated.clone(), &kept, &selection, special);
        UnitTokens { assembled, kept, real, selection, scores, aggregated, balance }
    }

    /// The units of each sequence from left to right.
    fn units(&self, input: &Positions) -> Vec<Vec<UnitSpan>> {
        let scores = self.scores(self.norm.forward(input.states.clone()), input.special, None);
        let [_, positions, sizes] = scores.dims();
        let gates = to_array(softmax(scores.clone(), 2)).values;
        let selection = Selection::new(&to_array(scores).values, &self.sizes, input.lengths, input.special);
        let of = |(sequence, anchors): (usize, &[i32])| -> Vec<UnitSpan> {
            let span = |(at, &expert): (usize, &i32)| {
                let expert = usize::try_from(expert).ok()?;
                let gate = gates[(sequence * positions + at) * sizes + expert];
                Some(UnitSpan { covers: positions_of(at, self.sizes[expert]), anchor: at, expert, gate })
            };
            anchors.iter().enumerate().filter_map(span).collect()
        };
        selection.anchors.chunks(positions.max(1)).enumerate().map(of).collect()
    }

    fn scores(&self, normed: Tensor<3>, special: &[bool], jitter: Option<Tensor<3>>) -> Tensor<3> {
        let [batch, positions, _] = normed.dims();
        let scored: Vec<f32> = special.iter().map(|&special| f32::from(u8::from(!special))).collect();
        let scored = Tensor::<3>::from_data(TensorData::new(scored, [batch, positions, 1]), &normed.device());
        let jittered = match jitter {
            Some(jitter) => normed * jitter,
            None => normed,
        };
        // Without a bias, no score is that of no state.
        self.gate.forward(jittered) * scored
    }

    /// States with the vectors of units at their anchors, each times the probability of its expert there; and the balance.
    fn aggregate(
        &self,
        states: Tensor<3>,
        normed: Tensor<3>,
        scores: Tensor<3>,
        units: &[UnitRows],
    ) -> (Tensor<3>, Tensor<1>) {
        let ([batch, positions, d], device) = (states.dims(), states.device());
        let anchors: Vec<i32> = units.iter().flat_map(|units| units.anchors.iter().copied()).collect();
        if anchors.is_empty() {
            return (states, Tensor::zeros([1], &device));
        }
        let rows = batch * positions;
        let anchors = numbers(&anchors, &device);
        let probabilities = softmax(scores, 2).reshape([rows, self.sizes.len()]).select(0, anchors.clone());
        let covered: Vec<Vec<u32>> = units.iter().map(|units| units.covered.clone()).collect();
        let experts = self.experts.iter().map(Expert::weights).collect();
        let vectors = ops::experts(normed.reshape([rows, d]), experts, &covered);
        let own = units.iter().enumerate().flat_map(|(number, units)| vec![number as i32; units.anchors.len()]);
        let own = numbers(&own.collect::<Vec<_>>(), &device).unsqueeze_dim(1);
        let vectors = vectors * probabilities.clone().gather(1, own);
        let counts: Vec<f32> = units.iter().map(|units| units.anchors.len() as f32).collect();
        let balance = balance(probabilities, &counts);
        let states = states.reshape([rows, d]);
        let aggregated = states.select_assign(0, anchors, vectors, IndexingUpdateOp::Add);
        (aggregated.reshape([batch, positions, d]), balance)
    }

    fn assemble(
        &self,
        aggregated: Tensor<3>,
        kept: &Kept,
        selection: &Selection,
        special: &[bool],
    ) -> (Assembled, Tensor<2>) {
        let ([batch, positions, d], device) = (aggregated.dims(), aggregated.device());
        let row = |(n, &at): (usize, &i32)| usize::try_from(at).ok().map(|at| n / kept.width * positions + at);
        let rows: Vec<Option<usize>> = kept.positions.iter().enumerate().map(row).collect();
        let mask = |holds: &dyn Fn(usize) -> bool| {
            let of = |row: &Option<usize>| f32::from(u8::from(row.is_some_and(holds)));
            let values: Vec<f32> = rows.iter().map(of).collect();
            Tensor::<2>::from_data(TensorData::new(values, [batch, kept.width]), &device)
        };
        let (is_left, is_unit) = (mask(&|_| true), mask(&|row| !special[row] && selection.anchors[row] != NONE));
        let numbered: Vec<i32> = rows.iter().map(|row| row.unwrap_or(0) as i32).collect();
        let packed = aggregated.reshape([batch * positions, d]).select(0, numbers(&numbered, &device));
        let packed = packed.reshape([batch, kept.width, d]) * is_left.clone().unsqueeze_dim(2);
        let tokens = mask(&|row| special[row] || selection.anchors[row] != NONE);
        (self.assembly.forward(packed, is_left, is_unit, self.edge), tokens)
    }
}

/// `n · Σ share · mean probability` over the `n` experts, both at the anchors of all `units` (Switch Transformer, Fedus et al. 2021, eq. 4).
fn balance(probabilities: Tensor<2>, counts: &[f32]) -> Tensor<1> {
    let units: f32 = counts.iter().sum();
    let shares: Vec<f32> = counts.iter().map(|count| count / units * counts.len() as f32).collect();
    let shares = Tensor::<1>::from_data(TensorData::new(shares, [counts.len()]), &probabilities.device());
    (probabilities.mean_dim(0).squeeze_dim::<1>(0) * shares).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector T10 of the project's specification of MxDNA.
    #[test]
    fn balance_is_that_worked_out_by_hand() {
        let device = Device::flex();
        let anchors = Tensor::<2>::from_data([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], &device);
        let found = to_array(balance(softmax(anchors, 1), &[2.0, 1.0, 0.0])).values[0];
        assert!((found - 1.315_812).abs() < 1e-6, "{found}");
    }
}
