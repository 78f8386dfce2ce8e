//! A layer of a transformer encoder.

use burn::prelude::*;

use super::{LayerNorm, Linear};
use crate::ops::{self, AttentionWeights, MlpWeights, Positions};
use crate::seed::Stream;

/// Transformer layer with norms before its parts (Xiong et al. 2020): attention on both sides, then two linear layers.
#[derive(Module, Debug)]
pub struct TransformerLayer {
    /// Norm before attention.
    pub norm1: LayerNorm,
    /// Queries, keys and values of all heads: `d` to `3 d`.
    pub qkv: Linear,
    /// Heads joined: `d` to `d`.
    pub out: Linear,
    /// Norm before the linear layers.
    pub norm2: LayerNorm,
    /// `d` to `d_inner`.
    pub up: Linear,
    /// `d_inner` to `d`.
    pub down: Linear,
    heads: usize,
    #[module(skip)]
    positions: Positions,
    recompute: bool,
}

/// What shapes a [`TransformerLayer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformerShape {
    /// Channels of a hidden state.
    pub d: usize,
    /// Heads of attention, a divisor of `d`.
    pub heads: usize,
    /// Channels between the linear layers.
    pub d_inner: usize,
    /// ε of the layer norms.
    pub eps: f64,
    /// How positions enter attention.
    pub positions: Positions,
    /// Whether the backward pass computes the layer again instead of keeping what it needs.
    pub recompute: bool,
}

impl TransformerLayer {
    /// A fresh layer.
    #[must_use]
    pub fn new(shape: TransformerShape, random: &mut Stream, device: &Device) -> Self {
        let TransformerShape { d, heads, d_inner, eps, positions, recompute } = shape;
        Self {
            norm1: LayerNorm::new(d, eps, device),
            qkv: Linear::new(d, 3 * d, random, device),
            out: Linear::new(d, d, random, device),
            norm2: LayerNorm::new(d, eps, device),
            up: Linear::new(d, d_inner, random, device),
            down: Linear::new(d_inner, d, random, device),
            heads,
            positions,
            recompute,
        }
    }

    /// # Shapes
    /// - `x`, output: `[batch, bases, d]`; the output means nothing at padding
    /// - `mask`: `[batch, bases]`, 1 for a real base, 0 for padding, which is not attended to
    pub fn forward(&self, x: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
        let attention = AttentionWeights {
            gain: self.norm1.weight.val(),
            bias: self.norm1.bias.val(),
            eps: self.norm1.eps,
            qkv: self.qkv.weight.val(),
            qkv_bias: self.qkv.bias.val(),
            qkv_part: None,
            out: self.out.weight.val(),
            out_bias: self.out.bias.val(),
            out_part: None,
            heads: self.heads,
            positions: self.positions,
        };
        let mlp = MlpWeights {
            gain: self.norm2.weight.val(),
            bias: self.norm2.bias.val(),
            eps: self.norm2.eps,
            up: self.up.weight.val(),
            up_bias: self.up.bias.val(),
            up_part: None,
            down: self.down.weight.val(),
            down_bias: self.down.bias.val(),
            down_part: None,
        };
        ops::transformer_layer(x, mask, attention, mlp, self.recompute)
    }
}
