//! Search of the nearest code, and the sums that move a codebook.

mod screen;

use crate::fresh::{self, Unwritten};
use crate::product::{Left, Matrix, Onto, Panels, TILE, multiply, panel_width};
use crate::rows::{in_order, tile_heights, tiles, tiles_mut, with_scratch};
use crate::shape::{self, fits, positive, rows_of};
use crate::simd::{simd, sum_by};
use rayon::prelude::*;
use screen::Screen;
use std::ops::Range;

/// Codes compared at a time: distances of a tile stay in cache, and those of all rows to all codes never exist.
const CODES: usize = 512;

/// Most rows that are screened before the promising panels are read: so many share one reading.
const SCREENED: usize = 1024;

/// Codes that a task prepares, or gathers the statistics of.
const PART: usize = 128;

/// Index of the nearest of `codes [k, d]` for each row of `h [rows, d]`, by squared distance; ties go to the lowest index.
///
/// Compares `‖e‖² − 2 h·e`, which orders codes as the distance does. A row none of whose distances is a finite number gets code 0.
///
/// # Panics
/// If a slice does not fit its shape, `d` is 0, or there are no codes.
pub fn nearest(h: &[f32], codes: &[f32], d: usize) -> Vec<i32> {
    let prepared = Prepared::new(codes, d);
    let mut index = vec![0; rows_of("h", h, d)];
    prepared.nearest(h, &mut index);
    index
}

/// A codebook in the order in which the search reads it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// −2 e as columns, so that the product alone needs the norms added.
    columns: Panels<f32>,
    norms: Vec<f32>,
    screen: Option<Screen>,
}

impl Prepared {
    /// Copies `codes [k, d]`.
    ///
    /// # Panics
    /// If the last code is not whole, `d` is 0, or there are no codes or more than an index can number.
    #[must_use]
    pub fn new(codes: &[f32], d: usize) -> Self {
        let k = rows_of("codes", codes, d);
        positive("codes", k);
        numbered("codes", k);
        let [scaled, norms] = fresh::chunks_of([codes.len(), k], [PART * d, PART], |part, [scaled, norms]| {
            let codes = &codes[part * PART * d..][..scaled.len()];
            let scaled = scaled.written(codes.iter().map(|v| -2.0 * v));
            [scaled, norms.written(codes.chunks_exact(d).map(|e| sum_by(d, |i| e[i] * e[i])))]
        });
        let columns = Matrix::new(&scaled, k, d).transposed();
        let screen = Screen::pays(k).then(|| Screen::new(&scaled, d, &norms));
        Self { columns: Panels::new(columns), norms, screen }
    }

    /// [`nearest`] of each row of `h [rows, d]`, into `index [rows]`.
    ///
    /// # Panics
    /// If `h` and `index` do not fit each other.
    pub fn nearest(&self, h: &[f32], index: &mut [i32]) {
        let (rows, d) = (index.len(), self.columns.view().depth());
        fits("h", h, &[rows, d]);
        // For rows whose distances cannot be compared.
        index.fill(0);
        match &self.screen {
            None => {
                let heights = tile_heights(rows);
                let tiles = tiles_mut(index, &heights, 1).zip(tiles(h, &heights, d));
                in_order(tiles, |(index, h)| self.among_all(h, index));
            }
            Some(screen) => {
                let height = rows.div_ceil(rayon::current_num_threads()).clamp(TILE, SCREENED);
                let parts = index.par_chunks_mut(height).zip(h.par_chunks(height * d));
                parts.for_each(|(index, h)| self.among_promising(screen, h, index));
            }
        }
    }

    /// Compares all codes with each row of a tile.
    fn among_all(&self, h: &[f32], index: &mut [i32]) {
        let (rows, k) = (index.len(), self.norms.len());
        with_scratch([rows * CODES.min(k), rows], |[scores, best]| {
            best.fill(f32::INFINITY);
            for first in (0..k).step_by(CODES) {
                let part = first..k.min(first + CODES);
                let scores = &mut scores[..rows * part.len()];
                self.score(h, part.clone(), scores);
                keep_nearest(scores, part.len(), first, best, index);
            }
        });
    }

