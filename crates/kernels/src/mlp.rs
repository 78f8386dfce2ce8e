//! The two linear layers inside a block, `down(activation(up(y)))`, tile by tile: of the wide layer between them only a strip exists.
//!
//! Where the activation joins two halves of the wide layer, each strip holds columns of both, so that it needs no other strip.
//!
//! [`conv_block`](crate::conv_block) and [`mlp_block`](crate::mlp_block) are this with what stands before it.

use crate::linear::{self, add_rows};
use crate::low_rank::{Factors, LowRank, Rows};
use crate::product::{Left, Matrix, Onto, Panels, Saved, Unit, View};
use crate::product::{multiply, pack_rows, panel_width, transpose, transposed_panels};
use crate::rows::{Shared, for_overwrite, in_order, tile_heights, tiles, tiles_mut, with_scratch};
use crate::simd::simd;
use std::borrow::Cow;

pub use crate::activation::Activation;

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
    /// `[d, d_inner]`, or with an activation that joins halves `[d, d_inner / 2]`.
    pub down: &'a [f32],
    /// `[d]`.
    pub down_bias: &'a [f32],
    /// What stands between them.
    pub activation: Activation,
}

impl Weights<'_> {
    pub(crate) fn d(&self) -> usize {
        self.down_bias.len()
    }

    /// Numbers of a row before the activation.
    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Numbers of a row after it.
    fn d_active(&self) -> usize {
        self.d_inner() / self.activation.inputs()
    }
}

/// The two layers ready for the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Forward<U> {
    up: Panels<U>,
    up_bias: Vec<f32>,
    down: Panels<U>,
    down_bias: Vec<f32>,
    activation: Activation,
}

impl<U: Unit> Forward<U> {
    pub(crate) fn new(w: Weights) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        assert!(d_inner.is_multiple_of(w.activation.inputs()), "halves of {d_inner} numbers");
        let activation = w.activation;
        let (up, down) = rayon::join(
            || Panels::new(Matrix::new(&activation.arranged(w.up, d), d_inner, d).transposed()),
            || Panels::new(Matrix::new(w.down, d, w.d_active()).transposed()),
        );
        let up_bias = activation.arranged(w.up_bias, 1).into_owned();
        Self { up, up_bias, down, down_bias: w.down_bias.to_vec(), activation }
    }

    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Floats of scratch that a tile of `rows` needs.
    pub(crate) fn scratch(&self, rows: usize) -> usize {
        let strip = STRIP.min(self.d_inner());
        2 * rows * strip + U::scratch(rows, strip) + U::scratch(rows, self.down_bias.len())
    }

    /// `out = x + down(activation(up(y)))` for the rows of a tile; `pre` receives the input of the activation, `[rows, d_inner]`.
    pub(crate) fn tile(&self, y: &[f32], x: &[f32], mut pre: Option<&mut [U]>, out: &mut [f32], scratch: &mut [f32]) {
        let (d, d_inner) = (self.down_bias.len(), self.d_inner());
        let rows = y.len() / d;
        let inputs = self.activation.inputs();
        let (strip, scratch) = scratch.split_at_mut(rows * STRIP.min(d_inner));
        let (active, scratch) = scratch.split_at_mut(strip.len());
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
            let active = self.activation.forward(strip, width, active);
            let (first, width) = (first / inputs, width / inputs);
            let steps = U::width(first)..U::width(first + width);
            let (units, stride) = U::of_rows(active, width, width, strip_units);
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

/// Which gradients of the two layers are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// That of y.
    pub y: bool,
    pub up: linear::Wanted<'a>,
    pub down: linear::Wanted<'a>,
}

/// Gradients of the parameters, those that were wanted.
#[derive(Clone, Debug)]
pub(crate) struct Gradients {
    pub up: linear::Gradients,
    pub down: linear::Gradients,
}

/// Gradients of one of the layers so far.
struct Sums<U> {
    /// `[d, d_inner]` in the order of strips, transposed at the end, or that of `down`.
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    factors: Option<Factors<U>>,
}

impl<U: Unit> Sums<U> {
    fn new(wanted: linear::Wanted, size: usize, d_out: usize) -> Self {
        Self {
            weight: wanted.weight.then(|| vec![0.0; size]),
            bias: wanted.bias.then(|| vec![0.0; d_out]),
            factors: wanted.low_rank.map(Factors::new),
        }
    }

    /// Adds what comes of some rows: those of the outer width, `[rows, d]`, the inner ones in panels, and both as inputs and gradients
    /// of outputs.
    fn add(&mut self, outer: &[f32], inner: View<U>, [x, dy]: [Rows<U>; 2]) {
        if let Some(sum) = &mut self.weight {
            let d = sum.len() / inner.cols();
            transposed_panels(sum, outer, d, inner);
        }
        if let Some(factors) = &mut self.factors {
            factors.add(x, dy);
        }
    }

    fn finish(self) -> linear::Gradients {
        linear::Gradients { weight: self.weight, bias: self.bias, low_rank: self.factors.map(Factors::finish) }
    }
}

