//! Products whose left operand is transposed: gradients of weights.

use super::kernel::{self, Layout, Sweep, panel_width, sweep};
use super::panels::{self, View};
use super::{Onto, TILE, Unit};
use crate::fresh::Out;
use crate::rows::{Shared, with_scratch};
use crate::shape::{fits, positive, rows_of};
use rayon::prelude::*;

/// Steps of the inner dimension that are multiplied at a time: the right operand then stays in the first cache.
const DEPTH: usize = 128;

/// `out [m, n] = onto + aᵀ · b` for `a [rows, m]` and `b [rows, n]`: the gradient of a weight. Fastest with the wider matrix as `b`;
/// [`turned`] gives its transpose.
///
/// # Panics
/// If m or n is 0, or a slice does not fit.
pub fn transposed<U: Unit>(out: &mut [f32], a: &[f32], m: usize, b: &[f32], n: usize, onto: Onto) {
    by_packing::<U>(Output { data: out, order: Order::Plain, m, n, onto }, a, b);
}

/// `out [n, m] = onto + bᵀ · a`, otherwise as [`transposed`]: a row to begin with has a number for each column of `b` here too.
///
/// # Panics
/// As [`transposed`].
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

impl Output<'_> {
    /// Rows of the left operand `a`, if all fits.
    fn check(&self, a: &[f32]) -> usize {
        positive("m", self.m);
        positive("n", self.n);
        fits("out", self.data, &[self.m, self.n]);
        self.onto.check(self.n);
        rows_of("a", a, self.m)
    }
}

fn by_packing<U: Unit>(out: Output, a: &[f32], b: &[f32]) {
    let (rows, n, width) = (out.check(a), out.n, panel_width());
    fits("b", b, &[rows, n]);
    transposed_by::<U>(out, a, |first, column, depth, work| {
        with_scratch([DEPTH * width], |[panel]| {
            let panel = U::from_floats_mut(panel);
            let (row, cols) = (first * U::DEPTH, width.min(n - column));
            let panel = &mut panel[..depth * width];
            panels::pack_rows(&b[row * n..], n, rows - row, column, cols, Out::over(panel));
            work(panel);
        });
    });
}

fn by_panels<U: Unit>(out: Output, a: &[f32], b: View<U>) {
    let rows = out.check(a);
    assert_eq!(rows, b.depth(), "rows of `a` and of `b`");
    transposed_by::<U>(out, a, |first, column, depth, work| work(b.part(first, column, depth)));
}

/// `right` calls its last argument with the part of a panel: from a step, of a column, so many steps.
fn transposed_by<U: Unit>(out: Output, a: &[f32], right: impl Fn(usize, usize, usize, &mut dyn FnMut(&[U])) + Sync) {
    /// Floats of `a` multiplied before the next ones: they are read once for each panel of `b`, and so many stay in the last cache.
    const NEAR: usize = 3 << 19;
    let Output { data: out, order, m, n, onto } = out;
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
    let near = (NEAR / m).max(1).next_multiple_of(DEPTH * U::DEPTH);
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
                    // SAFETY: `left` has `steps` steps of `m` units, of which `rows` from `row` on are used, and the panel `depth` of its width.
                    // The block has room for `rows` rows of `cols` values, nobody else has it, and it holds values once it is added to. A row
                    // to start from has `cols` values, which `start` checks.
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
                // Tasks have disjoint blocks of `out`, `[m, n]`.
                Order::Plain => add(out.at(row * n + column), n, row, rows, column, cols),
                // While it grows, a block lies as the product wants it, in the second cache.
                Order::Turned => with_scratch([rows * width, cols * rows], |[block, turned]| {
                    // SAFETY: a column of the block is a row of `out`, `[n, m]`, or a part of one, and other tasks have other blocks.
                    let place = |c: usize| unsafe { out.part((column + c) * m + row, rows) };
                    if before > 0 || matches!(onto, Onto::Output) {
                        turned.chunks_exact_mut(rows).enumerate().for_each(|(c, t)| t.copy_from_slice(place(c)));
                        panels::transpose_units(turned, rows, cols, rows, Out::over(block), width);
                    }
                    add(block.as_mut_ptr(), width, row, rows, column, cols);
                    panels::transpose_units(block, width, rows, cols, Out::over(turned), rows);
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
