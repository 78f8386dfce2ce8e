//! Layer normalisation of rows (Ba et al. 2016), alone inside other kernels and fused with GELU as an operation.

use crate::fresh::{self, Out};
use crate::gelu;
use crate::linear::column_sums;
use crate::rows::with_scratch;
use crate::shape::{fits, positive, rows_of};
use crate::simd::{LANES, fma, simd, sum_lanes};
use std::mem::MaybeUninit;

/// Rows handled by one task.
const ROWS: usize = 64;

/// Gain, bias and ε of a layer norm; gain and bias are as wide as a row.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor of each channel.
    pub gain: &'a [f32],
    /// Offset of each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

impl Norm<'_> {
    /// Panics unless gain and bias fit rows of `width`.
    pub(crate) fn check(&self, width: usize) {
        positive("norm.gain", width);
        fits("norm.gain", self.gain, &[width]);
        fits("norm.bias", self.bias, &[width]);
    }

    /// Panics unless gain and bias fit each other and some whole rows.
    fn check_rows(&self, name: &str, rows: &[f32]) {
        self.check(self.gain.len());
        rows_of(name, rows, self.gain.len());
    }
}

/// A [`Norm`] with weights of its own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedNorm {
    gain: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl OwnedNorm {
    pub(crate) fn view(&self) -> Norm<'_> {
        Norm { gain: &self.gain, bias: &self.bias, eps: self.eps }
    }
}

