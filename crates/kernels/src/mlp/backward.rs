//! The backward pass.

use super::activation::{Activation, Strip};
use super::strips::{Columns, place};
use super::{Gradients, STRIP, Wanted, Weights};
use crate::fresh::{self, Fresh, Scattered, all_of, cast_mut};
use crate::linear::{self, add_rows};
use crate::low_rank::{Factors, LowRank, Rows};
use crate::product::{BLOCK, Left, Matrix, Onto, Panels, Saved, Unit, View};
use crate::product::{multiply, transposed_panels, turned_panels};
use crate::rows::{in_order, tile_heights, tiles, tiles_mut, with_scratch};
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// Rows whose gradients are computed together: enough for large products, few enough that much of what passes between the two halves
/// of the work stays in the last cache.
const GROUP: usize = if cfg!(miri) { 60 } else { 2048 };

/// [`transposed_panels`] or [`turned_panels`].
type Product<U> = fn(&mut [f32], &[f32], usize, View<U>, Onto);

/// Gradients of one of the layers so far.
struct Sums<U> {
    /// That of `up`, in the order of strips, or that of `down`.
    weight: Option<Vec<f32>>,
    /// Its product with rows of the outer width as the left operand: which way round it comes out.
    product: Product<U>,
    /// Whether the weight's gradient holds anything.
    begun: bool,
    bias: Option<Vec<f32>>,
    factors: Option<Factors<U>>,
}

impl<U: Unit> Sums<U> {
    fn new(wanted: linear::Wanted, size: usize, d_out: usize, product: Product<U>) -> Self {
        Self {
            weight: wanted.weight.then(|| fresh::cleared(size)),
            product,
            begun: false,
            bias: wanted.bias.then(|| vec![0.0; d_out]),
            factors: wanted.low_rank.map(Factors::new),
        }
    }

    /// Adds what comes of some rows: those of the outer width, `[rows, d]`, the inner ones in panels, and both as inputs and gradients
    /// of outputs.
    fn add(&mut self, outer: &[f32], inner: View<U>, [x, dy]: [Rows<U>; 2]) {
        if let Some(sum) = &mut self.weight {
            let d = sum.len() / inner.cols();
            let onto = if self.begun { Onto::Output } else { Onto::Zero };
            (self.product)(sum, outer, d, inner, onto);
            self.begun = true;
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
    dout: &'a [f32],
    /// The input of the activation of all rows, or nothing, how many rows those are, and which is the first of the tile.
    pre: &'a [U],
    rows: usize,
    at: usize,
    /// The first row in the group.
    first_row: usize,
    /// Of the activation's output and of the gradient of its input, where they are wanted.
    act: Option<&'a Columns<'a, U>>,
    dpre: Option<&'a Columns<'a, U>>,
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
            of_up: Sums::new(wanted.up, d * d_inner, d_inner, turned_panels),
            of_down: Sums::new(wanted.down, d * w.d_active(), d, transposed_panels),
        }
    }

