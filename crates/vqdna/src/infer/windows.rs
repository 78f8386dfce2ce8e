//! Which parts of a long sequence a model sees at a time.

use std::ops::Range;
use vqdna_data::alphabet::BaseId;
use vqdna_data::bucket::by_budget;

use super::Sequence;
use crate::ops;
use crate::tokenizer::coded::bases_of;

/// Windows of equal length over sequences that are longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Bases of a window; sequences of as many or fewer are seen whole.
    pub length: usize,
    /// Bases from the start of a window to that of the next.
    pub stride: usize,
}

impl Windows {
    /// The windows of a sequence, from left to right; the last one ends with it, so that no base is left out as long as `stride` is not
    /// above `length`.
    #[must_use]
    pub fn of(&self, bases: usize) -> Vec<Range<usize>> {
        if bases <= self.length {
            return std::iter::once(0..bases).collect();
        }
        let last = bases - self.length;
        let starts = (0..last).step_by(self.stride.max(1)).chain([last]);
        starts.map(|start| start..start + self.length).collect()
    }

    /// Of each window, the part in whose middle it is nearer than any other: the parts are the sequence, each base once.
    #[must_use]
    pub fn own(windows: &[Range<usize>]) -> Vec<Range<usize>> {
        let border = |left: &Range<usize>, right: &Range<usize>| usize::midpoint(right.start, left.end);
        let starts = windows.windows(2).map(|pair| border(&pair[0], &pair[1]));
        let ends = starts.clone().chain(windows.last().map(|last| last.end));
        let starts = windows.first().map(|first| first.start).into_iter().chain(starts);
        starts.zip(ends).map(|(start, end)| start..end).collect()
    }
}

/// A window of one of several sequences.
pub(super) struct Place {
    /// Place of the sequence among those given.
    pub sequence: usize,
    /// The bases that are seen.
    pub bases: Range<usize>,
    /// Those in whose middle it is nearer than any other window.
    pub own: Range<usize>,
}

impl Place {
    /// The windows of sequences, in order.
    pub(super) fn all(sequences: &[Sequence], windows: Windows) -> impl Iterator<Item = Self> {
        sequences.iter().enumerate().flat_map(move |(sequence, letters)| {
            let parts = windows.of(letters.first.len());
            let own = Windows::own(&parts);
            parts.into_iter().zip(own).map(move |(bases, own)| Self { sequence, bases, own })
        })
    }

    /// The bases of each place.
    pub(super) fn letters(places: &[Self], sequences: &[Sequence]) -> Vec<Vec<BaseId>> {
        places.iter().map(|place| bases_of(&sequences[place.sequence].first[place.bases.clone()])).collect()
    }
}

/// What a frozen model finds in rows of so many positions, in their order: `of_batch` gets the numbers of rows of like length, at most
/// `together` positions, and gives what it finds in each.
pub(super) fn in_batches<T>(
    positions: &[usize],
    together: usize,
    mut of_batch: impl FnMut(&[u32]) -> Vec<Vec<T>>,
) -> Vec<T> {
    let mut found: Vec<Vec<T>> = positions.iter().map(|_| Vec::new()).collect();
    ops::with_frozen_weights(|| {
        for batch in by_budget(positions, together) {
            for (&row, of_row) in batch.iter().zip(of_batch(&batch)) {
                found[row as usize] = of_row;
            }
        }
    });
    found.into_iter().flatten().collect()
}

/// Stretches of sequences in order, without those that overlap one before them: where windows meet, both may have cut the same bases.
pub(super) fn without_overlaps<T>(
    stretches: impl Iterator<Item = T>,
    of: impl Fn(&T) -> (usize, Range<usize>),
) -> impl Iterator<Item = T> {
    let (mut sequence, mut end) = (0, 0);
    stretches.filter(move |stretch| {
        let (of, bases) = of(stretch);
        let is_free = of != sequence || bases.start >= end;
        if is_free {
            (sequence, end) = (of, bases.end);
        }
        is_free
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_cover_everything_and_end_with_it() {
        let windows = Windows { length: 4, stride: 3 };
        assert!(windows.of(0).iter().eq(std::iter::once(&(0..0))));
        assert!(windows.of(4).iter().eq(std::iter::once(&(0..4))));
        assert_eq!(windows.of(5), [0..4, 1..5]);
        assert_eq!(windows.of(10), [0..4, 3..7, 6..10]);
        assert_eq!(Windows::own(&windows.of(10)), [0..3, 3..6, 6..10]);
    }

    proptest! {
        #[test]
        fn every_base_is_in_a_window_and_owned_once(bases in 0_usize..200, length in 1_usize..50, share in 1_usize..50) {
            let windows = Windows { length, stride: share.min(length) }.of(bases);
            prop_assert!(windows.iter().all(|window| window.len() == length.min(bases)));
            let own = Windows::own(&windows);
            prop_assert_eq!(own[0].start, 0);
            prop_assert_eq!(own[own.len() - 1].end, bases);
            prop_assert!(own.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(own.iter().zip(&windows).all(|(own, window)| window.start <= own.start && own.end <= window.end));
        }
    }
}
