//! Rows of a sequence at fractional places, between which they are interpolated, each multiplied by a factor: what a deformable
//! convolution (Dai et al. 2017, with the modulation of Zhu et al. 2019) multiplies its kernel with, in one dimension.
//!
//! Tap k of output t reads at `t - taps / 2 + k + offset[t, k]`. Beyond the sequence rows are 0, and are interpolated with.

use crate::fresh::{self, Unwritten};
use crate::shape::{count, fits, positive, rows_of};
use crate::simd::{simd, sum_by};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows handled by one task.
const ROWS: usize = 64;

/// Where and how strongly is read.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// `[rows, taps]`, in positions.
    pub offsets: &'a [f32],
    /// `[rows, taps]`: factors of what is read.
    pub factors: &'a [f32],
    /// Number of taps.
    pub count: usize,
    /// Rows of a sequence.
    pub length: usize,
}

/// The neighbours of a place, as rows of all sequences together, and how near the second one is.
#[derive(Clone, Copy)]
struct Place {
    left: Option<usize>,
    right: Option<usize>,
    /// 0 at the left neighbour, 1 at the right one.
    share: f32,
}

impl Taps<'_> {
    fn place(&self, row: usize, tap: usize) -> Place {
        let offset = self.offsets[row * self.count + tap];
        // Whole and fractional part apart, or far along a sequence nothing would be left of the latter.
        let whole = offset.floor();
        let (start, at) = (row / self.length * self.length, (row % self.length + tap) as i64);
        let left = (at - (self.count / 2) as i64).saturating_add(whole as i64);
        let real = |at: i64| usize::try_from(at).ok().filter(|&at| at < self.length).map(|at| start + at);
        Place { left: real(left), right: real(left.saturating_add(1)), share: offset - whole }
    }

    /// The rows of `x [rows, d]`, if they and the taps fit.
    fn check(&self, x: &[f32], d: usize) -> usize {
        positive("taps.count", self.count);
        positive("taps.length", self.length);
        positive("d", d);
        let rows = rows_of("x", x, d);
        fits("x", x, &[rows / self.length, self.length, d]);
        fits("taps.offsets", self.offsets, &[rows, self.count]);
        fits("taps.factors", self.factors, &[rows, self.count]);
        rows
    }
}

/// Reads `x [rows, d]`, sequences of [`Taps::length`] rows one after another, into `[rows, taps, d]`.
///
/// # Panics
/// If a slice does not fit its shape, the last sequence is not whole, or a size is 0.
#[must_use]
pub fn forward(x: &[f32], taps: &Taps, d: usize) -> Vec<f32> {
    let rows = taps.check(x, d);
    let size = count("y", &[rows, taps.count, d]);
    if rows == 0 {
        return Vec::new();
    }
    // A row of the output is that of a tap.
    let of_task = ROWS * taps.count;
    fresh::chunks(size, of_task * d, |task, y| {
        y.rows_written(d, |n, y| {
            let read = task * of_task + n;
            let (place, factor) = (taps.place(read / taps.count, read % taps.count), taps.factors[read]);
            let [left, right] = [(place.left, 1.0 - place.share), (place.right, place.share)]
                .map(|(row, share)| row.map(|row| (&x[row * d..(row + 1) * d], factor * share)));
            match (left, right) {
                (Some((a, first)), Some((b, second))) => between(a, b, first, second, y),
                (Some((row, share)), None) | (None, Some((row, share))) => between(row, row, share, 0.0, y),
                (None, None) => y.cleared(),
            }
        })
    })
}

simd! {
    /// `y = first · a + second · b`.
    fn between<'y>[FMA](a: &[f32], b: &[f32], first: f32, second: f32, y: &'y mut [MaybeUninit<f32>]) -> &'y mut [f32] {
        y.written(a.iter().zip(b).map(move |(a, b)| first * a + second * b))
    }
}

simd! {
    /// `y += share · x`.
    fn add[FMA](x: &[f32], share: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += share * x;
        }
    }
}

