//! Experts that make one vector of each unit of adjacent rows (MxDNA; Qiao et al. 2024):
//! `post(silu(norm(conv(glu(pre(rows))))))`, where a grouped convolution as long as the unit is a product for each group.
//!
//! The experts work side by side on tiles of units. Rows are gathered tile by tile; between the layers nothing exists but a tile.

use crate::glu;
use crate::norm::{self, Norm, OwnedNorm};
use crate::product::{Left, Matrix, Onto, Pair, Panels, Precision, Saved, Unit};
use crate::product::{multiply, multiply_all, transpose, transposed};
use crate::rows::{Shared, for_overwrite, with_scratch};
use crate::simd::{exp, simd};
use rayon::prelude::*;

/// Rows that the units of a tile cover, about: what is made of them stays in the second cache.
const COVERED: usize = 256;

/// Fewest and most units of a tile: enough for large products, few enough for many tiles.
const UNITS: [usize; 2] = [16, 96];

/// Columns of both halves of the first layer that are computed at a time.
const STRIP: usize = 128;

/// Weights of an expert.
#[derive(Clone, Copy, Debug)]
pub struct Expert<'a> {
    /// Rows of a unit.
    pub size: usize,
    /// Groups of the convolution, a divisor of `d`.
    pub groups: usize,
    /// Values, then their gates: `[2 d, d]`.
    pub pre: &'a [f32],
    /// `[d, d / groups, size]`.
    pub conv: &'a [f32],
    /// Before the activation, `d` wide.
    pub norm: Norm<'a>,
    /// `[d, d]`.
    pub post: &'a [f32],
}

impl Expert<'_> {
    fn shape(&self) -> Shape {
        let d = self.norm.gain.len();
        assert!(self.size > 0 && self.groups > 0 && d.is_multiple_of(self.groups), "{} groups of {d}", self.groups);
        let lengths = [2 * d * d, d * (d / self.groups) * self.size, d * d];
        assert_eq!([self.pre.len(), self.conv.len(), self.post.len()], lengths, "weights of an expert");
        Shape { d, size: self.size, groups: self.groups }
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    d: usize,
    size: usize,
    groups: usize,
}

impl Shape {
    /// Channels of a group.
    fn inside(self) -> usize {
        self.d / self.groups
    }

    /// Numbers of a unit in one group.
    fn group(self) -> usize {
        self.size * self.inside()
    }

    /// Calls `copy` with the parts of columns `first..first + width` of a row of a tile: where they stand among those columns, and where
    /// in `[groups, units, size, d / groups]`, the order in which the convolution reads them.
    fn parts(self, row: usize, units: usize, first: usize, width: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let (inside, unit, tap) = (self.inside(), row / self.size, row % self.size);
        let mut at = first;
        while at < first + width {
            let (group, within) = (at / inside, at % inside);
            let length = (inside - within).min(first + width - at);
            copy(at - first, (group * units + unit) * self.group() + tap * inside + within, length);
            at += length;
        }
    }
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// What the first layers made: values and gates of every covered row.
    both: Saved,
    /// What the convolutions made, `[units, d]`.
    convolved: Vec<f32>,
}

/// Some units of an expert, with what belongs to them.
struct Task<'a, U> {
    expert: usize,
    covered: &'a [u32],
    both: &'a mut [U],
    convolved: &'a mut [f32],
    out: &'a mut [f32],
}

/// Tiles of the units of all experts: expert, first unit, number.
fn tiles(counts: &[usize], sizes: impl Iterator<Item = usize>) -> Vec<[usize; 3]> {
    let of = |((expert, &count), size): ((usize, &usize), usize)| {
        let most = (COVERED / size).clamp(UNITS[0], UNITS[1]);
        // Of equal size.
        let height = count.div_ceil(count.div_ceil(most).max(1)).max(1);
        (0..count).step_by(height).map(move |first| [expert, first, height.min(count - first)])
    };
    counts.iter().enumerate().zip(sizes).flat_map(of).collect()
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
    /// If those of an expert do not fit each other.
    #[must_use]
    pub fn new(experts: &[Expert]) -> Self {
        Self(experts.par_iter().map(Ready::new).collect())
    }

    /// See [`forward`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn forward(&self, x: &[f32], covered: &[Vec<u32>]) -> Vec<f32> {
        self.run(x, covered, false).0
    }

    fn run(&self, x: &[f32], covered: &[Vec<u32>], keep: bool) -> (Vec<f32>, Kept) {
        assert_eq!(self.0.len(), covered.len(), "units of each expert");
        let Some(d) = self.0.first().map(|expert| expert.shape.d) else { return Default::default() };
        let counts = counts(covered, self.0.iter().map(|expert| expert.shape.size));
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
        let tiles = tiles(&counts, self.0.iter().map(|expert| expert.shape.size));
        let tasks: Vec<Task<U>> = tiles.into_iter().map(&mut task).collect();
        tasks.into_par_iter().for_each(|task| self.0[task.expert].tile(x, keep, task));
        (out, kept)
    }
}

