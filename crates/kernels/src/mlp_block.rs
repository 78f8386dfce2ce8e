//! The second half of a transformer layer, fused: `x + down(gelu(up(norm(x))))` (pre-norm; Xiong et al. 2020).
//!
//! As in [`conv_block`](crate::conv_block), the wide inner layer exists as strips of a tile only, unless it is kept for the backward
//! pass.

use crate::linear::column_sums;
use crate::mlp::{self, Weights};
use crate::norm::{self, Norm, OwnedNorm};
use crate::product::{Pair, Precision, Saved, Unit};
use crate::rows::{for_overwrite, tile_height, with_scratch};
use rayon::prelude::*;

/// Output for the rows `x [rows, d]`, of the same shape; with `keep` also the input of GELU, `[rows, d_inner]`, which [`backward`] then
/// need not compute again.
///
/// # Panics
/// If the slices do not fit these shapes.
pub fn forward(x: &[f32], norm: Norm, w: Weights, precision: Precision, keep: bool) -> (Vec<f32>, Saved) {
    match precision {
        Precision::F32 => forward_in::<f32>(x, norm, w, keep),
        Precision::Bf16 => forward_in::<Pair>(x, norm, w, keep),
    }
}

fn forward_in<U: Unit>(x: &[f32], norm: Norm, w: Weights, keep: bool) -> (Vec<f32>, Saved) {
    Prepared::<U>::new(norm, w).run(x, keep)
}

/// The block with its weights in the order in which the forward pass reads them, for use many times.
#[derive(Clone, Debug)]
pub struct Prepared<U> {
    norm: OwnedNorm,
    mlp: mlp::Forward<U>,
}

impl<U: Unit> Prepared<U> {
    /// Copies the weights.
    #[must_use]
    pub fn new(norm: Norm, w: Weights) -> Self {
        Self { norm: norm.into(), mlp: mlp::Forward::new(w) }
    }

    /// Output for the rows `x [rows, d]`, of the same shape.
    ///
    /// # Panics
    /// If the slice holds no whole rows.
    #[must_use]
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        self.run(x, false).0
    }

    fn run(&self, x: &[f32], keep: bool) -> (Vec<f32>, Saved) {
        let (norm, mlp) = (self.norm.view(), &self.mlp);
        let (d, d_inner) = (norm.gain.len(), mlp.d_inner());
        let rows = x.len() / d;
        assert_eq!(x.len(), rows * d, "whole rows");
        let (mut out, mut pre) = (for_overwrite(x.len()), Saved::new::<U>(if keep { rows } else { 0 }, d_inner));
        let tile = |x: &[f32], out: &mut [f32], pre: Option<&mut [U]>| {
            let rows = x.len() / d;
            with_scratch([rows * d, mlp.scratch(rows)], |[y, scratch]| {
                norm::forward_rows(norm, x, y);
                mlp.tile(y, x, pre, out, scratch);
            });
        };
        let height = tile_height(rows);
        let tiles = out.par_chunks_mut(height * d).zip(x.par_chunks(height * d));
        if keep {
            let tiles = tiles.zip(pre.units_mut::<U>().par_chunks_mut(height * U::width(d_inner)));
            tiles.for_each(|((out, x), pre)| tile(x, out, Some(pre)));
        } else {
            tiles.for_each(|(out, x)| tile(x, out, None));
        }
        (out, pre)
    }
}

/// Gradients of [`forward`], each in the shape of its argument.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of the rows.
    pub x: Vec<f32>,
    /// Norm gain, `[d]`.
    pub gain: Vec<f32>,
    /// Norm bias, `[d]`.
    pub bias: Vec<f32>,
    /// `[d_inner, d]`.
    pub up: Vec<f32>,
    /// `[d_inner]`.
    pub up_bias: Vec<f32>,
    /// `[d, d_inner]`.
    pub down: Vec<f32>,
    /// `[d]`.
    pub down_bias: Vec<f32>,
}

/// Gradients of [`forward`] at `x` for the output gradient `dout [rows, d]`. `pre` is what the forward pass kept, or empty.
pub fn backward(x: &[f32], norm: Norm, w: Weights, dout: &[f32], pre: &Saved, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(x, norm, w, dout, pre),
        Precision::Bf16 => backward_in::<Pair>(x, norm, w, dout, pre),
    }
}

fn backward_in<U: Unit>(x: &[f32], norm: Norm, w: Weights, dout: &[f32], pre: &Saved) -> Gradients {
    let d = w.d();
    let mut dx = for_overwrite(x.len());
    let mut mlp = mlp::Backward::<U>::new(w, !pre.is_empty());
    let dnorms = mlp.run(
        dout,
        pre,
        &mut dx,
        |first, y, _| norm::forward_rows(norm, &x[first * d..first * d + y.len()], y),
        |first, dy, dx| {
            let at = first * d..first * d + dy.len();
            norm::backward_tile(norm, &x[at.clone()], dy, &dout[at], dx)
        },
    );
    let dnorm = column_sums(&dnorms.concat(), 2 * d);
    let (gain, bias) = dnorm.split_at(d);
    let mlp::Gradients { up, up_bias, down, down_bias } = mlp.finish();
    Gradients { x: dx, gain: gain.to_vec(), bias: bias.to_vec(), up, up_bias, down, down_bias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gelu;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// x, gain, bias, up, its bias, down, its bias.
    fn reference(a: &[Vec<f64>; 7]) -> Vec<f64> {
        let [x, gain, bias, up, up_bias, down, down_bias] = a;
        let d = gain.len();
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut out = Vec::new();
        for x in x.chunks(d) {
            let y = norm::test::reference(x, gain, bias, 1e-3);
            let inner: Vec<f64> =
                up.chunks(d).zip(up_bias).map(|(w, b)| gelu::test::reference(dot(w, &y) + b)).collect();
            out.extend(down.chunks(inner.len()).zip(down_bias).zip(x).map(|((w, b), x)| x + dot(w, &inner) + b));
        }
        out
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let (rows, d, d_inner) = (9, 4, 6);
        let mut seed = 0;
        let a = [rows * d, d, d, d_inner * d, d_inner, d * d_inner, d].map(|size| {
            seed += 1;
            noise(size, seed)
        });
        let wide = a.clone().map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        let [x, gain, bias, up, up_bias, down, down_bias] = &a;
        let norm = Norm { gain, bias, eps: 1e-3 };
        let w = Weights { up, up_bias, down, down_bias };
        let (out, pre) = forward(x, norm, w, Precision::F32, true);
        assert_close(&out, &reference(&wide).iter().map(|&v| v as f32).collect::<Vec<_>>());
        assert!(forward(x, norm, w, Precision::F32, false).0 == out);

        let dout = noise(rows * d, 99);
        let again = backward(x, norm, w, &dout, &Saved::default(), Precision::F32);
        let g = backward(x, norm, w, &dout, &pre, Precision::F32);
        assert!(g.x == again.x && g.up == again.up && g.down == again.down, "kept or computed again, the same bits");
        let found = [g.x, g.gain, g.bias, g.up, g.up_bias, g.down, g.down_bias];
        for (i, gradient) in found.iter().enumerate() {
            assert_gradient(gradient, &a[i], |v| {
                let mut moved = wide.clone();
                moved[i] = v.to_vec();
                reference(&moved).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum()
            });
        }
    }
}
