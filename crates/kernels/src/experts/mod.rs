//! Experts that make one vector of each unit of adjacent rows (MxDNA; Qiao et al. 2024):
//! `post(silu(norm(conv(glu(pre(rows))))))`, where a grouped convolution as long as the unit is a product for each group.
//!
//! The experts work side by side on tiles of units. Rows are gathered tile by tile; between the layers nothing exists but a tile.

mod backward;
mod forward;

use crate::fresh::{self, Unwritten};
use crate::norm::Norm;
use crate::product::{Pair, Precision, Saved};
use crate::shape::{all_below, fits, positive, rows_of};

pub use forward::Prepared;

/// Rows that the units of a tile cover, about: what is made of them stays in the second cache.
const COVERED: usize = 256;

/// Fewest and most units of a tile: enough for large products, few enough for many tiles.
const UNITS: [usize; 2] = [16, 96];

/// Weights of an expert.
#[derive(Clone, Copy, Debug)]
pub struct Expert<'a> {
    /// Rows of a unit.
    pub size: usize,
    /// Groups of the convolution, a divisor of `d`.
    pub groups: usize,
    /// Values, then their gates: `[2 d, d]`.
    pub pre: &'a [f32],
    /// `[d, d / groups, size]`.
    pub conv: &'a [f32],
    /// Before the activation, `d` wide.
    pub norm: Norm<'a>,
    /// `[d, d]`.
    pub post: &'a [f32],
}

impl Expert<'_> {
    /// Its sizes, if its weights fit them.
    fn shape(&self) -> Shape {
        let d = self.norm.gain.len();
        self.norm.check(d);
        positive("size", self.size);
        positive("groups", self.groups);
        assert!(d.is_multiple_of(self.groups), "`groups` is {}, which does not divide a width of {d}", self.groups);
        fits("pre", self.pre, &[2, d, d]);
        fits("conv", self.conv, &[d, d / self.groups, self.size]);
        fits("post", self.post, &[d, d]);
        Shape { d, size: self.size, groups: self.groups }
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    d: usize,
    size: usize,
    groups: usize,
}

impl Shape {
    /// Channels of a group.
    fn inside(self) -> usize {
        self.d / self.groups
    }

    /// Numbers of a unit in one group.
    fn group(self) -> usize {
        self.size * self.inside()
    }

    /// Calls `copy` with the parts of columns `first..first + width` of a row of a tile: where they stand among those columns, and where
    /// in `[groups, units, size, d / groups]`, the order in which the convolution reads them.
    fn parts(self, row: usize, units: usize, first: usize, width: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let (inside, unit, tap) = (self.inside(), row / self.size, row % self.size);
        let mut at = first;
        while at < first + width {
            let (group, within) = (at / inside, at % inside);
            let length = (inside - within).min(first + width - at);
            copy(at - first, (group * units + unit) * self.group() + tap * inside + within, length);
            at += length;
        }
    }
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// What the first layers made: values and gates of every covered row.
    both: Saved,
    /// What the convolutions made, `[units, d]`.
    convolved: Vec<f32>,
}

/// Tiles of the units of all experts: expert, first unit, number.
fn tiles(counts: &[usize], sizes: &[usize]) -> Vec<[usize; 3]> {
    let of = |((expert, &count), &size): ((usize, &usize), &usize)| {
        let most = (COVERED / size).clamp(UNITS[0], UNITS[1]);
        // Of equal size.
        let height = count.div_ceil(count.div_ceil(most).max(1)).max(1);
        (0..count).step_by(height).map(move |first| [expert, first, height.min(count - first)])
    };
    counts.iter().enumerate().zip(sizes).flat_map(of).collect()
}

/// Channels of all experts, 0 if there are none.
fn width(shapes: impl Iterator<Item = Shape>) -> usize {
    let widths: Vec<usize> = shapes.map(|shape| shape.d).collect();
    assert!(
        widths.windows(2).all(|pair| pair[0] == pair[1]),
        "`experts` are {widths:?} wide, but must be of one width"
    );
    widths.first().copied().unwrap_or(0)
}

/// Units of each expert, if those cover whole ones of the rows of `x [rows, d]`.
fn counts(x: &[f32], d: usize, covered: &[Vec<u32>], sizes: &[usize]) -> Vec<usize> {
    fits("covered", covered, &[sizes.len()]);
    let rows = if sizes.is_empty() { 0 } else { rows_of("x", x, d) };
    let of = |(numbers, &size): (&Vec<u32>, &usize)| {
        all_below("covered", numbers, rows);
        rows_of("covered", numbers, size)
    };
    covered.iter().zip(sizes).map(of).collect()
}

