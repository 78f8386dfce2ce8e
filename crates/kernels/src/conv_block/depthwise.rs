//! The depth-wise convolution over a sequence, zeros beyond its ends and at padding, and its gradients.

use super::Input;
use crate::fresh::{self, Out, Unwritten};
use crate::linear;
use crate::product::{TILE, transpose};
use crate::rows::{sum_over_rows, tile_height};
use crate::simd::{fma, prefetch, simd};

/// A depth-wise convolution.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    /// `[kernel, d]`.
    pub(super) taps: Vec<f32>,
    /// `[d]`.
    pub(super) bias: Vec<f32>,
}

impl Convolution {
    pub(super) fn kernel(&self) -> usize {
        self.taps.len() / self.bias.len()
    }

    /// The rows from `first` on, as many as `out` holds, all of which are put.
    pub(super) fn rows(&self, input: Input, first: usize, mut out: Out<f32>) {
        let (d, kernel) = (self.bias.len(), self.kernel());
        for (i, mut out) in out.chunks(d).enumerate() {
            let row = first + i;
            ask_ahead(input.x, row + kernel / 2, d);
            if sees_all(input, row, kernel) {
                let window = &input.x[(row - kernel / 2) * d..(row + kernel / 2 + 1) * d];
                weighted_rows(&self.taps, window, &self.bias, out);
                continue;
            }
            let out = out.copy(&self.bias);
            for (tap, row) in neighbours(input, row, kernel) {
                add_product(&self.taps[tap * d..(tap + 1) * d], &input.x[row * d..(row + 1) * d], out);
            }
        }
    }
}

/// Asks for the row after the last one that a window sees: rows come from far, and the next window wants it.
fn ask_ahead(rows: &[f32], last: usize, d: usize) {
    if let Some(next) = rows.get((last + 1) * d..(last + 2) * d) {
        prefetch(next);
    }
}

/// Whether the window around `row` lies inside its sequence and holds no padding.
fn sees_all(input: Input, row: usize, kernel: usize) -> bool {
    let (at, half) = (row % input.length, kernel / 2);
    at >= half && at + half < input.length && input.mask[row - half..=row + half].iter().all(|&m| m != 0.0)
}

/// Tap and row of every real position in the window around `row`.
fn neighbours(input: Input<'_>, row: usize, kernel: usize) -> impl Iterator<Item = (usize, usize)> {
    let at = row % input.length;
    let skipped = (kernel / 2).saturating_sub(at);
    let end = kernel.min(input.length + kernel / 2 - at);
    (skipped..end).map(move |tap| (tap, row + tap - kernel / 2)).filter(move |&(_, row)| input.mask[row] != 0.0)
}

/// Channels whose sums stay in registers.
const CHANNELS: usize = 64;

simd! {
    /// `out = onto + Σ weights · rows` over as many rows as there are weights, channel by channel; the same order of additions as
    /// [`add_product`] row after row. All of `out`, which is as wide as `onto`, is put.
    fn weighted_rows[FMA](weights: &[f32], rows: &[f32], onto: &[f32], out: Out<f32>) {
        let (d, mut out) = (onto.len(), out);
        let mut first = 0;
        while first + CHANNELS <= d {
            let mut sums = [0.0f32; CHANNELS];
            sums.copy_from_slice(&onto[first..first + CHANNELS]);
            for (weights, row) in weights.chunks_exact(d).zip(rows.chunks_exact(d)) {
                let (weights, row) = (&weights[first..first + CHANNELS], &row[first..first + CHANNELS]);
                for i in 0..CHANNELS {
                    sums[i] = fma::<FMA>(weights[i], row[i], sums[i]);
                }
            }
            out.part(first..first + CHANNELS).copy(&sums);
            first += CHANNELS;
        }
        let mut sums = [0.0f32; CHANNELS];
        let sums = &mut sums[..d - first];
        sums.copy_from_slice(&onto[first..]);
        for (weights, row) in weights.chunks_exact(d).zip(rows.chunks_exact(d)) {
            for ((sum, weight), x) in sums.iter_mut().zip(&weights[first..]).zip(&row[first..]) {
                *sum = fma::<FMA>(*weight, *x, *sum);
            }
        }
        out.part(first..).copy(sums);
    }
}