/// Units of each expert.
fn counts(covered: &[Vec<u32>], sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let of = |(rows, size): (&Vec<u32>, usize)| {
        assert!(rows.len().is_multiple_of(size), "{} rows in units of {size}", rows.len());
        rows.len() / size
    };
    covered.iter().zip(sizes).map(of).collect()
}

/// A vector for each unit, `[units, d]`, those of the first expert first. `covered` holds, for each expert, the rows of `x [rows, d]`
/// that its units cover, one unit after another. With `keep` also what [`backward`] needs.
///
/// # Panics
/// If the slices do not fit these shapes, or a row does not exist.
#[must_use]
pub fn forward(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    precision: Precision,
    keep: bool,
) -> (Vec<f32>, Kept) {
    match precision {
        Precision::F32 => Prepared::<f32>::new(experts).run(x, covered, keep),
        Precision::Bf16 => Prepared::<Pair>::new(experts).run(x, covered, keep),
    }
}

/// Gradients of the weights of an expert, each in the shape of its argument.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertGradients {
    /// Of the first layer.
    pub pre: Vec<f32>,
    /// Of the convolution.
    pub conv: Vec<f32>,
    /// Of the norm's gain and bias.
    pub norm: [Vec<f32>; 2],
    /// Of the last layer.
    pub post: Vec<f32>,
}

/// Gradients of [`forward`] for the output gradient `dout [units, d]`, those of the experts only if `of_weights`. `kept` is what the
/// forward pass kept in the same precision.
///
/// # Panics
/// If the slices do not fit, or two units cover the same row.
#[must_use]
pub fn backward(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    kept: &Kept,
    dout: &[f32],
    of_weights: bool,
    precision: Precision,
) -> (Vec<f32>, Vec<ExpertGradients>) {
    match precision {
        Precision::F32 => backward_in::<f32>(x, experts, covered, kept, dout, of_weights),
        Precision::Bf16 => backward_in::<Pair>(x, experts, covered, kept, dout, of_weights),
    }
}

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

fn backward_in<U: Unit>(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    kept: &Kept,
    dout: &[f32],
    of_weights: bool,
) -> (Vec<f32>, Vec<ExpertGradients>) {
    let mut dx = vec![0.0; x.len()];
    let Some(d) = experts.first().map(|expert| expert.norm.gain.len()) else { return (dx, Vec::new()) };
    let mut is_covered = vec![false; x.len() / d];
    for &row in covered.iter().flatten() {
        assert!(!std::mem::replace(&mut is_covered[row as usize], true), "two units cover row {row}");
    }
    let backs: Vec<Back<U>> = experts.par_iter().map(Back::new).collect();
    let counts = counts(covered, experts.iter().map(|expert| expert.size));
    let tiles = tiles(&counts, experts.iter().map(|expert| expert.size));
    // Where the units and the rows of each expert begin.
    let begin = |lengths: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        let next = |at: &mut usize, length| Some(std::mem::replace(at, *at + length));
        lengths.scan(0, next).collect()
    };
    let units_before = begin(&mut counts.iter().copied());
    let rows_before = begin(&mut covered.iter().map(Vec::len));
    let (units, rows) = (counts.iter().sum::<usize>(), covered.iter().map(Vec::len).sum::<usize>());
    assert_eq!([dout.len(), kept.convolved.len()], [units * d; 2], "a vector for each unit");
    assert_eq!(kept.both.units::<U>().len(), 2 * rows * U::width(d), "what was kept");
    let room = |length: usize| for_overwrite::<f32>(if of_weights { length } else { 0 });
    let (mut active, mut dconv) = (room(units * d), room(units * d));
    let (mut grouped, mut dboth) = (room(rows * d), room(2 * rows * d));
    let shared = [&mut active, &mut dconv, &mut grouped, &mut dboth].map(|all| Shared::new(all));
    let shared_dx = Shared::new(&mut dx);
    let of_tile = |&[expert, first, count]: &[usize; 3]| {
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
                    |to: &Shared<f32>, begin: usize, from: &mut dyn Iterator<Item = &[f32]>, width: usize| {
                        for (group, from) in from.enumerate() {
                            // SAFETY: the units of a tile are those of no other.
                            unsafe { to.part(begin + (group * count_all + first) * width, count * width) }
                                .copy_from_slice(from);
                        }
                    };
                let [all_active, all_dconv, all_grouped, all_dboth] = &shared;
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
    let sums: Vec<(usize, Vec<f32>)> = tiles.par_iter().map(of_tile).collect();
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
        let mut near = for_overwrite(rows);
        gather(x, d, &covered[expert], &mut near);
        let mut pre = vec![0.0; 2 * d * d];
        transposed::<U>(&mut pre, &near, d, &dboth[2 * first_row..][..2 * rows], 2 * d);
        let mut post = vec![0.0; d * d];
        transposed::<U>(&mut post, &dout[first..][..count], d, &active[first..][..count], d);
        let mut conv = vec![0.0; d * group];
        let (dconv, grouped) = (&dconv[first..][..count], &grouped[first_row..][..rows]);
        conv.par_chunks_mut(inside * group).enumerate().for_each(|(n, conv)| {
            let (dconv, grouped) = (&dconv[n * count / groups..], &grouped[n * rows / groups..]);
            transposed::<U>(conv, &dconv[..count / groups], inside, &grouped[..rows / groups], group);
        });
        ExpertGradients { pre: transpose(&pre, d, 2 * d), conv: swapped(&conv, size, inside), norm, post }
    });
    (dx, found.collect())
}

