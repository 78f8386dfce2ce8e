//! Vectors as text, one a line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Header, VectorsError, comments};
use crate::number::Shortest;
use crate::output::TextOutput;

pub(super) struct Writer {
    path: PathBuf,
    output: TextOutput,
    /// The line that is about to be written; what stands above the rows, until there is one.
    line: String,
    has_begun: bool,
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, VectorsError> {
        let output = TextOutput::create(path).map_err(VectorsError::io(path))?;
        let mut writer = Self { path: path.to_owned(), output, line: comments(header), has_begun: false };
        writer.line.push_str("id\tstart\tend");
        for number in 1..=header.width {
            let _ = write!(writer.line, "\tv{number}");
        }
        Ok(writer)
    }

    pub(super) fn write(&mut self, id: &str, bases: Range<u64>, vector: &[f32]) -> Result<(), VectorsError> {
        self.begin()?;
        self.line.clear();
        let _ = write!(self.line, "{id}\t{}\t{}", bases.start, bases.end);
        for value in vector {
            // A vector of nothing is empty, as a missing value is in any table.
            let _ = if value.is_nan() { write!(self.line, "\t") } else { write!(self.line, "\t{}", Shortest(*value)) };
        }
        self.write_line()
    }

    fn write_line(&mut self) -> Result<(), VectorsError> {
        self.line.push('\n');
        self.output.write_all(self.line.as_bytes()).map_err(VectorsError::io(&self.path))
    }

    /// Writes what stands above the rows, once: standard output stays empty where the input turns out to have none.
    fn begin(&mut self) -> Result<(), VectorsError> {
        if std::mem::replace(&mut self.has_begun, true) { Ok(()) } else { self.write_line() }
    }

    pub(super) fn flush(&mut self) -> Result<(), VectorsError> {
        self.output.flush().map_err(VectorsError::io(&self.path))
    }

    pub(super) fn finish(mut self) -> Result<(), VectorsError> {
        self.begin()?;
        self.output.finish().map_err(VectorsError::io(&self.path))
    }
}
