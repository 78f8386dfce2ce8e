//! The two linear layers inside a block, `down(gelu(up(y)))`, tile by tile: of the wide layer between them only a strip exists.
//!
//! [`conv_block`](crate::conv_block) and [`mlp_block`](crate::mlp_block) are this with what stands before it.

use crate::gelu;
use crate::linear::add_rows;
use crate::product::{Left, Matrix, Onto, Panels, Unit, multiply, transpose, transposed};
use crate::rows::{Buffer, tile_height, with_scratch};
use crate::simd::simd;
use rayon::prelude::*;

/// Columns of the wide layer computed at a time: a strip of a tile stays in the second cache, and so do the weights it meets.
const STRIP: usize = 256;

/// Rows whose gradients are computed together: enough for large products, few enough that what they need stays in memory that
/// the step holds anyway.
const GROUP: usize = 4096;

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
    pub(crate) fn tile(&self, y: &[f32], x: &[f32], mut pre: Option<&mut [f32]>, out: &mut [f32], scratch: &mut [f32]) {
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
            let bias = Onto::Row(&self.up_bias[columns.clone()]);
            let strip = &mut strip[..rows * width];
            if let Some(pre) = pre.as_deref_mut() {
                let end = (rows - 1) * d_inner + columns.end;
                let pre = &mut pre[first..end];
                multiply(pre, d_inner, y, up, 0..up.steps(), columns, bias);
                gelu::strided(pre, d_inner, strip, width);
            } else {
                multiply(strip, width, y, up, 0..up.steps(), columns, bias);
                gelu::in_place(strip);
            }
            let steps = first / U::DEPTH..(first + width).div_ceil(U::DEPTH);
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
        pre: &[f32],
        out: &mut [f32],
        before: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        after: impl Fn(usize, &[f32], &mut [f32]) -> T + Sync,
    ) -> Vec<T> {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = dout.len() / d;
        let kept = !pre.is_empty();
        // Groups of equal size; a function of the rows alone.
        let group = rows.div_ceil(rows.div_ceil(GROUP).max(1));
        let (mut y, mut dpre) = (Buffer::new(group * d), Buffer::new(group * d_inner));
        let mut act = Buffer::new(group * d_inner);
        let mut results = Vec::new();
        for first in (0..rows).step_by(group.max(1)) {
            let here = group.min(rows - first);
            let height = tile_height(here);
            let dout = &dout[first * d..(first + here) * d];
            let act = &mut act[..here * d_inner];
            let (y, dpre) = (&mut y[..here * d], &mut dpre[..here * d_inner]);
            let this = &*self;
            let tiles = y
                .par_chunks_mut(height * d)
                .zip(act.par_chunks_mut(height * d_inner))
                .zip(dpre.par_chunks_mut(height * d_inner))
                .zip(dout.par_chunks(height * d))
                .zip(out[first * d..(first + here) * d].par_chunks_mut(height * d))
                .enumerate()
                .map(|(tile, ((((y, act), dpre), dout), out))| {
                    let at = first + tile * height;
                    before(at, y, out);
                    let rows = y.len() / d;
                    let pre = if kept { &pre[at * d_inner..(at + rows) * d_inner] } else { &[] };
                    let mut biases = vec![0.0; d_inner + d];
                    let result = with_scratch([rows * d, this.scratch(rows)], |[dy, scratch]| {
                        this.tile(y, pre, act, dpre, dout, dy, scratch);
                        after(at, dy, out)
                    });
                    add_rows(dpre, &mut biases[..d_inner]);
                    add_rows(dout, &mut biases[d_inner..]);
                    (result, biases)
                });
            // Sums of tiles are added in the order of tiles, which are the same for any number of threads.
            for (result, biases) in tiles.collect::<Vec<_>>() {
                results.push(result);
                add_rows(&biases[..d_inner], &mut self.gradients.up_bias);
                add_rows(&biases[d_inner..], &mut self.gradients.down_bias);
            }
            // Together, so that no thread waits between them.
            let (dup, ddown) = (&mut self.dup, &mut self.gradients.down);
            rayon::join(|| transposed::<U>(dup, y, d, dpre, d_inner), || transposed::<U>(ddown, dout, d, act, d_inner));
        }
        results
    }

    fn scratch(&self, rows: usize) -> usize {
        let again = if self.up.is_some() { rows * self.w.d_inner() } else { 0 };
        2 * U::scratch(rows, self.w.d()) + U::scratch(rows, STRIP.min(self.w.d_inner())) + again
    }

    /// From y and the input of GELU (computed again if it is empty) to GELU's output, the gradient of its input and `dy`.
    #[allow(clippy::too_many_arguments, reason = "three things in, three out, and memory to work in")]
    fn tile(
        &self,
        y: &[f32],
        pre: &[f32],
        act: &mut [f32],
        dpre: &mut [f32],
        dout: &[f32],
        dy: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (d, d_inner) = (self.w.d(), self.w.d_inner());
        let rows = dout.len() / d;
        let (y_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (dout_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (strip_units, again) = scratch.split_at_mut(U::scratch(rows, STRIP.min(d_inner)));
        let (units, stride) = U::of_rows(dout, d, d, dout_units);
        let dout = Left::Rows { units, stride };
        let (up_back, down_back) = (self.up_back.view(), self.down_back.view());
        if let Some(up) = &self.up {
            let (up, (units, stride)) = (up.view(), U::of_rows(y, d, d, y_units));
            let y = Left::Rows { units, stride };
            multiply(again, d_inner, y, up, 0..up.steps(), 0..d_inner, Onto::Row(self.w.up_bias));
        }
        let pre = if self.up.is_some() { &again[..] } else { pre };
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            let columns = first..first + width;
            let strip = first..(rows - 1) * d_inner + columns.end;
            let (act, dpre) = (&mut act[strip.clone()], &mut dpre[strip.clone()]);
            multiply(dpre, d_inner, dout, down_back, 0..down_back.steps(), columns, Onto::Zero);
            gelu::backward_strided(&pre[strip], act, dpre, d_inner, width);
            let onto = if first == 0 { Onto::Zero } else { Onto::Output };
            let steps = first / U::DEPTH..(first + width).div_ceil(U::DEPTH);
            let (units, stride) = U::of_rows(dpre, d_inner, width, strip_units);
            multiply(dy, d, Left::Rows { units, stride }, up_back, steps, 0..d, onto);
        }
    }

    pub(crate) fn finish(mut self) -> Gradients {
        self.gradients.up = transpose(&self.dup, self.w.d(), self.w.d_inner());
        self.gradients
    }
}
