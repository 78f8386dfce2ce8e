//! The block of the tokenizer's encoder and decoder, fused: `x + down(gelu(up(norm(conv(x · mask)))))`.
//!
//! A ConvNeXt block (Liu et al. 2022) in one dimension: depth-wise convolution, layer norm, two products with GELU between,
//! residual. The forward pass keeps only a tile of the wide inner layer; the backward pass computes it again from `x`.

mod depthwise;

use crate::fresh::{self, Out};
use crate::linear;
use crate::mlp::{self, Kept};
use crate::norm::{self, Norm, OwnedNorm};
use crate::product::{Pair, Precision, Saved, Unit, transpose};
use crate::rows::{tile_heights, with_scratch};
use crate::shape::{fits, positive, sequences, width_of};
use depthwise::{Convolution, backward_input, backward_weights};

/// Rows as `[batch, length, d]`, and which of them are real.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `[batch * length, d]`.
    pub x: &'a [f32],
    /// `[batch * length]`: 1 for a real position, 0 for padding, which the convolution does not see.
    pub mask: &'a [f32],
    /// Positions of one sequence.
    pub length: usize,
}

impl Input<'_> {
    fn check(&self, d: usize) {
        fits("x", self.x, &[self.mask.len(), d]);
        sequences("mask", self.mask, self.length);
    }
}

/// Weights of the block.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `[d, 1, kernel]`, with an odd kernel.
    pub conv: &'a [f32],
    /// `[d]`.
    pub conv_bias: &'a [f32],
    /// Layer norm after the convolution.
    pub norm: Norm<'a>,
    /// The linear layers.
    pub mlp: mlp::Weights<'a>,
}

impl Weights<'_> {
    /// Width of a row, if all shapes fit.
    fn check(&self) -> usize {
        let d = self.d();
        positive("conv_bias", d);
        let kernel = width_of("conv", self.conv, d);
        assert!(kernel % 2 == 1, "`conv` has a kernel of {kernel}, but it must be odd");
        self.norm.check(d);
        self.mlp.check(d);
        d
    }

    fn d(&self) -> usize {
        self.conv_bias.len()
    }

    /// The depth-wise weights as `[kernel, d]`.
    fn taps(&self) -> Vec<f32> {
        transpose(self.conv, self.d(), self.conv.len() / self.d())
    }
}

/// Output of the block, `[batch * length, d]`. Rows of padding are computed too; nothing reads them.
///
/// With `keep`, the input of GELU for all rows, `[batch * length, d_inner]`, comes with it: [`backward`] need not compute it again.
///
/// # Panics
/// If a slice does not fit the shapes of [`Input`] and [`Weights`], a size is 0, or the kernel is even.
pub fn forward(input: Input, w: Weights, precision: Precision, keep: bool) -> (Vec<f32>, Saved) {
    match precision {
        Precision::F32 => forward_in::<f32>(input, w, keep),
        Precision::Bf16 => forward_in::<Pair>(input, w, keep),
    }
}

fn forward_in<U: Unit>(input: Input, w: Weights, keep: bool) -> (Vec<f32>, Saved) {
    input.check(w.check());
    Prepared::<U>::new(w).run(input, keep)
}

/// The block with its weights in the order in which the forward pass reads them, for use many times.
#[derive(Clone, Debug)]
pub struct Prepared<U> {
    conv: Convolution,
    norm: OwnedNorm,
    mlp: mlp::Forward<U>,
}

impl<U: Unit> Prepared<U> {
    /// Copies the weights.
    ///
    /// # Panics
    /// If they do not fit the shapes of [`Weights`], a size is 0, or the kernel is even.
    #[must_use]
    pub fn new(w: Weights) -> Self {
        w.check();
        Self {
            conv: Convolution { taps: w.taps(), bias: w.conv_bias.to_vec() },
            norm: w.norm.into(),
            mlp: mlp::Forward::new(w.mlp),
        }
    }

    /// Output of the block, `[batch * length, d]`.
    ///
    /// # Panics
    /// If a slice does not fit the shapes of [`Input`] and of the weights.
    #[must_use]
    pub fn forward(&self, input: Input) -> Vec<f32> {
        input.check(self.conv.bias.len());
        self.run(input, false).0
    }