impl From<Norm<'_>> for OwnedNorm {
    fn from(Norm { gain, bias, eps }: Norm) -> Self {
        Self { gain: gain.to_vec(), bias: bias.to_vec(), eps }
    }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    let mean = rest.iter().fold(sum_lanes(&lanes), |sum, x| sum + x) / width;
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += (chunk[i] - mean) * (chunk[i] - mean);
        }
    }
    let variance = rest.iter().fold(sum_lanes(&lanes), |sum, x| sum + (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

simd! {
    /// `norm(x)`, row by row, as long as there are both rows and places.
    fn put_rows[FMA](norm: Norm, x: &[f32], y: Out<f32>) {
        let (width, mut y) = (norm.gain.len(), y);
        for (x, mut y) in x.chunks_exact(width).zip(y.chunks(width)) {
            let (mean, scale) = moments(x, norm.eps);
            let row = x.iter().zip(norm.gain).zip(norm.bias);
            y.put_all(row.map(|((&x, &g), &b)| fma::<FMA>((x - mean) * scale, g, b)));
        }
    }
}

/// `y = norm(x)`, row by row.
pub(crate) fn forward_rows(norm: Norm, x: &[f32], y: &mut [f32]) {
    put_rows(norm, x, Out::over(y));
}

/// [`forward_rows`] into fresh memory.
fn rows_written<'y>(norm: Norm, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> &'y mut [f32] {
    norm.check_rows("x", x);
    assert_eq!(x.len(), y.len(), "a number for each place");
    put_rows(norm, x, Out::fresh(y));
    // SAFETY: as many whole rows of x are put as there are of y, each as wide as gain and bias are.
    unsafe { y.assume_init_mut() }
}

simd! {
    /// `x ← norm(x)`, row by row.
    pub(crate) fn in_place[FMA](norm: Norm, x: &mut [f32]) {
        for x in x.chunks_exact_mut(norm.gain.len()) {
            let (mean, scale) = moments(x, norm.eps);
            for ((x, &g), &b) in x.iter_mut().zip(norm.gain).zip(norm.bias) {
                *x = fma::<FMA>((*x - mean) * scale, g, b);
            }
        }
    }
}

simd! {
    /// From the rows `x` to their gradient, in place; those of gain and bias are added to `dgain` and `dbias`.
    pub(crate) fn backward_in_place[FMA](norm: Norm, x: &mut [f32], dy: &[f32], dgain: &mut [f32], dbias: &mut [f32]) {
        let width = norm.gain.len();
        for (x, dy) in x.chunks_exact_mut(width).zip(dy.chunks_exact(width)) {
            let (mean, scale) = moments(x, norm.eps);
            // x becomes the normalised row.
            for (((x, &dy), dgain), dbias) in x.iter_mut().zip(dy).zip(dgain.iter_mut()).zip(dbias.iter_mut()) {
                *x = (*x - mean) * scale;
                *dgain = fma::<FMA>(dy, *x, *dgain);
                *dbias += dy;
            }
            let ((xs, x_rest), (dys, dy_rest)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
            let (gains, gain_rest) = norm.gain.as_chunks::<LANES>();
            let (mut sums, mut products) = ([0.0f32; LANES], [0.0f32; LANES]);
            for ((x, dy), gain) in xs.iter().zip(dys).zip(gains) {
                for i in 0..LANES {
                    let slope = dy[i] * gain[i];
                    sums[i] += slope;
                    products[i] = fma::<FMA>(slope, x[i], products[i]);
                }
            }
            let (mut average, mut along) = (sum_lanes(&sums), sum_lanes(&products));
            for ((x, dy), gain) in x_rest.iter().zip(dy_rest).zip(gain_rest) {
                average += dy * gain;
                along = fma::<FMA>(dy * gain, *x, along);
            }
            let (average, along) = (average / width as f32, along / width as f32);
            for ((x, &dy), &gain) in x.iter_mut().zip(dy).zip(norm.gain) {
                *x = scale * (dy * gain - fma::<FMA>(*x, along, average));
            }
        }
    }
}

/// `residual` and the gradient of the rows x of a tile; beside it the gradients of gain and bias, one after the other.
pub(crate) fn backward_tile<'a>(
    norm: Norm,
    x: &[f32],
    dy: &[f32],
    residual: &[f32],
    dx: &'a mut [MaybeUninit<f32>],
) -> (&'a mut [f32], Vec<f32>) {
    let mut sums = vec![0.0; 2 * norm.gain.len()];
    let (dgain, dbias) = sums.split_at_mut(norm.gain.len());
    let dx = dx.write_copy_of_slice(x);
    backward_in_place(norm, dx, dy, dgain, dbias);
    add(dx, residual);
    (dx, sums)
}

/// Gradients of gain and bias, out of those of each tile.
pub(crate) fn sum_tiles(tiles: &[Vec<f32>], width: usize) -> [Vec<f32>; 2] {
    let mut gain = column_sums(&tiles.concat(), 2 * width);
    let bias = gain.split_off(width);
    [gain, bias]
}

simd! {
    /// `x += y`.
    fn add[FMA](x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

/// `norm(x)` for rows as wide as the gain.
///
/// # Panics
/// If the bias is not as wide, both are empty, or x does not hold whole rows.
pub fn forward(norm: Norm, x: &[f32]) -> Vec<f32> {
    norm.check_rows("x", x);
    let chunk = ROWS * norm.gain.len();
    fresh::chunks(x.len(), chunk, |part, y| rows_written(norm, &x[part * chunk..][..y.len()], y))
}

/// Gradients of [`forward`] at `x` for the output gradient `dy`, which has the shape of x.
///
/// # Panics
/// As [`forward`], and if `dy` is not as long as x.
pub fn backward(norm: Norm, x: &[f32], dy: &[f32]) -> Gradients {
    norm.check_rows("x", x);
    fits("dy", dy, &[x.len()]);
    backward_by(norm, x, |dx, at, dgain, dbias| backward_in_place(norm, dx, &dy[at..at + dx.len()], dgain, dbias))
}

/// Gradients tile by tile: `tile` gets a copy of rows of x to turn into their gradient, where they begin, and two sums.
fn backward_by(norm: Norm, x: &[f32], tile: impl Fn(&mut [f32], usize, &mut [f32], &mut [f32]) + Sync) -> Gradients {
    let width = norm.gain.len();
    let rows = x.len() / width;
    let heights: Vec<usize> = (0..rows).step_by(ROWS).map(|first| ROWS.min(rows - first)).collect();
    let (dx, parts) = fresh::tiles(&heights, width, (0..).step_by(ROWS * width), |dx, at| {
        let mut sums = vec![0.0; 2 * width];
        let (dgain, dbias) = sums.split_at_mut(width);
        let dx = dx.write_copy_of_slice(&x[at..at + dx.len()]);
        tile(dx, at, dgain, dbias);
        (dx, sums)
    });
    let [gain, bias] = sum_tiles(&parts, width);
    Gradients { x: dx, gain, bias }
}

/// `gelu(norm(x))` for rows as wide as the gain.
///
/// # Panics
/// As [`forward`].
pub fn gelu_forward(norm: Norm, x: &[f32]) -> Vec<f32> {
    norm.check_rows("x", x);
    let chunk = ROWS * norm.gain.len();
    fresh::chunks(x.len(), chunk, |part, y| {
        let y = rows_written(norm, &x[part * chunk..][..y.len()], y);
        gelu::in_place(y);
        y
    })
}

/// Gradients of [`forward`] or [`gelu_forward`].
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of the rows.
    pub x: Vec<f32>,
    /// Of the gain.
    pub gain: Vec<f32>,
    /// Of the bias.
    pub bias: Vec<f32>,
}

/// Gradients of [`gelu_forward`] at `x` for the output gradient `dy`; the norm is computed again, nothing is kept.
///
/// # Panics
/// As [`backward`].
pub fn gelu_backward(norm: Norm, x: &[f32], dy: &[f32]) -> Gradients {
    norm.check_rows("x", x);
    fits("dy", dy, &[x.len()]);
    backward_by(norm, x, |dx, at, dgain, dbias| {
        with_scratch([dx.len(), dx.len()], |[y, dnorm]| {
            forward_rows(norm, dx, y);
            dnorm.copy_from_slice(&dy[at..at + dx.len()]);
            gelu::backward(y, dnorm);
            backward_in_place(norm, dx, dnorm, dgain, dbias);
        });
    })
}

#[cfg(test)]
pub(crate) mod test {
    /// Layer norm of one row in double precision.
    pub(crate) fn reference(x: &[f64], gain: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        x.iter().zip(gain).zip(bias).map(|((v, g), b)| (v - mean) / (variance + eps).sqrt() * g + b).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let (width, rows, eps) = (5, 3, 1e-3);
        let (x, gain, bias, dy) = (noise(rows * width, 1), noise(width, 2), noise(width, 3), noise(rows * width, 4));
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let norm = Norm { gain: &gain, bias: &bias, eps: eps as f32 };
        let (xw, gw, bw) = (wide(&x), wide(&gain), wide(&bias));
        let plain = (forward as fn(Norm, &[f32]) -> Vec<f32>, backward as fn(Norm, &[f32], &[f32]) -> Gradients);
        let identity: fn(f64) -> f64 = |v| v;
        for ((forward, backward), after) in
            [(plain, identity), ((gelu_forward, gelu_backward), crate::gelu::test::reference)]
        {
            let run = |x: &[f64], gain: &[f64], bias: &[f64]| -> Vec<f64> {
                x.chunks(width).flat_map(|r| test::reference(r, gain, bias, eps)).map(after).collect()
            };
            let loss = |x: &[f64], g: &[f64], b: &[f64]| {
                run(x, g, b).iter().zip(&dy).map(|(y, &d)| y * f64::from(d)).sum::<f64>()
            };
            let want: Vec<f32> = run(&xw, &gw, &bw).iter().map(|&v| v as f32).collect();
            assert_close(&forward(norm, &x), &want);
            let gradients = backward(norm, &x, &dy);
            assert_gradient(&gradients.x, &x, |x| loss(x, &gw, &bw));
            assert_gradient(&gradients.gain, &gain, |g| loss(&xw, g, &bw));
            assert_gradient(&gradients.bias, &bias, |b| loss(&xw, &gw, b));
        }
    }
}
