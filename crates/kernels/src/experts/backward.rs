//! From the gradients of the vectors of units to those of rows and weights.

use super::{Expert, ExpertGradients, Kept, Shape, counts, swapped, tiles, width};
use crate::fresh::Scattered;
use crate::glu;
use crate::norm::{self, Norm};
use crate::product::{Left, Matrix, Onto, Panels, Unit, multiply, multiply_all, transpose, transposed};
use crate::rows::{Shared, with_scratch};
use crate::shape::fits;
use crate::simd::{exp, simd};
use rayon::prelude::*;

/// An expert in the order in which gradients walk it.
struct Back<'a, U> {
    shape: Shape,
    pre: Panels<U>,
    conv: Vec<Panels<U>>,
    norm: Norm<'a>,
    post: Panels<U>,
}

impl<'a, U: Unit> Back<'a, U> {
    fn new(expert: &Expert<'a>) -> Self {
        let shape = expert.shape();
        let d = shape.d;
        let conv = swapped(expert.conv, shape.inside(), shape.size);
        let group = |weight| Panels::new(Matrix::new(weight, shape.inside(), shape.group()));
        Self {
            shape,
            pre: Panels::new(Matrix::new(expert.pre, 2 * d, d)),
            conv: conv.par_chunks(shape.inside() * shape.group()).map(group).collect(),
            norm: expert.norm,
            post: Panels::new(Matrix::new(expert.post, d, d)),
        }
    }

    /// From what the forward pass kept of a tile and the gradient of its output to that of the rows that it covers, and to `found`, which
    /// the gradients of weights are made of. Returns its share of the gradients of gain and bias, one after the other.
    fn tile(&self, kept: (&[U], &[f32]), dout: &[f32], found: Found, dnear: &mut [f32]) -> Vec<f32> {
        let Shape { d, size, .. } = self.shape;
        let (inside, group, (both, convolved)) = (self.shape.inside(), self.shape.group(), kept);
        let units = dout.len() / d;
        let rows = units * size;
        let mut sums = vec![0.0; 2 * d];
        let (dgain, dbias) = sums.split_at_mut(d);
        let Found { active, dconv, grouped, dboth } = found;
        let lengths = [units * d, U::scratch(units, d), U::scratch(units, inside), 2 * d, d, U::scratch(rows, 2 * d)];
        with_scratch(lengths, |[dactive, units_d, units_inside, halves, row_of, units_both]| {
            norm::forward_rows(self.norm, convolved, active);
            let (dout, _) = U::of_rows(dout, d, d, units_d);
            multiply_all(dactive, dout, self.post.view(), Onto::Zero);
            silu_with_gradient(active, dactive);
            dconv.copy_from_slice(convolved);
            norm::backward_in_place(self.norm, dconv, dactive, dgain, dbias);
            for (n, (grouped, conv)) in grouped.chunks_exact_mut(units * group).zip(&self.conv).enumerate() {
                let (dconv, stride) = U::of_rows(&dconv[n * inside..], d, inside, units_inside);
                let right = conv.view();
                let left = Left::Rows { units: dconv, stride };
                multiply(grouped, group, left, right, 0..right.steps(), 0..group, Onto::Zero);
            }
            let half = U::width(d);
            let (values, gates) = halves.split_at_mut(d);
            for (row, (both, dboth)) in both.chunks_exact(2 * half).zip(dboth.chunks_exact_mut(2 * d)).enumerate() {
                U::read_rows(both, half, d, values);
                U::read_rows(&both[half..], half, d, gates);
                self.shape.parts(row, units, 0, d, |to, from, length| {
                    row_of[to..to + length].copy_from_slice(&grouped[from..from + length]);
                });
                let (dvalues, dgates) = dboth.split_at_mut(d);
                glu::gated_by_with_gradient(values, gates, row_of, dvalues, dgates);
                self.shape.parts(row, units, 0, d, |from, to, length| {
                    grouped[to..to + length].copy_from_slice(&row_of[from..from + length]);
                });
            }
            let (dboth, _) = U::of_rows(dboth, 2 * d, 2 * d, units_both);
            multiply_all(dnear, dboth, self.pre.view(), Onto::Zero);
        });
        sums
    }
}

/// What the gradients of the weights of some units are made of.
struct Found<'a> {
    /// Output of the activation, `[units, d]`.
    active: &'a mut [f32],
    /// Gradient of the convolution's output, `[units, d]`.
    dconv: &'a mut [f32],
    /// Input of the convolution, `[groups, units, size, d / groups]`.
    grouped: &'a mut [f32],
    /// Gradient of the first layer's output, `[rows, 2 d]`.
    dboth: &'a mut [f32],
}

