//! What stands between the two linear layers of [`mlp`](crate::mlp), strip by strip.

use crate::gelu;
use crate::glu;
use crate::mlp::STRIP;
use crate::rows::for_overwrite;
use std::borrow::Cow;
use std::ops::Range;

/// What stands between the two layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Exact GELU, number by number.
    #[default]
    Gelu,
    /// `silu(a) · b` of the first half of a row and the second (`SwiGLU`; Shazeer 2020).
    SwiGlu,
}

impl Activation {
    /// Numbers that it makes one of.
    #[must_use]
    pub const fn inputs(self) -> usize {
        match self {
            Self::Gelu => 1,
            Self::SwiGlu => 2,
        }
    }

    /// `x [rows, width]` to rows of as many numbers as it makes of them, which are in `x` or in `out`.
    pub(crate) fn forward<'a>(self, x: &'a mut [f32], width: usize, out: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::Gelu => {
                gelu::in_place(x);
                x
            }
            Self::SwiGlu => {
                let out = &mut out[..x.len() / 2];
                glu::swiglu_rows(x, width / 2, out);
                out
            }
        }
    }

    /// From its input `x [rows, width]` and the gradient of its output `dy`: its output, and the gradient of its input. Both are
    /// written over the two.
    pub(crate) fn with_gradient<'a>(self, x: &'a mut [f32], dy: &'a mut [f32], width: usize) -> (&'a [f32], &'a [f32]) {
        match self {
            Self::Gelu => {
                gelu::with_gradient(x, dy);
                (x, dy)
            }
            Self::SwiGlu => {
                glu::swiglu_with_gradient(x, dy, width / 2);
                (dy, x)
            }
        }
    }

    /// Rows of a matrix `[d_inner, d]`, or of a column, in the order of strips: where there are two halves, rows of the first and of
    /// the second in turns.
    pub(crate) fn arranged(self, matrix: &[f32], d: usize) -> Cow<'_, [f32]> {
        match self {
            Self::Gelu => Cow::Borrowed(matrix),
            Self::SwiGlu => {
                let mut arranged = Vec::with_capacity(matrix.len());
                for rows in Self::runs(matrix.len() / d) {
                    arranged.extend_from_slice(&matrix[rows.start * d..rows.end * d]);
                }
                Cow::Owned(arranged)
            }
        }
    }

    /// [`Activation::arranged`] the other way.
    pub(crate) fn restored(self, matrix: Vec<f32>, d: usize) -> Vec<f32> {
        match self {
            Self::Gelu => matrix,
            Self::SwiGlu => {
                let (mut restored, mut rest) = (for_overwrite(matrix.len()), matrix.as_slice());
                for rows in Self::runs(matrix.len() / d) {
                    let run;
                    (run, rest) = rest.split_at(rows.len() * d);
                    restored[rows.start * d..rows.end * d].copy_from_slice(run);
                }
                restored
            }
        }
    }

    /// Where the rows of two halves stand, run by run in the order of strips.
    fn runs(rows: usize) -> impl Iterator<Item = Range<usize>> {
        let (half, strip) = (rows / 2, STRIP / 2);
        (0..half).step_by(strip).flat_map(move |first| {
            let end = half.min(first + strip);
            [first..end, half + first..half + end]
        })
    }
}
