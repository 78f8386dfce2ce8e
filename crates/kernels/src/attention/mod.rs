//! Multi-head attention on the output of a fused projection, tile by tile: the scores of all queries and keys never exist at once
//! (Dao 2023, FlashAttention-2).
//!
//! One task is one head of one sequence and a part of its queries (forward) or of its keys (backward). It copies the rows it
//! needs into panels in its thread's scratch, those of padding left out: what follows knows nothing of masks, and a sequence has the
//! same result however much it is padded. Scores are powers of 2: `log₂ e` is part of the scale of the queries.

mod backward;
mod forward;
mod rotation;

pub use backward::backward;
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
}

impl<'a, U> Input<'a, U> {
    /// Rows of sequences that attend to each other, but for padding.
    #[must_use]
    pub fn among(qkv: &'a [U], mask: &'a [f32], length: usize, heads: usize, positions: Positions) -> Self {
        Self { qkv, mask, keys: None, places: None, length, heads, positions }
    }

    /// The same of other queries, keys and values.
    #[must_use]
    pub fn with<V>(self, qkv: &'a [V]) -> Input<'a, V> {
        let Self { mask, keys, places, length, heads, positions, .. } = self;
        Input { qkv, mask, keys, places, length, heads, positions }
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

/// What all tasks share.
struct Problem<'a, U> {
    input: Input<'a, U>,
    d: usize,
    d_head: usize,
    /// Rows of each sequence that attend.
    queries: Vec<Vec<u32>>,
    /// Rows of each sequence that are attended to.
    keys: Vec<Vec<u32>>,
    /// [`rotary_table`], or empty.
    table: Vec<f32>,
    /// Of each head, for scores that are powers of 2; 0 where positions are not [`Positions::Alibi`].
    slopes: Vec<f32>,
}

impl<'a, U: Unit> Problem<'a, U> {
    /// # Panics
    /// If the slices do not fit the shapes, or heads have an odd width and are rotated or in bf16.
    fn new(input: Input<'a, U>) -> Self {
        let d = input.check();
        let Input { mask, keys, places, length, heads, positions, .. } = input;
        let d_head = d / heads.max(1);
        let (table, slopes) = match positions {
            _ if mask.is_empty() => (Vec::new(), Vec::new()),
            Positions::Rotary { theta } => {
                let furthest = places.map_or(length, |places| places.iter().max().map_or(0, |&most| most as usize + 1));
                assert!(furthest <= FURTHEST, "`places` holds {}, but must be below {FURTHEST}", furthest - 1);
                (rotary_table(theta, furthest, d_head / 2), vec![0.0; heads])
            }
            Positions::Alibi => (Vec::new(), alibi_slopes(heads).iter().map(|s| s * LOG2_E).collect()),
        };
        let rows = |mask: &[f32]| -> Vec<Vec<u32>> {
            let of = |mask: &[f32]| (0u32..).zip(mask).filter(|(_, m)| **m != 0.0).map(|(i, _)| i).collect();
            mask.chunks(length.max(1)).map(of).collect()
        };
        Self { input, d, d_head, queries: rows(mask), keys: rows(keys.unwrap_or(mask)), table, slopes }
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

/// Floats from one row of scores to the next: not a multiple of 4 KiB, or rows would share the sets of the first cache.
fn stride(keys: usize) -> usize {
    keys.next_multiple_of(LANES) + 16
}

#[cfg(test)]
mod tests {
    use super::forward::{PART, QUERIES, weigh};
    use super::*;
    use crate::product::{Pair, Saved};
    use crate::rows::test::{assert_close, assert_gradient, noise};

    const ROTARY: Positions = Positions::Rotary { theta: 10_000.0 };

    /// The definition, in double precision.
    fn reference(input: Input, qkv: &[f64]) -> Vec<f64> {
        let Input { mask, keys, places, length, heads, positions, .. } = input;
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
                let place = places.map_or((row % length) as f32, |places| places[row] as f32);
                let (sin, cos) = f64::from(place * speed).sin_cos();
                y[i] = x[i] * cos - x[i + half] * sin;
                y[i + half] = x[i + half] * cos + x[i] * sin;
            }
            y
        };
        let mut out = vec![0.0; mask.len() * d];
        for sequence in 0..mask.len() / length {
            let rows = |mask: &[f32]| -> Vec<usize> {
                (sequence * length..(sequence + 1) * length).filter(|&row| mask[row] != 0.0).collect()
            };
            let (rows, keys) = (rows(mask), rows(keys.unwrap_or(mask)));
            for head in 0..heads {
                let of = |rows: &[usize], which| rows.iter().map(|&row| vector(row, which, head)).collect::<Vec<_>>();
                let (q, k, v) = (of(&rows, 0), of(&keys, 1), of(&keys, 2));
                for (i, &row) in rows.iter().enumerate() {
                    let scores = k.iter().zip(&keys).map(|(k, &key)| {
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
    fn scores_fall_with_the_distance() {
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
                let input = Input::among(&qkv, &mask, length, heads, positions);
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
    fn rows_attend_to_others_wherever_they_stand() {
        // The first rows of each sequence attend to the last ones; of the second sequence none attend, of the third to none.
        for (length, heads, d_head, first) in [(9, 2, 4, 5), (KEYS + QUERIES + 30, 1, 8, 40)] {
            let (batch, d) = (3, heads * d_head);
            let rows = batch * length;
            let role = |attends: bool| -> Vec<f32> {
                let of = |row: usize| match row / length {
                    0 => (row % length < first) == attends && row != 2,
                    1 => !attends,
                    _ => attends,
                };
                (0..rows).map(|row| f32::from(u8::from(of(row)))).collect()
            };
            let (mask, keys) = (role(true), role(false));
            let places: Vec<u32> = (0..rows as u32).map(|row| row * 7 % 31).collect();
            let (qkv, dout) = (noise(rows * 3 * d, 1), noise(rows * d, 2));
            let input =
                Input { keys: Some(&keys), places: Some(&places), ..Input::among(&qkv, &mask, length, heads, ROTARY) };
            let want: Vec<f32> = reference(input, &wide(&qkv)).iter().map(|&v| v as f32).collect();
            let (out, stats) = forward(input, true);
            assert_close(out.units(), &want);
            if length < 20 {
                let loss =
                    |x: &[f64]| reference(input, x).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum::<f64>();
                assert_gradient(&backward(input, &out, &stats, &dout), &qkv, loss);
            } else {
                // Parts of the keys add up to what one part finds.
                let found = backward(input, &out, &stats, &dout);
                assert!(found.iter().all(|v| v.is_finite()) && found.iter().any(|&v| v != 0.0));
            }
        }
    }

    #[test]
    fn no_rows_are_no_rows() {
        let input = Input::<f32>::among(&[], &[], 8, 2, ROTARY);
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
            let input = Input::among(&qkv, &mask, length, heads, positions);
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
        let input = Input::among(&qkv, &mask, length, heads, ROTARY);
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
                let input = Input::<U>::among(qkv.units(), mask, length, heads, ROTARY);
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
            let input = Input::among(&qkv, &mask, length, heads, positions);
            let rounded = Saved::of::<Pair>(&qkv, 3 * heads * d_head);
            let (got, want) = (run::<Pair>(input.with(rounded.units()), &dout), run::<f32>(input, &dout));
            assert!(near(&got.0, &want.0) && near(&got.1, &want.1));
        }
    }
}