/// The two layers ready for the backward pass, and the gradients of their parameters so far.
pub(crate) struct Backward<'a, U> {
    w: Weights<'a>,
    up_bias: Cow<'a, [f32]>,
    wanted: Wanted<'a>,
    /// Only where the input of the activation was not kept.
    up: Option<Panels<U>>,
    /// `up` and `down` as they stand: gradients walk them the other way. `up` only where the gradient of y is wanted.
    up_back: Option<Panels<U>>,
    down_back: Panels<U>,
    of_up: Sums<U>,
    of_down: Sums<U>,
}

/// What the work on a tile reads, and where its columns go.
struct Tile<'a, U> {
    y: &'a [f32],
    /// The input of the activation, or nothing.
    pre: &'a [U],
    dout: &'a [f32],
    /// Its first row in the group.
    first_row: usize,
    /// Of the activation's output and of the gradient of its input, where they are wanted.
    act: Option<&'a Columns<'a>>,
    dpre: Option<&'a Columns<'a>>,
}

/// What a tile adds to the gradients: sums over its rows, and rows of the activation's output and of the gradient of its input, narrowed
/// by a low-rank part.
struct Share {
    up_bias: Vec<f32>,
    down_bias: Vec<f32>,
    act: Vec<f32>,
    dpre: Vec<f32>,
}

