//! Vectors as text, one a line.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Header, VectorsError, comments};
use crate::aside::AsideFile;

pub(super) struct Writer {
    path: PathBuf,
    out: Out,
    line: String,
}

enum Out {
    File(AsideFile),
    Pipe(BufWriter<Stdout>),
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, VectorsError> {
        let out = if path == Path::new("-") {
            Out::Pipe(BufWriter::new(io::stdout()))
        } else {
            Out::File(AsideFile::create(path).map_err(VectorsError::io(path))?)
        };
        let mut writer = Self { path: path.to_owned(), out, line: comments(header) };
        writer.line.push_str("id\tstart\tend");
        for number in 1..=header.width {
            let _ = write!(writer.line, "\tv{number}");
        }
        writer.write_line()?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, id: &str, bases: Range<u64>, vector: &[f32]) -> Result<(), VectorsError> {
        self.line.clear();
        let _ = write!(self.line, "{id}\t{}\t{}", bases.start, bases.end);
        for value in vector {
            let _ = write!(self.line, "\t{value}");
        }
        self.write_line()
    }

    fn write_line(&mut self) -> Result<(), VectorsError> {
        self.line.push('\n');
        let line = self.line.as_bytes();
        let written = match &mut self.out {
            Out::File(file) => file.write_all(line),
            Out::Pipe(pipe) => pipe.write_all(line),
        };
        written.map_err(VectorsError::io(&self.path))
    }

    pub(super) fn finish(self) -> Result<(), VectorsError> {
        let finished = match self.out {
            Out::File(file) => file.keep().map(drop),
            Out::Pipe(mut pipe) => pipe.flush(),
        };
        finished.map_err(VectorsError::io(&self.path))
    }
}
