//! Sequences to tell something about: tables, FASTA, or places of a BED file on a genome, some at a time.

use std::path::{Path, PathBuf};
use vqdna_data::alphabet::{Letter, classify};
use vqdna_data::bed::{self, BedError};
use vqdna_data::fasta::{self, FastaError};
use vqdna_data::labelled::{ColumnRequest, Format, LabelledError, TakenColumns, unlabelled};

use super::Sequence;

/// Where sequences come from.
#[derive(Clone, Debug)]
pub enum Input {
    /// CSV, TSV, JSON Lines or Parquet; `-` is standard input.
    Table {
        /// The file.
        path: PathBuf,
        /// Its format, if its name does not tell.
        format: Option<Format>,
        /// Columns of sequences, and those of the model.
        columns: ColumnRequest,
    },
    /// FASTA or FASTQ; each record is a sequence.
    Fasta(PathBuf),
    /// The same, where records without bases are passed over.
    Genome(PathBuf),
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
    /// See [`LabelledError`].
    #[error(transparent)]
    Table(#[from] LabelledError),
    /// See [`FastaError`].
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// See [`BedError`].
    #[error(transparent)]
    Bed(#[from] BedError),
    /// Nothing to tell anything about.
    #[error("{}: record `{id}` has no bases", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Name of the record.
        id: String,
    },
    /// A letter that no nucleotide has.
    #[error("{}: record `{id}`, letter {position}: `{}` is no nucleotide; is this a protein?", path.display(), letter.escape_ascii())]
    Letter {
        /// The file.
        path: PathBuf,
        /// Name of the record.
        id: String,
        /// Its place in the record, counted from 1.
        position: usize,
        /// The letter.
        letter: u8,
    },
}

/// Letters read before they are worked on, so that memory is bounded.
const TOGETHER: usize = 1 << 22;

impl Input {
    /// Whether a name is that of a FASTA or FASTQ file.
    #[must_use]
    pub fn is_fasta(path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name =
            [".gz", ".bgz", ".zst", ".xz", ".bz2"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        [".fa", ".fasta", ".fna", ".ffn", ".fq", ".fastq"].iter().any(|end| name.ends_with(end))
    }

    /// Hands the sequences to `work`, some at a time, in order.
    ///
    /// # Errors
    /// If the input cannot be read, or `work` fails.
    pub fn read<E: From<InputError>>(&self, work: impl FnMut(Vec<Sequence>) -> Result<(), E>) -> Result<(), E> {
        self.read_from(|_| {}, work)
    }

    /// As [`read`](Self::read), where `taken` is told first which columns of a table are read.
    ///
    /// # Errors
    /// If the input cannot be read, or `work` fails.
    pub fn read_from<E: From<InputError>>(
        &self,
        taken: impl FnOnce(&TakenColumns),
        mut work: impl FnMut(Vec<Sequence>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut waiting = Vec::new();
        let mut letters = 0;
        let mut push = |sequence: Option<Sequence>| {
            letters += sequence.as_ref().map_or(TOGETHER, |sequence| sequence.letters() + 64);
            waiting.extend(sequence);
            if letters >= TOGETHER && !waiting.is_empty() {
                letters = 0;
                work(std::mem::take(&mut waiting))?;
            }
            Ok::<(), E>(())
        };
        match self {
            Self::Table { path, format, columns } => {
                let chunks = unlabelled(path, *format, columns, TOGETHER).map_err(InputError::from)?;
                taken(chunks.columns());
                for rows in chunks {
                    for row in rows.map_err(InputError::from)?.iter() {
                        push(Some(match row.second {
                            None => Sequence::new(row.id, row.sequence),
                            Some(second) => Sequence::pair(row.id, row.sequence, second),
                        }))?;
                    }
                }
            }
            Self::Fasta(path) | Self::Genome(path) => {
                for record in fasta::read_all(std::slice::from_ref(path)).map_err(InputError::from)? {
                    let record = record.map_err(InputError::from)?;
                    if record.bases.is_empty() && matches!(self, Self::Genome(_)) {
                        continue;
                    }
                    push(Some(checked(path, record.name, record.bases)?))?;
                }
            }
            Self::Bed { bed, genome } => {
                for found in bed::sequences(bed, genome).map_err(InputError::from)? {
                    let (place, letters) = found.map_err(InputError::from)?;
                    let sequence = checked(bed, place.id(), letters)?;
                    push(Some(Sequence { place: Some(place), ..sequence }))?;
                }
            }
        }
        push(None)
    }
}

fn checked(path: &Path, id: String, first: Vec<u8>) -> Result<Sequence, InputError> {
    if first.is_empty() {
        return Err(InputError::Empty { path: path.to_owned(), id });
    }
    if let Some((place, &letter)) = first.iter().enumerate().find(|(_, letter)| classify(**letter) == Letter::Invalid) {
        return Err(InputError::Letter { path: path.to_owned(), id, position: place + 1, letter });
    }
    Ok(Sequence::new(id, first))
}
