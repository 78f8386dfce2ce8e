//! The two linear layers inside a block, `down(gelu(up(y)))`, tile by tile: of the wide layer between them only a strip exists.
//!
//! [`conv_block`](crate::conv_block) and [`mlp_block`](crate::mlp_block) are this with what stands before it.

use crate::gelu;
use crate::linear::add_rows;
use crate::product::{Left, Matrix, Onto, Panels, Saved, Unit, View};
use crate::product::{multiply, pack_rows, panel_width, transpose, transposed_panels};
use crate::rows::{Shared, for_overwrite, tile_height, with_scratch};
use crate::simd::simd;
use rayon::prelude::*;

/// Columns of the wide layer computed at a time: a strip of a tile stays in the second cache, and so do the weights it meets.
pub(crate) const STRIP: usize = 256;

/// Rows whose gradients are computed together: enough for large products, few enough that much of what passes between the two halves
/// of the work stays in the last cache.
const GROUP: usize = 2048;

/// Weights of the two layers; the inner width is that of `up_bias`.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `[d_inner, d]`.
    pub up: &'a [f32],
    /// `[d_inner]`.
    pub up_bias: &'a [f32],
    /// `[d, d_inner]`.
    pub down: &'a [f32],
    /// `[d]`.
    pub down_bias: &'a [f32],
}

impl Weights<'_> {
    pub(crate) fn d(&self) -> usize {
        self.down_bias.len()
    }

    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }
}

/// The two layers ready for the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Forward<U> {
    up: Panels<U>,
    up_bias: Vec<f32>,
    down: Panels<U>,
    down_bias: Vec<f32>,
}

impl<U: Unit> Forward<U> {
    pub(crate) fn new(w: Weights) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        let (up, down) = rayon::join(
            || Panels::new(Matrix::new(w.up, d_inner, d).transposed()),
            || Panels::new(Matrix::new(w.down, d, d_inner).transposed()),
        );
        Self { up, up_bias: w.up_bias.to_vec(), down, down_bias: w.down_bias.to_vec() }
    }

    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Floats of scratch that a tile of `rows` needs.
    pub(crate) fn scratch(&self, rows: usize) -> usize {
        let strip = STRIP.min(self.d_inner());
        rows * strip + U::scratch(rows, strip) + U::scratch(rows, self.down_bias.len())
    }

    /// `out = x + down(gelu(up(y)))` for the rows of a tile; `pre` receives the input of GELU, `[rows, d_inner]`.
    pub(crate) fn tile(&self, y: &[f32], x: &[f32], mut pre: Option<&mut [U]>, out: &mut [f32], scratch: &mut [f32]) {
        let (d, d_inner) = (self.down_bias.len(), self.d_inner());
        let rows = y.len() / d;
        let (strip, scratch) = scratch.split_at_mut(rows * STRIP.min(d_inner));
        let (y_units, strip_units) = scratch.split_at_mut(U::scratch(rows, d));
        let (units, stride) = U::of_rows(y, d, d, y_units);
        let y = Left::Rows { units, stride };
        let (up, down) = (self.up.view(), self.down.view());
        add_row(x, &self.down_bias, out);
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            let columns = first..first + width;
            let strip = &mut strip[..rows * width];
            let bias = Onto::Row(&self.up_bias[columns.clone()]);
            multiply(strip, width, y, up, 0..up.steps(), columns, bias);
            if let Some(pre) = pre.as_deref_mut() {
                U::write_rows(strip, width, width, &mut pre[U::width(first)..], U::width(d_inner));
            }
            gelu::in_place(strip);
            let steps = U::width(first)..U::width(first + width);
            let (units, stride) = U::of_rows(strip, width, width, strip_units);
            multiply(out, d, Left::Rows { units, stride }, down, steps, 0..d, Onto::Output);
        }
    }
}

simd! {
    /// `out = x + bias`, for as many rows as `out` has.
    pub(crate) fn add_row[FMA](x: &[f32], bias: &[f32], out: &mut [f32]) {
        let d = bias.len();
        for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            for ((out, &x), &b) in out.iter_mut().zip(x).zip(bias) {
                *out = x + b;
            }
        }
    }
}

