//! What operands are made of: 32 bits that one multiply-add reads.

use crate::fresh::{Plain, cast, cast_mut, cast_vec};
use crate::rows::for_overwrite;
use crate::simd::{native_bf16, simd};
use rayon::prelude::*;

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
pub trait Unit: Plain {
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

    /// Rows of `width` numbers that begin `stride` apart, where the *rows* are the inner dimension: as steps of `width` units that begin
    /// `out_stride` apart in `out`.
    fn pack_steps(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize);

    /// [`Unit::pack_steps`] of dense rows that `write` writes: straight into `out`, which is returned, where a unit is a float, else by
    /// way of `buffer`, which then holds them too.
    fn write_steps<'a>(
        out: &'a mut [Self],
        buffer: &mut [f32],
        width: usize,
        write: impl FnOnce(&mut [f32]),
    ) -> Option<&'a [f32]>;

    /// Steps of `width` units, back as dense rows: as many as `out` holds.
    fn read_steps(steps: &[Self], width: usize, out: &mut [f32]);

    /// Units of a row of so many numbers.
    #[must_use]
    fn width(numbers: usize) -> usize {
        numbers.div_ceil(Self::DEPTH)
    }

    /// Rows of `width` numbers that begin `stride` apart, as rows of units that begin `out_stride` apart.
    fn write_rows(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize);

    /// Rows of units that begin `stride` apart, back as dense rows of `width` numbers: as many as `out` holds.
    fn read_rows(units: &[Self], stride: usize, width: usize, out: &mut [f32]);

    /// All numbers of rows of `width`, dense: the slice itself where a unit is a float, else read into `buffer`,
    /// in parallel.
    fn numbers<'a>(units: &'a [Self], width: usize, buffer: &'a mut Vec<f32>) -> &'a [f32];

    /// Scratch as units.
    fn from_floats_mut(floats: &mut [f32]) -> &mut [Self] {
        cast_mut(floats)
    }
}

/// Rows in the units of a precision: what a forward pass keeps for its backward pass. In bf16 they are rounded and take half the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved(Vec<u32>);

impl Saved {
    /// Room for rows of `width` numbers.
    pub(crate) fn new<U: Unit>(rows: usize, width: usize) -> Self {
        Self::of_units(rows * U::width(width))
    }

    /// Room for so many units.
    pub(crate) fn of_units(units: usize) -> Self {
        Self(for_overwrite(units))
    }

    /// Of units that were written.
    #[allow(dead_code)]
    pub(crate) fn from_units<U: Unit>(units: Vec<U>) -> Self {
        Self(cast_vec(units))
    }

    /// Whether nothing was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of dense rows of `width` numbers.
    #[must_use]
    pub fn of<U: Unit>(x: &[f32], width: usize) -> Self {
        let mut saved = Self::new::<U>(x.len() / width.max(1), width);
        U::write_rows(x, width.max(1), width, saved.units_mut(), U::width(width).max(1));
        saved
    }

    /// The numbers again, rows of `width`.
    #[must_use]
    pub fn numbers<U: Unit>(&self, width: usize) -> Vec<f32> {
        U::numbers(self.units(), width, &mut Vec::new()).to_vec()
    }

    /// The units, in the precision that they were written in.
    #[must_use]
    pub fn units<U: Unit>(&self) -> &[U] {
        cast(&self.0)
    }

    pub(crate) fn units_mut<U: Unit>(&mut self) -> &mut [U] {
        cast_mut(&mut self.0)
    }
}

