//! Encoder layer of MxDNA: norms before its parts, attention with rotary positions, a gated feed-forward part (`SwiGLU`; Shazeer 2020), and
//! no biases but those of the norms.

use burn::prelude::*;

use super::{LayerNorm, Projection};
use crate::ops::{self, Activation, AttentionWeights, MlpWeights, Positions, Rotation};
use crate::seed::Stream;

/// What shapes a [`GatedLayer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatedShape {
    /// Channels of a hidden state.
    pub d: usize,
    /// Heads of attention, a divisor of `d`.
    pub heads: usize,
    /// Channels of the feed-forward part.
    pub d_inner: usize,
    /// ε of the layer norms.
    pub eps: f64,
    /// Base of the wavelengths of rotary positions.
    pub theta: f64,
    /// Deviation of fresh weights.
    pub deviation: f64,
}

/// Attention, then the feed-forward part, each beside a residual path.
#[derive(Module, Debug)]
pub struct GatedLayer {
    /// Norm before attention; across sequences that of queries, keys and values alike.
    pub attn_norm: LayerNorm,
    /// Attention.
    pub attn: Attention,
    /// Norm before the feed-forward part.
    pub ffn_norm: LayerNorm,
    /// The feed-forward part.
    pub ffn: FeedForward,
}

/// Projections of attention, `d` to `d`, heads side by side.
#[derive(Module, Debug)]
pub struct Attention {
    /// To queries.
    pub q: Projection,
    /// To keys.
    pub k: Projection,
    /// To values.
    pub v: Projection,
    /// Of what was attended to.
    pub o: Projection,
    heads: usize,
    theta: f64,
}

/// `down(silu(gate(x)) · up(x))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `d` to `d_inner`, through the activation.
    pub gate: Projection,
    /// `d` to `d_inner`.
    pub up: Projection,
    /// `d_inner` to `d`.
    pub down: Projection,
}

/// Rows of sequences, and where they stand.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[batch, rows, d]`.
    pub states: Tensor<3>,
    /// `[batch, rows]`, 1 for a real row, 0 for padding.
    pub real: Tensor<2>,
    /// `[batch, rows]`, in positions; none for 0, 1, 2 and so on.
    pub places: Option<Tensor<2, Int>>,
}

impl GatedLayer {
    /// A fresh layer.
    #[must_use]
    pub fn new(shape: GatedShape, random: &mut Stream, device: &Device) -> Self {
        let GatedShape { d, heads, d_inner, eps, theta, deviation } = shape;
        let mut projection = |d_in, d_out| Projection::new(d_in, d_out, deviation, random, device);
        Self {
            attn_norm: LayerNorm::new(d, eps, device),
            attn: Attention {
                q: projection(d, d),
                k: projection(d, d),
                v: projection(d, d),
                o: projection(d, d),
                heads,
                theta,
            },
            ffn_norm: LayerNorm::new(d, eps, device),
            ffn: FeedForward { gate: projection(d, d_inner), up: projection(d, d_inner), down: projection(d_inner, d) },
        }
    }

    /// Hidden states after the layer; those at padding mean nothing.
    ///
    /// # Shapes
    /// - output: `[batch, rows, d]`
    pub fn forward(&self, rows: Rows) -> Tensor<3> {
        self.feed_forward(self.attn.among(rows, &self.attn_norm))
    }

    /// Hidden states of `rows` after attention to `others` in place of themselves.
    ///
    /// # Shapes
    /// - output: as the states of `rows`
    pub fn across(&self, rows: Rows, others: Rows) -> Tensor<3> {
        let normed = |rows: Rows| Rows { states: self.attn_norm.forward(rows.states), ..rows };
        let attended = self.attn.between(normed(rows.clone()), normed(others));
        self.feed_forward(rows.states + attended)
    }

    /// The feed-forward part beside its residual path.
    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (norm, ffn) = (&self.ffn_norm, &self.ffn);
        let (up, up_bias) = ops::joined(vec![ffn.gate.weight.val(), ffn.up.weight.val()]);
        let (down, down_bias) = ops::joined(vec![ffn.down.weight.val()]);
        let weights = MlpWeights {
            gain: norm.weight.val(),
            bias: norm.bias.val(),
            eps: norm.eps,
            up,
            up_bias,
            up_part: None,
            down,
            down_bias,
            down_part: None,
            activation: Activation::SwiGlu,
        };
        ops::mlp(x, weights)
    }
}

impl Attention {
    /// States plus attention of the rows of a sequence to each other.
    fn among(&self, rows: Rows, norm: &LayerNorm) -> Tensor<3> {
        let (qkv, qkv_bias) = self.qkv();
        let (out, out_bias) = ops::joined(vec![self.o.weight.val()]);
        let weights = AttentionWeights {
            gain: norm.weight.val(),
            bias: norm.bias.val(),
            eps: norm.eps,
            qkv,
            qkv_bias,
            qkv_part: None,
            out,
            out_bias,
            out_part: None,
            heads: self.heads,
            positions: Positions::Rotary { theta: self.theta },
            causal: false,
        };
        match rows.places {
            None => ops::attention(rows.states, rows.real, weights),
            Some(places) => ops::attention_at(rows.states, rows.real, places, weights),
        }
    }

    /// Queries, keys and values, one below the other, and a bias of zeros.
    fn qkv(&self) -> (Tensor<2>, Tensor<1>) {
        ops::joined([&self.q, &self.k, &self.v].map(|projection| projection.weight.val()).to_vec())
    }

    fn rotation(&self) -> Rotation {
        Rotation { heads: self.heads, theta: self.theta }
    }

    /// Attention of rows to others, wherever they stand.
    fn between(&self, rows: Rows, others: Rows) -> Tensor<3> {
        let ([batch, asking, d], [_, asked, _]) = (rows.states.dims(), others.states.dims());
        let device = rows.states.device();
        let none = |rows, width| Tensor::<3>::zeros([batch, rows, width], &device);
        let queries = Tensor::cat(vec![self.q.forward(rows.states), none(asking, 2 * d)], 2);
        let (weight, bias) = ops::joined(vec![self.k.weight.val(), self.v.weight.val()]);
        let keys = Tensor::cat(vec![none(asked, d), ops::linear(others.states, weight, bias)], 2);
        // Both one after another, with a mask for each role.
        let mask = |first: Tensor<2>, second: Tensor<2>| Tensor::cat(vec![first, second], 1);
        let no = |rows| Tensor::<2>::zeros([batch, rows], &device);
        let places = |places: Option<Tensor<2, Int>>, rows: usize| {
            places.unwrap_or_else(|| {
                let places = Tensor::<1, Int>::arange(0..rows as i64, &device);
                places.unsqueeze_dim::<2>(0).expand([batch, rows])
            })
        };
        let places = Tensor::cat(vec![places(rows.places, asking), places(others.places, asked)], 1);
        let qkv = Tensor::cat(vec![queries, keys], 1);
        let attended =
            ops::attend(qkv, mask(rows.real, no(asked)), mask(no(asking), others.real), places, self.rotation());
        self.o.forward(attended.narrow(1, 0, asking))
    }
}
