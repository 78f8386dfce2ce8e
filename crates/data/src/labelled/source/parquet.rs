//! Columns of a Parquet file, whoever wrote it.

use std::{
    env,
    fs::File,
    io::{self, BufRead, Write},
    path::Path,
};

use parquet::{
    errors::ParquetError,
    file::{metadata::ParquetMetaData, reader::FileReader},
    record::{Field, reader::RowIter},
    schema::types::Type,
};

use super::super::{CellFault, LabelledError, Place, Unit};
use super::{Cells, MOST_CELL};
use crate::{
    input::{Compression, Text, Watch, is_stdin, open_file},
    pages::{self, Guarded, catch_panic},
};

/// The rows of all row groups, of the columns that are read.
pub(super) struct Parquet {
    file: File,
    /// Of the columns that are read.
    schema: Type,
    rows: RowIter<'static>,
    rows_read: u64,
}

impl Parquet {
    pub(super) fn open(
        path: &Path,
        text: Text,
        watch: &Watch,
        choose: impl FnOnce(&[String]) -> Result<Vec<usize>, LabelledError>,
    ) -> Result<Self, LabelledError> {
        let file = seekable(path, text, watch)?;
        let pages_file = file.try_clone().map_err(|error| damaged(watch)(error.into()))?;
        let file = catch_panic(|| Guarded::new(file, 1)).map_err(damaged(watch))?;
        let schema = file.metadata().file_metadata().schema();
        let columns = schema.get_fields();
        let names: Vec<String> = columns.iter().map(|column| column.name().to_owned()).collect();
        let wanted = choose(&names)?;
        let excess = catch_panic(|| Ok::<_, ParquetError>(pages::check(&pages_file, file.metadata(), &wanted)?))
            .map_err(damaged(watch))?;
        if let Some(excess) = excess {
            let column = names[excess.column].clone();
            return Err(LabelledError::Page { file: watch.file.clone(), column, fault: excess.what });
        }
        // The library holds a thousand rows, however long their lists are.
        if let Some(column) = wanted.iter().find(|&&column| has_lists(file.metadata(), column)) {
            let (place, column) = (Place { unit: Unit::Row, number: 1 }, names[*column].clone());
            return Err(LabelledError::Cell { file: watch.file.clone(), place, column, fault: CellFault::Nested });
        }
        let chosen = wanted.into_iter().map(|column| columns[column].clone()).collect();
        let schema = Type::group_type_builder(schema.name()).with_fields(chosen).build().map_err(damaged(watch))?;
        let rows = RowIter::from_file_into(Box::new(file)).project(Some(schema.clone())).map_err(damaged(watch))?;
        Ok(Self { file: pages_file, schema, rows, rows_read: 0 })
    }

    /// Goes back to the first row.
    pub(super) fn rewind(&mut self, watch: &Watch) -> Result<(), LabelledError> {
        let again = || {
            let file = Guarded::new(self.file.try_clone()?, 1)?;
            RowIter::from_file_into(Box::new(file)).project(Some(self.schema.clone()))
        };
        self.rows = catch_panic(again).map_err(damaged(watch))?;
        self.rows_read = 0;
        Ok(())
    }

    pub(super) fn read(&mut self, row: &mut Cells, watch: &Watch) -> Result<bool, LabelledError> {
        let next = catch_panic(|| self.rows.next().transpose()).map_err(damaged(watch))?;
        let Some(next) = next else { return Ok(false) };
        self.rows_read += 1;
        row.begin(self.rows_read, next.len());
        for (index, (column, field)) in next.into_columns().into_iter().enumerate() {
            if !field.is_primitive() {
                let place = Place { unit: Unit::Row, number: self.rows_read };
                return Err(LabelledError::Cell { file: watch.file.clone(), place, column, fault: CellFault::Nested });
            }
            let text = text_of(field);
            if text.len() > MOST_CELL {
                let place = Place { unit: Unit::Row, number: self.rows_read };
                let fault = CellFault::TooLong { length: text.len(), most: MOST_CELL };
                return Err(LabelledError::Cell { file: watch.file.clone(), place, column, fault });
            }
            row.set(index, &text);
        }
        Ok(true)
    }
}

