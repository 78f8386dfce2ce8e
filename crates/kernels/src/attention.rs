//! Multi-head attention on the output of a fused projection, tile by tile: the scores of all queries and keys never exist at once
//! (Dao 2023, FlashAttention-2).
//!
//! One task is one head of one sequence and a part of its queries (forward) or of its keys (backward). It copies the rows it
//! needs into panels in its thread's scratch, those of padding left out: what follows knows nothing of masks, and a sequence has the
//! same result however much it is padded. Scores are powers of 2: `log₂ e` is part of the scale of the queries.

use crate::product::{Left, Matrix, Onto, Saved, Unit, View, multiply};
use crate::rows::{Shared, for_overwrite, with_scratch};
use crate::simd::{exp2, fma, prefetch, simd, sum_by};
use rayon::prelude::*;
use std::f32::consts::{LN_2, LOG2_E};

/// Keys whose scores exist at a time, and those whose gradients one task sums: their panels stay in the second cache.
const KEYS: usize = 512;

/// Queries whose scores exist at a time, a multiple of the micro-kernel's rows.
const QUERIES: usize = 48;

/// Queries whose scores exist at a time in the backward pass, where each tile of them adds to the gradients of all keys.
const QUERIES_BACK: usize = 96;

/// Keys whose scores exist at a time in the backward pass, a multiple of the width of a panel: it has twice the scores.
const STRIP: usize = 256;

/// Queries of a task of the forward pass, a multiple of [`QUERIES`]: enough to be worth packing all keys.
const PART: usize = 2112;

/// Keys of a row that are weighed together; rows of scores are filled up to a multiple.
const LANES: usize = 32;

/// How attention knows where a row stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated: the pair `(i, i + d_head / 2)` by `position · theta^(−2i / d_head)` (Su et al. 2021, `RoPE`).
    Rotary {
        /// Base of the wavelengths.
        theta: f32,
    },
    /// Scores fall with the distance, on both sides: `−slope · |i − j|`, one slope a head (Press et al. 2022, `ALiBi`).
    Alibi,
}

/// Queries, keys and values of sequences of equal length, some of their rows padding.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, U = f32> {
    /// `[batch * length, 3 * d]`: the queries, keys and values of a row, each `[heads, d_head]`.
    pub qkv: &'a [U],
    /// `[batch * length]`: 0 for padding.
    pub mask: &'a [f32],
    /// Rows of a sequence.
    pub length: usize,
    /// Heads; they divide d. Rotated ones have an even width, and those in bf16.
    pub heads: usize,
    /// How attention knows where a row stands.
    pub positions: Positions,
}

impl<'a, U> Input<'a, U> {
    /// The same of other queries, keys and values.
    #[must_use]
    pub fn with<V>(self, qkv: &'a [V]) -> Input<'a, V> {
        let Self { mask, length, heads, positions, .. } = self;
        Input { qkv, mask, length, heads, positions }
    }
}

/// Slopes of `ALiBi`: powers of `2^(−8/n)`; where the number of heads is no power of two, those of the power of two below, then every
/// other one of twice as many.
pub fn alibi_slopes(heads: usize) -> Vec<f32> {
    let slopes = |n: usize| (1..=n).map(move |h| (-8.0 * h as f64 / n as f64).exp2() as f32);
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    slopes(whole).chain(slopes(2 * whole).step_by(2)).take(heads).collect()
}

/// Cosines, then sines of the angles of each position, `[length, 2, half]`.
fn rotations(theta: f32, length: usize, half: usize) -> Vec<f32> {
    // Rounded to f32 here and at the product, as PyTorch's f32 tensors are: at far positions a last bit is a visible angle.
    let speeds: Vec<f32> =
        (0..half).map(|i| f64::from(theta).powf(f64::from(-(i as f32 / half as f32))) as f32).collect();
    let mut table = for_overwrite(length * 2 * half);
    table.par_chunks_mut((2 * half).max(1)).enumerate().for_each(|(position, row)| {
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), speed) in cos.iter_mut().zip(sin).zip(&speeds) {
            (*sin, *cos) = (position as f32 * speed).sin_cos();
        }
    });
    table
}

/// What all tasks share.
struct Problem<'a, U> {
    input: Input<'a, U>,
    d: usize,
    d_head: usize,
    /// Positions of the rows of each sequence that are not padding.
    real: Vec<Vec<u32>>,
    /// [`rotations`], or empty.
    table: Vec<f32>,
    /// Of each head, for scores that are powers of 2; 0 where positions are not [`Positions::Alibi`].
    slopes: Vec<f32>,
}

