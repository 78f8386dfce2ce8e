//! Multi-head attention on the output of a fused projection, tile by tile: the scores of all queries and keys never exist at once
//! (Dao 2023, FlashAttention-2).
//!
//! One task is one head of one sequence and a part of its queries (forward) or of its keys (backward). It copies the rows it
//! needs into panels in its thread's scratch, those of padding left out: what follows knows nothing of padding, and a sequence has the
//! same result however much it is padded. Scores are powers of 2: `log₂ e` is part of the scale of the queries.
//!
//! With a causal mask, tiles of scores to the right of the diagonal are not computed, and those on it end where their last query does.

mod backward;
pub mod cached;
mod forward;
mod rotation;
#[cfg(test)]
mod tests;

pub use backward::backward;
pub use cached::Cache;
pub use forward::forward;
pub use rotation::{alibi_slopes, rotary_table};

use crate::product::Unit;
use crate::shape::{fits, positive, sequences};
use crate::simd::{fma, prefetch};
use rotation::rotate;
use std::borrow::Cow;
use std::f32::consts::LOG2_E;

/// Keys whose scores exist at a time, and those whose gradients one task sums: their panels stay in the second cache.
const KEYS: usize = 512;

/// Keys of a row that are weighed together; rows of scores are filled up to a multiple.
const LANES: usize = 32;

/// Most rows of a sequence, and one more than the furthest place: so many an `f32` numbers exactly, by which angles are computed.
const FURTHEST: usize = 1 << 24;

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
    /// `[batch * length]`: 0 for rows that attend to nothing, which are padding unless there are `keys`.
    pub mask: &'a [f32],
    /// `[batch * length]`: 0 for rows that are not attended to. None if rows attend to each other, as `mask` has them.
    pub keys: Option<&'a [f32]>,
    /// `[batch * length]`: where rows stand, below 2²⁴. None if each stands at its number in its sequence; for rotation only.
    pub places: Option<&'a [u32]>,
    /// Rows of a sequence, 2²⁴ at most.
    pub length: usize,
    /// Heads; they divide d. Rotated ones have an even width, and those in bf16.
    pub heads: usize,
    /// How attention knows where a row stands.
    pub positions: Positions,
    /// Whether a row attends to itself and to earlier rows of its sequence alone, as in language models that predict the next token
    /// (Vaswani et al. 2017, section 3.2.3). Rows are ordered by their numbers, whatever their `places`; one with no key before or at it
    /// attends to nothing.
    pub causal: bool,
}

impl<'a, U> Input<'a, U> {
    /// Rows of sequences that attend to each other on both sides, but for padding.
    #[must_use]
    pub fn among(qkv: &'a [U], mask: &'a [f32], length: usize, heads: usize, positions: Positions) -> Self {
        Self { qkv, mask, keys: None, places: None, length, heads, positions, causal: false }
    }

    /// The same of other queries, keys and values.
    #[must_use]
    pub fn with<V>(self, qkv: &'a [V]) -> Input<'a, V> {
        let Self { mask, keys, places, length, heads, positions, causal, .. } = self;
        Input { qkv, mask, keys, places, length, heads, positions, causal }
    }
}

impl<U: Unit> Input<'_, U> {
    /// Numbers of a query, if all shapes fit; 0 where there are no rows, of which any width is right.
    fn check(&self) -> usize {
        let rows = self.mask.len();
        sequences("mask", self.mask, self.length);
        self.keys.inspect(|keys| fits("keys", keys, &[rows]));
        self.places.inspect(|places| fits("places", places, &[rows]));
        if rows == 0 {
            fits("qkv", self.qkv, &[0]);
            return 0;
        }
        let length = self.length;
        assert!(length <= FURTHEST, "`length` is {length}, but must be at most {FURTHEST}");
        let d = self.qkv.len() / rows * U::DEPTH / 3;
        fits("qkv", self.qkv, &[rows, U::width(3 * d)]);
        check_heads::<U>(self.heads, d, self.positions);
        d
    }
}

/// Panics unless heads of whole units, and of pairs to rotate, make up the width of a query.
pub(crate) fn check_heads<U: Unit>(heads: usize, d: usize, positions: Positions) {
    positive("heads", heads);
    let d_head = d / heads;
    let even = U::DEPTH == 2 || matches!(positions, Positions::Rotary { .. });
    let what = if even { "heads of an even width" } else { "heads" };
    assert!(
        d_head > 0 && d.is_multiple_of(heads) && !(even && d_head % 2 == 1),
        "`heads` is {heads}, but a width of {d} is not so many {what}"
    );
}

/// Of queries, so that scores are powers of 2.
fn scale(d_head: usize) -> f32 {
    LOG2_E / (d_head as f32).sqrt()
}

