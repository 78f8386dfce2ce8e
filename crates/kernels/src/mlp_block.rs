//! The second half of a transformer layer, fused: `x + down(activation(up(norm(x))))` (pre-norm; Xiong et al. 2020).
//!
//! As in [`conv_block`](crate::conv_block), the wide inner layer exists as strips of a tile only, unless it is kept for the backward
//! pass.

use crate::fresh;
use crate::linear;
use crate::mlp::{self, Kept, Weights};
use crate::norm::{self, Norm, OwnedNorm};
use crate::product::{Pair, Precision, Saved, Unit};
use crate::rows::{tile_heights, tiles, with_scratch};
use crate::shape::{fits, rows_of};

/// Output for the rows `x [rows, d]`, of the same shape; with `keep` also the input of the activation, `[rows, d_inner]`, which
/// [`backward`] then need not compute again.
///
/// # Panics
/// If a slice does not fit its shape, a size is 0, or an activation that joins halves has an odd width.
pub fn forward(x: &[f32], norm: Norm, w: Weights, precision: Precision, keep: bool) -> (Vec<f32>, Saved) {
    match precision {
        Precision::F32 => forward_in::<f32>(x, norm, w, keep),
        Precision::Bf16 => forward_in::<Pair>(x, norm, w, keep),
    }
}

fn forward_in<U: Unit>(x: &[f32], norm: Norm, w: Weights, keep: bool) -> (Vec<f32>, Saved) {
    Prepared::<U>::new(norm, w).run(x, keep)
}

/// Width of a row, if all weights fit.
fn check(norm: Norm, w: Weights) -> usize {
    let d = w.d();
    w.check(d);
    norm.check(d);
    d
}

/// The block with its weights in the order in which the forward pass reads them, for use many times.
#[derive(Clone, Debug)]
pub struct Prepared<U> {
    norm: OwnedNorm,
    mlp: mlp::Forward<U>,
}

impl<U: Unit> Prepared<U> {
    /// Copies the weights.
    ///
    /// # Panics
    /// If they do not fit their shapes, a size is 0, or an activation that joins halves has an odd width.
    #[must_use]
    pub fn new(norm: Norm, w: Weights) -> Self {
        check(norm, w);
        Self { norm: norm.into(), mlp: mlp::Forward::new(w) }
    }

    /// Output for the rows `x [rows, d]`, of the same shape.
    ///
    /// # Panics
    /// If the slice holds no whole rows.
    #[must_use]
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        self.run(x, false).0
    }

    fn run(&self, x: &[f32], keep: bool) -> (Vec<f32>, Saved) {
        let (norm, mlp) = (self.norm.view(), &self.mlp);
        let d = norm.gain.len();
        let rows = rows_of("x", x, d);
        let heights = tile_heights(rows);
        let firsts = heights.iter().scan(0, |next, height| Some(std::mem::replace(next, *next + height)));
        let tasks = tiles(x, &heights, d).zip(firsts);
        let run = |kept: Option<&Kept<U>>| {
            fresh::tiles(&heights, d, tasks, |out, (x, first)| {
                let rows = x.len() / d;
                with_scratch([rows * d, mlp.scratch(rows)], |[y, scratch]| {
                    norm::forward_rows(norm, x, y);
                    // SAFETY: tiles have no row in common, and each comes once.
                    (unsafe { mlp.tile(y, x, kept.map(|kept| (kept, first)), out, scratch) }, ())
                })
            })
        };
        let ((out, _), pre) = mlp::keeping(keep, rows, mlp.d_inner(), run);
        (out, pre)
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// That of the rows.
    pub x: bool,
    /// Those of the norm's gain and bias.
    pub norm: bool,
    /// Those of the layer to the inner width.
    pub up: linear::Wanted<'a>,
    /// Those of the layer back.
    pub down: linear::Wanted<'a>,
}

impl Wanted<'static> {
    /// All of them.
    pub const ALL: Self = Self { x: true, norm: true, up: linear::Wanted::ALL, down: linear::Wanted::ALL };
}

/// Gradients of [`forward`], those that were wanted, each in the shape of its argument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// Of the rows.
    pub x: Option<Vec<f32>>,
    /// Of the norm's gain and bias, `[d]` each.
    pub norm: Option<[Vec<f32>; 2]>,
    /// `[d_inner, d]` and `[d_inner]`.
    pub up: linear::Gradients,
    /// `[d, d_inner]`, or with an activation that joins halves `[d, d_inner / 2]`, and `[d]`.
    pub down: linear::Gradients,
}

/// Gradients of [`forward`] at `x` for the output gradient `dout [rows, d]`. `pre` is what the forward pass kept in the same precision, or
/// empty.
///
/// # Panics
/// As [`forward`], if `dout`, `pre` or a low-rank part does not fit, or if gradients of a low-rank part of `up` are wanted beside an
/// activation that joins halves.
pub fn backward(
    x: &[f32],
    norm: Norm,
    w: Weights,
    dout: &[f32],
    pre: &Saved,
    wanted: Wanted,
    precision: Precision,
) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(x, norm, w, dout, pre, wanted),
        Precision::Bf16 => backward_in::<Pair>(x, norm, w, dout, pre, wanted),
    }
}

