//! Matrix products: the only place where most of the time is spent.
//!
//! A product reads its left operand as it lies in memory and its right operand in [`Panels`], copied once into the order in
//! which it is read. One micro-kernel (`kernel.rs`) holds a block of the output in registers and walks the whole inner dimension:
//! every element of the output is one chain of multiply-adds in the order of that dimension. A row of the output therefore has
//! the same bits for any number of rows, any place among them, any tiling and any thread.
//!
//! An operand is made of *units* of 32 bits ([`Unit`]): an `f32`, or a [`Pair`] of bf16 that one instruction multiplies and adds
//! into an `f32` sum.

mod kernel;
mod panels;
mod saved;
mod transposed;
mod unit;

pub use kernel::panel_width;
pub(crate) use panels::panel_written;
pub use panels::{Panels, View};
pub use saved::Saved;
pub use transposed::{transposed, transposed_panels, turned, turned_panels};
pub use unit::{Pair, Precision, Unit};
pub(crate) use unit::{rounded, row_written, steps_written};

use crate::fresh::{self, Out};
pub(crate) use crate::rows::BLOCK;
use crate::rows::{in_order, tile_heights, tiles, tiles_mut, with_scratch};
use crate::shape::{count, fits, positive, rows_of};
use kernel::{Layout, Start, Sweep, sweep};
use std::mem::MaybeUninit;
use std::ops::Range;

pub use crate::rows::TILE;

// The division of rows knows it without knowing products.
const _: () = assert!(BLOCK == kernel::ROWS, "tiles are whole blocks of a product");

/// Elements from the first to the last of some rows of `width` that begin `stride` apart; none if they cannot be counted.
fn span(rows: usize, stride: usize, width: usize) -> Option<usize> {
    let Some(before) = rows.checked_sub(1) else { return Some(0) };
    before.checked_mul(stride)?.checked_add(width)
}

/// Whether a slice of some length holds such rows.
pub(crate) fn holds(length: usize, rows: usize, stride: usize, width: usize) -> bool {
    span(rows, stride, width).is_some_and(|needed| needed <= length)
}

/// A view of a matrix in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows, cols]`.
    ///
    /// # Panics
    /// If the slice is shorter than `rows * cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Row-major `[rows, cols]` whose rows begin `stride` elements apart.
    ///
    /// # Panics
    /// If the slice is too short or rows overlap.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(stride >= cols, "rows of {cols} overlap at a stride of {stride}");
        assert!(
            holds(data.len(), rows, stride, cols),
            "a [{rows}, {cols}] matrix does not fit a slice of {}",
            data.len()
        );
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transposed view; nothing moves.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Onto<'a> {
    /// Nothing: the output is overwritten.
    Zero,
    /// What the output holds.
    Output,
    /// The same row for all rows, as wide as the panels.
    Row(&'a [f32]),
}

impl Onto<'_> {
    /// For some columns of the output.
    fn start(self, columns: Range<usize>) -> Start {
        match self {
            Self::Zero => Start::Zero,
            Self::Output => Start::Output,
            Self::Row(row) => Start::Row(row[columns].as_ptr()),
        }
    }

    /// Panics unless a row is as wide as the output.
    fn check(self, width: usize) {
        if let Self::Row(row) = self {
            fits("onto", row, &[width]);
        }
    }
}

/// The left operand of a product: units that lie row by row, or step by step of the inner dimension.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a, U> {
    /// The steps of a row are adjacent.
    Rows {
        /// Row after row.
        units: &'a [U],
        /// Units from one row to the next.
        stride: usize,
    },
    /// The rows of a step are adjacent: the transpose of how it lies in memory.
    Steps {
        /// Step after step.
        units: &'a [U],
        /// Units from one step to the next.
        stride: usize,
        /// Rows of a step.
        rows: usize,
    },
}

/// `out = onto + left · right`: a part of a right operand, its steps and its columns, the latter from a multiple of the width of a panel.
/// Rows of `out` begin `stride` floats apart and are as wide as `columns`; it holds as many as there is room for. Runs on the calling
/// thread.
///
/// # Panics
/// If a slice is too short for its rows or its steps, or rows overlap; if the right operand does not have those steps and columns, or
/// the columns begin inside a panel; if a row to begin with is not as wide as `columns`.
pub fn multiply<U: Unit>(
    out: &mut [f32],
    stride: usize,
    left: Left<U>,
    right: View<U>,
    steps: Range<usize>,
    columns: Range<usize>,
    onto: Onto,
) {
    // SAFETY: the floats are lent to this alone, and hold values.
    unsafe { multiply_at(out.as_mut_ptr(), out.len(), stride, left, right, steps, columns, onto) }
}

