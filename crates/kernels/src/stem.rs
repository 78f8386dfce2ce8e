//! A convolution over one-hot bases, as a table look-up: each tap adds one row of its table.

use crate::rows::sum_over_rows;
use crate::shape::{count, fits, positive, sequences, width_of};
use rayon::prelude::*;

/// Letters with a row of the table; a base id of 4 or more (N, padding) adds nothing, like an all-zero one-hot.
const LETTERS: usize = 4;

/// Rows handled by one task.
const ROWS: usize = 256;

/// `bases [rows]` in sequences of `length`, `w [d, 4, kernel]`, `b [d]` to `[rows, d]`. Padding must hold the id 4 or more, and any id
/// that is no letter adds nothing.
///
/// # Panics
/// If a slice does not fit its shape, `d` or the kernel is 0, or the last sequence is not whole.
pub fn forward(bases: &[i32], length: usize, w: &[f32], b: &[f32]) -> Vec<f32> {
    let d = b.len();
    let kernel = width_of("w", w, d) / LETTERS;
    positive("kernel", kernel);
    fits("w", w, &[d, LETTERS, kernel]);
    sequences("bases", bases, length);
    let table = to_table(w, d, kernel);
    let mut y = vec![0.0; count("y", &[bases.len(), d])];
    y.par_chunks_mut(ROWS * d).enumerate().for_each(|(chunk, y)| {
        for (i, y) in y.chunks_exact_mut(d).enumerate() {
            y.copy_from_slice(b);
            for (tap, base) in taps(bases, length, chunk * ROWS + i, kernel) {
                y.iter_mut().zip(&table[(tap * LETTERS + base) * d..]).for_each(|(y, t)| *y += t);
            }
        }
    });
    y
}

/// The tap and letter of every base that the window around `row` holds.
fn taps(bases: &[i32], length: usize, row: usize, kernel: usize) -> impl Iterator<Item = (usize, usize)> {
    let (start, at) = (row / length * length, row % length);
    (0..kernel).filter_map(move |tap| {
        let neighbour = (at + tap).checked_sub(kernel / 2).filter(|&n| n < length)?;
        let base = usize::try_from(bases[start + neighbour]).ok().filter(|&b| b < LETTERS)?;
        Some((tap, base))
    })
}

/// `[d, 4, kernel]` to `[kernel, 4, d]`.
fn to_table(w: &[f32], d: usize, kernel: usize) -> Vec<f32> {
    let mut table = vec![0.0; w.len()];
    for (i, &value) in w.iter().enumerate() {
        let (channel, base, tap) = (i / (LETTERS * kernel), i / kernel % LETTERS, i % kernel);
        table[(tap * LETTERS + base) * d + channel] = value;
    }
    table
}

/// Gradients of `w [d, 4, kernel]` and `b [d]` for the output gradient `dy [rows, d]`.
///
/// # Panics
/// If a slice does not fit its shape, `d` or `kernel` is 0, or the last sequence is not whole.
pub fn backward(bases: &[i32], length: usize, d: usize, kernel: usize, dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    positive("d", d);
    positive("kernel", kernel);
    sequences("bases", bases, length);
    fits("dy", dy, &[bases.len(), d]);
    let size = count("w", &[d, LETTERS, kernel]).saturating_add(d);
    let sums = sum_over_rows(bases.len(), size, |rows, sums| {
        for row in rows {
            let dy = &dy[row * d..(row + 1) * d];
            let bias = (usize::MAX, kernel * LETTERS);
            let tables = taps(bases, length, row, kernel).map(|(tap, base)| (tap, tap * LETTERS + base));
            for (_, place) in tables.chain([bias]) {
                sums[place * d..(place + 1) * d].iter_mut().zip(dy).for_each(|(s, v)| *s += v);
            }
        }
    });
    let (table, bias) = sums.split_at(kernel * LETTERS * d);
    let mut w = vec![0.0; table.len()];
    for (i, value) in w.iter_mut().enumerate() {
        let (channel, base, tap) = (i / (LETTERS * kernel), i / kernel % LETTERS, i % kernel);
        *value = table[(tap * LETTERS + base) * d + channel];
    }
    (w, bias.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn reference(bases: &[i32], length: usize, w: &[f64], b: &[f64]) -> Vec<f64> {
        let (d, kernel) = (b.len(), w.len() / b.len() / LETTERS);
        let mut y = Vec::new();
        for sequence in bases.chunks(length) {
            for at in 0..length as isize {
                for c in 0..d {
                    let tap = |k: usize| {
                        let base = *sequence.get(usize::try_from(at + k as isize - (kernel / 2) as isize).ok()?)?;
                        (base < 4).then(|| w[(c * LETTERS + base as usize) * kernel + k])
                    };
                    y.push(b[c] + (0..kernel).filter_map(tap).sum::<f64>());
                }
            }
        }
        y
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        for (bases, length, kernel) in [(vec![0, 3, 4, 1, 2, 2, 0, 4], 4, 5), (vec![1, 2, 0], 1, 3)] {
            let d = 3;
            let (w, b, dy) = (noise(d * LETTERS * kernel, 1), noise(d, 2), noise(bases.len() * d, 3));
            let want: Vec<f32> = reference(&bases, length, &wide(&w), &wide(&b)).iter().map(|&v| v as f32).collect();
            assert_close(&forward(&bases, length, &w, &b), &want);
            let loss = |w: &[f64], b: &[f64]| {
                reference(&bases, length, w, b).iter().zip(&dy).map(|(y, &d)| y * f64::from(d)).sum()
            };
            let (dw, db) = backward(&bases, length, d, kernel, &dy);
            assert_gradient(&dw, &w, |w| loss(w, &wide(&b)));
            assert_gradient(&db, &b, |b| loss(&wide(&w), b));
        }
    }
}
