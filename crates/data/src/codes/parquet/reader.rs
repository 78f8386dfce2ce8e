//! Reads codes from Parquet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};

use super::super::error::{CodesError, Fault, Place};
use super::super::lines::{parse_record, parse_strand};
use super::super::order::check_span;
use super::super::{Header, ROW_BASES, Row};
use super::schema::{END, FIRST_CODES, RECORD, START, STRAND, head};
use crate::pages::{self, Excess, Guarded, catch_panic};

/// Reads row by row; memory holds the open pages of one row group.
pub(in super::super) struct Reader {
    path: PathBuf,
    table: Table,
    /// Rows read before, to name a place.
    rows: u64,
}

/// The row groups of a file.
struct Table {
    file: Guarded,
    /// The same file, of which headers of pages are read.
    pages: File,
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
        let pages = file.try_clone().map_err(CodesError::io(path, "open the file"))?;
        let file = catch_panic(|| Guarded::new(file, ROW_BASES as u64)).map_err(CodesError::parquet(path, "read"))?;
        let head = head(file.metadata().file_metadata()).map_err(CodesError::content(path, Place::File))?;
        let table = Table { file, pages, levels: head.0.levels(), group: None, next_group: 0 };
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
                _ => self.group = Some(self.open_group(self.next_group)?),
            }
            self.next_group += 1;
        }
    }

    fn open_group(&self, number: usize) -> Result<Group, ParquetError> {
        let group = self.file.get_row_group(number)?;
        let columns: Vec<usize> = (0..FIRST_CODES + self.levels).collect();
        if let Some(Excess { column, what }) = pages::check_group(&self.pages, group.metadata(), &columns)? {
            let schema = group.metadata().schema_descr().root_schema();
            let name = schema.get_fields()[column].name();
            return Err(ParquetError::General(format!("column `{name}`: {what}; is the file damaged?")));
        }
        Group::open(&*group, self.levels)
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

#[cfg(test)]
mod tests {
    use super::super::schema::{notes, schema};
    use super::*;
    use ::parquet::basic::{Compression, GzipLevel};
    use ::parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    use std::fs;

    /// What is wrong with a file of one row of 4 bases that has `codes` codes of a level, if anything.
    fn fault(codes: usize, change: impl Fn(&mut Vec<u8>)) -> Option<String> {
        let header = Header { model: "6f1e".into(), codebook_sizes: vec![8], shard: None };
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(notes(&header)))
            .set_compression(Compression::GZIP(GzipLevel::default()))
            .build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema(1).unwrap(), Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut write = |texts: &[&str], number: Option<i64>| {
            let mut column = group.next_column().unwrap().unwrap();
            let repetition: Vec<i16> = (0..codes).map(|code| i16::from(code > 0)).collect();
            match (texts, number) {
                ([], None) => {
                    column.typed::<Int32Type>().write_batch(&vec![5; codes], Some(&vec![1; codes]), Some(&repetition))
                }
                ([], Some(number)) => column.typed::<Int64Type>().write_batch(&[number], None, None),
                (texts, _) => column.typed::<ByteArrayType>().write_batch(&[texts[0].into()], None, None),
            }
            .unwrap();
            column.close().unwrap();
        };
        write(&["chr1"], None);
        write(&[], Some(0));
        write(&[], Some(4));
        write(&["+"], None);
        write(&[], None);
        group.close().unwrap();
        let mut bytes = file.into_inner().unwrap();
        change(&mut bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        fs::write(&path, bytes).unwrap();
        let (_, mut reader) = Reader::open(&path).unwrap();
        match reader.read() {
            Ok(row) => {
                assert_eq!(row.unwrap().codes, [[5; 4]]);
                assert!(reader.read().unwrap().is_none());
                None
            }
            Err(CodesError::Parquet { source, .. }) => Some(source.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    #[test]
    fn claims_are_held_against_what_a_row_may_have() {
        assert_eq!(fault(4, |_| ()), None);
        assert!(fault(5, |_| ()).unwrap().ends_with("found 5"), "{:?}", fault(5, |_| ()));
        let refused = fault(ROW_BASES + 1, |_| ()).unwrap();
        assert!(refused.ends_with("a row has a list of more than 16384 values"), "{refused}");
        // The first page is the dictionary of records: its header begins with the kind, 2, and the unpacked size, 8.
        let refused = fault(4, |bytes| {
            assert_eq!(bytes[4..8], [0x15, 0x04, 0x15, 0x10]);
            bytes[7] = 0x0c;
        });
        let refused = refused.unwrap();
        let expected = "column `record`: a page unpacks to more than the 6 bytes that it claims; is the file damaged?";
        assert!(refused.ends_with(expected), "{refused}");
    }
}
