//! Attention while sequences grow: the keys and values of earlier positions are kept, so that a new position costs one query a head.

use super::forward::{QUERIES, State, attend, finish};
use super::rotation::{rotary_table, rotate};
use super::{FURTHEST, KEYS, Positions, Scores, check_heads, scale, slopes, stride};
use crate::product::{Left, View, panel_width};
use crate::rows::{in_order, with_scratch};
use crate::shape::{count, fits, positive, width_of};
use rayon::prelude::*;
use std::ops::Range;

/// What a [`Cache`] holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Most positions of a sequence, 2²⁴ at most.
    pub capacity: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers of a key of a head, an even number if they are rotated.
    pub d_head: usize,
    /// How attention knows where a position stands.
    pub positions: Positions,
}

/// Keys and values of the positions of some sequences, which may differ in length: rotated keys, in `f32`.
///
/// Memory is `[batch, heads, tile]`, and a tile holds the keys and then the values of 512 positions as panels, in the order in which
/// products read them: a position is written once, and nothing is copied when it is attended to. Of a large capacity only what is in
/// use takes memory, on systems that hand out cleared pages when they are first written.
#[derive(Clone, Debug)]
pub struct Cache {
    shape: Shape,
    /// Positions of each sequence so far.
    lengths: Vec<usize>,
    data: Vec<f32>,
    /// [`rotary_table`] of all positions, or empty.
    table: Vec<f32>,
    /// [`slopes`].
    slopes: Vec<f32>,
    /// 0, 1, 2 and so on.
    numbers: Vec<u32>,
}

