//! Which parts of a long sequence a model sees at a time.

use std::ops::Range;

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
