//! What operands are made of: 32 bits that one multiply-add reads.

use crate::rows::{as_units, for_overwrite};
use crate::simd::simd;
use rayon::prelude::*;
use std::borrow::Cow;

/// How products are computed. Sums are `f32` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Operands in single precision.
    #[default]
    F32,
    /// Operands rounded to bf16, to nearest even. Processors with AVX-512 BF16 multiply them twice as fast.
    Bf16,
}

/// Two bf16 that are adjacent in the inner dimension; the first in the low half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pair(u32);

/// 32 bits of an operand: an `f32`, or a [`Pair`].
pub trait Unit: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// Elements of the inner dimension in a unit.
    const DEPTH: usize;

    /// Floats of scratch that [`Unit::of_rows`] needs for `rows` rows of `width`.
    fn scratch(rows: usize, width: usize) -> usize;

    /// Rows of `width` numbers that begin `stride` apart, as units, and how far apart rows of units begin: the slice itself where
    /// a unit is a float, else written densely into `scratch`.
    fn of_rows<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize);

    /// Rows of `width` numbers that begin `stride` apart, where the *rows* are the inner dimension: as steps of `width` units, and how
    /// far apart steps begin. The slice itself where a unit is a float, else `rows.div_ceil(2) * width` units in `scratch`.
    fn of_steps<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize);

    /// [`Unit::of_steps`] of a dense matrix, in parallel.
    fn of_steps_parallel<'a>(x: &'a [f32], width: usize, scratch: &'a mut Vec<f32>) -> &'a [Self];

    /// Units as long as this, to be written before they are read.
    fn for_overwrite(length: usize) -> Vec<Self>;

    /// From the elements of the inner dimension; `second` is 0 beyond its end and unused where [`Unit::DEPTH`] is 1.
    fn new(first: f32, second: f32) -> Self;

    /// Units of two rows, element by element.
    fn zip(first: &[f32], second: Option<&[f32]>, out: &mut [Self]);

    /// Scratch as units.
    fn from_floats_mut(floats: &mut [f32]) -> &mut [Self] {
        // SAFETY: a sealed trait; both units have the size and alignment of `f32`, and any bits are valid for both.
        unsafe { as_units(floats) }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Pair {}
}

impl Unit for f32 {
    const DEPTH: usize = 1;

    fn scratch(_: usize, _: usize) -> usize {
        0
    }

    fn of_rows<'a>(x: &'a [f32], stride: usize, _: usize, _: &'a mut [f32]) -> (&'a [Self], usize) {
        (x, stride)
    }

    fn of_steps<'a>(x: &'a [f32], stride: usize, _: usize, _: &'a mut [f32]) -> (&'a [Self], usize) {
        (x, stride)
    }

    fn of_steps_parallel<'a>(x: &'a [f32], _: usize, _: &'a mut Vec<f32>) -> &'a [Self] {
        x
    }

    fn for_overwrite(length: usize) -> Vec<Self> {
        for_overwrite(length)
    }

    fn new(first: f32, _: f32) -> Self {
        first
    }

    fn zip(first: &[f32], _: Option<&[f32]>, out: &mut [Self]) {
        out.copy_from_slice(first);
    }
}

impl Unit for Pair {
    const DEPTH: usize = 2;

    fn scratch(rows: usize, width: usize) -> usize {
        rows * width.div_ceil(2)
    }

    fn of_rows<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize) {
        let (rows, steps) = ((x.len() - width) / stride + 1, width.div_ceil(2));
        let out = Self::from_floats_mut(&mut scratch[..rows * steps]);
        neighbours(x, stride, width, out);
        (out, steps)
    }

    fn of_steps<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize) {
        let steps = ((x.len() - width) / stride + 1).div_ceil(2);
        let out = Self::from_floats_mut(&mut scratch[..steps * width]);
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks(2 * stride)) {
            Self::zip(&x[..width], x.get(stride..stride + width), out);
        }
        (out, width)
    }

    fn of_steps_parallel<'a>(x: &'a [f32], width: usize, scratch: &'a mut Vec<f32>) -> &'a [Self] {
        let steps = (x.len() / width).div_ceil(2);
        *scratch = for_overwrite(steps * width);
        scratch.par_chunks_mut(64 * width).zip(x.par_chunks(128 * width)).for_each(|(out, x)| {
            Self::of_steps(x, width, width, out);
        });
        Self::from_floats_mut(scratch)
    }

    fn for_overwrite(length: usize) -> Vec<Self> {
        for_overwrite(length)
    }

    fn new(first: f32, second: f32) -> Self {
        Self(u32::from(narrow(first)) | u32::from(narrow(second)) << 16)
    }

    fn zip(first: &[f32], second: Option<&[f32]>, out: &mut [Self]) {
        let second = second.map_or_else(|| Cow::Owned(vec![0.0; first.len()]), Cow::Borrowed);
        pairs(first, &second, out);
    }
}

simd! {
    /// Adjacent numbers of each row as pairs; an odd last one is joined by 0.
    fn neighbours[FMA](x: &[f32], stride: usize, width: usize, out: &mut [Pair]) {
        for (x, out) in x.chunks(stride).zip(out.chunks_exact_mut(width.div_ceil(2))) {
            let whole = x[..width].chunks_exact(2);
            if let ([last], Some(out)) = (whole.remainder(), out.last_mut()) {
                *out = Pair(u32::from(narrow(*last)));
            }
            for (out, x) in out.iter_mut().zip(whole) {
                *out = Pair(u32::from(narrow(x[0])) | u32::from(narrow(x[1])) << 16);
            }
        }
    }
}

simd! {
    /// Numbers at the same place of two rows as pairs.
    fn pairs[FMA](first: &[f32], second: &[f32], out: &mut [Pair]) {
        for ((out, &a), &b) in out.iter_mut().zip(first).zip(second) {
            *out = Pair(u32::from(narrow(a)) | u32::from(narrow(b)) << 16);
        }
    }
}

/// To bf16, to nearest even; a NaN stays one.
#[inline(always)]
pub(super) fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7FC0 } else { rounded as u16 }
}

/// From bf16, exactly.
#[cfg(test)]
pub(super) fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(narrow(1.0), 0x3F80);
        assert_eq!(widen(narrow(1.0 + 1.0 / 256.0)), 1.0, "a tie goes to the even neighbour below");
        assert_eq!(widen(narrow(1.0 + 3.0 / 256.0)), 1.0 + 4.0 / 256.0, "and above");
        assert_eq!(widen(narrow(-1.0 - 1.1 / 256.0)), -1.0 - 2.0 / 256.0);
        assert!(widen(narrow(f32::NAN)).is_nan());
        assert_eq!(widen(narrow(f32::INFINITY)), f32::INFINITY);
    }

    #[test]
    fn odd_rows_end_in_a_half_pair() {
        let mut scratch = vec![0.0; 4];
        let pairs = Pair::of_rows(&[1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0], 4, 3, &mut scratch);
        assert_eq!(pairs.0, [Pair::new(1.0, 2.0), Pair::new(3.0, 0.0), Pair::new(4.0, 5.0), Pair::new(6.0, 0.0)]);
    }
}