impl Cache {
    /// A cache without positions.
    ///
    /// # Panics
    /// If a size is 0, the capacity is above 2²⁴, rotated heads have an odd width, there are more than 2¹⁶ heads with
    /// [`Positions::Alibi`], or there are more elements than can be counted.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let Shape { batch, capacity, heads, d_head, positions } = shape;
        positive("batch", batch);
        positive("capacity", capacity);
        positive("d_head", d_head);
        assert!(capacity <= FURTHEST, "`capacity` is {capacity}, but must be at most {FURTHEST}");
        check_heads::<f32>(heads, count("d", &[heads, d_head]), positions);
        count("qkv", &[batch, capacity, 3, heads, d_head]);
        let table = match positions {
            Positions::Rotary { theta } => rotary_table(theta, capacity, d_head / 2),
            Positions::Alibi => Vec::new(),
        };
        Self {
            shape,
            lengths: vec![0; batch],
            data: vec![0.0; count("cache", &[batch, heads, size_of_head(shape)])],
            table,
            slopes: slopes(positions, heads),
            numbers: (0..capacity as u32).collect(),
        }
    }

    /// What it holds.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Positions of each sequence so far, `[batch]`.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Forgets the positions of a sequence from `length` on: all with 0, for another sequence in its place.
    ///
    /// # Panics
    /// If there is no such sequence, or it has fewer positions.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        let batch = self.lengths.len();
        assert!(sequence < batch, "`sequence` is {sequence}, but there are {batch}");
        let has = self.lengths[sequence];
        assert!(length <= has, "`length` is {length}, but sequence {sequence} has {has} positions");
        self.lengths[sequence] = length;
    }

    /// Appends positions to all sequences, and returns what each attends to among itself and all before it, as
    /// [`forward`](super::forward()) does with a causal mask: `[batch, length, d]`.
    ///
    /// `qkv [batch, length, 3 * d]` are the queries, keys and values of the new positions, each `[heads, d_head]`, not rotated, and
    /// `mask [batch, length]` is 0 where there is none. One position a sequence when one is generated, 0 for a sequence that has ended;
    /// or whole prompts, with padding at either end. Positions follow one another at 0, 1, 2 and so on, whatever the padding before
    /// them. The output is 0 at padding, and everywhere else it has the same bits as if all positions were computed at once in `f32`,
    /// each sequence without padding before it.
    ///
    /// # Panics
    /// If `mask` is empty or holds no whole rows of `batch` sequences, `qkv` does not fit it, padding lies between two positions, or a
    /// sequence would have more positions than the capacity. Nothing is appended then.
    pub fn append(&mut self, qkv: &[f32], mask: &[f32]) -> Vec<f32> {
        let Shape { batch, capacity, heads, d_head, .. } = self.shape;
        let (length, d) = (width_of("mask", mask, batch), heads * d_head);
        fits("qkv", qkv, &[batch, length, 3, d]);
        let real: Vec<_> = mask.chunks(length).map(real).collect();
        for (sequence, (real, before)) in real.iter().zip(&self.lengths).enumerate() {
            let after = before + real.len();
            assert!(
                after <= capacity,
                "`capacity` is {capacity}, but sequence {sequence} would have {after} positions"
            );
        }
        let new = New { qkv, length, real };
        self.write(&new);
        let attended = self.attend(&new);
        for (length, real) in self.lengths.iter_mut().zip(&new.real) {
            *length += real.len();
        }
        if length == 1 {
            return attended;
        }
        // From rows of one head after another to those of all heads.
        let mut out = vec![0.0; attended.len()];
        let tasks = out.par_chunks_mut(length * d).zip(attended.par_chunks(length * d));
        tasks.for_each(|(out, attended)| {
            for (head, attended) in attended.chunks(length * d_head).enumerate() {
                for (out, row) in out.chunks_mut(d).zip(attended.chunks(d_head)) {
                    out[head * d_head..][..d_head].copy_from_slice(row);
                }
            }
        });
        out
    }

    /// Keys and values of new positions into their panels.
    fn write(&mut self, new: &New) {
        let Self { shape, lengths, data, table, numbers, .. } = self;
        let (Shape { heads, d_head, .. }, width) = (*shape, panel_width());
        data.par_chunks_mut(size_of_head(*shape)).enumerate().for_each(|(at, data)| {
            let (sequence, head) = (at / heads, at % heads);
            let mut from = new.real[sequence].start;
            for (tile, places) in tiles(lengths[sequence]..lengths[sequence] + new.real[sequence].len()) {
                let (keys, values) = data[first_of(*shape, tile)..].split_at_mut(units_of(*shape, tile)[0]);
                let room = room_of(*shape, tile);
                let rows = from..from + places.len();
                with_scratch([places.len() * d_head], |[copy]| {
                    new.copy(*shape, [sequence, head, 1], rows.clone(), copy);
                    rotate(copy, d_head, &numbers[places.clone()], table, 1.0);
                    for (key, row) in (places.start % KEYS..).zip(copy.chunks_exact(d_head)) {
                        let panel = &mut keys[key / width * d_head * width..][..d_head * width];
                        panel[key % width..].iter_mut().step_by(width).zip(row).for_each(|(out, x)| *out = *x);
                    }
                    new.copy(*shape, [sequence, head, 2], rows.clone(), copy);
                    for (key, row) in (places.start % KEYS..).zip(copy.chunks_exact(d_head)) {
                        for (panel, row) in values.chunks_mut(room * width).zip(row.chunks(width)) {
                            panel[key * width..][..row.len()].copy_from_slice(row);
                        }
                    }
                });
                from = rows.end;
            }
        });
    }

    /// What new positions attend to, `[batch, heads, length, d_head]`, when their keys and values are written.
    fn attend(&self, new: &New) -> Vec<f32> {
        let Shape { batch, heads, d_head, .. } = self.shape;
        let mut out = vec![0.0; batch * heads * new.length * d_head];
        let mut tasks = Vec::new();
        for (at, out) in out.chunks_mut(new.length * d_head).enumerate() {
            let (sequence, head) = (at / heads, at % heads);
            let real = new.real[sequence].clone();
            let out = &mut out[real.start * d_head..real.end * d_head];
            let firsts = real.step_by(QUERIES);
            tasks.extend(firsts.zip(out.chunks_mut(QUERIES * d_head)).map(|(first, out)| (sequence, head, first, out)));
        }
        // Later queries attend to more keys: those first, so that threads finish together.
        tasks.sort_by_key(|&(sequence, _, first, _)| {
            std::cmp::Reverse(self.lengths[sequence] + first - new.real[sequence].start)
        });
        in_order(tasks.into_iter(), |(sequence, head, first, out)| {
            self.attend_part(new, [sequence, head], first, out);
        });
        out
    }

    /// Some queries of a head, from row `first` of what is new.
    fn attend_part(&self, new: &New, [sequence, head]: [usize; 2], first: usize, out: &mut [f32]) {
        let Shape { heads, d_head, .. } = self.shape;
        let n = out.len() / d_head;
        let place = self.lengths[sequence] + first - new.real[sequence].start;
        let (queries, all) = (&self.numbers[place..place + n], place + n);
        let stride = stride(KEYS.min(all));
        let data = &self.data[(sequence * heads + head) * size_of_head(self.shape)..];
        with_scratch([n * d_head, n * stride, n, n], |[q, scores, largest, sums]| {
            new.copy(self.shape, [sequence, head, 0], first..first + n, q);
            rotate(q, d_head, queries, &self.table, scale(d_head));
            for (tile, keys) in tiles(0..all) {
                let (data, [of_keys, of_values]) = (&data[first_of(self.shape, tile)..], units_of(self.shape, tile));
                let room = room_of(self.shape, tile);
                let k = View::of(&data[..of_keys], d_head, room);
                let v = View::of(&data[of_keys..][..of_values], room, d_head);
                let (keys, slope) = (&self.numbers[keys], self.slopes[head]);
                let here = Scores { data: &mut *scores, stride, queries, keys, slope, causal: true };
                let found = State { out: &mut *out, largest: &mut *largest, sums: &mut *sums };
                attend::<f32>(Left::Rows { units: q, stride: d_head }, [k, v], here, &mut [], tile == 0, found);
            }
            finish(out, d_head, largest, sums);
        });
    }
}

