//! Gradients: a task is a head of a sequence and a part of its keys, whose scores are computed again.

use super::forward::QUERIES;
use super::rotation::rotate_back;
use super::{Input, KEYS, Problem, Scores, add_distances, scale, seen, stride};
use crate::fresh::{Scattered, Unwritten};
use crate::product::{Left, Matrix, Onto, Saved, Unit, View, multiply};
use crate::rows::{in_order, with_scratch};
use crate::shape::{count, fits};
use crate::simd::{exp2, simd, sum_by};
use rayon::prelude::*;
use std::f32::consts::LN_2;

/// Queries whose scores exist at a time in the backward pass, where each tile of them adds to the gradients of all keys.
const QUERIES_BACK: usize = 96;

/// Keys whose scores exist at a time in the backward pass, a multiple of the width of a panel: it has twice the scores.
const STRIP: usize = 256;

/// Gradient of [`forward`](super::forward()), `[batch * length, 3 * d]`, for the output gradient `dout [batch * length, d]`; `out` and
/// `stats` are what that returned. Scores are computed again; of a sequence of more than 512 rows, besides, some tasks at a time hold a
/// gradient of its queries each. Rows of padding have gradient 0, and theirs in `dout` is not read.
///
/// # Panics
/// As [`forward`](super::forward()), and if `out`, `stats` or `dout` does not fit its shape.
pub fn backward<U: Unit>(input: Input<U>, out: &Saved, stats: &[f32], dout: &[f32]) -> Vec<f32> {
    let problem = Problem::new(input);
    let d = problem.d;
    let rows = input.mask.len();
    fits("out", out.units::<U>(), &[rows, U::width(d)]);
    fits("stats", stats, &[rows, input.heads]);
    fits("dout", dout, &[rows, d]);
    let forward = Forward { out, stats, dout };
    Scattered::collect(count("dqkv", &[rows, 3, d]), |dqkv| {
        clear(&problem, dqkv);
        differentiate(&problem, &forward, dqkv);
    })
    .0
}

/// Clears the gradients of what nothing was made of: queries that attend to nothing, keys and values that nothing attends to.
fn clear<U: Unit>(problem: &Problem<U>, dqkv: &Scattered<f32>) {
    /// Rows of a task.
    const TOGETHER: usize = 64;
    let Problem { input, d, .. } = *problem;
    input.keys.unwrap_or(input.mask).par_chunks(TOGETHER).enumerate().for_each(|(task, keys)| {
        let rows = || (task * TOGETHER..).zip(keys);
        let queries = rows().filter(|&(row, _)| !problem.attends(row)).map(|(row, _)| row * 3 * d);
        let others = rows().filter(|(_, key)| **key == 0.0).map(|(row, _)| row * 3 * d + d);
        // SAFETY: rows are those of one task, and of each either these columns are cleared here or they are those of tasks which
        // differentiate: those of keys have all rows that are keys, and write all rows that attend to some key.
        unsafe {
            dqkv.write_each(queries, d, |_, out| out.cleared());
            dqkv.write_each(others, 2 * d, |_, out| out.cleared());
        }
    });
}

/// Writes the gradients of all queries that attend to something, and of all keys and values.
fn differentiate<U: Unit>(problem: &Problem<U>, forward: &Forward, dqkv: &Scattered<f32>) {
    let Problem { input, d_head, .. } = *problem;
    let tasks = problem.keys.iter().enumerate().flat_map(|(sequence, keys)| {
        (0..input.heads).flat_map(move |head| (0..keys.len().div_ceil(KEYS)).map(move |part| (sequence, head, part)))
    });
    let tasks: Vec<_> = tasks.collect();
    // Parts of the keys each have a gradient of all queries, added in order: few at a time, so that they take little memory.
    let several = problem.keys.iter().any(|keys| keys.len() > KEYS);
    let wave = if several { 4 * rayon::current_num_threads() } else { tasks.len() };
    let chunk = QUERIES * d_head;
    let mut sum = Vec::new();
    for tasks in tasks.chunks(wave.max(1)) {
        // With a causal mask, fewer queries attend to later parts: these come last, so that threads finish together.
        let dq = in_order(tasks.iter(), |&(sequence, head, part)| {
            backward_part(problem, sequence, head, part, forward, dqkv)
        });
        for (&(sequence, head, part), dq) in tasks.iter().zip(dq) {
            let parts = problem.keys[sequence].len().div_ceil(KEYS);
            if part == 0 {
                sum = dq;
            } else {
                // Of the queries that attend to this part, which are the last ones.
                let first = sum.len() - dq.len();
                let chunks = sum[first..].par_chunks_mut(chunk).zip(dq.par_chunks(chunk));
                chunks.for_each(|(sum, dq)| sum.iter_mut().zip(dq).for_each(|(sum, x)| *sum += x));
            }
            if parts > 1 && part + 1 == parts {
                sum.par_chunks(chunk).zip(problem.queries[sequence].par_chunks(QUERIES)).for_each(|(sum, queries)| {
                    // SAFETY: the queries of this head, each once, are written here alone, since there are several parts of the keys.
                    unsafe { write(problem, [sequence, head, 0], queries, sum, dqkv) };
                });
            }
        }
    }
}

/// Writes gradients of some rows of queries (0), keys (1) or values (2) of a head.
///
/// # Safety
/// No row may be written twice.
unsafe fn write<U: Unit>(
    problem: &Problem<U>,
    [sequence, head, which]: [usize; 3],
    positions: &[u32],
    rows: &[f32],
    dqkv: &Scattered<f32>,
) {
    let Problem { input, d, d_head, .. } = *problem;
    let column = which * d + head * d_head;
    let starts = positions.iter().map(|&row| (sequence * input.length + row as usize) * 3 * d + column);
    // SAFETY: heads, and queries, keys and values, have columns of their own; rows are met once, as the caller promises.
    unsafe { dqkv.write_each(starts, d_head, |n, out| out.write_copy_of_slice(&rows[n * d_head..][..d_head])) };
}

