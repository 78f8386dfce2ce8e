//! What can be wrong with a file of codes, and where.

use crate::aside::AsideFile;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::errors::ParquetError;

use super::{MOST_LEVELS, ROW_BASES, Row, ShardNumber};
use crate::input::excerpt;
use crate::span::Strand;

/// An error of the room; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum CodesError {
    /// The ending of the path names no format.
    #[error(
        "{}: the ending names no format for codes; use .parquet, .npy or .tsv (or - for TSV through a pipe)",
        path.display()
    )]
    UnknownFormat {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as the end of "cannot …".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The Parquet library refused: the file is damaged or no Parquet file, or the disk is full.
    #[error("{}: cannot {action} Parquet", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What was tried: "read" or "write".
        action: &'static str,
        /// What the Parquet library said.
        source: ParquetError,
    },
    /// The file, or a row meant for it, breaks a rule of codes files.
    #[error("{}{place}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// Which rule.
        fault: Fault,
    },
    /// The file was not completed because a row before could not be written.
    #[error("{}: not completed, since an earlier row could not be written", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Shards that come from different models cannot be merged.
    #[error("{}: differs in model or codebook sizes from the first shard, {}", path.display(), first.display())]
    OtherModel {
        /// The shard that differs.
        path: PathBuf,
        /// The shard it was compared with.
        first: PathBuf,
    },
    /// A file of a merge with another number than its place asks for.
    #[error("{}: {}", path.display(), misplaced(*expected, *found))]
    OtherShard {
        /// The file.
        path: PathBuf,
        /// The number that belongs there; `None` for a whole file.
        expected: Option<ShardNumber>,
        /// The number of the file; `None` for a whole file.
        found: Option<ShardNumber>,
    },
    /// A merge that ends before the last shard.
    #[error("{}: shard {missing} is missing; it should follow this file", path.display())]
    MissingShard {
        /// The last file.
        path: PathBuf,
        /// The first shard after it.
        missing: ShardNumber,
    },
    /// A file of a merge after the last shard.
    #[error("{}: expected no file after shard {count}/{count}", path.display())]
    SurplusShard {
        /// The file.
        path: PathBuf,
        /// Number of shards.
        count: u64,
    },
    /// A merge of no shards, which would have no header.
    #[error("{}: no shards to merge", out.display())]
    NoShards {
        /// The file that was to be written.
        out: PathBuf,
    },
}

impl CodesError {
    /// Whether the reader of a pipe has gone away, which a program treats as the end of its work.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Makes an [`io::Error`] name its file, for `map_err`.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), action, source }
    }

    /// Begins a file of codes.
    pub(super) fn creating(path: &Path) -> Result<AsideFile, Self> {
        AsideFile::create(path).map_err(Self::io(path, "create the file"))
    }

    /// Gives a file of codes its name; returns its size in bytes.
    pub(super) fn keeping(file: AsideFile) -> Result<u64, Self> {
        let path = file.path().to_owned();
        file.keep().map_err(Self::io(&path, "complete the file"))
    }

    /// Makes a [`ParquetError`] name its file, for `map_err`.
    pub(super) fn parquet(path: &Path, action: &'static str) -> impl FnOnce(ParquetError) -> Self {
        move |source| Self::Parquet { path: path.into(), action, source }
    }

    /// Makes a [`Fault`] name its file and place, for `map_err`.
    pub(super) fn content(path: &Path, place: Place) -> impl FnOnce(Fault) -> Self {
        move |fault| Self::Content { path: path.into(), place, fault }
    }
}

/// A text out of a file, in quotes and shortened.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() { format!("{start:?}…") } else { format!("{start:?}") }
}

fn shown_sizes(sizes: &[usize]) -> String {
    if sizes.len() > MOST_LEVELS { format!("{} of them", sizes.len()) } else { format!("{sizes:?}") }
}

/// What is wrong with the number of a file of a merge.
fn misplaced(expected: Option<ShardNumber>, found: Option<ShardNumber>) -> String {
    match (expected, found) {
        (Some(expected), Some(found)) => format!("expected shard {expected}, found {found}"),
        (Some(expected), None) => format!("expected shard {expected}, found a whole file"),
        (None, Some(found)) => format!("expected a whole file like the first, found shard {found}"),
        (None, None) => "expected another file".into(),
    }
}