impl<'a, U: Unit> Problem<'a, U> {
    fn new(input: Input<'a, U>) -> Self {
        let Input { qkv, mask, length, heads, positions } = input;
        // Of no rows any width is right.
        let d = if mask.is_empty() { 2 * heads } else { qkv.len() * U::DEPTH / mask.len() / 3 };
        assert!(d.is_multiple_of(U::DEPTH * heads), "{d} is not {heads} heads of whole units");
        assert_eq!(qkv.len(), mask.len() * U::width(3 * d), "queries, keys and values");
        assert!(mask.is_empty() || mask.len().is_multiple_of(length), "{} rows, sequences of {length}", mask.len());
        let d_head = d / heads;
        let (table, slopes) = match positions {
            Positions::Rotary { theta } => {
                assert!(d_head.is_multiple_of(2), "heads of {d_head} have no pairs to rotate");
                (rotations(theta, length, d_head / 2), vec![0.0; heads])
            }
            Positions::Alibi => (Vec::new(), alibi_slopes(heads).iter().map(|s| s * LOG2_E).collect()),
        };
        let real = mask
            .chunks(length.max(1))
            .map(|mask| (0u32..).zip(mask).filter(|(_, m)| **m != 0.0).map(|(i, _)| i).collect());
        Self { input, d, d_head, real: real.collect(), table, slopes }
    }

    /// Of queries, so that scores are powers of 2.
    fn scale(&self) -> f32 {
        LOG2_E / (self.d_head as f32).sqrt()
    }

    /// Rows of queries (0), keys (1) or values (2) of a head.
    fn rows(&self, sequence: usize, head: usize, which: usize) -> Rows<'_, U> {
        let stride = U::width(3 * self.d);
        let first = sequence * self.input.length * stride + U::width(which * self.d + head * self.d_head);
        Rows { units: &self.input.qkv[first..], stride, width: self.d_head }
    }

    /// Rows of a head in a matrix of all heads.
    fn rows_of<'b, V: Unit>(&self, units: &'b [V], sequence: usize, head: usize) -> Rows<'b, V> {
        let stride = V::width(self.d);
        let first = sequence * self.input.length * stride + V::width(head * self.d_head);
        Rows { units: &units[first..], stride, width: self.d_head }
    }
}

/// Rows of one head of one sequence, at any position.
#[derive(Clone, Copy)]
struct Rows<'a, U> {
    units: &'a [U],
    /// Units from one row to the next.
    stride: usize,
    /// Numbers of a row.
    width: usize,
}

impl<U: Unit> Rows<'_, U> {
    /// Dense copies of the rows at some positions.
    fn copy(&self, positions: &[u32], out: &mut [f32]) {
        self.copy_with(positions, out, |_, _| ());
    }

    /// [`copy`](Self::copy), times `scale`, rotated forward if there is a table.
    fn rotated(&self, positions: &[u32], table: &[f32], scale: f32, out: &mut [f32]) {
        self.copy_with(positions, out, |rows, positions| rotate(rows, self.width, positions, table, scale));
    }

    /// Some rows at a time, and then `work` on them while they are in the first cache.
    fn copy_with(&self, positions: &[u32], out: &mut [f32], work: impl Fn(&mut [f32], &[u32])) {
        /// Rows copied while the next ones come: they are pages apart.
        const TOGETHER: usize = 8;
        let (stride, width) = (self.stride, U::width(self.width));
        let row_at = |position: u32| &self.units[position as usize * stride..][..width];
        positions.iter().take(TOGETHER).for_each(|&position| prefetch(row_at(position)));
        for (at, (out, here)) in out.chunks_mut(TOGETHER * self.width).zip(positions.chunks(TOGETHER)).enumerate() {
            positions.iter().skip((at + 1) * TOGETHER).take(TOGETHER).for_each(|&next| prefetch(row_at(next)));
            for (out, &position) in out.chunks_exact_mut(self.width).zip(here) {
                U::read_rows(row_at(position), width, self.width, out);
            }
            work(out, here);
        }
    }
}

simd! {
    /// Rows at some positions times `scale`, rotated forward if there is a table, in place.
    fn rotate[FMA](rows: &mut [f32], width: usize, positions: &[u32], table: &[f32], scale: f32) {
        let half = width / 2;
        for (row, &position) in rows.chunks_exact_mut(width).zip(positions) {
            if table.is_empty() {
                for x in row {
                    *x *= scale;
                }
                continue;
            }
            let (cos, sin) = table[position as usize * width..][..width].split_at(half);
            let (a, b) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                let (x, y) = (*a, *b);
                *a = fma::<FMA>(x, *cos, -(y * sin)) * scale;
                *b = fma::<FMA>(y, *cos, x * sin) * scale;
            }
        }
    }
}

simd! {
    /// Gradients of what [`rotate`] read, out of those of what it wrote, in place.
    fn rotate_back[FMA](rows: &mut [f32], width: usize, positions: &[u32], table: &[f32], scale: f32) {
        let half = width / 2;
        for (row, &position) in rows.chunks_exact_mut(width).zip(positions) {
            if table.is_empty() {
                for x in row {
*x *= scale;
}
                continue;
            }
            let (cos, sin) = table[position as usize * width..][..width].split_at(half);
            let (a, b) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                let (x, y) = (*a * scale, *b * scale);
                *a = fma::<FMA>(x, *cos, y * sin);
                *b = fma::<FMA>(y, *cos, -(x * sin));
            }
        }
    }
}