/// [`multiply`] into fresh memory, dense rows.
///
/// # Panics
/// As [`multiply`], and if the rows are not whole or begin with the output.
pub(crate) fn product_written<'a, U: Unit>(
    out: &'a mut [MaybeUninit<f32>],
    left: Left<U>,
    right: View<U>,
    steps: Range<usize>,
    columns: Range<usize>,
    onto: Onto,
) -> &'a mut [f32] {
    let width = columns.len();
    assert!(!matches!(onto, Onto::Output), "fresh memory holds nothing to add to");
    rows_of("out", out, width);
    // SAFETY: the memory is lent to this alone, and not read.
    unsafe { multiply_at(out.as_mut_ptr().cast(), out.len(), width, left, right, steps, columns, onto) };
    // SAFETY: `multiply_at` writes rows of `width` from the first to the last that there is room for, here one after another: all there is.
    unsafe { out.assume_init_mut() }
}

/// [`multiply`]. Every row that there is room for is written.
///
/// # Safety
/// So many floats are there to write and nobody else's, and hold values if they are what the product is added to.
#[allow(clippy::too_many_arguments, reason = "those of `multiply`, with its slice in two")]
unsafe fn multiply_at<U: Unit>(
    out: *mut f32,
    length: usize,
    stride: usize,
    left: Left<U>,
    right: View<U>,
    steps: Range<usize>,
    columns: Range<usize>,
    onto: Onto,
) {
    let width = columns.len();
    assert!(steps.start <= steps.end && steps.end <= right.steps(), "steps {steps:?} of {}", right.steps());
    assert!(columns.start <= columns.end && columns.end <= right.cols(), "columns {columns:?} of {}", right.cols());
    assert!(columns.start.is_multiple_of(panel_width()), "columns begin inside a panel");
    onto.check(width);
    if width == 0 || length == 0 {
        return;
    }
    assert!(stride >= width && length >= width, "rows of {width} at a stride of {stride} in {length}");
    let (rows, depth) = ((length - width) / stride + 1, steps.len());
    let (units, layout) = match left {
        Left::Rows { units, stride } => {
            let there = stride >= depth && holds(units.len(), rows, stride, depth);
            assert!(there, "{rows} rows of {depth} units at a stride of {stride} in {}", units.len());
            (units, Layout::Rows(stride))
        }
        Left::Steps { units, stride, rows: adjacent } => {
            let there = adjacent >= rows && stride >= rows && holds(units.len(), depth, stride, rows);
            assert!(there, "{depth} steps of {rows} in {adjacent} at a stride of {stride} in {}", units.len());
            // Of no steps there need not be any units, so no row of them either.
            (units, if depth == 0 { Layout::Rows(0) } else { Layout::Steps(stride) })
        }
    };
    // SAFETY: the assertions bound what the kernel reaches: `rows` rows of `left` and of `out`, a row to begin with, and the part of the
    // panels, of which a view holds all steps and columns that it speaks of.
    unsafe {
        sweep(&Sweep {
            left: units.as_ptr(),
            layout,
            rows,
            steps: depth,
            right: right.at(steps.start, columns.start),
            panel_stride: right.panel_stride(),
            cols: width,
            out,
            stride,
            start: onto.start(0..width),
        });
    }
}

/// [`multiply`] with a whole right operand, dense rows on both sides.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_all<U: Unit>(out: &mut [f32], left: &[U], right: View<U>, onto: Onto) {
    let left = Left::Rows { units: left, stride: right.steps() };
    multiply(out, right.cols(), left, right, 0..right.steps(), 0..right.cols(), onto);
}

/// `out = x · right` for `x [rows, k]`, all rows, in parallel. Each row of `out` begins as `onto` says.
///
/// # Panics
/// If k or the columns are 0, or a slice does not fit.
pub fn rows_times<U: Unit>(out: &mut [f32], x: &[f32], right: View<U>, onto: Onto) {
    let (k, n) = (right.depth(), right.cols());
    positive("columns", n);
    let rows = rows_of("x", x, k);
    fits("out", out, &[rows, n]);
    onto.check(n);
    let heights = tile_heights(rows);
    in_order(tiles_mut(out, &heights, n).zip(tiles(x, &heights, k)), |(out, x)| {
        with_scratch([U::scratch(x.len() / k, k)], |[units]| {
            let (left, _) = U::of_rows(x, k, k, units);
            multiply_all(out, left, right, onto);
        });
    });
}