/// Positions that are appended.
struct New<'a> {
    qkv: &'a [f32],
    length: usize,
    /// Those of each sequence that are no padding.
    real: Vec<Range<usize>>,
}

impl New<'_> {
    /// Dense copies of some rows of queries (0), keys (1) or values (2) of a head.
    fn copy(&self, shape: Shape, [sequence, head, which]: [usize; 3], rows: Range<usize>, out: &mut [f32]) {
        let Shape { heads, d_head, .. } = shape;
        let d = heads * d_head;
        let first = (sequence * self.length + rows.start) * 3 * d + which * d + head * d_head;
        for (out, row) in out.chunks_exact_mut(d_head).zip(self.qkv[first..].chunks(3 * d)) {
            out.copy_from_slice(&row[..d_head]);
        }
    }
}

/// Where a mask is not 0.
///
/// # Panics
/// If that is not one run.
fn real(mask: &[f32]) -> Range<usize> {
    let start = mask.iter().take_while(|m| **m == 0.0).count();
    let length = mask[start..].iter().take_while(|m| **m != 0.0).count();
    let more = mask[start + length..].iter().any(|m| *m != 0.0);
    assert!(!more, "`mask` has padding between positions, but it must lie before or after them");
    start..start + length
}

/// Positions as tiles: the number of each, and those of its positions that are meant.
fn tiles(places: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let last = if places.is_empty() { 0 } else { places.end.div_ceil(KEYS) };
    (places.start / KEYS..last)
        .map(move |tile| (tile, places.start.max(tile * KEYS)..places.end.min((tile + 1) * KEYS)))
}

/// Positions that a tile has room for.
fn room_of(shape: Shape, tile: usize) -> usize {
    KEYS.min(shape.capacity - tile * KEYS)
}

/// Floats of the keys and of the values of a tile.
fn units_of(shape: Shape, tile: usize) -> [usize; 2] {
    let room = room_of(shape, tile);
    [View::<f32>::units(shape.d_head, room), View::<f32>::units(room, shape.d_head)]
}

/// Where a tile begins in the memory of a head: all tiles before it are full.
fn first_of(shape: Shape, tile: usize) -> usize {
    if tile == 0 { 0 } else { tile * units_of(shape, 0).iter().sum::<usize>() }
}