    /// All rows of `dout [rows, d]`, tile by tile. `before` gets the first row of a tile and writes its rows of y, and what it likes into
    /// its rows of an output `[rows, d]`. If the gradient of y is wanted, `after` gets the first row, that gradient, and those rows of the
    /// output, which it finishes and returns, with a result; results come back in the order of tiles. `beside` gets the output when it is
    /// finished, and runs beside the products that are left then. Else the output is empty. `pre` is the input of the activation if it was
    /// [kept](super::Kept).
    pub(crate) fn run<T: Send, R: Send>(
        &mut self,
        dout: &[f32],
        pre: &Saved,
        before: impl Fn(usize, &mut [f32], &mut [MaybeUninit<f32>]) + Sync,
        after: impl for<'b> Fn(usize, &[f32], &'b mut [MaybeUninit<f32>]) -> (&'b mut [f32], T) + Sync,
        beside: impl FnOnce(&[f32]) -> R + Send,
    ) -> (Vec<f32>, Vec<T>, R) {
        let (d, d_inner, d_active) = (self.w.d(), self.w.d_inner(), self.w.d_active());
        let rows = dout.len() / d;
        // Groups of equal size, of whole blocks; a function of the rows alone.
        let group = rows.div_ceil(rows.div_ceil(GROUP).max(1)).next_multiple_of(BLOCK).max(1);
        with_scratch([group.min(rows) * d], |[y]| {
            let out_width = if self.wanted.y { d } else { 0 };
            let mut out = Fresh::new(rows * out_width);
            let [mut act, mut dpre] = [const { Vec::<U>::new() }; 2];
            let (of_act, of_dpre) = (self.wanted.down.needs_rows(), self.wanted.up.needs_rows());
            let mut results = Vec::new();
            for first in (0..rows).step_by(group) {
                let here = group.min(rows - first);
                let dout = &dout[first * d..(first + here) * d];
                let y = &mut y[..here * d];
                let this = &*self;
                // Heights are even: a unit holds whole rows of a tile.
                let heights = tile_heights(here);
                let firsts = heights.iter().scan(0, |next, height| Some(std::mem::replace(next, *next + height)));
                let tasks = tiles_mut(y, &heights, d).zip(tiles(dout, &heights, d));
                let out_here = &mut out[first * out_width..(first + here) * out_width];
                let tasks = tasks.zip(tiles_mut(out_here, &heights, out_width)).zip(firsts);
                let work = |act: &Scattered<U>, dpre: &Scattered<U>| {
                    let act = of_act.then(|| Columns::new(act, here));
                    let dpre = of_dpre.then(|| Columns::new(dpre, here));
                    in_order(tasks, |(((y, dout), out), first_row)| {
                        let (at, pre) = (first + first_row, pre.units());
                        before(at, y, out);
                        let tile = Tile { y, dout, pre, rows, at, first_row, act: act.as_ref(), dpre: dpre.as_ref() };
                        let height = y.len() / d;
                        with_scratch([y.len(), this.scratch(height)], |[dy, scratch]| {
                            // SAFETY: tiles have no row in common, and each comes once.
                            let share = unsafe { this.tile(&tile, dy, scratch) };
                            (share, this.wanted.y.then(|| all_of(out, |out| after(at, dy, out))))
                        })
                    })
                };
                let units = |wanted: bool, width| if wanted { View::<U>::units(here, width) } else { 0 };
                let found;
                (act, (dpre, found)) = Scattered::collect_over(act, units(of_act, d_active), |act| {
                    Scattered::collect_over(dpre, units(of_dpre, d_inner), |dpre| work(act, dpre))
                });
                assert_eq!(found.len(), heights.len(), "a result for each tile");
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
                let act = of_act.then(|| View::of(&act, here, d_active));
                let dpre = of_dpre.then(|| View::of(&dpre, here, d_inner));
                let (of_up, of_down) = (&mut self.of_up, &mut self.of_down);
                // Together, so that no thread waits between them.
                let mut products = || {
                    rayon::join(
                        || dpre.map(|dpre| of_up.add(y, dpre, [Rows::Dense(y), Rows::Packed(dpre, &narrow_dpre)])),
                        || act.map(|act| of_down.add(dout, act, [Rows::Packed(act, &narrow_act), Rows::Dense(dout)])),
                    );
                };
                if first + here < rows {
                    products();
                } else {
                    // SAFETY: `after` gave all rows of each tile back as values, and there was a result of each tile of every group; or the
                    // gradient is not wanted, and the output has no columns.
                    let finished = unsafe { out.assume_init_ref() };
                    let beside = rayon::join(products, || beside(finished)).1;
                    // SAFETY: as above.
                    return (unsafe { out.assume_written() }, results, beside);
                }
            }
            (Vec::new(), results, beside(&[]))
        })
    }

