//! Assembly of units to tokens: a deformable convolution over the units of a sequence.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use super::DEVIATION;
use crate::layers::{DeformableConv, LayerNorm};
use crate::ops;
use crate::seed::Stream;
use crate::weights::constant;

/// What the convolutions that place taps see right of a sequence's last token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// Nothing, as left of its first.
    #[default]
    Zero,
    /// The bias of the norm, if another sequence of the batch is longer, as in the published code: the last token depends on the batch.
    Batch,
}

/// Taps of the deformable convolution, and of the plain ones that say where it reads.
const TAPS: usize = 3;

/// Lets each unit read from its neighbourhood, and from further away where that helps.
#[derive(Module, Debug)]
pub struct Assembly {
    /// Norm of what is read.
    pub norm: LayerNorm,
    /// Where each tap reads; begins as 0.
    pub offset: PlainConv,
    /// How strongly, before `2 · sigmoid`; begins as 0.
    pub modulation: PlainConv,
    /// What becomes of it.
    pub conv: DeformableConv,
}

/// A convolution of three taps over neighbouring rows, 0 beyond the sequence.
#[derive(Module, Debug)]
pub struct PlainConv {
    /// `[d_out, d_in, taps]`.
    pub weight: Param<Tensor<3>>,
    /// `[d_out]`.
    pub bias: Param<Tensor<1>>,
}

/// What [`Assembly::forward`] found.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// `[batch, units, d]`.
    pub hidden: Tensor<3>,
    /// `[batch, units, taps]`, in units.
    pub offsets: Tensor<3>,
    /// `[batch, units, taps]`, 0 to 2.
    pub factors: Tensor<3>,
}

impl PlainConv {
    fn new(d: usize, device: &Device) -> Self {
        Self { weight: constant([TAPS, d, TAPS], 0.0, device), bias: constant([TAPS], 0.0, device) }
    }

    /// Several convolutions of the same rows side by side, as one product for all taps and a sum of shifted slices.
    ///
    /// # Shapes
    /// - `x`: `[batch, rows, d_in]`
    /// - output: `[batch, rows, sum of d_out]`
    fn forward_all(convolutions: &[&Self], x: Tensor<3>) -> Tensor<3> {
        let weights = Tensor::cat(convolutions.iter().map(|conv| conv.weight.val()).collect(), 0);
        let bias = Tensor::cat(convolutions.iter().map(|conv| conv.bias.val()).collect(), 0);
        let ([batch, rows, d], [d_out, _, taps]) = (x.dims(), weights.dims());
        let (device, weights) = (x.device(), weights.permute([2, 0, 1]).reshape([taps * d_out, d]));
        let each = ops::linear(x, weights, Tensor::zeros([taps * d_out], &device));
        let edge = Tensor::zeros([batch, taps / 2, taps * d_out], &device);
        let wide = Tensor::cat(vec![edge.clone(), each, edge], 1);
        let tap = |tap: usize| wide.clone().slice([0..batch, tap..tap + rows, tap * d_out..(tap + 1) * d_out]);
        (1..taps).fold(tap(0), |sum, n| sum + tap(n)) + bias.unsqueeze()
    }
}

impl Assembly {
    /// At first a plain convolution.
    #[must_use]
    pub fn new(d: usize, norm_eps: f64, random: &mut Stream, device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(d, norm_eps, device),
            offset: PlainConv::new(d, device),
            modulation: PlainConv::new(d, device),
            conv: DeformableConv::new(d, TAPS, DEVIATION, random, device),
        }
    }

    /// `x` plus what it reads; rows that are no units are not read.
    ///
    /// # Shapes
    /// - `x`: `[batch, units, d]`, rows without anything 0
    /// - `real`, `is_unit`: `[batch, units]`, 1 for a row that is a token, or a unit, else 0
    pub fn forward(&self, x: Tensor<3>, real: Tensor<2>, is_unit: Tensor<2>, edge: Edge) -> Assembled {
        // Of a row without anything the norm leaves its bias.
        let normed = self.norm.forward(x.clone());
        let normed = match edge {
            Edge::Zero => normed * real.unsqueeze_dim(2),
            Edge::Batch => normed,
        };
        let found = PlainConv::forward_all(&[&self.offset, &self.modulation], normed.clone());
        let offsets = found.clone().narrow(2, 0, TAPS);
        let factors = sigmoid(found.narrow(2, TAPS, TAPS)).mul_scalar(2.0);
        let units = normed * is_unit.unsqueeze_dim(2);
        let hidden = x + self.conv.forward(units, offsets.clone(), factors.clone());
        Assembled { hidden, offsets, factors }
    }
}
