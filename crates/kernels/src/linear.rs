//! A linear layer, `y = x · wᵀ + b`.

use crate::product::{Matrix, TILE, Threads, multiply, transpose};
use crate::rows::{sum_over_rows, with_scratch};
use rayon::prelude::*;

/// `x [rows, d_in]`, `w [d_out, d_in]`, `b [d_out]` to `[rows, d_out]`.
///
/// # Panics
/// If the slices do not fit these shapes.
pub fn forward(x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let d_out = b.len();
    let d_in = w.len() / d_out;
    let wt = transpose(w, d_out, d_in);
    let mut y = vec![0.0; x.len() / d_in * d_out];
    y.par_chunks_mut(TILE * d_out).zip(x.par_chunks(TILE * d_in)).for_each(|(y, x)| {
        with_tile(x, d_in, y, d_out, |x, y| {
            y.chunks_exact_mut(d_out).for_each(|row| row.copy_from_slice(b));
            multiply(y, Matrix::new(x, TILE, d_in), Matrix::new(&wt, d_in, d_out), true, Threads::One);
        });
    });
    y
}

/// Runs `work` on whole tiles: the last one is padded with zeros beside, so that every product has one shape.
fn with_tile(x: &[f32], d_in: usize, y: &mut [f32], d_out: usize, work: impl FnOnce(&[f32], &mut [f32])) {
    if y.len() == TILE * d_out {
        return work(x, y);
    }
    with_scratch([TILE * d_in, TILE * d_out], |[padded, out]| {
        padded[..x.len()].copy_from_slice(x);
        padded[x.len()..].fill(0.0);
        work(padded, out);
        y.copy_from_slice(&out[..y.len()]);
    });
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
pub fn backward(x: &[f32], w: &[f32], d_out: usize, dy: &[f32]) -> Gradients {
    let (rows, d_in) = (dy.len() / d_out, w.len() / d_out);
    let mut gradients = Gradients { x: vec![0.0; x.len()], w: vec![0.0; w.len()], b: column_sums(dy, d_out) };
    let dy = Matrix::new(dy, rows, d_out);
    multiply(&mut gradients.x, dy, Matrix::new(w, d_out, d_in), false, Threads::All);
    multiply(&mut gradients.w, dy.transposed(), Matrix::new(x, rows, d_in), false, Threads::All);
    gradients
}

/// Sum of the rows of a matrix with `width` columns.
pub(crate) fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    sum_over_rows(x.len() / width, width, |rows, sum| {
        for row in x[rows.start * width..rows.end * width].chunks_exact(width) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, assert_gradient, noise};

    fn reference(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let (d_out, d_in) = (b.len(), w.len() / b.len());
        let dot = |row: &[f64], o: usize| row.iter().zip(&w[o * d_in..]).map(|(x, w)| x * w).sum::<f64>() + b[o];
        x.chunks(d_in).flat_map(|row| (0..d_out).map(move |o| dot(row, o))).collect()
    }

    #[test]
    fn forward_and_gradients_match_the_definition() {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        for rows in [1, 7, TILE, TILE + 3] {
            let (d_in, d_out) = (3, 4);
            let (x, w, b, dy) =
                (noise(rows * d_in, 1), noise(d_in * d_out, 2), noise(d_out, 3), noise(rows * d_out, 4));
            let want: Vec<f32> = reference(&wide(&x), &wide(&w), &wide(&b)).iter().map(|&v| v as f32).collect();
            assert_close(&forward(&x, &w, &b), &want);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| {
                reference(x, w, b).iter().zip(&dy).map(|(y, &d)| y * f64::from(d)).sum::<f64>()
            };
            let gradients = backward(&x, &w, d_out, &dy);
            if rows < TILE {
                assert_gradient(&gradients.x, &x, |x| loss(x, &wide(&w), &wide(&b)));
                assert_gradient(&gradients.w, &w, |w| loss(&wide(&x), w, &wide(&b)));
                assert_gradient(&gradients.b, &b, |b| loss(&wide(&x), &wide(&w), b));
            }
        }
    }
}