/// A vector for each unit, `[units, d]`, those of the first expert first. `covered` holds, for each expert, the rows of `x [rows, d]`
/// that its units cover, one unit after another. With `keep` also what [`backward`] needs. Without experts there are no vectors.
///
/// # Panics
/// If a slice does not fit its shape, experts have different widths, a size is 0, groups do not divide d, a row does not exist, or the
/// last unit of an expert is not whole.
#[must_use]
pub fn forward(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    precision: Precision,
    keep: bool,
) -> (Vec<f32>, Kept) {
    match precision {
        Precision::F32 => Prepared::<f32>::new(experts).run(x, covered, keep),
        Precision::Bf16 => Prepared::<Pair>::new(experts).run(x, covered, keep),
    }
}

/// Gradients of the weights of an expert, each in the shape of its argument.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertGradients {
    /// Of the first layer.
    pub pre: Vec<f32>,
    /// Of the convolution.
    pub conv: Vec<f32>,
    /// Of the norm's gain and bias.
    pub norm: [Vec<f32>; 2],
    /// Of the last layer.
    pub post: Vec<f32>,
}

/// Gradients of [`forward`] for the output gradient `dout [units, d]`, those of the experts only if `of_weights`. `kept` is what the
/// forward pass kept in the same precision.
///
/// # Panics
/// As [`forward`], and if `kept` or `dout` does not fit, or two units cover the same row.
#[must_use]
pub fn backward(
    x: &[f32],
    experts: &[Expert],
    covered: &[Vec<u32>],
    kept: &Kept,
    dout: &[f32],
    of_weights: bool,
    precision: Precision,
) -> (Vec<f32>, Vec<ExpertGradients>) {
    match precision {
        Precision::F32 => backward::run::<f32>(x, experts, covered, kept, dout, of_weights),
        Precision::Bf16 => backward::run::<Pair>(x, experts, covered, kept, dout, of_weights),
    }
}

/// Rows of `x [rows, d]` by number.
fn gather(x: &[f32], d: usize, numbers: &[u32], out: &mut [f32]) {
    for (&row, out) in numbers.iter().zip(out.chunks_exact_mut(d)) {
        out.copy_from_slice(&x[row as usize * d..(row as usize + 1) * d]);
    }
}