/// What the forward pass returned, and the gradient of its output.
struct Forward<'a> {
    out: &'a Saved,
    stats: &'a [f32],
    dout: &'a [f32],
}

/// A part of the keys of a head, all queries that attend to it: writes the gradients of keys and values, and of queries if there is no
/// other part. If there is, returns their share of this part, dense.
fn backward_part<U: Unit>(
    problem: &Problem<U>,
    sequence: usize,
    head: usize,
    part: usize,
    forward: &Forward,
    dqkv: &Scattered<f32>,
) -> Vec<f32> {
    let Problem { input, d_head, ref table, .. } = *problem;
    let (queries, keys) = (&problem.queries[sequence], &problem.keys[sequence]);
    let whole = keys.len() <= KEYS;
    let keys = &keys[part * KEYS..keys.len().min((part + 1) * KEYS)];
    let earlier = queries.partition_point(|&query| input.causal && query < keys[0]);
    let queries = &queries[earlier..];
    let cols = keys.len();
    let strip = STRIP.min(cols);
    let stride = stride(strip);
    let rows = QUERIES_BACK.min(queries.len());
    let mut share = Vec::with_capacity(if whole { 0 } else { queries.len() * d_head });
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
        problem.rotated([sequence, head, 1], keys, 1.0, dk);
        let kt = View::pack(Matrix::new(dk, cols, d_head).transposed(), U::from_floats_mut(kt));
        let k = View::pack(Matrix::new(dk, cols, d_head), U::from_floats_mut(k));
        problem.rows(sequence, head, 2).copy(keys, dv);
        let vt = View::pack(Matrix::new(dv, cols, d_head).transposed(), U::from_floats_mut(vt));
        let (q_panel, dout_panel) = panels.split_at_mut(View::<U>::units(rows, d_head));
        let (q_panel, dout_panel) = (U::from_floats_mut(q_panel), U::from_floats_mut(dout_panel));
        let (q_units, rest) = row_units.split_at_mut(U::scratch(rows, d_head));
        let (dout_units, dw_units) = rest.split_at_mut(U::scratch(rows, d_head));
        if input.causal || queries.is_empty() {
            // Keys are met by one query after another, or by none.
            dk.fill(0.0);
            dv.fill(0.0);
        }
        let of_head = &forward.stats[(sequence * input.heads + head) * input.length..][..input.length];
        for (tile, queries) in queries.chunks(QUERIES_BACK).enumerate() {
            let rows = queries.len();
            let onto = if tile == 0 && !input.causal { Onto::Zero } else { Onto::Output };
            let (stats, along) = row.split_at_mut(row.len() / 2);
            stats.iter_mut().zip(queries).for_each(|(s, &q)| *s = of_head[q as usize]);
            let mut dense = dense.chunks_exact_mut(dense.len() / 4).map(|x| &mut x[..rows * d_head]);
            let mut next = || dense.next().unwrap_or_default();
            let (q, dout, out, dq) = (next(), next(), next(), next());
            problem.rotated([sequence, head, 0], queries, scale(d_head), q);
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
                let (first, cols) = (strip * STRIP, problem.seen_by(queries, keys));
                if cols == 0 {
                    break;
                }
                let (columns, used) = (first..first + cols, (rows - 1) * stride + cols);
                multiply(&mut scores[..used], stride, q, kt, 0..kt.steps(), columns.clone(), Onto::Zero);
                multiply(&mut dw[..used], stride, dout, vt, 0..vt.steps(), columns.clone(), Onto::Zero);
                let (keys, slope, causal) = (&keys[..cols], problem.slopes[head], input.causal);
                let here = Scores { data: scores, stride, queries, keys, slope, causal };
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
            rotate_back(dq, d_head, &problem.places(sequence, queries), table, scale(d_head) * LN_2);
            if whole {
                // SAFETY: this task alone has the queries of this head, each once.
                unsafe { write(problem, [sequence, head, 0], queries, dq, dqkv) };
            } else {
                share.extend_from_slice(dq);
            }
        }
        rotate_back(dk, d_head, &problem.places(sequence, keys), table, LN_2);
        // SAFETY: these keys of this head are those of this task, each once.
        unsafe {
            write(problem, [sequence, head, 1], keys, dk, dqkv);
            write(problem, [sequence, head, 2], keys, dv, dqkv);
        }
    });
    share
}

simd! {
    /// Weights out of scores, `w = 2^(score − stats)`, and gradients of scores out of those of weights, `dw ← w · (dw − along)`: both
    /// are 0 for keys that a query does not attend to.
    fn weigh_back[FMA](scores: Scores, dw: &mut [f32], stats: &[f32], along: &[f32]) {
        let Scores { data, stride, queries, keys, slope, causal } = scores;
        let rows = data.chunks_mut(stride).zip(dw.chunks_mut(stride));
        for ((((row, dw), &query), &stat), &along) in rows.zip(queries).zip(stats).zip(along) {
            let seen = seen(causal, query, keys);
            let (row, later) = row[..keys.len()].split_at_mut(seen);
            let (dw, dw_later) = dw[..keys.len()].split_at_mut(seen);
            if slope != 0.0 {
                add_distances::<FMA>(row, query, &keys[..seen], slope);
            }
            for (score, dw) in row.iter_mut().zip(dw) {
                let weight = exp2::<FMA>(*score - stat);
                *score = weight;
                *dw = weight * (*dw - along);
            }
            later.fill(0.0);
            dw_later.fill(0.0);
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