/// [`rows_times`] into a vector of its own.
///
/// # Panics
/// If k or the columns are 0, x or a row to begin with does not fit, or a row begins with the output.
pub(crate) fn rows_product<U: Unit>(x: &[f32], right: View<U>, onto: Onto) -> Vec<f32> {
    let (k, n) = (right.depth(), right.cols());
    positive("columns", n);
    let rows = rows_of("x", x, k);
    count("out", &[rows, n]);
    onto.check(n);
    let heights = tile_heights(rows);
    let (out, _) = fresh::tiles(&heights, n, tiles(x, &heights, k), |out, x| {
        with_scratch([U::scratch(x.len() / k, k)], |[units]| {
            let (units, stride) = U::of_rows(x, k, k, units);
            let left = Left::Rows { units, stride };
            (product_written(out, left, right, 0..right.steps(), 0..n, onto), ())
        })
    });
    out
}

/// GFLOP/s of all threads of the current pool on operands that stay in their caches, the best of many trials within `seconds`: what no
/// kernel of this machine can exceed.
pub fn peak(precision: Precision, seconds: f64) -> f64 {
    match precision {
        Precision::F32 => peak_in::<f32>(seconds),
        Precision::Bf16 => peak_in::<Pair>(seconds),
    }
}

fn peak_in<U: Unit>(seconds: f64) -> f64 {
    /// Both operands and the output of one thread fit its first cache.
    const SIZE: usize = 48;
    const REPEATS: usize = 400;
    let threads = rayon::current_num_threads();
    let (a, b) = (vec![0.5; SIZE * SIZE], vec![0.25; SIZE * 64]);
    let panels = Panels::<U>::new(Matrix::new(&b, SIZE, 64));
    let start = std::time::Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < seconds {
        let times = rayon::broadcast(|_| {
            let (mut out, mut units) = (vec![0.0; SIZE * 64], vec![0.0; U::scratch(SIZE, SIZE)]);
            let (left, _) = U::of_rows(&a, SIZE, SIZE, &mut units);
            let start = std::time::Instant::now();
            for _ in 0..REPEATS {
                multiply_all(&mut out, left, panels.view(), Onto::Zero);
                std::hint::black_box(&mut out);
            }
            start.elapsed().as_secs_f64()
        });
        best = best.min(times.into_iter().fold(0.0, f64::max));
    }
    (threads * REPEATS * 2 * SIZE * SIZE * 64) as f64 / best * 1e-9
}

