//! GELU on a strip of a wide layer with AVX-512: what was kept is read once, and each result is written once in every order in which a
//! product reads it. One instruction at a time would pass over the strip for each of them.

use super::table::{Table, lanes, value, value_and_slope};
use crate::product::{Unit, holds};
use crate::shape::rows_of;
use crate::simd::{Level, level, native_bf16};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_and_si512,
    _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};
use std::mem::MaybeUninit;

/// Columns of a panel with AVX-512.
const WIDTH: usize = 64;

/// Whether this processor has what the functions here need for such units.
pub(crate) fn are_there<U: Unit>() -> bool {
    level() == Level::Avx512 && (U::DEPTH == 1 || native_bf16())
}

/// `gelu(x)` for rows `x [rows, width]`, as rows of units.
///
/// # Panics
/// If these are no whole rows, `out` is too short, or [`are_there`] says no.
pub(crate) fn forward<U: Unit>(x: &[f32], width: usize, out: &mut [U]) {
    if x.is_empty() {
        return;
    }
    let rows = rows_of("x", x, width);
    assert!(are_there::<U>() && out.len() >= rows * U::width(width), "rows of units");
    // All rows are one, unless a unit ends with each.
    let run = if width.is_multiple_of(U::DEPTH) { x.len() } else { width };
    for (x, out) in x.chunks(run).zip(out.chunks_mut(U::width(run))) {
        // SAFETY: the processor has the instructions; `out` has a unit for every `DEPTH` numbers of x, since there are as many whole rows.
        unsafe {
            if U::DEPTH == 1 {
                row_of_floats(x, out.as_mut_ptr().cast());
            } else {
                row_of_pairs(x, out.as_mut_ptr().cast());
            }
        }
    }
}

/// Some columns of a strip, at most as many as a panel has: what the backward pass reads, and where its results go.
pub(crate) struct Panel<'a, U> {
    pub rows: usize,
    pub cols: usize,
    /// The input of GELU, as steps that begin `stride` apart.
    pub x: &'a [U],
    /// What is read there next, steps as far apart: it is asked for meanwhile, since it comes from far.
    pub next: &'a [U],
    /// The gradient of its output, rows that begin `stride` apart. Where a unit is a float, that of its input is written over it.
    pub dy: &'a mut [f32],
    pub stride: usize,
    /// A panel for the output, which is written whole.
    pub y: Option<&'a mut [MaybeUninit<U>]>,
    /// A panel for the gradient of the input, which is written whole.
    pub dx: Option<&'a mut [MaybeUninit<U>]>,
    /// Rows of units for the gradient of the input and how far apart they begin, used where a unit is no float.
    pub dx_rows: (&'a mut [U], usize),
    /// To which rows of the gradient of the input are added.
    pub sums: Option<&'a mut [f32]>,
}

/// The backward pass.
///
/// # Panics
/// If a slice is too short, or [`are_there`] says no.
pub(crate) fn backward<U: Unit>(panel: Panel<U>) {
    let Panel { rows, cols, x, next, dy, stride, y, dx, dx_rows, sums } = panel;
    if rows == 0 {
        return;
    }
    let steps = U::width(rows);
    assert!(are_there::<U>() && cols <= WIDTH && cols <= stride, "columns of a panel");
    assert!(holds(x.len(), steps, stride, cols) && holds(dy.len(), rows, stride, cols), "rows of a strip");
    assert!([&y, &dx].iter().all(|out| out.as_ref().is_none_or(|out| out.len() == steps * WIDTH)), "steps of a panel");
    assert!(sums.as_ref().is_none_or(|sums| sums.len() >= cols), "sums of columns");
    let null = std::ptr::null_mut();
    let at = Places {
        rows,
        cols,
        x: x.as_ptr().cast(),
        next: next.as_ptr().cast(),
        // Units of the next steps that exist.
        next_units: next.len(),
        dy: dy.as_mut_ptr(),
        stride,
        y: y.map_or(null, |out| out.as_mut_ptr().cast()),
        dx: dx.map_or(null, |out| out.as_mut_ptr().cast()),
        dx_rows: dx_rows.0.as_mut_ptr().cast(),
        dx_stride: dx_rows.1,
        sums: sums.map_or(null.cast(), <[f32]>::as_mut_ptr),
    };
    // SAFETY: the processor has the instructions; the slices are as long as asserted.
    unsafe {
        if U::DEPTH == 1 {
            backward_floats(&at);
        } else {
            assert!(holds(dx_rows.0.len(), rows, at.dx_stride, U::width(cols)), "rows of units");
            backward_pairs(&at);
        }
    }
}

/// [`Panel`] as the kernels see them; what is null is not wanted.
struct Places {
    rows: usize,
    cols: usize,
    x: *const u32,
    next: *const u32,
    next_units: usize,
    dy: *mut f32,
    stride: usize,
    y: *mut u32,
    dx: *mut u32,
    dx_rows: *mut u32,
    dx_stride: usize,
    sums: *mut f32,
}

impl Places {
    /// Asks for a step of what is read next.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    fn prefetch(&self, step: usize, column: usize) {
        let at = step * self.stride + column;
        if at < self.next_units {
            _mm_prefetch::<_MM_HINT_T0>(self.next.wrapping_add(at).cast());
        }
    }

    /// Adds rows of the gradient to the sums of some columns.
    ///
    /// # Safety
    /// The sums are null or there for the lanes of the mask.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    unsafe fn add<const N: usize>(&self, column: usize, mask: __mmask16, rows: [__m512; N]) {
        if self.sums.is_null() {
            return;
        }
        // SAFETY: as the caller promises.
        unsafe {
            let sums = self.sums.wrapping_add(column);
            let sum = rows.into_iter().fold(_mm512_maskz_loadu_ps(mask, sums), |sum, row| _mm512_add_ps(sum, row));
            _mm512_mask_storeu_ps(sums, mask, sum);
        }
    }
}

