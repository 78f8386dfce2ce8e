//! Reads BED: places on a genome, with their names, and the letters there.
//!
//! Three to twelve fields, separated by tabs or else by blanks; only the first six are used. Remarks are passed over and counted: lines
//! of `#`, `track` and `browser` whose second and third fields are no whole numbers, and so no places on a contig of such a name. Blank
//! lines are passed over. Files may be compressed.
//!
//! ```
//! use vqdna_data::bed;
//!
//! # let folder = tempfile::tempdir()?;
//! # let (peaks, genome) = (folder.path().join("peaks.bed"), folder.path().join("genome.fa"));
//! std::fs::write(&genome, ">chr1\nACGTT\n")?;
//! std::fs::write(&peaks, "chr1\t0\t2\nchr1\t2\t5\tpeak\t0\t-\n")?;
//! let found = bed::sequences(&peaks, &genome)?.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!((found[0].0.id(), &found[0].1[..]), ("chr1:1-2(+)".to_owned(), &b"AC"[..]));
//! assert_eq!((found[1].0.id(), &found[1].1[..]), ("peak".to_owned(), &b"AAC"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod line;

use std::{path::Path, sync::Arc};

use crate::{
    fasta::{Contigs, FastaError},
    input::{self, InputDigest, InputError, Lines, Watch},
    span::{Span, Strand},
};

pub use error::{BedError, BedFault};

/// A line of a BED file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Where it lies; on the forward strand unless the file says `-`.
    pub span: Span,
    /// Its name; absent if the file has none or `.`.
    pub name: Option<String>,
    /// Its score as written; absent if the file has none or `.`.
    pub score: Option<String>,
    /// Whether the file names its strand.
    pub is_stranded: bool,
    /// The line it was read from, counted from 1.
    pub line: u64,
}

impl Interval {
    /// Its name, or else where it lies as a region string: `chr1:1001-2000(+)`.
    #[must_use]
    pub fn id(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.span.to_string())
    }

    /// Its strand as BED writes it; `.` if the file names none.
    #[must_use]
    pub const fn strand(&self) -> &'static str {
        match (self.is_stranded, self.span.strand) {
            (false, _) => ".",
            (true, Strand::Forward) => "+",
            (true, Strand::Reverse) => "-",
        }
    }
}

/// The intervals of a file, in order; ends after the first error.
pub struct Intervals {
    file: Arc<str>,
    lines: Lines,
    /// Until the end is reached.
    watch: Option<Watch>,
    /// The contig of the last interval, since the next is often on the same.
    contig: Arc<str>,
    remarks: u64,
    found: u64,
    bases: u64,
    digest: Option<InputDigest>,
}

/// Opens a BED file; `-` is standard input.
///
/// # Errors
/// If it cannot be read. The iterator yields the errors of its lines.
pub fn read(path: &Path) -> Result<Intervals, BedError> {
    let (text, watch) = input::open(path)?;
    let (file, contig) = (watch.file.clone(), Arc::from(""));
    Ok(Intervals {
        file,
        lines: Lines::new(text),
        watch: Some(watch),
        contig,
        remarks: 0,
        found: 0,
        bases: 0,
        digest: None,
    })
}

impl Intervals {
    /// What was read, once the end has been reached.
    #[must_use]
    pub fn digest(&self) -> Option<&InputDigest> {
        self.digest.as_ref()
    }

    /// Lines that were passed over as remarks so far.
    #[must_use]
    pub fn remarks(&self) -> u64 {
        self.remarks
    }

    fn next_interval(&mut self, watch: &Watch) -> Result<Option<Interval>, BedError> {
        while let Some((line, text)) = self.lines.next_filled().map_err(|error| watch.explain(error))? {
            let parsed = line::parse(text, &self.contig);
            let at_line = |fault| BedError::Line { file: self.file.clone(), line, fault };
            let Some(interval) = parsed.map_err(at_line)? else {
                self.remarks += 1;
                continue;
            };
            // Blanks around a line are no part of it, but a tab before it ends an empty field.
            if self.lines.starts_with_tab() {
                return Err(at_line(BedFault::NoContig));
            }
            self.contig = interval.span.contig.clone();
            self.found += 1;
            self.bases += interval.span.len();
            return Ok(Some(Interval { line, ..interval }));
        }
        Ok(None)
    }
}

impl Intervals {
    /// Counts an interval as a remark after all.
    fn take_back(&mut self, interval: &Interval) {
        self.found -= 1;
        self.bases -= interval.span.len();
        self.remarks += 1;
    }
}

impl Iterator for Intervals {
    type Item = Result<Interval, BedError>;

    fn next(&mut self) -> Option<Self::Item> {
        let watch = self.watch.take()?;
        match self.next_interval(&watch) {
            Ok(Some(interval)) => {
                self.watch = Some(watch);
                Some(Ok(interval))
            }
            Ok(None) => match watch.finish(self.found, self.bases) {
                Ok(digest) => {
                    self.digest = Some(digest);
                    None
                }
                Err(error) => Some(Err(error.into())),
            },
            Err(error) => Some(Err(error)),
        }
    }
}