// SAFETY: a `u32`, transparently, and any two bf16 are a pair.
unsafe impl Plain for Pair {}

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

    fn pack_steps(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        Self::write_rows(x, stride, width, out, out_stride);
    }

    fn write_steps<'a>(
        out: &'a mut [Self],
        _: &mut [f32],
        _: usize,
        write: impl FnOnce(&mut [f32]),
    ) -> Option<&'a [f32]> {
        write(out);
        Some(out)
    }

    fn read_steps(steps: &[Self], _: usize, out: &mut [f32]) {
        out.copy_from_slice(&steps[..out.len()]);
    }

    fn write_rows(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        for (out, x) in out.chunks_mut(out_stride).zip(x.chunks(stride)) {
            out[..width].copy_from_slice(&x[..width]);
        }
    }

    fn read_rows(units: &[Self], stride: usize, width: usize, out: &mut [f32]) {
        for (out, x) in out.chunks_exact_mut(width).zip(units.chunks(stride)) {
            out.copy_from_slice(&x[..width]);
        }
    }

    fn numbers<'a>(units: &'a [Self], _: usize, _: &'a mut Vec<f32>) -> &'a [f32] {
        units
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
        Self::write_rows(x, stride, width, out, steps);
        (out, steps)
    }

    fn of_steps<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize) {
        let steps = ((x.len() - width) / stride + 1).div_ceil(2);
        let out = Self::from_floats_mut(&mut scratch[..steps * width]);
        Self::pack_steps(x, stride, width, out, width);
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

    fn pack_steps(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        #[cfg(target_arch = "x86_64")]
        if native_bf16() {
            for (out, x) in out.chunks_mut(out_stride).zip(x.chunks(2 * stride)) {
                let (first, second) = (&x[..width], x.get(stride..stride + width).unwrap_or_default());
                // SAFETY: the processor has the instructions; both rows and `out` are as long as `width`, or the second is empty.
                unsafe { x86::pairs(first, second, &mut out[..width]) };
            }
            return;
        }
        let nothing = vec![0.0; width];
        for (out, x) in out.chunks_mut(out_stride).zip(x.chunks(2 * stride)) {
            pairs(&x[..width], x.get(stride..stride + width).unwrap_or(&nothing), &mut out[..width]);
        }
    }

    fn write_steps<'a>(
        out: &'a mut [Self],
        buffer: &mut [f32],
        width: usize,
        write: impl FnOnce(&mut [f32]),
    ) -> Option<&'a [f32]> {
        write(buffer);
        Self::pack_steps(buffer, width, width, out, width);
        None
    }

    fn read_steps(steps: &[Self], width: usize, out: &mut [f32]) {
        for (rows, pairs) in out.chunks_mut(2 * width).zip(steps.chunks(width)) {
            let (first, second) = rows.split_at_mut(width);
            low_halves(pairs, first);
            high_halves(pairs, second);
        }
    }

    fn write_rows(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        let pairs = Self::width(width);
        #[cfg(target_arch = "x86_64")]
        if native_bf16() {
            for (x, out) in x.chunks(stride).zip(out.chunks_mut(out_stride)) {
                // SAFETY: the processor has the instructions; `out` has a pair for each two numbers.
                unsafe { x86::neighbours(&x[..width], &mut out[..pairs]) };
            }
            return;
        }
        for (x, out) in x.chunks(stride).zip(out.chunks_mut(out_stride)) {
            neighbours(&x[..width], &mut out[..pairs]);
        }
    }

    fn read_rows(units: &[Self], stride: usize, width: usize, out: &mut [f32]) {
        let pairs = Self::width(width);
        for (out, units) in out.chunks_exact_mut(width).zip(units.chunks(stride)) {
            widen_pairs(&units[..pairs], out);
        }
    }

    fn numbers<'a>(units: &'a [Self], width: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let stride = Self::width(width);
        *buffer = for_overwrite(units.len() / stride.max(1) * width);
        let tiles = buffer.par_chunks_mut((128 * width).max(1)).zip(units.par_chunks((128 * stride).max(1)));
        tiles.for_each(|(out, units)| Self::read_rows(units, stride, width, out));
        buffer
    }
}

/// Conversions with the instructions of AVX-512 BF16, which take numbers below 2⁻¹²⁶ as 0, as the products do.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Pair;
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps,
        _mm512_permutexvar_epi16,
    };

    fn lanes(left: usize) -> u16 {
        if left >= 16 { !0 } else { (1 << left) - 1 }
    }

    fn bits(v: __m512bh) -> __m512i {
        // SAFETY: both are 512 bits.
        unsafe { std::mem::transmute(v) }
    }

    /// # Safety
    /// The processor has the features; `first` and `second` are as long as `out`, or `second` is empty.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,avx512bf16")]
    pub(super) unsafe fn pairs(first: &[f32], second: &[f32], out: &mut [Pair]) {
        // From [first | second] to pairs.
        let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        for i in (0..out.len()).step_by(16) {
            let mask = lanes(out.len() - i);
            // SAFETY: masks end with the rows.
            unsafe {
                let order = _mm512_loadu_si512(order.as_ptr().cast());
                let a = _mm512_maskz_loadu_ps(mask, first.as_ptr().add(i));
                let mask_b = if second.is_empty() { 0 } else { mask };
                let b = _mm512_maskz_loadu_ps(mask_b, second.as_ptr().wrapping_add(i));
                let pairs = _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(b, a)));
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(i).cast(), mask, pairs);
            }
        }
    }

    /// # Safety
    /// The processor has the features; `out` is half as long as `x`, rounded up.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,avx512bf16")]
    pub(super) unsafe fn neighbours(x: &[f32], out: &mut [Pair]) {
        for i in (0..out.len()).step_by(16) {
            let left = x.len() - 2 * i;
            // SAFETY: masks end with the rows.
            unsafe {
                let a = _mm512_maskz_loadu_ps(lanes(left), x.as_ptr().add(2 * i));
                let b = _mm512_maskz_loadu_ps(lanes(left.saturating_sub(16)), x.as_ptr().wrapping_add(2 * i + 16));
                let pairs = bits(_mm512_cvtne2ps_pbh(b, a));
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(i).cast(), lanes(out.len() - i), pairs);
            }
        }
    }
}