/// A row-major copy of the transpose of `[rows, cols]`, in parallel.
///
/// # Panics
/// If the slice does not have this shape.
pub fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    /// Columns of a task: rows of the output.
    const TOGETHER: usize = 64;
    fits("data", data, &[rows, cols]);
    fresh::chunks(data.len(), (TOGETHER * rows).max(1), |part, out| {
        panels::transpose_units(&data[part * TOGETHER..], cols, rows, out.len() / rows, Out::fresh(out), rows);
        // SAFETY: chunks are whole rows of the output, and each element of those is put.
        unsafe { out.assume_init_mut() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, noise};

    fn naive(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
        let at =
            |i: usize, j: usize| (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum::<f64>() as f32;
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    /// What bf16 keeps of each number.
    fn all_rounded(data: &[f32]) -> Vec<f32> {
        data.iter().map(|&v| rounded(v)).collect()
    }

    /// Small ones for an interpreter.
    const SHAPES: &[(usize, usize, usize)] = if cfg!(miri) {
        &[(1, 1, 1), (7, 3, 9)]
    } else {
        &[(1, 1, 1), (5, 3, 7), (6, 64, 64), (64, 20, 33), (200, 65, 130), (97, 300, 48), (13, 128, 1)]
    };

    fn agrees<U: Unit>(keep: fn(&[f32]) -> Vec<f32>) {
        for &(m, k, n) in SHAPES {
            let (a, b, bias) = (noise(m * k, 1), noise(k * n, 2), noise(n, 3));
            let want = naive(&keep(&a), &keep(&b), m, k, n);
            let bt = transpose(&b, k, n);
            for right in [Matrix::new(&b, k, n), Matrix::new(&bt, n, k).transposed()] {
                let panels = Panels::<U>::new(right);
                let panels = panels.view();
                let mut out = vec![1.0; m * n];
                rows_times(&mut out, &a, panels, Onto::Zero);
                assert_close(&out, &want);
                rows_times(&mut out, &a, panels, Onto::Output);
                assert_close(&out, &want.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
                rows_times(&mut out, &a, panels, Onto::Row(&bias));
                assert_close(&out, &want.iter().enumerate().map(|(i, v)| v + bias[i % n]).collect::<Vec<_>>());
            }
            let (at, panels) = (transpose(&a, m, k), Panels::<U>::new(Matrix::new(&b, k, n)));
            let half = vec![0.5; n];
            for (onto, more) in [(Onto::Zero, 0.0), (Onto::Output, 0.25), (Onto::Row(&half), 0.5)] {
                let mut out = vec![0.25; m * n];
                transposed::<U>(&mut out, &at, m, &b, n, onto);
                assert_close(&out, &want.iter().map(|v| v + more).collect::<Vec<_>>());
                let mut again = vec![0.25; m * n];
                transposed_panels(&mut again, &at, m, panels.view(), onto);
                assert_eq!(again, out);
                let mut other_way = vec![0.25; m * n];
                turned::<U>(&mut other_way, &at, m, &b, n, onto);
                assert_eq!(transpose(&other_way, n, m), out);
                other_way.fill(0.25);
                turned_panels(&mut other_way, &at, m, panels.view(), onto);
                assert_eq!(transpose(&other_way, n, m), out);
                turned::<U>(&mut other_way, &[], m, &[], n, onto);
                let unturned = transpose(&other_way, n, m);
                transposed::<U>(&mut out, &[], m, &[], n, onto);
                let of_nothing = if matches!(onto, Onto::Output) { again } else { vec![more; m * n] };
                assert_eq!(out, of_nothing);
                assert_eq!(unturned, if matches!(onto, Onto::Output) { unturned.clone() } else { of_nothing });
            }
        }
    }

    #[test]
    fn agrees_with_three_loops() {
        agrees::<f32>(<[f32]>::to_vec);
    }

    #[test]
    fn bf16_agrees_with_three_loops_over_rounded_numbers() {
        agrees::<Pair>(all_rounded);
    }

    #[test]
    fn a_part_is_a_part() {
        let (m, k, n) = if cfg!(miri) { (10, 30, 30) } else { (10, 40, 200) };
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let mut memory = vec![0.0; View::<f32>::units(k, n)];
        let panels = View::pack(Matrix::new(&b, k, n), &mut memory);
        let width = panel_width();
        let mut out = vec![0.0; m * 50];
        let part: Vec<f32> = a.chunks(k).flat_map(|row| row[8..24].to_vec()).collect();
        let rows: Vec<f32> =
            b[8 * n..24 * n].chunks(n).flat_map(|row| row[2 * width..2 * width + 5].to_vec()).collect();
        let want = naive(&part, &rows, m, 16, 5);
        let at = transpose(&a, m, k);
        let by_rows = Left::Rows { units: &a[8..], stride: k };
        for left in [by_rows, Left::Steps { units: &at[8 * m..], stride: m, rows: m }] {
            multiply(&mut out[..9 * 50 + 5], 50, left, panels, 8..24, 2 * width..2 * width + 5, Onto::Zero);
            let got: Vec<f32> = out.chunks(50).flat_map(|row| row[..5].to_vec()).collect();
            assert_close(&got, &want);
        }
    }

    /// The promise at the head of this file.
    #[test]
    fn a_row_has_the_same_bits_anywhere() {
        fn check<U: Unit>() {
            let shapes = [(8, 3), (64, 128), (128, 512), (256, 384), (1536, 96)];
            for (k, n) in shapes.into_iter().take(if cfg!(miri) { 1 } else { 5 }) {
                let (row, b) = (noise(k, 3), noise(k * n, 4));
                let panels = Panels::<U>::new(Matrix::new(&b, k, n));
                let panels = panels.view();
                let product = |rows: usize, place: usize, seed: u64| {
                    let mut a = noise(rows * k, seed);
                    a[place * k..(place + 1) * k].copy_from_slice(&row);
                    let mut out = vec![0.0; rows * n];
                    rows_times(&mut out, &a, panels, Onto::Zero);
                    out[place * n..(place + 1) * n].iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                };
                let first = product(1, 0, 5);
                let places = [(2, 1), (6, 5), (7, 6), (TILE, 17), (TILE + 4, TILE + 3)];
                for (rows, place) in places.into_iter().take(if cfg!(miri) { 3 } else { 5 }) {
                    assert_eq!(first, product(rows, place, 6), "place {place} of {rows} rows, [{k}, {n}]");
                }
            }
        }
        check::<f32>();
        check::<Pair>();
    }
}