/// Slopes of scores that are powers of 2, one a head; 0 where positions are not [`Positions::Alibi`].
fn slopes(positions: Positions, heads: usize) -> Vec<f32> {
    match positions {
        Positions::Rotary { .. } => vec![0.0; heads],
        Positions::Alibi => alibi_slopes(heads).iter().map(|slope| slope * LOG2_E).collect(),
    }
}

/// What all tasks share.
struct Problem<'a, U> {
    input: Input<'a, U>,
    d: usize,
    d_head: usize,
    /// Rows of each sequence that attend to something.
    queries: Vec<Vec<u32>>,
    /// Rows of each sequence that may be attended to.
    keys: Vec<Vec<u32>>,
    /// [`rotary_table`], or empty.
    table: Vec<f32>,
    /// [`slopes`], or empty.
    slopes: Vec<f32>,
}

impl<'a, U: Unit> Problem<'a, U> {
    /// # Panics
    /// If the slices do not fit the shapes, or heads have an odd width and are rotated or in bf16.
    fn new(input: Input<'a, U>) -> Self {
        let d = input.check();
        let Input { mask, keys, places, length, heads, positions, .. } = input;
        let d_head = d / heads.max(1);
        let table = match positions {
            Positions::Rotary { .. } if mask.is_empty() => Vec::new(),
            Positions::Rotary { theta } => {
                let furthest = places.map_or(length, |places| places.iter().max().map_or(0, |&most| most as usize + 1));
                assert!(furthest <= FURTHEST, "`places` holds {}, but must be below {FURTHEST}", furthest - 1);
                rotary_table(theta, furthest, d_head / 2)
            }
            Positions::Alibi => Vec::new(),
        };
        let slopes = slopes(positions, if mask.is_empty() { 0 } else { heads });
        let rows = |mask: &[f32]| -> Vec<Vec<u32>> {
            let of = |mask: &[f32]| (0u32..).zip(mask).filter(|(_, m)| **m != 0.0).map(|(i, _)| i).collect();
            mask.chunks(length.max(1)).map(of).collect()
        };
        let mut problem =
            Self { input, d, d_head, queries: rows(mask), keys: rows(keys.unwrap_or(mask)), table, slopes };
        for (queries, keys) in problem.queries.iter_mut().zip(&problem.keys) {
            queries.retain(|&query| seen(input.causal, query, keys) > 0);
        }
        problem
    }

    /// Whether a row of all sequences attends to something.
    fn attends(&self, row: usize) -> bool {
        let Input { mask, length, causal, .. } = self.input;
        mask[row] != 0.0 && seen(causal, (row % length) as u32, &self.keys[row / length]) > 0
    }

    /// How many of some keys, in their order, any of some queries attends to.
    fn seen_by(&self, queries: &[u32], keys: &[u32]) -> usize {
        queries.last().map_or(0, |&last| seen(self.input.causal, last, keys))
    }

    /// Rows of queries (0), keys (1) or values (2) of a head.
    fn rows(&self, sequence: usize, head: usize, which: usize) -> Rows<'_, U> {
        let stride = U::width(3 * self.d);
        let first = sequence * self.input.length * stride + U::width(which * self.d + head * self.d_head);
        Rows { units: &self.input.qkv[first..], stride, width: self.d_head }
    }

    /// Dense copies of some rows of queries (0) or keys (1) of a head, turned by their places and times `scale`.
    fn rotated(&self, [sequence, head, which]: [usize; 3], rows: &[u32], scale: f32, out: &mut [f32]) {
        let turn = |out: &mut [f32], rows: &[u32]| {
            rotate(out, self.d_head, &self.places(sequence, rows), &self.table, scale);
        };
        self.rows(sequence, head, which).copy_with(rows, out, turn);
    }

    /// Where some rows of a sequence stand.
    fn places<'r>(&self, sequence: usize, rows: &'r [u32]) -> Cow<'r, [u32]> {
        let Some(places) = self.input.places else { return rows.into() };
        let places = &places[sequence * self.input.length..];
        rows.iter().map(|&row| places[row as usize]).collect()
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

/// How many of some keys, in their order, a query attends to: all, or those not after it.
#[inline(always)]
fn seen(causal: bool, query: u32, keys: &[u32]) -> usize {
    match keys.last() {
        Some(&last) if causal && last > query => keys.partition_point(|&key| key <= query),
        _ => keys.len(),
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
    /// Whether queries attend to no later keys.
    causal: bool,
}

/// `row − slope · |query − key|` for each key.
#[inline(always)]
fn add_distances<const FMA: bool>(row: &mut [f32], query: u32, keys: &[u32], slope: f32) {
    for (score, &key) in row.iter_mut().zip(keys) {
        *score = fma::<FMA>(-slope, (query as i32 - key as i32).unsigned_abs() as i32 as f32, *score);
    }
}

/// Floats from one row of scores to the next: not a multiple of 4 KiB, or rows would share the sets of the first cache.
fn stride(keys: usize) -> usize {
    keys.next_multiple_of(LANES) + 16
}
