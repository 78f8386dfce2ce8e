//! Gated linear units: one half of a row passes through an activation and multiplies the other half. Parts of
//! [`mlp`](crate::mlp) (`silu(a) · b`, `SwiGLU`, and `gelu(a) · b`, `GEGLU`; Shazeer 2020) and of [`experts`](crate::experts) (`a · sigmoid(b)`; Dauphin et al. 2017).

use crate::gelu;
use crate::simd::{exp, simd};

/// What the first half of a row passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// `a · sigmoid(a)`.
    Silu,
    /// Exact GELU, by its formula.
    Gelu,
}

impl Gate {
    /// Rows `x [rows, 2 d]` of two halves to `gate(a) · b`, `[rows, d]`.
    pub(crate) fn rows(self, x: &[f32], d: usize, y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(2 * d)) {
            let (a, b) = x.split_at(d);
            match self {
                Self::Silu => by_silu(a, b, y),
                Self::Gelu => by_gelu(a, b, y),
            }
        }
    }

    /// From `x [rows, 2 d]` and the gradient `dy [rows, d]` of [`Gate::rows`]: over `x` the gradient of it, over `dy` its output.
    pub(crate) fn with_gradient(self, x: &mut [f32], dy: &mut [f32], d: usize) {
        for (x, dy) in x.chunks_exact_mut(2 * d).zip(dy.chunks_exact_mut(d)) {
            let (a, b) = x.split_at_mut(d);
            match self {
                Self::Silu => by_silu_in_place(a, b, dy),
                Self::Gelu => by_gelu_in_place(a, b, dy),
            }
        }
    }
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

simd! {
    /// `silu(a) · b`.
    fn by_silu[FMA](a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a * sigmoid::<FMA>(*a) * b;
        }
    }
}

simd! {
    /// `gelu(a) · b`.
    fn by_gelu[FMA](a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = gelu::value::<FMA>(*a) * b;
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
    /// `silu(a) · b` over `dy`, and its gradients over `a` and `b`.
    fn by_silu_in_place[FMA](a: &mut [f32], b: &mut [f32], dy: &mut [f32]) {
        for ((a, b), dy) in a.iter_mut().zip(b).zip(dy) {
            let open = sigmoid::<FMA>(*a);
            let y = *a * open * *b;
            let (da, db) = (*dy * *b * (open + *a * open * (1.0 - open)), *dy * *a * open);
            (*a, *b, *dy) = (da, db, y);
        }
    }
}

simd! {
    /// `gelu(a) · b` over `dy`, and its gradients over `a` and `b`.
    fn by_gelu_in_place[FMA](a: &mut [f32], b: &mut [f32], dy: &mut [f32]) {
        for ((a, b), dy) in a.iter_mut().zip(b).zip(dy) {
            let (value, slope) = gelu::value_and_slope::<FMA>(*a);
            (*a, *b, *dy) = (*dy * *b * slope, *dy * value, value * *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Halves far from 0 too, where gates are open or shut, side by side.
    fn rows(d: usize) -> (Vec<f32>, Vec<f64>) {
        let mut x: Vec<f32> = noise(3 * 2 * d, 1).iter().map(|v| 6.0 * v).collect();
        (x[0], x[d]) = (80.0, -80.0);
        let wide = x.iter().map(|&v| f64::from(v)).collect();
        (x, wide)
    }

    #[test]
    fn gated_halves_agree_with_the_formula_and_its_gradient() {
        for (gate, d) in [1, 5, 40].into_iter().flat_map(|d| [(Gate::Silu, d), (Gate::Gelu, d)]) {
            let ((mut x, wide), dy) = (rows(d), noise(3 * d, 2));
            let of = |x: &[f64]| -> Vec<f64> {
                let opened = |a: f64| match gate {
                    Gate::Silu => a * sigmoid(a),
                    Gate::Gelu => gelu::test::reference(a),
                };
                x.chunks(2 * d).flat_map(|x| (0..d).map(|i| opened(x[i]) * x[d + i])).collect()
            };
            let want: Vec<f32> = of(&wide).iter().map(|&v| v as f32).collect();
            let (mut y, mut over, at) = (vec![0.0; 3 * d], dy.clone(), x.clone());
            gate.rows(&x, d, &mut y);
            assert_close(&y, &want);
            gate.with_gradient(&mut x, &mut over, d);
            assert_close(&over, &want);
            assert_gradient(&x, &at, |x| of(x).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum());
        }
    }

    #[test]
    fn a_gate_agrees_with_the_formula_and_its_gradient() {
        for d in [1, 5, 40] {
            let (x, wide) = rows(d);
            let (ab, dy) = (x.split_at(3 * d), noise(3 * d, 2));
            let of = |x: &[f64]| -> Vec<f64> {
                let (a, b) = x.split_at(3 * d);
                a.iter().zip(b).map(|(a, b)| a * sigmoid(*b)).collect()
            };
            let want: Vec<f32> = of(&wide).iter().map(|&v| v as f32).collect();
            let (mut y, mut over, mut gradient) = (ab.0.to_vec(), dy.clone(), vec![0.0; x.len()]);
            gate_in_place(&mut y, ab.1);
            assert_close(&y, &want);
            let (da, db) = gradient.split_at_mut(3 * d);
            gated_by_with_gradient(ab.0, ab.1, &mut over, da, db);
            assert_close(&over, &want);
            assert_gradient(&gradient, &x, |x| of(x).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum());
        }
    }
}
