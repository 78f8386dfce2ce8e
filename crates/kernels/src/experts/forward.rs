//! From rows to a vector for each unit.

use super::{Expert, Kept, Shape, counts, gather, swapped, tiles, width};
use crate::fresh::{self, Out, Scattered};
use crate::glu;
use crate::norm::{self, OwnedNorm};
use crate::product::{Left, Matrix, Onto, Panels, Saved, Unit, multiply, product_written};
use crate::rows::with_scratch;
use crate::simd::{exp, simd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Columns of both halves of the first layer that are computed at a time.
const STRIP: usize = 128;

/// Where what is kept of a tile goes: that of all tiles, and how many rows and units come before it.
struct Keep<'a, U> {
    both: &'a Scattered<'a, U>,
    convolved: &'a Scattered<'a, f32>,
    rows_before: usize,
    units_before: usize,
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

    /// The vectors of some units, that cover these rows.
    ///
    /// # Safety
    /// What is kept of a tile has a place of its own.
    unsafe fn tile<'o>(
        &self,
        x: &[f32],
        covered: &[u32],
        keep: Option<Keep<U>>,
        out: &'o mut [MaybeUninit<f32>],
    ) -> &'o mut [f32] {
        let Shape { d, size, .. } = self.shape;
        let (inside, group) = (self.shape.inside(), self.shape.group());
        let (rows, units, strip) = (covered.len(), covered.len() / size, STRIP.min(d));
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
            gather(x, d, covered, near);
            let (near, stride) = U::of_rows(near, d, d, near_units);
            let left = Left::Rows { units: near, stride };
            let half = U::width(d);
            // Gated values in the order of groups; both halves before that into `both`.
            let mut gated = |mut both: Option<&mut [MaybeUninit<U>]>| {
                for first in (0..d).step_by(STRIP) {
                    let width = STRIP.min(d - first);
                    let (values, gates) = (&mut values[..rows * width], &mut gates[..rows * width]);
                    for (half, panels) in [(&mut *values, &self.values), (&mut *gates, &self.gates)] {
                        let right = panels.view();
                        multiply(half, width, left, right, 0..right.steps(), first..first + width, Onto::Zero);
                    }
                    if let Some(both) = &mut both {
                        U::put_rows(values, width, width, Out::fresh(&mut both[U::width(first)..]), 2 * half);
                        U::put_rows(gates, width, width, Out::fresh(&mut both[half + U::width(first)..]), 2 * half);
                    }
                    glu::gate_in_place(values, gates);
                    for (row, values) in values.chunks_exact(width).enumerate() {
                        self.shape.parts(row, units, first, width, |from, to, length| {
                            grouped[to..to + length].copy_from_slice(&values[from..from + length]);
                        });
                    }
                }
            };
            match &keep {
                None => gated(None),
                // SAFETY: a place of this tile, as the caller promises. Strips are all columns of both halves, each of whole units but for
                // the last one, and all rows of each are put.
                Some(keep) => unsafe {
                    keep.both.write(2 * keep.rows_before * half, 2 * rows * half, |both| {
                        gated(Some(&mut *both));
                        (both.assume_init_mut(), ())
                    });
                },
            }
            for (n, (grouped, conv)) in grouped.chunks_exact(units * group).zip(&self.conv).enumerate() {
                let (grouped, stride) = U::of_rows(grouped, group, group, group_units);
                let (left, right) = (Left::Rows { units: grouped, stride }, conv.view());
                multiply(&mut inner[n * inside..], d, left, right, 0..right.steps(), 0..inside, Onto::Zero);
            }
            if let Some(keep) = &keep {
                // SAFETY: a place of this tile, as the caller promises.
                unsafe {
                    keep.convolved.write(keep.units_before * d, units * d, |to| (to.write_copy_of_slice(inner), ()));
                }
            }
            norm::in_place(self.norm.view(), inner);
            silu(inner);
            let (inner, stride) = U::of_rows(inner, d, d, inner_units);
            let (left, right) = (Left::Rows { units: inner, stride }, self.post.view());
            product_written(out, left, right, 0..right.steps(), 0..d, Onto::Zero)
        })
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
        let kept = |kept: usize| if keep { kept } else { 0 };
        // Each tile with the rows and the units of those before it.
        let tiles = tiles(&counts, &sizes).into_iter().scan([0; 2], |before, [expert, first, count]| {
            let (size, [rows_before, units_before]) = (sizes[expert], *before);
            *before = [rows_before + count * size, units_before + count];
            Some((expert, &covered[expert][first * size..(first + count) * size], rows_before, units_before))
        });
        let tiles: Vec<_> = tiles.collect();
        let heights: Vec<usize> = tiles.iter().map(|(expert, covered, ..)| covered.len() / sizes[*expert]).collect();
        let run = |both: &Scattered<U>, convolved: &Scattered<f32>| {
            fresh::tiles(&heights, d, tiles.iter(), |out, &(expert, covered, rows_before, units_before)| {
                let keep = keep.then_some(Keep { both, convolved, rows_before, units_before });
                // SAFETY: rows and units before a tile are those of others, and the tile comes once.
                (unsafe { self.0[expert].tile(x, covered, keep, out) }, ())
            })
            .0
        };
        let (both, (convolved, out)) = Scattered::collect(kept(2 * rows * U::width(d)), |both| {
            Scattered::collect(kept(units * d), |convolved| run(both, convolved))
        });
        (out, Kept { both: Saved::from_units(both), convolved })
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
