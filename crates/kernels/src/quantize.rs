//! What stands around the search of codes: the vectors that a level searches, what codes stand for, the loss and the gradient that pass
//! the choice of a code, and the moving averages of a codebook.
//!
//! Rows of `z [rows, d]` are vectors, `index [rows]` their codes, `mask [rows]` 1 for a real position and 0 for padding.

use crate::fresh::{self, Unwritten};
use crate::rows::sum_over_rows;
use crate::shape::{count, fits, place, positive, rows_of, width_of};
use crate::simd::{fma, simd, sum_by};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows that a thread takes at a time: a few hundred kilobytes, and the same part for any number of threads.
const ROWS: usize = 128;

/// Elements of so many rows, which a width that no slice has does not make 0.
fn chunk(d: usize) -> usize {
    ROWS.saturating_mul(d).max(1)
}

/// `scale · tap − (sum + codes[index])`, over `tap [rows, d]`, with a `sum` of the same shape; without a sum, `scale · tap − codes[index]`.
/// Codes are `[k, d]`, and `index` is `[rows]`.
///
/// # Panics
/// If a slice does not fit its shape, `d` is 0, or an index is not below the number of codes.
pub fn residual(tap: &mut [f32], scale: f32, sum: Option<&[f32]>, codes: &[f32], index: &[i32], d: usize) {
    let k = rows_of("codes", codes, d);
    fits("tap", tap, &[index.len(), d]);
    sum.inspect(|sum| fits("sum", sum, &[index.len(), d]));
    tap.par_chunks_mut(chunk(d)).zip(index.par_chunks(ROWS)).enumerate().for_each(|(part, (tap, index))| {
        for (n, (row, &code)) in tap.chunks_exact_mut(d).zip(index).enumerate() {
            let code = &codes[place("index", code, k) * d..][..d];
            match sum.map(|sum| &sum[(part * ROWS + n) * d..][..d]) {
                None => row.iter_mut().zip(code).for_each(|(z, e)| *z = scale * *z - e),
                Some(sum) => row.iter_mut().zip(code).zip(sum).for_each(|((z, e), s)| *z = scale * *z - (s + e)),
            }
        }
    });
}

/// The codes of one more level, added to the `sum` of those before it, and the mean of `levels` of them, 0 at padding: `[rows, d]` each.
/// Codes are `[k, d]`, `index` and `mask` are `[rows]`.
///
/// # Panics
/// If a slice does not fit its shape, `d` is 0, or an index is not below the number of codes.
pub fn add_codes(
    sum: Option<&[f32]>,
    codes: &[f32],
    index: &[i32],
    mask: &[f32],
    levels: f32,
    d: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (rows, k) = (index.len(), rows_of("codes", codes, d));
    sum.inspect(|sum| fits("sum", sum, &[rows, d]));
    fits("mask", mask, &[rows]);
    let size = count("sum", &[rows, d]);
    let [total, mean] = fresh::chunks_of([size; 2], [chunk(d); 2], |part, [total, mean]| {
        let first = part * ROWS;
        let total = total.rows_written(d, |n, total| {
            let code = &codes[place("index", index[first + n], k) * d..][..d];
            match sum.map(|sum| &sum[(first + n) * d..][..d]) {
                None => total.write_copy_of_slice(code),
                Some(sum) => total.written(code.iter().zip(sum).map(|(e, s)| s + e)),
            }
        });
        let mean = mean.rows_written(d, |n, mean| {
            let real = mask[first + n];
            mean.written(total[n * d..][..d].iter().map(move |t| t / levels * real))
        });
        [total, mean]
    });
    (total, mean)
}

/// `(z + (mean − z)) · mask`: the value of the mean, to the rounding that this sum has elsewhere. `z` and `mean` are `[rows, d]`, `mask`
/// is `[rows]`.
///
/// # Panics
/// If a slice does not fit its shape, or `d` is 0.
pub fn straight_through(z: &[f32], mean: &[f32], mask: &[f32], d: usize) -> Vec<f32> {
    check_rows(z, mean, mask, d);
    by_row(z, mean, mask, d, |z, m, real| (z + (m - z)) * real)
}

/// Gradient of [`straight_through`] for z: over `dy [rows, d]`, 0 at padding, where `mask [rows]` is 0.
///
/// # Panics
/// If a slice does not fit its shape, or `d` is 0.
pub fn straight_through_backward(dy: &mut [f32], mask: &[f32], d: usize) {
    positive("d", d);
    fits("dy", dy, &[mask.len(), d]);
    dy.par_chunks_mut(chunk(d)).zip(mask.par_chunks(ROWS)).for_each(|(dy, mask)| {
        for (dy, real) in dy.chunks_exact_mut(d).zip(mask) {
            if *real == 0.0 {
                dy.fill(0.0);
            }
        }
    });
}

