//! Vectors as a numpy array, with a table beside it that says what its rows are.

use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Header, VectorsError, comments};
use crate::aside::AsideFile;

/// Bytes of the header: room for any shape, and a multiple of 64 as the format asks.
const HEADER_BYTES: usize = 128;

pub(super) struct Writer {
    path: PathBuf,
    array: AsideFile,
    table: AsideFile,
    width: usize,
    rows: u64,
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, VectorsError> {
        let mut table_path = path.as_os_str().to_owned();
        table_path.push(".rows.tsv");
        let array = AsideFile::create(path).map_err(VectorsError::io(path))?;
        let mut table = AsideFile::create(Path::new(&table_path)).map_err(VectorsError::io(path))?;
        let head = format!("{}id\tstart\tend\n", comments(header));
        table.write_all(head.as_bytes()).map_err(VectorsError::io(path))?;
        let mut writer = Self { path: path.to_owned(), array, table, width: header.width, rows: 0 };
        writer.write_header()?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, id: &str, bases: Range<u64>, vector: &[f32]) -> Result<(), VectorsError> {
        self.rows += 1;
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        let written = self.array.write_all(&bytes);
        let written = written.and_then(|()| writeln!(self.table, "{id}\t{}\t{}", bases.start, bases.end));
        written.map_err(VectorsError::io(&self.path))
    }

    pub(super) fn finish(mut self) -> Result<(), VectorsError> {
        self.write_header()?;
        // The table goes first, so that an array never stands without one.
        let kept = self.table.keep().and_then(|_| self.array.keep());
        kept.map(drop).map_err(VectorsError::io(&self.path))
    }

    /// Writes the header over the space reserved for it.
    fn write_header(&mut self) -> Result<(), VectorsError> {
        let shape = format!("({}, {})", self.rows, self.width);
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend_from_slice(&118_u16.to_le_bytes());
        header.extend_from_slice(format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}").as_bytes());
        header.resize(HEADER_BYTES - 1, b' ');
        header.push(b'\n');
        let result = self.array.seek(SeekFrom::Start(0)).and_then(|_| self.array.write_all(&header));
        let result = result.and_then(|()| self.array.seek(SeekFrom::End(0)));
        result.map(drop).map_err(VectorsError::io(&self.path))
    }
}