/// Scores of some queries and keys, `stride` floats from one query to the next.
struct Scores<'a> {
    data: &'a mut [f32],
    stride: usize,
    queries: &'a [u32],
    keys: &'a [u32],
    /// Slope of `ALiBi`, or 0.
    slope: f32,
}

/// `row − slope · |query − key|` for each key.
#[inline(always)]
fn add_distances<const FMA: bool>(row: &mut [f32], query: u32, keys: &[u32], slope: f32) {
    for (score, &key) in row.iter_mut().zip(keys) {
        *score = fma::<FMA>(-slope, (query as i32 - key as i32).unsigned_abs() as i32 as f32, *score);
    }
}

simd! {
    /// Scores become weights, relative to the largest score so far of each query. That and the sums of weights are kept in `largest`
    /// and `sums`; what `out` holds of earlier keys is scaled to the new largest.
    fn weigh[FMA](scores: Scores, first: bool, largest: &mut [f32], sums: &mut [f32], out: &mut [f32], width: usize) {
        let cols = scores.keys.len();
        let states = largest.iter_mut().zip(sums).zip(out.chunks_exact_mut(width)).zip(scores.queries);
        for (row, (((largest, total), out), &query)) in scores.data.chunks_mut(scores.stride).zip(states) {
            let row = &mut row[..cols.next_multiple_of(LANES)];
            row[cols..].fill(f32::NEG_INFINITY);
            if scores.slope != 0.0 {
                add_distances::<FMA>(row, query, scores.keys, scores.slope);
            }
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in row.chunks_exact(LANES) {
                for (lane, &score) in lanes.iter_mut().zip(chunk) {
                    *lane = if score > *lane { score } else { *lane };
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for lane in 0..width {
                    lanes[lane] = if lanes[lane] > lanes[lane + width] { lanes[lane] } else { lanes[lane + width] };
                }
                width /= 2;
            }
            let before = if first { f32::NEG_INFINITY } else { *largest };
            let now = if lanes[0] > before { lanes[0] } else { before };
            let mut lanes = [0.0f32; LANES];
            for chunk in row.chunks_exact_mut(LANES) {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *score = exp2::<FMA>(*score - now);
                    *lane += *score;
                }
            }
            let sum = sum_by(LANES, |i| lanes[i]);
            if first {
                *total = sum;
            } else {
                let fade = exp2::<FMA>(before - now);
                *total = fma::<FMA>(*total, fade, sum);
                for x in out {
*x *= fade;
}
            }
            *largest = now;
        }
    }
}

simd! {
    /// Weights out of scores, `w = 2^(score − stats)`, and gradients of scores out of those of weights, `dw ← w · (dw − along)`.
    fn weigh_back[FMA](scores: Scores, dw: &mut [f32], stats: &[f32], along: &[f32]) {
        let cols = scores.keys.len();
        let rows = scores.data.chunks_mut(scores.stride).zip(dw.chunks_mut(scores.stride));
        for ((((row, dw), &query), &stat), &along) in rows.zip(scores.queries).zip(stats).zip(along) {
            let (row, dw) = (&mut row[..cols], &mut dw[..cols]);
            if scores.slope != 0.0 {
                add_distances::<FMA>(row, query, scores.keys, scores.slope);
            }
            for (score, dw) in row.iter_mut().zip(dw) {
                let weight = exp2::<FMA>(*score - stat);
                *score = weight;
                *dw = weight * (*dw - along);
            }
        }
    }
}

simd! {
    /// Products of the rows of two dense matrices.
    fn row_products[FMA](a: &[f32], b: &[f32], out: &mut [f32], width: usize) {
        for ((a, b), out) in a.chunks_exact(width).zip(b.chunks_exact(width)).zip(out) {
            *out = sum_by(width, |i| a[i] * b[i]);
        }
    }
}

simd! {
    /// Divides each row by its sum; sums become logarithms to base 2 of what they are sums of.
    fn finish[FMA](out: &mut [f32], width: usize, largest: &[f32], sums: &mut [f32]) {
        for ((row, largest), sum) in out.chunks_exact_mut(width).zip(largest).zip(sums) {
            let factor = 1.0 / *sum;
            for x in row {
*x *= factor;
}
            *sum = largest + sum.log2();
        }
    }
}

/// Floats from one row of scores to the next: not a multiple of 4 KiB, or rows would share the sets of the first cache.
fn stride(keys: usize) -> usize {
    keys.next_multiple_of(LANES) + 16
}

