//! Matrix products: a checked wrapper around the `gemm` crate, and the tile that makes rows reproducible.

use gemm::Parallelism;

/// Rows that a forward kernel multiplies at a time. Every product of a forward pass has exactly this many rows, the last tile
/// being padded: the `gemm` crate picks its loop by shape, so with one shape a row's sums run in one order.
pub const TILE: usize = 256;

/// A view of a matrix in a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows, cols]`.
    ///
    /// # Panics
    /// If the slice is shorter than `rows * cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "a [{rows}, {cols}] matrix does not fit a slice of {}", data.len());
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transposed view; nothing moves.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread: for products inside a parallel loop.
    One,
    /// All threads of the current rayon pool. The inner dimension is never divided, so the result is the same.
    All,
}

/// `out = a · b`, or `out += a · b` if `accumulate`; `out` is row-major.
///
/// # Panics
/// If the inner dimensions differ or `out` is not `[a.rows, b.cols]`.
pub fn multiply(out: &mut [f32], a: Matrix, b: Matrix, accumulate: bool, threads: Threads) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert_eq!(out.len(), a.rows * b.cols, "size of the product");
    let stride = |s: usize| s as isize;
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: `Matrix::new` and the two assertions bound every element that these strides reach, and `out` is borrowed
    // mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            stride(b.cols),
            accumulate,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A row-major copy of the transpose of `[rows, cols]`. Products read their right operand fastest in this form, and one copy
/// a call is cheap beside the rows it serves.
pub fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(data.len(), rows * cols);
    let mut out = vec![0.0; data.len()];
    for (r, row) in data.chunks_exact(cols.max(1)).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::test::{assert_close, noise};

    fn naive(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
        let at =
            |i: usize, j: usize| (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum::<f64>() as f32;
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    #[test]
    fn agrees_with_three_loops() {
        for (m, k, n) in [(1, 1, 1), (5, 3, 7), (64, 20, 33), (256, 64, 48)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let want = naive(&a, &b, m, k, n);
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            for threads in [Threads::One, Threads::All] {
                let mut out = vec![1.0; m * n];
                multiply(&mut out, Matrix::new(&a, m, k), Matrix::new(&b, k, n), false, threads);
                assert_close(&out, &want);
                multiply(
                    &mut out,
                    Matrix::new(&at, k, m).transposed(),
                    Matrix::new(&bt, n, k).transposed(),
                    false,
                    threads,
                );
                assert_close(&out, &want);
            }
        }
    }

    /// The promise of [`TILE`]: a row has the same bits at every place of a tile, for all widths of the presets.
    #[test]
    fn a_row_has_the_same_bits_anywhere_in_a_tile() {
        for (k, n) in
            [(8, 3), (64, 128), (128, 512), (512, 128), (128, 256), (256, 384), (384, 1536), (1536, 384), (384, 2048)]
        {
            let (row, b) = (noise(k, 3), noise(k * n, 4));
            let product = |place: usize, seed: u64| {
                let mut a = noise(TILE * k, seed);
                a[place * k..(place + 1) * k].copy_from_slice(&row);
                let mut out = vec![0.0; TILE * n];
                multiply(&mut out, Matrix::new(&a, TILE, k), Matrix::new(&b, k, n), false, Threads::One);
                out[place * n..(place + 1) * n].iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let first = product(0, 5);
            for place in [1, 7, 8, 100, TILE - 2, TILE - 1] {
                assert_eq!(first, product(place, 6), "place {place} of [{TILE}, {k}] · [{k}, {n}]");
            }
        }
    }
}
