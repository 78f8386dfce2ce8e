//! Fresh memory, written before it is read.
//!
//! Clearing a kernel's output first would take as long as some kernels spend on it, and to read unwritten memory is undefined, whatever
//! the type. Fresh memory is therefore a slice of `MaybeUninit`, and becomes values in one way: what writes a part returns that part as
//! a slice of values. [`whole`], [`chunks`] and [`tiles`] hand out every part once, and check that the same part came back, written.
//! A function that writes fresh memory therefore has the type `fn(.., &mut [MaybeUninit<T>]) -> &mut [T]`; [`Unwritten`] has the smallest
//! of them, and [`Out`] is for those that write over values too. [`Scattered`] is for parts that do not follow one another.

mod out;
mod scattered;

pub use out::Out;
pub(crate) use scattered::{Part, Scattered};

use crate::rows::in_order;
use crate::shape::count;
use rayon::prelude::*;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};

/// Values of 32 bits, of which any bits are one. Sealed: this module is private to the crate.
///
/// # Safety
/// Implementors have the size and the alignment of `u32`, no padding, and take any bits that were written as a value.
pub unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

// SAFETY: 32 bits without padding, and every pattern of them is a value.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}

/// Values as other values of 32 bits: the same bits.
pub(crate) fn cast<T: Plain, V: Plain>(values: &[T]) -> &[V] {
    const { assert!(size_of::<T>() == size_of::<V>() && align_of::<T>() == align_of::<V>()) };
    // SAFETY: both are plain: one size and alignment, and any written bits are a value.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// [`cast`] to write to.
pub(crate) fn cast_mut<T: Plain, V: Plain>(values: &mut [T]) -> &mut [V] {
    const { assert!(size_of::<T>() == size_of::<V>() && align_of::<T>() == align_of::<V>()) };
    // SAFETY: as in `cast`; what is written through either is a value of the other.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// [`cast`] of places to write values to.
pub(crate) fn cast_places<T: Plain, V: Plain>(places: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<V>] {
    const { assert!(size_of::<T>() == size_of::<V>() && align_of::<T>() == align_of::<V>()) };
    // SAFETY: as in `cast`; places need not hold anything, and any value of one kind is one of the other.
    unsafe { std::slice::from_raw_parts_mut(places.as_mut_ptr().cast(), places.len()) }
}

/// [`cast`] of a vector.
pub(crate) fn cast_vec<T: Plain, V: Plain>(values: Vec<T>) -> Vec<V> {
    const { assert!(size_of::<T>() == size_of::<V>() && align_of::<T>() == align_of::<V>()) };
    let mut values = ManuallyDrop::new(values);
    let (start, length, capacity) = (values.as_mut_ptr(), values.len(), values.capacity());
    // SAFETY: the parts of a vector that is not used again; the memory has one layout for both, and its values are values of `V`.
    unsafe { Vec::from_raw_parts(start.cast(), length, capacity) }
}

/// The smallest functions that write fresh memory.
pub(crate) trait Unwritten<T> {
    /// Zeros: for what is only added to. Of a part that fits the first caches this costs little, since it is written there again.
    fn cleared(&mut self) -> &mut [T];

    /// One value for each place, of which there are fewer than 2³².
    ///
    /// # Panics
    /// If there are too few values, or more places.
    fn written(&mut self, values: impl IntoIterator<Item = T>) -> &mut [T];

    /// Row by row: `write` gets the number of a row and its place.
    ///
    /// # Panics
    /// If these are no whole rows, or `write` returns another slice.
    fn rows_written(&mut self, width: usize, write: impl FnMut(usize, &mut [MaybeUninit<T>]) -> &mut [T]) -> &mut [T];
}

impl<T: Plain> Unwritten<T> for [MaybeUninit<T>] {
    #[inline(always)]
    fn cleared(&mut self) -> &mut [T] {
        self.fill(MaybeUninit::new(T::default()));
        // SAFETY: all were just written.
        unsafe { self.assume_init_mut() }
    }

    #[inline(always)]
    fn written(&mut self, values: impl IntoIterator<Item = T>) -> &mut [T] {
        // As wide as the values: a wider count would halve the lanes of the loop.
        let (length, mut count) = (u32::try_from(self.len()).expect("places that 32 bits count"), 0);
        for (place, value) in self.iter_mut().zip(values) {
            place.write(value);
            count += 1;
        }
        assert_eq!(count, length, "a value for each place");
        // SAFETY: so many were just written, from the first on.
        unsafe { self.assume_init_mut() }
    }

    #[inline(always)]
    fn rows_written(
        &mut self,
        width: usize,
        mut write: impl FnMut(usize, &mut [MaybeUninit<T>]) -> &mut [T],
    ) -> &mut [T] {
        assert!(self.is_empty() || (width > 0 && self.len().is_multiple_of(width)), "whole rows");
        for (row, place) in self.chunks_exact_mut(width.max(1)).enumerate() {
            all_of(place, |place| (write(row, place), ()));
        }
        // SAFETY: every row came back as values, and rows are all there is.
        unsafe { self.assume_init_mut() }
    }
}

/// A part that was handed out.
struct Given<T> {
    start: *const T,
    length: usize,
}

impl<T> Given<T> {
    #[inline(always)]
    fn new(part: &[MaybeUninit<T>]) -> Self {
        Self { start: part.as_ptr().cast(), length: part.len() }
    }

    /// A slice of values is written; the same place and length say that it is the part.
    #[inline(always)]
    fn check(&self, written: &[T]) {
        assert!(written.as_ptr() == self.start && written.len() == self.length, "another part than was given");
    }
}

/// Fresh memory of some length.
pub(crate) struct Fresh<T>(Vec<MaybeUninit<T>>);

impl<T: Plain> Fresh<T> {
    pub(crate) fn new(length: usize) -> Self {
        let mut memory = Vec::with_capacity(length);
        // SAFETY: the capacity is there, and `MaybeUninit` need not be written.
        unsafe { memory.set_len(length) };
        Self(memory)
    }

    /// The memory of a vector that is not needed any more, if there is enough of it.
    fn reusing(memory: Vec<T>, length: usize) -> Self {
        if memory.capacity() < length {
            return Self::new(length);
        }
        let mut memory = ManuallyDrop::new(memory);
        // SAFETY: the parts of a vector that is not used again, whose capacity is enough; `MaybeUninit<T>` has the layout of `T`, and need
        // not be written.
        Self(unsafe { Vec::from_raw_parts(memory.as_mut_ptr().cast(), length, memory.capacity()) })
    }

    /// The values.
    ///
    /// # Safety
    /// Each must have been written.
    pub(crate) unsafe fn assume_written(self) -> Vec<T> {
        let mut memory = ManuallyDrop::new(self.0);
        let (start, length, capacity) = (memory.as_mut_ptr(), memory.len(), memory.capacity());
        // SAFETY: the parts of a vector that is not used again; `MaybeUninit<T>` has the layout of `T`, and all are written, as the caller
        // promises.
        unsafe { Vec::from_raw_parts(start.cast(), length, capacity) }
    }
}

impl<T> Deref for Fresh<T> {
    type Target = [MaybeUninit<T>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Fresh<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// So many values, which `write` writes and returns.
///
/// # Panics
/// If it returns another slice.
pub(crate) fn whole<T: Plain>(length: usize, write: impl FnOnce(&mut [MaybeUninit<T>]) -> &mut [T]) -> Vec<T> {
    let mut fresh = Fresh::new(length);
    all_of(&mut fresh, |fresh| (write(fresh), ()));
    // SAFETY: all of it came back as values.
    unsafe { fresh.assume_written() }
}

/// Zeros, written in parallel.
pub(crate) fn cleared<T: Plain>(length: usize) -> Vec<T> {
    chunks(length, 1 << 16, |_, part| part.cleared())
}

/// So many values, written in parallel in chunks of `chunk` of them: `write` gets the number of a chunk and its place.
///
/// # Panics
/// If `chunk` is 0 while there is something to write, or `write` returns another slice.
pub(crate) fn chunks<T: Plain>(
    length: usize,
    chunk: usize,
    write: impl Fn(usize, &mut [MaybeUninit<T>]) -> &mut [T] + Sync,
) -> Vec<T> {
    let [values] = chunks_of([length], [chunk], |number, [part]| [write(number, part)]);
    values
}

/// [`chunks`] of several vectors, equally many of each: a task writes one of each.
///
/// # Panics
/// As [`chunks`], and if there are not as many chunks of each.
pub(crate) fn chunks_of<T: Plain, const N: usize>(
    lengths: [usize; N],
    chunk: [usize; N],
    write: impl for<'a> Fn(usize, [&'a mut [MaybeUninit<T>]; N]) -> [&'a mut [T]; N] + Sync,
) -> [Vec<T>; N] {
    let mut fresh = lengths.map(Fresh::<T>::new);
    let count = |n: usize| if lengths[n] == 0 { 0 } else { lengths[n].div_ceil(chunk[n]) };
    let tasks = (0..N).map(count).max().unwrap_or(0);
    assert!((0..N).all(|n| count(n) == tasks), "as many chunks of each of {lengths:?}");
    let mut rest: [&mut [MaybeUninit<T>]; N] = fresh.each_mut().map(|fresh| &mut **fresh);
    let parts: Vec<[&mut [MaybeUninit<T>]; N]> = (0..tasks)
        .map(|_| {
            let mut n = 0;
            rest.each_mut().map(|rest| {
                let here = chunk[n].min(rest.len());
                n += 1;
                rest.split_off_mut(..here).unwrap_or_default()
            })
        })
        .collect();
    parts.into_par_iter().enumerate().for_each(|(number, parts)| {
        let given = parts.each_ref().map(|part| Given::new(part));
        let written = write(number, parts);
        given.iter().zip(&written).for_each(|(given, written)| given.check(written));
    });
    // SAFETY: chunks are all there is, and each came back as values.
    fresh.map(|fresh| unsafe { fresh.assume_written() })
}

/// Rows of `width` values, written tile by tile by threads that take the next one when they are free (see [`in_order`]): `write` gets
/// the place of a tile, whose rows `heights` gives, and one of `tasks`. What it returns beside the tile comes back in the order of tiles.
///
/// # Panics
/// If there are fewer tasks than tiles, or `write` returns another slice.
pub(crate) fn tiles<T: Plain, A: Send, R: Send>(
    heights: &[usize],
    width: usize,
    tasks: impl Iterator<Item = A> + Send,
    write: impl Fn(&mut [MaybeUninit<T>], A) -> (&mut [T], R) + Sync,
) -> (Vec<T>, Vec<R>) {
    let mut fresh = Fresh::new(count("rows", &[heights.iter().sum(), width]));
    let parts = crate::rows::tiles_mut(&mut fresh, heights, width);
    let results = in_order(parts.zip(tasks), |(part, task)| all_of(part, |part| write(part, task)));
    assert_eq!(results.len(), heights.len(), "a task for each tile");
    // SAFETY: tiles are all there is, and each came back as values.
    (unsafe { fresh.assume_written() }, results)
}

/// Has `write` write all of some places, and return them as values.
///
/// # Panics
/// If it returns another slice.
#[inline(always)]
pub(crate) fn all_of<T: Plain, R>(
    places: &mut [MaybeUninit<T>],
    write: impl FnOnce(&mut [MaybeUninit<T>]) -> (&mut [T], R),
) -> R {
    let given = Given::new(places);
    let (written, result) = write(places);
    given.check(written);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together() {
        let one: Vec<u32> = whole(5, |out| out.written(10..));
        assert_eq!(one, [10, 11, 12, 13, 14]);
        let number = |n: usize| n as f32;
        let values: Vec<f32> = chunks(7, 3, |n, out| out.rows_written(1, |i, out| out.written([number(3 * n + i)])));
        assert_eq!(values, (0..7).map(number).collect::<Vec<_>>());
        let [a, b] = chunks_of([4, 2], [2, 1], |n, [a, b]| [a.written([n as i32; 2]), b.written([n as i32 + 7])]);
        assert_eq!((a, b), (vec![0, 0, 1, 1], vec![7, 8]));
        let (rows, sums) = tiles(&[2, 1], 2, 5u32.., |out, task| (out.written(task..), task));
        assert_eq!((rows, sums), (vec![5, 6, 7, 8, 6, 7], vec![5, 6]));
        let many = if cfg!(miri) { 100 } else { 100_000 };
        assert_eq!(cleared::<f32>(many), vec![0.0; many]);
        assert!(chunks::<f32>(0, 0, |_, out| out.cleared()).is_empty());
    }

    #[test]
    #[should_panic(expected = "another part than was given")]
    fn half_a_part_is_not_all_of_it() {
        chunks::<f32>(8, 4, |_, out| out[..2].cleared());
    }

    #[test]
    #[should_panic(expected = "another part than was given")]
    fn other_values_do_not_stand_for_it() {
        whole::<u32>(3, |_| &mut []);
    }

    #[test]
    #[should_panic(expected = "a value for each place")]
    fn too_few_values_are_refused() {
        whole::<u32>(3, |out| out.written([1, 2]));
    }

    #[test]
    #[should_panic(expected = "a task for each tile")]
    fn a_tile_without_a_task_is_refused() {
        tiles::<u32, _, _>(&[1, 1], 1, std::iter::once(3), |out, task| (out.written([task]), ()));
    }
}
