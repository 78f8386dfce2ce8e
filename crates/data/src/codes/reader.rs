//! One way to read codes in every format.

use std::path::{Path, PathBuf};

use super::error::CodesError;
use super::order::Order;
use super::{Format, Header, Row, npy, parquet, tsv};

/// Reads the rows of a file of codes in order, checking each as strictly as the writer does.
///
/// After an error the iterator ends.
pub struct Reader {
    path: PathBuf,
    header: Header,
    order: Order,
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
        let (header, file) = match Format::of(path)? {
            Format::Parquet => {
                parquet::Reader::open(path).map(|(header, file)| (header, File::Parquet(Box::new(file))))
            }
            Format::Npy => npy::Reader::open(path).map(|(header, file)| (header, File::Npy(file))),
            Format::Tsv => tsv::Reader::open(path).map(|(header, file)| (header, File::Tsv(file))),
        }?;
        Ok(Self { path: path.into(), order: Order::new(&header), header, file, is_ended: false })
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
        if let Some(row) = &row {
            self.order.admit(row, &self.path)?;
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