    /// With `keep` also the input of GELU.
    fn run(&self, input: Input, keep: bool) -> (Vec<f32>, Saved) {
        let (d, rows) = (self.conv.bias.len(), input.mask.len());
        let norm = self.norm.view();
        let heights = tile_heights(rows);
        let firsts = heights.iter().scan(0, |next, height| Some(std::mem::replace(next, *next + height)));
        let run = |kept: Option<&Kept<U>>| {
            fresh::tiles(&heights, d, firsts, |out, first| {
                let rows = out.len() / d;
                with_scratch([rows * d, self.mlp.scratch(rows)], |[y, scratch]| {
                    self.conv.rows(input, first, Out::over(y));
                    norm::in_place(norm, y);
                    let x = &input.x[first * d..(first + rows) * d];
                    // SAFETY: tiles have no row in common, and each comes once.
                    (unsafe { self.mlp.tile(y, x, kept.map(|kept| (kept, first)), out, scratch) }, ())
                })
            })
        };
        let ((out, _), pre) = mlp::keeping(keep, rows, self.mlp.d_inner(), run);
        (out, pre)
    }
}

/// Gradients of [`forward`], each in the shape of its argument.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of the rows.
    pub x: Vec<f32>,
    /// `[d, 1, kernel]`.
    pub conv: Vec<f32>,
    /// `[d]`.
    pub conv_bias: Vec<f32>,
    /// Norm gain, `[d]`.
    pub gain: Vec<f32>,
    /// Norm bias, `[d]`.
    pub bias: Vec<f32>,
    /// `[d_inner, d]` and `[d_inner]`, always found.
    pub up: linear::Gradients,
    /// `[d, d_inner]` and `[d]`, always found.
    pub down: linear::Gradients,
}

/// Gradients of [`forward`] at `input` for the output gradient `dout [batch * length, d]`. `pre` is what the forward pass kept in the same
/// precision, or empty.
///
/// # Panics
/// As [`forward`], and if `dout` or `pre` does not fit.
pub fn backward(input: Input, w: Weights, dout: &[f32], pre: &Saved, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(input, w, dout, pre),
        Precision::Bf16 => backward_in::<Pair>(input, w, dout, pre),
    }
}

