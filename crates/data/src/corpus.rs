//! All segments of many files, open to random access, in bounded memory.

mod store;

use std::{
    io,
    ops::{ControlFlow, Range},
    path::Path,
    sync::Arc,
};

use crate::{
    alphabet::BaseId,
    fasta::{self, FastaError, InputDigest},
    segment::{Counts, Policy, Segment, segments},
};
use store::{Builder, Store};

/// The segments of one or several inputs.
///
/// Bases are held end to end, one byte each: in memory, or in a temporary file once they exceed the limit. Soft-masked
/// stretches are always held in memory, 16 bytes each.
pub struct Corpus {
    store: Store,
    segments: Vec<SegmentInfo>,
    /// Soft-masked stretches as sorted, disjoint positions of the store.
    soft_masked: Vec<Range<u64>>,
    contigs: Vec<Arc<str>>,
    counts: Counts,
    digests: Vec<InputDigest>,
}

/// Where a segment comes from and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Name of the contig.
    pub contig: Arc<str>,
    /// Where the segment starts on its contig, counted from 0.
    pub start: u64,
    /// Number of bases.
    pub bases: u64,
    /// Where its bases start in the store.
    offset: u64,
}

impl Corpus {
    /// Reads all records of the inputs.
    ///
    /// `memory_limit_bytes` bounds the bases held in memory; beyond it they move to a temporary file that has no name and
    /// vanishes with the corpus. While reading, the longest record is held
    /// besides, as lines, as letters and as bases.
    ///
    /// # Errors
    /// If an input cannot be read, a letter cannot be used, or the temporary file cannot be written.
    pub fn read<P: AsRef<Path>>(paths: &[P], policy: Policy, memory_limit_bytes: u64) -> Result<Self, FastaError> {
        Self::read_with_progress(paths, policy, memory_limit_bytes, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`read`](Self::read); calls `progress` after each record with the number of letters read so far; it says
    /// whether to go on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with_progress<P: AsRef<Path>>(
        paths: &[P],
        policy: Policy,
        memory_limit_bytes: u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, FastaError> {
        let mut records = fasta::read_all(paths)?;
        let mut store = Builder::new(memory_limit_bytes);
        let mut found = Found::default();
        for record in records.by_ref() {
            let record = record?;
            found.contigs.push(record.name.as_str().into());
            for segment in segments(&record, policy, &mut found.counts)? {
                let offset = store.push(&segment.bases).map_err(FastaError::spool)?;
                found.add(segment, offset);
            }
            if progress(found.counts.bases).is_break() {
                return Err(FastaError::Interrupted);
            }
        }
        let store = store.finish().map_err(FastaError::spool)?;
        let Found { segments, soft_masked, contigs, counts } = found;
        Ok(Self { store, segments, soft_masked, contigs, counts, digests: records.digests().to_vec() })
    }

    /// The segments, in the order of the inputs.
    #[must_use]
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// The names of all records, empty ones included, in the order of the inputs.
    #[must_use]
    pub fn contigs(&self) -> &[Arc<str>] {
        &self.contigs
    }

    /// What was met while reading.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What was read from each input.
    #[must_use]
    pub fn digests(&self) -> &[InputDigest] {
        &self.digests
    }

    /// Whether the bases lie in a temporary file.
    #[must_use]
    pub const fn is_spooled(&self) -> bool {
        matches!(self.store, Store::Spooled(_))
    }

    /// The bases of a stretch of a segment, and for each whether it is soft-masked.
    ///
    /// May be called from several threads at once.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    ///
    /// # Panics
    /// If there is no such segment or the range exceeds it.
    pub fn window(&self, segment: usize, range: Range<usize>) -> io::Result<(Vec<BaseId>, Vec<bool>)> {
        let info = &self.segments[segment];
        let (start, end) = (range.start as u64, range.end as u64);
        assert!(start <= end && end <= info.bases, "bases {range:?} of a segment of {} bases", info.bases);
        let (start, end) = (info.offset + start, info.offset + end);

        let mut bases = vec![0; range.len()];
        self.store.read(start, &mut bases)?;

        let mut is_masked = vec![false; range.len()];
        let first = self.soft_masked.partition_point(|run| run.end <= start);
        for run in self.soft_masked[first..].iter().take_while(|run| run.start < end) {
            is_masked[to_index(run.start.max(start) - start)..to_index(run.end.min(end) - start)].fill(true);
        }
        Ok((bases, is_masked))
    }
}

/// What is known of the segments while they are read.
#[derive(Default)]
struct Found {
    segments: Vec<SegmentInfo>,
    soft_masked: Vec<Range<u64>>,
    contigs: Vec<Arc<str>>,
    counts: Counts,
}

impl Found {
    fn add(&mut self, segment: Segment, offset: u64) {
        let Segment { contig, start, bases, soft_masked } = segment;
        let runs = soft_masked.into_iter().map(|run| offset + run.start as u64..offset + run.end as u64);
        self.soft_masked.extend(runs);
        self.segments.push(SegmentInfo { contig, start, bases: bases.len() as u64, offset });
    }
}

/// A distance within a window, which fits the memory it lies in.
#[expect(clippy::cast_possible_truncation, reason = "at most the length of a slice")]
const fn to_index(distance: u64) -> usize {
    distance as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    fn two_files(folder: &Path) -> [PathBuf; 2] {
        let paths = [folder.join("a.fa"), folder.join("b.fa")];
        fs::write(&paths[0], ">one\nACGTacgt\nNNAC\n>none\n").unwrap();
        fs::write(&paths[1], ">two\nttTT\n").unwrap();
        paths
    }

    #[test]
    fn windows_come_from_their_segments() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = Corpus::read(&two_files(folder.path()), Policy::default(), u64::MAX).unwrap();
        assert_eq!(corpus.contigs().iter().map(|name| &**name).collect::<Vec<_>>(), ["one", "none", "two"]);
        assert_eq!(corpus.segments().len(), 2);
        assert_eq!(corpus.window(0, 3..6).unwrap(), (vec![3, 0, 1], vec![false, true, true]));
        assert_eq!(corpus.window(1, 1..3).unwrap(), (vec![3, 3], vec![true, false]));
        assert_eq!(corpus.window(0, 8..12).unwrap(), (vec![4, 4, 0, 1], vec![false; 4]));
        assert_eq!((corpus.counts().records, corpus.counts().empty_records, corpus.counts().bases), (3, 1, 16));
        assert_eq!(corpus.digests().iter().map(|digest| digest.bases).collect::<Vec<_>>(), [12, 4]);
    }

    #[test]
    fn progress_is_told_after_each_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let mut progress = |bases| {
            told.push(bases);
            ControlFlow::Continue(())
        };
        let files = two_files(folder.path());
        Corpus::read_with_progress(&files, Policy::default(), 0, &mut progress).unwrap();
        assert_eq!(told, [12, 12, 16]);
        let mut stop = |_| ControlFlow::Break(());
        let stopped = Corpus::read_with_progress(&files, Policy::default(), 0, &mut stop);
        assert!(matches!(stopped, Err(FastaError::Interrupted)));
    }

    #[test]
    fn a_name_in_two_files_is_an_error_that_names_both() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a.fa"), folder.path().join("b.fa")];
        for path in &paths {
            fs::write(path, ">same\nA\n").unwrap();
        }
        let error = Corpus::read(&paths, Policy::default(), 0).err().unwrap().to_string();
        assert!(error.contains("a.fa") && error.contains("b.fa") && error.contains("`same`"), "{error}");
    }
}
