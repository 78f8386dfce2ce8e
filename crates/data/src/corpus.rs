//! All segments of many files, open to random access, in bounded memory.

mod names;
mod store;

use std::{
    collections::HashSet,
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
pub use names::Names;
use names::ReadNames;
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
    /// Whether a contig and a start on it name one segment.
    has_coordinates: bool,
    has_shared_names: bool,
    counts: Counts,
    digests: Vec<InputDigest>,
}

/// Where a segment comes from and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Name of the contig; of a read, if names may repeat, a name that reads share (see [`Names::Any`]).
    pub contig: Arc<str>,
    /// Where the segment starts on its contig, counted from 0.
    pub start: u64,
    /// Number of bases.
    pub bases: u64,
    /// Where its bases start in the store.
    offset: u64,
}

impl Corpus {
    /// Reads all records of the inputs, each of which must have a name of its own.
    ///
    /// `memory_limit_bytes` bounds the bases held in memory; beyond it they move to a temporary file that has no name and
    /// vanishes with the corpus. While reading, the longest record is held
    /// besides, as lines, as letters and as bases.
    ///
    /// # Errors
    /// If an input cannot be read, a letter cannot be used, or the temporary file cannot be written.
    pub fn read<P: AsRef<Path>>(paths: &[P], policy: Policy, memory_limit_bytes: u64) -> Result<Self, FastaError> {
        Self::read_with_progress(paths, policy, Names::Unique, memory_limit_bytes, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`read`](Self::read), but names may repeat if `names` says so; calls `progress` after each record with the number of
    /// letters read so far, which says whether to go on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with_progress<P: AsRef<Path>>(
        paths: &[P],
        policy: Policy,
        names: Names,
        memory_limit_bytes: u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, FastaError> {
        let mut records = fasta::read_all(paths)?;
        if names == Names::Any {
            records = records.with_repeated_names();
        }
        let mut read_names = ReadNames::default();
        let mut store = Builder::new(memory_limit_bytes);
        let mut found = Found::default();
        while let Some(record) = records.next() {
            let record = record?;
            let contig = if names == Names::Any && records.is_fastq() {
                found.has_reads = true;
                read_names.of(&record.name)
            } else {
                let name: Arc<str> = record.name.as_str().into();
                found.contigs.push(Arc::clone(&name));
                name
            };
            for segment in segments(&record, policy, &mut found.counts)? {
                let segment = Segment { contig: Arc::clone(&contig), ..segment };
                let offset = store.push(&segment.bases).map_err(FastaError::spool)?;
                found.add(segment, offset);
            }
            if progress(found.counts.bases).is_break() {
                return Err(FastaError::Interrupted);
            }
        }
        let store = store.finish().map_err(FastaError::spool)?;
        let Found { segments, soft_masked, contigs, has_reads, counts } = found;
        let has_shared_names = names == Names::Any && has_reads;
        let has_coordinates =
            names == Names::Unique || !has_reads && contigs.iter().collect::<HashSet<_>>().len() == contigs.len();
        let digests = records.digests().to_vec();
        Ok(Self { store, segments, soft_masked, contigs, has_coordinates, has_shared_names, counts, digests })
    }

    /// The segments, in the order of the inputs.
    #[must_use]
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// The name under which the codes of a segment are filed, together with its start: that of its contig, or, where several
    /// records may have one name, the number of the segment.
    ///
    /// # Panics
    /// If there is no such segment.
    #[must_use]
    pub fn filed_under(&self, segment: usize) -> Arc<str> {
        let info = &self.segments[segment];
        if self.has_coordinates { Arc::clone(&info.contig) } else { segment.to_string().into() }
    }

    /// The names of all records, empty ones included, in the order of the inputs; without reads if [names may
    /// repeat](Names::Any).
    #[must_use]
    pub fn contigs(&self) -> &[Arc<str>] {
        &self.contigs
    }

    /// Whether reads share names that stand for their own (see [`Names::Any`]), by which they are then held out.
    #[must_use]
    pub const fn has_shared_names(&self) -> bool {
        self.has_shared_names
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
    has_reads: bool,
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
        Corpus::read_with_progress(&files, Policy::default(), Names::Unique, 0, &mut progress).unwrap();
        assert_eq!(told, [12, 12, 16]);
        let mut stop = |_| ControlFlow::Break(());
        let stopped = Corpus::read_with_progress(&files, Policy::default(), Names::Unique, 0, &mut stop);
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

    fn any_names(texts: &[&str]) -> Corpus {
        let folder = tempfile::tempdir().unwrap();
        let path = |(number, text): (usize, &&str)| {
            let path = folder.path().join(number.to_string());
            fs::write(&path, text).unwrap();
            path
        };
        let paths: Vec<_> = texts.iter().enumerate().map(path).collect();
        Corpus::read_with_progress(&paths, Policy::default(), Names::Any, u64::MAX, &mut |_| ControlFlow::Continue(()))
            .unwrap()
    }

    #[test]
    fn the_reads_of_a_pair_share_a_name_in_two_files_and_in_one() {
        for texts in [
            &["@r/1 x\nAC\n+\nII\n@s\nT\n+\nI\n", "@r/2 x\nGGG\n+\nIII\n@s\nTT\n+\nII\n"][..],
            &["@r\nAC\n+\nII\n@s\nT\n+\nI\n@r\nGGG\n+\nIII\n@s\nTT\n+\nII\n"],
        ] {
            let corpus = any_names(texts);
            let bases: Vec<_> = (0..4).map(|n| corpus.window(n, 0..1).unwrap().0[0]).collect();
            assert_eq!((corpus.counts().records, bases), (4, vec![0, 3, 2, 3]));
            let names: Vec<_> = corpus.segments().iter().map(|segment| &*segment.contig).collect();
            assert!(names[0] == names[2] && names[1] == names[3] && names[0] != names[1], "{names:?}");
            assert!(corpus.contigs().is_empty() && corpus.has_shared_names(), "the names of reads are not kept");
            let filed: HashSet<_> = (0..4).map(|n| corpus.filed_under(n)).collect();
            assert_eq!(filed.len(), 4, "each read has codes of its own");
        }
    }

    #[test]
    fn contigs_of_one_name_in_two_genomes_are_filed_apart() {
        let corpus = any_names(&[">chr1\nACGT\n", ">chr1\nTT\n>chr2\nA\n"]);
        assert_eq!((corpus.contigs().len(), corpus.has_shared_names()), (3, false));
        assert_eq!([0, 1, 2].map(|n| corpus.filed_under(n).to_string()), ["0", "1", "2"]);
        let corpus = any_names(&[">chr1\nACGT\n", ">chr2\nTT\n"]);
        assert_eq!([0, 1].map(|n| corpus.filed_under(n).to_string()), ["chr1", "chr2"]);
    }

    #[test]
    fn the_names_of_many_reads_take_bounded_memory() {
        let mut names = ReadNames::default();
        let distinct: HashSet<_> = (0..200_000).map(|read| names.of(&read.to_string())).collect();
        assert!((60_000..=65_536).contains(&distinct.len()), "{}", distinct.len());
    }
}