/// Clears the rows of padding, which no task writes.
fn clear_padding<U: Unit>(x: &mut [U], mask: &[f32]) {
    let width = x.len() / mask.len().max(1);
    x.par_chunks_mut(width.max(1)).zip(mask).filter(|(_, m)| **m == 0.0).for_each(|(row, _)| row.fill(U::default()));
}

/// `softmax(q · kᵀ / √d_head) · v` for each head, `[batch * length, d]`: no row attends to padding, and rows of padding are 0. If `keep`,
/// with what [`backward`] asks for: of each row the logarithm, to base 2, of the sum of `e^score`, `[batch, heads, length]`.
///
/// # Panics
/// If the slices do not fit the shapes, or heads have an odd width and are rotated or in bf16.
pub fn forward<U: Unit>(input: Input<U>, keep: bool) -> (Saved, Vec<f32>) {
    let problem = Problem::new(input);
    let mut out = Saved::new::<U>(input.mask.len(), problem.d);
    let mut stats = vec![0.0; if keep { input.mask.len() * input.heads } else { 0 }];
    clear_padding(out.units_mut::<U>(), input.mask);
    // A row is the same in any part: smaller ones where threads would be idle.
    let tasks = problem.real.len() * input.heads;
    let wanted = (4 * rayon::current_num_threads()).div_ceil(tasks.max(1));
    let part = input.length.div_ceil(wanted).next_multiple_of(QUERIES).min(PART);
    let tasks = problem.real.iter().enumerate().flat_map(|(sequence, real)| {
        (0..input.heads).flat_map(move |head| (0..real.len()).step_by(part).map(move |first| (sequence, head, first)))
    });
    let (shared_out, shared_stats) = (Shared::new(out.units_mut::<U>()), Shared::new(&mut stats));
    tasks.collect::<Vec<_>>().into_par_iter().for_each(|(sequence, head, first)| {
        let queries = &problem.real[sequence];
        let queries = &queries[first..queries.len().min(first + part)];
        forward_part(&problem, sequence, head, queries, &shared_out, keep.then_some(&shared_stats));
    });
    (out, stats)
}

/// Some queries of a head, all keys.
fn forward_part<U: Unit>(
    problem: &Problem<U>,
    sequence: usize,
    head: usize,
    queries: &[u32],
    out: &Shared<U>,
    stats: Option<&Shared<f32>>,
) {
    let Problem { input, d, d_head, ref real, ref table, .. } = *problem;
    let (keys, n) = (&real[sequence], queries.len());
    let tile = KEYS.min(keys.len());
    let stride = stride(tile);
    let rows = QUERIES.min(n);
    let lengths = [
        n * d_head,
        U::scratch(n, d_head),
        n * d_head,
        n,
        n,
        tile * d_head,
        View::<U>::units(d_head, tile),
        View::<U>::units(tile, d_head),
        rows * stride,
        U::scratch(rows, tile),
    ];
    with_scratch(lengths, |[q, q_units, sum, largest, totals, copy, k_panels, v_panels, scores, w_units]| {
        problem.rows(sequence, head, 0).rotated(queries, table, problem.scale(), q);
        let (q, q_stride) = U::of_rows(q, d_head, d_head, q_units);
        let (k_panels, v_panels) = (U::from_floats_mut(k_panels), U::from_floats_mut(v_panels));
        for (at, keys) in keys.chunks(KEYS).enumerate() {
            let cols = keys.len();
            let copy = &mut copy[..cols * d_head];
            problem.rows(sequence, head, 1).rotated(keys, table, 1.0, copy);
            let k = View::pack(Matrix::new(copy, cols, d_head).transposed(), k_panels);
            problem.rows(sequence, head, 2).copy(keys, copy);
            let v = View::pack(Matrix::new(copy, cols, d_head), v_panels);
            for (tile, queries) in queries.chunks(QUERIES).enumerate() {
                let (first, rows) = (tile * QUERIES, queries.len());
                let sum = &mut sum[first * d_head..(first + rows) * d_head];
                let span = first..first + rows;
                let used = (rows - 1) * stride + cols;
                let q = Left::Rows { units: &q[first * q_stride..], stride: q_stride };
                multiply(&mut scores[..used], stride, q, k, 0..k.steps(), 0..cols, Onto::Zero);
                let here = Scores { data: scores, stride, queries, keys, slope: problem.slopes[head] };
                weigh(here, at == 0, &mut largest[span.clone()], &mut totals[span], sum, d_head);
                let (units, stride) = U::of_rows(&scores[..used], stride, cols, w_units);
                let onto = if at == 0 { Onto::Zero } else { Onto::Output };
                multiply(sum, d_head, Left::Rows { units, stride }, v, 0..v.steps(), 0..d_head, onto);
            }
        }
        finish(sum, d_head, largest, totals);
        let (base, column) = (sequence * input.length, head * d_head);
        for ((&position, row), &total) in queries.iter().zip(sum.chunks_exact(d_head)).zip(&*totals) {
            let at = base + position as usize;
            // SAFETY: rows of this head and these queries belong to this task.
            unsafe {
                let width = U::width(d_head);
                U::write_rows(row, d_head, d_head, out.part(at * U::width(d) + U::width(column), width), width);
                if let Some(stats) = stats {
                    let of_head = (sequence * input.heads + head) * input.length;
                    stats.part(of_head + position as usize, 1)[0] = total;
                }
            }
        }
    });
}