/// See [`backward`](super::backward).
pub(super) fn run<U: Unit>(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    kept: &Kept,
    dout: &[f32],
    of_weights: bool,
) -> (Vec<f32>, Vec<ExpertGradients>) {
    let d = width(experts.iter().map(Expert::shape));
    let sizes: Vec<usize> = experts.iter().map(|expert| expert.size).collect();
    let counts = counts(x, d, covered, &sizes);
    let mut dx = vec![0.0; x.len()];
    let mut is_covered = vec![false; x.len() / d.max(1)];
    for &row in covered.iter().flatten() {
        assert!(!std::mem::replace(&mut is_covered[row as usize], true), "`covered` holds row {row} twice");
    }
    let backs: Vec<Back<U>> = experts.par_iter().map(Back::new).collect();
    let tiles = tiles(&counts, &sizes);
    // Where the units and the rows of each expert begin.
    let begin = |lengths: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        let next = |at: &mut usize, length| Some(std::mem::replace(at, *at + length));
        lengths.scan(0, next).collect()
    };
    let units_before = begin(&mut counts.iter().copied());
    let rows_before = begin(&mut covered.iter().map(Vec::len));
    let (units, rows) = (counts.iter().sum::<usize>(), covered.iter().map(Vec::len).sum::<usize>());
    fits("dout", dout, &[units, d]);
    fits("kept", &kept.convolved, &[units, d]);
    fits("kept", kept.both.units::<U>(), &[rows, 2, U::width(d)]);
    let shared_dx = Shared::new(&mut dx);
    let of_tile = |&[expert, first, count]: &[usize; 3], all: [&Scattered<f32>; 4]| {
        let (back, count_all) = (&backs[expert], counts[expert]);
        let Shape { size, groups, .. } = back.shape;
        let (unit, row) = (units_before[expert] + first, rows_before[expert] + first * size);
        let here = &covered[expert][first * size..(first + count) * size];
        let both = &kept.both.units::<U>()[2 * row * U::width(d)..2 * (row + here.len()) * U::width(d)];
        let part = unit * d..(unit + count) * d;
        let kept = (both, &kept.convolved[part.clone()]);
        let lengths = [here.len() * d, count * d, count * d, here.len() * d, 2 * here.len() * d];
        with_scratch(lengths, |[dnear, active, dconv, grouped, dboth]| {
            let found = Found { active, dconv, grouped, dboth };
            let sums = back.tile(kept, &dout[part], found, dnear);
            for (&row, dnear) in here.iter().zip(dnear.chunks_exact(d)) {
                // SAFETY: no two units cover the same row, as was asserted.
                unsafe { shared_dx.part(row as usize * d, d) }.copy_from_slice(dnear);
            }
            if of_weights {
                // Groups one after another, each with all units of the expert.
                let by_group =
                    |to: &Scattered<f32>, begin: usize, from: &mut dyn Iterator<Item = &[f32]>, width: usize| {
                        for (group, from) in from.enumerate() {
                            let start = begin + (group * count_all + first) * width;
                            // SAFETY: the units of a tile are those of no other, and experts and groups have places of their own.
                            unsafe { to.write(start, count * width, |to| (to.write_copy_of_slice(from), ())) };
                        }
                    };
                let [all_active, all_dconv, all_grouped, all_dboth] = all;
                by_group(all_active, units_before[expert] * d, &mut std::iter::once(&*active), d);
                let (inside, group) = (back.shape.inside(), back.shape.group());
                let own: Vec<Vec<f32>> = (0..groups).map(|group| columns(dconv, d, group * inside, inside)).collect();
                by_group(all_dconv, units_before[expert] * d, &mut own.iter().map(Vec::as_slice), inside);
                by_group(all_grouped, rows_before[expert] * d, &mut grouped.chunks_exact(count * group), group);
                by_group(all_dboth, 2 * rows_before[expert] * d, &mut std::iter::once(&*dboth), 2 * size * d);
            }
            (expert, sums)
        })
    };
    let lengths = [units * d, units * d, rows * d, 2 * rows * d].map(|length| if of_weights { length } else { 0 });
    let ([active, dconv, grouped, dboth], sums) = Scattered::collect_each(lengths, |all| {
        let sums = tiles.par_iter().map(|tile| of_tile(tile, all));
        sums.collect::<Vec<(usize, Vec<f32>)>>()
    });
    if !of_weights {
        return (dx, Vec::new());
    }
    let mut norms = vec![[vec![0.0; d], vec![0.0; d]]; experts.len()];
    // In the order of tiles, the same for any number of threads.
    for (expert, sums) in sums {
        for (total, sum) in norms[expert].iter_mut().zip(sums.chunks_exact(d)) {
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
    }
    let found = backs.par_iter().zip(norms).enumerate().map(|(expert, (back, norm))| {
        let Shape { size, groups, .. } = back.shape;
        let (inside, group) = (back.shape.inside(), back.shape.group());
        let (first, count) = (units_before[expert] * d, counts[expert] * d);
        let (first_row, rows) = (rows_before[expert] * d, covered[expert].len() * d);
        let mut near = Vec::with_capacity(rows);
        covered[expert].iter().for_each(|&row| near.extend_from_slice(&x[row as usize * d..][..d]));
        let mut pre = vec![0.0; 2 * d * d];
        transposed::<U>(&mut pre, &near, d, &dboth[2 * first_row..][..2 * rows], 2 * d, Onto::Zero);
        let mut post = vec![0.0; d * d];
        transposed::<U>(&mut post, &dout[first..][..count], d, &active[first..][..count], d, Onto::Zero);
        let mut conv = vec![0.0; d * group];
        let (dconv, grouped) = (&dconv[first..][..count], &grouped[first_row..][..rows]);
        conv.par_chunks_mut(inside * group).enumerate().for_each(|(n, conv)| {
            let (dconv, grouped) = (&dconv[n * count / groups..], &grouped[n * rows / groups..]);
            transposed::<U>(conv, &dconv[..count / groups], inside, &grouped[..rows / groups], group, Onto::Zero);
        });
        ExpertGradients { pre: transpose(&pre, d, 2 * d), conv: swapped(&conv, size, inside), norm, post }
    });
    (dx, found.collect())
}

/// Some columns of rows `d` wide, dense.
fn columns(x: &[f32], d: usize, first: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(d).flat_map(|row| &row[first..first + width]).copied().collect()
}

simd! {
    /// `silu(x)` over x, and over dy the gradient of x.
    fn silu_with_gradient[FMA](x: &mut [f32], dy: &mut [f32]) {
        for (x, dy) in x.iter_mut().zip(dy) {
            let open = 1.0 / (1.0 + exp::<FMA>(-*x));
            let y = *x * open;
            *dy *= open + y * (1.0 - open);
            *x = y;
        }
    }
}
