//! Mean cross-entropy of a linear classifier whose classes are many: the logits of all rows never exist at once.

use crate::fresh;
use crate::linear::column_sums;
use crate::product::{Left, Matrix, Onto, Pair, Panels, Precision, TILE, Unit, multiply, transpose, transposed};
use crate::rows::with_scratch;
use crate::shape::{count, fits, place, positive, width_of};
use crate::simd::{exp, simd};
use rayon::prelude::*;

/// Classes whose logits exist at a time: those of a tile of rows stay in the second cache, and so do the weights they meet.
const STRIP: usize = 256;

/// Floats of gradients of logits that are kept for the gradient of the weight.
const KEPT: usize = 1 << 21;

/// Lanes of sums and maxima over classes; their number fixes the order of additions.
const LANES: usize = 32;

/// Rows, the classifier and what it should say.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[rows, d]`.
    pub h: &'a [f32],
    /// `[classes, d]`.
    pub weight: &'a [f32],
    /// `[classes]`.
    pub bias: &'a [f32],
    /// `[rows]`, each below the number of classes.
    pub target: &'a [i32],
}

impl Input<'_> {
    fn d(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn check(&self) {
        positive("bias", self.bias.len());
        let d = width_of("weight", self.weight, self.bias.len());
        fits("h", self.h, &[self.target.len(), d]);
        self.target.iter().for_each(|&target| _ = place("target", target, self.bias.len()));
    }
}

simd! {
    /// Takes more logits of each row into its largest one and the sum of `e^(logit − largest)`.
    fn accumulate[FMA](logits: &[f32], width: usize, largest: &mut [f32], sums: &mut [f32]) {
        for ((row, largest), sum) in logits.chunks_exact(width).zip(largest).zip(sums) {
            let (chunks, rest) = row.as_chunks::<LANES>();
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in chunks {
                for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                    *lane = if logit > *lane { logit } else { *lane };
                }
            }
            let now = lanes.iter().chain(rest).fold(*largest, |m, &v| if v > m { v } else { m });
            let mut lanes = [0.0f32; LANES];
            for chunk in chunks {
                for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                    *lane += exp::<FMA>(logit - now);
                }
            }
            for (lane, &logit) in lanes.iter_mut().zip(rest) {
                *lane += exp::<FMA>(logit - now);
            }
            let fade = if *largest == f32::NEG_INFINITY { 0.0 } else { exp::<FMA>(*largest - now) };
            *sum = *sum * fade + lanes.iter().sum::<f32>();
            *largest = now;
        }
    }
}

simd! {
    /// Logits become `scale · softmax`, in rows that begin `stride` apart.
    fn differentiate[FMA](logits: &mut [f32], stride: usize, width: usize, stats: &[f32], scale: f32) {
        for (row, stat) in logits.chunks_mut(stride).zip(stats) {
            for logit in &mut row[..width] {
                *logit = exp::<FMA>(*logit - stat) * scale;
            }
        }
    }
}

/// The mean over rows of `−log softmax(h · weightᵀ + bias)[target]`, 0 if there are none, and for [`backward`] the logarithm of the sum of
/// `e^logit` of each row, `[rows]`.
///
/// # Panics
/// If a slice does not fit its shape, `d` or the number of classes is 0, or a target is no class.
pub fn forward(input: Input, precision: Precision) -> (f32, Vec<f32>) {
    match precision {
        Precision::F32 => forward_in::<f32>(input),
        Precision::Bf16 => forward_in::<Pair>(input),
    }
}

fn forward_in<U: Unit>(input: Input) -> (f32, Vec<f32>) {
    input.check();
    let Input { h, weight, bias, target } = input;
    let (rows, classes, d) = (target.len(), bias.len(), input.d());
    if rows == 0 {
        return (0.0, Vec::new());
    }
    let panels = Panels::<U>::new(Matrix::new(weight, classes, d).transposed());
    let panels = panels.view();
    let (mut stats, mut losses) = (vec![0.0; rows], vec![0.0; rows]);
    let tiles = h.par_chunks(TILE * d).zip(target.par_chunks(TILE));
    tiles.zip(stats.par_chunks_mut(TILE)).zip(losses.par_chunks_mut(TILE)).for_each(
        |(((h, target), stats), losses)| {
            let rows = target.len();
            with_scratch([rows * STRIP, U::scratch(rows, d), rows], |[logits, units, largest]| {
                let (units, stride) = U::of_rows(h, d, d, units);
                let h = Left::Rows { units, stride };
                largest.fill(f32::NEG_INFINITY);
                for first in (0..classes).step_by(STRIP) {
                    let width = STRIP.min(classes - first);
                    let columns = first..first + width;
                    let logits = &mut logits[..rows * width];
                    let onto = Onto::Row(&bias[columns.clone()]);
                    multiply(logits, width, h, panels, 0..panels.steps(), columns.clone(), onto);
                    accumulate(logits, width, largest, stats);
                    for ((loss, &target), logits) in losses.iter_mut().zip(target).zip(logits.chunks_exact(width)) {
                        if columns.contains(&(target as usize)) {
                            *loss = logits[target as usize - first];
                        }
                    }
                }
                for ((stat, largest), loss) in stats.iter_mut().zip(largest).zip(losses) {
                    *stat = *largest + stat.ln();
                    *loss = *stat - *loss;
                }
            });
        },
    );
    let sum: f64 = losses.iter().map(|&v| f64::from(v)).sum();
    ((sum / rows as f64) as f32, stats)
}

