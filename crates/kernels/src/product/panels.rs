//! The right operand of a product, in the order in which the micro-kernel reads it.

use super::kernel::panel_width;
use super::{Matrix, Unit};
use rayon::prelude::*;

/// Columns in groups of [`Panels::width`]; in a group, step after step of the inner dimension, the columns of a step adjacent.
/// Columns and elements beyond the matrix are 0.
#[derive(Clone, Debug)]
pub struct Panels<U> {
    data: Vec<U>,
    depth: usize,
    cols: usize,
}

impl<U: Unit> Panels<U> {
    /// Columns of a panel, as the SIMD level wants it.
    #[must_use]
    pub fn width() -> usize {
        panel_width()
    }

    /// Copies a matrix `[k, n]`, in parallel.
    pub fn new(matrix: Matrix) -> Self {
        let (depth, cols, width) = (matrix.rows, matrix.cols, Self::width());
        let steps = depth.div_ceil(U::DEPTH);
        let mut data = vec![U::default(); steps * cols.next_multiple_of(width)];
        if steps > 0 {
            data.par_chunks_mut(steps * width).enumerate().for_each(|(panel, out)| {
                let (first, here) = (panel * width, width.min(cols - panel * width));
                if matrix.col_stride == 1 {
                    pack_rows(matrix.data, matrix.row_stride, depth, first, here, steps, out);
                } else {
                    pack_columns(matrix, first, here, out, width);
                }
            });
        }
        Self { data, depth, cols }
    }

    /// Rows of the matrix, k.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Units in the inner dimension.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.depth.div_ceil(U::DEPTH)
    }

    /// Columns of the matrix, n.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn panel_stride(&self) -> usize {
        self.steps() * Self::width()
    }

    /// The unit at a step of the first column of a panel.
    pub(super) fn at(&self, step: usize, column: usize) -> *const U {
        self.data[column / Self::width() * self.panel_stride()..][step * Self::width()..].as_ptr()
    }
}

/// One panel out of a row-major matrix of `depth` rows: columns `first..first + cols`, `steps` steps.
pub(super) fn pack_rows<U: Unit>(
    data: &[f32],
    stride: usize,
    depth: usize,
    first: usize,
    cols: usize,
    steps: usize,
    out: &mut [U],
) {
    let width = panel_width();
    let row = |r: usize| &data[r * stride + first..][..cols];
    for (step, out) in out.chunks_exact_mut(width).take(steps).enumerate() {
        let at = step * U::DEPTH;
        let second = (U::DEPTH > 1 && at + 1 < depth).then(|| row(at + 1));
        U::zip(row(at), second, &mut out[..cols]);
        out[cols..].fill(U::default());
    }
}

/// One panel out of a matrix whose columns are contiguous, as those of a transposed weight.
fn pack_columns<U: Unit>(matrix: Matrix, first: usize, cols: usize, out: &mut [U], width: usize) {
    /// Steps written at a time: short enough that their lines stay in the first cache while all columns pass.
    const STEPS: usize = 16;
    let columns = &matrix.data[first * matrix.col_stride..];
    for (block, out) in out.chunks_mut(STEPS * width).enumerate() {
        let start = block * STEPS * U::DEPTH;
        for c in 0..cols {
            let column = &columns[c * matrix.col_stride..][..matrix.rows][start..];
            for (out, x) in out.chunks_exact_mut(width).zip(column.chunks(U::DEPTH)) {
                out[c] = U::new(x[0], x.get(1).copied().unwrap_or_default());
            }
        }
    }
}
