//! How positions enter: slopes of `ALiBi`, and the angles by which rows are turned.

use crate::rows::for_overwrite;
use crate::simd::{fma, simd};
use rayon::prelude::*;

/// Slopes of `ALiBi`: powers of `2^(−8/n)`; where the number of heads is no power of two, those of the power of two below, then every
/// other one of twice as many.
pub fn alibi_slopes(heads: usize) -> Vec<f32> {
    let slopes = |n: usize| (1..=n).map(move |h| (-8.0 * h as f64 / n as f64).exp2() as f32);
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    slopes(whole).chain(slopes(2 * whole).step_by(2)).take(heads).collect()
}

/// Cosines, then sines of the angles of each position, `[length, 2, half]`.
pub(super) fn rotations(theta: f32, length: usize, half: usize) -> Vec<f32> {
    // Rounded to f32 here and at the product, as PyTorch's f32 tensors are: at far positions a last bit is a visible angle.
    let speeds: Vec<f32> =
        (0..half).map(|i| f64::from(theta).powf(f64::from(-(i as f32 / half as f32))) as f32).collect();
    let mut table = for_overwrite(length * 2 * half);
    table.par_chunks_mut((2 * half).max(1)).enumerate().for_each(|(position, row)| {
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), speed) in cos.iter_mut().zip(sin).zip(&speeds) {
            (*sin, *cos) = (position as f32 * speed).sin_cos();
        }
    });
    table
}

simd! {
    /// Rows at some positions times `scale`, rotated forward if there is a table, in place.
    pub(super) fn rotate[FMA](rows: &mut [f32], width: usize, positions: &[u32], table: &[f32], scale: f32) {
        let half = width / 2;
        for (row, &position) in rows.chunks_exact_mut(width).zip(positions) {
            if table.is_empty() {
                for x in row {
                    *x *= scale;
                }
                continue;
            }
            let (cos, sin) = table[position as usize * width..][..width].split_at(half);
            let (a, b) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                let (x, y) = (*a, *b);
                *a = fma::<FMA>(x, *cos, -(y * sin)) * scale;
                *b = fma::<FMA>(y, *cos, x * sin) * scale;
            }
        }
    }
}

simd! {
    /// Gradients of what [`rotate`] read, out of those of what it wrote, in place.
    pub(super) fn rotate_back[FMA](rows: &mut [f32], width: usize, positions: &[u32], table: &[f32], scale: f32) {
        let half = width / 2;
        for (row, &position) in rows.chunks_exact_mut(width).zip(positions) {
            if table.is_empty() {
                for x in row {
                    *x *= scale;
                }
                continue;
            }
            let (cos, sin) = table[position as usize * width..][..width].split_at(half);
            let (a, b) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                let (x, y) = (*a * scale, *b * scale);
                *a = fma::<FMA>(x, *cos, y * sin);
                *b = fma::<FMA>(y, *cos, -(x * sin));
            }
        }
    }
}