impl<'a, U: Unit> Backward<'a, U> {
    /// `kept`: whether the input of the activation will be given.
    ///
    /// # Panics
    /// If gradients of a low-rank part of `up` are wanted beside an activation that joins halves.
    pub(crate) fn new(w: Weights<'a>, wanted: Wanted<'a>, kept: bool) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        assert!(w.activation == Activation::Gelu || wanted.up.low_rank.is_none(), "rows of a part as they stand");
        let up = w.activation.arranged(w.up, d);
        let (up_back, down_back) = rayon::join(
            || wanted.y.then(|| Panels::new(Matrix::new(&up, d_inner, d))),
            || Panels::new(Matrix::new(w.down, d, w.d_active())),
        );
        Self {
            w,
            up_bias: w.activation.arranged(w.up_bias, 1),
            wanted,
            up: (!kept).then(|| Panels::new(Matrix::new(&up, d_inner, d).transposed())),
            up_back,
            down_back,
            of_up: Sums::new(wanted.up, d * d_inner, d_inner),
            of_down: Sums::new(wanted.down, d * w.d_active(), d),
        }
    }

    /// All rows of `dout [rows, d]`, tile by tile. `before` gets the first row of a tile and writes its rows of y, and what it likes into
    /// its rows of `out [rows, d]`; `after` gets the first row, the gradient of y, and those rows of `out` to finish, if that gradient is
    /// wanted. What `after` returns comes back in the order of tiles. `pre [rows, d_inner]` is the input of the activation if it was
    /// kept.
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
        let d_active = self.w.d_active();
        let columns = |wanted: bool, width| for_overwrite(if wanted { View::<U>::units(group, width) } else { 0 });
        let mut act = columns(self.wanted.down.needs_rows(), d_active);
        let mut dpre = columns(self.wanted.up.needs_rows(), d_inner);
        let mut results = Vec::new();
        for first in (0..rows).step_by(group.max(1)) {
            let here = group.min(rows - first);
            let dout = &dout[first * d..(first + here) * d];
            let y = &mut y[..here * d];
            let act_columns = (!act.is_empty()).then(|| Columns::new(&mut act, here));
            let dpre_columns = (!dpre.is_empty()).then(|| Columns::new(&mut dpre, here));
            let this = &*self;
            // Heights are even: a unit holds whole rows of a tile.
            let heights = tile_heights(here);
            let firsts = heights.iter().scan(0, |next, height| Some(std::mem::replace(next, *next + height)));
            let tasks = tiles_mut(y, &heights, d).zip(tiles(dout, &heights, d));
            let tasks = tasks.zip(tiles_mut(&mut out[first * d..(first + here) * d], &heights, d)).zip(firsts);
            let found = in_order(tasks, |(((y, dout), out), first_row)| {
                let rows = y.len() / d;
                let at = first + first_row;
                before(at, y, out);
                let stride = U::width(d_inner);
                let pre = if pre.is_empty() { &[] } else { &pre.units::<U>()[at * stride..(at + rows) * stride] };
                let tile = Tile { y, pre, dout, first_row, act: act_columns.as_ref(), dpre: dpre_columns.as_ref() };
                with_scratch([rows * d, this.scratch(rows)], |[dy, scratch]| {
                    let share = this.tile(&tile, dy, scratch);
                    (share, this.wanted.y.then(|| after(at, dy, out)))
                })
            });
            let (mut narrow_act, mut narrow_dpre) = (Vec::new(), Vec::new());
            // Sums of tiles are added in the order of tiles, which are the same for any number of threads.
            for (share, result) in found {
                results.extend(result);
                for (sums, bias) in [(&mut self.of_up, share.up_bias), (&mut self.of_down, share.down_bias)] {
                    if let Some(sum) = &mut sums.bias {
                        add_rows(&bias, sum);
                    }
                }
                narrow_act.extend(share.act);
                narrow_dpre.extend(share.dpre);
            }
            let (act, dpre) = (packed::<U>(&mut act, here, d_active), packed(&mut dpre, here, d_inner));
            let (of_up, of_down) = (&mut self.of_up, &mut self.of_down);
            // Together, so that no thread waits between them.
            rayon::join(
                || dpre.map(|dpre| of_up.add(y, dpre, [Rows::Dense(y), Rows::Packed(dpre, &narrow_dpre)])),
                || act.map(|act| of_down.add(dout, act, [Rows::Packed(act, &narrow_act), Rows::Dense(dout)])),
            );
        }
        results
    }

    fn scratch(&self, rows: usize) -> usize {
        let (d, strip) = (self.w.d(), STRIP.min(self.w.d_inner()));
        2 * U::scratch(rows, d) + 2 * rows * strip + U::scratch(rows, strip)
    }

    /// From y and the input of the activation (computed again if it was not kept) to the columns and the share of a tile, and to `dy` if it is
    /// wanted.
    fn tile(&self, tile: &Tile<U>, dy: &mut [f32], scratch: &mut [f32]) -> Share {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = tile.dout.len() / d;
        let mut share = self.empty_share(rows);
        let (y_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (dout_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (pre, scratch) = scratch.split_at_mut(rows * STRIP.min(d_inner));
        let (dact, strip_units) = scratch.split_at_mut(pre.len());
        let (activation, inputs) = (self.w.activation, self.w.activation.inputs());
        let (units, stride) = U::of_rows(tile.dout, d, d, dout_units);
        let dout = Left::Rows { units, stride };
        let y = self.up.as_ref().map(|up| {
            let (units, stride) = U::of_rows(tile.y, d, d, y_units);
            (Left::Rows { units, stride }, up.view())
        });
        let down_back = self.down_back.view();
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            let columns = first..first + width;
            // The same after the activation.
            let (active, active_width) = (first / inputs, width / inputs);
            let (pre, dact) = (&mut pre[..rows * width], &mut dact[..rows * active_width]);
            if let Some((y, up)) = y {
                let bias = Onto::Row(&self.up_bias[columns.clone()]);
                multiply(pre, width, y, up, 0..up.steps(), columns.clone(), bias);
                U::round(pre);
            } else {
                U::read_rows(&tile.pre[U::width(first)..], U::width(d_inner), width, pre);
            }
            let back = 0..down_back.steps();
            multiply(dact, active_width, dout, down_back, back, active..active + active_width, Onto::Zero);
            let (act, dpre) = activation.with_gradient(pre, dact, width);
            if self.wanted.up.bias {
                add_rows(dpre, &mut share.up_bias[columns]);
            }
            if let Some(columns) = tile.act {
                columns.write::<U>(act, tile.first_row, active, active_width);
            }
            if let Some(columns) = tile.dpre {
                columns.write::<U>(dpre, tile.first_row, first, width);
            }
            let onto = if first == 0 { Onto::Zero } else { Onto::Output };
            let steps = U::width(first)..U::width(first + width);
            if let Some(factors) = &self.of_down.factors {
                let (units, stride) = U::of_rows(act, active_width, active_width, strip_units);
                let (left, right) = (Left::Rows { units, stride }, factors.narrow_x());
                let steps = U::width(active)..U::width(active + active_width);
                multiply(&mut share.act, right.cols(), left, right, steps, 0..right.cols(), onto);
            }
            let (units, stride) = U::of_rows(dpre, width, width, strip_units);
            let left = Left::Rows { units, stride };
            if let Some(factors) = &self.of_up.factors {
                let right = factors.narrow_dy();
                multiply(&mut share.dpre, right.cols(), left, right, steps.clone(), 0..right.cols(), onto);
            }
            if let Some(up_back) = &self.up_back {
                multiply(dy, d, left, up_back.view(), steps, 0..d, onto);
            }
        }
        if self.wanted.down.bias {
            add_rows(tile.dout, &mut share.down_bias);
        }
        share
    }

    fn empty_share(&self, rows: usize) -> Share {
        let zeros = |wanted: bool, count: usize| vec![0.0; if wanted { count } else { 0 }];
        let rank = |part: Option<LowRank>| part.map_or(0, |part| part.rank);
        Share {
            up_bias: zeros(self.wanted.up.bias, self.w.d_inner()),
            down_bias: zeros(self.wanted.down.bias, self.w.d()),
            act: vec![0.0; rows * rank(self.wanted.down.low_rank)],
            dpre: vec![0.0; rows * rank(self.wanted.up.low_rank)],
        }
    }

    pub(crate) fn finish(self) -> Gradients {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let (mut up, activation) = (self.of_up.finish(), self.w.activation);
        up.weight = up.weight.map(|weight| activation.restored(transpose(&weight, d, d_inner), d));
        up.bias = up.bias.map(|bias| activation.restored(bias, 1));
        Gradients { up, down: self.of_down.finish() }
    }
}

/// Columns that were wanted, as panels.
fn packed<U: Unit>(floats: &mut [f32], rows: usize, width: usize) -> Option<View<'_, U>> {
    (!floats.is_empty()).then(|| View::of(U::from_floats_mut(floats), rows, width))
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