/// Mean of `(z − mean)²` over real positions and channels; 0 if there is none. `z` and `mean` are `[rows, d]`, `mask` is `[rows]`.
///
/// # Panics
/// If a slice does not fit its shape, or `d` is 0.
pub fn commitment(z: &[f32], mean: &[f32], mask: &[f32], d: usize) -> f32 {
    check_rows(z, mean, mask, d);
    let sum = sum_over_rows(mask.len(), 1, |rows, sum| {
        for row in rows {
            if mask[row] != 0.0 {
                let at = row * d..(row + 1) * d;
                sum[0] += squared_distance(&z[at.clone()], &mean[at]);
            }
        }
    });
    sum[0] / numbers(mask, d)
}

/// Gradient of [`commitment`] for z, `[rows, d]`, where its own gradient is `dy`.
///
/// # Panics
/// As [`commitment`].
pub fn commitment_backward(z: &[f32], mean: &[f32], mask: &[f32], d: usize, dy: f32) -> Vec<f32> {
    check_rows(z, mean, mask, d);
    let factor = 2.0 * dy / numbers(mask, d);
    by_row(z, mean, mask, d, move |z, m, real| factor * real * (z - m))
}

/// `of(z, mean, mask)` for each number of all rows.
fn by_row(z: &[f32], mean: &[f32], mask: &[f32], d: usize, of: impl Fn(f32, f32, f32) -> f32 + Sync) -> Vec<f32> {
    fresh::chunks(z.len(), chunk(d), |part, out| {
        out.rows_written(d, |n, out| {
            let row = part * ROWS + n;
            let (z, mean, real) = (&z[row * d..][..d], &mean[row * d..][..d], mask[row]);
            out.written(z.iter().zip(mean).map(|(&z, &m)| of(z, m, real)))
        })
    })
}

fn check_rows(z: &[f32], mean: &[f32], mask: &[f32], d: usize) {
    positive("d", d);
    fits("z", z, &[mask.len(), d]);
    fits("mean", mean, &[mask.len(), d]);
}

/// Numbers of all real rows, at least one row's.
fn numbers(mask: &[f32], d: usize) -> f32 {
    mask.iter().sum::<f32>().max(1.0) * d as f32
}

simd! {
    fn squared_distance[FMA](a: &[f32], b: &[f32]) -> f32 {
        sum_by(a.len(), |i| { let difference = a[i] - b[i]; difference * difference })
    }
}

/// Settings of a codebook's moving averages.
#[derive(Clone, Copy, Debug)]
pub struct Average {
    /// Weight of the past.
    pub decay: f32,
    /// Laplace smoothing of the counts, ε.
    pub smoothing: f32,
}

/// A codebook as its moving averages, and what they make of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Averaged {
    /// `[k, d]`.
    pub codes: Vec<f32>,
    /// `[k]`.
    pub counts: Vec<f32>,
    /// `[k, d]`.
    pub sums: Vec<f32>,
}

/// One step of the averages `counts N [k]` and `sums m [k, d]` towards those of a batch. Codes are `m / Ñ` with
/// `Ñ = (N + ε) / (ΣN + k ε) · ΣN`, all after the step. Of no codes, nothing.
///
/// # Panics
/// If there are counts and no sums, or those of the batch have other shapes.
pub fn average(step: Average, [counts, new_counts]: [&[f32]; 2], [sums, new_sums]: [&[f32]; 2]) -> Averaged {
    let (k, take) = (counts.len(), 1.0 - step.decay);
    fits("new_counts", new_counts, &[k]);
    let d = if k == 0 { 0 } else { width_of("sums", sums, k) };
    fits("sums", sums, &[k, d]);
    fits("new_sums", new_sums, &[k, d]);
    let counts: Vec<f32> = counts.iter().zip(new_counts).map(|(n, new)| n * step.decay + new * take).collect();
    let total: f32 = counts.iter().sum();
    let smoothed = |count: f32| (count + step.smoothing) / (total + k as f32 * step.smoothing) * total;
    let [codes, sums] = fresh::chunks_of([k * d; 2], [chunk(d); 2], |part, [codes, moved]| {
        let at = part * chunk(d)..part * chunk(d) + moved.len();
        let moved = move_towards(step.decay, &sums[at.clone()], &new_sums[at], moved);
        let codes = codes.rows_written(d, |n, code| {
            let count = smoothed(counts[part * ROWS + n]);
            code.written(moved[n * d..][..d].iter().map(move |sum| sum / count))
        });
        [codes, moved]
    });
    Averaged { codes, counts, sums }
}

