//! The search of codes and what stands around it.

use burn::prelude::*;

use super::composed;
#[cfg(feature = "cpu")]
use super::{flex, is_fused};

/// Index of the nearest code by squared distance, in f32; ties go to the lowest index. Not differentiated.
///
/// # Shapes
/// - `h`: `[rows, d_code]`; `codes`: `[codebook_size, d_code]`, both without autodiff
/// - output: `[rows]`
pub fn nearest(h: Tensor<2>, codes: Tensor<2>) -> Tensor<1, Int> {
    dispatch!(h.device(), nearest(h, codes))
}

/// `scale · tap − (sum + codes[index])`: what a level of a hierarchy searches after the level that chose `index`. The codes are
/// added up first, as for their mean. Not differentiated.
///
/// # Shapes
/// - `tap`, `sum`, output: `[rows, d_code]`; `codes`: `[codebook_size, d_code]`; `index`: `[rows]`, all without autodiff
pub fn residual(
    tap: Tensor<2>,
    scale: f64,
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
) -> Tensor<2> {
    dispatch!(tap.device(), residual(tap, scale, sum, codes, index))
}

/// The codes of one more level added to the `sum` of those before it, and the mean of `levels` of them, 0 at padding. Not
/// differentiated.
///
/// # Shapes
/// - `sum`, outputs: `[rows, d_code]`; `codes`: `[codebook_size, d_code]`
/// - `index`, `mask`: `[rows]`, the latter 1 for a real base and 0 for padding; all without autodiff
pub fn add_codes(
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
    mask: Tensor<1>,
    levels: f64,
) -> (Tensor<2>, Tensor<2>) {
    dispatch!(codes.device(), add_codes(sum, codes, index, mask, levels))
}

/// The values of `mean` with gradients for `z`, which are handed on unchanged (van den Oord et al. 2017); 0 at padding.
///
/// # Shapes
/// - `z`, `mean`, output: `[batch, bases, d_code]`; `mask`: `[batch, bases]`; `mean` and `mask` are not differentiated
pub fn straight_through(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
    dispatch!(z.device(), straight_through(z, mean, mask))
}

/// Mean of `(z − mean)²` over real bases and channels; 0 if there is none.
///
/// # Shapes
/// - `z`, `mean`: `[batch, bases, d_code]`; `mask`: `[batch, bases]`; `mean` and `mask` are not differentiated
/// - output: `[1]`
pub fn commitment(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<1> {
    dispatch!(z.device(), commitment(z, mean, mask))
}

/// How often codes were chosen and the sums of the vectors that chose them: of a batch, or on average.
#[derive(Clone, Debug)]
pub struct Averages {
    /// `[codebook_size]`.
    pub counts: Tensor<1>,
    /// `[codebook_size, d_code]`.
    pub sums: Tensor<2>,
}

/// One step of moving averages from `old` towards `new` (van den Oord et al. 2017, appendix A.1), and the codes that they stand for:
/// `m / Ñ` with counts N, sums m and `Ñ = (N + ε) / (ΣN + K ε) · ΣN`, where ε is the `smoothing`. All without autodiff.
#[must_use]
pub fn average(old: Averages, new: Averages, decay: f64, smoothing: f64) -> (Tensor<2>, Averages) {
    dispatch!(old.sums.device(), average(old, new, decay, smoothing))
}

/// How often each code was chosen and the sum of the vectors that chose it, each row counted with its weight.
///
/// # Shapes
/// - `h`: `[rows, d_code]`; `index`, `weight`: `[rows]`, all without autodiff
/// - output: `[codebook_size]` and `[codebook_size, d_code]`
pub fn code_statistics(
    h: Tensor<2>,
    index: Tensor<1, Int>,
    weight: Tensor<1>,
    codebook_size: usize,
) -> (Tensor<1>, Tensor<2>) {
    dispatch!(h.device(), code_statistics(h, index, weight, codebook_size))
}