/// Gradient of [`forward`], `[batch * length, 3 * d]`, for the output gradient `dout [batch * length, d]`; `out` and `stats` are what
/// [`forward`] returned. Scores are computed again; of a sequence of more than 512 rows, besides, some tasks at a time hold a gradient
/// of its queries each. Rows of padding have gradient 0, and theirs in `dout` is not read.
///
/// # Panics
/// If the slices do not fit the shapes.
pub fn backward<U: Unit>(input: Input<U>, out: &Saved, stats: &[f32], dout: &[f32]) -> Vec<f32> {
    let problem = Problem::new(input);
    let (d, d_head) = (problem.d, problem.d_head);
    let rows = input.mask.len();
    assert_eq!(out.units::<U>().len(), rows * U::width(d), "output");
    assert!(dout.len() == rows * d && stats.len() == rows * input.heads, "sizes of gradients");
    let mut dqkv = for_overwrite(rows * 3 * d);
    clear_padding(&mut dqkv, input.mask);
    let tasks = problem.real.iter().enumerate().flat_map(|(sequence, real)| {
        (0..input.heads).flat_map(move |head| (0..real.len().div_ceil(KEYS)).map(move |part| (sequence, head, part)))
    });
    let tasks: Vec<_> = tasks.collect();
    // Parts of the keys each have a gradient of all queries, added in order: few at a time, so that they take little memory.
    let several = problem.real.iter().any(|real| real.len() > KEYS);
    let wave = if several { 4 * rayon::current_num_threads() } else { tasks.len() };
    let shared = Shared::new(&mut dqkv);
    let forward = Forward { out, stats, dout };
    for tasks in tasks.chunks(wave.max(1)) {
        let dq: Vec<_> = tasks
            .par_iter()
            .map(|&(sequence, head, part)| backward_part(&problem, sequence, head, part, &forward, &shared))
            .collect();
        for (&(sequence, head, part), dq) in tasks.iter().zip(&dq) {
            let chunk = QUERIES * d_head;
            dq.par_chunks(chunk).zip(problem.real[sequence].par_chunks(QUERIES)).for_each(|(dq, queries)| {
                for (row, &position) in dq.chunks_exact(d_head).zip(queries) {
                    let at = (sequence * input.length + position as usize) * 3 * d + head * d_head;
                    // SAFETY: each row is met once.
                    let to = unsafe { shared.part(at, d_head) };
                    if part == 0 {
                        to.copy_from_slice(row);
                    } else {
                        to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
                    }
                }
            });
        }
    }
    dqkv
}

/// What the forward pass returned, and the gradient of its output.
struct Forward<'a> {
    out: &'a Saved,
    stats: &'a [f32],
    dout: &'a [f32],
}

