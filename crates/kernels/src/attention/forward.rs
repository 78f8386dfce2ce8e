//! Outputs: a task is a head of a sequence and a part of its queries, tile by tile of the keys.

use super::{Input, KEYS, LANES, Problem, Scores, add_distances, scale, seen, stride};
use crate::fresh::{Scattered, Unwritten};
use crate::product::{Left, Matrix, Onto, Saved, Unit, View, multiply, row_written};
use crate::rows::{Shared, in_order, with_scratch};
use crate::shape::count;
use crate::simd::{exp2, fma, simd, sum_by};
use std::cmp::Reverse;

/// Queries whose scores exist at a time, a multiple of the micro-kernel's rows.
pub(super) const QUERIES: usize = 48;

/// Queries of a task of the forward pass, a multiple of [`QUERIES`]: enough to be worth packing all keys.
pub(super) const PART: usize = 2112;

/// `softmax(q · kᵀ / √d_head) · v` for each head, `[batch * length, d]`: no row attends to padding, and rows that attend to nothing,
/// as those of padding, are 0. If `keep`, with what [`backward`](super::backward()) asks for: of each row the logarithm, to base 2, of the sum of `e^score`,
/// `[batch, heads, length]`.
///
/// # Panics
/// If a slice does not fit the shapes of [`Input`], a sequence has no rows or more than 2²⁴, a place is not below 2²⁴, or heads do not
/// divide d, or have an odd width and are rotated or in bf16. Of no rows, none of it matters.
pub fn forward<U: Unit>(input: Input<U>, keep: bool) -> (Saved, Vec<f32>) {
    let problem = Problem::new(input);
    if input.mask.is_empty() {
        return (Saved::default(), Vec::new());
    }
    let mut stats = vec![0.0; if keep { count("stats", &[input.mask.len(), input.heads]) } else { 0 }];
    let width = U::width(problem.d);
    // A row is the same in any part: smaller ones where threads would be idle.
    let tasks = problem.queries.len() * input.heads;
    let wanted = (4 * rayon::current_num_threads()).div_ceil(tasks.max(1));
    let part = input.length.div_ceil(wanted).next_multiple_of(QUERIES).min(PART);
    let tasks = problem.queries.iter().enumerate().flat_map(|(sequence, queries)| {
        let parts = move || queries.chunks(part);
        (0..input.heads).flat_map(move |head| parts().map(move |queries| (sequence, head, queries)))
    });
    let mut tasks: Vec<_> = tasks.collect();
    if input.causal {
        // Later queries attend to more keys: those parts first, so that threads finish together.
        tasks.sort_by_key(|&(sequence, _, queries)| {
            Reverse(queries.len() * problem.seen_by(queries, &problem.keys[sequence]))
        });
    }
    let shared_stats = Shared::new(&mut stats);
    let (out, ()) = Scattered::<U>::collect(count("out", &[input.mask.len(), width]), |out| {
        let idle = (0..input.mask.len()).filter(|&row| !problem.attends(row)).map(|row| row * width);
        // SAFETY: rows that attend to nothing, each once; queries of tasks are all others.
        unsafe { out.write_each(idle, width, |_, out| out.cleared()) };
        in_order(tasks.into_iter(), |(sequence, head, queries)| {
            forward_part(&problem, sequence, head, queries, out, keep.then_some(&shared_stats));
        });
    });
    (Saved::from_units(out), stats)
}

