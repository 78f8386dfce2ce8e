//! One way to read codes in every format.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::error::{CodesError, Fault, Place};
use super::order::Order;
use super::{Format, Header, Row, npy, parquet, tsv};

/// Reads the rows of a file of codes in order, checking each as strictly as the writer does.
///
/// After an error the iterator ends.
pub struct Reader {
    path: PathBuf,
    header: Header,
    order: Order,
    digest: Digest,
    /// The digest that the file says its rows have.
    stated: Option<String>,
    file: File,
    is_ended: bool,
}

enum File {
    /// Boxed, as its column decoders are large.
    Parquet(Box<parquet::Reader>),
    Npy(npy::Reader),
    Tsv(tsv::Reader),
}

impl Reader {
    /// Opens the file `path`, whose ending names its format; `-` reads TSV from standard input.
    ///
    /// # Errors
    ///
    /// When the ending names no format, the file cannot be read, or it does not begin as a codes file.
    pub fn open(path: &Path) -> Result<Self, CodesError> {
        let ((header, stated), file) = match Format::of(path)? {
            Format::Parquet => parquet::Reader::open(path).map(|(head, file)| (head, File::Parquet(Box::new(file)))),
            Format::Npy => npy::Reader::open(path).map(|(head, file)| (head, File::Npy(file))),
            Format::Tsv => tsv::Reader::open(path).map(|(head, file)| ((head, None), File::Tsv(file))),
        }?;
        let (path, order) = (path.into(), Order::new(&header));
        Ok(Self { path, order, digest: Digest::default(), stated, header, file, is_ended: false })
    }

    /// What the file says about its origin.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Row>, CodesError> {
        let row = match &mut self.file {
            File::Parquet(file) => file.read(),
            File::Npy(file) => file.read(),
            File::Tsv(file) => file.read(),
        }?;
        match &row {
            Some(row) => {
                self.order.admit(row, &self.path)?;
                if self.stated.is_some() {
                    self.digest.add(row);
                }
            }
            None if self.stated.as_ref().is_some_and(|stated| *stated != self.digest.text()) => {
                return Err(CodesError::content(&self.path, Place::File)(Fault::Digest));
            }
            None => {}
        }
        Ok(row)
    }
}

impl Iterator for Reader {
    type Item = Result<Row, CodesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_ended {
            return None;
        }
        let row = self.read().transpose();
        self.is_ended = !matches!(row, Some(Ok(_)));
        row
    }
}

/// Reads a file of codes through.
///
/// # Errors
///
/// As [`Reader`]: when it cannot be read, breaks a rule of codes files, or its rows have another digest than it states.
pub fn verify(path: &Path) -> Result<(), CodesError> {
    Reader::open(path)?.try_for_each(|row| row.map(drop))
}