/// The intervals of a file, each with its letters; ends after the first error.
pub struct Sequences {
    intervals: Intervals,
    genome: Contigs,
    has_failed: bool,
}

/// Opens a BED file (`-` for standard input) and the genome it speaks of.
///
/// # Errors
/// If either cannot be read. The iterator yields the errors of the lines, also of those that name a contig that the genome does
/// not have, or end beyond it.
pub fn sequences(bed: &Path, genome: &Path) -> Result<Sequences, BedError> {
    Ok(Sequences { intervals: read(bed)?, genome: Contigs::open(genome)?, has_failed: false })
}

impl Sequences {
    /// What was read of the BED file, once its end has been reached.
    #[must_use]
    pub fn digest(&self) -> Option<&InputDigest> {
        self.intervals.digest()
    }

    /// Lines of the BED file that were passed over as remarks so far.
    ///
    /// Among them are those that begin with `#` and have the shape of an interval, on a contig that the genome does not have.
    #[must_use]
    pub fn remarks(&self) -> u64 {
        self.intervals.remarks
    }

    /// Whether an interval is rather one that was taken out by a `#` before its line.
    fn is_remark(&self, interval: &Interval) -> bool {
        interval.span.contig.starts_with('#') && self.genome.bases(&interval.span.contig).is_none()
    }

    fn letters(&mut self, interval: &Interval) -> Result<Vec<u8>, BedError> {
        let file = || self.intervals.file.clone();
        self.genome.read(&interval.span).map_err(|error| match error {
            FastaError::Region { .. } => BedError::Interval { file: file(), line: interval.line, source: error },
            error => error.into(),
        })
    }
}

impl Iterator for Sequences {
    type Item = Result<(Interval, Vec<u8>), BedError>;

    /// The letters have the case of the genome; those on the reverse strand are the reverse complement.
    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let next = loop {
            match self.intervals.next()? {
                Ok(interval) if self.is_remark(&interval) => self.intervals.take_back(&interval),
                next => break next,
            }
        };
        let next = next.and_then(|interval| self.letters(&interval).map(|letters| (interval, letters)));
        self.has_failed = next.is_err();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{error::Error, fs, io::Write};

    fn intervals(text: &[u8]) -> Result<Vec<(String, Option<String>, u64)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bed");
        fs::write(&path, text).unwrap();
        let short = |error: BedError| error.to_string().replace(&*path.to_string_lossy(), "x.bed");
        let all = read(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(short)?;
        Ok(all.into_iter().map(|interval| (interval.span.to_string(), interval.name, interval.line)).collect())
    }

    #[test]
    fn three_to_twelve_fields_are_read() {
        let text = b"browser position chr1:1-2\ntrack name=x\n#chrom\tstart\tend\n\nchr1\t0\t5\r\n\
            chr1\t5\t9\tpeak 1\nchr2 7 8 . 960 -\nchr2\t0\t9\tx\t0\t.\t0\t9\t0,0,0\t1\t9,\t0,\n";
        let expected = [
            ("chr1:1-5(+)", None, 5),
            ("chr1:6-9(+)", Some("peak 1"), 6),
            ("chr2:8-8(-)", None, 7),
            ("chr2:1-9(+)", Some("x"), 8),
        ];
        let expected = expected.map(|(span, name, line)| (span.to_owned(), name.map(str::to_owned), line));
        assert_eq!(intervals(text), Ok(expected.to_vec()));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        assert_eq!(intervals(&gzip.finish().unwrap()), Ok(expected.to_vec()));
        assert_eq!(intervals(b""), Ok(vec![]));
    }

