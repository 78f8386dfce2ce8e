//! AdamW (Loshchilov and Hutter 2019), one pass over a parameter and its moments.

use crate::shape::fits;
use crate::simd::{fma, simd, sum_by};
use rayon::prelude::*;

/// Elements handled by one task.
const CHUNK: usize = 1 << 16;

/// Everything a step needs but the tensors.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, multiplied by the rate.
    pub weight_decay: f32,
    /// `1 − β₁ᵗ` at this step, counted from 1.
    pub correction1: f32,
    /// `1 − β₂ᵗ` at this step.
    pub correction2: f32,
    /// Factor of the gradient, from clipping by global norm.
    pub scale: f32,
}

/// Moves a parameter by one step and updates its two moments in place.
///
/// # Panics
/// If the four slices differ in length.
pub fn update(step: Step, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let length = parameter.len();
    fits("gradient", gradient, &[length]);
    fits("first", first, &[length]);
    fits("second", second, &[length]);
    parameter
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK))
        .zip(second.par_chunks_mut(CHUNK))
        .for_each(|(((p, g), m), v)| chunk(step, p, g, m, v));
}

simd! {
    fn chunk[FMA](step: Step, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let keep = 1.0 - step.rate * step.weight_decay;
        let size = step.rate / step.correction1;
        let root = 1.0 / step.correction2.sqrt();
        for (((p, &g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * step.scale;
            *m = fma::<FMA>(step.beta1, *m, (1.0 - step.beta1) * g);
            *v = fma::<FMA>(step.beta2, *v, (1.0 - step.beta2) * g * g);
            *p = *p * keep - size * *m / fma::<FMA>(v.sqrt(), root, step.eps);
        }
    }
}

/// Sum of squares, in parts of fixed length added in order; each part in `f32` lanes, their total in `f64`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> =
        x.par_chunks(CHUNK).map(|part| part.chunks(ROW).map(|row| f64::from(squares(row))).sum()).collect();
    parts.into_iter().sum()
}

/// Elements summed in single precision.
const ROW: usize = 1 << 10;

simd! {
    fn squares[FMA](x: &[f32]) -> f32 {
        sum_by(x.len(), |i| x[i] * x[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_of_any_length() {
        for n in [0usize, 1, 100, CHUNK + 3] {
            let x: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
            assert_eq!(sum_of_squares(&x), x.iter().map(|&v| f64::from(v * v)).sum::<f64>());
        }
    }

    /// Two steps by hand: g = 2 then −1, rate 0.1, decay 0.5.
    #[test]
    fn two_steps_by_hand() {
        let (mut p, mut m, mut v) = ([1.0f32], [0.0f32], [0.0f32]);
        let (mut want, mut wm, mut wv) = (1.0f64, 0.0f64, 0.0f64);
        for (t, g) in [(1, 2.0f32), (2, -1.0)] {
            let (c1, c2) = (1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t));
            let step = Step {
                rate: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.5,
                correction1: c1 as f32,
                correction2: c2 as f32,
                scale: 0.5,
            };
            update(step, &mut p, &[g], &mut m, &mut v);
            let g = f64::from(g) * 0.5;
            wm = 0.9 * wm + 0.1 * g;
            wv = 0.999 * wv + 0.001 * g * g;
            want = want * (1.0 - 0.05) - 0.1 * (wm / c1) / ((wv / c2).sqrt() + 1e-8);
            assert!((f64::from(p[0]) - want).abs() < 1e-6, "step {t}: {} is not {want}", p[0]);
        }
    }
}