/// A place in a file of codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of a text file.
    Line(u64),
    /// A row of a table, counted from 0; for rows whose record is not known.
    TableRow(u64),
    /// A base of a record.
    Base {
        /// Name of the record.
        record: Arc<str>,
        /// Strand that was read.
        strand: Strand,
        /// 0-based coordinate on the forward strand.
        position: u64,
    },
}

impl Place {
    /// The base of `row` that is read `offset` bases after its first.
    pub(super) fn base(row: &Row, offset: usize) -> Self {
        Self::Base { record: Arc::clone(&row.record), strand: row.strand, position: row.position(offset) }
    }
}

impl fmt::Display for Place {
    /// Written to follow the path directly, as compilers do for lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(f, ":{line}"),
            Self::TableRow(row) => write!(f, ": row {row}"),
            Self::Base { record, strand, position } => {
                write!(f, ": record {}, strand {strand}, base {position}", excerpt(record))
            }
        }
    }
}

/// A rule of codes files that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file lacks the mark of codes files.
    #[error("not a codes file: {missing} is missing or damaged")]
    NotCodes {
        /// The part that should identify it.
        missing: &'static str,
    },
    /// The file has another layout.
    #[error("codes files of version {} are not known here; this program reads version 1", excerpt(.found))]
    Version {
        /// The version that the file states.
        found: String,
    },
    /// The model is not one word.
    #[error("a model is named by one word without spaces, found {}", shown(.found))]
    Model {
        /// The name.
        found: String,
    },
    /// The codebook sizes are empty or out of range.
    #[error("codebook sizes must be between 1 and 65536, one to {MOST_LEVELS} of them, found {}", shown_sizes(.found))]
    CodebookSizes {
        /// The sizes.
        found: Vec<usize>,
    },
    /// The number of a shard is no number of a shard.
    #[error("a shard is numbered i/N with i from 1 to N, such as 2/3, found {}", shown(.found))]
    Shard {
        /// The number.
        found: String,
    },
    /// A text or a number is not what belongs in its place.
    #[error("expected {expected}, found {}", shown(.found))]
    Unexpected {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The file has another size than it says.
    #[error("cut short or damaged: expected {expected} {unit}, found {found}")]
    Size {
        /// What is counted.
        unit: &'static str,
        /// As many as the file promises.
        expected: u64,
        /// As many as there are.
        found: u64,
    },
    /// The rows are not those that were written.
    #[error("damaged: the codes are not those that were written, of which the file holds a digest")]
    Digest,
    /// The last line has no end, so its number may lack digits.
    #[error("cut short: the line has no end")]
    CutLine,
    /// A record name that the text formats cannot hold.
    #[error("a record name must have letters and no control characters, found {}", shown(.found))]
    Record {
        /// The name.
        found: String,
    },
    /// A row with no bases, too many, or impossible coordinates.
    #[error("a row holds 1 to {ROW_BASES} bases, found {start}..{end}")]
    Span {
        /// Start of the row.
        start: u64,
        /// End of the row.
        end: u64,
    },
    /// A row with the wrong number of levels.
    #[error("expected codes of {expected} levels, found {found}")]
    Levels {
        /// Levels of the header.
        expected: usize,
        /// Levels of the row.
        found: usize,
    },
    /// A level with the wrong number of codes.
    #[error("level {level}: expected {expected} codes, one per base, found {found}")]
    Codes {
        /// The level, counted from 1.
        level: usize,
        /// Bases of the row.
        expected: usize,
        /// Codes of the level.
        found: usize,
    },
    /// A code that its codebook does not have.
    #[error("level {level}: code {code} is outside the codebook of {codebook_size}")]
    Code {
        /// The level, counted from 1.
        level: usize,
        /// The code.
        code: u64,
        /// Codes that the codebook has.
        codebook_size: usize,
    },
    /// A base of a record and strand that was already read, or should have been read before.
    #[error("overlaps or precedes the bases before it, which ended at {edge}")]
    Overlap {
        /// Boundary that the row may touch but not cross: the end of the row before, on the reverse strand its
        /// start.
        edge: u64,
    },
    /// A row after a short one of the same segment.
    #[error("the row before has fewer than {ROW_BASES} bases, which only the last row of a segment may have")]
    ShortRow,
    /// A record and strand that returns after others came between.
    #[error("out of order: other records or strands came between these bases and the ones before")]
    Returns,
}
