//! A layer of a transformer encoder.

use burn::prelude::*;

use super::lora::{Adapters, LoraConfig};
use super::{LayerNorm, Linear};
use crate::ops::{self, Activation, AttentionWeights, KeyValues, LowRank, MlpWeights, Positions, Rotation};
use crate::seed::Stream;

/// Transformer layer with norms before its parts (Xiong et al. 2020): attention, on both sides unless it is causal, then two linear layers.
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
    /// Low-rank parts of the weights, absent unless the layer is fine-tuned by them.
    pub lora: Option<Adapters>,
    heads: usize,
    #[module(skip)]
    positions: Positions,
    causal: bool,
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
    /// Whether a position attends to itself and to earlier ones alone.
    pub causal: bool,
    /// Whether the backward pass computes the layer again instead of keeping what it needs.
    pub recompute: bool,
}

/// Rows of a batch whose hidden states are needed.
#[derive(Clone, Debug)]
pub struct TargetRows {
    /// The rows, of the flattened positions.
    pub rows: Tensor<1, Int>,
    /// `[batch, positions]`: 1 for those rows, else 0.
    pub mask: Tensor<2>,
}

impl TransformerLayer {
    /// A fresh layer.
    #[must_use]
    pub fn new(shape: TransformerShape, random: &mut Stream, device: &Device) -> Self {
        let TransformerShape { d, heads, d_inner, eps, positions, causal, recompute } = shape;
        Self {
            norm1: LayerNorm::new(d, eps, device),
            qkv: Linear::new(d, 3 * d, random, device),
            out: Linear::new(d, d, random, device),
            norm2: LayerNorm::new(d, eps, device),
            up: Linear::new(d, d_inner, random, device),
            down: Linear::new(d_inner, d, random, device),
            lora: None,
            heads,
            positions,
            causal,
            recompute,
        }
    }

    /// With fresh adapters in place of those it has, a pure function of the seed and of the number of the layer.
    #[must_use]
    pub fn with_adapters(self, config: &LoraConfig, seed: u64, layer: u64) -> Self {
        let [d_inner, d] = self.up.weight.dims();
        let adapters = Adapters::new(config, [d, d_inner], seed, layer, &self.up.weight.device());
        Self { lora: Some(adapters), ..self }
    }

    /// The same parameters with input channels of the adapters dropped anew.
    #[must_use]
    pub fn with_dropped_adapters(&self, random: &mut Stream) -> Self {
        Self { lora: self.lora.as_ref().map(|adapters| adapters.dropped(random)), ..self.clone() }
    }

    /// With its adapters folded into the weights.
    #[must_use]
    pub fn merged(self) -> Self {
        let merge = |linear: Linear, part: Option<LowRank>| match part {
            Some(part) => linear.merged(part),
            None => linear,
        };
        let [qkv, out, up, down] = self.low_rank();
        Self {
            qkv: merge(self.qkv, qkv),
            out: merge(self.out, out),
            up: merge(self.up, up),
            down: merge(self.down, down),
            lora: None,
            ..self
        }
    }

    /// Low-rank parts of `qkv`, `out`, `up` and `down`.
    fn low_rank(&self) -> [Option<LowRank>; 4] {
        self.lora.as_ref().map(Adapters::low_rank).unwrap_or_default()
    }

    /// # Shapes
    /// - `x`, output: `[batch, bases, d]`; the output means nothing at padding
    /// - `mask`: `[batch, bases]`, 1 for a real base, 0 for padding, which is not attended to
    pub fn forward(&self, x: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
        let [qkv_part, out_part, up_part, down_part] = self.low_rank();
        let attention = AttentionWeights {
            gain: self.norm1.weight.val(),
            bias: self.norm1.bias.val(),
            eps: self.norm1.eps,
            qkv: self.qkv.weight.val(),
            qkv_bias: self.qkv.bias.val(),
            qkv_part,
            out: self.out.weight.val(),
            out_bias: self.out.bias.val(),
            out_part,
            heads: self.heads,
            positions: self.positions,
            causal: self.causal,
        };
        ops::transformer_layer(x, mask, attention, self.mlp_weights([up_part, down_part]), self.recompute)
    }

    /// [`TransformerLayer::forward`] at some rows alone, which is all that is needed of a last layer: the others have keys and values, and
    /// nothing else is computed of them.
    ///
    /// # Shapes
    /// - `x`: `[batch, bases, d]`; `mask`: `[batch, bases]`
    /// - output: `[rows, d]`
    pub fn forward_at(&self, x: Tensor<3>, mask: Tensor<2>, targets: &TargetRows) -> Tensor<2> {
        let [batch, bases, d] = x.dims();
        let at = |all: Tensor<3>| all.reshape([batch * bases, d]).select(0, targets.rows.clone());
        let is_plain = !self.recompute && !self.causal && self.lora.is_none() && targets.rows.dims()[0] > 0;
        let rotation = match self.positions {
            Positions::Rotary { theta } if is_plain => Rotation { heads: self.heads, theta },
            _ => return at(self.forward(x, mask)),
        };
        let qkv = self.qkv.forward(self.norm1.forward(x.clone()));
        let places = Tensor::<1, Int>::arange(0..bases as i64, &qkv.device()).unsqueeze_dim::<2>(0);
        let attended = ops::attend(qkv, targets.mask.clone(), mask, places.expand([batch, bases]), rotation);
        let rows = at(x).unsqueeze_dim(0) + self.out.forward(at(attended).unsqueeze_dim(0));
        ops::mlp(rows, self.mlp_weights([None, None])).squeeze_dim(0)
    }

    /// Keys and values of no position yet, for [`TransformerLayer::extend`].
    #[must_use]
    pub fn key_values(&self, capacity: usize) -> KeyValues {
        KeyValues::new(capacity, self.heads, self.out.weight.dims()[0], self.positions)
    }

    /// [`TransformerLayer::forward`] of a causal layer at positions that follow those of which keys and values are kept.
    ///
    /// # Shapes
    /// - `x`, output: `[1, positions, d]`
    ///
    /// # Panics
    /// If the layer is not causal, has adapters, or there would be more positions than there is room for.
    pub fn extend(&self, x: Tensor<3>, kept: &mut KeyValues) -> Tensor<3> {
        assert!(self.causal && self.lora.is_none(), "a causal layer without adapters");
        let attended = kept.attend(self.qkv.forward(self.norm1.forward(x.clone())));
        ops::mlp(x + self.out.forward(attended), self.mlp_weights([None, None]))
    }

    fn mlp_weights(&self, [up_part, down_part]: [Option<LowRank>; 2]) -> MlpWeights {
        MlpWeights {
            gain: self.norm2.weight.val(),
            bias: self.norm2.bias.val(),
            eps: self.norm2.eps,
            up: self.up.weight.val(),
            up_bias: self.up.bias.val(),
            up_part,
            down: self.down.weight.val(),
            down_bias: self.down.bias.val(),
            down_part,
            activation: Activation::Gelu,
        }
    }
}