/// A value as it would be written in a text; nothing for null.
fn text_of(field: Field) -> Vec<u8> {
    match field {
        Field::Null => Vec::new(),
        Field::Str(text) => text.into_bytes(),
        Field::Bytes(bytes) => bytes.data().to_vec(),
        // Their own texts have exponents and trailing zeros where none are needed.
        Field::Float(number) if is_plain(number.into()) => number.to_string().into_bytes(),
        Field::Double(number) if is_plain(number) => number.to_string().into_bytes(),
        Field::Float(number) => format!("{number:?}").into_bytes(),
        Field::Double(number) => format!("{number:?}").into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// Whether a number is short without an exponent.
fn is_plain(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < 1e15
}

/// The file, which is read at any place: itself where it can be, or else a temporary copy.
///
/// Either way the whole text is read once, so that the watch has seen all of it.
fn seekable(path: &Path, mut text: Text, watch: &Watch) -> Result<File, LabelledError> {
    if watch.compression() == Compression::Plain && !is_stdin(path) && path.is_file() {
        io::copy(&mut text, &mut io::sink()).map_err(|error| watch.explain(error))?;
        return Ok(open_file(path)?);
    }
    let spool = |source| LabelledError::Spool { folder: env::temp_dir().to_string_lossy().into(), source };
    let mut copy = tempfile::tempfile().map_err(spool)?;
    loop {
        let bytes = text.fill_buf().map_err(|error| watch.explain(error))?;
        if bytes.is_empty() {
            return Ok(copy);
        }
        copy.write_all(bytes).map_err(spool)?;
        let count = bytes.len();
        text.consume(count);
    }
}

fn damaged(watch: &Watch) -> impl Fn(ParquetError) -> LabelledError {
    move |source| LabelledError::Parquet { file: watch.file.clone(), source }
}

/// Whether there are rows, and a column of lists in them.
fn has_lists(metadata: &ParquetMetaData, column: usize) -> bool {
    let schema = metadata.file_metadata().schema_descr();
    let mut leaves = schema.columns().iter().enumerate();
    metadata.file_metadata().num_rows() > 0
        && leaves.any(|(leaf, of)| schema.get_column_root_idx(leaf) == column && of.max_rep_level() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;
    use ::parquet::{
        basic::{Compression as Codec, GzipLevel, ZstdLevel},
        data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    use std::{fs, sync::Arc};

    /// A file as pandas and polars write it: every column may have nulls.
    fn write(path: &Path, codec: Codec) {
        let schema = "message schema {
            optional int64 __index_level_0__; optional binary sequence (UTF8);
            optional double score; optional boolean flag;
        }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(codec).build();
        let mut file =
            SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
        for start in [0, 3] {
            let mut group = file.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[start, start + 1, start + 2], Some(&[1; 3]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let texts = ["ACGT", "nnn", "TT"].map(ByteArray::from);
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1; 3]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<DoubleType>().write_batch(&[1.0, -0.25], Some(&[1, 0, 1]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<BoolType>().write_batch(&[true, false, true], Some(&[1; 3]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        file.close().unwrap();
    }

    fn rows(path: &Path) -> Result<Vec<String>, LabelledError> {
        let (text, watch) = input::open(path)?;
        let choose = |names: &[String]| {
            assert_eq!(names, ["__index_level_0__", "sequence", "score", "flag"]);
            Ok(vec![2, 1, 3, 0])
        };
        let mut reader = Parquet::open(path, text, &watch, choose)?;
        let (mut rows, mut row) = (Vec::new(), Cells::default());
        while reader.read(&mut row, &watch)? {
            let cells: Vec<_> = row.cells.iter().map(|cell| String::from_utf8_lossy(cell)).collect();
            rows.push(format!("{} {}", row.number, cells.join("|")));
        }
        let digest = watch.finish(0, 0)?;
        assert_eq!(digest.bytes, fs::metadata(path).unwrap().len());
        Ok(rows)
    }

    const ROWS: [&str; 6] = [
        "1 1|ACGT|true|0",
        "2 |nnn|false|1",
        "3 -0.25|TT|true|2",
        "4 1|ACGT|true|3",
        "5 |nnn|false|4",
        "6 -0.25|TT|true|5",
    ];

    #[test]
    fn ordinary_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let zstd = Codec::ZSTD(ZstdLevel::default());
        let gzip = Codec::GZIP(GzipLevel::default());
        for codec in [Codec::UNCOMPRESSED, Codec::SNAPPY, gzip, zstd, Codec::LZ4_RAW] {
            write(&path, codec);
            assert_eq!(rows(&path).unwrap(), ROWS, "{codec:?}");
        }
        // A file in a compressed shell is unpacked first.
        let packed = folder.path().join("x.parquet.zst");
        fs::write(&packed, zstd::encode_all(&fs::read(&path).unwrap()[..], 1).unwrap()).unwrap();
        assert_eq!(rows(&packed).unwrap(), ROWS);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, Codec::SNAPPY);
        let whole = fs::read(&path).unwrap();
        for end in [4, 20, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..end]).unwrap();
            let message = rows(&path).unwrap_err().to_string();
            assert!(message.ends_with("x.parquet: cannot be read as Parquet"), "{message}");
        }
    }

    #[test]
    fn a_column_of_lists_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let schema = "message schema { required int64 a; optional group b (LIST) { repeated group list { optional int64 element; } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut file = SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[7], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 2], Some(&[3, 3]), Some(&[0, 1])).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        let open = |column: usize| {
            let (text, watch) = input::open(&path).unwrap();
            let mut reader = Parquet::open(&path, text, &watch, |_| Ok(vec![column]))?;
            let mut row = Cells::default();
            assert!(reader.read(&mut row, &watch)?);
            Ok::<_, LabelledError>(String::from_utf8_lossy(&row.cells[0]).into_owned())
        };
        assert_eq!(open(0).unwrap(), "7");
        let error = open(1).unwrap_err();
        assert!(
            matches!(&error, LabelledError::Cell { column, fault: CellFault::Nested, .. } if column == "b"),
            "{error}"
        );
    }
}