/// Gradients of the weights, each in the shape of its argument.
#[derive(Clone, Debug)]
pub(crate) struct Gradients {
    pub up: Vec<f32>,
    pub up_bias: Vec<f32>,
    pub down: Vec<f32>,
    pub down_bias: Vec<f32>,
}

/// The two layers ready for the backward pass, and the gradients of their weights so far.
pub(crate) struct Backward<'a, U> {
    w: Weights<'a>,
    /// Only where the input of GELU was not kept.
    up: Option<Panels<U>>,
    /// `up` and `down` as they stand: gradients walk them the other way.
    up_back: Panels<U>,
    down_back: Panels<U>,
    /// `[d, d_inner]`: transposed at the end.
    dup: Vec<f32>,
    gradients: Gradients,
}

impl<'a, U: Unit> Backward<'a, U> {
    /// `kept`: whether the input of GELU will be given.
    pub(crate) fn new(w: Weights<'a>, kept: bool) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        let gradients = Gradients {
            up: Vec::new(),
            up_bias: vec![0.0; d_inner],
            down: vec![0.0; d * d_inner],
            down_bias: vec![0.0; d],
        };
        let (up_back, down_back) =
            rayon::join(|| Panels::new(Matrix::new(w.up, d_inner, d)), || Panels::new(Matrix::new(w.down, d, d_inner)));
        Self {
            w,
            up: (!kept).then(|| Panels::new(Matrix::new(w.up, d_inner, d).transposed())),
            up_back,
            down_back,
            dup: vec![0.0; d * d_inner],
            gradients,
        }
    }

    /// All rows of `dout [rows, d]`, tile by tile. `before` gets the first row of a tile and writes its rows of y, and what it likes into
    /// its rows of `out [rows, d]`; `after` gets the first row, the gradient of y, and those rows of `out` to finish. What `after`
    /// returns comes back in the order of tiles. `pre [rows, d_inner]` is the input of GELU if it was kept.
    pub(crate) fn run<T: Send>(
        &mut self,
        dout: &[f32],
        pre: &Saved,
        out: &mut [f32],
        before: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        after: impl Fn(usize, &[f32], &mut [f32]) -> T + Sync,
    ) -> Vec<T> {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = dout.len() / d;
        // Groups of equal size; a function of the rows alone.
        let group = rows.div_ceil(rows.div_ceil(GROUP).max(1));
        let mut y = for_overwrite(group * d);
        let mut act = for_overwrite(View::<U>::units(group, d_inner));
        let mut dpre = for_overwrite(act.len());
        let mut results = Vec::new();
        for first in (0..rows).step_by(group.max(1)) {
            let here = group.min(rows - first);
            // A unit holds whole rows of a tile.
            let height = tile_height(here).next_multiple_of(U::DEPTH);
            let dout = &dout[first * d..(first + here) * d];
            let y = &mut y[..here * d];
            let (act_columns, dpre_columns) = (Columns::new(&mut act, here), Columns::new(&mut dpre, here));
            let this = &*self;
            let tiles = y
                .par_chunks_mut(height * d)
                .zip(dout.par_chunks(height * d))
                .zip(out[first * d..(first + here) * d].par_chunks_mut(height * d))
                .enumerate()
                .map(|(tile, ((y, dout), out))| {
                    let (in_group, rows) = (tile * height, y.len() / d);
                    let at = first + in_group;
                    before(at, y, out);
                    let stride = U::width(d_inner);
                    let pre = if pre.is_empty() { &[] } else { &pre.units::<U>()[at * stride..(at + rows) * stride] };
                    let mut biases = vec![0.0; d_inner + d];
                    let (dup_bias, ddown_bias) = biases.split_at_mut(d_inner);
                    let result = with_scratch([rows * d, this.scratch(rows)], |[dy, scratch]| {
                        let columns = [&act_columns, &dpre_columns];
                        this.tile(y, pre, dout, in_group, columns, dup_bias, dy, scratch);
                        after(at, dy, out)
                    });
                    add_rows(dout, ddown_bias);
                    (result, biases)
                });
            // Sums of tiles are added in the order of tiles, which are the same for any number of threads.
            for (result, biases) in tiles.collect::<Vec<_>>() {
                results.push(result);
                add_rows(&biases[..d_inner], &mut self.gradients.up_bias);
                add_rows(&biases[d_inner..], &mut self.gradients.down_bias);
            }
            let view = |floats| View::of(U::from_floats_mut(floats), here, d_inner);
            let (act, dpre) = (view(&mut act), view(&mut dpre));
            // Together, so that no thread waits between them.
            let (dup, ddown) = (&mut self.dup, &mut self.gradients.down);
            rayon::join(|| transposed_panels(dup, y, d, dpre), || transposed_panels(ddown, dout, d, act));
        }
        results
    }

    fn scratch(&self, rows: usize) -> usize {
        let (d, strip) = (self.w.d(), STRIP.min(self.w.d_inner()));
        2 * U::scratch(rows, d) + 2 * rows * strip + U::scratch(rows, strip)
    }

    /// From y and the input of GELU (computed again if it is empty) to the columns of GELU's output and of the gradient of its input,
    /// the sum of the latter, and `dy`.
    #[allow(clippy::too_many_arguments, reason = "four things in, three out, and memory to work in")]
    fn tile(
        &self,
        y: &[f32],
        pre: &[U],
        dout: &[f32],
        first_row: usize,
        [act_columns, dpre_columns]: [&Columns; 2],
        dup_bias: &mut [f32],
        dy: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = dout.len() / d;
        let (y_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (dout_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (act, scratch) = scratch.split_at_mut(rows * STRIP.min(d_inner));
        let (dpre, strip_units) = scratch.split_at_mut(act.len());
        let (units, stride) = U::of_rows(dout, d, d, dout_units);
        let dout = Left::Rows { units, stride };
        let y = self.up.as_ref().map(|up| {
            let (units, stride) = U::of_rows(y, d, d, y_units);
            (Left::Rows { units, stride }, up.view())
        });
        let (up_back, down_back) = (self.up_back.view(), self.down_back.view());
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            let columns = first..first + width;
            let (act, dpre) = (&mut act[..rows * width], &mut dpre[..rows * width]);
            if let Some((y, up)) = y {
                let bias = Onto::Row(&self.w.up_bias[columns.clone()]);
                multiply(act, width, y, up, 0..up.steps(), columns.clone(), bias);
                U::round(act);
            } else {
                U::read_rows(&pre[U::width(first)..], U::width(d_inner), width, act);
            }
            multiply(dpre, width, dout, down_back, 0..down_back.steps(), columns.clone(), Onto::Zero);
            gelu::with_gradient(act, dpre);
            add_rows(dpre, &mut dup_bias[columns]);
            act_columns.write::<U>(act, first_row, first, width);
            dpre_columns.write::<U>(dpre, first_row, first, width);
            let onto = if first == 0 { Onto::Zero } else { Onto::Output };
            let steps = U::width(first)..U::width(first + width);
            let (units, stride) = U::of_rows(dpre, width, width, strip_units);
            multiply(dy, d, Left::Rows { units, stride }, up_back, steps, 0..d, onto);
        }
    }

    pub(crate) fn finish(mut self) -> Gradients {
        self.gradients.up = transpose(&self.dup, self.w.d(), self.w.d_inner());
        self.gradients
    }
}

/// Panels of a matrix whose rows come tile by tile.
struct Columns<'a> {
    panels: Shared<'a, f32>,
    rows: usize,
}

impl<'a> Columns<'a> {
    fn new(panels: &'a mut [f32], rows: usize) -> Self {
        Self { panels: Shared::new(panels), rows }
    }

    /// Rows of `width` numbers, from a row that begins a unit and a column that begins a panel. Each place is written by one task.
    fn write<U: Unit>(&self, x: &[f32], first_row: usize, first: usize, width: usize) {
        let (panel, rows) = (panel_width(), x.len() / width);
        let (at, steps) = (first_row / U::DEPTH, U::width(rows));
        for column in (0..width).step_by(panel) {
            let start = ((first + column) / panel * U::width(self.rows) + at) * panel;
            // SAFETY: rows and columns of this task, as the caller promises; parts of panels do not overlap.
            let out = U::from_floats_mut(unsafe { self.panels.part(start, steps * panel) });
            pack_rows(x, width, rows, column, panel.min(width - column), steps, out);
        }
    }
}
