//! Search of the nearest code, and the sums that move a codebook.

use crate::product::{Left, Matrix, Onto, Panels, multiply};
use crate::rows::{for_overwrite, tile_height, with_scratch};
use crate::simd::{LANES, simd, sum_by};
use rayon::prelude::*;

/// Codes compared at a time: distances of a tile stay in cache, and those of all rows to all codes never exist.
const CODES: usize = 512;

/// Codes that a task prepares, or gathers the statistics of.
const TOGETHER: usize = 128;

/// Index of the nearest of `codes [k, d]` for each row of `h [rows, d]`, by squared distance; ties go to the lowest index.
///
/// Compares `‖e‖² − 2 h·e`, which orders codes as the distance does.
pub fn nearest(h: &[f32], codes: &[f32], d: usize) -> Vec<i32> {
    let mut index = vec![0; h.len() / d];
    Prepared::new(codes, d).nearest(h, &mut index);
    index
}

/// A codebook in the order in which the search reads it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// −2 e as columns, so that the product alone needs the norms added.
    columns: Panels<f32>,
    norms: Vec<f32>,
}

impl Prepared {
    /// Copies `codes [k, d]`.
    #[must_use]
    pub fn new(codes: &[f32], d: usize) -> Self {
        let mut scaled = for_overwrite(codes.len());
        let parts = scaled.par_chunks_mut(TOGETHER * d).zip(codes.par_chunks(TOGETHER * d));
        let norms = parts.flat_map_iter(|(scaled, codes)| {
            scaled.iter_mut().zip(codes).for_each(|(scaled, v)| *scaled = -2.0 * v);
            codes.chunks_exact(d).map(|e| sum_by(d, |i| e[i] * e[i]))
        });
        let norms = norms.collect();
        Self { columns: Panels::new(Matrix::new(&scaled, codes.len() / d, d).transposed()), norms }
    }

    /// [`nearest`] of each row of `h [rows, d]`, into `index [rows]`.
    pub fn nearest(&self, h: &[f32], index: &mut [i32]) {
        let (codes, k) = (self.columns.view(), self.norms.len());
        let d = codes.depth();
        let tile = tile_height(index.len());
        index.par_chunks_mut(tile).zip(h.par_chunks(tile * d)).for_each(|(index, h)| {
            let rows = index.len();
            with_scratch([rows * CODES.min(k), rows], |[scores, best]| {
                best.fill(f32::INFINITY);
                for (block, norms) in self.norms.chunks(CODES).enumerate() {
                    let (first, width) = (block * CODES, norms.len());
                    let scores = &mut scores[..rows * width];
                    let columns = first..first + width;
                    let left = Left::Rows { units: h, stride: d };
                    multiply(scores, width, left, codes, 0..d, columns, Onto::Row(norms));
                    keep_nearest(scores, width, first, best, index);
                }
            });
        });
    }
}

simd! {
    /// Lowers `best` and its `index` where a row of `scores` holds something smaller; `first` is the code of column 0.
    fn keep_nearest[FMA](scores: &[f32], width: usize, first: usize, best: &mut [f32], index: &mut [i32]) {
        for ((row, best), index) in scores.chunks_exact(width).zip(best).zip(index) {
            // Each lane keeps its first smallest score and the group of columns where it stood.
            let (mut least, mut group) = ([f32::INFINITY; LANES], [0i32; LANES]);
            let groups = row.chunks_exact(LANES);
            let rest = groups.remainder();
            for (g, scores) in groups.enumerate() {
                for lane in 0..LANES {
                    let smaller = scores[lane] < least[lane];
                    least[lane] = if smaller { scores[lane] } else { least[lane] };
                    group[lane] = if smaller { g as i32 } else { group[lane] };
                }
            }
            // Columns of different lanes compare by score, then by number, so that ties go to the lowest.
            let (mut score, mut column) = (f32::INFINITY, i32::MAX);
            for lane in 0..LANES {
                let at = group[lane] * LANES as i32 + lane as i32;
                if least[lane] < score || (least[lane] == score && at < column) {
                    (score, column) = (least[lane], at);
                }
            }
            for (i, &other) in rest.iter().enumerate() {
                if other < score {
                    (score, column) = (other, (width - rest.len() + i) as i32);
                }
            }
            if score < *best {
                *best = score;
                *index = first as i32 + column;
            }
        }
    }
}

/// How often each of `k` codes was chosen and the sum of the rows that chose it: `counts [k]`, `sums [k, d]`.
/// Rows with `weight` 0 do not count (padding); others count as much as their weight.
///
/// # Panics
/// If an index is not below `k`.
pub fn statistics(h: &[f32], index: &[i32], weight: &[f32], k: usize, d: usize) -> (Vec<f32>, Vec<f32>) {
    assert!(index.iter().zip(weight).all(|(&code, &w)| w == 0.0 || (code as usize) < k), "codes of the codebook");
    let (mut counts, mut sums) = (vec![0.0; k], for_overwrite(k * d));
    // Every task reads all codes and adds the rows of its own, in the order of rows.
    let parts = counts.par_chunks_mut(TOGETHER).zip(sums.par_chunks_mut(TOGETHER * d)).enumerate();
    parts.for_each(|(part, (counts, sums))| {
        sums.fill(0.0);
        for ((row, &code), &weight) in h.chunks_exact(d).zip(index).zip(weight) {
            let code = (code as usize).wrapping_sub(part * TOGETHER);
            if code < counts.len() && weight != 0.0 {
                counts[code] += weight;
                sums[code * d..(code + 1) * d].iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
            }
        }
    });
    (counts, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::TILE;
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