    /// Compares each row with the codes of those panels that may hold its nearest.
    fn among_promising(&self, screen: &Screen, h: &[f32], index: &mut [i32]) {
        let (rows, k, width) = (index.len(), self.norms.len(), panel_width());
        let (d, panels) = (h.len() / rows, k.div_ceil(width));
        with_scratch([rows * panels, TILE * d, TILE * width, rows, TILE], |[beyond, near, scores, least, best]| {
            for (h, beyond) in h.chunks(TILE * d).zip(beyond.chunks_mut(TILE * panels)) {
                screen.measure(h, &self.norms, beyond);
            }
            least.fill(f32::INFINITY);
            let (mut which, mut found) = (Vec::with_capacity(rows), Vec::with_capacity(TILE));
            // Panels in their order, so that ties go to the lowest index.
            for (panel, first) in (0..k).step_by(width).enumerate() {
                which.clear();
                which.extend((0..rows).filter(|row| {
                    let none_there = beyond[row * panels + panel] > 0.0;
                    !none_there
                }));
                // The rows that look here, side by side.
                for which in which.chunks(TILE) {
                    for (place, &row) in which.iter().enumerate() {
                        near[place * d..(place + 1) * d].copy_from_slice(&h[row * d..(row + 1) * d]);
                        best[place] = least[row];
                    }
                    found.clear();
                    found.extend(which.iter().map(|&row| index[row]));
                    let part = first..k.min(first + width);
                    let scores = &mut scores[..which.len() * part.len()];
                    self.score(&near[..which.len() * d], part.clone(), scores);
                    keep_nearest(scores, part.len(), first, best, &mut found);
                    for (place, &row) in which.iter().enumerate() {
                        (least[row], index[row]) = (best[place], found[place]);
                    }
                }
            }
        });
    }

    /// `‖e‖² − 2 h·e` of some rows for codes from the first of a panel on.
    fn score(&self, h: &[f32], codes: Range<usize>, scores: &mut [f32]) {
        let columns = self.columns.view();
        let left = Left::Rows { units: h, stride: columns.depth() };
        let norms = Onto::Row(&self.norms[codes.clone()]);
        multiply(scores, codes.len(), left, columns, 0..columns.depth(), codes, norms);
    }
}

simd! {
    /// Lowers `best` and its `index` where a row of `scores` holds something smaller; `first` is the code of column 0.
    fn keep_nearest[_FMA](scores: &[f32], width: usize, first: usize, best: &mut [f32], index: &mut [i32]) {
        for ((row, best), index) in scores.chunks_exact(width).zip(best).zip(index) {
            let score = least(row);
            if score < *best {
                *best = score;
                *index = (first + place(row, score)) as i32;
            }
        }
    }
}

/// Numbers compared at a time.
const TOGETHER: usize = 16;

