//! Reads FASTA and FASTQ: plain, gzip, bgzip, zstd, xz or bzip2, told apart by content, from files or standard input.
//!
//! [`read`] streams one input and [`read_all`] several, one record in memory at a time. [`fetch`] and [`fetch_padded`] read a
//! region, and [`Contigs`] many, through the `.fai` and `.gzi` index where the file allows it. The parser crates stay behind this wall; errors carry
//! file, record and line.
//!
//! ```no_run
//! use std::path::Path;
//! use vqdna_data::fasta;
//!
//! let genome = Path::new("genome.fa.gz");
//! let mut records = fasta::read(genome)?;
//! for record in records.by_ref() {
//!     let fasta::Record { name, bases, .. } = record?;
//!     assert!(bases.len() < 1_000_000_000, "{name} is longer than any chromosome");
//! }
//! assert_eq!(records.digests().len(), 1);
//!
//! let (promoter, _) = fasta::fetch(genome, "chr1:1,000-2,000")?;
//! assert_eq!((promoter.start, promoter.bases.len()), (999, 1001));
//! # Ok::<(), fasta::FastaError>(())
//! ```

mod contigs;
mod error;
mod fai;
mod gzi;
mod index;
mod layout;
mod reader;
mod region;
mod source;

use std::sync::Arc;

pub use crate::input::{Compression, InputDigest};
pub use contigs::Contigs;
pub use error::{FastaError, IndexFault, LetterFault, RecordFault};
pub(crate) use reader::read_text;
pub use reader::{Records, read, read_all};
pub use region::{Fetched, fetch, fetch_padded};

/// One sequence of a file, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// First word of the header; a byte of it that is not UTF-8 is written `\xE9`.
    pub name: String,
    /// The letters as read: case kept; line ends and blanks removed.
    pub bases: Vec<u8>,
    /// Where `bases` begins in the whole sequence, counted from 0; 0 unless a region was asked for.
    pub start: u64,
    /// The file it was read from, as named in messages.
    pub file: Arc<str>,
}

impl Record {
    /// A whole record that comes from no file.
    #[must_use]
    pub fn in_memory(name: impl Into<String>, bases: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bases: bases.into(), start: 0, file: "memory".into() }
    }
}
