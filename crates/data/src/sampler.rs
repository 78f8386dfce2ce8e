//! The windows of a corpus that belong to one split, and the order in which an epoch visits them.

use std::ops::Range;

use crate::{
    corpus::Corpus,
    random::{shuffle, stream},
    split::{Split, SplitPolicy},
    window::Windowing,
};

/// The windows of one split, numbered; 12 bytes each.
pub struct WindowTable {
    segments: Vec<u32>,
    starts: Vec<u64>,
    /// Length of every segment of the corpus, in bases.
    segment_bases: Vec<u64>,
    length: u64,
}

impl WindowTable {
    /// Lists the windows of `corpus` that the policy assigns to `split`, in the order of the corpus.
    ///
    /// A window is assigned by where its core starts on the contig.
    ///
    /// # Panics
    /// If the windowing is not valid, or there are 2³² segments or windows or more.
    #[must_use]
    pub fn new(corpus: &Corpus, windowing: &Windowing, policy: &SplitPolicy, seed: u64, split: Split) -> Self {
        let (mut segments, mut starts) = (Vec::new(), Vec::new());
        for (index, segment) in (0_u32..).zip(corpus.segments()) {
            for window in windowing.windows(to_index(segment.bases)) {
                let start = window.core.start as u64;
                if policy.assign(seed, &segment.contig, segment.start + start) == split {
                    segments.push(index);
                    starts.push(start);
                }
            }
        }
        assert!(u32::try_from(starts.len()).is_ok(), "more windows than a table can number");
        let segment_bases = corpus.segments().iter().map(|segment| segment.bases).collect();
        Self { segments, starts, segment_bases, length: windowing.length as u64 }
    }

    /// Number of windows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the split has no window.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The core of a window: its segment and its bases there, as [`Corpus::window`] takes them.
    ///
    /// # Panics
    /// If there is no such window.
    #[must_use]
    pub fn get(&self, window: usize) -> (usize, Range<usize>) {
        let segment = self.segments[window] as usize;
        let start = self.starts[window];
        let end = self.segment_bases[segment].min(start.saturating_add(self.length));
        (segment, to_index(start)..to_index(end))
    }

    /// All windows in the random order of one epoch: a pure function of `seed` and `epoch`, the same on every machine.
    #[must_use]
    pub fn shuffled(&self, seed: u64, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.len()).collect();
        shuffle(&mut order, &mut stream(seed, epoch));
        order
    }
}

/// A position in a segment; a segment was a slice when it was read, so its length fits.
#[expect(clippy::cast_possible_truncation, reason = "at most the length of a slice")]
const fn to_index(position: u64) -> usize {
    position as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Policy;
    use std::fs;

    fn table(split: Split) -> WindowTable {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("genome.fa");
        fs::write(&path, format!(">chr1\n{}\n>chr2\n{}\n", "A".repeat(10), "C".repeat(7))).unwrap();
        let corpus = Corpus::read(&[path], Policy::default(), u64::MAX).unwrap();
        let windowing = Windowing { length: 4, stride: 4, halo: 0 };
        let policy = SplitPolicy::Contig { valid: vec!["chr2".to_owned()], test: Vec::new() };
        WindowTable::new(&corpus, &windowing, &policy, 0, split)
    }

    #[test]
    fn each_window_is_in_its_split() {
        let windows = |split| {
            let table = table(split);
            (0..table.len()).map(|window| table.get(window)).collect::<Vec<_>>()
        };
        assert_eq!(windows(Split::Train), [(0, 0..4), (0, 4..8), (0, 8..10)]);
        assert_eq!(windows(Split::Valid), [(1, 0..4), (1, 4..7)]);
        assert!(table(Split::Test).is_empty());
    }

    #[test]
    fn an_epoch_visits_every_window_once_in_an_order_of_its_own() {
        let table = WindowTable { segments: vec![0; 100], starts: vec![0; 100], segment_bases: vec![1], length: 1 };
        let order = table.shuffled(1, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, table.shuffled(1, 0));
        assert_ne!(order, table.shuffled(1, 1));
        assert_ne!(order, table.shuffled(2, 0));
    }

    #[test]
    fn an_order_never_changes() {
        // Written down once: a run resumed by a later version must go on where it stopped.
        let table = WindowTable { segments: vec![0; 8], starts: vec![0; 8], segment_bases: vec![1], length: 1 };
        assert_eq!(table.shuffled(1, 0), [5, 6, 2, 4, 1, 7, 0, 3]);
    }
}
