//! What operands are made of: 32 bits that one multiply-add reads.

use crate::fresh::{self, Out, Plain, Unwritten, cast_mut};
use crate::shape::{fits, rows_of};
use crate::simd::{native_bf16, simd};
use std::mem::MaybeUninit;

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

/// 32 bits of an operand: an `f32`, or a [`Pair`]. Slices that do not hold the rows that the numbers beside them speak of end a call
/// with a panic.
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
    fn of_steps_parallel<'a>(x: &'a [f32], width: usize, scratch: &'a mut Vec<Self>) -> &'a [Self];

    /// From the elements of the inner dimension; `second` is 0 beyond its end and unused where [`Unit::DEPTH`] is 1.
    fn new(first: f32, second: f32) -> Self;

    /// Rows of `width` numbers that begin `stride` apart, where the *rows* are the inner dimension: as steps of `width` units that begin
    /// `out_stride` apart in `out`.
    fn put_steps(x: &[f32], stride: usize, width: usize, out: Out<Self>, out_stride: usize);

    /// [`Unit::put_steps`] over other units.
    fn pack_steps(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        Self::put_steps(x, stride, width, Out::over(out), out_stride);
    }

    /// Steps of `width` units, back as dense rows: as many as `out` holds.
    fn read_steps(steps: &[Self], width: usize, out: &mut [f32]);

    /// Units of a row of so many numbers.
    #[must_use]
    fn width(numbers: usize) -> usize {
        numbers.div_ceil(Self::DEPTH)
    }

    /// Rows of `width` numbers that begin `stride` apart, as rows of units that begin `out_stride` apart.
    fn put_rows(x: &[f32], stride: usize, width: usize, out: Out<Self>, out_stride: usize);

    /// [`Unit::put_rows`] over other units.
    fn write_rows(x: &[f32], stride: usize, width: usize, out: &mut [Self], out_stride: usize) {
        Self::put_rows(x, stride, width, Out::over(out), out_stride);
    }

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

/// Dense rows of `width` numbers as steps of `width` units, all there is room for.
///
/// # Panics
/// If `out` has room for more or fewer.
pub(crate) fn steps_written<'a, U: Unit>(x: &[f32], width: usize, out: &'a mut [MaybeUninit<U>]) -> &'a mut [U] {
    fits("steps", out, &[U::width(rows_of("rows", x, width)), width]);
    U::put_steps(x, width, width, Out::fresh(out), width);
    // SAFETY: `DEPTH` dense rows make a step, a last one too that has fewer, and each step has `width` units, all of which are put.
    unsafe { out.assume_init_mut() }
}

/// Numbers as one row of units.
///
/// # Panics
/// If `out` has room for more or fewer.
pub(crate) fn row_written<'a, U: Unit>(x: &[f32], out: &'a mut [MaybeUninit<U>]) -> &'a mut [U] {
    fits("row", out, &[U::width(x.len())]);
    if !x.is_empty() {
        U::put_rows(x, x.len(), x.len(), Out::fresh(out), U::width(x.len()));
    }
    // SAFETY: all units of the one row are put.
    unsafe { out.assume_init_mut() }
}

/// Rows of `width` numbers that begin `stride` apart in a slice of some length.
fn rows_in(length: usize, stride: usize, width: usize) -> usize {
    if length == 0 {
        return 0;
    }
    assert!(stride > 0 && length >= width, "rows of {width} that begin {stride} apart in {length}");
    (length - width) / stride + 1
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

    fn of_steps_parallel<'a>(x: &'a [f32], _: usize, _: &'a mut Vec<Self>) -> &'a [Self] {
        x
    }

    fn new(first: f32, _: f32) -> Self {
        first
    }

    fn put_steps(x: &[f32], stride: usize, width: usize, out: Out<Self>, out_stride: usize) {
        Self::put_rows(x, stride, width, out, out_stride);
    }

    fn read_steps(steps: &[Self], _: usize, out: &mut [f32]) {
        out.copy_from_slice(&steps[..out.len()]);
    }

    fn put_rows(x: &[f32], stride: usize, width: usize, mut out: Out<Self>, out_stride: usize) {
        for (mut out, x) in out.chunks(out_stride).zip(x.chunks(stride)) {
            out.part(..width).copy(&x[..width]);
        }
    }

    fn read_rows(units: &[Self], stride: usize, width: usize, out: &mut [f32]) {
        for (out, x) in out.chunks_exact_mut(width).zip(units.chunks(stride)) {
            out.copy_from_slice(&x[..width]);
        }
    }

    fn numbers<'a>(units: &'a [Self], width: usize, _: &'a mut Vec<f32>) -> &'a [f32] {
        rows_of("units", units, width);
        units
    }
}

impl Unit for Pair {
    const DEPTH: usize = 2;

    fn scratch(rows: usize, width: usize) -> usize {
        rows * width.div_ceil(2)
    }

