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
mod unit;

pub use kernel::panel_width;
pub(crate) use panels::pack_rows;
pub use panels::{Panels, View};
pub(crate) use unit::rounded;
pub use unit::{Pair, Precision, Saved, Unit};

use crate::rows::{Shared, for_overwrite, in_order, tile_heights, tiles, tiles_mut, with_scratch};
use kernel::{Layout, Start, Sweep, sweep};
use rayon::prelude::*;
use std::ops::Range;

/// Most rows of a task: few enough that a tile of the widest layer stays in the second cache.
pub const TILE: usize = 144;

/// Rows that a product computes together.
pub(crate) const BLOCK: usize = kernel::ROWS;

/// Steps of the inner dimension that [`transposed`] multiplies at a time: its right operand then stays in the first cache.
const DEPTH: usize = 128;

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
        let needed = if rows == 0 { 0 } else { (rows - 1) * stride + cols };
        assert!(data.len() >= needed, "a [{rows}, {cols}] matrix does not fit a slice of {}", data.len());
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
/// Rows of `out` begin `stride` floats apart and are as wide as `columns`. Runs on the calling thread.
///
/// # Panics
/// If a slice does not fit.
pub fn multiply<U: Unit>(
    out: &mut [f32],
    stride: usize,
    left: Left<U>,
    right: View<U>,
    steps: Range<usize>,
    columns: Range<usize>,
    onto: Onto,
) {
    let width = columns.len();
    if width == 0 || out.is_empty() {
        return;
    }
    assert!(stride >= width && out.len() >= width, "rows of {width} at a stride of {stride} in {}", out.len());
    let rows = (out.len() - width) / stride + 1;
    let units = match left {
        Left::Rows { units, stride } => {
            assert!(stride >= steps.len() && units.len() >= (rows - 1) * stride + steps.len(), "left operand");
            units
        }
        Left::Steps { units, stride, rows: adjacent } => {
            assert!(adjacent >= rows && stride >= rows, "rows of the left operand");
            assert!(units.len() + stride >= steps.len() * stride + rows, "left operand");
            units
        }
    };
    assert!(steps.end <= right.steps() && columns.end <= right.cols(), "part of the right operand");
    assert!(columns.start.is_multiple_of(panel_width()), "columns begin inside a panel");
    let start = onto.start(0..width);
    // SAFETY: the assertions bound what the kernel reaches: `rows` rows of `left` and of `out`, and the part of the panels.
    unsafe {
        sweep(&Sweep {
            left: units.as_ptr(),
            layout: match left {
                Left::Rows { stride, .. } => Layout::Rows(stride),
                Left::Steps { stride, .. } => Layout::Steps(stride),
            },
            rows,
            steps: steps.len(),
            right: right.at(steps.start, columns.start),
            panel_stride: right.panel_stride(),
            cols: width,
            out: out.as_mut_ptr(),
            stride,
            start,
        });
    }
}

/// [`multiply`] with a whole right operand, dense rows on both sides.
pub fn multiply_all<U: Unit>(out: &mut [f32], left: &[U], right: View<U>, onto: Onto) {
    let left = Left::Rows { units: left, stride: right.steps() };
    multiply(out, right.cols(), left, right, 0..right.steps(), 0..right.cols(), onto);
}

/// `out = x · right` for `x [rows, k]`, all rows, in parallel. Each row of `out` begins as `onto` says.
pub fn rows_times<U: Unit>(out: &mut [f32], x: &[f32], right: View<U>, onto: Onto) {
    let (k, n) = (right.depth(), right.cols());
    assert_eq!(x.len() / k, out.len() / n, "rows");
    let heights = tile_heights(x.len() / k);
    in_order(tiles_mut(out, &heights, n).zip(tiles(x, &heights, k)), |(out, x)| {
        with_scratch([U::scratch(x.len() / k, k)], |[units]| {
            let (left, _) = U::of_rows(x, k, k, units);
            multiply_all(out, left, right, onto);
        });
    });
}

