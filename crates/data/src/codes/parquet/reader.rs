//! Reads codes from Parquet.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

use super::super::error::{CodesError, Fault, Place};
use super::super::lines::{parse_record, parse_strand};
use super::super::order::check_span;
use super::super::{Header, Row};
use super::schema::{END, FIRST_CODES, RECORD, START, STRAND, head};

/// Reads row by row; memory holds the open pages of one row group.
pub(in super::super) struct Reader {
    path: PathBuf,
    table: Table,
    /// Rows read before, to name a place.
    rows: u64,
}

/// The row groups of a file.
struct Table {
    file: SerializedFileReader<File>,
    levels: usize,
    group: Option<Group>,
    next_group: usize,
}

/// The columns of a row group, each at the same row.
struct Group {
    rows_left: i64,
    record: ColumnReaderImpl<ByteArrayType>,
    start: ColumnReaderImpl<Int64Type>,
    end: ColumnReaderImpl<Int64Type>,
    strand: ColumnReaderImpl<ByteArrayType>,
    codes: Vec<ColumnReaderImpl<Int32Type>>,
}

/// What can go wrong inside a row.
enum RowError {
    Parquet(ParquetError),
    Fault(Fault),
}

impl Reader {
    pub(in super::super) fn open(path: &Path) -> Result<((Header, Option<String>), Self), CodesError> {
        let file = File::open(path).map_err(CodesError::io(path, "open the file"))?;
        let file = catch_panic(|| SerializedFileReader::new(file)).map_err(CodesError::parquet(path, "read"))?;
        let head = head(file.metadata().file_metadata()).map_err(CodesError::content(path, Place::File))?;
        let table = Table { file, levels: head.0.levels(), group: None, next_group: 0 };
        Ok((head, Self { path: path.into(), table, rows: 0 }))
    }

    pub(in super::super) fn read(&mut self) -> Result<Option<Row>, CodesError> {
        let row = catch_panic(|| self.table.read()).map_err(|error| match error {
            RowError::Parquet(source) => CodesError::parquet(&self.path, "read")(source),
            RowError::Fault(fault) => CodesError::content(&self.path, Place::TableRow(self.rows))(fault),
        })?;
        self.rows += 1;
        Ok(row)
    }
}

impl Table {
    fn read(&mut self) -> Result<Option<Row>, RowError> {
        loop {
            match &mut self.group {
                Some(group) if group.rows_left > 0 => return group.read().map(Some),
                _ if self.next_group == self.file.num_row_groups() => return Ok(None),
                _ => self.group = Some(Group::open(&*self.file.get_row_group(self.next_group)?, self.levels)?),
            }
            self.next_group += 1;
        }
    }
}

impl Group {
    fn open(group: &dyn RowGroupReader, levels: usize) -> Result<Self, ParquetError> {
        let codes = (FIRST_CODES..FIRST_CODES + levels).map(|index| open_column(group, index));
        Ok(Self {
            rows_left: group.metadata().num_rows(),
            record: open_column(group, RECORD)?,
            start: open_column(group, START)?,
            end: open_column(group, END)?,
            strand: open_column(group, STRAND)?,
            codes: codes.collect::<Result<_, _>>()?,
        })
    }

    fn read(&mut self) -> Result<Row, RowError> {
        self.rows_left -= 1;
        let record = Arc::from(parse_record(read_value(&mut self.record)?.data())?);
        let start = coordinate(read_value(&mut self.start)?)?;
        let end = coordinate(read_value(&mut self.end)?)?;
        let strand = parse_strand(read_value(&mut self.strand)?.data())?;
        let bases = check_span(start, end)?;
        let mut codes = Vec::with_capacity(self.codes.len());
        for (level, column) in self.codes.iter_mut().enumerate() {
            codes.push(read_codes(column, bases, level + 1)?);
        }
        Ok(Row { record, start, end, strand, codes })
    }
}

fn open_column<T: DataType>(group: &dyn RowGroupReader, index: usize) -> Result<ColumnReaderImpl<T>, ParquetError> {
    // The schema was checked, so the column has the type that is asked for.
    Ok(get_typed_column_reader(group.get_column_reader(index)?))
}

fn read_value<T: DataType>(column: &mut ColumnReaderImpl<T>) -> Result<T::T, RowError> {
    let mut values = Vec::with_capacity(1);
    column.read_records(1, None, None, &mut values)?;
    values.pop().ok_or_else(|| ParquetError::EOF("the column has too few values".into()).into())
}

fn read_codes(column: &mut ColumnReaderImpl<Int32Type>, bases: usize, level: usize) -> Result<Vec<u16>, RowError> {
    let (mut definition, mut repetition) = (Vec::with_capacity(bases), Vec::with_capacity(bases));
    let mut values = Vec::with_capacity(bases);
    column.read_records(1, Some(&mut definition), Some(&mut repetition), &mut values)?;
    if values.len() != bases {
        return Err(Fault::Codes { level, expected: bases, found: values.len() }.into());
    }
    let code = |value: i32| {
        u16::try_from(value).map_err(|_| Fault::Unexpected { expected: "a code", found: value.to_string() })
    };
    Ok(values.into_iter().map(code).collect::<Result<_, _>>()?)
}

fn coordinate(value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::Unexpected { expected: "a coordinate", found: value.to_string() })
}

/// Makes an error of a panic: on some damaged pages the Parquet library panics. What it leaves half-changed is not
/// used again, since nothing is read after an error.
fn catch_panic<T, E: From<ParquetError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let result = catch_unwind(AssertUnwindSafe(read));
    result.unwrap_or_else(|_| Err(ParquetError::General("a damaged page".into()).into()))
}

impl From<ParquetError> for RowError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<Fault> for RowError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
