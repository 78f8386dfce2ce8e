//! The block of the tokenizer's encoder and decoder, fused: `x + down(gelu(up(norm(conv(x · mask)))))`.
//!
//! A ConvNeXt block (Liu et al. 2022) in one dimension: depth-wise convolution, layer norm, two products with GELU between,
//! residual. The forward pass keeps only a tile of the wide inner layer; the backward pass computes it again from `x`.

use crate::norm::{self, Norm};
use crate::product::{Matrix, TILE, Threads, multiply, transpose};
use crate::rows::{sum_over_rows, with_scratch};
use crate::simd::{fma, simd};
use crate::{gelu, linear};
use rayon::prelude::*;

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

/// Weights of the block; the inner width is that of `up_bias`.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// `[d, 1, kernel]`.
    pub conv: &'a [f32],
    /// `[d]`.
    pub conv_bias: &'a [f32],
    /// Layer norm after the convolution.
    pub norm: Norm<'a>,
    /// `[d_inner, d]`.
    pub up: &'a [f32],
    /// `[d_inner]`.
    pub up_bias: &'a [f32],
    /// `[d, d_inner]`.
    pub down: &'a [f32],
    /// `[d]`.
    pub down_bias: &'a [f32],
}

impl Weights<'_> {
    fn d(&self) -> usize {
        self.conv_bias.len()
    }

    fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// The depth-wise weights as `[kernel, d]`.
    fn taps(&self) -> Vec<f32> {
        transpose(self.conv, self.d(), self.conv.len() / self.d())
    }
}

/// Output of the block, `[batch * length, d]`. Rows of padding are computed too; nothing reads them.
///
/// # Panics
/// If the slices do not fit the shapes of [`Input`] and [`Weights`].
pub fn forward(input: Input, w: Weights) -> Vec<f32> {
    let (d, d_inner) = (w.d(), w.d_inner());
    let taps = w.taps();
    let (up, down) = (transpose(w.up, d_inner, d), transpose(w.down, d, d_inner));
    let mut out = vec![0.0; input.x.len()];
    out.par_chunks_mut(TILE * d).enumerate().for_each(|(tile, out)| {
        let (first, rows) = (tile * TILE, out.len() / d);
        with_scratch([TILE * d, TILE * d, TILE * d_inner], |[conv, y, inner]| {
            convolve(input, &taps, w.conv_bias, first, &mut conv[..rows * d]);
            conv[rows * d..].fill(0.0);
            norm::forward_rows(w.norm, conv, y);
            multiply(inner, Matrix::new(y, TILE, d), Matrix::new(&up, d, d_inner), false, Threads::One);
            gelu::with_bias(inner, w.up_bias);
            multiply(y, Matrix::new(inner, TILE, d_inner), Matrix::new(&down, d_inner, d), false, Threads::One);
            add_residual(&input.x[first * d..], y, w.down_bias, out);
        });
    });
    out
}

/// Depth-wise convolution of the rows from `first` on, as many as `out` holds.
fn convolve(input: Input, taps: &[f32], bias: &[f32], first: usize, out: &mut [f32]) {
    let d = bias.len();
    for (i, out) in out.chunks_exact_mut(d).enumerate() {
        out.copy_from_slice(bias);
        for (tap, row) in neighbours(input, first + i, taps.len() / d) {
            add_product(&taps[tap * d..(tap + 1) * d], &input.x[row * d..(row + 1) * d], out);
        }
    }
}

/// Tap and row of every real position in the window around `row`.
fn neighbours(input: Input<'_>, row: usize, kernel: usize) -> impl Iterator<Item = (usize, usize)> {
    let at = row % input.length;
    let skipped = (kernel / 2).saturating_sub(at);
    let end = kernel.min(input.length + kernel / 2 - at);
    (skipped..end).map(move |tap| (tap, row + tap - kernel / 2)).filter(move |&(_, row)| input.mask[row] != 0.0)
}

