//! A linear layer, `y = x · wᵀ + b`.

use crate::low_rank::{Factors, LowRank, Rows};
use crate::product::{Matrix, Onto, Pair, Panels, Precision, Unit, rows_product, transposed, turned};
use crate::rows::sum_over_rows;
use crate::shape::{fits, positive, rows_of, width_of};
use crate::simd::simd;

/// `x [rows, d_in]`, `w [d_out, d_in]`, `b [d_out]` to `[rows, d_out]`.
///
/// # Panics
/// If a slice does not fit its shape, or `d_in` or `d_out` is 0.
pub fn forward(x: &[f32], w: &[f32], b: &[f32], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => forward_in::<f32>(x, w, b),
        Precision::Bf16 => forward_in::<Pair>(x, w, b),
    }
}

fn forward_in<U: Unit>(x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    positive("d_out", b.len());
    let d_in = width_of("w", w, b.len());
    rows_of("x", x, d_in);
    let w = Panels::<U>::new(Matrix::new(w, b.len(), d_in).transposed());
    rows_product(x, w.view(), Onto::Row(b))
}

/// Which gradients of a linear layer's parameters a backward pass is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// That of the weight.
    pub weight: bool,
    /// That of the bias.
    pub bias: bool,
    /// Those of the factors of a part of the weight; the part is in the weight already.
    pub low_rank: Option<LowRank<'a>>,
}

impl Wanted<'static> {
    /// Weight and bias.
    pub const ALL: Self = Self { weight: true, bias: true, low_rank: None };
}

impl Wanted<'_> {
    /// Whether there is anything to find.
    #[must_use]
    pub fn any(&self) -> bool {
        self.bias || self.needs_rows()
    }

    /// Whether the rows that the layer read are needed.
    #[must_use]
    pub fn needs_rows(&self) -> bool {
        self.weight || self.low_rank.is_some()
    }

    /// Panics unless a low-rank part, if there is one, fits a weight `[d_out, d_in]`.
    pub(crate) fn check(&self, d_in: usize, d_out: usize) {
        self.low_rank.inspect(|part| part.check(d_in, d_out));
    }
}

/// Gradients of a linear layer's parameters, those that were wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// `[d_out, d_in]`.
    pub weight: Option<Vec<f32>>,
    /// `[d_out]`.
    pub bias: Option<Vec<f32>>,
    /// Of a part's `a [rank, d_in]` and `b [d_out, rank]`.
    pub low_rank: Option<[Vec<f32>; 2]>,
}

/// Gradients of [`forward`] at `x`, `w` for the output gradient `dy [rows, d_out]`: that of x, if `of_x`, and those of the parameters.
/// Where none of them [needs rows](Wanted::needs_rows), x is not read, and may be of any length.
///
/// # Panics
/// If a slice does not fit its shape, or `d_in` or `d_out` is 0.
pub fn backward(
    x: &[f32],
    w: &[f32],
    d_out: usize,
    dy: &[f32],
    of_x: bool,
    wanted: Wanted,
    precision: Precision,
) -> (Option<Vec<f32>>, Gradients) {
    match precision {
        Precision::F32 => backward_in::<f32>(x, w, d_out, dy, of_x, wanted),
        Precision::Bf16 => backward_in::<Pair>(x, w, d_out, dy, of_x, wanted),
    }
}

fn backward_in<U: Unit>(
    x: &[f32],
    w: &[f32],
    d_out: usize,
    dy: &[f32],
    of_x: bool,
    wanted: Wanted,
) -> (Option<Vec<f32>>, Gradients) {
    positive("d_out", d_out);
    let d_in = width_of("w", w, d_out);
    let rows = rows_of("dy", dy, d_out);
    if wanted.needs_rows() {
        fits("x", x, &[rows, d_in]);
    }
    wanted.check(d_in, d_out);
    let dx = of_x.then(|| rows_product(dy, Panels::<U>::new(Matrix::new(w, d_out, d_in)).view(), Onto::Zero));
    (dx, parameter_gradients::<U>(x, d_in, dy, d_out, wanted))
}

/// Gradients of the parameters of a layer that read `x [rows, d_in]`.
pub(crate) fn parameter_gradients<U: Unit>(
    x: &[f32],
    d_in: usize,
    dy: &[f32],
    d_out: usize,
    wanted: Wanted,
) -> Gradients {
    let of_weight = || {
        let low_rank = wanted.low_rank.map(|part| {
            let mut factors = Factors::<U>::new(part);
            factors.add(Rows::Dense(x), Rows::Dense(dy));
            factors.finish()
        });
        (wanted.weight.then(|| weight_gradient::<U>(x, d_in, dy, d_out)), low_rank)
    };
    let ((weight, low_rank), bias) = rayon::join(of_weight, || wanted.bias.then(|| column_sums(dy, d_out)));
    Gradients { weight, bias, low_rank }
}

/// `dyᵀ · x`, `[d_out, d_in]`, with the wider matrix where the product wants it.
fn weight_gradient<U: Unit>(x: &[f32], d_in: usize, dy: &[f32], d_out: usize) -> Vec<f32> {
    let mut dw = vec![0.0; d_in * d_out];
    if d_in >= d_out {
        transposed::<U>(&mut dw, dy, d_out, x, d_in, Onto::Zero);
    } else {
        turned::<U>(&mut dw, x, d_in, dy, d_out, Onto::Zero);
    }
    dw
}

