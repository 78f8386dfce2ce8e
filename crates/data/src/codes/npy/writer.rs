//! Writes an array and its table.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::super::error::CodesError;
use super::super::{Header, Row};
use super::records::RecordsWriter;
use super::{CODE_BYTES, array, records_path};
use crate::aside::AsideFile;

/// Writes the rows of the array as they come, and its shape at the end.
pub(in super::super) struct Writer {
    array: AsideFile,
    records: RecordsWriter,
    levels: usize,
    /// Bytes of one row; kept for its memory.
    bytes: Vec<u8>,
}

impl Writer {
    pub(in super::super) fn create(path: &Path, header: &Header) -> Result<Self, CodesError> {
        let array = CodesError::creating(path)?;
        let records = RecordsWriter::create(&records_path(path), header)?;
        let mut writer = Self { array, records, levels: header.levels(), bytes: Vec::new() };
        writer.write_header(0)?;
        Ok(writer)
    }

    pub(in super::super) fn write(&mut self, row: &Row) -> Result<(), CodesError> {
        self.bytes.resize(row.codes.iter().map(Vec::len).sum::<usize>() * CODE_BYTES, 0);
        for (level, codes) in row.codes.iter().enumerate() {
            let places = self.bytes.chunks_exact_mut(CODE_BYTES).skip(level).step_by(self.levels);
            for (place, code) in places.zip(codes) {
                place.copy_from_slice(&code.to_le_bytes());
            }
        }
        self.array.write_all(&self.bytes).map_err(CodesError::io(self.array.path(), "write to the file"))?;
        self.records.write(row)
    }

    pub(in super::super) fn finish(mut self, digest: &str) -> Result<u64, CodesError> {
        let bases = self.records.array_rows();
        self.write_header(bases)?;
        let records = self.records.finish(digest)?;
        // The table goes first, so that an array never stands without one.
        let records_path = records.path().to_owned();
        let records_bytes = CodesError::keeping(records)?;
        match CodesError::keeping(self.array) {
            Ok(array_bytes) => Ok(records_bytes + array_bytes),
            Err(error) => {
                // The first error is the one to report; a table that stays is harmless without its array.
                let _ = fs::remove_file(records_path);
                Err(error)
            }
        }
    }

    /// Writes the header over the space reserved for it.
    fn write_header(&mut self, bases: u64) -> Result<(), CodesError> {
        let header = array::format_header(bases, self.levels);
        let result = self.array.seek(SeekFrom::Start(0)).and_then(|_| self.array.write_all(&header));
        result.map_err(CodesError::io(self.array.path(), "write to the file"))
    }
}
