//! Everything that can be wrong with a sequence file, each said in one sentence.

use std::{env, io, sync::Arc};

use crate::{
    input::{InputError, excerpt},
    span::RegionError,
};

/// Why sequences could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FastaError {
    /// The file cannot be read at all.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There is no text in the file.
    #[error("{file}: is empty")]
    Empty {
        /// The file.
        file: Arc<str>,
    },
    /// The text starts with something else than a record.
    #[error("{file}, line {line}: neither FASTA nor FASTQ: expected `>` or `@` but found `{}`", .found.escape_ascii())]
    UnknownFormat {
        /// The file.
        file: Arc<str>,
        /// Line of the first text, counted from 1.
        line: u64,
        /// The byte found in place of `>` or `@`.
        found: u8,
    },
    /// A record is malformed.
    #[error("{file}, line {line}: record{} {fault}", quoted(.record.as_deref()))]
    Record {
        /// The file.
        file: Arc<str>,
        /// Line where the record starts, counted from 1.
        line: u64,
        /// Name of the record, if it can be told.
        record: Option<String>,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Two records have one name, so results could not be told apart.
    #[error(
        "{file}, line {line}: record `{}` has the name of an earlier record ({first_file}, line {first_line})",
        excerpt(.record)
    )]
    Duplicate {
        /// The name.
        record: String,
        /// File of the later record.
        file: Arc<str>,
        /// Line where the later record starts, counted from 1.
        line: u64,
        /// File of the earlier record.
        first_file: Arc<str>,
        /// Line where the earlier record starts, counted from 1.
        first_line: u64,
    },
    /// A letter of a sequence cannot be used.
    #[error("{file}: record `{}`, base {position}: `{}` {fault}", excerpt(.record), .letter.escape_ascii())]
    Letter {
        /// The file.
        file: Arc<str>,
        /// Name of the record.
        record: String,
        /// Place of the letter in its sequence, counted from 1.
        position: u64,
        /// The letter.
        letter: u8,
        /// Why it cannot be used.
        fault: LetterFault,
    },
    /// A region cannot be found in the file.
    #[error("{file}: {fault}{}", consulted(.index.as_deref()))]
    Region {
        /// The file.
        file: Arc<str>,
        /// What is wrong with the region.
        fault: RegionError,
        /// The index that was found beside the file and says which contigs there are.
        index: Option<Arc<str>>,
    },
    /// An index beside the file cannot be used.
    #[error("{index}: {fault}; delete it, and it will be made anew")]
    Index {
        /// The index file.
        index: Arc<str>,
        /// What is wrong with it.
        fault: IndexFault,
    },
    /// The temporary file for sequences that exceed the memory limit failed.
    #[error("{folder}: cannot hold the temporary copy of the sequences; set TMPDIR to another folder")]
    Spool {
        /// The folder of temporary files.
        folder: Arc<str>,
        /// What the operating system said.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Interrupted,
}

impl FastaError {
    /// The temporary file failed.
    pub(crate) fn spool(source: io::Error) -> Self {
        Self::Spool { folder: env::temp_dir().to_string_lossy().into(), source }
    }
}

/// What is wrong with an index; completes the sentence "x.fa.fai: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// A line of a `.fai` is none.
    #[error("line {line} is not that of an index (a name and four whole numbers, separated by tabs)")]
    Line {
        /// The line, counted from 1.
        line: usize,
    },
    /// Two lines of a `.fai` have one name.
    #[error("lists `{}` twice, in lines {first} and {line}", excerpt(.name))]
    Twice {
        /// The name.
        name: String,
        /// Its first line, counted from 1.
        first: usize,
        /// Its second line.
        line: usize,
    },
    /// A `.fai` of a file with records lists none.
    #[error("is empty")]
    Empty,
    /// A `.gzi` has not the length that its first number says.
    #[error("is not a whole index of bgzip blocks")]
    Blocks,
    /// The file is not what the index describes.
    #[error("is stale, as if the sequence file was changed after it was made: {0}")]
    Stale(&'static str),
}

/// What is wrong with a record; completes the sentence "record `x` …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The header holds no word.
    #[error("has no name")]
    NoName,
    /// The header holds control characters.
    #[error("has a name that is not text; is this a sequence file?")]
    NotText,
    /// The header is longer than any name and description.
    #[error("has a header line of more than {0} bytes; is this a sequence file?")]
    LongHeader(u64),
    /// Lines end in a carriage return alone.
    #[error("has a carriage return within its header; convert the line ends of this file to Unix")]
    CarriageReturn,
    /// The file ends within the record.
    #[error("is cut off: the file ends within it")]
    CutOff,
    /// A FASTQ record starts with this, escaped, in place of `@`.
    #[error("should start with `@` but starts with `{0}`")]
    Start(String),
    /// The third line of a FASTQ record starts with this, escaped, in place of `+`.
    #[error("should have `+` on its third line but has `{0}` (a FASTQ record has exactly four lines)")]
    Separator(String),
    /// The name is repeated after the `+` of a FASTQ record, differently.
    #[error("has another name after its `+`")]
    SeparatorName,
    /// A FASTQ record has not one quality per base.
    #[error("has {bases} bases but {qualities} qualities")]
    QualityCount {
        /// Number of bases.
        bases: usize,
        /// Number of qualities.
        qualities: usize,
    },
    /// A quality is not a printable character.
    #[error("has `{}` among its qualities", .0.escape_ascii())]
    Quality(u8),
}

/// Why a letter cannot be used; completes the sentence "`x` …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterFault {
    /// It stands for a gap of an alignment.
    #[error("is a gap; remove gaps from aligned sequences")]
    Gap,
    /// It stands for no nucleotide.
    #[error("is not a nucleotide code; is this a protein?")]
    NotNucleotide,
    /// It stands for several nucleotides, and the policy forbids those.
    #[error("is ambiguous, which the policy for ambiguous letters makes an error")]
    Ambiguous,
}

impl LetterFault {
    /// Why a letter that stands for no nucleotide cannot be used.
    pub(crate) fn of(invalid: u8) -> Self {
        if b"-.*".contains(&invalid) { Self::Gap } else { Self::NotNucleotide }
    }
}

fn quoted(name: Option<&str>) -> String {
    name.map(|name| format!(" `{}`", excerpt(name))).unwrap_or_default()
}

fn consulted(index: Option<&str>) -> String {
    let note = |index| {
        format!(" (so says {index}; if the file was changed since, delete that index, and it will be made anew)")
    };
    index.map(note).unwrap_or_default()
}