    #[test]
    fn fields_are_kept_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bed");
        fs::write(&path, "a\t0\t5\na\t0\t5\tx\t7.5\t-\na\t0\t5\t.\t.\t.\na\t0\t5\tx\t0\t+\n").unwrap();
        let all: Vec<Interval> = read(&path).unwrap().map(Result::unwrap).collect();
        let fields = all.iter().map(|interval| (interval.score.as_deref(), interval.strand())).collect::<Vec<_>>();
        assert_eq!(fields, [(None, "."), (Some("7.5"), "-"), (None, "."), (Some("0"), "+")]);
        assert_eq!(all[1].span.part(0..2), 3..5);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        for (text, message) in [
            ("chr1\t0\t5\nchr1\t7\n", "x.bed, line 2: has 2 fields; BED has at least three: contig, start and end"),
            ("chr1\tzero\t5\n", "x.bed, line 1: the start `zero` is not a whole number from 0 on"),
            ("chr1\t0\t-5\n", "x.bed, line 1: the end `-5` is not a whole number from 0 on"),
            ("\t5\t100\t200\n", "x.bed, line 1: names no contig: its first field is empty"),
            (
                "chr1\t5\t100\ta\u{1b}[1mb\n",
                "x.bed, line 1: `a\\u{1b}[1mb` holds a control character, which tables cannot hold",
            ),
            ("chr1\t5.0\t1e2\n", "x.bed, line 1: the start `5.0` is not a whole number from 0 on"),
            (
                "\nchr1\t5\t5\n",
                "x.bed, line 2: holds no base, from 5 to 5: BED counts from 0 and the end is not included",
            ),
            ("chr1\t0\t5\tx\t0\t*\n", "x.bed, line 1: the strand `*` is none of `+`, `-` and `.`"),
        ] {
            assert_eq!(intervals(text.as_bytes()), Err(message.to_owned()));
        }
    }

    #[test]
    fn contigs_may_be_called_like_remarks() {
        let folder = tempfile::tempdir().unwrap();
        let [bed, genome] = ["x.bed", "x.fa"].map(|name| folder.path().join(name));
        fs::write(&genome, ">track\nACGTA\n>#x\nTTTTT\n>browser\nGGGGG\n").unwrap();
        let lines = "track name=x\nbrowser position chr1:1-2\n#chrom\tstart\tend\ntrack\t0\t2\n#x\t1\t3\nbrowser 0 1\n#track\t0\t2\n";
        fs::write(&bed, lines).unwrap();
        let mut sequences = sequences(&bed, &genome).unwrap();
        let found: Vec<_> = sequences.by_ref().map(|found| found.unwrap()).collect();
        let letters: Vec<_> = found.iter().map(|(place, letters)| (place.line, &letters[..])).collect();
        assert_eq!(letters, [(4, &b"AC"[..]), (5, b"TT"), (6, b"G")]);
        // Of the interval on `#track`, which is no contig, the `#` makes a remark.
        assert_eq!((sequences.remarks(), sequences.digest().unwrap().records), (4, 3));
        // Where no genome tells, a line with the shape of an interval is one.
        let mut intervals = read(&bed).unwrap();
        assert_eq!((intervals.by_ref().count(), intervals.remarks()), (4, 3));
    }

    #[test]
    fn places_keep_what_the_file_says_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.narrowPeak");
        let text = b"I\t5\t305\tp1\t100\t.\t1.0\t2.0\t3.0\t50\nII\t300\t370\t.\t0.5\t-\nI\t1\t2\ncaf\xe9\t1\t2\n";
        fs::write(&path, text).unwrap();
        let found: Vec<Interval> = read(&path).unwrap().map(|interval| interval.unwrap()).collect();
        let said: Vec<_> = found.iter().map(|i| (i.name.as_deref(), i.score.as_deref(), i.is_stranded)).collect();
        assert_eq!(
            said,
            [(Some("p1"), Some("100"), false), (None, Some("0.5"), true), (None, None, false), (None, None, false)]
        );
        assert_eq!(found[3].id(), "caf\\xE9:2-2(+)");
    }

    #[test]
    fn letters_are_those_of_the_strand() {
        let folder = tempfile::tempdir().unwrap();
        let [bed, genome] = ["x.bed", "x.fa"].map(|name| folder.path().join(name));
        fs::write(&genome, ">chr1\nACGTacgtNN\n").unwrap();
        let sequences = |text: &str| {
            fs::write(&bed, text).unwrap();
            let mut sequences = sequences(&bed, &genome).unwrap();
            let found: Result<Vec<_>, _> = sequences.by_ref().collect();
            found.map(|found| (found, sequences.digest().unwrap().clone()))
        };
        let (found, digest) = sequences("chr1\t0\t6\n").unwrap();
        assert_eq!(found[0].1, b"ACGTac");
        assert_eq!((digest.records, digest.bases), (1, 6));
        let (found, _) = sequences("chr1\t2\t9\tx\t0\t-\n").unwrap();
        assert_eq!(found[0].1, b"NacgtAC");

        let chain = |text: &str| {
            let error = sequences(text).unwrap_err();
            format!("{error}: {}", error.source().unwrap())
        };
        let unknown = chain("chr1\t0\t1\n1\t0\t1\n");
        assert!(unknown.contains("x.bed, line 2: the interval is not in the genome"), "{unknown}");
        assert!(unknown.contains("x.fa: no contig `1`; did you mean `chr1`?"), "{unknown}");
        let beyond = chain("chr1\t5\t11\n");
        assert!(beyond.contains("`chr1:6-11` ends after the end of its contig, which has 10 bases"), "{beyond}");
    }

    #[test]
    fn nothing_follows_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bed");
        fs::write(&path, "chr1\t0\t5\nchr1\nchr1\t0\t5\n").unwrap();
        let ends: Vec<_> = read(&path).unwrap().map(|interval| interval.is_ok()).collect();
        assert_eq!(ends, [true, false]);
    }
}
