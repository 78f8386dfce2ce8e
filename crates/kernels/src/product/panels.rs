//! The right operand of a product, in the order in which the micro-kernel reads it.

use super::kernel::panel_width;
use super::{Matrix, Unit};
use rayon::prelude::*;

/// A matrix `[k, n]` with its columns in groups of [`panel_width`]; in a group, step after step of the inner dimension, the columns
/// of a step adjacent. Columns and elements beyond the matrix are 0.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, U> {
    data: &'a [U],
    depth: usize,
    cols: usize,
}

impl<'a, U: Unit> View<'a, U> {
    /// Units that a matrix `[k, n]` takes.
    #[must_use]
    pub fn units(depth: usize, cols: usize) -> usize {
        depth.div_ceil(U::DEPTH) * cols.next_multiple_of(panel_width())
    }

    /// Copies a matrix into `data`, which is at least as long as [`View::units`] says, on the calling thread.
    pub fn pack(matrix: Matrix, data: &'a mut [U]) -> Self {
        let (depth, cols, width) = (matrix.rows, matrix.cols, panel_width());
        let steps = depth.div_ceil(U::DEPTH);
        let data = &mut data[..Self::units(depth, cols)];
        for (panel, out) in data.chunks_exact_mut((steps * width).max(1)).enumerate() {
            pack_panel(matrix, panel * width, out);
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
        self.steps() * panel_width()
    }

    /// The unit at a step of the first column of a panel.
    pub(super) fn at(&self, step: usize, column: usize) -> *const U {
        self.data[column / panel_width() * self.panel_stride()..][step * panel_width()..].as_ptr()
    }
}

/// A [`View`] with memory of its own.
#[derive(Clone, Debug)]
pub struct Panels<U> {
    data: Vec<U>,
    depth: usize,
    cols: usize,
}

impl<U: Unit> Panels<U> {
    /// Copies a matrix `[k, n]`, in parallel.
    pub fn new(matrix: Matrix) -> Self {
        let (depth, cols, width) = (matrix.rows, matrix.cols, panel_width());
        let steps = depth.div_ceil(U::DEPTH);
        let mut data = U::for_overwrite(View::<U>::units(depth, cols));
        data.par_chunks_mut((steps * width).max(1))
            .enumerate()
            .for_each(|(panel, out)| pack_panel(matrix, panel * width, out));
        Self { data, depth, cols }
    }

    /// The panels, to multiply with.
    #[must_use]
    pub fn view(&self) -> View<'_, U> {
        View { data: &self.data, depth: self.depth, cols: self.cols }
    }
}

/// The panel that begins at a column.
fn pack_panel<U: Unit>(matrix: Matrix, first: usize, out: &mut [U]) {
    let width = panel_width();
    let cols = width.min(matrix.cols - first);
    if matrix.col_stride == 1 {
        pack_rows(matrix.data, matrix.row_stride, matrix.rows, first, cols, out.len() / width, out);
    } else {
        pack_columns(matrix, first, cols, out, width);
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
        out.chunks_exact_mut(width).for_each(|step| step[cols..].fill(U::default()));
    }
}
