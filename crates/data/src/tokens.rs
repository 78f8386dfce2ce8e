//! The tokenization of one sequence by anything: ids, the bases that each token stands for, and the context that a piece of a
//! sequence needs so that it gets the ids of the whole.

use std::ops::Range;

use crate::alphabet::{BaseId, N};

/// Ids of the tokens of one sequence, and the bases that each of them stands for.
///
/// Special ids (padding, the start or the end of a sequence) are not among them, since they stand for no base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids per level; all levels have one id for each token. Fixed tokenizers have one level.
    pub levels: Vec<Vec<u32>>,
    /// The bases of each token.
    pub spans: Spans,
}

impl Tokens {
    /// Tokens with one id each.
    ///
    /// # Panics
    /// If there are not as many ids as spans.
    #[must_use]
    pub fn single(ids: Vec<u32>, spans: Spans) -> Self {
        assert_eq!(ids.len(), spans.len(), "one id for each token");
        Self { levels: vec![ids], spans }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// The bases of each token, as positions of the tokenized sequence counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spans {
    /// One base each; their number.
    Bases(usize),
    /// Token `i` starts at base `i * stride` and has `width` bases, fewer where the sequence ends before.
    ///
    /// Overlapping k-mers have width k and stride 1.
    Fixed {
        /// Bases of a token.
        width: usize,
        /// Bases between the starts of neighbouring tokens.
        stride: usize,
        /// Number of tokens.
        count: usize,
        /// Length of the sequence in bases.
        bases: usize,
    },
    /// Tokens of any width that tile the sequence: each starts where the one before it ends, and the first at base 0.
    Ends(Vec<u32>),
}

impl Spans {
    /// Number of tokens.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bases(count) | Self::Fixed { count, .. } => *count,
            Self::Ends(ends) => ends.len(),
        }
    }

    /// Whether there is no token.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bases of a token.
    ///
    /// # Panics
    /// If there are not that many tokens.
    #[must_use]
    pub fn get(&self, token: usize) -> Range<usize> {
        assert!(token < self.len(), "token {token} of {}", self.len());
        match self {
            Self::Bases(_) => token..token + 1,
            Self::Fixed { width, stride, bases, .. } => {
                let start = token * stride;
                start.min(*bases)..(start + width).min(*bases)
            }
            Self::Ends(ends) => {
                let start = if token == 0 { 0 } else { ends[token - 1] };
                start as usize..ends[token] as usize
            }
        }
    }

    /// Bases up to the end of the last token. A sequence that is shorter than a k-mer has no token, and none of it is covered.
    #[must_use]
    pub fn bases(&self) -> usize {
        self.len().checked_sub(1).map_or(0, |last| self.get(last).end)
    }

    /// The bases of every token, left to right.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|token| self.get(token))
    }
}

/// What a piece of a sequence needs so that its tokens are those of the whole sequence.
///
/// The tokens of a piece are those that start in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// This many bases after the piece, and none before it.
    After(usize),
    /// Both ends of the piece on a grid: a multiple of `period` bases from the first base of their run of bases without N, or
    /// the end of that run.
    Grid {
        /// Bases between neighbouring points of the grid.
        period: usize,
    },
    /// The whole of each run of bases without N that the piece touches.
    Run,
    /// The whole sequence.
    Whole,
}

impl Context {
    /// The bases to tokenize for the sake of a piece: among their tokens, those that start in the piece are the ones of the whole
    /// sequence.
    ///
    /// The time is that of walking to the ends of the piece's runs, for [`Self::Grid`] and [`Self::Run`].
    ///
    /// # Panics
    /// If the piece is not one of `bases`.
    #[must_use]
    pub fn widen(self, bases: &[BaseId], piece: Range<usize>) -> Range<usize> {
        let Range { start, end } = piece;
        assert!(start <= end && end <= bases.len(), "bases {start}..{end} of {}", bases.len());
        // Where the run that holds a position begins, and the one that holds the position before it ends.
        let run_start = |at: usize| bases[..at].iter().rposition(|&base| base == N).map_or(0, |before| before + 1);
        let run_end = |at: usize| bases[at..].iter().position(|&base| base == N).map_or(bases.len(), |run| at + run);
        match self {
            Self::After(after) => start..(end + after).min(bases.len()),
            Self::Grid { period } => {
                let origin = run_start(end);
                let on_grid = origin + (end - origin).next_multiple_of(period);
                start - (start - run_start(start)) % period..on_grid.min(run_end(end))
            }
            Self::Run => run_start(start)..run_end(end),
            Self::Whole => 0..bases.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_span_says_which_bases_it_holds() {
        let bases = Spans::Bases(3);
        assert_eq!(bases.iter().collect::<Vec<_>>(), [0..1, 1..2, 2..3]);
        assert_eq!((bases.len(), bases.bases()), (3, 3));
        let kmers = Spans::Fixed { width: 3, stride: 1, count: 3, bases: 5 };
        assert_eq!(kmers.iter().collect::<Vec<_>>(), [0..3, 1..4, 2..5]);
        assert_eq!(kmers.bases(), 5);
        let blocks = Spans::Fixed { width: 4, stride: 4, count: 2, bases: 6 };
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [0..4, 4..6]);
        let ends = Spans::Ends(vec![2, 3, 7]);
        assert_eq!(ends.iter().collect::<Vec<_>>(), [0..2, 2..3, 3..7]);
        assert_eq!(ends.bases(), 7);
        for none in [Spans::Bases(0), Spans::Ends(vec![]), Spans::Fixed { width: 3, stride: 1, count: 0, bases: 2 }] {
            assert!(none.is_empty());
            assert_eq!((none.bases(), none.iter().len()), (0, 0));
        }
    }

    #[test]
    #[should_panic(expected = "token 2 of 2")]
    fn there_is_no_token_after_the_last() {
        let _ = Spans::Ends(vec![1, 2]).get(2);
    }

    #[test]
    fn pieces_are_widened_by_what_they_need() {
        // 0 1 2 3 4 5 6 7 8 9 10
        // A C N A C G T A C N G
        let bases = [0, 1, N, 0, 1, 2, 3, 0, 1, N, 2];
        assert_eq!(Context::After(2).widen(&bases, 3..5), 3..7);
        assert_eq!(Context::After(2).widen(&bases, 3..10), 3..11);
        assert_eq!(Context::Grid { period: 4 }.widen(&bases, 5..6), 3..7);
        assert_eq!(Context::Grid { period: 4 }.widen(&bases, 7..8), 7..9);
        assert_eq!(Context::Grid { period: 4 }.widen(&bases, 1..3), 0..3);
        assert_eq!(Context::Run.widen(&bases, 5..6), 3..9);
        assert_eq!(Context::Run.widen(&bases, 0..11), 0..11);
        assert_eq!(Context::Whole.widen(&bases, 5..6), 0..11);
    }
}