fn backward_in<U: Unit>(x: &[f32], norm: Norm, w: Weights, dout: &[f32], pre: &Saved, wanted: Wanted) -> Gradients {
    let d = check(norm, w);
    let rows = rows_of("x", x, d);
    fits("dout", dout, &[rows, d]);
    if !pre.is_empty() {
        fits("pre", pre.units::<U>(), &[w.d_inner(), U::width(rows)]);
    }
    let Wanted { up, down, .. } = wanted;
    up.check(d, w.d_inner());
    down.check(w.d_active(), d);
    let of_y = wanted.x || wanted.norm;
    let needs_y = up.needs_rows() || pre.is_empty();
    let mut mlp = mlp::Backward::<U>::new(w, mlp::Wanted { y: of_y, up, down }, !pre.is_empty());
    let (dx, dnorms, ()) = mlp.run(
        dout,
        pre,
        |first, y, _| {
            if needs_y {
                norm::forward_rows(norm, &x[first * d..first * d + y.len()], y);
            }
        },
        |first, dy, dx| {
            let at = first * d..first * d + dy.len();
            norm::backward_tile(norm, &x[at.clone()], dy, &dout[at], dx)
        },
        |_| (),
    );
    let mlp::Gradients { up, down } = mlp.finish();
    let norm = wanted.norm.then(|| norm::sum_tiles(&dnorms, d));
    Gradients { x: wanted.x.then_some(dx), norm, up, down }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gelu;
    use crate::low_rank::test::Owned;
    use crate::mlp::Activation;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// x, gain, bias, up, its bias, down, its bias.
    fn reference(a: &[Vec<f64>; 7], activation: Activation) -> Vec<f64> {
        let [x, gain, bias, up, up_bias, down, down_bias] = a;
        let d = gain.len();
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut out = Vec::new();
        for x in x.chunks(d) {
            let y = norm::test::reference(x, gain, bias, 1e-3);
            let inner: Vec<f64> = up.chunks(d).zip(up_bias).map(|(w, b)| dot(w, &y) + b).collect();
            let inner: Vec<f64> = match activation {
                Activation::Gelu => inner.iter().map(|&v| gelu::test::reference(v)).collect(),
                Activation::SwiGlu => {
                    let (a, b) = inner.split_at(inner.len() / 2);
                    a.iter().zip(b).map(|(a, b)| a / (1.0 + (-a).exp()) * b).collect()
                }
                Activation::GeGlu => {
                    let (a, b) = inner.split_at(inner.len() / 2);
                    a.iter().zip(b).map(|(&a, b)| gelu::test::reference(a) * b).collect()
                }
            };
            out.extend(down.chunks(inner.len()).zip(down_bias).zip(x).map(|((w, b), x)| x + dot(w, &inner) + b));
        }
        out
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        // Two strips and a rest of the halves, too many numbers for an interpreter.
        let shapes = [
            (Activation::Gelu, 9, 4, 6),
            (Activation::SwiGlu, 9, 4, 8),
            (Activation::SwiGlu, 2, 3, 520),
            (Activation::GeGlu, 9, 4, 8),
            (Activation::GeGlu, 2, 3, 520),
        ];
        for (activation, rows, d, d_inner) in shapes.into_iter().take(if cfg!(miri) { 1 } else { 5 }) {
            let mut seed = 0;
            let a = [rows * d, d, d, d_inner * d, d_inner, d * d_inner / activation.inputs(), d].map(|size| {
                seed += 1;
                noise(size, seed)
            });
            let wide = a.clone().map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            let [x, gain, bias, up, up_bias, down, down_bias] = &a;
            let norm = Norm { gain, bias, eps: 1e-3 };
            let w = Weights { up, up_bias, down, down_bias, activation };
            let (out, pre) = forward(x, norm, w, Precision::F32, true);
            assert_close(&out, &reference(&wide, activation).iter().map(|&v| v as f32).collect::<Vec<_>>());
            assert!(forward(x, norm, w, Precision::F32, false).0 == out);

            let dout = noise(rows * d, 99);
            let again = backward(x, norm, w, &dout, &Saved::default(), Wanted::ALL, Precision::F32);
            let g = backward(x, norm, w, &dout, &pre, Wanted::ALL, Precision::F32);
            assert!(g == again, "kept or computed again, the same bits");
            let (up, down) = (g.up.clone(), g.down.clone());
            let [dgain, dbias] = g.norm.unwrap();
            let found = [g.x, Some(dgain), Some(dbias), up.weight, up.bias, down.weight, down.bias];
            for (i, gradient) in found.into_iter().enumerate() {
                assert_gradient(&gradient.unwrap(), &a[i], |v| {
                    let mut moved = wide.clone();
                    moved[i] = v.to_vec();
                    reference(&moved, activation).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum()
                });
            }
        }
    }

    /// More rows than a group, more columns than a strip.
    #[test]
    fn what_is_not_wanted_is_not_found_and_changes_nothing() {
        let (rows, d, d_inner) = if cfg!(miri) { (67, 4, 40) } else { (2100, 12, 528) };
        let (x, dout) = (noise(rows * d, 1), noise(rows * d, 2));
        let (gain, bias) = (noise(d, 3), noise(d, 4));
        let norm = Norm { gain: &gain, bias: &bias, eps: 1e-3 };
        let (up, up_bias) = (noise(d_inner * d, 5), noise(d_inner, 6));
        let (down, down_bias) = (noise(d * d_inner, 7), noise(d, 8));
        let activation = Activation::Gelu;
        let w = Weights { up: &up, up_bias: &up_bias, down: &down, down_bias: &down_bias, activation };
        let (of_up, of_down) = (Owned::new(d, d_inner, 3, 9), Owned::new(d_inner, d, 5, 11));
        let with = |wanted: linear::Wanted<'static>, part| linear::Wanted { low_rank: Some(part), ..wanted };
        for precision in [Precision::F32, Precision::Bf16] {
            let pre = forward(&x, norm, w, precision, true).1;
            let run = |wanted| backward(&x, norm, w, &dout, &pre, wanted, precision);
            let (up, down) = (with(linear::Wanted::ALL, of_up.view()), with(linear::Wanted::ALL, of_down.view()));
            let all = run(Wanted { up, down, ..Wanted::ALL });
            if precision == Precision::F32 {
                for (part, of_layer) in [(&of_up, &all.up), (&of_down, &all.down)] {
                    part.assert_gradients(of_layer.low_rank.as_ref(), of_layer.weight.as_ref());
                }
            }
            let none = linear::Wanted::default();
            let frozen = Wanted { x: true, norm: false, up: none, down: none };
            assert!(run(frozen) == Gradients { x: all.x.clone(), ..Gradients::default() });
            let adapted = Wanted { up: with(none, of_up.view()), down: with(none, of_down.view()), ..frozen };
            let low_rank =
                |of: &linear::Gradients| linear::Gradients { low_rank: of.low_rank.clone(), ..Default::default() };
            let expected = Gradients { up: low_rank(&all.up), down: low_rank(&all.down), ..run(frozen) };
            assert!(run(adapted) == expected);
            assert!(run(Wanted { x: false, ..adapted }) == Gradients { x: None, ..expected });
            let last = Wanted { x: false, norm: false, up: none, down: linear::Wanted::ALL };
            let down = linear::Gradients { low_rank: None, ..all.down.clone() };
            assert!(run(last) == Gradients { down, ..Gradients::default() });
            let again = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| backward(&x, norm, w, &dout, &Saved::default(), Wanted { up, ..adapted }, precision))
            };
            assert!(again(1) == again(3), "any number of threads");
        }
    }

    /// More rows than a group, halves of more columns than a strip, in both precisions.
    #[test]
    fn halves_are_joined_for_any_number_of_threads() {
        for activation in [Activation::SwiGlu, Activation::GeGlu] {
            joined_halves(activation);
        }
    }

    fn joined_halves(activation: Activation) {
        let (rows, d, d_inner) = if cfg!(miri) { (67, 4, 2 * 20) } else { (2100, 12, 2 * 272) };
        let (x, dout) = (noise(rows * d, 1), noise(rows * d, 2));
        let (gain, bias) = (noise(d, 3), noise(d, 4));
        let norm = Norm { gain: &gain, bias: &bias, eps: 1e-3 };
        let (up, up_bias) = (noise(d_inner * d, 5), noise(d_inner, 6));
        let (down, down_bias) = (noise(d * d_inner / 2, 7), noise(d, 8));
        let w = Weights { up: &up, up_bias: &up_bias, down: &down, down_bias: &down_bias, activation };
        let run = |precision, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, pre) = forward(&x, norm, w, precision, true);
                (y, backward(&x, norm, w, &dout, &pre, Wanted::ALL, precision))
            })
        };
        // Single elements stray further where the activation bends more.
        let bound = if activation == Activation::GeGlu { 0.08 } else { 0.05 };
        let assert_near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
            assert!(worst < bound, "{activation:?}: {worst}");
        };
        let (y, g) = run(Precision::F32, 1);
        assert!(run(Precision::F32, 3) == (y.clone(), g.clone()), "any number of threads");
        let (rough, rough_g) = run(Precision::Bf16, 2);
        assert!(run(Precision::Bf16, 1) == (rough.clone(), rough_g.clone()));
        assert_near(&rough, &y);
        assert_near(&rough_g.x.unwrap(), &g.x.unwrap());
        assert_near(&rough_g.up.weight.unwrap(), &g.up.weight.unwrap());
        assert_near(&rough_g.down.weight.unwrap(), &g.down.weight.unwrap());
    }
}