fn backward_in<U: Unit>(input: Input, w: Weights, dout: &[f32], pre: &Saved) -> Gradients {
    let d = w.check();
    input.check(d);
    fits("dout", dout, &[input.mask.len(), d]);
    if !pre.is_empty() {
        fits("pre", pre.units::<U>(), &[w.mlp.d_inner(), U::width(input.mask.len())]);
    }
    let conv = Convolution { taps: w.taps(), bias: w.conv_bias.to_vec() };
    let all = mlp::Wanted { y: true, up: linear::Wanted::ALL, down: linear::Wanted::ALL };
    let mut mlp = mlp::Backward::<U>::new(w.mlp, all, !pre.is_empty());
    let (_, dnorms, ((conv, conv_bias), x)) = mlp.run(
        dout,
        pre,
        |first, y, conv_rows| {
            conv.rows(input, first, Out::fresh(conv_rows));
            // SAFETY: all of them were just put.
            let conv_rows = unsafe { conv_rows.assume_init_mut() };
            norm::forward_rows(w.norm, conv_rows, y);
        },
        |_, dy, conv_rows| {
            // SAFETY: the rows of a tile, which the closure before this one put all of: `run` hands both the same.
            let conv_rows = unsafe { conv_rows.assume_init_mut() };
            let mut dnorm = vec![0.0; 2 * d];
            let (dgain, dbias) = dnorm.split_at_mut(d);
            norm::backward_in_place(w.norm, conv_rows, dy, dgain, dbias);
            (conv_rows, dnorm)
        },
        |dconv| {
            rayon::join(
                || backward_weights(input, dconv, conv.kernel(), d),
                || backward_input(input, dconv, &conv, dout),
            )
        },
    );
    let [gain, bias] = norm::sum_tiles(&dnorms, d);
    let mlp::Gradients { up, down } = mlp.finish();
    Gradients { x, conv, conv_bias, gain, bias, up, down }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gelu;
    use crate::product::TILE;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// The nine arguments that have a gradient, in the order of the fields of [`Gradients`].
    type Arguments = [Vec<f32>; 9];

    const EPS: f32 = 1e-3;

    fn arguments(rows: usize, d: usize, kernel: usize, d_inner: usize) -> Arguments {
        let sizes = [rows * d, d * kernel, d, d, d, d_inner * d, d_inner, d * d_inner, d];
        let mut seed = 0;
        sizes.map(|size| {
            seed += 1;
            noise(size, seed)
        })
    }

    fn weights(a: &Arguments) -> Weights<'_> {
        let [_, conv, conv_bias, gain, bias, up, up_bias, down, down_bias] = a;
        let norm = Norm { gain, bias, eps: EPS };
        Weights {
            conv,
            conv_bias,
            norm,
            mlp: mlp::Weights { up, up_bias, down, down_bias, activation: mlp::Activation::Gelu },
        }
    }

    /// The block in double precision, position by position.
    fn reference(a: &[Vec<f64>; 9], mask: &[f32], length: usize) -> Vec<f64> {
        let [x, conv, conv_bias, gain, bias, up, up_bias, down, down_bias] = a;
        let (d, kernel) = (conv_bias.len(), conv.len() / conv_bias.len());
        let mut out = Vec::new();
        for row in 0..x.len() / d {
            let (start, at) = (row / length * length, (row % length) as isize);
            let tap = |c: usize, k: usize| {
                let n = usize::try_from(at + k as isize - (kernel / 2) as isize).ok().filter(|&n| n < length)?;
                Some(conv[c * kernel + k] * x[(start + n) * d + c] * f64::from(mask[start + n]))
            };
            let y: Vec<f64> =
                (0..d).map(|c| conv_bias[c] + (0..kernel).filter_map(|k| tap(c, k)).sum::<f64>()).collect();
            let y = norm::test::reference(&y, gain, bias, f64::from(EPS));
            let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            let inner: Vec<f64> =
                up.chunks(d).zip(up_bias).map(|(w, b)| gelu::test::reference(dot(w, &y) + b)).collect();
            let residual = &x[row * d..];
            out.extend(down.chunks(inner.len()).zip(down_bias).zip(residual).map(|((w, b), x)| x + dot(w, &inner) + b));
        }
        out
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        // Two sequences of five, the second with two positions of padding; one sequence shorter than the kernel.
        for (length, mask, kernel) in [(5, vec![1., 1., 1., 1., 1., 1., 1., 1., 0., 0.], 3), (2, vec![1.0; 2], 7)] {
            let (d, d_inner) = (4, 6);
            let a = arguments(mask.len(), d, kernel, d_inner);
            let wide: [Vec<f64>; 9] = a.clone().map(|v| v.iter().map(|&v| f64::from(v)).collect());
            let input = Input { x: &a[0], mask: &mask, length };
            let want: Vec<f32> = reference(&wide, &mask, length).iter().map(|&v| v as f32).collect();
            let dout = noise(a[0].len(), 99);
            let (out, pre) = forward(input, weights(&a), Precision::F32, true);
            assert_close(&out, &want);
            let (same, nothing) = forward(input, weights(&a), Precision::F32, false);
            assert!(same == out && nothing.is_empty());
            let g = backward(input, weights(&a), &dout, &pre, Precision::F32);
            let again = backward(input, weights(&a), &dout, &Saved::default(), Precision::F32);
            assert!(
                g.x == again.x && g.up == again.up && g.down == again.down,
                "kept or computed again, the same bits"
            );
            let linear = [g.up.weight, g.up.bias, g.down.weight, g.down.bias].map(Option::unwrap);
            let found = [g.x, g.conv, g.conv_bias, g.gain, g.bias].into_iter().chain(linear);
            for (i, gradient) in found.enumerate() {
                assert_gradient(&gradient, &a[i], |v| {
                    let mut moved = wide.clone();
                    moved[i] = v.to_vec();
                    reference(&moved, &mask, length).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum()
                });
            }
        }
    }

    #[test]
    fn a_position_has_the_same_bits_in_a_piece_as_in_the_whole() {
        let (length, d, kernel, halo) = (3 * TILE + 17, 32, 7, 3);
        let a = arguments(length, d, kernel, 4 * d);
        let mask = vec![1.0; length];
        let run = |input| forward(input, weights(&a), Precision::F32, false).0;
        let whole = run(Input { x: &a[0], mask: &mask, length });
        for (start, end) in [(0, 10), (5, 2 * TILE), (TILE - 1, 2 * TILE + 9), (2 * TILE + 50, length)] {
            let (left, right) = (start.max(halo) - halo, (end + halo).min(length));
            let piece = Input { x: &a[0][left * d..right * d], mask: &mask[left..right], length: right - left };
            let out = run(piece);
            assert!(whole[start * d..end * d] == out[(start - left) * d..(end - left) * d], "{start}..{end}");
        }
    }

    #[test]
    fn results_do_not_depend_on_the_threads() {
        let (length, d) = (2 * TILE, 16);
        let (a, mask, dout) = (arguments(2 * length, d, 5, 64), vec![1.0; 2 * length], noise(2 * length * d, 7));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let input = Input { x: &a[0], mask: &mask, length };
                let (out, pre) = forward(input, weights(&a), Precision::F32, true);
                let g = backward(input, weights(&a), &dout, &pre, Precision::F32);
                (out, g.x, g.conv, g.gain, g.up, g.down)
            })
        };
        assert!(run(1) == run(3));
    }
}