/// `out [m, n] = onto + aᵀ · b` for `a [rows, m]` and `b [rows, n]`: the gradient of a weight. Fastest with the wider matrix as `b`;
/// [`turned`] gives its transpose.
///
/// # Panics
/// If a slice does not fit.
pub fn transposed<U: Unit>(out: &mut [f32], a: &[f32], m: usize, b: &[f32], n: usize, onto: Onto) {
    by_packing::<U>(Output { data: out, order: Order::Plain, m, n, onto }, a, b);
}

/// `out [n, m] = onto + bᵀ · a`, otherwise as [`transposed`]: a row to begin with has a number for each column of `b` here too.
///
/// # Panics
/// If a slice does not fit.
pub fn turned<U: Unit>(out: &mut [f32], a: &[f32], m: usize, b: &[f32], n: usize, onto: Onto) {
    by_packing::<U>(Output { data: out, order: Order::Turned, m, n, onto }, a, b);
}

/// [`transposed`] where `b` lies in panels already.
///
/// # Panics
/// As [`transposed`].
pub fn transposed_panels<U: Unit>(out: &mut [f32], a: &[f32], m: usize, b: View<U>, onto: Onto) {
    by_panels(Output { data: out, order: Order::Plain, m, n: b.cols(), onto }, a, b);
}

/// [`turned`] where `b` lies in panels already.
///
/// # Panics
/// As [`transposed`].
pub fn turned_panels<U: Unit>(out: &mut [f32], a: &[f32], m: usize, b: View<U>, onto: Onto) {
    by_panels(Output { data: out, order: Order::Turned, m, n: b.cols(), onto }, a, b);
}

/// Where a product of `m` rows and `n` columns goes.
struct Output<'a> {
    data: &'a mut [f32],
    order: Order,
    m: usize,
    n: usize,
    onto: Onto<'a>,
}

/// How it lies there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `[m, n]`.
    Plain,
    /// `[n, m]`.
    Turned,
}

fn by_packing<U: Unit>(out: Output, a: &[f32], b: &[f32]) {
    let (rows, n, width) = (a.len() / out.m, out.n, panel_width());
    assert!(b.len() == rows * n, "rows of a transposed product");
    transposed_by::<U>(out, a, |first, column, depth, work| {
        with_scratch([DEPTH * width], |[panel]| {
            let panel = U::from_floats_mut(panel);
            let (row, cols) = (first * U::DEPTH, width.min(n - column));
            panels::pack_rows(&b[row * n..], n, rows - row, column, cols, depth, panel);
            work(panel);
        });
    });
}

fn by_panels<U: Unit>(out: Output, a: &[f32], b: View<U>) {
    assert_eq!(a.len() / out.m, b.depth(), "rows of a transposed product");
    transposed_by::<U>(out, a, |first, column, depth, work| work(b.part(first, column, depth)));
}