simd! {
    /// `sum += a * b`.
    fn add_product[FMA](a: &[f32], b: &[f32], sum: &mut [f32]) {
        for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
            *sum = fma::<FMA>(a, b, *sum);
        }
    }
}

simd! {
    /// `out = x + y + bias`, for as many rows as `out` has.
    fn add_residual[FMA](x: &[f32], y: &[f32], bias: &[f32], out: &mut [f32]) {
        let d = bias.len();
        for ((out, x), y) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(y.chunks_exact(d)) {
            for i in 0..d {
                out[i] = x[i] + (y[i] + bias[i]);
            }
        }
    }
}

/// Gradients of [`forward`], each in the shape of its argument.
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
    /// `[d_inner, d]`.
    pub up: Vec<f32>,
    /// `[d_inner]`.
    pub up_bias: Vec<f32>,
    /// `[d, d_inner]`.
    pub down: Vec<f32>,
    /// `[d]`.
    pub down_bias: Vec<f32>,
}

/// Gradients of [`forward`] at `input` for the output gradient `dout [batch * length, d]`.
pub fn backward(input: Input, w: Weights, dout: &[f32]) -> Gradients {
    let (d, d_inner) = (w.d(), w.d_inner());
    let (rows, taps) = (dout.len() / d, w.taps());
    let inner = Inner::recompute(input, w, &taps, dout);

    let product = |a: &[f32], a_width, b: &[f32], b_width| {
        let mut out = vec![0.0; a_width * b_width];
        let a = Matrix::new(a, rows, a_width).transposed();
        multiply(&mut out, a, Matrix::new(b, rows, b_width), false, Threads::All);
        out
    };
    let (conv, conv_bias) = convolve_backward_weights(input, &inner.dconv, &taps, d);
    let (gain, bias) = inner.dnorm.split_at(d);
    Gradients {
        x: convolve_backward_input(input, &inner.dconv, &taps, dout),
        conv,
        conv_bias,
        gain: gain.to_vec(),
        bias: bias.to_vec(),
        up: product(&inner.dpre, d_inner, &inner.normed, d),
        up_bias: linear::column_sums(&inner.dpre, d_inner),
        down: product(dout, d, &inner.activation, d_inner),
        down_bias: linear::column_sums(dout, d),
    }
}

/// What the gradients of the weights need from the inside of the block, for all rows.
struct Inner {
    /// Output of the norm, `[rows, d]`.
    normed: Vec<f32>,
    /// Output of GELU, `[rows, d_inner]`.
    activation: Vec<f32>,
    /// Gradient of the input of GELU, `[rows, d_inner]`.
    dpre: Vec<f32>,
    /// Gradient of the convolution's output, `[rows, d]`.
    dconv: Vec<f32>,
    /// Gradients of the norm's gain and bias, one after the other, `[2 d]`.
    dnorm: Vec<f32>,
}

impl Inner {
    fn recompute(input: Input, w: Weights, taps: &[f32], dout: &[f32]) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        let rows = dout.len() / d;
        let up = transpose(w.up, d_inner, d);
        let (mut normed, mut dconv) = (vec![0.0; rows * d], vec![0.0; rows * d]);
        let (mut activation, mut dpre) = (vec![0.0; rows * d_inner], vec![0.0; rows * d_inner]);
        let dnorms: Vec<Vec<f32>> = normed
            .par_chunks_mut(TILE * d)
            .zip(dconv.par_chunks_mut(TILE * d))
            .zip(activation.par_chunks_mut(TILE * d_inner))
            .zip(dpre.par_chunks_mut(TILE * d_inner))
            .zip(dout.par_chunks(TILE * d))
            .enumerate()
            .map(|(tile, ((((normed, dconv), activation), dpre), dout))| {
                let rows = dout.len() / d;
                let mut dnorm = vec![0.0; 2 * d];
                with_scratch([rows * d, rows * d], |[conv, dnormed]| {
                    convolve(input, taps, w.conv_bias, tile * TILE, conv);
                    norm::forward_rows(w.norm, conv, normed);
                    multiply(
                        activation,
                        Matrix::new(normed, rows, d),
                        Matrix::new(&up, d, d_inner),
                        false,
                        Threads::One,
                    );
                    multiply(dpre, Matrix::new(dout, rows, d), Matrix::new(w.down, d, d_inner), false, Threads::One);
                    gelu::with_bias_backward(activation, w.up_bias, dpre);
                    multiply(
                        dnormed,
                        Matrix::new(dpre, rows, d_inner),
                        Matrix::new(w.up, d_inner, d),
                        false,
                        Threads::One,
                    );
                    let (dgain, dbias) = dnorm.split_at_mut(d);
                    norm::backward_rows(w.norm, conv, dnormed, dconv, dgain, dbias);
                });
                dnorm
            })
            .collect();
        let dnorm = linear::column_sums(&dnorms.concat(), 2 * d);
        Self { normed, activation, dpre, dconv, dnorm }
    }
}

