//! From rows to a vector for each unit.

use super::{Expert, Kept, Shape, counts, gather, swapped, tiles, width};
use crate::glu;
use crate::norm::{self, OwnedNorm};
use crate::product::{Left, Matrix, Onto, Panels, Saved, Unit, multiply, multiply_all};
use crate::rows::{for_overwrite, with_scratch};
use crate::simd::{exp, simd};
use rayon::prelude::*;

/// Columns of both halves of the first layer that are computed at a time.
const STRIP: usize = 128;

/// Some units of an expert, with what belongs to them.
struct Task<'a, U> {
    expert: usize,
    covered: &'a [u32],
    both: &'a mut [U],
    convolved: &'a mut [f32],
    out: &'a mut [f32],
}

/// An expert in the order in which its forward pass reads it.
#[derive(Clone, Debug)]
struct Ready<U> {
    shape: Shape,
    values: Panels<U>,
    gates: Panels<U>,
    /// One for each group.
    conv: Vec<Panels<U>>,
    norm: OwnedNorm,
    post: Panels<U>,
}

impl<U: Unit> Ready<U> {
    fn new(expert: &Expert) -> Self {
        let shape = expert.shape();
        let d = shape.d;
        let (values, gates) = expert.pre.split_at(d * d);
        let conv = swapped(expert.conv, shape.inside(), shape.size);
        let square = |weight| Panels::new(Matrix::new(weight, d, d).transposed());
        let group = |weight| Panels::new(Matrix::new(weight, shape.inside(), shape.group()).transposed());
        Self {
            shape,
            values: square(values),
            gates: square(gates),
            conv: conv.par_chunks(shape.inside() * shape.group()).map(group).collect(),
            norm: expert.norm.into(),
            post: square(expert.post),
        }
    }

    fn tile(&self, x: &[f32], keep: bool, task: Task<U>) {
        let Shape { d, size, .. } = self.shape;
        let (inside, group) = (self.shape.inside(), self.shape.group());
        let (rows, units, strip) = (task.covered.len(), task.covered.len() / size, STRIP.min(d));
        let lengths = [
            rows * d,
            U::scratch(rows, d),
            rows * strip,
            rows * strip,
            rows * d,
            U::scratch(units, group),
            units * d,
            U::scratch(units, d),
        ];
        with_scratch(lengths, |[near, near_units, values, gates, grouped, group_units, inner, inner_units]| {
            gather(x, d, task.covered, near);
            let (near, stride) = U::of_rows(near, d, d, near_units);
            let left = Left::Rows { units: near, stride };
            for first in (0..d).step_by(STRIP) {
                let width = STRIP.min(d - first);
                let (values, gates) = (&mut values[..rows * width], &mut gates[..rows * width]);
                for (half, panels) in [(&mut *values, &self.values), (&mut *gates, &self.gates)] {
                    let right = panels.view();
                    multiply(half, width, left, right, 0..right.steps(), first..first + width, Onto::Zero);
                }
                if keep {
                    let half = U::width(d);
                    U::write_rows(values, width, width, &mut task.both[U::width(first)..], 2 * half);
                    U::write_rows(gates, width, width, &mut task.both[half + U::width(first)..], 2 * half);
                }
                glu::gate_in_place(values, gates);
                for (row, values) in values.chunks_exact(width).enumerate() {
                    self.shape.parts(row, units, first, width, |from, to, length| {
                        grouped[to..to + length].copy_from_slice(&values[from..from + length]);
                    });
                }
            }
            for (n, (grouped, conv)) in grouped.chunks_exact(units * group).zip(&self.conv).enumerate() {
                let (grouped, stride) = U::of_rows(grouped, group, group, group_units);
                let (left, right) = (Left::Rows { units: grouped, stride }, conv.view());
                multiply(&mut inner[n * inside..], d, left, right, 0..right.steps(), 0..inside, Onto::Zero);
            }
            if keep {
                task.convolved.copy_from_slice(inner);
            }
            norm::in_place(self.norm.view(), inner);
            silu(inner);
            let (inner, _) = U::of_rows(inner, d, d, inner_units);
            multiply_all(task.out, inner, self.post.view(), Onto::Zero);
        });
    }
}

/// Experts with their weights in the order in which the forward pass reads them, for use many times.
#[derive(Clone, Debug)]
pub struct Prepared<U>(Vec<Ready<U>>);

impl<U: Unit> Prepared<U> {
    /// Copies the weights.
    ///
    /// # Panics
    /// If those of an expert do not fit each other, experts have different widths, a size is 0, or groups do not divide d.
    #[must_use]
    pub fn new(experts: &[Expert]) -> Self {
        width(experts.iter().map(Expert::shape));
        Self(experts.par_iter().map(Ready::new).collect())
    }

    /// See [`forward`](super::forward).
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn forward(&self, x: &[f32], covered: &[Vec<u32>]) -> Vec<f32> {
        self.run(x, covered, false).0
    }

    pub(super) fn run(&self, x: &[f32], covered: &[Vec<u32>], keep: bool) -> (Vec<f32>, Kept) {
        let d = width(self.0.iter().map(|expert| expert.shape));
        let sizes: Vec<usize> = self.0.iter().map(|expert| expert.shape.size).collect();
        let counts = counts(x, d, covered, &sizes);
        let (units, rows) = (counts.iter().sum::<usize>(), covered.iter().map(Vec::len).sum::<usize>());
        let mut out = for_overwrite(units * d);
        let mut kept = Kept::default();
        if keep {
            kept = Kept { both: Saved::new::<U>(2 * rows, d), convolved: for_overwrite(units * d) };
        }
        let (mut both, mut convolved) = (kept.both.units_mut::<U>(), kept.convolved.as_mut_slice());
        let mut rest = out.as_mut_slice();
        let mut task = |[expert, first, count]: [usize; 3]| {
            let size = self.0[expert].shape.size;
            let kept_count = if keep { count } else { 0 };
            Task {
                expert,
                covered: &covered[expert][first * size..(first + count) * size],
                both: both.split_off_mut(..2 * kept_count * size * U::width(d)).unwrap_or_default(),
                convolved: convolved.split_off_mut(..kept_count * d).unwrap_or_default(),
                out: rest.split_off_mut(..count * d).unwrap_or_default(),
            }
        };
        let tiles = tiles(&counts, &sizes);
        let tasks: Vec<Task<U>> = tiles.into_iter().map(&mut task).collect();
        tasks.into_par_iter().for_each(|task| self.0[task.expert].tile(x, keep, task));
        (out, kept)
    }
}

simd! {
    /// `x ← silu(x)`.
    fn silu[FMA](x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + exp::<FMA>(-*x);
        }
    }
}