simd! {
    /// `sum += a * b`.
    fn add_product[FMA](a: &[f32], b: &[f32], sum: &mut [f32]) {
        for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
            *sum = fma::<FMA>(a, b, *sum);
        }
    }
}

/// `dout + mask · (conv transposed)(dconv)`.
pub(super) fn backward_input(input: Input, dconv: &[f32], conv: &Convolution, dout: &[f32]) -> Vec<f32> {
    let d = conv.bias.len();
    let (taps, kernel, half) = (&conv.taps, conv.kernel(), conv.kernel() / 2);
    // The output at `row + half − tap` read this row through `tap`: in rising order of rows, the taps are reversed.
    let reversed: Vec<f32> = taps.chunks_exact(d).rev().flatten().copied().collect();
    let height = tile_height(input.mask.len());
    fresh::chunks(dout.len(), height * d, |tile, dx| {
        dx.rows_written(d, |i, dx| {
            let row = tile * height + i;
            let dout = &dout[row * d..][..d];
            ask_ahead(dconv, row + half, d);
            if input.mask[row] == 0.0 {
                return dx.write_copy_of_slice(dout);
            }
            let at = row % input.length;
            let skipped = half.saturating_sub(at);
            let end = kernel.min(input.length + half - at);
            let readers = (row + skipped - half) * d..(row + end - half) * d;
            weighted_rows(&reversed[skipped * d..end * d], &dconv[readers], dout, Out::fresh(dx));
            // SAFETY: all of the row is put, which is as wide as that of `dout`.
            unsafe { dx.assume_init_mut() }
        })
    })
}

/// Gradients of the depth-wise weights `[d, 1, kernel]` and of their bias.
pub(super) fn backward_weights(input: Input, dconv: &[f32], kernel: usize, d: usize) -> (Vec<f32>, Vec<f32>) {
    let half = kernel / 2;
    let sums = sum_over_rows(input.mask.len(), (kernel + 1) * d, |rows, sums| {
        let (taps, bias) = sums.split_at_mut(kernel * d);
        let mut row = rows.start;
        while row < rows.end {
            let run = (row..rows.end.min(row + TILE)).take_while(|&row| sees_all(input, row, kernel)).count();
            if run > 0 {
                let dy = &dconv[row * d..(row + run) * d];
                for (tap, sums) in taps.chunks_exact_mut(d).enumerate() {
                    add_products(dy, &input.x[(row + tap - half) * d..(row + tap - half + run) * d], sums);
                }
            } else {
                let dy = &dconv[row * d..(row + 1) * d];
                for (tap, neighbour) in neighbours(input, row, kernel) {
                    add_product(dy, &input.x[neighbour * d..(neighbour + 1) * d], &mut taps[tap * d..(tap + 1) * d]);
                }
            }
            let run = run.max(1);
            linear::add_rows(&dconv[row * d..(row + run) * d], bias);
            row += run;
        }
    });
    (transpose(&sums[..kernel * d], kernel, d), sums[kernel * d..].to_vec())
}

simd! {
    /// `sums += Σ a · b` over the rows of both, channel by channel.
    fn add_products[FMA](a: &[f32], b: &[f32], sums: &mut [f32]) {
        let d = sums.len();
        let mut first = 0;
        while first + CHANNELS <= d {
            let mut here = [0.0f32; CHANNELS];
            here.copy_from_slice(&sums[first..first + CHANNELS]);
            for (a, b) in a.chunks_exact(d).zip(b.chunks_exact(d)) {
                let (a, b) = (&a[first..first + CHANNELS], &b[first..first + CHANNELS]);
                for i in 0..CHANNELS {
                    here[i] = fma::<FMA>(a[i], b[i], here[i]);
                }
            }
            sums[first..first + CHANNELS].copy_from_slice(&here);
            first += CHANNELS;
        }
        for (a, b) in a.chunks_exact(d).zip(b.chunks_exact(d)) {
            for i in first..d {
                sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
            }
        }
    }
}