/// Rows of `x [rows, d]` by number.
fn gather(x: &[f32], d: usize, numbers: &[u32], out: &mut [f32]) {
    for (&row, out) in numbers.iter().zip(out.chunks_exact_mut(d)) {
        out.copy_from_slice(&x[row as usize * d..(row as usize + 1) * d]);
    }
}

/// Some columns of rows `d` wide, dense.
fn columns(x: &[f32], d: usize, first: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(d).flat_map(|row| &row[first..first + width]).copied().collect()
}

/// `[n, a, b]` to `[n, b, a]`.
fn swapped(x: &[f32], a: usize, b: usize) -> Vec<f32> {
    let mut out = for_overwrite(x.len());
    out.par_chunks_mut(a * b).zip(x.par_chunks(a * b)).for_each(|(out, x)| {
        for (i, x) in x.chunks_exact(b).enumerate() {
            for (j, &x) in x.iter().enumerate() {
                out[j * a + i] = x;
            }
        }
    });
    out
}

simd! {
    /// `x ← silu(x)`.
    fn silu[FMA](x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + exp::<FMA>(-*x);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// Sizes and groups of experts over 6 channels; the third has no units.
    const SHAPES: [[usize; 2]; 4] = [[1, 1], [3, 2], [4, 3], [2, 6]];
    const D: usize = 6;
    const ROWS: usize = 14;

    fn covered() -> Vec<Vec<u32>> {
        vec![vec![3, 13], vec![4, 5, 6, 0, 1, 2], vec![], vec![8, 9, 11, 12]]
    }

    /// Of each expert: pre, conv, gain, bias and post.
    fn weights(d: usize, shapes: &[[usize; 2]]) -> Vec<[Vec<f32>; 5]> {
        let of = |(n, &[size, groups]): (usize, &[usize; 2])| {
            let mut seed = 10 * n as u64;
            [2 * d * d, d * (d / groups) * size, d, d, d * d].map(|length| {
                seed += 1;
                noise(length, seed)
            })
        };
        shapes.iter().enumerate().map(of).collect()
    }

    fn experts<'a>(weights: &'a [[Vec<f32>; 5]], shapes: &[[usize; 2]]) -> Vec<Expert<'a>> {
        let of = |([pre, conv, gain, bias, post], &[size, groups]): (&'a [Vec<f32>; 5], &[usize; 2])| {
            let norm = Norm { gain, bias, eps: 1e-3 };
            Expert { size, groups, pre, conv, norm, post }
        };
        weights.iter().zip(shapes).map(of).collect()
    }

    fn reference(x: &[f64], weights: &[[Vec<f64>; 5]]) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut out = Vec::new();
        for (([pre, conv, gain, bias, post], [size, groups]), covered) in weights.iter().zip(SHAPES).zip(covered()) {
            let inside = D / groups;
            for unit in covered.chunks(size) {
                let gated: Vec<Vec<f64>> = unit
                    .iter()
                    .map(|&row| {
                        let both: Vec<f64> = pre.chunks(D).map(|w| dot(w, &x[row as usize * D..])).collect();
                        (0..D).map(|i| both[i] * sigmoid(both[D + i])).collect()
                    })
                    .collect();
                let channel = |o: usize| -> f64 {
                    let weight = |i: usize, tap: usize| conv[(o * inside + i) * size + tap];
                    let own = o / inside * inside;
                    (0..inside).map(|i| (0..size).map(|tap| weight(i, tap) * gated[tap][own + i]).sum::<f64>()).sum()
                };
                let convolved: Vec<f64> = (0..D).map(channel).collect();
                let normed = norm::test::reference(&convolved, gain, bias, 1e-3);
                let active: Vec<f64> = normed.iter().map(|&v| v * sigmoid(v)).collect();
                out.extend(post.chunks(D).map(|w| dot(w, &active)));
            }
        }
        out
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, weights) = (noise(ROWS * D, 99), weights(D, &SHAPES));
        let (experts, wide_weights) =
            (experts(&weights, &SHAPES), weights.iter().map(|w| w.each_ref().map(|v| wide(v))));
        let wide_weights: Vec<[Vec<f64>; 5]> = wide_weights.collect();
        let want: Vec<f32> = reference(&wide(&x), &wide_weights).iter().map(|&v| v as f32).collect();
        let (out, kept) = forward(&x, &experts, &covered(), Precision::F32, true);
        assert_close(&out, &want);
        assert_eq!(forward(&x, &experts, &covered(), Precision::F32, false).0, out);

        let dout = noise(out.len(), 98);
        let loss = |x: &[f64], weights: &[[Vec<f64>; 5]]| -> f64 {
            reference(x, weights).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum()
        };
        let (dx, found) = backward(&x, &experts, &covered(), &kept, &dout, true, Precision::F32);
        assert_gradient(&dx, &x, |x| loss(x, &wide_weights));
        for (n, g) in found.iter().enumerate() {
            let [dgain, dbias] = &g.norm;
            for (part, gradient) in [&g.pre, &g.conv, dgain, dbias, &g.post].into_iter().enumerate() {
                assert_gradient(gradient, &weights[n][part], |moved| {
                    let mut all = wide_weights.clone();
                    all[n][part] = moved.to_vec();
                    loss(&wide(&x), &all)
                });
            }
        }
        let frozen = backward(&x, &experts, &covered(), &kept, &dout, false, Precision::F32);
        assert_eq!(frozen, (dx, Vec::new()), "what is not wanted changes nothing");
    }

    /// More channels than a strip, and more units than a tile.
    #[test]
    fn the_same_for_any_number_of_threads_and_near_in_bf16() {
        let (d, shapes) = (150, [[1, 5], [5, 1], [10, 3]]);
        let weights = weights(d, &shapes);
        let experts = experts(&weights, &shapes);
        let covered: Vec<Vec<u32>> = vec![(0..130).collect(), (130..430).rev().collect(), (500..900).collect()];
        let (x, dout) = (noise(900 * d, 99), noise(230 * d, 98));
        let run = |precision, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, kept) = forward(&x, &experts, &covered, precision, true);
                (y, backward(&x, &experts, &covered, &kept, &dout, true, precision))
            })
        };
        let near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            let off = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / b.len() as f32;
            assert!(off.sqrt() < 0.02 * scale, "{} beside {scale}", off.sqrt());
        };
        let (y, (dx, g)) = run(Precision::F32, 1);
        assert!(run(Precision::F32, 3) == (y.clone(), (dx.clone(), g.clone())), "any number of threads");
        let (rough, (rough_dx, rough_g)) = run(Precision::Bf16, 2);
        assert!(run(Precision::Bf16, 1) == (rough.clone(), (rough_dx.clone(), rough_g.clone())));
        near(&rough, &y);
        near(&rough_dx, &dx);
        for (rough, g) in rough_g.iter().zip(&g) {
            near(&rough.pre, &g.pre);
            near(&rough.conv, &g.conv);
            near(&rough.post, &g.post);
        }
        assert!(dx[430 * d..500 * d].iter().all(|&v| v == 0.0), "rows that no unit covers");
        // A unit does not know its neighbours.
        let alone = forward(&x, &experts[1..2], &[covered[1][50..55].to_vec()], Precision::F32, false).0;
        assert_eq!(alone, y[(130 + 10) * d..(130 + 11) * d]);
    }

    #[test]
    #[should_panic(expected = "two units cover row 3")]
    fn units_do_not_overlap() {
        let weights = weights(D, &SHAPES[..1]);
        let (x, experts) = (noise(ROWS * D, 1), experts(&weights, &SHAPES[..1]));
        let covered = [vec![3, 3]];
        let (y, kept) = forward(&x, &experts, &covered, Precision::F32, true);
        let _ = backward(&x, &experts, &covered, &kept, &y, true, Precision::F32);
    }
}