/// `right` calls its last argument with the part of a panel: from a step, of a column, so many steps.
fn transposed_by<U: Unit>(out: Output, a: &[f32], right: impl Fn(usize, usize, usize, &mut dyn FnMut(&[U])) + Sync) {
    /// Floats of `a` multiplied before the next ones: they are read once for each panel of `b`, and so many stay in the last cache.
    const NEAR: usize = 3 << 19;
    let Output { data: out, order, m, n, onto } = out;
    assert!(a.len().is_multiple_of(m) && out.len() == m * n, "sizes of a transposed product");
    if a.is_empty() {
        return begin(out, order, n, onto);
    }
    let width = panel_width();
    // A task is a panel, and a part of the rows only where threads would be idle.
    let panels = n.div_ceil(width);
    let wanted = (4 * rayon::current_num_threads()).div_ceil(panels).min(m.div_ceil(TILE));
    let height = m.div_ceil(wanted).next_multiple_of(kernel::ROWS);
    let groups = m.div_ceil(height);
    let out = Shared::new(out);
    let near = (NEAR / m).next_multiple_of(DEPTH * U::DEPTH);
    for (at, a) in a.chunks(near * m).enumerate() {
        let (before, steps) = (at * near / U::DEPTH, (a.len() / m).div_ceil(U::DEPTH));
        let mut buffer = Vec::new();
        let left: &[U] = U::of_steps_parallel(a, m, &mut buffer);
        // Adds the product for some rows and columns to a block, whose rows begin `stride` apart.
        let add = |block: *mut f32, stride: usize, row: usize, rows: usize, column: usize, cols: usize| {
            for first in (0..steps).step_by(DEPTH) {
                let depth = DEPTH.min(steps - first);
                right(before + first, column, depth, &mut |panel| {
                    assert!(panel.len() >= depth * width, "steps of a panel");
                    // SAFETY: `left` has `steps` steps of `m` units, the panel `depth` of its width; tasks have blocks of their own.
                    unsafe {
                        sweep(&Sweep {
                            left: left.as_ptr().add(first * m + row),
                            layout: Layout::Steps(m),
                            rows,
                            steps: depth,
                            right: panel.as_ptr(),
                            panel_stride: depth * width,
                            cols,
                            out: block,
                            stride,
                            start: if before + first == 0 { onto } else { Onto::Output }.start(column..column + cols),
                        });
                    }
                });
            }
        };
        (0..panels * groups).into_par_iter().for_each(|task| {
            let (column, row) = (task / groups * width, task % groups * height);
            let (cols, rows) = (width.min(n - column), height.min(m - row));
            match order {
                // SAFETY: tasks write disjoint parts of `out`.
                Order::Plain => add(unsafe { out.at(row * n + column) }, n, row, rows, column, cols),
                // While it grows, a block lies as the product wants it, in the second cache.
                Order::Turned => with_scratch([rows * width, cols * rows], |[block, turned]| {
                    // SAFETY: as above.
                    let place = |c: usize| unsafe { out.part((column + c) * m + row, rows) };
                    if before > 0 || matches!(onto, Onto::Output) {
                        turned.chunks_exact_mut(rows).enumerate().for_each(|(c, t)| t.copy_from_slice(place(c)));
                        panels::transpose_units(turned, rows, cols, rows, block, width);
                    }
                    add(block.as_mut_ptr(), width, row, rows, column, cols);
                    panels::transpose_units(block, width, rows, cols, turned, rows);
                    turned.chunks_exact(rows).enumerate().for_each(|(c, t)| place(c).copy_from_slice(t));
                }),
            }
        });
    }
}

/// What an output holds to which nothing is added.
fn begin(out: &mut [f32], order: Order, n: usize, onto: Onto) {
    match onto {
        Onto::Zero => out.fill(0.0),
        Onto::Output => {}
        Onto::Row(row) if order == Order::Plain => out.chunks_exact_mut(n).for_each(|out| out.copy_from_slice(row)),
        Onto::Row(row) => out.chunks_exact_mut(out.len() / n).zip(row).for_each(|(out, &v)| out.fill(v)),
    }
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
pub fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    /// Columns of a task: rows of the output.
    const TOGETHER: usize = 64;
    assert_eq!(data.len(), rows * cols);
    let mut out = for_overwrite(data.len());
    out.par_chunks_mut((TOGETHER * rows).max(1)).enumerate().for_each(|(part, out)| {
        panels::transpose_units(&data[part * TOGETHER..], cols, rows, out.len() / rows, out, rows);
    });
    out
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

    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 1, 1), (5, 3, 7), (6, 64, 64), (64, 20, 33), (200, 65, 130), (97, 300, 48), (13, 128, 1)];

    fn agrees<U: Unit>(keep: fn(&[f32]) -> Vec<f32>) {
        for (m, k, n) in SHAPES {
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
        let (m, k, n) = (10, 40, 200);
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
            for (k, n) in [(8, 3), (64, 128), (128, 512), (256, 384), (1536, 96)] {
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
                for (rows, place) in [(2, 1), (6, 5), (7, 6), (TILE, 17), (TILE + 4, TILE + 3)] {
                    assert_eq!(first, product(rows, place, 6), "place {place} of {rows} rows, [{k}, {n}]");
                }
            }
        }
        check::<f32>();
        check::<Pair>();
    }
}
