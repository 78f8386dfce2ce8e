//! Places that are written whatever they hold.

use super::Plain;
use std::mem::MaybeUninit;
use std::slice::SliceIndex;

/// Places to write values to, fresh or not: for functions that are used on both. Nothing but values can be put there.
pub struct Out<'a, T>(&'a mut [MaybeUninit<T>]);

impl<'a, T: Plain> Out<'a, T> {
    /// Over values.
    #[inline(always)]
    pub(crate) fn over(values: &'a mut [T]) -> Self {
        // SAFETY: `MaybeUninit<T>` has the layout of `T`, and the methods put only values there.
        Self(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) })
    }

    /// Into fresh memory.
    #[inline(always)]
    pub(crate) fn fresh(places: &'a mut [MaybeUninit<T>]) -> Self {
        Self(places)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Some of the places.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub(crate) fn part(&mut self, range: impl SliceIndex<[MaybeUninit<T>], Output = [MaybeUninit<T>]>) -> Out<'_, T> {
        Out(&mut self.0[range])
    }

    /// The places in parts of `length`, the last maybe shorter.
    #[inline(always)]
    pub(crate) fn chunks(&mut self, length: usize) -> impl Iterator<Item = Out<'_, T>> {
        self.0.chunks_mut(length).map(Out)
    }

    /// As many values as there are places, which hold them then.
    ///
    /// # Panics
    /// If there are more or fewer.
    #[inline(always)]
    pub(crate) fn copy(&mut self, values: &[T]) -> &mut [T] {
        self.0.write_copy_of_slice(values)
    }

    #[inline(always)]
    pub(crate) fn fill(&mut self, value: T) {
        self.0.fill(MaybeUninit::new(value));
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, at: usize, value: T) {
        self.0[at].write(value);
    }

    /// Values from the first place on, as long as there are both.
    #[inline(always)]
    pub(crate) fn put_all(&mut self, values: impl IntoIterator<Item = T>) {
        for (place, value) in self.0.iter_mut().zip(values) {
            place.write(value);
        }
    }

    /// The first place, for vector instructions, which store values there and do not read.
    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::{Fresh, cast_vec};

    #[test]
    fn values_are_put_over_values_and_into_fresh_memory() {
        fn put(mut out: Out<u32>) {
            out.part(..1).fill(1);
            out.put(1, 2);
            out.chunks(2).nth(1).unwrap().copy(&[3, 4]);
            out.part(4..).put_all(5..);
        }
        let mut values = vec![0; 6];
        put(Out::over(&mut values));
        let mut fresh = Fresh::new(6);
        put(Out::fresh(&mut fresh));
        // SAFETY: `put` writes six values.
        assert_eq!((values, unsafe { fresh.assume_written() }), (vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(cast_vec::<u32, f32>(vec![0x3F80_0000; 3]), [1.0; 3]);
    }
}
