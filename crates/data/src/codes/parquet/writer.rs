//! Writes codes as Parquet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::super::error::CodesError;
use super::super::{Header, Row};
use super::schema::{GROUP_ROWS, codes_column, digest_note, notes, schema};
use crate::aside::AsideFile;

/// Written as the author of every file. Fixed, so that two versions of the program with the same codes write the
/// same bytes.
const CREATED_BY: &str = "vqdna codes version 1";

const ZSTD_LEVEL: i32 = 3;

/// Gathers rows to row groups.
pub(in super::super) struct Writer {
    path: PathBuf,
    file: SerializedFileWriter<AsideFile>,
    levels: usize,
    /// Rows of the next group.
    group: Vec<Row>,
}

impl Writer {
    pub(in super::super) fn create(path: &Path, header: &Header) -> Result<Self, CodesError> {
        let aside = CodesError::creating(path)?;
        let begin = || SerializedFileWriter::new(aside, schema(header.levels())?, Arc::new(properties(header)?));
        let file = begin().map_err(CodesError::parquet(path, "write"))?;
        Ok(Self { path: path.into(), file, levels: header.levels(), group: Vec::new() })
    }

    pub(in super::super) fn write(&mut self, row: &Row) -> Result<(), CodesError> {
        self.group.push(row.clone());
        if self.group.len() == GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    pub(in super::super) fn finish(mut self, digest: &str) -> Result<u64, CodesError> {
        if !self.group.is_empty() {
            self.write_group()?;
        }
        self.file.append_key_value_metadata(digest_note(digest));
        CodesError::keeping(self.file.into_inner().map_err(CodesError::parquet(&self.path, "write"))?)
    }

    fn write_group(&mut self) -> Result<(), CodesError> {
        let group = std::mem::take(&mut self.group);
        let mut write = || {
            let mut columns = self.file.next_row_group()?;
            write_column::<ByteArrayType>(&mut columns, &group, |row| row.record.as_bytes().to_vec().into())?;
            write_column::<Int64Type>(&mut columns, &group, |row| row.start.cast_signed())?;
            write_column::<Int64Type>(&mut columns, &group, |row| row.end.cast_signed())?;
            write_column::<ByteArrayType>(&mut columns, &group, |row| row.strand.to_string().into_bytes().into())?;
            for level in 0..self.levels {
                write_codes(&mut columns, &group, level)?;
            }
            columns.close().map(|_| ())
        };
        write().map_err(CodesError::parquet(&self.path, "write"))
    }
}

fn properties(header: &Header) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.into())
        .set_key_value_metadata(Some(notes(header)))
        // With its default dictionaries, which hold codes in as many bits as the codebook needs: smaller than
        // plain numbers or deltas, and known to every reader.
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for level in 1..=header.levels() {
        // Least and greatest code of a million say nothing that could skip a row group.
        let path = ColumnPath::from(vec![codes_column(level), "list".into(), "element".into()]);
        properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
    }
    Ok(properties.build())
}

fn write_column<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, AsideFile>,
    group: &[Row],
    value: impl Fn(&Row) -> T::T,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = group.iter().map(value).collect();
    let mut column = columns.next_column()?.ok_or_else(no_column)?;
    column.typed::<T>().write_batch(&values, None, None)?;
    column.close()
}

fn write_codes(
    columns: &mut SerializedRowGroupWriter<'_, AsideFile>,
    group: &[Row],
    level: usize,
) -> Result<(), ParquetError> {
    let mut column = columns.next_column()?.ok_or_else(no_column)?;
    for row in group {
        let values: Vec<i32> = row.codes[level].iter().map(|&code| code.into()).collect();
        let definition = vec![1; values.len()];
        // The first code begins a list, the others go on with it.
        let repetition: Vec<i16> = (0..values.len()).map(|offset| i16::from(offset > 0)).collect();
        column.typed::<Int32Type>().write_batch(&values, Some(&definition), Some(&repetition))?;
    }
    column.close()
}

/// The schema has a column for every value that is written.
fn no_column() -> ParquetError {
    ParquetError::General("the schema has too few columns".into())
}
