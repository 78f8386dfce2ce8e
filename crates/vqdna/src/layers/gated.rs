//! Encoder layer of MxDNA: norms before its parts, attention with rotary positions, a gated feed-forward part (`SwiGLU`; Shazeer 2020), and
//! no biases but those of the norms.

use burn::prelude::*;
use burn::tensor::activation::softmax;

use super::{LayerNorm, Projection, unbiased};
use crate::ops::{self, AttentionWeights, Gate, Positions};
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
    pub places: Option<Tensor<2>>,
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
        let x = if rows.places.is_none() {
            self.attn.among(rows.states, rows.real, &self.attn_norm)
        } else {
            let normed = Rows { states: self.attn_norm.forward(rows.states.clone()), ..rows };
            rows.states + self.attn.between(normed.clone(), normed)
        };
        self.feed_forward(x)
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

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        x.clone() + self.ffn.forward(self.ffn_norm.forward(x))
    }
}

impl Attention {
    /// `x` plus attention of the rows of a sequence to each other, at 0, 1, 2 and so on.
    fn among(&self, x: Tensor<3>, real: Tensor<2>, norm: &LayerNorm) -> Tensor<3> {
        let ([_, _, d], device) = (x.dims(), x.device());
        let projections = [&self.q, &self.k, &self.v].map(|projection| projection.weight.val());
        let weights = AttentionWeights {
            gain: norm.weight.val(),
            bias: norm.bias.val(),
            eps: norm.eps,
            qkv: Tensor::cat(projections.to_vec(), 0),
            qkv_bias: Tensor::zeros([3 * d], &device),
            qkv_part: None,
            out: self.o.weight.val(),
            out_bias: Tensor::zeros([d], &device),
            out_part: None,
            heads: self.heads,
            positions: Positions::Rotary { theta: self.theta },
        };
        ops::attention(x, real, weights)
    }

    /// Attention of rows to others, wherever they stand. The scores of all exist at once.
    fn between(&self, rows: Rows, others: Rows) -> Tensor<3> {
        let [batch, count, d] = rows.states.dims();
        let d_head = d / self.heads;
        let heads = |x: Tensor<3>| {
            let [_, rows, _] = x.dims();
            x.reshape([batch, rows, self.heads, d_head]).swap_dims(1, 2)
        };
        let q = self.rotated(heads(self.q.forward(rows.states)), rows.places);
        let k = self.rotated(heads(self.k.forward(others.states.clone())), others.places);
        let v = heads(self.v.forward(others.states));
        // Finite, so that a sequence of nothing but padding has a softmax; far below any score.
        let padding = (others.real - 1.0).mul_scalar(1e9).unsqueeze_dims::<4>(&[1, 2]);
        let scores = q.mul_scalar(1.0 / (d_head as f64).sqrt()).matmul(k.transpose()) + padding;
        self.o.forward(softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch, count, d]))
    }

    /// Turns the pairs (i, i + `d_head` / 2) of `[batch, heads, rows, d_head]` by their places.
    fn rotated(&self, x: Tensor<4>, places: Option<Tensor<2>>) -> Tensor<4> {
        let ([_, _, rows, d_head], device) = (x.dims(), x.device());
        let half = d_head / 2;
        let places =
            places.unwrap_or_else(|| Tensor::<1, Int>::arange(0..rows as i64, &device).float().unsqueeze_dim::<2>(0));
        let speed = |pair: usize| self.theta.powf(-2.0 * pair as f64 / d_head as f64) as f32;
        let speeds: Vec<f32> = (0..half).map(speed).collect();
        let speeds = Tensor::<4>::from_data(TensorData::new(speeds, [1, 1, 1, half]), &device);
        let angles = places.unsqueeze_dims::<4>(&[1, 3]) * speeds;
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let turned = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![turned, b * cos + a * sin], 3)
    }
}

impl FeedForward {
    /// # Shapes
    /// - `x`, output: `[batch, rows, d]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let both = unbiased(x, Tensor::cat(vec![self.gate.weight.val(), self.up.weight.val()], 0));
        self.down.forward(ops::glu(both, Gate::Silu))
    }
}
