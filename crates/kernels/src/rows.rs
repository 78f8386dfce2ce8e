//! Work on rows in parallel, in parts whose number does not depend on the threads.

use crate::product::TILE;
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Parts of a sum over rows. Fixed, so that the order of additions is.
const PARTS: usize = 16;

/// Rows of a task when `rows` rows are divided: at most [`TILE`](crate::product::TILE), and such that the number of tasks is a
/// multiple of eight, so that few threads finish together. A function of the rows alone, not of the threads.
pub(crate) fn tile_height(rows: usize) -> usize {
    const TOGETHER: usize = 8;
    rows.div_ceil(TOGETHER * rows.div_ceil(TOGETHER * TILE).max(1)).max(1)
}

/// Sums `length` numbers over all rows: each part adds its rows into its own buffer, the buffers are added in order.
pub(crate) fn sum_over_rows(rows: usize, length: usize, add: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let size = rows.div_ceil(PARTS).max(1);
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(size))
        .into_par_iter()
        .map(|part| {
            let mut sum = vec![0.0; length];
            add(part * size..((part + 1) * size).min(rows), &mut sum);
            sum
        })
        .collect();
    parts
        .into_iter()
        .reduce(|mut total, part| {
            total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
            total
        })
        .unwrap_or_else(|| vec![0.0; length])
}

/// Buffers of a thread, kept between calls: fresh pages cost more than the work done in them. Nested calls have buffers of their own.
/// Each begins at a line of the cache, or every vector read from it could lie in two.
pub(crate) fn with_scratch<const N: usize, R>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    /// Floats of a line.
    const LINE: usize = 16;
    thread_local! {
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let total = LINE + lengths.iter().map(|length| length.next_multiple_of(LINE)).sum::<usize>();
    if buffer.len() < total {
        buffer.resize(total, 0.0);
    }
    let ahead = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let mut rest = &mut buffer[ahead..];
    let result = work(lengths.map(|length| {
        let part = rest.split_off_mut(..length.next_multiple_of(LINE)).unwrap_or_default();
        &mut part[..length]
    }));
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// A vector whose elements are all written before any is read: fresh memory would otherwise be cleared first, which takes as long
/// as a kernel spends on it. `T` is one of the 32-bit types of the kernels, for which any bits are a value.
#[allow(clippy::uninit_vec, reason = "any bits are a value, and each is written before it is read")]
pub(crate) fn for_overwrite<T: Copy>(length: usize) -> Vec<T> {
    const { assert!(size_of::<T>() == 4) };
    let mut out = Vec::with_capacity(length);
    // SAFETY: the capacity is there; any bits are a value, and none is read before it is written.
    unsafe { out.set_len(length) };
    out
}

/// A slice that tasks share, each writing parts of its own.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    length: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: the slice is lent to this alone, and whoever asks for a part promises that it is theirs.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), length: data.len(), lent: PhantomData }
    }

    /// The `length` elements that begin at `start`.
    ///
    /// # Safety
    /// Parts that live at the same time must not overlap.
    #[allow(clippy::mut_from_ref, reason = "what this type is for")]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start + length <= self.length, "{length} elements at {start} of {}", self.length);
        // SAFETY: inside the slice; nobody else has this part, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), length) }
    }
}

/// Floats as other units of 32 bits.
///
/// # Safety
/// `U` must have the size and alignment of `f32` and accept any bits.
pub(crate) unsafe fn as_units<U>(floats: &mut [f32]) -> &mut [U] {
    const { assert!(size_of::<U>() == size_of::<f32>() && align_of::<U>() == align_of::<f32>()) };
    // SAFETY: same place, size and alignment; any bits are valid, as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

#[cfg(test)]
pub(crate) mod test {
    /// Reproducible numbers in −1..1.
    pub(crate) fn noise(length: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Equal within 2e-6 of the largest value: rounding of f32 sums over some hundred terms.
    #[track_caller]
    pub(crate) fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= 2e-6 * largest, "at {i}: {g}, not {w} (largest {largest})");
        }
    }

    /// Compares a gradient with central differences of `loss` in double precision.
    #[track_caller]
    pub(crate) fn assert_gradient(gradient: &[f32], at: &[f32], loss: impl Fn(&[f64]) -> f64) {
        let largest = gradient.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let mut x: Vec<f64> = at.iter().map(|&v| f64::from(v)).collect();
        for i in 0..x.len() {
            let keep = x[i];
            x[i] = keep + 1e-5;
            let above = loss(&x);
            x[i] = keep - 1e-5;
            let below = loss(&x);
            x[i] = keep;
            let want = ((above - below) / 2e-5) as f32;
            assert!((gradient[i] - want).abs() <= 1e-5 * largest, "gradient {i}: {}, not {want}", gradient[i]);
        }
    }
}
