//! Assembly of units to tokens: a deformable convolution over the units of a sequence.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;

use super::DEVIATION;
use crate::layers::{DeformableConv, LayerNorm};
use crate::ops;
use crate::seed::Stream;
use crate::weights::constant;

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

/// A convolution of [`TAPS`] taps over neighbouring rows, 0 beyond the sequence.
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

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let ([batch, rows, d], [d_out, _, taps]) = (x.dims(), self.weight.dims());
        let edge = Tensor::zeros([batch, taps / 2, d], &x.device());
        let wide = Tensor::cat(vec![edge.clone(), x, edge], 1);
        let read = (0..taps).map(|tap| wide.clone().narrow(1, tap, rows)).collect();
        let weight = self.weight.val().swap_dims(1, 2).reshape([d_out, taps * d]);
        ops::linear(Tensor::cat(read, 2), weight, self.bias.val())
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
    /// - `x`: `[batch, units, d]`, rows without anything 0; `is_unit`: `[batch, units]`, 1 or 0
    pub fn forward(&self, x: Tensor<3>, is_unit: Tensor<2>) -> Assembled {
        // A row without anything is the norm's bias here, and still says something of where its neighbour reads.
        let normed = self.norm.forward(x.clone());
        let offsets = self.offset.forward(normed.clone());
        let factors = sigmoid(self.modulation.forward(normed.clone())).mul_scalar(2.0);
        let read = normed * is_unit.unsqueeze_dim(2);
        let hidden = x + self.conv.forward(read, offsets.clone(), factors.clone());
        Assembled { hidden, offsets, factors }
    }
}