    fn of_rows<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize) {
        let (rows, steps) = (rows_in(x.len(), stride, width), width.div_ceil(2));
        let out = Self::from_floats_mut(&mut scratch[..rows * steps]);
        Self::write_rows(x, stride, width, out, steps);
        (out, steps)
    }

    fn of_steps<'a>(x: &'a [f32], stride: usize, width: usize, scratch: &'a mut [f32]) -> (&'a [Self], usize) {
        let steps = rows_in(x.len(), stride, width).div_ceil(2);
        let out = Self::from_floats_mut(&mut scratch[..steps * width]);
        Self::pack_steps(x, stride, width, out, width);
        (out, width)
    }

    fn of_steps_parallel<'a>(x: &'a [f32], width: usize, scratch: &'a mut Vec<Self>) -> &'a [Self] {
        /// Steps of a task.
        const STEPS: usize = 64;
        let rows = rows_of("x", x, width);
        *scratch = fresh::chunks(rows.div_ceil(2) * width, STEPS * width, |task, out| {
            let first = task * 2 * STEPS;
            steps_written(&x[first * width..rows.min(first + 2 * STEPS) * width], width, out)
        });
        scratch
    }

    fn new(first: f32, second: f32) -> Self {
        Self(u32::from(narrow(first)) | u32::from(narrow(second)) << 16)
    }

    fn put_steps(x: &[f32], stride: usize, width: usize, mut out: Out<Self>, out_stride: usize) {
        #[cfg(target_arch = "x86_64")]
        if native_bf16() {
            for (mut out, x) in out.chunks(out_stride).zip(x.chunks(stride.saturating_mul(2))) {
                let (first, second) = (&x[..width], x.get(stride..stride + width).unwrap_or_default());
                // SAFETY: the processor has the instructions; both rows and `out` are as long as `width`, or the second is empty.
                unsafe { x86::pairs(first, second, out.part(..width)) };
            }
            return;
        }
        let nothing = vec![0.0; width];
        for (mut out, x) in out.chunks(out_stride).zip(x.chunks(stride.saturating_mul(2))) {
            pairs(&x[..width], x.get(stride..stride + width).unwrap_or(&nothing), out.part(..width));
        }
    }

    fn read_steps(steps: &[Self], width: usize, out: &mut [f32]) {
        for (rows, pairs) in out.chunks_mut(2 * width).zip(steps.chunks(width)) {
            let (first, second) = rows.split_at_mut(width);
            low_halves(pairs, first);
            high_halves(pairs, second);
        }
    }

    fn put_rows(x: &[f32], stride: usize, width: usize, mut out: Out<Self>, out_stride: usize) {
        let pairs = Self::width(width);
        #[cfg(target_arch = "x86_64")]
        if native_bf16() {
            for (x, mut out) in x.chunks(stride).zip(out.chunks(out_stride)) {
                // SAFETY: the processor has the instructions; `out` has a pair for each two numbers.
                unsafe { x86::neighbours(&x[..width], out.part(..pairs)) };
            }
            return;
        }
        for (x, mut out) in x.chunks(stride).zip(out.chunks(out_stride)) {
            neighbours(&x[..width], out.part(..pairs));
        }
    }

    fn read_rows(units: &[Self], stride: usize, width: usize, out: &mut [f32]) {
        let pairs = Self::width(width);
        for (out, units) in out.chunks_exact_mut(width).zip(units.chunks(stride)) {
            widen_pairs(&units[..pairs], out);
        }
    }

    fn numbers<'a>(units: &'a [Self], width: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        /// Rows of a task.
        const ROWS: usize = 128;
        let stride = Self::width(width);
        let rows = rows_of("units", units, stride);
        *buffer = fresh::chunks(rows * width, ROWS * width, |task, out| {
            // In a near cache, where it is overwritten at once.
            let out = out.cleared();
            Self::read_rows(&units[task * ROWS * stride..], stride, width, out);
            out
        });
        buffer
    }
}

/// Conversions with the instructions of AVX-512 BF16, which take numbers below 2⁻¹²⁶ as 0, as the products do.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Pair;
    use crate::fresh::Out;
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
    pub(super) unsafe fn pairs(first: &[f32], second: &[f32], mut out: Out<Pair>) {
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
    pub(super) unsafe fn neighbours(x: &[f32], mut out: Out<Pair>) {
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
    fn neighbours[FMA](x: &[f32], out: Out<Pair>) {
        let (mut out, whole) = (out, x.chunks_exact(2));
        if let [last] = whole.remainder() {
            out.put(x.len() / 2, Pair(u32::from(narrow(*last))));
        }
        out.put_all(whole.map(|x| Pair(u32::from(narrow(x[0])) | u32::from(narrow(x[1])) << 16)));
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
    fn pairs[FMA](first: &[f32], second: &[f32], out: Out<Pair>) {
        let (mut out, both) = (out, first.iter().zip(second));
        out.put_all(both.map(|(&a, &b)| Pair(u32::from(narrow(a)) | u32::from(narrow(b)) << 16)));
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
    use super::super::Saved;
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
        fn check<U: Unit + PartialEq>(width: usize, keep: fn(f32) -> f32) {
            let x: Vec<f32> = (0..3 * width).map(|i| i as f32 * 0.7 - 9.0).collect();
            let stride = U::width(width) + 1;
            assert_eq!(Saved::of::<U>(&x, width).numbers::<U>(width), x.iter().map(|&v| keep(v)).collect::<Vec<_>>());
            let mut units = vec![U::default(); 4 * stride];
            U::write_rows(&x, width, width, &mut units, stride);
            let mut back = vec![0.0; x.len()];
            U::read_rows(&units, stride, width, &mut back);
            assert_eq!(back, x.iter().map(|&v| keep(v)).collect::<Vec<_>>());
            let (mut steps, mut again) = (vec![U::default(); U::width(3) * width], vec![0.0; x.len()]);
            U::pack_steps(&x, width, width, &mut steps, width);
            assert!(fresh::whole::<U>(steps.len(), |out| steps_written(&x, width, out)) == steps);
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
