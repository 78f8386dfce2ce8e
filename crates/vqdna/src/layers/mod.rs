//! Layers of all networks, with PyTorch's weight layouts and initialisation, on [`crate::ops`].

mod deformable;
mod gated;
pub mod lora;
mod transformer;

use burn::module::Param;
use burn::prelude::*;

use crate::ops::{self, ConvBlockWeights, LowRank};
use crate::seed::Stream;
use crate::weights::{constant, normal, replace, uniform};

pub use deformable::DeformableConv;
pub use gated::{Attention, FeedForward, GatedLayer, GatedShape, Rows};
pub use transformer::{TargetRows, TransformerLayer, TransformerShape};

/// `x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_out, d_in]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Drawn uniformly from ±1/√`d_in`.
    #[must_use]
    pub fn new(d_in: usize, d_out: usize, random: &mut Stream, device: &Device) -> Self {
        let bound = 1.0 / (d_in as f64).sqrt();
        Self { weight: uniform([d_out, d_in], bound, random, device), bias: uniform([d_out], bound, random, device) }
    }

    /// # Shapes
    /// - `x`: `[batch, bases, d_in]`
    /// - output: `[batch, bases, d_out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::linear(x, self.weight.val(), self.bias.val())
    }

    /// `gelu(x · weightᵀ + bias)`; shapes as for [`Linear::forward`].
    pub fn forward_gelu(&self, x: Tensor<3>) -> Tensor<3> {
        ops::linear_gelu(x, self.weight.val(), self.bias.val())
    }

    /// The layer with a low-rank part added to its weight.
    fn merged(self, part: LowRank) -> Self {
        let merge = |old: Tensor<2>| {
            let is_autodiff = old.is_autodiff();
            let new = ops::merged(old, part);
            if is_autodiff { new.autodiff() } else { new }
        };
        Self { weight: replace(self.weight, merge), ..self }
    }
}

/// `x · weightᵀ`: a linear layer without bias.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[d_out, d_in]`.
    pub weight: Param<Tensor<2>>,
}

impl Projection {
    /// Drawn from a normal distribution around 0.
    #[must_use]
    pub fn new(d_in: usize, d_out: usize, deviation: f64, random: &mut Stream, device: &Device) -> Self {
        Self { weight: normal([d_out, d_in], deviation, random, device) }
    }

    /// # Shapes
    /// - `x`: `[batch, positions, d_in]`
    /// - output: `[batch, positions, d_out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        unbiased(x, self.weight.val())
    }
}

/// `x · weightᵀ`.
fn unbiased(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let bias = Tensor::zeros([weight.dims()[0]], &x.device());
    ops::linear(x, weight, bias)
}

/// Gain and bias of a layer norm over channels.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Gain, `[d]`.
    pub weight: Param<Tensor<1>>,
    /// Bias, `[d]`.
    pub bias: Param<Tensor<1>>,
    pub(crate) eps: f64,
}

impl LayerNorm {
    /// Gain 1, bias 0.
    #[must_use]
    pub fn new(d: usize, eps: f64, device: &Device) -> Self {
        Self { weight: constant([d], 1.0, device), bias: constant([d], 0.0, device), eps }
    }

    /// # Shapes
    /// - `x`, output: `[batch, bases, d]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// `gelu(norm(x))`.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, bases, d]`
    pub fn forward_gelu(&self, x: Tensor<3>) -> Tensor<3> {
        ops::norm_gelu(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Weights of a convolution over bases, with an odd kernel and as many positions out as in.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[d_out, d_in / groups, kernel]`.
    pub weight: Param<Tensor<3>>,
    /// `[d_out]`.
    pub bias: Param<Tensor<1>>,
}

impl Conv {
    /// Drawn uniformly from ±1/√(`d_in` / groups · kernel).
    #[must_use]
    pub fn new(shape: [usize; 3], random: &mut Stream, device: &Device) -> Self {
        let bound = 1.0 / ((shape[1] * shape[2]) as f64).sqrt();
        Self { weight: uniform(shape, bound, random, device), bias: uniform([shape[0]], bound, random, device) }
    }

    /// Convolution of one-hot bases; N and padding are all-zero.
    ///
    /// # Shapes
    /// - `bases`: `[batch, bases]`
    /// - output: `[batch, bases, d_out]`
    pub fn forward_one_hot(&self, bases: Tensor<2, Int>) -> Tensor<3> {
        ops::stem(bases, self.weight.val(), self.bias.val())
    }

    /// Convolution to a few channels, as one product for all taps and a sum of shifted slices.
    ///
    /// # Shapes
    /// - `x`: `[batch, bases, d_in]`, zero at padding
    /// - output: `[batch, bases, d_out]`
    pub fn forward_narrow(&self, x: Tensor<3>) -> Tensor<3> {
        let [d_out, d_in, kernel] = self.weight.dims();
        let [batch, bases, _] = x.dims();
        let device = self.weight.device();
        let taps = self.weight.val().permute([2, 0, 1]).reshape([kernel * d_out, d_in]);
        let each = ops::linear(x, taps, Tensor::zeros([kernel * d_out], &device)); // [batch, bases, kernel * d_out]
        let edge = Tensor::zeros([batch, kernel / 2, kernel * d_out], &each.device());
        let padded = Tensor::cat(vec![edge.clone(), each, edge], 1);
        let tap = |k: usize| padded.clone().slice([0..batch, k..k + bases, k * d_out..(k + 1) * d_out]);
        (1..kernel).fold(tap(0), |sum, k| sum + tap(k)) + self.bias.val().unsqueeze()
    }
}

/// ConvNeXt block in one dimension (Liu et al. 2022): depth-wise convolution, norm, two linear layers, residual.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// Depth-wise convolution, `[d, 1, kernel]`.
    pub dw: Conv,
    /// Norm after it.
    pub norm: LayerNorm,
    /// `d` to `4 d`.
    pub up: Linear,
    /// `4 d` to `d`.
    pub down: Linear,
}

impl ConvBlock {
    /// A block of width `d`.
    #[must_use]
    pub fn new(d: usize, kernel: usize, eps: f64, random: &mut Stream, device: &Device) -> Self {
        Self {
            dw: Conv::new([d, 1, kernel], random, device),
            norm: LayerNorm::new(d, eps, device),
            up: Linear::new(d, 4 * d, random, device),
            down: Linear::new(4 * d, d, random, device),
        }
    }

    /// # Shapes
    /// - `x`, output: `[batch, bases, d]`
    /// - `mask`: `[batch, bases]`, 1 for a real base, 0 for padding, which the convolution does not see
    pub fn forward(&self, x: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
        let weights = ConvBlockWeights {
            conv: self.dw.weight.val(),
            conv_bias: self.dw.bias.val(),
            gain: self.norm.weight.val(),
            bias: self.norm.bias.val(),
            eps: self.norm.eps,
            up: self.up.weight.val(),
            up_bias: self.up.bias.val(),
            down: self.down.weight.val(),
            down_bias: self.down.bias.val(),
        };
        ops::conv_block(x, mask, weights)
    }
}