/// Gradients of [`forward`].
pub struct Gradients {
    /// `[rows, d]`.
    pub h: Vec<f32>,
    /// `[classes, d]`.
    pub weight: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
}

/// Gradients of [`forward`] for the gradient `dloss` of the mean; `stats` is what [`forward`] returned. Logits are computed again.
///
/// # Panics
/// As [`forward`], and if `stats` is not `[rows]`.
pub fn backward(input: Input, stats: &[f32], dloss: f32, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(input, stats, dloss),
        Precision::Bf16 => backward_in::<Pair>(input, stats, dloss),
    }
}

fn backward_in<U: Unit>(input: Input, stats: &[f32], dloss: f32) -> Gradients {
    input.check();
    let Input { h, weight, bias, target } = input;
    let (rows, classes, d) = (target.len(), bias.len(), input.d());
    fits("stats", stats, &[rows]);
    let scale = dloss / rows as f32;
    let up = Panels::<U>::new(Matrix::new(weight, classes, d).transposed());
    let back = Panels::<U>::new(Matrix::new(weight, classes, d));
    let (up, back) = (up.view(), back.view());
    // Rows whose gradients of logits exist at a time; the last bits of sums depend on it, so it depends on the classes alone.
    let group = (KEPT / classes).max(1).next_multiple_of(TILE);
    let mut dlogits: Vec<f32> = fresh::cleared(count("logits", &[group.min(rows), classes]));
    let mut dh: Vec<f32> = fresh::cleared(h.len());
    let (mut dw, mut dbias) = (vec![0.0; d * classes], vec![0.0; classes]);
    let groups = h.chunks(group * d).zip(target.chunks(group)).zip(stats.chunks(group)).zip(dh.chunks_mut(group * d));
    for (((h, target), stats), dh) in groups {
        let dlogits = &mut dlogits[..target.len() * classes];
        let tiles = dlogits.par_chunks_mut(TILE * classes).zip(dh.par_chunks_mut(TILE * d));
        let tiles = tiles.zip(h.par_chunks(TILE * d)).zip(target.par_chunks(TILE)).zip(stats.par_chunks(TILE));
        tiles.for_each(|((((dlogits, dh), h), target), stats)| {
            let rows = target.len();
            with_scratch([U::scratch(rows, d), U::scratch(rows, STRIP)], |[units, strip_units]| {
                let (units, stride) = U::of_rows(h, d, d, units);
                let h = Left::Rows { units, stride };
                for first in (0..classes).step_by(STRIP) {
                    let width = STRIP.min(classes - first);
                    let columns = first..first + width;
                    let strip = &mut dlogits[first..(rows - 1) * classes + columns.end];
                    let onto = Onto::Row(&bias[columns.clone()]);
                    multiply(strip, classes, h, up, 0..up.steps(), columns.clone(), onto);
                    differentiate(strip, classes, width, stats, scale);
                    for (row, &target) in strip.chunks_mut(classes).zip(target) {
                        if columns.contains(&(target as usize)) {
                            row[target as usize - first] -= scale;
                        }
                    }
                    let steps = first / U::DEPTH..columns.end.div_ceil(U::DEPTH);
                    let (units, stride) = U::of_rows(strip, classes, width, strip_units);
                    let onto = if first == 0 { Onto::Zero } else { Onto::Output };
                    multiply(dh, d, Left::Rows { units, stride }, back, steps, 0..d, onto);
                }
            });
        });
        // The wider matrix where the product wants it, as in a linear layer.
        if classes >= d {
            transposed::<U>(&mut dw, h, d, dlogits, classes, Onto::Output);
        } else {
            transposed::<U>(&mut dw, dlogits, classes, h, d, Onto::Output);
        }
        dbias.iter_mut().zip(column_sums(dlogits, classes)).for_each(|(sum, v)| *sum += v);
    }
    let weight = if classes >= d { transpose(&dw, d, classes) } else { dw };
    Gradients { h: dh, weight, bias: dbias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn reference(h: &[f64], weight: &[f64], bias: &[f64], target: &[i32]) -> f64 {
        let d = weight.len() / bias.len();
        let loss = |row: &[f64], target: i32| {
            let dot = |w: &[f64]| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
            let logits: Vec<f64> = weight.chunks(d).zip(bias).map(|(w, b)| dot(w) + b).collect();
            logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[target as usize]
        };
        h.chunks(d).zip(target).map(|(row, &target)| loss(row, target)).sum::<f64>() / target.len() as f64
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&v| f64::from(v)).collect()
    }

    fn targets(rows: usize, classes: usize) -> Vec<i32> {
        (0..rows).map(|i| (i * 7 % classes) as i32).collect()
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        for (rows, d, classes) in [(1, 3, 2), (5, 3, 40), (6, 8, 3), (TILE + 3, 2, STRIP + 5)] {
            let (h, weight, bias) = (noise(rows * d, 1), noise(classes * d, 2), noise(classes, 3));
            let (hw, ww, bw) = (wide(&h), wide(&weight), wide(&bias));
            let target = targets(rows, classes);
            let input = Input { h: &h, weight: &weight, bias: &bias, target: &target };
            let (loss, stats) = forward(input, Precision::F32);
            assert_close(&[loss], &[reference(&hw, &ww, &bw, &target) as f32]);
            let gradients = backward(input, &stats, 1.5, Precision::F32);
            assert_gradient(&gradients.h, &h, |h| 1.5 * reference(h, &ww, &bw, &target));
            assert_gradient(&gradients.weight, &weight, |w| 1.5 * reference(&hw, w, &bw, &target));
            assert_gradient(&gradients.bias, &bias, |b| 1.5 * reference(&hw, &ww, b, &target));
        }
    }

    #[test]
    fn no_rows_have_no_loss() {
        let input = Input { h: &[], weight: &[1.0, 2.0], bias: &[0.0, 0.0], target: &[] };
        let (loss, stats) = forward(input, Precision::F32);
        let gradients = backward(input, &stats, 1.0, Precision::F32);
        assert_eq!((loss, gradients.h, gradients.weight, gradients.bias), (0.0, vec![], vec![0.0; 2], vec![0.0; 2]));
    }

    #[test]
    fn several_groups_are_one_sum_for_any_threads() {
        let (d, classes) = (2, KEPT / TILE);
        let rows = TILE + 20;
        let (h, weight, bias) = (noise(rows * d, 1), noise(classes * d, 2), noise(classes, 3));
        let target = targets(rows, classes);
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |threads, input: Input, dloss| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (loss, stats) = forward(input, precision);
                    let gradients = backward(input, &stats, dloss, precision);
                    (loss, gradients.h, gradients.weight, gradients.bias)
                })
            };
            let input = Input { h: &h, weight: &weight, bias: &bias, target: &target };
            let all = run(1, input, 1.0);
            assert!(run(3, input, 1.0) == all && run(8, input, 1.0) == all);
            let part = |from: usize, to: usize| {
                let input = Input { h: &h[from * d..to * d], target: &target[from..to], ..input };
                run(1, input, (to - from) as f32 / rows as f32)
            };
            let (first, last) = (part(0, TILE), part(TILE, rows));
            let sum: Vec<f32> = first.2.iter().zip(&last.2).map(|(a, b)| a + b).collect();
            assert_close(&all.2, &sum);
        }
    }

    #[test]
    fn bf16_is_near() {
        let (rows, d, classes) = (50, 64, 300);
        let (h, weight, bias) = (noise(rows * d, 1), noise(classes * d, 2), noise(classes, 3));
        let target = targets(rows, classes);
        let input = Input { h: &h, weight: &weight, bias: &bias, target: &target };
        let near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.03 * scale)
        };
        let run = |precision| {
            let (loss, stats) = forward(input, precision);
            (loss, backward(input, &stats, 1.0, precision))
        };
        let ((loss, got), (want_loss, want)) = (run(Precision::Bf16), run(Precision::F32));
        assert!((loss - want_loss).abs() < 0.01 * want_loss);
        assert!(near(&got.h, &want.h) && near(&got.weight, &want.weight) && near(&got.bias, &want.bias));
    }
}
