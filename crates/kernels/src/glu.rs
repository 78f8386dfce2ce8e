//! Gated linear units: one half of a row passes through an activation and multiplies the other half.

use crate::rows::for_overwrite;
use crate::simd::{exp, simd};
use rayon::prelude::*;

/// Rows handled by one task.
const ROWS: usize = 64;

/// What the first half of a row becomes before it multiplies, or is multiplied with, the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x · sigmoid(x)`: the gate of `SwiGLU` (Shazeer 2020), `silu(a) · b`.
    Silu,
    /// `a · sigmoid(b)`: the first half as it is, gated by the second (Dauphin et al. 2017).
    Sigmoid,
}

/// Rows `[rows, 2 d]` of two halves a and b to `[rows, d]`.
///
/// # Panics
/// If `x` is not whole rows.
#[must_use]
pub fn forward(x: &[f32], d: usize, gate: Gate) -> Vec<f32> {
    assert!(x.len().is_multiple_of(2 * d.max(1)), "whole rows of {d} and {d} numbers");
    let mut y = for_overwrite(x.len() / 2);
    y.par_chunks_mut((ROWS * d).max(1)).zip(x.par_chunks((2 * ROWS * d).max(1))).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(2 * d)) {
            let (a, b) = x.split_at(d);
            match gate {
                Gate::Silu => gated(a, b, y),
                Gate::Sigmoid => gated_by(a, b, y),
            }
        }
    });
    y
}

/// The gradient of [`forward`] at `x` for the output gradient `dy [rows, d]`.
#[must_use]
pub fn backward(x: &[f32], d: usize, gate: Gate, dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), 2 * dy.len(), "a gradient for each output");
    let mut dx = for_overwrite(x.len());
    let tasks = dx.par_chunks_mut((2 * ROWS * d).max(1)).zip(x.par_chunks((2 * ROWS * d).max(1)));
    tasks.zip(dy.par_chunks((ROWS * d).max(1))).for_each(|((dx, x), dy)| {
        for ((dx, x), dy) in dx.chunks_exact_mut(2 * d).zip(x.chunks_exact(2 * d)).zip(dy.chunks_exact(d)) {
            let ((a, b), (da, db)) = (x.split_at(d), dx.split_at_mut(d));
            match gate {
                Gate::Silu => gated_back(a, b, dy, da, db),
                Gate::Sigmoid => gated_by_back(a, b, dy, da, db),
            }
        }
    });
    dx
}

/// Rows `x [rows, 2 d]` of two halves to `silu(a) · b`, `[rows, d]`.
pub(crate) fn swiglu_rows(x: &[f32], d: usize, y: &mut [f32]) {
    for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(2 * d)) {
        let (a, b) = x.split_at(d);
        gated(a, b, y);
    }
}

/// From `x [rows, 2 d]` and the gradient `dy [rows, d]` of [`swiglu_rows`]: over `x` the gradient of it, over `dy` its output.
pub(crate) fn swiglu_with_gradient(x: &mut [f32], dy: &mut [f32], d: usize) {
    for (x, dy) in x.chunks_exact_mut(2 * d).zip(dy.chunks_exact_mut(d)) {
        let (a, b) = x.split_at_mut(d);
        gated_in_place(a, b, dy);
    }
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

simd! {
    /// `silu(a) · b`.
    fn gated[FMA](a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a * sigmoid::<FMA>(*a) * b;
        }
    }
}

simd! {
    /// `a · sigmoid(b)`.
    fn gated_by[FMA](a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a * sigmoid::<FMA>(*b);
        }
    }
}

simd! {
    /// `a ← a · sigmoid(b)`.
    pub(crate) fn gate_in_place[FMA](a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a *= sigmoid::<FMA>(*b);
        }
    }
}

simd! {
    /// `a · sigmoid(b)` over `dy`, and its gradients.
    pub(crate) fn gated_by_with_gradient[FMA](a: &[f32], b: &[f32], dy: &mut [f32], da: &mut [f32], db: &mut [f32]) {
        for ((((da, db), a), b), dy) in da.iter_mut().zip(db).zip(a).zip(b).zip(dy) {
            let open = sigmoid::<FMA>(*b);
            *da = *dy * open;
            *db = *dy * a * (open * (1.0 - open));
            *dy = a * open;
        }
    }
}

simd! {
    /// Gradients of [`gated`].
    fn gated_back[FMA](a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
        for ((((da, db), a), b), dy) in da.iter_mut().zip(db).zip(a).zip(b).zip(dy) {
            let open = sigmoid::<FMA>(*a);
            *da = dy * b * (open + a * open * (1.0 - open));
            *db = dy * a * open;
        }
    }
}

simd! {
    /// `silu(a) · b` over `dy`, and its gradients over `a` and `b`.
    fn gated_in_place[FMA](a: &mut [f32], b: &mut [f32], dy: &mut [f32]) {
        for ((a, b), dy) in a.iter_mut().zip(b).zip(dy) {
            let open = sigmoid::<FMA>(*a);
            let y = *a * open * *b;
            let (da, db) = (*dy * *b * (open + *a * open * (1.0 - open)), *dy * *a * open);
            (*a, *b, *dy) = (da, db, y);
        }
    }
}

simd! {
    /// Gradients of [`gated_by`].
    fn gated_by_back[FMA](a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
        for ((((da, db), a), b), dy) in da.iter_mut().zip(db).zip(a).zip(b).zip(dy) {
            let open = sigmoid::<FMA>(*b);
            *da = dy * open;
            *db = dy * a * (open * (1.0 - open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn reference(x: &[f64], d: usize, gate: Gate) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let of = |row: &[f64], i: usize| match gate {
            Gate::Silu => row[i] * sigmoid(row[i]) * row[d + i],
            Gate::Sigmoid => row[i] * sigmoid(row[d + i]),
        };
        x.chunks(2 * d).flat_map(|row| (0..d).map(move |i| of(row, i))).collect()
    }

    #[test]
    fn agrees_with_the_formula_and_its_gradient() {
        for (rows, d) in [(3, 5), (130, 3), (1, 40), (0, 4)] {
            for gate in [Gate::Silu, Gate::Sigmoid] {
                let x: Vec<f32> = noise(rows * 2 * d, 1).iter().map(|v| 6.0 * v).collect();
                let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                let want: Vec<f32> = reference(&wide, d, gate).iter().map(|&v| v as f32).collect();
                assert_close(&forward(&x, d, gate), &want);
                let dy = noise(rows * d, 2);
                let loss = |x: &[f64]| reference(x, d, gate).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum();
                assert_gradient(&backward(&x, d, gate, &dy), &x, loss);
            }
        }
    }

    #[test]
    fn far_from_zero_gates_are_open_or_shut() {
        assert_close(&forward(&[1e4, -1e4, 2.0, 3.0], 2, Gate::Silu), &[2e4, 0.0]);
        assert_close(&forward(&[2.0, 3.0, 1e4, -1e4], 2, Gate::Sigmoid), &[2.0, 0.0]);
    }
}
