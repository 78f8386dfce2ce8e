//! The first half of a transformer layer, fused: `x + out(attention(qkv(norm(x))))` (pre-norm; Xiong et al. 2020), with tiled
//! [`attention`] in the middle.

use crate::attention::{self, Positions};
use crate::fresh::{self, Out};
use crate::linear;
use crate::mlp::add_row;
use crate::norm::{self, Norm, OwnedNorm};
use crate::product::{Left, Matrix, Onto, Pair, Panels, Precision, Saved, Unit};
use crate::product::{TILE, multiply, multiply_all, rows_product};
use crate::rows::{tile_heights, tiles, tiles_mut, with_scratch};
use crate::shape::{fits, positive, sequences};
use rayon::prelude::*;

/// Columns of queries, keys and values computed at a time.
const STRIP: usize = 256;

/// Rows as `[batch, length, d]`, and which of them are real.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[batch * length, d]`.
    pub x: &'a [f32],
    /// `[batch * length]`: 1 for a real position, 0 for padding, which is not attended to.
    pub mask: &'a [f32],
    /// Positions of one sequence, 2²⁴ at most.
    pub length: usize,
    /// `[batch * length]`: where rows stand, below 2²⁴, for rotation. None if each stands at its number in its sequence.
    pub places: Option<&'a [u32]>,
    /// Whether a position attends to itself and to earlier ones of its sequence alone, as [`attention::Input::causal`] says.
    pub causal: bool,
}

impl<'a> Input<'a> {
    /// The attention of these rows, as their queries, keys and values have it.
    fn attention<U: Unit>(self, qkv: &'a Saved, heads: usize, positions: Positions) -> attention::Input<'a, U> {
        let Self { mask, length, places, causal, .. } = self;
        let among = attention::Input::among(qkv.units(), mask, length, heads, positions);
        attention::Input { places, causal, ..among }
    }

    fn check(&self, d: usize) {
        let rows = self.mask.len();
        fits("x", self.x, &[rows, d]);
        sequences("mask", self.mask, self.length);
        self.places.inspect(|places| fits("places", places, &[rows]));
    }
}

/// Weights of the block.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Layer norm before the projection.
    pub norm: Norm<'a>,
    /// `[3 d, d]`: queries, keys, values.
    pub qkv: &'a [f32],
    /// `[3 d]`.
    pub qkv_bias: &'a [f32],
    /// `[d, d]`.
    pub out: &'a [f32],
    /// `[d]`.
    pub out_bias: &'a [f32],
    /// Heads; they divide d. Rotated ones have an even width, and those in bf16.
    pub heads: usize,
    /// How attention knows where a row stands.
    pub positions: Positions,
}

impl Weights<'_> {
    /// Width of a row, if all shapes fit.
    fn check<U: Unit>(&self) -> usize {
        let d = self.out_bias.len();
        positive("out_bias", d);
        self.norm.check(d);
        fits("qkv", self.qkv, &[3, d, d]);
        fits("qkv_bias", self.qkv_bias, &[3, d]);
        fits("out", self.out, &[d, d]);
        attention::check_heads::<U>(self.heads, d, self.positions);
        d
    }
}

/// What [`backward`] needs of the forward pass; empty if nothing was kept, and then computed again.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    qkv: Saved,
    attended: Saved,
    stats: Vec<f32>,
}

/// Output of the block, `[batch * length, d]`, and with `keep` what the backward pass needs. What comes out at padding is finite and
/// means nothing.
///
/// # Panics
/// If a slice does not fit the shapes of [`Input`] and [`Weights`], a sequence has no rows or more than 2²⁴, a place is not below 2²⁴, or
/// heads do not divide d, or have an odd width and are rotated or in bf16.
pub fn forward(input: Input, w: Weights, precision: Precision, keep: bool) -> (Vec<f32>, Kept) {
    match precision {
        Precision::F32 => forward_in::<f32>(input, w, keep),
        Precision::Bf16 => forward_in::<Pair>(input, w, keep),
    }
}

