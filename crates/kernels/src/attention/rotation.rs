//! How positions enter: slopes of `ALiBi`, and the angles by which rows are turned.

use super::FURTHEST;
use crate::fresh::{self, Unwritten};
use crate::shape::count;
use crate::simd::{fma, simd};

/// Slopes of `ALiBi`, one a head: 2^(−8(h+1)/n) for n heads if n is a power of two, else those of the power of two below, followed by
/// every other slope of the power of two above (Press et al. 2022, and DNABERT-2).
///
/// # Panics
/// If there are more than 2¹⁶ heads.
#[must_use]
pub fn alibi_slopes(heads: usize) -> Vec<f32> {
    assert!(heads <= 1 << 16, "`heads` is {heads}, but must be at most 65536");
    let slopes = |n: usize| (1..=n).map(move |h| (-8.0 * h as f64 / n as f64).exp2() as f32);
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    slopes(whole).chain(slopes(2 * whole).step_by(2)).take(heads).collect()
}

/// Cosines, then sines of the angles by which the pairs of a row turn, `[length, 2, half]`: `position · theta^(−i / half)` (Su et al.
/// 2021).
///
/// # Panics
/// If there are more positions than an `f32` numbers exactly, 2²⁴, or the table has more elements than can be counted.
#[must_use]
pub fn rotary_table(theta: f32, length: usize, half: usize) -> Vec<f32> {
    assert!(length <= FURTHEST, "`length` is {length}, but must be at most {FURTHEST}");
    let size = count("table", &[length, 2, half]);
    if size == 0 {
        return Vec::new();
    }
    // Rounded to f32 here and at the product, as PyTorch's f32 tensors are: at far positions a last bit is a visible angle.
    let speeds: Vec<f32> =
        (0..half).map(|i| f64::from(theta).powf(f64::from(-(i as f32 / half as f32))) as f32).collect();
    fresh::chunks(size, 2 * half, |position, row| {
        let row = row.cleared();
        let (cos, sin) = row.split_at_mut(half);
        for ((cos, sin), speed) in cos.iter_mut().zip(sin).zip(&speeds) {
            (*sin, *cos) = (position as f32 * speed).sin_cos();
        }
        row
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// B4 of `docs/vectors.md`.
    #[test]
    fn slopes_are_those_of_the_paper() {
        assert!(alibi_slopes(0).is_empty());
        assert_eq!(alibi_slopes(1), [0.003_906_25]);
        assert_eq!(alibi_slopes(2), [0.0625, 0.003_906_25]);
        assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
        let of_twelve: Vec<f32> = (1..=8)
            .map(|h| (-f64::from(h)).exp2() as f32)
            .chain([0.5, 1.5, 2.5, 3.5].map(|e: f32| (-e).exp2()))
            .collect();
        assert_eq!(alibi_slopes(12), of_twelve);
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_position() {
        let table = rotary_table(100.0, 3, 2);
        let angles = [[0.0f64, 0.0], [1.0, 0.1], [2.0, 0.2]];
        let want = angles.iter().flat_map(|row| row.map(f64::cos).into_iter().chain(row.map(f64::sin)));
        assert!(table.iter().zip(want).all(|(&got, want)| (f64::from(got) - want).abs() < 1e-7), "{table:?}");
    }
}
