//! Parts that do not follow one another.

use super::{Fresh, Given, Plain, all_of};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fresh memory whose parts tasks write in any order and place.
pub(crate) struct Scattered<'a, T> {
    start: *mut MaybeUninit<T>,
    length: usize,
    written: AtomicUsize,
    lent: PhantomData<&'a mut Fresh<T>>,
}

// SAFETY: tasks get parts that never overlap, as they promise, and nothing else of it is shared but a count.
unsafe impl<T: Send> Sync for Scattered<'_, T> {}

impl<T: Plain> Scattered<'_, T> {
    /// `work` has tasks write the [parts](Scattered::part) of a vector of `length` values.
    ///
    /// # Panics
    /// If they did not write all of it.
    pub(crate) fn collect<R>(length: usize, work: impl FnOnce(&Scattered<'_, T>) -> R) -> (Vec<T>, R) {
        Self::collect_over(Vec::new(), length, work)
    }

    /// [`Scattered::collect`] in the memory of a vector that is not needed any more, where it is enough.
    pub(crate) fn collect_over<R>(
        memory: Vec<T>,
        length: usize,
        work: impl FnOnce(&Scattered<'_, T>) -> R,
    ) -> (Vec<T>, R) {
        let mut fresh = Fresh::reusing(memory, length);
        let start = fresh.as_mut_ptr();
        let all = Scattered { start, length, written: AtomicUsize::new(0), lent: PhantomData };
        let result = work(&all);
        assert_eq!(all.written.into_inner(), length, "values written");
        // SAFETY: each part that was counted holds values, and no two overlap: as many places as there are hold values.
        (unsafe { fresh.assume_written() }, result)
    }

    /// [`Scattered::collect`] of several vectors.
    ///
    /// # Panics
    /// As there.
    pub(crate) fn collect_each<const N: usize, R>(
        lengths: [usize; N],
        work: impl FnOnce([&Scattered<'_, T>; N]) -> R,
    ) -> ([Vec<T>; N], R) {
        let mut fresh = lengths.map(Fresh::<T>::new);
        let all = fresh.each_mut().map(|fresh| {
            let (start, length) = (fresh.as_mut_ptr(), fresh.len());
            Scattered { start, length, written: AtomicUsize::new(0), lent: PhantomData }
        });
        let result = work(all.each_ref());
        let written = all.map(|all| all.written.into_inner());
        assert_eq!(written, lengths, "values written");
        // SAFETY: as in `collect_over`.
        (fresh.map(|fresh| unsafe { fresh.assume_written() }), result)
    }

    /// The `length` places from `start` on, to be written.
    ///
    /// # Panics
    /// If they lie outside.
    ///
    /// # Safety
    /// No place may be in two parts, not even one after the other.
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> Part<'_, T> {
        let fits = self.length.checked_sub(start).is_some_and(|left| length <= left);
        assert!(fits, "{length} values at {start} of {}", self.length);
        // SAFETY: inside the memory, which outlives this; nobody else has this part, as the caller promises.
        let places = unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) };
        Part { places, written: &self.written }
    }

    /// Has `write` write a part, and return it as values.
    ///
    /// # Panics
    /// If the part lies outside, or `write` returns another slice.
    ///
    /// # Safety
    /// As [`Scattered::part`].
    pub(crate) unsafe fn write<R>(
        &self,
        start: usize,
        length: usize,
        write: impl FnOnce(&mut [MaybeUninit<T>]) -> (&mut [T], R),
    ) -> R {
        // SAFETY: as the caller promises.
        let part = unsafe { self.part(start, length) };
        let result = all_of(part.places, write);
        self.written.fetch_add(length, Ordering::Relaxed);
        result
    }

    /// [`Scattered::write`] for each of many parts of `length` values, counted together: threads that count each of many small parts
    /// would wait for each other. `write` gets the number of a part and its place.
    ///
    /// # Panics
    /// As [`Scattered::write`].
    ///
    /// # Safety
    /// As [`Scattered::write`].
    pub(crate) unsafe fn write_each(
        &self,
        starts: impl IntoIterator<Item = usize>,
        length: usize,
        mut write: impl FnMut(usize, &mut [MaybeUninit<T>]) -> &mut [T],
    ) {
        let mut count = 0;
        for (number, start) in starts.into_iter().enumerate() {
            let fits = self.length.checked_sub(start).is_some_and(|left| length <= left);
            assert!(fits, "{length} values at {start} of {}", self.length);
            // SAFETY: as in `write`.
            let part = unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) };
            let given = Given::new(part);
            given.check(write(number, part));
            count += length;
        }
        self.written.fetch_add(count, Ordering::Relaxed);
    }
}

/// A part of [`Scattered`] memory. It counts as written when it is turned into values.
pub(crate) struct Part<'a, T> {
    places: &'a mut [MaybeUninit<T>],
    written: &'a AtomicUsize,
}

impl<'a, T: Plain> Part<'a, T> {
    pub(crate) fn places(&mut self) -> &mut [MaybeUninit<T>] {
        self.places
    }

    /// The values that `write` writes and returns.
    ///
    /// # Panics
    /// If it returns another slice.
    pub(crate) fn write(self, write: impl FnOnce(&mut [MaybeUninit<T>]) -> &mut [T]) -> &'a mut [T] {
        all_of(self.places, |places| (write(places), ()));
        // SAFETY: all of it came back as values.
        unsafe { self.assume_written() }
    }

    /// The values.
    ///
    /// # Safety
    /// Each must have been written.
    pub(crate) unsafe fn assume_written(self) -> &'a mut [T] {
        self.written.fetch_add(self.places.len(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { self.places.assume_init_mut() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::Unwritten;
    use rayon::prelude::*;

    #[test]
    fn scattered_parts_are_put_together() {
        let (values, ()) = Scattered::<u32>::collect(90, |all| {
            (0..30u32).into_par_iter().for_each(|n| {
                let start = (n as usize * 7 % 30) * 3;
                // SAFETY: multiples of 7 modulo 30 are all different.
                unsafe { all.write(start, 3, |out| (out.written([start as u32; 3]), ())) };
            });
        });
        assert_eq!(values, (0..90).map(|i| i / 3 * 3).collect::<Vec<u32>>());
    }

    #[test]
    fn many_scattered_parts_are_counted_together() {
        let (values, ()) = Scattered::<u32>::collect(90, |all| {
            (0..3usize).into_par_iter().for_each(|task| {
                let starts = (0..10).map(|n| (3 * n + task) * 3);
                // SAFETY: numbers modulo 3 are those of one task.
                unsafe { all.write_each(starts, 3, |n, out| out.written([(3 * n + task) as u32; 3])) };
            });
        });
        assert_eq!(values, (0..90).map(|i| i / 3).collect::<Vec<u32>>());
    }

    #[test]
    #[should_panic(expected = "values written")]
    fn a_part_that_nobody_writes_is_noticed() {
        // SAFETY: one part.
        Scattered::<u32>::collect(4, |all| unsafe { all.write(1, 3, |out| (out.cleared(), ())) });
    }

    #[test]
    #[should_panic(expected = "values at 18446744073709551615 of 4")]
    fn a_part_outside_is_refused() {
        // SAFETY: one part.
        Scattered::<u32>::collect(4, |all| unsafe { all.write(usize::MAX, 2, |out| (out.cleared(), ())) });
    }
}
