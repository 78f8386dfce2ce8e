//! One way to write codes in every format.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::error::{CodesError, Place};
use super::order::Order;
use super::{Format, Header, Row, Written, npy, parquet, tsv};

/// Writes rows of codes to a file, which appears under its name only when [`Writer::finish`] succeeds.
///
/// A writer that is dropped before leaves nothing behind. Standard output (`-`) is the exception: its lines go
/// out as they come.
pub struct Writer {
    path: PathBuf,
    order: Order,
    digest: Digest,
    bases: u64,
    rows: u64,
    /// Whether a row may have been written in part.
    is_damaged: bool,
    file: File,
}

enum File {
    Parquet(parquet::Writer),
    Npy(npy::Writer),
    Tsv(tsv::Writer),
}

impl Writer {
    /// Begins the file `path` in the format of its ending.
    ///
    /// # Errors
    ///
    /// When the ending names no format, the header cannot be stored, or the folder cannot be written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, CodesError> {
        header.check().map_err(CodesError::content(path, Place::File))?;
        let file = match Format::of(path)? {
            Format::Parquet => File::Parquet(parquet::Writer::create(path, header)?),
            Format::Npy => File::Npy(npy::Writer::create(path, header)?),
            Format::Tsv => File::Tsv(tsv::Writer::create(path, header)?),
        };
        let (path, order, digest) = (path.into(), Order::new(header), Digest::default());
        Ok(Self { path, order, digest, bases: 0, rows: 0, is_damaged: false, file })
    }

    /// Appends one row.
    ///
    /// # Errors
    ///
    /// When the row is malformed or does not follow the row before it (see [`Fault`](super::Fault)), or cannot
    /// be written. A refused row leaves the file as it was; after a failed write it cannot be completed.
    pub fn write(&mut self, row: &Row) -> Result<(), CodesError> {
        self.order.admit(row, &self.path)?;
        self.append(row)
    }

    /// Appends a row of the shard `source`, which an error names in place of the file being written.
    pub(super) fn write_from(&mut self, row: &Row, source: &Path) -> Result<(), CodesError> {
        self.order.admit(row, source)?;
        self.append(row)
    }

    fn append(&mut self, row: &Row) -> Result<(), CodesError> {
        let result = match &mut self.file {
            File::Parquet(file) => file.write(row),
            File::Npy(file) => file.write(row),
            File::Tsv(file) => file.write(row),
        };
        self.is_damaged |= result.is_err();
        result?;
        self.digest.add(row);
        self.bases += row.end - row.start;
        self.rows += 1;
        Ok(())
    }

    /// Completes the file and gives it its name, in place of any older file of that name.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written or the file cannot be renamed; then nothing is left behind.
    pub fn finish(self) -> Result<Written, CodesError> {
        if self.is_damaged {
            return Err(CodesError::Damaged { path: self.path });
        }
        let bytes = match self.file {
            File::Parquet(file) => file.finish(&self.digest.text()),
            File::Npy(file) => file.finish(&self.digest.text()),
            File::Tsv(file) => file.finish(),
        }?;
        Ok(Written { bases: self.bases, rows: self.rows, bytes })
    }
}
