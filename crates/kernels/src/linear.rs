//! A linear layer, `y = x · wᵀ + b`.

use crate::product::{Matrix, Onto, Pair, Panels, Precision, Unit, rows_times, transpose, transposed};
use crate::rows::{for_overwrite, sum_over_rows};
use crate::simd::simd;

/// `x [rows, d_in]`, `w [d_out, d_in]`, `b [d_out]` to `[rows, d_out]`.
///
/// # Panics
/// If the slices do not fit these shapes.
pub fn forward(x: &[f32], w: &[f32], b: &[f32], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => forward_in::<f32>(x, w, b),
        Precision::Bf16 => forward_in::<Pair>(x, w, b),
    }
}

fn forward_in<U: Unit>(x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let d_in = w.len() / b.len();
    let mut y = for_overwrite(x.len() / d_in * b.len());
    let w = Panels::<U>::new(Matrix::new(w, b.len(), d_in).transposed());
    rows_times(&mut y, x, w.view(), Onto::Row(b));
    y
}

/// Gradients of [`forward`].
pub struct Gradients {
    /// `[rows, d_in]`.
    pub x: Vec<f32>,
    /// `[d_out, d_in]`.
    pub w: Vec<f32>,
    /// `[d_out]`.
    pub b: Vec<f32>,
}

/// Gradients of [`forward`] at `x`, `w` for the output gradient `dy [rows, d_out]`.
pub fn backward(x: &[f32], w: &[f32], d_out: usize, dy: &[f32], precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => backward_in::<f32>(x, w, d_out, dy),
        Precision::Bf16 => backward_in::<Pair>(x, w, d_out, dy),
    }
}

fn backward_in<U: Unit>(x: &[f32], w: &[f32], d_out: usize, dy: &[f32]) -> Gradients {
    let d_in = w.len() / d_out;
    let mut dx = for_overwrite(x.len());
    let (w, b) = rayon::join(
        || {
            rows_times(&mut dx, dy, Panels::<U>::new(Matrix::new(w, d_out, d_in)).view(), Onto::Zero);
            weight_gradient::<U>(x, d_in, dy, d_out)
        },
        || column_sums(dy, d_out),
    );
    Gradients { x: dx, w, b }
}

/// `dyᵀ · x`, `[d_out, d_in]`, with the wider matrix where the product wants it.
pub(crate) fn weight_gradient<U: Unit>(x: &[f32], d_in: usize, dy: &[f32], d_out: usize) -> Vec<f32> {
    let mut dw = vec![0.0; d_in * d_out];
    if d_in >= d_out {
        transposed::<U>(&mut dw, dy, d_out, x, d_in);
        return dw;
    }
    transposed::<U>(&mut dw, x, d_in, dy, d_out);
    transpose(&dw, d_in, d_out)
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
            let gradients = backward(&x, &w, d_out, &dy, Precision::F32);
            if rows < TILE {
                assert_gradient(&gradients.x, &x, |x| loss(x, &wide(&w), &wide(&b)));
                assert_gradient(&gradients.w, &w, |w| loss(&wide(&x), w, &wide(&b)));
                assert_gradient(&gradients.b, &b, |b| loss(&wide(&x), &wide(&w), b));
            }
        }
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
        let (g, want) = (backward(&x, &w, d_out, &dy, Precision::Bf16), backward(&x, &w, d_out, &dy, Precision::F32));
        assert!(near(&g.x, &want.x) && near(&g.w, &want.w) && g.b == want.b);
    }
}