simd! {
    /// `decay · old + (1 − decay) · new`.
    fn move_towards<'a>[FMA](decay: f32, old: &[f32], new: &[f32], out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        let take = 1.0 - decay;
        out.written(old.iter().zip(new).map(move |(&old, &new)| fma::<FMA>(decay, old, take * new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// More than a task's rows, of which every fifth is padding.
    const COUNT: usize = 2 * ROWS + 7;
    const D: usize = 5;

    fn batch() -> (Vec<f32>, Vec<f32>, Vec<i32>, Vec<f32>) {
        let index = (0..COUNT).map(|row| (row * 7 % 11) as i32).collect();
        let mask = (0..COUNT).map(|row| f32::from(row % 5 != 0)).collect();
        (noise(COUNT * D, 1), noise(11 * D, 2), index, mask)
    }

    #[test]
    fn levels_add_up() {
        let (tap, codes, index, mask) = batch();
        let (first, mean) = add_codes(None, &codes, &index, &mask, 1.0, D);
        let mut searched = tap.clone();
        residual(&mut searched, 2.0, None, &codes, &index, D);
        let other: Vec<i32> = index.iter().map(|code| 10 - code).collect();
        let (both, half) = add_codes(Some(&first), &codes, &other, &mask, 2.0, D);
        let mut next = tap.clone();
        residual(&mut next, 3.0, Some(&first), &codes, &other, D);
        for row in 0..COUNT {
            for c in 0..D {
                let at = row * D + c;
                let (e, f) = (codes[index[row] as usize * D + c], codes[other[row] as usize * D + c]);
                assert_eq!((first[at], both[at]), (e, e + f));
                assert_eq!((mean[at], half[at]), (e * mask[row], f32::midpoint(e, f) * mask[row]));
                assert_close(&[searched[at], next[at]], &[2.0 * tap[at] - e, 3.0 * tap[at] - (e + f)]);
            }
        }
    }

    #[test]
    fn a_straight_gradient_has_the_value_of_the_mean() {
        let (z, codes, index, mask) = batch();
        let (_, mean) = add_codes(None, &codes, &index, &mask, 1.0, D);
        assert_close(&straight_through(&z, &mean, &mask, D), &mean);
        let mut dy = z.clone();
        straight_through_backward(&mut dy, &mask, D);
        assert!(dy.iter().zip(&z).enumerate().all(|(at, (dy, z))| *dy == z * mask[at / D]));
    }

    #[test]
    fn commitment_is_the_mean_square_of_real_rows_with_its_gradient() {
        let (z, codes, index, mask) = batch();
        let (_, mean) = add_codes(None, &codes, &index, &mask, 1.0, D);
        let real: f64 = mask.iter().map(|&m| f64::from(m)).sum();
        let loss = |z: &[f64]| {
            let square = |at: usize| (z[at] - f64::from(mean[at])).powi(2) * f64::from(mask[at / D]);
            (0..z.len()).map(square).sum::<f64>() / (real * D as f64)
        };
        let wide: Vec<f64> = z.iter().map(|&v| f64::from(v)).collect();
        assert_close(&[commitment(&z, &mean, &mask, D)], &[loss(&wide) as f32]);
        assert_gradient(&commitment_backward(&z, &mean, &mask, D, 3.0), &z, |z| 3.0 * loss(z));
        let nothing = vec![0.0; COUNT];
        assert_eq!(commitment(&z, &mean, &nothing, D), 0.0);
        assert!(commitment_backward(&z, &mean, &nothing, D, 1.0).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn averages_follow_the_formula() {
        let k = ROWS + 3;
        let positive = |seed| noise(k, seed).iter().map(|v| v.abs() * 9.0).collect::<Vec<f32>>();
        let (counts, new_counts) = (positive(1), positive(2));
        let (sums, new_sums) = (noise(k * D, 3), noise(k * D, 4));
        let step = Average { decay: 0.9, smoothing: 1e-3 };
        let found = average(step, [&counts, &new_counts], [&sums, &new_sums]);
        let mixed = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| 0.9 * a + 0.1 * b).collect::<Vec<f32>>();
        let (counts, sums) = (mixed(&counts, &new_counts), mixed(&sums, &new_sums));
        assert_close(&found.counts, &counts);
        assert_close(&found.sums, &sums);
        let total: f32 = counts.iter().sum();
        let count = |code: usize| (counts[code] + 1e-3) / (total + k as f32 * 1e-3) * total;
        assert_close(&found.codes, &(0..k * D).map(|at| sums[at] / count(at / D)).collect::<Vec<_>>());
    }
}