/// A part of the keys of a head, all queries: writes the gradients of keys and values, and of queries if there is no other part.
/// If there is, returns their share of this part, dense.
fn backward_part<U: Unit>(
    problem: &Problem<U>,
    sequence: usize,
    head: usize,
    part: usize,
    forward: &Forward,
    dqkv: &Shared<f32>,
) -> Vec<f32> {
    let Problem { input, d, d_head, ref real, ref table, .. } = *problem;
    let queries = &real[sequence];
    let keys = &queries[part * KEYS..queries.len().min((part + 1) * KEYS)];
    let whole = queries.len() <= KEYS;
    let cols = keys.len();
    let strip = STRIP.min(cols);
    let stride = stride(strip);
    let rows = QUERIES_BACK.min(queries.len());
    let mut share = for_overwrite(if whole { 0 } else { queries.len() * d_head });
    let write = |positions: &[u32], column: usize, rows: &[f32]| {
        for (&position, row) in positions.iter().zip(rows.chunks_exact(d_head)) {
            let at = (sequence * input.length + position as usize) * 3 * d + column;
            // SAFETY: these rows of this head belong to this task, those of queries where it is alone.
            unsafe { dqkv.part(at, d_head).copy_from_slice(row) };
        }
    };
    let lengths = [
        cols * d_head,
        cols * d_head,
        View::<U>::units(d_head, cols),
        View::<U>::units(cols, d_head),
        View::<U>::units(d_head, cols),
        4 * rows * d_head,
        2 * View::<U>::units(rows, d_head),
        rows * stride,
        rows * stride,
        2 * rows,
        2 * U::scratch(rows, d_head) + U::scratch(rows, strip),
        U::scratch(strip, rows),
    ];
    with_scratch(lengths, |[dk, dv, kt, k, vt, dense, panels, scores, dw, row, row_units, step_units]| {
        // Gradients of keys and values come last: until then their place holds copies.
        problem.rows(sequence, head, 1).rotated(keys, table, 1.0, dk);
        let kt = View::pack(Matrix::new(dk, cols, d_head).transposed(), U::from_floats_mut(kt));
        let k = View::pack(Matrix::new(dk, cols, d_head), U::from_floats_mut(k));
        problem.rows(sequence, head, 2).copy(keys, dv);
        let vt = View::pack(Matrix::new(dv, cols, d_head).transposed(), U::from_floats_mut(vt));
        let (q_panel, dout_panel) = panels.split_at_mut(View::<U>::units(rows, d_head));
        let (q_panel, dout_panel) = (U::from_floats_mut(q_panel), U::from_floats_mut(dout_panel));
        let (q_units, rest) = row_units.split_at_mut(U::scratch(rows, d_head));
        let (dout_units, dw_units) = rest.split_at_mut(U::scratch(rows, d_head));
        let of_head = &forward.stats[(sequence * input.heads + head) * input.length..][..input.length];
        for (tile, queries) in queries.chunks(QUERIES_BACK).enumerate() {
            let rows = queries.len();
            let onto = if tile == 0 { Onto::Zero } else { Onto::Output };
            let (stats, along) = row.split_at_mut(row.len() / 2);
            stats.iter_mut().zip(queries).for_each(|(s, &q)| *s = of_head[q as usize]);
            let mut dense = dense.chunks_exact_mut(dense.len() / 4).map(|x| &mut x[..rows * d_head]);
            let mut next = || dense.next().unwrap_or_default();
            let (q, dout, out, dq) = (next(), next(), next(), next());
            problem.rows(sequence, head, 0).rotated(queries, table, problem.scale(), q);
            problem.rows_of(forward.dout, sequence, head).copy(queries, dout);
            problem.rows_of(forward.out.units::<U>(), sequence, head).copy(queries, out);
            row_products(out, dout, along, d_head);
            let q_right = View::pack(Matrix::new(q, rows, d_head), q_panel);
            let dout_right = View::pack(Matrix::new(dout, rows, d_head), dout_panel);

            let (units, gap) = U::of_rows(q, d_head, d_head, q_units);
            let q = Left::Rows { units, stride: gap };
            let (units, gap) = U::of_rows(dout, d_head, d_head, dout_units);
            let dout = Left::Rows { units, stride: gap };
            for (strip, keys) in keys.chunks(STRIP).enumerate() {
                let (first, cols) = (strip * STRIP, keys.len());
                let (columns, used) = (first..first + cols, (rows - 1) * stride + cols);
                multiply(&mut scores[..used], stride, q, kt, 0..kt.steps(), columns.clone(), Onto::Zero);
                multiply(&mut dw[..used], stride, dout, vt, 0..vt.steps(), columns.clone(), Onto::Zero);
                let here = Scores { data: scores, stride, queries, keys, slope: problem.slopes[head] };
                weigh_back(here, dw, stats, along);

                let (dk, dv) = (&mut dk[first * d_head..][..cols * d_head], &mut dv[first * d_head..][..cols * d_head]);
                let (units, gap) = U::of_steps(&scores[..used], stride, cols, step_units);
                let w = Left::Steps { units, stride: gap, rows: cols };
                multiply(dv, d_head, w, dout_right, 0..dout_right.steps(), 0..d_head, onto);
                let (units, gap) = U::of_steps(&dw[..used], stride, cols, step_units);
                let ds = Left::Steps { units, stride: gap, rows: cols };
                multiply(dk, d_head, ds, q_right, 0..q_right.steps(), 0..d_head, onto);
                let (units, gap) = U::of_rows(&dw[..used], stride, cols, dw_units);
                let ds = Left::Rows { units, stride: gap };
                let onto = if strip == 0 { Onto::Zero } else { Onto::Output };
                multiply(dq, d_head, ds, k, first / U::DEPTH..columns.end.div_ceil(U::DEPTH), 0..d_head, onto);
            }
            // The queries of the product carry `log₂ e`; its gradients are of scores to base e.
            rotate_back(dq, d_head, queries, table, problem.scale() * LN_2);
            if whole {
                write(queries, head * d_head, dq);
            } else {
                share[tile * QUERIES_BACK * d_head..][..dq.len()].copy_from_slice(dq);
            }
        }
        rotate_back(dk, d_head, keys, table, LN_2);
        write(keys, d + head * d_head, dk);
        write(keys, 2 * d + head * d_head, dv);
    });
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::Pair;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    const ROTARY: Positions = Positions::Rotary { theta: 10_000.0 };

    /// The definition, in double precision.
    fn reference(input: Input, qkv: &[f64]) -> Vec<f64> {
        let Input { mask, length, heads, positions, .. } = input;
        let d = qkv.len() / mask.len() / 3;
        let d_head = d / heads;
        let half = d_head / 2;
        let slopes = alibi_slopes(heads);
        let vector = |row: usize, which: usize, head: usize| {
            let x = &qkv[(row * 3 + which) * d + head * d_head..][..d_head];
            let Positions::Rotary { theta } = positions else { return x.to_vec() };
            if which == 2 {
                return x.to_vec();
            }
            let mut y = x.to_vec();
            for i in 0..half {
                let speed = f64::from(theta).powf(-(i as f64) / half as f64) as f32;
                let (sin, cos) = f64::from((row % length) as f32 * speed).sin_cos();
                y[i] = x[i] * cos - x[i + half] * sin;
                y[i + half] = x[i + half] * cos + x[i] * sin;
            }
            y
        };
        let mut out = vec![0.0; mask.len() * d];
        for sequence in 0..mask.len() / length {
            let rows: Vec<usize> =
                (sequence * length..(sequence + 1) * length).filter(|&row| mask[row] != 0.0).collect();
            for head in 0..heads {
                let of = |which| rows.iter().map(|&row| vector(row, which, head)).collect::<Vec<_>>();
                let (q, k, v) = (of(0), of(1), of(2));
                for (i, &row) in rows.iter().enumerate() {
                    let scores = k.iter().zip(&rows).map(|(k, &key)| {
                        let dot = q[i].iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (d_head as f64).sqrt();
                        let bias = f64::from(slopes[head]) * row.abs_diff(key) as f64;
                        if positions == Positions::Alibi { dot - bias } else { dot }
                    });
                    let weights: Vec<f64> = scores.map(f64::exp).collect();
                    let sum: f64 = weights.iter().sum();
                    let out = &mut out[row * d + head * d_head..][..d_head];
                    for (w, v) in weights.iter().zip(&v) {
                        out.iter_mut().zip(v).for_each(|(o, v)| *o += w / sum * v);
                    }
                }
            }
        }
        out
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&v| f64::from(v)).collect()
    }

    /// Every third row is padding, and the end of the second sequence.
    fn some_padding(batch: usize, length: usize) -> Vec<f32> {
        let real = |i: usize| i % 3 != 1 && i < length + length.div_ceil(2);
        (0..batch * length).map(|i| f32::from(u8::from(real(i)))).collect()
    }

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(alibi_slopes(2), [0.0625, 0.003_906_25]);
        assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
        // Queries and keys of 0: weights are those of the distances.
        let (mut weighed, keys) = ([0.0; LANES], [0, 1, 2]);
        let here = Scores { data: &mut weighed, stride: LANES, queries: &keys[..1], keys: &keys, slope: 0.5 * LOG2_E };
        let (mut largest, mut sums) = ([0.0], [0.0]);
        weigh(here, true, &mut largest, &mut sums, &mut [0.0], 1);
        let want = [0.506_480, 0.307_196, 0.186_324];
        weighed.iter().zip(want).for_each(|(w, want)| assert!((w / sums[0] - want).abs() < 1e-6));
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        for (positions, batch, length, heads, d_head) in
            [(ROTARY, 1, 1, 1, 2), (ROTARY, 2, 7, 2, 4), (Positions::Alibi, 2, 5, 3, 3), (ROTARY, 1, QUERIES + 5, 1, 6)]
        {
            let rows = batch * length;
            let qkv = noise(rows * 3 * heads * d_head, 1);
            let dout = noise(rows * heads * d_head, 2);
            for mask in [vec![1.0; rows], some_padding(batch, length), vec![0.0; rows]] {
                let input = Input { qkv: &qkv, mask: &mask, length, heads, positions };
                let want: Vec<f32> = reference(input, &wide(&qkv)).iter().map(|&v| v as f32).collect();
                let (out, stats) = forward(input, true);
                assert_close(out.units(), &want);
                let loss =
                    |x: &[f64]| reference(input, x).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum::<f64>();
                let dqkv = backward(input, &out, &stats, &dout);
                assert_gradient(&dqkv, &qkv, loss);
            }
        }
    }

    #[test]
    fn no_rows_are_no_rows() {
        let input = Input::<f32> { qkv: &[], mask: &[], length: 8, heads: 2, positions: ROTARY };
        let (out, stats) = forward(input, true);
        let dqkv = backward(input, &out, &stats, &[]);
        assert!(out.is_empty() && stats.is_empty() && dqkv.is_empty());
    }

    #[test]
    fn long_sequences_match_the_definition() {
        for (positions, length, heads, d_head) in
            [(ROTARY, 2 * KEYS + 77, 1, 64), (Positions::Alibi, KEYS + 1, 2, 32), (ROTARY, PART + 3, 1, 130)]
        {
            let d = heads * d_head;
            let mut qkv = noise(length * 3 * d, 1);
            // The largest scores in the last tile.
            qkv.iter_mut().skip((length - 2) * 3 * d).for_each(|x| *x *= 2.0);
            let mut mask = vec![1.0; length];
            mask[3] = 0.0;
            let input = Input { qkv: &qkv, mask: &mask, length, heads, positions };
            let want: Vec<f32> = reference(input, &wide(&qkv)).iter().map(|&v| v as f32).collect();
            let (out, stats) = forward(input, true);
            // Outputs are means of many values around 0, far smaller than what is added up.
            let largest = qkv.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let numbers: &[f32] = out.units();
            numbers.iter().zip(&want).for_each(|(o, w)| assert!((o - w).abs() < 1e-6 * largest, "{o}, not {w}"));

            // Directional derivatives; one number each would take long.
            let dout = noise(length * d, 2);
            let dqkv = backward(input, &out, &stats, &dout);
            for which in 0..3 {
                let mut direction = wide(&noise(qkv.len(), 3));
                direction.iter_mut().enumerate().filter(|(i, _)| i / d % 3 != which).for_each(|(_, x)| *x = 0.0);
                let loss = |step: f64| {
                    let moved: Vec<f64> = wide(&qkv).iter().zip(&direction).map(|(x, v)| x + step * v).collect();
                    reference(input, &moved).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum::<f64>()
                };
                let want = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let terms = || dqkv.iter().zip(&direction).map(|(g, v)| f64::from(*g) * v);
                let (got, size) = (terms().sum::<f64>(), terms().map(|t| t * t).sum::<f64>().sqrt());
                assert!((got - want).abs() < 1e-5 * size, "{which}: {got}, not {want}; {size}");
            }
        }
    }

    #[test]
    fn same_bits_for_any_threads() {
        let (batch, length, heads, d_head) = (2, KEYS + 100, 1, 16);
        let (qkv, dout) = (noise(batch * length * 3 * heads * d_head, 1), noise(batch * length * heads * d_head, 2));
        let mask = some_padding(batch, length);
        fn check<U: Unit>(input: Input<U>, dout: &[f32]) {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (out, stats) = forward(input, true);
                    let dqkv = backward(input, &out, &stats, dout);
                    (out, stats, dqkv)
                })
            };
            let first = run(1);
            assert!(run(3) == first && run(8) == first);
        }
        let input = Input { qkv: &qkv, mask: &mask, length, heads, positions: ROTARY };
        check::<f32>(input, &dout);
        check::<Pair>(input.with(Saved::of::<Pair>(&qkv, 3 * heads * d_head).units()), &dout);
    }

    #[test]
    fn a_sequence_has_the_same_bits_in_any_batch_and_however_padded() {
        fn check<U: Unit>() {
            let (length, heads, d_head) = (KEYS + 30, 2, 8);
            let (width, d) = (3 * heads * d_head, heads * d_head);
            let own = noise(length * width, 1);
            let mask = vec![1.0; length];
            let run = |qkv: &[f32], mask: &[f32], length: usize| {
                let qkv = Saved::of::<U>(qkv, width);
                let input = Input::<U> { qkv: qkv.units(), mask, length, heads, positions: ROTARY };
                forward(input, false).0.numbers::<U>(d)
            };
            let alone = run(&own, &mask, length);
            let longer = length + 50;
            let mut qkv = noise(3 * longer * width, 2);
            qkv[longer * width..][..own.len()].copy_from_slice(&own);
            let mut mask = vec![1.0; 3 * longer];
            mask[longer + length..2 * longer].fill(0.0);
            let among = run(&qkv, &mask, longer);
            assert_eq!(among[longer * d..][..alone.len()], alone[..]);
            assert!(among[(longer + length) * d..2 * longer * d].iter().all(|&v| v == 0.0));
        }
        check::<f32>();
        check::<Pair>();
    }

    #[test]
    fn bf16_is_near() {
        let (batch, length, heads, d_head) = (2, 75, 2, 32);
        let (qkv, dout) = (noise(batch * length * 3 * heads * d_head, 1), noise(batch * length * heads * d_head, 2));
        let mask = some_padding(batch, length);
        let near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.03 * scale)
        };
        fn run<U: Unit>(input: Input<U>, dout: &[f32]) -> (Vec<f32>, Vec<f32>) {
            let (out, stats) = forward(input, true);
            let dqkv = backward(input, &out, &stats, dout);
            (out.numbers::<U>(dout.len() / input.mask.len()), dqkv)
        }
        for positions in [ROTARY, Positions::Alibi] {
            let input = Input { qkv: &qkv, mask: &mask, length, heads, positions };
            let rounded = Saved::of::<Pair>(&qkv, 3 * heads * d_head);
            let (got, want) = (run::<Pair>(input.with(rounded.units()), &dout), run::<f32>(input, &dout));
            assert!(near(&got.0, &want.0) && near(&got.1, &want.1));
        }
    }
}