/// Some queries of a head, all keys that they attend to.
fn forward_part<U: Unit>(
    problem: &Problem<U>,
    sequence: usize,
    head: usize,
    queries: &[u32],
    out: &Scattered<U>,
    stats: Option<&Shared<f32>>,
) {
    let Problem { input, d, d_head, .. } = *problem;
    let (keys, n) = (&problem.keys[sequence], queries.len());
    let keys = &keys[..problem.seen_by(queries, keys)];
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
        problem.rotated([sequence, head, 0], queries, scale(d_head), q);
        let (q, q_stride) = U::of_rows(q, d_head, d_head, q_units);
        let (k_panels, v_panels) = (U::from_floats_mut(k_panels), U::from_floats_mut(v_panels));
        for (at, keys) in keys.chunks(KEYS).enumerate() {
            let cols = keys.len();
            let copy = &mut copy[..cols * d_head];
            problem.rotated([sequence, head, 1], keys, 1.0, copy);
            let k = View::pack(Matrix::new(copy, cols, d_head).transposed(), k_panels);
            problem.rows(sequence, head, 2).copy(keys, copy);
            let v = View::pack(Matrix::new(copy, cols, d_head), v_panels);
            for (tile, queries) in queries.chunks(QUERIES).enumerate() {
                let (first, rows) = (tile * QUERIES, queries.len());
                let cols = problem.seen_by(queries, keys);
                if cols == 0 {
                    continue;
                }
                let span = first..first + rows;
                let found = State {
                    out: &mut sum[first * d_head..(first + rows) * d_head],
                    largest: &mut largest[span.clone()],
                    sums: &mut totals[span],
                };
                let (keys, slope, causal) = (&keys[..cols], problem.slopes[head], input.causal);
                let here = Scores { data: scores, stride, queries, keys, slope, causal };
                let q = Left::Rows { units: &q[first * q_stride..], stride: q_stride };
                attend(q, [k, v], here, w_units, at == 0, found);
            }
        }
        finish(sum, d_head, largest, totals);
        let (base, column) = (sequence * input.length, head * d_head);
        let firsts = queries.iter().map(|&row| (base + row as usize) * U::width(d) + U::width(column));
        // SAFETY: heads have columns of their own, of whole units; these queries, each once, are those of this task.
        unsafe { out.write_each(firsts, U::width(d_head), |n, out| row_written(&sum[n * d_head..][..d_head], out)) };
        if let Some(stats) = stats {
            let of_head = (sequence * input.heads + head) * input.length;
            for (&position, &total) in queries.iter().zip(&*totals) {
                // SAFETY: rows of this head and these queries belong to this task.
                unsafe { stats.part(of_head + position as usize, 1)[0] = total };
            }
        }
    });
}

/// What some queries have found among the keys so far.
pub(super) struct State<'a> {
    /// Sums of weighted values, dense rows.
    pub out: &'a mut [f32],
    /// The largest score of each query, which its weights are relative to.
    pub largest: &'a mut [f32],
    /// Of its weights.
    pub sums: &'a mut [f32],
}

/// Adds what some queries find among the first keys of a tile, as many as `scores` speaks of; `first` if these are the first keys at
/// all, of which each query attends to one at least.
pub(super) fn attend<U: Unit>(
    q: Left<U>,
    [k, v]: [View<U>; 2],
    scores: Scores,
    w_units: &mut [f32],
    first: bool,
    state: State,
) {
    let Scores { data, stride, queries, keys, slope, causal } = scores;
    let (cols, width) = (keys.len(), v.cols());
    let used = (queries.len() - 1) * stride + cols;
    multiply(&mut data[..used], stride, q, k, 0..k.steps(), 0..cols, Onto::Zero);
    let scores = Scores { data: &mut *data, stride, queries, keys, slope, causal };
    weigh(scores, first, state.largest, state.sums, state.out, width);
    let (units, stride) = U::of_rows(&data[..used], stride, cols, w_units);
    let onto = if first { Onto::Zero } else { Onto::Output };
    multiply(state.out, width, Left::Rows { units, stride }, v, 0..U::width(cols), 0..width, onto);
}

simd! {
    /// Scores become weights, relative to the largest score so far of each query. That and the sums of weights are kept in `largest`
    /// and `sums`; what `out` holds of earlier keys is scaled to the new largest. Keys that a query does not attend to have weight 0.
    pub(super) fn weigh[FMA](scores: Scores, first: bool, largest: &mut [f32], sums: &mut [f32], out: &mut [f32], width: usize) {
        let Scores { data, stride, queries, keys, slope, causal } = scores;
        let states = largest.iter_mut().zip(sums).zip(out.chunks_exact_mut(width)).zip(queries);
        for (row, (((largest, total), out), &query)) in data.chunks_mut(stride).zip(states) {
            let (row, seen) = (&mut row[..keys.len().next_multiple_of(LANES)], seen(causal, query, keys));
            row[seen..].fill(f32::NEG_INFINITY);
            if slope != 0.0 {
                add_distances::<FMA>(row, query, &keys[..seen], slope);
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
    /// Divides each row by its sum; sums become logarithms to base 2 of what they are sums of.
    pub(super) fn finish[FMA](out: &mut [f32], width: usize, largest: &[f32], sums: &mut [f32]) {
        for ((row, largest), sum) in out.chunks_exact_mut(width).zip(largest).zip(sums) {
            let factor = 1.0 / *sum;
            for x in row {
                *x *= factor;
            }
            *sum = largest + sum.log2();
        }
    }
}