fn forward_in<U: Unit>(input: Input, w: Weights, keep: bool) -> (Vec<f32>, Kept) {
    Prepared::<U>::new(w).run(input, keep)
}

/// The block with its weights in the order in which the forward pass reads them, for use many times.
#[derive(Clone, Debug)]
pub struct Prepared<U> {
    attend: Attend<U>,
    out: Panels<U>,
    out_bias: Vec<f32>,
}

impl<U: Unit> Prepared<U> {
    /// Copies the weights.
    ///
    /// # Panics
    /// If they do not fit the shapes of [`Weights`], or heads do not divide d, or have an odd width and are rotated or in bf16.
    #[must_use]
    pub fn new(w: Weights) -> Self {
        let d = w.check::<U>();
        let out = Panels::new(Matrix::new(w.out, d, d).transposed());
        Self { attend: Attend::new(w), out, out_bias: w.out_bias.to_vec() }
    }

    /// Output of the block, `[batch * length, d]`.
    ///
    /// # Panics
    /// As [`forward`].
    #[must_use]
    pub fn forward(&self, input: Input) -> Vec<f32> {
        self.run(input, false).0
    }

    fn run(&self, input: Input, keep: bool) -> (Vec<f32>, Kept) {
        let d = self.out_bias.len();
        input.check(d);
        let kept = self.attend.run(input, keep);
        let heights = tile_heights(input.mask.len());
        let tasks = tiles(input.x, &heights, d).zip(tiles(kept.attended.units::<U>(), &heights, U::width(d)));
        let (y, _) = fresh::tiles(&heights, d, tasks, |y, (x, attended)| {
            let y = add_row(x, &self.out_bias, y);
            multiply_all(y, attended, self.out.view(), Onto::Output);
            (y, ())
        });
        (y, if keep { kept } else { Kept::default() })
    }
}

/// Norm, projection and attention.
#[derive(Clone, Debug)]
struct Attend<U> {
    norm: OwnedNorm,
    qkv: Panels<U>,
    qkv_bias: Vec<f32>,
    heads: usize,
    positions: Positions,
}

impl<U: Unit> Attend<U> {
    fn new(w: Weights) -> Self {
        let d = w.out_bias.len();
        Self {
            norm: w.norm.into(),
            qkv: Panels::new(Matrix::new(w.qkv, 3 * d, d).transposed()),
            qkv_bias: w.qkv_bias.to_vec(),
            heads: w.heads,
            positions: w.positions,
        }
    }

    fn run(&self, input: Input, keep: bool) -> Kept {
        let (norm, right) = (self.norm.view(), self.qkv.view());
        let d = norm.gain.len();
        let heights = tile_heights(input.mask.len());
        let (qkv, _) = fresh::tiles::<U, _, _>(&heights, U::width(3 * d), tiles(input.x, &heights, d), |qkv, x| {
            let rows = x.len() / d;
            with_scratch([x.len(), rows * STRIP, U::scratch(rows, d)], |[y, strip, units]| {
                norm::forward_rows(norm, x, y);
                let (units, stride) = U::of_rows(y, d, d, units);
                let y = Left::Rows { units, stride };
                for first in (0..3 * d).step_by(STRIP) {
                    let width = STRIP.min(3 * d - first);
                    let (columns, strip) = (first..first + width, &mut strip[..rows * width]);
                    let bias = Onto::Row(&self.qkv_bias[columns.clone()]);
                    multiply(strip, width, y, right, 0..right.steps(), columns, bias);
                    U::put_rows(strip, width, width, Out::fresh(&mut qkv[U::width(first)..]), U::width(3 * d));
                }
            });
            // SAFETY: strips are all columns, each of whole units but for the last one, and all rows of each are put.
            (unsafe { qkv.assume_init_mut() }, ())
        });
        let qkv = Saved::from_units(qkv);
        let (attended, stats) = attention::forward(input.attention::<U>(&qkv, self.heads, self.positions), keep);
        Kept { qkv, attended, stats }
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// That of the rows.
    pub x: bool,
    /// Those of the norm's gain and bias.
    pub norm: bool,
    /// Those of the projection to queries, keys and values.
    pub qkv: linear::Wanted<'a>,
    /// Those of the projection of what was attended to.
    pub out: linear::Wanted<'a>,
}

impl Wanted<'static> {
    /// All of them.
    pub const ALL: Self = Self { x: true, norm: true, qkv: linear::Wanted::ALL, out: linear::Wanted::ALL };
}

