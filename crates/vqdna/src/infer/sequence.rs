//! A sequence, or a pair, and what of it is seen.

use std::ops::Range;
use vqdna_data::bed::Interval;

/// A sequence, or a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its name.
    pub id: String,
    /// Its letters as read.
    pub first: Vec<u8>,
    /// The other sequence of a pair.
    pub second: Option<Vec<u8>>,
    /// What is seen of `first`, as sorted, disjoint positions: each part is cut into windows of its own. A pair is seen whole. None if
    /// there is nothing to see, in a sequence without letters or one of which a letter policy keeps none.
    pub parts: Vec<Range<usize>>,
    /// Where it lies on a genome, if a BED file says so.
    pub place: Option<Interval>,
    /// What stands beside it in a table, in the columns that are carried along.
    pub carried: Vec<String>,
}

impl Sequence {
    /// A sequence that is seen whole.
    #[must_use]
    pub fn new(id: impl Into<String>, letters: impl Into<Vec<u8>>) -> Self {
        let first = letters.into();
        let parts = whole(&first);
        Self { id: id.into(), first, second: None, parts, place: None, carried: Vec::new() }
    }

    /// A pair; it is not seen if one of both has no letters.
    #[must_use]
    pub fn pair(id: impl Into<String>, first: impl Into<Vec<u8>>, second: impl Into<Vec<u8>>) -> Self {
        let (first, second) = (first.into(), second.into());
        let parts = if second.is_empty() { Vec::new() } else { whole(&first) };
        Self { id: id.into(), first, second: Some(second), parts, place: None, carried: Vec::new() }
    }

    /// Whether there is nothing to see.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Letters of both.
    #[must_use]
    pub fn letters(&self) -> usize {
        self.first.len() + self.second.as_ref().map_or(0, Vec::len)
    }
}

fn whole(letters: &[u8]) -> Vec<Range<usize>> {
    (!letters.is_empty()).then_some(0..letters.len()).into_iter().collect()
}