    fn scratch(&self, rows: usize) -> usize {
        let (d, strip) = (self.w.d(), STRIP.min(self.w.d_inner()));
        let again = if self.up.is_some() { (rows + U::width(rows)) * strip + U::scratch(rows, d) } else { 0 };
        U::scratch(rows, d) + rows * strip + again + Activation::scratch_of_backward::<U>(rows, strip)
    }

    /// From y and the input of the activation (computed again if it was not kept) to the columns and the share of a tile, and to `dy` if it is
    /// wanted.
    ///
    /// # Safety
    /// No row may come twice where its columns go.
    unsafe fn tile(&self, tile: &Tile<U>, dy: &mut [f32], scratch: &mut [f32]) -> Share {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = tile.dout.len() / d;
        let mut share = self.empty_share(rows);
        let strip = STRIP.min(d_inner);
        let (dout_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (dact, scratch) = scratch.split_at_mut(rows * strip);
        let (again, scratch) =
            scratch.split_at_mut(if self.up.is_some() { (rows + U::width(rows)) * strip } else { 0 });
        let (again, buffer) = again.split_at_mut(again.len().min(U::width(rows) * strip));
        let (units, stride) = U::of_rows(tile.dout, d, d, dout_units);
        let dout = Left::Rows { units, stride };
        let (y_units, scratch) = scratch.split_at_mut(if self.up.is_some() { U::scratch(rows, d) } else { 0 });
        let y = self.up.as_ref().map(|up| {
            let (units, stride) = U::of_rows(tile.y, d, d, y_units);
            (Left::Rows { units, stride }, up.view())
        });
        let down_back = self.down_back.view();
        let inputs = self.w.activation.inputs();
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            // The same after the activation.
            let (active, active_width) = (first / inputs, width / inputs);
            let mut next: &[U] = &[];
            let x = if let Some((y, up)) = y {
                let columns = first..first + width;
                let bias = Onto::Row(&self.up_bias[columns.clone()]);
                let steps = &mut U::from_floats_mut(again)[..U::width(rows) * width];
                if U::DEPTH == 1 {
                    multiply(cast_mut(steps), width, y, up, 0..up.steps(), columns, bias);
                } else {
                    let rows = &mut buffer[..rows * width];
                    multiply(rows, width, y, up, 0..up.steps(), columns, bias);
                    U::pack_steps(rows, width, width, steps, width);
                }
                &*steps
            } else {
                let kept = |first| place::<U>(tile.rows, tile.at, rows, first, STRIP.min(d_inner - first));
                next = &tile.pre[kept(first + width)];
                &tile.pre[kept(first)]
            };
            let dact = &mut dact[..rows * active_width];
            let back = 0..down_back.steps();
            multiply(dact, active_width, dout, down_back, back, active..active + active_width, Onto::Zero);
            let strip = Strip {
                first_row: tile.first_row,
                first,
                width,
                x,
                next,
                dy: dact,
                y_columns: tile.act,
                dx_columns: tile.dpre,
                y_rows: self.of_down.factors.is_some(),
                sums: self.wanted.up.bias.then(|| &mut share.up_bias[first..first + width]),
            };
            // SAFETY: each strip once, and its rows come once, as the caller promises.
            let [act, dpre] = unsafe { self.w.activation.backward(strip, scratch) };
            let onto = if first == 0 { Onto::Zero } else { Onto::Output };
            if let Some(factors) = &self.of_down.factors {
                let (left, right) = (Left::Rows { units: act, stride: U::width(active_width) }, factors.narrow_x());
                let steps = U::width(active)..U::width(active + active_width);
                multiply(&mut share.act, right.cols(), left, right, steps, 0..right.cols(), onto);
            }
            let left = Left::Rows { units: dpre, stride: U::width(width) };
            let steps = U::width(first)..U::width(first + width);
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
        let d = self.w.d();
        let (mut up, activation) = (self.of_up.finish(), self.w.activation);
        up.weight = up.weight.map(|weight| activation.restored(weight, d));
        up.bias = up.bias.map(|bias| activation.restored(bias, 1));
        Gradients { up, down: self.of_down.finish() }
    }
}