simd! {
    /// Adjacent numbers of a row as pairs; an odd last one is joined by 0.
    fn neighbours[FMA](x: &[f32], out: &mut [Pair]) {
        let whole = x.chunks_exact(2);
        if let ([last], Some(out)) = (whole.remainder(), out.last_mut()) {
            *out = Pair(u32::from(narrow(*last)));
        }
        for (out, x) in out.iter_mut().zip(whole) {
            *out = Pair(u32::from(narrow(x[0])) | u32::from(narrow(x[1])) << 16);
        }
    }
}

simd! {
    /// The numbers of pairs, as many as `out` holds.
    fn widen_pairs[FMA](pairs: &[Pair], out: &mut [f32]) {
        let (halves, last) = out.as_chunks_mut::<2>();
        for (out, pair) in halves.iter_mut().zip(pairs) {
            *out = [f32::from_bits(pair.0 << 16), f32::from_bits(pair.0 & 0xFFFF_0000)];
        }
        if let ([out], Some(pair)) = (last, pairs.last()) {
            *out = f32::from_bits(pair.0 << 16);
        }
    }
}

simd! {
    /// The first number of each pair.
    fn low_halves[FMA](pairs: &[Pair], out: &mut [f32]) {
        for (out, pair) in out.iter_mut().zip(pairs) {
            *out = f32::from_bits(pair.0 << 16);
        }
    }
}

simd! {
    /// The second number of each pair.
    fn high_halves[FMA](pairs: &[Pair], out: &mut [f32]) {
        for (out, pair) in out.iter_mut().zip(pairs) {
            *out = f32::from_bits(pair.0 & 0xFFFF_0000);
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

/// What bf16 keeps of a number; anything of a NaN.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
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
    fn rows_join_as_pairs_with_nothing_behind_the_last() {
        for width in [1, 5, 16, 40] {
            let x: Vec<f32> = (0..3 * width).map(|i| i as f32 * 0.7 - 9.0).collect();
            let mut out = vec![Pair::default(); 2 * width + 3];
            Pair::pack_steps(&x, width, width, &mut out, width + 3);
            for i in 0..width {
                assert_eq!(out[i], Pair::new(x[i], x[width + i]));
                assert_eq!(out[width + 3 + i], Pair::new(x[2 * width + i], 0.0));
            }
            let mut scratch = vec![0.0; 3 * width.div_ceil(2)];
            let (pairs, stride) = Pair::of_rows(&x, width, width, &mut scratch);
            for (i, pair) in pairs.iter().enumerate() {
                let (row, at) = (&x[i / stride * width..][..width], 2 * (i % stride));
                assert_eq!(*pair, Pair::new(row[at], row.get(at + 1).copied().unwrap_or(0.0)));
            }
        }
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        fn check<U: Unit>(width: usize, keep: fn(f32) -> f32) {
            let x: Vec<f32> = (0..3 * width).map(|i| i as f32 * 0.7 - 9.0).collect();
            let stride = U::width(width) + 1;
            let mut saved = Saved::new::<U>(1, 4 * stride * U::DEPTH);
            U::write_rows(&x, width, width, saved.units_mut::<U>(), stride);
            let mut back = vec![0.0; x.len()];
            U::read_rows(saved.units::<U>(), stride, width, &mut back);
            assert_eq!(back, x.iter().map(|&v| keep(v)).collect::<Vec<_>>());
            let (mut steps, mut again) = (vec![U::default(); U::width(3) * width], vec![0.0; x.len()]);
            U::write_steps(&mut steps, &mut vec![0.0; x.len()], width, |out| out.copy_from_slice(&x));
            U::read_steps(&steps, width, &mut again);
            assert_eq!(again, back);
        }
        for width in [1, 5, 16, 40, 301] {
            check::<f32>(width, |v| v);
            check::<Pair>(width, |v| widen(narrow(v)));
        }
    }

    #[test]
    fn odd_rows_end_in_a_half_pair() {
        let mut scratch = vec![0.0; 4];
        let pairs = Pair::of_rows(&[1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0], 4, 3, &mut scratch);
        assert_eq!(pairs.0, [Pair::new(1.0, 2.0), Pair::new(3.0, 0.0), Pair::new(4.0, 5.0), Pair::new(6.0, 0.0)]);
    }
}