/// Sum of the rows of a matrix with `width` columns.
pub(crate) fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    sum_over_rows(x.len() / width, width, |rows, sum| add_rows(&x[rows.start * width..rows.end * width], sum))
}

simd! {
    /// Adds the rows of `x` to `sum`.
    pub(crate) fn add_rows[FMA](x: &[f32], sum: &mut [f32]) {
        for row in x.chunks_exact(sum.len()) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_rank::test::Owned;
    use crate::product::TILE;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn reference(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let (d_out, d_in) = (b.len(), w.len() / b.len());
        let dot = |row: &[f64], o: usize| row.iter().zip(&w[o * d_in..]).map(|(x, w)| x * w).sum::<f64>() + b[o];
        x.chunks(d_in).flat_map(|row| (0..d_out).map(move |o| dot(row, o))).collect()
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        for (rows, d_in, d_out) in [(1, 3, 4), (7, 4, 3), (TILE, 3, 4), (TILE + 3, 4, 3)] {
            let (x, w, b, dy) =
                (noise(rows * d_in, 1), noise(d_in * d_out, 2), noise(d_out, 3), noise(rows * d_out, 4));
            let want: Vec<f32> = reference(&wide(&x), &wide(&w), &wide(&b)).iter().map(|&v| v as f32).collect();
            assert_close(&forward(&x, &w, &b, Precision::F32), &want);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| {
                reference(x, w, b).iter().zip(&dy).map(|(y, &d)| y * f64::from(d)).sum::<f64>()
            };
            if rows < TILE {
                let (dx, g) = backward(&x, &w, d_out, &dy, true, Wanted::ALL, Precision::F32);
                assert_gradient(&dx.unwrap(), &x, |x| loss(x, &wide(&w), &wide(&b)));
                assert_gradient(&g.weight.unwrap(), &w, |w| loss(&wide(&x), w, &wide(&b)));
                assert_gradient(&g.bias.unwrap(), &b, |b| loss(&wide(&x), &wide(&w), b));
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_found_and_changes_nothing() {
        let (rows, d_in, d_out) = (TILE + 3, 20, 12);
        let (x, w, dy) = (noise(rows * d_in, 1), noise(d_in * d_out, 2), noise(rows * d_out, 3));
        let part = Owned::new(d_in, d_out, 4, 5);
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |x: &[f32], of_x, wanted| backward(x, &w, d_out, &dy, of_x, wanted, precision);
            let (dx, all) = run(&x, true, Wanted { low_rank: Some(part.view()), ..Wanted::ALL });
            assert_eq!(run(&[], true, Wanted::default()), (dx, Gradients::default()));
            let bias = Wanted { bias: true, ..Wanted::default() };
            assert_eq!(run(&[], false, bias), (None, Gradients { bias: all.bias, ..Gradients::default() }));
            let low_rank = Wanted { low_rank: Some(part.view()), ..Wanted::default() };
            let found = run(&x, false, low_rank).1;
            assert_eq!(found, Gradients { low_rank: all.low_rank, ..Gradients::default() });
            if precision == Precision::F32 {
                part.assert_gradients(found.low_rank.as_ref(), all.weight.as_ref());
            }
        }
    }

    #[test]
    fn gradients_of_a_low_rank_part_match_the_definition() {
        let (rows, d_in, d_out) = (7, 4, 3);
        let (x, w, b, dy) = (noise(rows * d_in, 1), noise(d_in * d_out, 2), vec![0.0; d_out], noise(rows * d_out, 4));
        let part = Owned::new(d_in, d_out, 2, 5);
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let loss = |pa: &[f64], pb: &[f64]| {
            let sum = |at: usize| (0..2).map(|r| pb[at / d_in * 2 + r] * pa[r * d_in + at % d_in]).sum::<f64>();
            let w: Vec<f64> = w.iter().enumerate().map(|(at, &w)| f64::from(w) + 0.75 * sum(at)).collect();
            reference(&wide(&x), &w, &wide(&b)).iter().zip(&dy).map(|(y, &d)| y * f64::from(d)).sum::<f64>()
        };
        let wanted = Wanted { low_rank: Some(part.view()), ..Wanted::default() };
        let found = backward(&x, &part.view().added_to(&w), d_out, &dy, false, wanted, Precision::F32).1;
        let [da, db] = found.low_rank.unwrap();
        assert_gradient(&da, &part.a, |a| loss(a, &wide(&part.b)));
        assert_gradient(&db, &part.b, |b| loss(&wide(&part.a), b));
    }

    #[test]
    fn bf16_is_near() {
        let (rows, d_in, d_out) = (50, 64, 40);
        let (x, w, b, dy) = (noise(rows * d_in, 1), noise(d_in * d_out, 2), noise(d_out, 3), noise(rows * d_out, 4));
        let near = |a: &[f32], b: &[f32]| {
            let scale = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.02 * scale)
        };
        assert!(near(&forward(&x, &w, &b, Precision::Bf16), &forward(&x, &w, &b, Precision::F32)));
        let part = Owned::new(d_in, d_out, 8, 5);
        let wanted = Wanted { low_rank: Some(part.view()), ..Wanted::ALL };
        let run = |precision| {
            let (dx, g) = backward(&x, &w, d_out, &dy, true, wanted, precision);
            let [da, db] = g.low_rank.unwrap();
            ([dx.unwrap(), g.weight.unwrap(), da, db], g.bias)
        };
        let ((got, bias), (want, same)) = (run(Precision::Bf16), run(Precision::F32));
        assert!(got.iter().zip(&want).all(|(got, want)| near(got, want)) && bias == same);
    }
}
