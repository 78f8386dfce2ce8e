//! Sequences to work on: tables, FASTA, FASTQ, or places of a BED file on a genome, some at a time.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vqdna_data::bed::{self, BedError};
use vqdna_data::fasta::{self, FastaError, Records};
use vqdna_data::labelled::{Chunks, ColumnRequest, LabelledError, TakenColumns};
use vqdna_data::segment::{self, Counts, Policy, Unusable};
use vqdna_data::sequences::{self, Found, SequencesError};

use super::Sequence;

/// Where sequences come from; `-` is standard input.
#[derive(Clone, Debug)]
pub enum Input {
    /// FASTA, FASTQ, CSV, TSV, JSON Lines or Parquet, whichever the content is.
    Any {
        /// The file.
        path: PathBuf,
        /// Columns of sequences, in a table.
        columns: ColumnRequest,
    },
    /// FASTA or FASTQ, whose records are named once each.
    Fasta(PathBuf),
    /// The letters at places of a genome.
    Bed {
        /// The places.
        bed: PathBuf,
        /// FASTA of the genome.
        genome: PathBuf,
    },
}

/// An input that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// See [`SequencesError`].
    #[error(transparent)]
    Sequences(#[from] SequencesError),
    /// See [`LabelledError`].
    #[error(transparent)]
    Table(#[from] LabelledError),
    /// See [`FastaError`].
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// See [`BedError`].
    #[error(transparent)]
    Bed(#[from] BedError),
}

/// Letters read before they are worked on, so that memory is bounded.
const TOGETHER: usize = 1 << 22;

/// What a sequence takes beside its letters, in letters.
const OVERHEAD: usize = 64;

/// An input that was opened.
pub struct Opened {
    source: Source,
    remark: Option<String>,
}

enum Source {
    Records(Records),
    Rows(Chunks),
    Places(Box<bed::Sequences>, Arc<str>),
}

impl Input {
    /// Opens it, and finds out what it is.
    ///
    /// # Errors
    /// If it cannot be read, or does not hold sequences.
    pub fn open(&self) -> Result<Opened, InputError> {
        let (source, remark) = match self {
            Self::Any { path, columns } => {
                let opened = sequences::open(path, columns, TOGETHER)?;
                let source = match opened.found {
                    Found::Records(records) => Source::Records(records),
                    Found::Rows(chunks) => Source::Rows(chunks),
                };
                (source, opened.remark)
            }
            Self::Fasta(path) => (Source::Records(fasta::read(path)?), None),
            Self::Bed { bed, genome } => (Source::Places(Box::new(bed::sequences(bed, genome)?), name(bed)), None),
        };
        Ok(Opened { source, remark })
    }
}

impl Opened {
    /// What is worth saying of the input: what it is, if its name says something else.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// The columns that are read of a table.
    #[must_use]
    pub fn columns(&self) -> Option<&TakenColumns> {
        match &self.source {
            Source::Rows(chunks) => Some(chunks.columns()),
            Source::Records(_) | Source::Places(..) => None,
        }
    }

    /// Names of the columns of a table that are carried along with each sequence.
    #[must_use]
    pub fn carried(&self) -> &[String] {
        match &self.source {
            Source::Rows(chunks) => chunks.carried(),
            Source::Records(_) | Source::Places(..) => &[],
        }
    }

    /// Lines of a BED file that were passed over as comments so far; 0 of other inputs.
    #[must_use]
    pub fn comments(&self) -> u64 {
        match &self.source {
            Source::Places(places, _) => places.remarks(),
            Source::Records(_) | Source::Rows(_) => 0,
        }
    }

    /// Hands the sequences to `work`, some at a time, in order, with the parts of each that the policies keep; gives back what they saw.
    /// Sequences without letters are among them, with no parts. An input is read once: a second call hands over nothing.
    ///
    /// # Errors
    /// If the input cannot be read, a letter is not a nucleotide code or one that a policy forbids, or `work` fails.
    pub fn read<E: From<InputError>>(
        &mut self,
        letters: Policy,
        work: impl FnMut(Vec<Sequence>) -> Result<(), E>,
    ) -> Result<Counts, E> {
        let mut counts = Counts::default();
        let mut waiting = Waiting { sequences: Vec::new(), letters: 0, work };
        match &mut self.source {
            Source::Rows(chunks) => {
                for rows in chunks {
                    let rows = rows.map_err(InputError::from)?;
                    for (number, row) in rows.iter().enumerate() {
                        let parts = rows.kept(number, letters, &mut counts).map_err(InputError::from)?;
                        let sequence = match row.second {
                            None => Sequence::new(row.id, row.sequence),
                            Some(second) => Sequence::pair(row.id, row.sequence, second),
                        };
                        let carried = rows.carried(number).map(str::to_owned).collect();
                        waiting.push(Sequence { parts, carried, ..sequence })?;
                    }
                }
            }
            Source::Records(records) => {
                for record in records {
                    let record = record.map_err(InputError::from)?;
                    let parts = kept(&record.file, &record.name, &record.bases, letters, &mut counts)?;
                    waiting.push(Sequence { parts, ..Sequence::new(record.name, record.bases) })?;
                }
            }
            Source::Places(places, file) => {
                for found in places {
                    let (place, bases) = found.map_err(InputError::from)?;
                    let id = place.id();
                    let parts = kept(file, &id, &bases, letters, &mut counts)?;
                    waiting.push(Sequence { parts, place: Some(place), ..Sequence::new(id, bases) })?;
                }
            }
        }
        waiting.hand_over()?;
        Ok(counts)
    }
}

/// Sequences that have been read and not been worked on.
struct Waiting<W> {
    sequences: Vec<Sequence>,
    letters: usize,
    work: W,
}

impl<E, W: FnMut(Vec<Sequence>) -> Result<(), E>> Waiting<W> {
    fn push(&mut self, sequence: Sequence) -> Result<(), E> {
        self.letters += sequence.letters() + OVERHEAD;
        self.letters += sequence.carried.iter().map(|cell| cell.len() + OVERHEAD).sum::<usize>();
        self.sequences.push(sequence);
        if self.letters >= TOGETHER { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), E> {
        self.letters = 0;
        let sequences = std::mem::take(&mut self.sequences);
        if sequences.is_empty() { Ok(()) } else { (self.work)(sequences) }
    }
}

/// The parts of a record that the policies keep.
fn kept(
    file: &Arc<str>,
    record: &str,
    bases: &[u8],
    letters: Policy,
    counts: &mut Counts,
) -> Result<Vec<Range<usize>>, InputError> {
    segment::kept(bases, letters, counts).map_err(|Unusable { position, letter, fault }| {
        let (file, record, position) = (file.clone(), record.to_owned(), position as u64 + 1);
        FastaError::Letter { file, record, position, letter, fault }.into()
    })
}

fn name(path: &Path) -> Arc<str> {
    if path == Path::new("-") { "standard input".into() } else { path.to_string_lossy().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vqdna_data::alphabet::{AmbiguousPolicy, SoftMaskPolicy};

    /// The sequences of a file as `id letters parts`, and what the policies saw.
    fn read(name: &str, text: &str, letters: Policy) -> Result<(Vec<String>, Counts), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let mut all = Vec::new();
        let input = Input::Any { path: path.clone(), columns: ColumnRequest::default() };
        let counts = input.open().and_then(|mut opened| {
            opened.read(letters, |sequences| {
                all.extend(sequences.into_iter().map(|sequence| {
                    let Sequence { id, first, parts, .. } = sequence;
                    format!("{id} {} {parts:?}", String::from_utf8_lossy(&first))
                }));
                Ok::<(), InputError>(())
            })
        });
        let counts = counts.map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "x"))?;
        Ok((all, counts))
    }

    const FASTA: &str = ">a\nACNNgtA\n>empty\n>b\nNN\n";
    const TABLE: &str = "id,sequence\na,ACNNgtA\nempty,\nb,NN\n";

    #[test]
    fn policies_apply_and_are_counted_in_records_and_rows_alike() {
        let default = Policy::default();
        let split = Policy { ambiguous: AmbiguousPolicy::Split, ..default };
        let both = Policy { soft_mask: SoftMaskPolicy::Drop, ..split };
        for text in [FASTA, TABLE] {
            let of = |letters| read("x.txt", text, letters).expect("readable");
            let (found, counts) = of(default);
            assert_eq!(found, ["a ACNNgtA [0..7]", "empty  []", "b NN [0..2]"]);
            assert_eq!((counts.records, counts.empty_records, counts.ambiguous, counts.dropped), (3, 1, 4, 0));
            let (found, counts) = of(split);
            assert_eq!(found, ["a ACNNgtA [0..2, 4..7]", "empty  []", "b NN []"]);
            assert_eq!((counts.bases, counts.dropped, counts.segments), (9, 4, 2));
            let (found, counts) = of(both);
            assert_eq!(found[0], "a ACNNgtA [0..2, 6..7]");
            assert_eq!((counts.soft_masked, counts.dropped), (2, 6));
        }
    }

    #[test]
    fn comments_of_a_bed_file_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let [bed, genome] = ["x.bed", "x.fa"].map(|name| folder.path().join(name));
        std::fs::write(&genome, ">chr1\nACGT\n").expect("written");
        std::fs::write(&bed, "# peaks\ntrack name=x\nchr1\t0\t2\n#chr1\t2\t4\n").expect("written");
        let mut opened = Input::Bed { bed, genome }.open().expect("readable");
        let mut ids = Vec::new();
        let counts = opened.read(Policy::default(), |sequences| {
            ids.extend(sequences.into_iter().map(|sequence| sequence.id));
            Ok::<(), InputError>(())
        });
        assert_eq!((ids, counts.expect("readable").records, opened.comments()), (vec!["chr1:1-2(+)".to_owned()], 1, 3));
    }

    #[test]
    fn a_letter_that_is_forbidden_is_named_with_its_place() {
        let error = Policy { ambiguous: AmbiguousPolicy::Error, ..Policy::default() };
        let message = |text, letters| read("x.txt", text, letters).expect_err("refused");
        assert_eq!(
            message(FASTA, error),
            "x: record `a`, base 3: `N` is ambiguous, which the policy for ambiguous letters makes an error"
        );
        assert_eq!(
            message(TABLE, error),
            "x, line 2, column `sequence`: letter 3: `N` is ambiguous, which the policy for ambiguous letters makes an error"
        );
        assert!(message(">a\nAC-GT\n", Policy::default()).contains("record `a`, base 3: `-` is a gap"));
        assert!(message(">a\nMKVL\n", Policy::default()).contains("record `a`, base 4: `L` is not a nucleotide code"));
    }
}