/// `dout + mask · (conv transposed)(dconv)`.
fn convolve_backward_input(input: Input, dconv: &[f32], taps: &[f32], dout: &[f32]) -> Vec<f32> {
    let d = dout.len() / input.mask.len();
    let kernel = taps.len() / d;
    let mut dx = dout.to_vec();
    dx.par_chunks_mut(TILE * d).enumerate().for_each(|(tile, dx)| {
        for (i, dx) in dx.chunks_exact_mut(d).enumerate() {
            let row = tile * TILE + i;
            if input.mask[row] == 0.0 {
                continue;
            }
            // The output at `row + kernel/2 − tap` read this row through `tap`.
            let at = row % input.length;
            for (tap, weights) in taps.chunks_exact(d).enumerate() {
                if (kernel / 2..kernel / 2 + input.length).contains(&(at + 2 * (kernel / 2) - tap)) {
                    let reader = row + kernel / 2 - tap;
                    add_product(weights, &dconv[reader * d..(reader + 1) * d], dx);
                }
            }
        }
    });
    dx
}

/// Gradients of the depth-wise weights `[d, 1, kernel]` and of their bias.
fn convolve_backward_weights(input: Input, dconv: &[f32], taps: &[f32], d: usize) -> (Vec<f32>, Vec<f32>) {
    let kernel = taps.len() / d;
    let sums = sum_over_rows(input.mask.len(), (kernel + 1) * d, |rows, sums| {
        for row in rows {
            let dy = &dconv[row * d..(row + 1) * d];
            for (tap, neighbour) in neighbours(input, row, kernel) {
                add_product(dy, &input.x[neighbour * d..(neighbour + 1) * d], &mut sums[tap * d..(tap + 1) * d]);
            }
            sums[kernel * d..].iter_mut().zip(dy).for_each(|(s, v)| *s += v);
        }
    });
    (transpose(&sums[..kernel * d], kernel, d), sums[kernel * d..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        Weights { conv, conv_bias, norm, up, up_bias, down, down_bias }
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
            assert_close(&forward(input, weights(&a)), &want);

            let dout = noise(a[0].len(), 99);
            let g = backward(input, weights(&a), &dout);
            let found = [g.x, g.conv, g.conv_bias, g.gain, g.bias, g.up, g.up_bias, g.down, g.down_bias];
            for (i, gradient) in found.iter().enumerate() {
                assert_gradient(gradient, &a[i], |v| {
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
        let whole = forward(Input { x: &a[0], mask: &mask, length }, weights(&a));
        for (start, end) in [(0, 10), (5, 300), (TILE - 1, 2 * TILE + 9), (700, length)] {
            let (left, right) = (start.max(halo) - halo, (end + halo).min(length));
            let piece = Input { x: &a[0][left * d..right * d], mask: &mask[left..right], length: right - left };
            let out = forward(piece, weights(&a));
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
                let g = backward(input, weights(&a), &dout);
                (forward(input, weights(&a)), g.x, g.conv, g.gain, g.up, g.down, g.down_bias)
            })
        };
        assert!(run(1) == run(3));
    }
}