/// Gradients of [`forward`], those that were wanted, each in the shape of its argument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// Of the rows.
    pub x: Option<Vec<f32>>,
    /// Of the norm's gain and bias, `[d]` each.
    pub norm: Option<[Vec<f32>; 2]>,
    /// `[3 d, d]` and `[3 d]`.
    pub qkv: linear::Gradients,
    /// `[d, d]` and `[d]`.
    pub out: linear::Gradients,
}

/// Gradients of [`forward`] at `input` for the output gradient `dout [batch * length, d]`. `kept` is what the forward pass kept in the same
/// precision, or empty.
///
/// # Panics
/// As [`forward`], and if `dout`, `kept` or a low-rank part does not fit.
pub fn backward(input: Input, w: Weights, dout: &[f32], kept: Kept, wanted: Wanted, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(input, w, dout, kept, wanted),
        Precision::Bf16 => backward_in::<Pair>(input, w, dout, kept, wanted),
    }
}

fn backward_in<U: Unit>(input: Input, w: Weights, dout: &[f32], kept: Kept, wanted: Wanted) -> Gradients {
    let (d, rows) = (w.check::<U>(), input.mask.len());
    input.check(d);
    fits("dout", dout, &[rows, d]);
    wanted.qkv.check(d, 3 * d);
    wanted.out.check(d, d);
    if !kept.stats.is_empty() {
        fits("kept", &kept.stats, &[rows, w.heads]);
        fits("kept", kept.qkv.units::<U>(), &[rows, U::width(3 * d)]);
        fits("kept", kept.attended.units::<U>(), &[rows, U::width(d)]);
    }
    let kept = if kept.stats.is_empty() { Attend::<U>::new(w).run(input, true) } else { kept };
    let mut buffer = Vec::new();
    let attended = if wanted.out.needs_rows() { U::numbers(kept.attended.units(), d, &mut buffer) } else { &[] };
    let out = linear::parameter_gradients::<U>(attended, d, dout, d, wanted.out);
    if !(wanted.x || wanted.norm || wanted.qkv.any()) {
        return Gradients { out, ..Gradients::default() };
    }
    drop(buffer);
    let dattended = rows_product(dout, Panels::<U>::new(Matrix::new(w.out, d, d)).view(), Onto::Zero);
    let attention = input.attention::<U>(&kept.qkv, w.heads, w.positions);
    let dqkv = attention::backward(attention, &kept.attended, &kept.stats, &dattended);
    drop(kept);
    // The normalised rows, in the place of a gradient that is no longer needed.
    let mut normed = dattended;
    let (x, norm) = before_attention::<U>(input, w, dout, &dqkv, &mut normed, wanted);
    let qkv = linear::parameter_gradients::<U>(&normed, d, &dqkv, 3 * d, wanted.qkv);
    Gradients { x, norm, qkv, out }
}