/// The least of some scores; those that are NaN do not count.
#[inline(always)]
fn least(scores: &[f32]) -> f32 {
    let less = |a: f32, b: f32| if a < b { a } else { b };
    let mut lanes = [f32::INFINITY; TOGETHER];
    let groups = scores.chunks_exact(TOGETHER);
    let rest = groups.remainder();
    for scores in groups {
        lanes = std::array::from_fn(|lane| less(scores[lane], lanes[lane]));
    }
    let eight: [f32; 8] = std::array::from_fn(|i| less(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| less(eight[i], eight[i + 4]));
    let of_lanes = less(less(four[0], four[2]), less(four[1], four[3]));
    rest.iter().fold(of_lanes, |least, &score| less(score, least))
}

/// The first place of a score among those that hold it.
#[inline(always)]
fn place(scores: &[f32], score: f32) -> usize {
    // Whether a group holds it is one comparison of vectors; where, is asked once.
    let holds = |group: &[f32]| group.iter().fold(0, |found, &s| found | u32::from(s == score)) != 0;
    let from = scores.chunks(TOGETHER).position(holds).expect("a score of the row") * TOGETHER;
    from + scores[from..].iter().position(|&s| s == score).expect("a score of the group")
}

/// Panics unless an index can number so many codes.
fn numbered(name: &str, k: usize) {
    assert!(i32::try_from(k).is_ok(), "`{name}`: {k} codes, more than an index can number");
}

/// How often each of `k` codes was chosen and the sum of the rows that chose it: `counts [k]`, `sums [k, d]`.
/// Rows with `weight` 0 do not count (padding); others count as much as their weight.
///
/// The index of a row that does not count may be any number.
///
/// # Panics
/// If a slice does not fit its shape (`h [rows, d]`, `index [rows]`, `weight [rows]`), `d` is 0, `k` is more than an index can number, or
/// the index of a row that counts is not below `k`.
pub fn statistics(h: &[f32], index: &[i32], weight: &[f32], k: usize, d: usize) -> (Vec<f32>, Vec<f32>) {
    positive("d", d);
    numbered("k", k);
    fits("weight", weight, &[index.len()]);
    fits("h", h, &[index.len(), d]);
    let counted = index.iter().zip(weight).filter(|(_, w)| **w != 0.0);
    counted.for_each(|(&code, _)| _ = shape::place("index", code, k));
    let size = shape::count("sums", &[k, d]);
    // Every task reads all codes and adds the rows of its own, in the order of rows.
    let [counts, sums] = fresh::chunks_of([k, size], [PART, PART.saturating_mul(d)], |part, [counts, sums]| {
        let (counts, sums) = (counts.cleared(), sums.cleared());
        for ((row, &code), &weight) in h.chunks_exact(d).zip(index).zip(weight) {
            let code = (code as usize).wrapping_sub(part * PART);
            if code < counts.len() && weight != 0.0 {
                counts[code] += weight;
                sums[code * d..(code + 1) * d].iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
            }
        }
        [counts, sums]
    });
    (counts, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::noise;

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn finds_the_nearest_code() {
        for (rows, k, d) in [(1, 1, 1), (5, 3, 2), (300, 700, 16), (TILE, CODES, 8), (TILE + 1, 2 * CODES + 7, 5)] {
            let (h, codes) = (noise(rows * d, 1), noise(k * d, 2));
            for (row, &found) in h.chunks(d).zip(&nearest(&h, &codes, d)) {
                let found = distance(row, &codes[found as usize * d..][..d]);
                let least = codes.chunks(d).map(|e| distance(row, e)).fold(f64::INFINITY, f64::min);
                assert!(found <= least + 1e-5, "{found} is not {least}");
            }
        }
    }

    fn screen(codes: &[f32], of: &Prepared) -> Screen {
        let scaled: Vec<f32> = codes.iter().map(|v| -2.0 * v).collect();
        Screen::new(&scaled, of.columns.view().depth(), &of.norms)
    }

    /// Rows and codes for which the bounds of a screen are wide, narrow, or not to be known.
    fn hard_cases(rows: usize, k: usize, d: usize) -> Vec<(&'static str, Vec<f32>, Vec<f32>)> {
        let (h, codes) = (noise(rows * d, 1), noise(k * d, 2));
        let each = |values: &[f32], f: fn(f32) -> f32| values.iter().map(|&v| f(v)).collect::<Vec<_>>();
        let with = |values: &[f32], place: usize, value: f32| {
            let mut values = values.to_vec();
            values[place] = value;
            values
        };
        vec![
            ("noise", h.clone(), codes.clone()),
            (
                "codes far from the origin, near each other",
                each(&h, |v| 9.0 + v * 0.01),
                each(&codes, |v| 9.0 + v * 0.01),
            ),
            ("many equal codes", h.clone(), codes[..2 * d].repeat(k / 2 + 1)[..k * d].to_vec()),
            ("nothing to tell codes by", vec![0.0; rows * d], codes.clone()),
            ("too small to square", each(&h, |v| v * 1e-30), each(&codes, |v| v * 1e-30)),
            ("too small to square, larger than a norm", each(&h, |v| v * 1e-19), each(&codes, |v| v * 1e-17)),
            ("too small for bf16", each(&h, |v| v * 1e-38), each(&codes, |v| v * 1e-3)),
            ("too large to square", each(&h, |v| v * 1e25), each(&codes, |v| v * 1e20)),
            ("a row without a number", with(&h, d + 1, f32::NAN), codes.clone()),
            ("a row without bound", with(&h, d + 1, f32::NEG_INFINITY), codes.clone()),
            ("a code without a number", h.clone(), with(&codes, 3 * d, f32::NAN)),
            ("a code without bound", h, with(&codes, 70 * d, f32::INFINITY)),
        ]
    }

    #[test]
    fn a_screen_changes_no_code() {
        for (rows, k, d) in [(5, 256, 1), (33, 300, 7), (200, 2 * CODES + 70, 64)] {
            for (what, h, codes) in hard_cases(rows, k, d) {
                let prepared = Prepared::new(&codes, d);
                let screened = Prepared { screen: Some(screen(&codes, &prepared)), ..prepared };
                let plain = Prepared { screen: None, ..screened.clone() };
                let found = [screened, plain].map(|prepared| {
                    let mut index = vec![0; rows];
                    prepared.nearest(&h, &mut index);
                    index
                });
                assert!(found[0] == found[1], "{what}: {rows} rows, {k} codes of {d}");
            }
        }
    }

    #[test]
    fn a_screen_leaves_most_panels_out() {
        let (rows, k, d) = (60, 2048, 384);
        let (h, codes) = (noise(rows * d, 1), noise(k * d, 2));
        let panels = k.div_ceil(panel_width());
        let mut beyond = vec![0.0; rows * panels];
        let prepared = Prepared::new(&codes, d);
        screen(&codes, &prepared).measure(&h, &prepared.norms, &mut beyond);
        let left = beyond.iter().filter(|&&beyond| beyond <= 0.0).count();
        assert!((rows..2 * rows).contains(&left), "{left} panels of {rows} rows");
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        let codes: Vec<f32> = std::iter::repeat_n([1.0, -1.0], 2 * CODES + 5).flatten().collect();
        assert_eq!(nearest(&noise(40, 1), &codes, 2), vec![0; 20]);
        assert_eq!(nearest(&[0.0], &[-1.0, 1.0], 1), [0]);
    }

    #[test]
    fn counts_and_sums_leave_out_weight_zero() {
        let (counts, sums) = statistics(&[1., 2., 3., 4., 5., 6.], &[1, 1, 0], &[1., 0., 2.], 2, 2);
        assert_eq!((counts, sums), (vec![2., 1.], vec![10., 12., 1., 2.]));
    }
}
