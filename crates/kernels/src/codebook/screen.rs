//! Which panels of codes may hold the nearest one: a search in bf16, twice as fast as one in `f32`, with a bound of its error.
//!
//! A score is `‖e‖² − 2 h·e`. With `h` and `w = −2 e` rounded to `h̃` and `w̃`, Cauchy and Schwarz bound what a product loses by
//! `‖h − h̃‖ ‖w‖ + ‖h̃‖ ‖w − w̃‖`; to it comes the rounding of sums in both precisions. A panel whose least score stays above
//! another panel's least by more than both bounds holds no nearest code. The others are compared in `f32`, so that the search finds
//! the same codes with and without a screen.

use super::{CODES, least};
use crate::product::{Left, Matrix, Onto, Pair, Panels, Unit, multiply, panel_width, rounded};
use crate::rows::with_scratch;
use crate::simd::{LANES, fma, native_bf16, simd, sum_lanes};
use rayon::prelude::*;

/// A codebook in bf16, and what its error depends on.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    /// −2 e as columns.
    columns: Panels<Pair>,
    /// Of the codes of each panel, the greatest `‖w‖`, `‖w − w̃‖` and `‖e‖²`.
    lengths: Vec<f32>,
    losses: Vec<f32>,
    norms: Vec<f32>,
}

impl Screen {
    /// Whether a search among so many codes is faster with a screen: the processor multiplies bf16 itself, and there are panels enough
    /// to leave some out.
    pub(super) fn pays(codes: usize) -> bool {
        /// Panels.
        const FEWEST: usize = 4;
        native_bf16() && codes >= FEWEST * panel_width()
    }

    /// Of `scaled [k, d]`, −2 e, and `norms [k]`, ‖e‖².
    pub(super) fn new(scaled: &[f32], d: usize, norms: &[f32]) -> Self {
        let of_panels = |values: &[f32]| values.chunks(panel_width()).map(greatest).collect();
        let (lengths, losses): (Vec<f32>, Vec<f32>) = scaled.par_chunks_exact(d).map(length_and_loss).unzip();
        Self {
            columns: Panels::new(Matrix::new(scaled, norms.len(), d).transposed()),
            lengths: of_panels(&lengths),
            losses: of_panels(&losses),
            norms: of_panels(norms),
        }
    }

    /// How far the least score that a panel can hold is beyond the greatest that the nearest code can have: `beyond [rows, panels]`
    /// for `h [rows, d]`. A panel above 0 holds no nearest code; where that cannot be known it is a NaN.
    pub(super) fn measure(&self, h: &[f32], norms: &[f32], beyond: &mut [f32]) {
        let (k, panels, width) = (norms.len(), self.lengths.len(), panel_width());
        let (rows, d, columns) = (beyond.len() / panels, self.columns.view().depth(), self.columns.view());
        with_scratch([Pair::scratch(rows, d), rows * CODES.min(k)], |[units, scores]| {
            let (units, stride) = Pair::of_rows(h, d, d, units);
            for first in (0..k).step_by(CODES) {
                let part = first..k.min(first + CODES);
                let scores = &mut scores[..rows * part.len()];
                let onto = Onto::Row(&norms[part.clone()]);
                let left = Left::Rows { units, stride };
                multiply(scores, part.len(), left, columns, 0..columns.steps(), part.clone(), onto);
                least_of_panels(scores, part.len(), width, &mut beyond[first / width..], panels);
            }
        });
        for (h, beyond) in h.chunks_exact(d).zip(beyond.chunks_exact_mut(panels)) {
            self.bound(h, beyond);
        }
    }

    /// From the least score of each panel, as computed in bf16, to what [`Screen::measure`] says, for one row.
    fn bound(&self, h: &[f32], beyond: &mut [f32]) {
        let (length, loss) = length_and_loss(h);
        let rounded = length + loss;
        // Rounding of a sum of d products and a norm, more than twice over, in either precision.
        let chain = 4.0 * (h.len() as f32 + 4.0) * f32::EPSILON;
        let limit = spread(beyond, self, [loss + chain * rounded, rounded + chain * rounded, chain]);
        for beyond in beyond {
            *beyond -= limit;
        }
    }
}

/// The greatest of some numbers that are not negative; without bound if one is a NaN.
fn greatest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, &v| if v.is_nan() { f32::INFINITY } else { most.max(v) })
}

simd! {
    /// ‖v‖ and ‖v − ṽ‖, a little more rather than less.
    fn length_and_loss[FMA](v: &[f32]) -> (f32, f32) {
        /// Beyond the rounding of sums.
        const MORE: f32 = 1.001;
        let loss = |v: f32| v - rounded(v);
        let (mut squares, mut missed) = ([0.0; LANES], [0.0; LANES]);
        let groups = v.chunks_exact(LANES);
        let rest = groups.remainder();
        for v in groups {
            for lane in 0..LANES {
                let loss = loss(v[lane]);
                squares[lane] = fma::<FMA>(v[lane], v[lane], squares[lane]);
                missed[lane] = fma::<FMA>(loss, loss, missed[lane]);
            }
        }
        let squares = rest.iter().fold(sum_lanes(&squares), |sum, v| sum + v * v);
        let missed = rest.iter().fold(sum_lanes(&missed), |sum, &v| sum + loss(v) * loss(v));
        // What is too small to be squared, for bf16 or for a product still counts by this.
        let small = v.len() as f32 * f32::MIN_POSITIVE;
        ((squares + small).sqrt() * MORE, (missed + small).sqrt() * MORE)
    }
}

simd! {
    /// The least score of each `width` columns of `scores`, rows of `columns`, into rows of `out` that begin `stride` apart.
    fn least_of_panels[_FMA](scores: &[f32], columns: usize, width: usize, out: &mut [f32], stride: usize) {
        for (row, out) in scores.chunks_exact(columns).zip(out.chunks_mut(stride)) {
            for (panel, out) in row.chunks(width).zip(out) {
                *out = least(panel);
            }
        }
    }
}

simd! {
    /// Lowers the least score of each panel by its bound, and returns the least of what they are with their bounds added. A bound is the
    /// sum of `of` times the greatest length, loss and norm.
    fn spread[_FMA](least: &mut [f32], screen: &Screen, of: [f32; 3]) -> f32 {
        let mut limit = f32::INFINITY;
        let panels = screen.lengths.iter().zip(&screen.losses).zip(&screen.norms);
        for (least, ((&length, &loss), &norm)) in least.iter_mut().zip(panels) {
            let bound = of[0] * length + of[1] * loss + of[2] * norm;
            let most = *least + bound;
            limit = if most < limit { most } else { limit };
            *least -= bound;
        }
        limit
    }
}
