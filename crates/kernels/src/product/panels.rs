//! The right operand of a product, in the order in which the micro-kernel reads it.

use super::kernel::panel_width;
use super::{Matrix, Unit, span};
use crate::fresh::{self, Out};
use crate::rows::with_scratch;
use crate::shape::count;
use crate::simd::{Level, level};
use std::mem::MaybeUninit;

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
    ///
    /// # Panics
    /// If they cannot be counted.
    #[must_use]
    pub fn units(depth: usize, cols: usize) -> usize {
        count("panels", &[depth.div_ceil(U::DEPTH), cols.div_ceil(panel_width()), panel_width()])
    }

    /// Copies a matrix into `data`, on the calling thread.
    ///
    /// # Panics
    /// If `data` is shorter than [`View::units`] says.
    pub fn pack(matrix: Matrix, data: &'a mut [U]) -> Self {
        let (depth, cols, width) = (matrix.rows, matrix.cols, panel_width());
        let units = Self::units(depth, cols);
        assert!(data.len() >= units, "panels of a [{depth}, {cols}] matrix in {} units", data.len());
        let data = &mut data[..units];
        for (panel, out) in data.chunks_exact_mut((depth.div_ceil(U::DEPTH) * width).max(1)).enumerate() {
            pack_panel(matrix, panel * width, Out::over(out));
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

    /// A view of what [`pack_rows`] has written, panel after panel.
    pub(crate) fn of(data: &'a [U], depth: usize, cols: usize) -> Self {
        Self { data: &data[..Self::units(depth, cols)], depth, cols }
    }

    /// Some steps of the panel that begins at a column.
    pub(super) fn part(&self, first: usize, column: usize, steps: usize) -> &'a [U] {
        let width = panel_width();
        &self.data[column / width * self.panel_stride()..][first * width..(first + steps) * width]
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
    ///
    /// # Panics
    /// If the panels are more than can be counted.
    pub fn new(matrix: Matrix) -> Self {
        let (depth, cols, width) = (matrix.rows, matrix.cols, panel_width());
        let panel = depth.div_ceil(U::DEPTH) * width;
        let data = fresh::chunks(View::<U>::units(depth, cols), panel.max(1), |panel, out| {
            pack_panel(matrix, panel * width, Out::fresh(out));
            // SAFETY: a panel is packed whole.
            unsafe { out.assume_init_mut() }
        });
        Self { data, depth, cols }
    }

    /// The panels, to multiply with.
    #[must_use]
    pub fn view(&self) -> View<'_, U> {
        View { data: &self.data, depth: self.depth, cols: self.cols }
    }
}

/// The panel that begins at a column: all of `out`, which has its size.
fn pack_panel<U: Unit>(matrix: Matrix, first: usize, out: Out<U>) {
    let cols = panel_width().min(matrix.cols - first);
    if matrix.col_stride == 1 {
        // A single row has no next one, whatever a transposed view says.
        let stride = if matrix.rows > 1 { matrix.row_stride } else { matrix.cols };
        pack_rows(matrix.data, stride, matrix.rows, first, cols, out);
    } else {
        pack_columns(matrix, first, cols, out);
    }
}

/// One panel out of a row-major matrix of `depth` rows: columns `first..first + cols`, as many steps as `out` has room for. All of `out`
/// is written, with 0 beyond the matrix.
///
/// # Panics
/// If the matrix does not have them, or `out` is no whole panel.
pub(crate) fn pack_rows<U: Unit>(
    data: &[f32],
    stride: usize,
    depth: usize,
    first: usize,
    cols: usize,
    mut out: Out<U>,
) {
    let width = panel_width();
    let steps = out.len() / width;
    let rows = depth.min(steps * U::DEPTH);
    assert!(out.len() == steps * width && cols <= width && (rows <= 1 || cols <= stride), "columns of a panel");
    if cols < width || U::width(rows) < steps {
        out.fill(U::default());
    }
    if rows > 0 && cols > 0 {
        // So many rows of `cols` fill as many steps, since each is put that begins in the slice.
        let end = span(rows, stride, cols).and_then(|span| span.checked_add(first)).unwrap_or(usize::MAX);
        U::put_steps(&data[first..end], stride.max(cols), cols, out, width);
    }
}