/// From the gradient of queries, keys and values to those of the rows and of the norm. `normed` receives the normalised rows if the
/// projection needs them.
fn before_attention<U: Unit>(
    input: Input,
    w: Weights,
    dout: &[f32],
    dqkv: &[f32],
    normed: &mut [f32],
    wanted: Wanted,
) -> (Option<Vec<f32>>, Option<[Vec<f32>; 2]>) {
    let d = w.out_bias.len();
    let needs_normed = wanted.qkv.needs_rows();
    if !(wanted.x || wanted.norm) {
        if needs_normed {
            let rows = TILE * d;
            let tiles = normed.par_chunks_mut(rows).zip(input.x.par_chunks(rows));
            tiles.for_each(|(normed, x)| norm::forward_rows(w.norm, x, normed));
        }
        return (None, None);
    }
    let right = Panels::<U>::new(Matrix::new(w.qkv, 3 * d, d));
    let heights = tile_heights(input.mask.len());
    let width = if needs_normed { d } else { 0 };
    let tasks = tiles_mut(normed, &heights, width).zip(tiles(input.x, &heights, d));
    let tasks = tasks.zip(tiles(dout, &heights, d)).zip(tiles(dqkv, &heights, 3 * d));
    let (dx, dnorms) = fresh::tiles(&heights, d, tasks, |dx, (((normed, x), dout), dqkv)| {
        if needs_normed {
            norm::forward_rows(w.norm, x, normed);
        }
        with_scratch([x.len(), U::scratch(x.len() / d, 3 * d)], |[dnormed, units]| {
            let (dqkv, _) = U::of_rows(dqkv, 3 * d, 3 * d, units);
            multiply_all(dnormed, dqkv, right.view(), Onto::Zero);
            norm::backward_tile(w.norm, x, dnormed, dout, dx)
        })
    });
    (wanted.x.then_some(dx), wanted.norm.then(|| norm::sum_tiles(&dnorms, d)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_rank::test::Owned;
    use crate::rows::test::{assert_close, noise};

    const EPS: f32 = 1e-3;

    /// x, gain, bias, qkv, its bias, out, its bias.
    fn arguments(rows: usize, d: usize) -> [Vec<f32>; 7] {
        let mut seed = 0;
        [rows * d, d, d, 3 * d * d, 3 * d, d * d, d].map(|size| {
            seed += 1;
            noise(size, seed)
        })
    }

    fn weights(a: &[Vec<f32>; 7], positions: Positions) -> Weights<'_> {
        let [_, gain, bias, qkv, qkv_bias, out, out_bias] = a;
        Weights { norm: Norm { gain, bias, eps: EPS }, qkv, qkv_bias, out, out_bias, heads: 2, positions }
    }

    /// Out of the kernels that it joins, which have tests of their own.
    #[test]
    fn is_its_parts_in_a_row() {
        let (length, d) = (7, 8);
        let mask = [1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 0., 0., 0.];
        let elsewhere: Vec<u32> = (0..2 * length as u32).map(|row| 3 * row % 11).collect();
        let rotary = Positions::Rotary { theta: 100.0 };
        for (positions, places) in [(Positions::Alibi, None), (rotary, None), (rotary, Some(&elsewhere[..]))] {
            let a = arguments(2 * length, d);
            let w = weights(&a, positions);
            let causal = places.is_some() || positions == Positions::Alibi;
            let input = Input { x: &a[0], mask: &mask, length, places, causal };
            let mut normed = vec![0.0; a[0].len()];
            norm::forward_rows(w.norm, &a[0], &mut normed);
            let qkv = Saved::of::<f32>(&linear::forward(&normed, w.qkv, w.qkv_bias, Precision::F32), 3 * d);
            let among = attention::Input::among(qkv.units(), &mask, length, w.heads, positions);
            let of = attention::Input { places, causal, ..among };
            let (attended, _) = attention::forward::<f32>(of, false);
            let y = linear::forward(attended.units(), w.out, w.out_bias, Precision::F32);
            let want: Vec<f32> = y.iter().zip(&a[0]).map(|(y, x)| x + y).collect();
            assert_close(&forward(input, w, Precision::F32, true).0, &want);
        }
    }

    #[test]
    fn gradients_are_slopes() {
        for causal in [false, true] {
            slopes_of_a_block(causal);
        }
    }

    fn slopes_of_a_block(causal: bool) {
        let (length, d) = (5, 4);
        let mask = [1., 1., 1., 1., 1., 1., 1., 1., 0., 0.];
        let a = arguments(2 * length, d);
        let real = |dy: Vec<f32>| -> Vec<f32> { dy.iter().enumerate().map(|(i, v)| v * mask[i / d]).collect() };
        let dout = real(noise(2 * length * d, 99));
        let run = |a: &[Vec<f32>; 7]| {
            let w = weights(a, Positions::Alibi);
            let (y, kept) =
                forward(Input { x: &a[0], mask: &mask, length, places: None, causal }, w, Precision::F32, true);
            (y, kept)
        };
        let w = weights(&a, Positions::Alibi);
        let input = Input { x: &a[0], mask: &mask, length, places: None, causal };
        let g = backward(input, w, &dout, run(&a).1, Wanted::ALL, Precision::F32);
        let again = backward(input, w, &dout, Kept::default(), Wanted::ALL, Precision::F32);
        assert!(g == again, "kept or computed again, the same bits");
        // The kernels compute in f32: slopes over a wide step, compared loosely; exact gradients are tested part by part.
        let [gain, bias] = g.norm.unwrap();
        let linear = [g.qkv.weight, g.qkv.bias, g.out.weight, g.out.bias].map(Option::unwrap);
        let found = [g.x.unwrap(), gain, bias].into_iter().chain(linear);
        for (i, gradient) in found.enumerate() {
            let largest = gradient.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for at in (0..gradient.len()).step_by(3) {
                let loss = |step: f32| {
                    let mut moved = a.clone();
                    moved[i][at] += step;
                    run(&moved).0.iter().zip(&dout).map(|(y, d)| f64::from(y * d)).sum::<f64>()
                };
                let slope = (loss(4e-3) - loss(-4e-3)) / 8e-3;
                assert!((slope - f64::from(gradient[at])).abs() < 5e-3 * f64::from(largest), "{i}, {at}: {slope}");
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_found_and_changes_nothing() {
        let (length, d) = (110, 16);
        let a = arguments(2 * length, d);
        let mask: Vec<f32> = (0..2 * length).map(|i| f32::from(u8::from(i < 2 * length - 30))).collect();
        let dout: Vec<f32> = noise(2 * length * d, 99).iter().enumerate().map(|(i, v)| v * mask[i / d]).collect();
        let input = Input { x: &a[0], mask: &mask, length, places: None, causal: false };
        let w = weights(&a, Positions::Alibi);
        let (of_qkv, of_out) = (Owned::new(d, 3 * d, 6, 11), Owned::new(d, d, 2, 13));
        let with = |wanted: linear::Wanted<'static>, part| linear::Wanted { low_rank: Some(part), ..wanted };
        for precision in [Precision::F32, Precision::Bf16] {
            let kept = forward(input, w, precision, true).1;
            let run = |wanted| backward(input, w, &dout, kept.clone(), wanted, precision);
            let (qkv, out) = (with(linear::Wanted::ALL, of_qkv.view()), with(linear::Wanted::ALL, of_out.view()));
            let all = run(Wanted { qkv, out, ..Wanted::ALL });
            if precision == Precision::F32 {
                for (part, of_layer) in [(&of_qkv, &all.qkv), (&of_out, &all.out)] {
                    part.assert_gradients(of_layer.low_rank.as_ref(), of_layer.weight.as_ref());
                }
            }
            let none = linear::Wanted::default();
            let frozen = Wanted { x: true, norm: false, qkv: none, out: none };
            assert!(run(frozen) == Gradients { x: all.x.clone(), ..Gradients::default() });
            let adapted = Wanted { qkv: with(none, of_qkv.view()), out: with(none, of_out.view()), ..frozen };
            let low_rank =
                |of: &linear::Gradients| linear::Gradients { low_rank: of.low_rank.clone(), ..Default::default() };
            let expected = Gradients { qkv: low_rank(&all.qkv), out: low_rank(&all.out), ..run(frozen) };
            assert!(run(adapted) == expected);
            assert!(run(Wanted { x: false, ..adapted }) == Gradients { x: None, ..expected });
            let last = Wanted { x: false, norm: false, qkv: none, out: linear::Wanted::ALL };
            let out = linear::Gradients { low_rank: None, ..all.out.clone() };
            assert!(run(last) == Gradients { out, ..Gradients::default() });
            let again = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run(Wanted { qkv, ..adapted }))
            };
            assert!(again(1) == again(3), "any number of threads");
        }
    }
}
