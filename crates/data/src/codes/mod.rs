//! Files of codes: for every record of a genome, one code per base and codebook level.
//!
//! The bases of one record and strand form one or more *segments*, stretches without a gap. A segment is stored
//! as rows of [`ROW_BASES`] bases, of which only the last is shorter. Rows are counted from the start of the
//! segment in the reading direction of the strand, so a file depends on the codes alone and never on how the work
//! was divided. A file that holds only some rows, in the same order, is a *shard*: [`merge()`] joins shards to the
//! very bytes of the whole file. A shard states its [number](ShardNumber), so that none can be missing. Parquet and numpy files
//! state the digest of their rows, by which a [`Reader`] finds damage; older files without one are read too.
//!
//! Three formats hold the same rows:
//!
//! | [`Format`] | for | one file is |
//! | --- | --- | --- |
//! | [`Parquet`](Format::Parquet) | pandas, polars, `DuckDB` | one row per row of codes, one list column per level |
//! | [`Npy`](Format::Npy) | numpy, memory mapping | an array `[bases, levels]` and a table of records beside it |
//! | [`Tsv`](Format::Tsv) | awk, pipes | one line per base |
//!
//! ```
//! use std::sync::Arc;
//! use vqdna_data::codes::{Header, Reader, Row, Writer};
//! use vqdna_data::span::Strand;
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("genome.codes.parquet");
//! let header = Header { model: "6f1e".into(), codebook_sizes: vec![256, 512], shard: None };
//! let row = Row {
//!     record: Arc::from("chr1"),
//!     start: 0,
//!     end: 3,
//!     strand: Strand::Forward,
//!     codes: vec![vec![7, 7, 255], vec![0, 511, 3]],
//! };
//!
//! let mut writer = Writer::create(&path, &header)?;
//! writer.write(&row)?;
//! assert_eq!(writer.finish()?.bases, 3);
//!
//! let rows: Vec<Row> = Reader::open(&path)?.collect::<Result<_, _>>()?;
//! assert_eq!(rows, [row]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod digest;
mod error;
mod lines;
mod merge;
mod npy;
mod order;
mod parquet;
mod preamble;
mod reader;
mod shard;
mod tsv;
mod writer;

#[cfg(test)]
mod laws;

use std::path::Path;
use std::sync::Arc;

use crate::span::Strand;

pub use error::{CodesError, Fault, Place};
pub use merge::{merge, merge_with_progress};
pub use npy::{RandomReader, Stretch};
pub use reader::{Reader, verify};
pub use shard::ShardNumber;
pub use writer::Writer;

/// Bases in a full row: rows are cut at multiples of this from the start of the segment.
pub const ROW_BASES: usize = 16_384;

/// Most levels of a file; room for their codes is taken before they are read.
pub const MOST_LEVELS: usize = 256;

/// Version of the layout, written into every file and required when reading.
const FORMAT_VERSION: &str = "1";

/// What a file of codes says about its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// BLAKE3 hash of the weights of the model that gave the codes.
    pub model: String,
    /// Number of codes in the codebook of each level; one entry per level.
    pub codebook_sizes: Vec<usize>,
    /// Which shard of how many the file is; `None` for a whole file.
    pub shard: Option<ShardNumber>,
}

impl Header {
    /// Number of codebook levels, that is of codes per base.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.codebook_sizes.len()
    }

    /// Refuses a header that some format could not hold: the model must be one word, since the text formats
    /// separate words by spaces, every code must fit into a `u16`, and a shard must be one of its count.
    fn check(&self) -> Result<(), Fault> {
        let is_separator = |letter: char| letter.is_whitespace() || letter.is_control();
        if self.model.is_empty() || self.model.contains(is_separator) {
            return Err(Fault::Model { found: self.model.clone() });
        }
        let fits = |size: &usize| (1..=1 << 16).contains(size);
        if !(1..=MOST_LEVELS).contains(&self.codebook_sizes.len()) || !self.codebook_sizes.iter().all(fits) {
            return Err(Fault::CodebookSizes { found: self.codebook_sizes.clone() });
        }
        self.shard.map_or(Ok(()), ShardNumber::check)
    }
}