/// [`pack_rows`] into fresh memory.
pub(crate) fn panel_written<'a, U: Unit>(
    data: &[f32],
    stride: usize,
    depth: usize,
    first: usize,
    cols: usize,
    out: &'a mut [MaybeUninit<U>],
) -> &'a mut [U] {
    pack_rows(data, stride, depth, first, cols, Out::fresh(out));
    // SAFETY: all of it was written.
    unsafe { out.assume_init_mut() }
}

/// One panel out of a matrix whose columns are contiguous, as those of a transposed weight: all of `out`.
fn pack_columns<U: Unit>(matrix: Matrix, first: usize, cols: usize, mut out: Out<U>) {
    let (depth, stride, width) = (matrix.rows, matrix.col_stride, panel_width());
    if depth == 0 {
        // Nothing to fill.
        return;
    }
    assert!(out.len().is_multiple_of(width), "whole steps of a panel");
    let columns = &matrix.data[first * stride..][..(cols - 1) * stride + depth];
    with_scratch([U::scratch(cols, depth)], |[units]| {
        let (units, stride) = U::of_rows(columns, stride, depth, units);
        let steps = out.len() / width;
        if cols < width {
            out.fill(U::default());
        }
        transpose_units(units, stride, cols, steps, out, width);
    });
}

/// `out[step * width + column] = columns[column * stride + step]`.
pub(super) fn transpose_units<U: Unit>(
    columns: &[U],
    stride: usize,
    cols: usize,
    steps: usize,
    mut out: Out<U>,
    width: usize,
) {
    let done = squares(columns, stride, cols, steps, &mut out, width);
    for c in 0..cols {
        let from = if c < done.0 { done.1 } else { 0 };
        for step in from..steps {
            out.put(step * width + c, columns[c * stride + step]);
        }
    }
}

/// Squares of 16 by 16 where the processor has AVX-512; returns how many columns and steps they cover.
fn squares<U: Unit>(
    columns: &[U],
    stride: usize,
    cols: usize,
    steps: usize,
    out: &mut Out<U>,
    width: usize,
) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        let (whole_cols, whole_steps) = (cols / 16 * 16, steps / 16 * 16);
        for c in (0..whole_cols).step_by(16) {
            for step in (0..whole_steps).step_by(16) {
                let (from, mut to) = (&columns[c * stride + step..], out.part(step * width + c..));
                assert!(from.len() >= 15 * stride + 16 && to.len() >= 15 * width + 16, "a whole square");
                // SAFETY: the processor has AVX-512; both squares are whole; units have 32 bits.
                unsafe { x86::transpose(from.as_ptr().cast(), stride, to.as_mut_ptr().cast(), width) };
            }
        }
        return (whole_cols, whole_steps);
    }
    let _ = (columns, stride, cols, steps, out, width);
    (0, 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps,
        _mm512_unpackhi_ps, _mm512_unpacklo_ps,
    };

    /// Transposes a square of 16 by 16 lanes of 32 bits.
    ///
    /// # Safety
    /// 16 rows of 16 lanes must be there to read, and to write.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: as the caller promises.
        let rows: [__m512; 16] = std::array::from_fn(|r| unsafe { _mm512_loadu_ps(from.add(r * stride)) });
        // Pairs of rows, then fours within each 128-bit quarter: afterwards `fours[4 g + j]` holds, in quarter q, column 4 q + j of
        // rows 4 g to 4 g + 3.
        let mut fours = [_mm512_setzero_ps(); 16];
        for g in 0..4 {
            let [a, b, c, d] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            fours[4 * g] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
            fours[4 * g + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
            fours[4 * g + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
            fours[4 * g + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
        }
        // Then quarters are gathered over the four groups of rows.
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            let (ab_even, ab_odd) =
                (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
            let (cd_even, cd_odd) =
                (_mm512_shuffle_f32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
            let columns = [
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, cd_odd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, cd_odd),
            ];
            for (q, column) in columns.into_iter().enumerate() {
                // SAFETY: as the caller promises.
                unsafe { _mm512_storeu_ps(to.add((4 * q + j) * to_stride), column) };
            }
        }
    }
}