/// # Safety
/// The processor has AVX-512; `out` has room for as many floats as `x` has.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn row_of_floats(x: &[f32], out: *mut f32) {
    let e = Table::of_values();
    for column in (0..x.len()).step_by(16) {
        let mask = lanes(x.len() - column);
        // SAFETY: the mask ends with the row.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask, x.as_ptr().add(column));
            _mm512_mask_storeu_ps(out.add(column), mask, value(&e, x));
        }
    }
}

/// # Safety
/// The processor has AVX-512 with bf16; `out` has room for a pair for every two numbers of `x`.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,avx512bf16")]
unsafe fn row_of_pairs(x: &[f32], out: *mut u32) {
    let e = Table::of_values();
    for column in (0..x.len()).step_by(32) {
        let left = x.len() - column;
        let from = x.as_ptr().wrapping_add(column);
        // SAFETY: the masks end with the row.
        unsafe {
            let first = value(&e, _mm512_maskz_loadu_ps(lanes(left), from));
            let second = value(&e, _mm512_maskz_loadu_ps(lanes(left.saturating_sub(16)), from.wrapping_add(16)));
            let pairs = bits(_mm512_cvtne2ps_pbh(second, first));
            _mm512_mask_storeu_epi32(out.add(column / 2).cast(), lanes(left.div_ceil(2)), pairs);
        }
    }
}

/// # Safety
/// The processor has AVX-512, and what is not null is as long as [`backward`] asserts.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn backward_floats(at: &Places) {
    let (e, d) = (Table::of_values(), Table::of_slopes());
    for row in 0..at.rows {
        // Columns that do not exist become 0 in panels.
        for column in (0..WIDTH).step_by(16) {
            let mask = lanes(at.cols.saturating_sub(column));
            let from = row * at.stride + column;
            let to = row * WIDTH + column;
            at.prefetch(row, column);
            // SAFETY: the masks end with the columns; panels are whole.
            unsafe {
                let x = _mm512_maskz_loadu_ps(mask, at.x.cast::<f32>().wrapping_add(from));
                let (value, slope) = value_and_slope(&e, &d, x);
                let dy = at.dy.wrapping_add(from);
                let dx = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, dy), slope);
                _mm512_mask_storeu_ps(dy, mask, dx);
                if !at.y.is_null() {
                    _mm512_storeu_ps(at.y.add(to).cast(), value);
                }
                if !at.dx.is_null() {
                    _mm512_storeu_ps(at.dx.add(to).cast(), dx);
                }
                at.add(column, mask, [dx]);
            }
        }
    }
}

/// # Safety
/// The processor has AVX-512 with bf16, and what is not null is as long as [`backward`] asserts.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,avx512bf16")]
unsafe fn backward_pairs(at: &Places) {
    let (e, d) = (Table::of_values(), Table::of_slopes());
    // From [first | second] to pairs.
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: 32 numbers of 16 bits.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let high = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    for step in 0..at.rows.div_ceil(2) {
        let second_row = 2 * step + 1 < at.rows;
        // Columns that do not exist become 0 in panels.
        for column in (0..WIDTH).step_by(32) {
            let masks = [0, 16].map(|next| lanes(at.cols.saturating_sub(column + next)));
            // Of both rows, for 16 columns and the next 16.
            let mut found = [[_mm512_castsi512_ps(high); 2]; 2];
            for (half, &mask) in masks.iter().enumerate() {
                let column = column + 16 * half;
                let from = at.dy.wrapping_add(2 * step * at.stride + column);
                let to = step * WIDTH + column;
                at.prefetch(step, column);
                // SAFETY: the masks end with the columns and the rows; panels are whole.
                unsafe {
                    let x = _mm512_maskz_loadu_epi32(mask, at.x.wrapping_add(step * at.stride + column).cast());
                    let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
                    let second = _mm512_castsi512_ps(_mm512_and_si512(x, high));
                    let (first, first_slope) = value_and_slope(&e, &d, first);
                    let (second, second_slope) = value_and_slope(&e, &d, second);
                    let pairs = |a: __m512, b: __m512| _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(b, a)));
                    if !at.y.is_null() {
                        _mm512_storeu_si512(at.y.add(to).cast(), pairs(first, second));
                    }
                    let dy = _mm512_maskz_loadu_ps(mask, from);
                    let first = _mm512_mul_ps(dy, first_slope);
                    let mask_of_second = if second_row { mask } else { 0 };
                    let dy = _mm512_maskz_loadu_ps(mask_of_second, from.wrapping_add(at.stride));
                    let second = _mm512_mul_ps(dy, second_slope);
                    if !at.dx.is_null() {
                        _mm512_storeu_si512(at.dx.add(to).cast(), pairs(first, second));
                    }
                    at.add(column, mask, [first, second]);
                    found[0][half] = first;
                    found[1][half] = second;
                }
            }
            let mask = lanes(at.cols.saturating_sub(column).div_ceil(2));
            for (row, [first, second]) in found.into_iter().enumerate().take(1 + usize::from(second_row)) {
                let to = at.dx_rows.wrapping_add((2 * step + row) * at.dx_stride + column / 2);
                // SAFETY: a pair for every two columns of a row that exists.
                unsafe { _mm512_mask_storeu_epi32(to.cast(), mask, bits(_mm512_cvtne2ps_pbh(second, first))) };
            }
        }
    }
}

fn bits(v: __m512bh) -> __m512i {
    // SAFETY: both are 512 bits.
    unsafe { std::mem::transmute(v) }
}
