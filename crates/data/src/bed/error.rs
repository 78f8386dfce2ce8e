//! What can be wrong with a BED file, and where.

use std::sync::Arc;

use super::InputError;
use crate::fasta::FastaError;

/// Why intervals, or their letters, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// The file cannot be read at all.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A line is malformed.
    #[error("{file}, line {line}: {fault}")]
    Line {
        /// The file.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: BedFault,
    },
    /// The genome has no such contig, or not so many bases.
    #[error("{file}, line {line}: the interval is not in the genome")]
    Interval {
        /// The file.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u64,
        /// What the genome has.
        source: FastaError,
    },
    /// The genome cannot be read.
    #[error(transparent)]
    Genome(#[from] FastaError),
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BedFault {
    /// Fewer fields than every interval needs.
    #[error("has {found} fields; BED has at least three: contig, start and end")]
    Fields {
        /// Fields that are there.
        found: usize,
    },
    /// A coordinate is no number.
    #[error("the {field} `{}` is not a whole number from 0 on", short(found))]
    Number {
        /// Which coordinate.
        field: &'static str,
        /// What stands there.
        found: String,
    },
    /// Nothing stands before the first tab.
    #[error("names no contig: its first field is empty")]
    NoContig,
    /// A contig, name or score would break the tables in which it is written.
    #[error("`{}` holds a control character, which tables cannot hold", short(found))]
    Control {
        /// What stands there.
        found: String,
    },
    /// The interval ends where it starts, or before.
    #[error("holds no base, from {start} to {end}: BED counts from 0 and the end is not included")]
    Empty {
        /// The start.
        start: u64,
        /// The end.
        end: u64,
    },
    /// The sixth field is no strand.
    #[error("the strand `{}` is none of `+`, `-` and `.`", short(found))]
    Strand {
        /// What stands there.
        found: String,
    },
}

/// A text of the file, fit for a message.
fn short(text: &str) -> String {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect::<String>().escape_debug().collect();
    if text.chars().nth(SHOWN).is_some() { shown + "…" } else { shown }
}