/// `[n, a, b]` to `[n, b, a]`.
fn swapped(x: &[f32], a: usize, b: usize) -> Vec<f32> {
    fresh::chunks(x.len(), a * b, |n, out| {
        let x = &x[n * a * b..][..a * b];
        out.rows_written(a, |j, out| out.written(x.chunks_exact(b).map(|row| row[j])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    /// Sizes and groups of experts over 6 channels; the third has no units.
    const SHAPES: [[usize; 2]; 4] = [[1, 1], [3, 2], [4, 3], [2, 6]];
    const D: usize = 6;
    const ROWS: usize = 14;

    fn covered() -> Vec<Vec<u32>> {
        vec![vec![3, 13], vec![4, 5, 6, 0, 1, 2], vec![], vec![8, 9, 11, 12]]
    }

    /// Of each expert: pre, conv, gain, bias and post.
    fn weights(d: usize, shapes: &[[usize; 2]]) -> Vec<[Vec<f32>; 5]> {
        let of = |(n, &[size, groups]): (usize, &[usize; 2])| {
            let mut seed = 10 * n as u64;
            [2 * d * d, d * (d / groups) * size, d, d, d * d].map(|length| {
                seed += 1;
                noise(length, seed)
            })
        };
        shapes.iter().enumerate().map(of).collect()
    }

    fn experts<'a>(weights: &'a [[Vec<f32>; 5]], shapes: &[[usize; 2]]) -> Vec<Expert<'a>> {
        let of = |([pre, conv, gain, bias, post], &[size, groups]): (&'a [Vec<f32>; 5], &[usize; 2])| {
            let norm = Norm { gain, bias, eps: 1e-3 };
            Expert { size, groups, pre, conv, norm, post }
        };
        weights.iter().zip(shapes).map(of).collect()
    }

    fn reference(x: &[f64], weights: &[[Vec<f64>; 5]]) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut out = Vec::new();
        for (([pre, conv, gain, bias, post], [size, groups]), covered) in weights.iter().zip(SHAPES).zip(covered()) {
            let inside = D / groups;
            for unit in covered.chunks(size) {
                let gated: Vec<Vec<f64>> = unit
                    .iter()
                    .map(|&row| {
                        let both: Vec<f64> = pre.chunks(D).map(|w| dot(w, &x[row as usize * D..])).collect();
                        (0..D).map(|i| both[i] * sigmoid(both[D + i])).collect()
                    })
                    .collect();
                let channel = |o: usize| -> f64 {
                    let weight = |i: usize, tap: usize| conv[(o * inside + i) * size + tap];
                    let own = o / inside * inside;
                    (0..inside).map(|i| (0..size).map(|tap| weight(i, tap) * gated[tap][own + i]).sum::<f64>()).sum()
                };
                let convolved: Vec<f64> = (0..D).map(channel).collect();
                let normed = norm::test::reference(&convolved, gain, bias, 1e-3);
                let active: Vec<f64> = normed.iter().map(|&v| v * sigmoid(v)).collect();
                out.extend(post.chunks(D).map(|w| dot(w, &active)));
            }
        }
        out
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, weights) = (noise(ROWS * D, 99), weights(D, &SHAPES));
        let (experts, wide_weights) =
            (experts(&weights, &SHAPES), weights.iter().map(|w| w.each_ref().map(|v| wide(v))));
        let wide_weights: Vec<[Vec<f64>; 5]> = wide_weights.collect();
        let want: Vec<f32> = reference(&wide(&x), &wide_weights).iter().map(|&v| v as f32).collect();
        let (out, kept) = forward(&x, &experts, &covered(), Precision::F32, true);
        assert_close(&out, &want);
        assert_eq!(forward(&x, &experts, &covered(), Precision::F32, false).0, out);

        let dout = noise(out.len(), 98);
        let loss = |x: &[f64], weights: &[[Vec<f64>; 5]]| -> f64 {
            reference(x, weights).iter().zip(&dout).map(|(y, &d)| y * f64::from(d)).sum()
        };
        let (dx, found) = backward(&x, &experts, &covered(), &kept, &dout, true, Precision::F32);
        assert_gradient(&dx, &x, |x| loss(x, &wide_weights));
        for (n, g) in found.iter().enumerate() {
            let [dgain, dbias] = &g.norm;
            for (part, gradient) in [&g.pre, &g.conv, dgain, dbias, &g.post].into_iter().enumerate() {
                assert_gradient(gradient, &weights[n][part], |moved| {
                    let mut all = wide_weights.clone();
                    all[n][part] = moved.to_vec();
                    loss(&wide(&x), &all)
                });
            }
        }
        let frozen = backward(&x, &experts, &covered(), &kept, &dout, false, Precision::F32);
        assert_eq!(frozen, (dx, Vec::new()), "what is not wanted changes nothing");
    }

    /// More channels than a strip, and more units than a tile.
    #[test]
    fn the_same_for_any_number_of_threads_and_near_in_bf16() {
        let (d, shapes) = (150, [[1, 5], [5, 1], [10, 3]]);
        let weights = weights(d, &shapes);
        let experts = experts(&weights, &shapes);
        let covered: Vec<Vec<u32>> = vec![(0..130).collect(), (130..430).rev().collect(), (500..900).collect()];
        let (x, dout) = (noise(900 * d, 99), noise(230 * d, 98));
        let run = |precision, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, kept) = forward(&x, &experts, &covered, precision, true);
                (y, backward(&x, &experts, &covered, &kept, &dout, true, precision))
            })
        };
        let near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            let off = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / b.len() as f32;
            assert!(off.sqrt() < 0.02 * scale, "{} beside {scale}", off.sqrt());
        };
        let (y, (dx, g)) = run(Precision::F32, 1);
        assert!(run(Precision::F32, 3) == (y.clone(), (dx.clone(), g.clone())), "any number of threads");
        let (rough, (rough_dx, rough_g)) = run(Precision::Bf16, 2);
        assert!(run(Precision::Bf16, 1) == (rough.clone(), (rough_dx.clone(), rough_g.clone())));
        near(&rough, &y);
        near(&rough_dx, &dx);
        for (rough, g) in rough_g.iter().zip(&g) {
            near(&rough.pre, &g.pre);
            near(&rough.conv, &g.conv);
            near(&rough.post, &g.post);
        }
        assert!(dx[430 * d..500 * d].iter().all(|&v| v == 0.0), "rows that no unit covers");
        // A unit does not know its neighbours.
        let alone = forward(&x, &experts[1..2], &[covered[1][50..55].to_vec()], Precision::F32, false).0;
        assert_eq!(alone, y[(130 + 10) * d..(130 + 11) * d]);
    }

    #[test]
    #[should_panic(expected = "`covered` holds row 3 twice")]
    fn units_do_not_overlap() {
        let weights = weights(D, &SHAPES[..1]);
        let (x, experts) = (noise(ROWS * D, 1), experts(&weights, &SHAPES[..1]));
        let covered = [vec![3, 3]];
        let (y, kept) = forward(&x, &experts, &covered, Precision::F32, true);
        let _ = backward(&x, &experts, &covered, &kept, &y, true, Precision::F32);
    }
}