/// The codes of up to [`ROW_BASES`] adjacent bases of one record and strand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the record.
    pub record: Arc<str>,
    /// First base, 0-based on the forward strand.
    pub start: u64,
    /// One past the last base, on the forward strand.
    pub end: u64,
    /// Strand that was read; on the reverse strand the first code belongs to base `end - 1`.
    pub strand: Strand,
    /// `[levels][end - start]`, in the reading direction of the strand.
    pub codes: Vec<Vec<u16>>,
}

impl Row {
    /// The boundaries where reading begins and ends: start and end, or on the reverse strand end and start.
    fn edges(&self) -> (u64, u64) {
        match self.strand {
            Strand::Forward => (self.start, self.end),
            Strand::Reverse => (self.end, self.start),
        }
    }

    /// Forward coordinate of the base that is read `offset` bases after the first.
    fn position(&self, offset: usize) -> u64 {
        match self.strand {
            Strand::Forward => self.start.saturating_add(offset as u64),
            Strand::Reverse => self.end.saturating_sub(1 + offset as u64),
        }
    }
}

/// The formats that hold codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columnar, compressed: `.parquet`.
    Parquet,
    /// A plain array of `u16`: `.npy`, with its table of records in `.npy.records.tsv`.
    Npy,
    /// Text, one line per base: `.tsv`, or `-` for standard input and output.
    Tsv,
}

impl Format {
    /// The format that the ending of `path` names; `-` is [`Format::Tsv`].
    ///
    /// # Errors
    ///
    /// [`CodesError::UnknownFormat`] when the ending names none.
    pub fn of(path: &Path) -> Result<Self, CodesError> {
        if is_standard_stream(path) {
            return Ok(Self::Tsv);
        }
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("parquet") => Ok(Self::Parquet),
            Some("npy") => Ok(Self::Npy),
            Some("tsv") => Ok(Self::Tsv),
            _ => Err(CodesError::UnknownFormat { path: path.into() }),
        }
    }
}

/// What a finished file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bases that have codes.
    pub bases: u64,
    /// Rows written.
    pub rows: u64,
    /// Size in bytes, of all files together where the format has two.
    pub bytes: u64,
}

/// Whether `path` is `-`, which stands for standard input or output.
fn is_standard_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_names_the_format() {
        assert_eq!(Format::of(Path::new("a.b/x.codes.parquet")).unwrap(), Format::Parquet);
        assert_eq!(Format::of(Path::new("x.NPY")).unwrap(), Format::Npy);
        assert_eq!(Format::of(Path::new("x.tsv")).unwrap(), Format::Tsv);
        assert_eq!(Format::of(Path::new("-")).unwrap(), Format::Tsv);
        for path in ["x", "x.csv", "x.tsv.gz", "parquet"] {
            let message = Format::of(Path::new(path)).unwrap_err().to_string();
            assert!(message.contains(".parquet, .npy or .tsv"), "{message}");
        }
    }

    #[test]
    fn a_header_must_fit_every_format() {
        let check = |model: &str, codebook_sizes: &[usize]| {
            Header { model: model.into(), codebook_sizes: codebook_sizes.into(), shard: None }.check()
        };
        assert!(check("6f1e", &[1, 65_536]).is_ok());
        assert!(check("", &[8]).is_err());
        assert!(check("two words", &[8]).is_err());
        assert!(check("6f1e", &[]).is_err());
        assert!(check("6f1e", &[8; MOST_LEVELS]).is_ok());
        assert!(check("6f1e", &[8; MOST_LEVELS + 1]).is_err());
        assert!(check("6f1e", &[0]).is_err());
        assert!(check("6f1e", &[65_537]).is_err());
        let check = |index, count| {
            let shard = Some(ShardNumber { index, count });
            Header { model: "6f1e".into(), codebook_sizes: vec![8], shard }.check()
        };
        assert!(check(1, 1).is_ok());
        assert!(check(3, 3).is_ok());
        assert!(check(0, 3).is_err());
        assert!(check(4, 3).is_err());
    }
}