/// Floats of all tiles of a head.
fn size_of_head(shape: Shape) -> usize {
    let last = (shape.capacity - 1) / KEYS;
    first_of(shape, last) + units_of(shape, last).iter().sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Input, forward};
    use crate::rows::test::noise;

    const KINDS: [Positions; 2] = [Positions::Rotary { theta: 10_000.0 }, Positions::Alibi];

    /// What all positions attend to when they are computed at once.
    fn at_once(qkv: &[f32], heads: usize, d_head: usize, positions: Positions) -> Vec<f32> {
        let (d, length) = (heads * d_head, qkv.len() / (3 * heads * d_head));
        let mask = vec![1.0; length];
        let input = Input { causal: true, ..Input::among(qkv, &mask, length, heads, positions) };
        forward(input, false).0.numbers::<f32>(d)
    }

    /// Parts of sequences side by side, `[batch, length, width]`, filled up with `filler` after those that are shorter or before them; and
    /// the mask.
    fn batch(parts: &[&[f32]], width: usize, before: bool, filler: f32) -> (Vec<f32>, Vec<f32>) {
        let length = parts.iter().map(|part| part.len() / width).max().unwrap_or(0).max(1);
        let (mut rows, mut mask) = (Vec::new(), Vec::new());
        for part in parts {
            let own = part.len() / width;
            let (padding, none, real) = (vec![filler; (length - own) * width], vec![0.0; length - own], vec![1.0; own]);
            rows.extend(if before { [&padding, *part].concat() } else { [*part, &padding].concat() });
            mask.extend(if before { [none, real].concat() } else { [real, none].concat() });
        }
        (rows, mask)
    }

    #[test]
    fn positions_appended_in_any_parts_have_the_bits_of_all_at_once() {
        for (positions, heads, d_head) in [(KINDS[0], 2, 8), (KINDS[1], 3, 5), (KINDS[0], 1, 130)] {
            let (d, width) = (heads * d_head, 3 * heads * d_head);
            // The first sequence is as long as can be, and its last tile ends within a panel.
            let lengths = [KEYS + 60, 3, KEYS - 1, 1];
            let qkv = lengths.map(|length| noise(length * width, length as u64));
            let want = qkv.each_ref().map(|qkv| at_once(qkv, heads, d_head, positions));
            let shape = Shape { batch: 4, capacity: KEYS + 60, heads, d_head, positions };
            for parts in [&[KEYS + 60][..], &[1, 1, 1, 1, KEYS - 10, 2, 4, 1, 1, 60], &[100, 433, 1, 1, 37]] {
                for before in [false, true] {
                    let (mut cache, mut from) = (Cache::new(shape), 0);
                    for part in parts {
                        let at = |i: usize| from.min(lengths[i])..(from + part).min(lengths[i]);
                        let rows: [_; 4] = std::array::from_fn(|i| &qkv[i][at(i).start * width..at(i).end * width]);
                        let (rows, mask) = batch(&rows, width, before, 7.0);
                        let want: [_; 4] = std::array::from_fn(|i| &want[i][at(i).start * d..at(i).end * d]);
                        let (want, _) = batch(&want, d, before, 0.0);
                        assert!(cache.append(&rows, &mask) == want, "{positions:?}, {parts:?}, from {from}");
                        from += part;
                    }
                    assert_eq!(cache.lengths(), lengths);
                }
            }
        }
    }

    #[test]
    fn a_sequence_that_is_cut_goes_on_from_there() {
        let (heads, d_head, width) = (2, 4, 24);
        for positions in KINDS {
            let mut cache = Cache::new(Shape { batch: 1, capacity: 9, heads, d_head, positions });
            let (first, second) = (noise(9 * width, 1), noise(5 * width, 2));
            cache.append(&first, &[1.0; 9]);
            cache.truncate(0, 4);
            let whole = [&first[..4 * width], &second].concat();
            assert_eq!(cache.append(&second, &[1.0; 5]), at_once(&whole, heads, d_head, positions)[4 * 8..]);
            cache.truncate(0, 0);
            assert_eq!(cache.append(&second, &[1.0; 5]), at_once(&second, heads, d_head, positions));
        }
    }

    #[test]
    fn same_bits_for_any_threads() {
        let shape = Shape { batch: 2, capacity: 200, heads: 3, d_head: 16, positions: KINDS[0] };
        let (qkv, mask) = (noise(2 * 200 * 3 * 48, 1), vec![1.0; 400]);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Cache::new(shape).append(&qkv, &mask))
        };
        assert!(run(1) == run(3));
    }
}
