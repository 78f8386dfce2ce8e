//! Codes as a numpy array `[bases, levels]` of little-endian `u16`, and a table beside it that says which rows of
//! the array belong to which record.

mod array;
mod random;
mod reader;
mod records;
mod writer;

pub use random::RandomReader;
pub(super) use reader::Reader;
pub use records::Stretch;
pub(super) use writer::Writer;

use std::path::{Path, PathBuf};

/// Path of the table of records of the array `path`.
fn records_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".records.tsv");
    name.into()
}

/// Bytes of one code.
const CODE_BYTES: usize = size_of::<u16>();
