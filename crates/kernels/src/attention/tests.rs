//! Attention against its definition in double precision.

use super::forward::{PART, QUERIES, weigh};
use super::*;
use crate::product::{Pair, Saved};
use crate::rows::test::{assert_close, assert_gradient, noise};

const ROTARY: Positions = Positions::Rotary { theta: 10_000.0 };

/// The definition, in double precision.
fn reference(input: Input, qkv: &[f64]) -> Vec<f64> {
    let Input { mask, keys, places, length, heads, positions, causal, .. } = input;
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
                let scores = k.iter().zip(&keys).filter(|&(_, &key)| !causal || key <= row).map(|(k, &key)| {
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
    let here = Scores {
        data: &mut weighed,
        stride: LANES,
        queries: &keys[..1],
        keys: &keys,
        slope: 0.5 * LOG2_E,
        causal: false,
    };
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
        let masks = [vec![1.0; rows], some_padding(batch, length), vec![0.0; rows]];
        for (mask, causal) in masks.iter().flat_map(|mask| [(mask, false), (mask, true)]) {
            let input = Input { causal, ..Input::among(&qkv, mask, length, heads, positions) };
            let want: Vec<f32> = reference(input, &wide(&qkv)).iter().map(|&v| v as f32).collect();
            let (out, stats) = forward(input, true);
            assert_close(out.units(), &want);
            let loss = |x: &[f64]| reference(input, x).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum::<f64>();
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
        // With a causal mask: the last rows attend to the first ones; or some rows to all up to them, but for the first three.
        let up_to: Vec<f32> =
            (0..rows).map(|row| if row % length < 3 { 0.0 } else { mask[row].max(keys[row]) }).collect();
        for (causal, mask, keys) in [(false, &mask, &keys), (true, &keys, &mask), (true, &mask, &up_to)] {
            let among = Input::among(&qkv, mask, length, heads, ROTARY);
            let input = Input { keys: Some(keys), places: Some(&places), causal, ..among };
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
    for (positions, length, heads, d_head, causal) in [
        (ROTARY, 2 * KEYS + 77, 1, 64, false),
        (ROTARY, 2 * KEYS + 77, 1, 64, true),
        (Positions::Alibi, KEYS + 1, 2, 32, false),
        (Positions::Alibi, 2 * KEYS + 1, 2, 32, true),
        (ROTARY, PART + 3, 1, 130, false),
        (ROTARY, PART + 3, 1, 130, true),
    ] {
        let d = heads * d_head;
        let mut qkv = noise(length * 3 * d, 1);
        // The largest scores in the last tile.
        qkv.iter_mut().skip((length - 2) * 3 * d).for_each(|x| *x *= 2.0);
        let mut mask = vec![1.0; length];
        mask[3] = 0.0;
        let input = Input { causal, ..Input::among(&qkv, &mask, length, heads, positions) };
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
    for causal in [false, true] {
        let input = Input { causal, ..Input::among(&qkv, &mask, length, heads, ROTARY) };
        check::<f32>(input, &dout);
        check::<Pair>(input.with(Saved::of::<Pair>(&qkv, 3 * heads * d_head).units()), &dout);
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_any_batch_and_however_padded() {
    fn check<U: Unit>(causal: bool) {
        let (length, heads, d_head) = (KEYS + 30, 2, 8);
        let (width, d) = (3 * heads * d_head, heads * d_head);
        let own = noise(length * width, 1);
        let mask = vec![1.0; length];
        let run = |qkv: &[f32], mask: &[f32], length: usize| {
            let qkv = Saved::of::<U>(qkv, width);
            let input = Input { causal, ..Input::<U>::among(qkv.units(), mask, length, heads, ROTARY) };
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
    for causal in [false, true] {
        check::<f32>(causal);
        check::<Pair>(causal);
    }
}

#[test]
fn bf16_is_near() {
    let (batch, length, heads, d_head) = (2, 75, 2, 32);
    let (qkv, dout) = (noise(batch * length * 3 * heads * d_head, 1), noise(batch * length * heads * d_head, 2));
    let mask = some_padding(batch, length);
    // Of the size of all rows or of its own: with a causal mask, the first rows are means of few values, and large.
    let near = |a: &[f32], b: &[f32]| {
        let size = |b: &[f32]| (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
        let width = b.len() / (batch * length);
        let mut rows = a.chunks(width).zip(b.chunks(width));
        rows.all(|(a, row)| a.iter().zip(row).all(|(a, v)| (a - v).abs() < 0.03 * size(b).max(size(row))))
    };
    fn run<U: Unit>(input: Input<U>, dout: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (out, stats) = forward(input, true);
        let dqkv = backward(input, &out, &stats, dout);
        (out.numbers::<U>(dout.len() / input.mask.len()), dqkv)
    }
    for (positions, causal) in [ROTARY, Positions::Alibi].into_iter().flat_map(|p| [(p, false), (p, true)]) {
        let input = Input { causal, ..Input::among(&qkv, &mask, length, heads, positions) };
        let rounded = Saved::of::<Pair>(&qkv, 3 * heads * d_head);
        let (got, want) = (run::<Pair>(input.with(rounded.units()), &dout), run::<f32>(input, &dout));
        assert!(near(&got.0, &want.0) && near(&got.1, &want.1));
    }
}

#[test]
fn a_causal_row_has_the_same_bits_with_padding_before_and_after() {
    fn check<U: Unit>(positions: Positions) {
        let (length, heads, d_head, before) = (KEYS + 30, 2, 8, 37);
        let (width, d, longer) = (3 * heads * d_head, heads * d_head, length + before + 20);
        let (own, dout) = (noise(length * width, 1), noise(length * d, 2));
        let run = |qkv: &[f32], mask: &[f32], dout: &[f32], length: usize, places: &[u32]| {
            let qkv = Saved::of::<U>(qkv, width);
            let among = Input::<U>::among(qkv.units(), mask, length, heads, positions);
            let input = Input { causal: true, places: Some(places), ..among };
            let (out, stats) = forward(input, true);
            (out.numbers::<U>(d), backward(input, &out, &stats, dout))
        };
        let places: Vec<u32> = (0..length as u32).collect();
        let (out, gradient) = run(&own, &vec![1.0; length], &dout, length, &places);
        let (mut qkv, mut mask, mut more) = (noise(longer * width, 3), vec![0.0; longer], noise(longer * d, 4));
        qkv[before * width..][..own.len()].copy_from_slice(&own);
        mask[before..before + length].fill(1.0);
        more[before * d..][..dout.len()].copy_from_slice(&dout);
        let places: Vec<u32> = (0..longer as u32).map(|row| row.saturating_sub(before as u32)).collect();
        let (padded, padded_gradient) = run(&qkv, &mask, &more, longer, &places);
        assert_eq!(padded[before * d..][..out.len()], out[..]);
        assert_eq!(padded_gradient[before * width..][..gradient.len()], gradient[..]);
        let is_padding = |at: usize, width: usize| mask[at / width] == 0.0;
        assert!(padded.iter().enumerate().all(|(at, &v)| v == 0.0 || !is_padding(at, d)));
        assert!(padded_gradient.iter().enumerate().all(|(at, &v)| v == 0.0 || !is_padding(at, width)));
    }
    for positions in [ROTARY, Positions::Alibi] {
        check::<f32>(positions);
        check::<Pair>(positions);
    }
}

#[test]
fn later_rows_change_nothing_before_them() {
    fn check<U: Unit>(positions: Positions, length: usize, ends: &[usize]) {
        let (heads, d_head) = (2, 8);
        let (width, d) = (3 * heads * d_head, heads * d_head);
        let (qkv, others) = (noise(length * width, 1), noise(length * width, 2));
        let (mask, dout) = (vec![1.0; length], noise(length * d, 3));
        let run = |qkv: &[f32], mask: &[f32], dout: &[f32]| {
            let qkv = Saved::of::<U>(qkv, width);
            let input = Input { causal: true, ..Input::<U>::among(qkv.units(), mask, length, heads, positions) };
            let (out, stats) = forward(input, true);
            (out.numbers::<U>(d), backward(input, &out, &stats, dout))
        };
        for &end in ends {
            let mut dout = dout.clone();
            dout[end * d..].fill(0.0);
            let (out, gradient) = run(&qkv, &mask, &dout);
            let mut changed = qkv.clone();
            changed[end * width..].copy_from_slice(&others[end * width..]);
            let mut shorter = mask.clone();
            shorter[end..].fill(0.0);
            for (qkv, mask) in [(&changed, &mask), (&changed, &shorter)] {
                let (again, gradient_again) = run(qkv, mask, &dout);
                assert_eq!(again[..end * d], out[..end * d], "{end} of {length}");
                assert_eq!(gradient_again[..end * width], gradient[..end * width], "{end} of {length}");
            }
            assert!(gradient[end * width..].iter().all(|&v| v == 0.0), "{end} of {length}");
        }
    }
    for positions in [ROTARY, Positions::Alibi] {
        let long = [1, 47, 48, 97, KEYS, KEYS + 1, 1001];
        for (length, ends) in [(1, &[1][..]), (7, &[1, 3, 6]), (2 * KEYS + 30, &long)] {
            check::<f32>(positions, length, ends);
            check::<Pair>(positions, length, ends);
        }
    }
}

#[test]
fn the_first_causal_row_is_its_own_value() {
    let (length, heads, d_head) = (3, 2, 4);
    let (qkv, d) = (noise(length * 3 * heads * d_head, 1), heads * d_head);
    let input = Input { causal: true, ..Input::among(&qkv, &[1.0; 3], length, heads, ROTARY) };
    assert_close(&forward(input, false).0.numbers::<f32>(d)[..d], &qkv[2 * d..3 * d]);
}
