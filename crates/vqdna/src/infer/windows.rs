//! Which parts of a long sequence a model sees at a time.

use std::ops::Range;
use vqdna_data::alphabet::BaseId;
use vqdna_data::bucket::by_budget;

use super::{Execution, Interrupted, Sequence};
use crate::ops;
use crate::tokenizer::bases_of;

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
    /// above `length`. Beside each window is the part of the sequence in whose middle it is nearer than any other: together these
    /// parts are the sequence, each base once.
    pub fn of(self, bases: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let length = self.length.min(bases);
        let (last, stride) = (bases - length, self.stride.max(1));
        let start = move |window: usize| window.saturating_mul(stride).min(last);
        let windows = last.div_ceil(stride) + 1;
        (0..windows).map(move |window| {
            let border = |right: usize| usize::midpoint(start(right), start(right - 1) + length);
            let own_start = if window == 0 { 0 } else { border(window) };
            let own_end = if window + 1 == windows { bases } else { border(window + 1) };
            (start(window)..start(window) + length, own_start..own_end)
        })
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

/// Bases of a sequence that its place among others takes as much memory as.
const OVERHEAD: usize = 8;

impl Place {
    /// The windows of sequences, in order; with `see_pairs`, the two of a pair are seen whole, else the first of them as any other.
    pub(super) fn all(sequences: &[Sequence], windows: Windows, see_pairs: bool) -> impl Iterator<Item = Self> {
        sequences.iter().enumerate().flat_map(move |(sequence, of)| {
            let length = if see_pairs && of.second.is_some() { usize::MAX } else { windows.length };
            of.parts.iter().flat_map(move |part| {
                let moved = move |range: Range<usize>| part.start + range.start..part.start + range.end;
                let all = Windows { length, ..windows }.of(part.len());
                all.map(move |(bases, own)| Self { sequence, bases: moved(bases), own: moved(own) })
            })
        })
    }

    /// The memory that it takes, in bases.
    pub(super) fn size(&self) -> usize {
        self.bases.len() + OVERHEAD
    }

    /// The bases of each place.
    pub(super) fn letters(places: &[Self], sequences: &[Sequence]) -> Vec<Vec<BaseId>> {
        places.iter().map(|place| bases_of(&sequences[place.sequence].first[place.bases.clone()])).collect()
    }
}

/// What a frozen model finds in the rows of places, which have so many positions each, in their order: `of_batch` gets the numbers of
/// rows of like length, as many as fit into `together` positions, and gives what it finds in each.
pub(super) fn in_batches<T>(
    places: &[Place],
    positions: &[usize],
    together: usize,
    execution: Execution,
    mut of_batch: impl FnMut(&[u32]) -> Vec<Vec<T>>,
) -> Result<Vec<T>, Interrupted> {
    let mut found: Vec<Vec<T>> = positions.iter().map(|_| Vec::new()).collect();
    ops::with_frozen_weights(|| {
        for batch in by_budget(positions, together) {
            execution.go_on(0)?;
            for (&row, of_row) in batch.iter().zip(of_batch(&batch)) {
                found[row as usize] = of_row;
            }
            execution.go_on(batch.iter().map(|&row| places[row as usize].own.len() as u64).sum())?;
        }
        Ok(())
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Stretches of sequences in order, without those that overlap one before them: where windows meet, both may have cut the same bases.
pub(super) fn without_overlaps<T>(
    stretches: impl Iterator<Item = Result<T, Interrupted>>,
    of: impl Fn(&T) -> (usize, Range<usize>),
) -> impl Iterator<Item = Result<T, Interrupted>> {
    let (mut sequence, mut end) = (0, 0);
    stretches.filter(move |stretch| {
        let Ok(stretch) = stretch else { return true };
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

    fn of(windows: Windows, bases: usize) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        windows.of(bases).unzip()
    }

    #[test]
    fn windows_cover_everything_and_end_with_it() {
        let windows = Windows { length: 4, stride: 3 };
        assert!(of(windows, 0).0.iter().eq(std::iter::once(&(0..0))));
        assert!(of(windows, 4).0.iter().eq(std::iter::once(&(0..4))));
        assert_eq!(of(windows, 5).0, [0..4, 1..5]);
        assert_eq!(of(windows, 10), (vec![0..4, 3..7, 6..10], vec![0..3, 3..6, 6..10]));
    }

    #[test]
    fn parts_have_windows_of_their_own() {
        let mut sequence = Sequence::new("a", *b"ACGTNNACGTACNA");
        sequence.parts = vec![0..4, 6..12, 13..14];
        let sequences = [sequence, Sequence::new("empty", Vec::new()), Sequence::pair("pair", *b"ACGTACGT", *b"A")];
        let places = |see_pairs| -> Vec<(usize, Range<usize>, Range<usize>)> {
            let all = Place::all(&sequences, Windows { length: 4, stride: 2 }, see_pairs);
            all.map(|Place { sequence, bases, own }| (sequence, bases, own)).collect()
        };
        let first = [(0, 0..4, 0..4), (0, 6..10, 6..9), (0, 8..12, 9..12), (0, 13..14, 13..14)];
        assert_eq!(places(true), [&first[..], &[(2, 0..8, 0..8)]].concat());
        assert_eq!(places(false)[4..].len(), 3);
    }

    proptest! {
        #[test]
        fn every_base_is_in_a_window_and_owned_once(bases in 0_usize..200, length in 1_usize..50, share in 1_usize..50) {
            let (windows, own) = of(Windows { length, stride: share.min(length) }, bases);
            prop_assert!(windows.iter().all(|window| window.len() == length.min(bases)));
            prop_assert!(windows.windows(2).all(|pair| pair[0].start < pair[1].start));
            prop_assert_eq!(own[0].start, 0);
            prop_assert_eq!(own[own.len() - 1].end, bases);
            prop_assert!(own.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(own.iter().zip(&windows).all(|(own, window)| window.start <= own.start && own.end <= window.end));
        }
    }
}