/// Gradients of [`forward`].
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[rows, d]`.
    pub x: Vec<f32>,
    /// `[rows, taps]`. At whole places that to the right, also one position before the first row.
    pub offsets: Vec<f32>,
    /// `[rows, taps]`.
    pub factors: Vec<f32>,
}

/// Gradients of [`forward`] for the output gradient `dy [rows, taps, d]`.
///
/// # Panics
/// As [`forward`], and if `dy` does not fit its shape.
#[must_use]
pub fn backward(x: &[f32], taps: &Taps, d: usize, dy: &[f32]) -> Gradients {
    let rows = taps.check(x, d);
    fits("dy", dy, &[rows, taps.count, d]);
    if rows == 0 {
        return Gradients { x: Vec::new(), offsets: Vec::new(), factors: Vec::new() };
    }
    let (mut offsets, mut factors) = (vec![0.0; rows * taps.count], vec![0.0; rows * taps.count]);
    let of_taps = offsets.par_iter_mut().zip(&mut factors).zip(dy.par_chunks_exact(d)).enumerate();
    of_taps.with_min_len(ROWS).for_each(|(n, ((offset, factor), dy))| {
        let place = taps.place(n / taps.count, n % taps.count);
        let along = |row: Option<usize>| row.map_or(0.0, |row| sum_by(d, |i| dy[i] * x[row * d + i]));
        let (left, right) = (along(place.left), along(place.right));
        *factor = (1.0 - place.share) * left + place.share * right;
        *offset = taps.factors[n] * (right - left);
    });
    Gradients { x: of_rows(taps, d, dy), offsets, factors }
}

/// The gradient of the rows that were read. Each gathers what it was read for, in order, so that no two tasks write to one row.
fn of_rows(taps: &Taps, d: usize, dy: &[f32]) -> Vec<f32> {
    let rows = taps.offsets.len() / taps.count;
    let reads = |n: usize| {
        let place = taps.place(n / taps.count, n % taps.count);
        let both = [(place.left, 1.0 - place.share), (place.right, place.share)];
        both.into_iter().filter_map(move |(row, share)| Some((row?, n, share * taps.factors[n])))
    };
    let all = || (0..rows * taps.count).flat_map(reads);
    // Readers of each row one after another: where those of a row end, then who they are.
    let mut ends = vec![0usize; rows + 1];
    all().for_each(|(row, ..)| ends[row + 1] += 1);
    (0..rows).for_each(|row| ends[row + 1] += ends[row]);
    let mut readers = vec![(0, 0.0); ends[rows]];
    let mut next = ends.clone();
    for (row, n, share) in all() {
        readers[next[row]] = (n, share);
        next[row] += 1;
    }
    let mut dx = vec![0.0; rows * d];
    dx.par_chunks_exact_mut(d).enumerate().with_min_len(ROWS).for_each(|(row, dx)| {
        for &(n, share) in &readers[ends[row]..ends[row + 1]] {
            add(&dy[n * d..(n + 1) * d], share, dx);
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// The formula as written, in f64: `max(0, 1 - |h - j|)` of every row j.
    fn reference(x: &[f64], offsets: &[f64], factors: &[f64], count: usize, length: usize, d: usize) -> Vec<f64> {
        let rows = x.len() / d;
        let mut y = vec![0.0; rows * count * d];
        for (n, y) in y.chunks_exact_mut(d).enumerate() {
            let (row, tap) = (n / count, n % count);
            let place = (row % length) as f64 - (count / 2) as f64 + tap as f64 + offsets[n];
            let sequence = row / length * length;
            for at in 0..length {
                let share = (1.0 - (place - at as f64).abs()).max(0.0);
                (0..d).for_each(|c| y[c] += factors[n] * share * x[(sequence + at) * d + c]);
            }
        }
        y
    }

    #[test]
    fn agrees_with_the_formula_and_its_gradients() {
        for (batch, length, count, d) in [(2, 9, 3, 5), (3, 1, 3, 2), (1, 40, 5, 17)] {
            let rows = batch * length;
            let (x, factors) = (noise(rows * d, 1), noise(rows * count, 3));
            // Away from whole numbers, where the formula has a bend; some far outside.
            let offsets: Vec<f32> = noise(rows * count, 2).iter().map(|v| (3.0 * v).floor() + 0.3).collect();
            let taps = Taps { offsets: &offsets, factors: &factors, count, length };
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let of = |x: &[f64], offsets: &[f64], factors: &[f64]| reference(x, offsets, factors, count, length, d);
            let want = of(&wide(&x), &wide(&offsets), &wide(&factors));
            assert_close(&forward(&x, &taps, d), &want.iter().map(|&y| y as f32).collect::<Vec<_>>());
            let dy = noise(rows * count * d, 4);
            let found = backward(&x, &taps, d, &dy);
            let loss = |y: Vec<f64>| y.iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum();
            assert_gradient(&found.x, &x, |x| loss(of(x, &wide(&offsets), &wide(&factors))));
            assert_gradient(&found.offsets, &offsets, |offsets| loss(of(&wide(&x), offsets, &wide(&factors))));
            assert_gradient(&found.factors, &factors, |factors| loss(of(&wide(&x), &wide(&offsets), factors)));
        }
    }

    /// Vectors T8 and T9 of the project's specification of MxDNA: a kernel of 0.5, 1, -1 over 1, 2, 4, 8.
    #[test]
    fn samples_are_those_worked_out_by_hand() {
        let (x, kernel) = ([1.0, 2.0, 4.0, 8.0], [0.5, 1.0, -1.0]);
        let convolved = |taps: &Taps| -> Vec<f32> {
            let read = forward(&x, taps, 1);
            read.chunks(3).map(|read| read.iter().zip(kernel).map(|(x, w)| x * w).sum()).collect()
        };
        let each = |values: [f32; 3]| values.repeat(4);
        let (none, ones) = (each([0.0; 3]), each([1.0; 3]));
        let plain = Taps { offsets: &none, factors: &ones, count: 3, length: 4 };
        assert_eq!(convolved(&plain), [-1.0, -1.5, -3.0, 10.0]);
        let half = each([0.0, 0.0, 0.5]);
        let moved = Taps { offsets: &half, ..plain };
        assert_eq!(convolved(&moved), [-2.0, -3.5, 1.0, 10.0]);
        let (back, strong) = (each([-0.25, 0.0, 0.0]), each([2.0, 1.0, 0.5]));
        let modulated = Taps { offsets: &back, factors: &strong, ..plain };
        assert_eq!(convolved(&modulated), [0.0, 0.75, 1.75, 11.5]);

        let found = backward(&x, &moved, 1, &kernel.repeat(4));
        let of_tap = |tap: usize| found.offsets.iter().skip(tap).step_by(3).copied().collect::<Vec<_>>();
        assert_eq!(of_tap(2), [-2.0, -4.0, 8.0, 0.0]);
        assert_eq!(of_tap(0), [0.5, 0.5, 1.0, 2.0], "also one position before the first");
        assert_eq!(of_tap(1), [1.0, 2.0, 4.0, -8.0]);
    }

    #[test]
    fn far_along_a_sequence_places_stay_exact() {
        let length = 40_000;
        let x: Vec<f32> = (0..length).map(|at| (at % 2) as f32).collect();
        let (offsets, factors) = (vec![1e-3; length], vec![1.0; length]);
        let y = forward(&x, &Taps { offsets: &offsets, factors: &factors, count: 1, length }, 1);
        assert!((y[39_998] - 1e-3).abs() < 1e-9);
        let far = vec![1e30; length];
        assert!(forward(&x, &Taps { offsets: &far, factors: &factors, count: 1, length }, 1).iter().all(|&y| y == 0.0));
    }
}
