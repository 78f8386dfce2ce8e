//! Tables as Parquet. Every column is optional.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{Column, Header, Kind, TabularError, Value, check};
use crate::aside::AsideFile;
use crate::output::is_stdout;

/// Rows in a row group, the unit that readers hold in memory.
const GROUP_ROWS: usize = 1 << 16;

pub(super) struct Writer {
    path: PathBuf,
    file: SerializedFileWriter<AsideFile>,
    columns: Vec<Column>,
    cells: Vec<Cells>,
    rows: usize,
}

/// The cells of a column in the next row group.
#[derive(Default)]
struct Cells {
    /// Of each row, 1 if it has a value.
    definition: Vec<i16>,
    texts: Vec<ByteArray>,
    integers: Vec<i64>,
    numbers: Vec<f64>,
}

impl Writer {
    pub(super) fn create(path: &Path, header: Header) -> Result<Self, TabularError> {
        if is_stdout(path) {
            return Err(TabularError::NoFile);
        }
        let aside = AsideFile::create(path).map_err(TabularError::io(path))?;
        let begin = || SerializedFileWriter::new(aside, schema(&header.columns)?, Arc::new(properties(&header)?));
        let file = begin().map_err(|source| TabularError::Parquet { path: path.to_owned(), source })?;
        let cells = header.columns.iter().map(|_| Cells::default()).collect();
        Ok(Self { path: path.to_owned(), file, columns: header.columns, cells, rows: 0 })
    }

    pub(super) fn write(&mut self, row: &[Value<'_>]) -> Result<(), TabularError> {
        check(&self.columns, row);
        for (cells, value) in self.cells.iter_mut().zip(row) {
            cells.definition.push(i16::from(*value != Value::Missing));
            match *value {
                Value::Text(text) => cells.texts.push(text.as_bytes().to_vec().into()),
                Value::Integer(value) => cells.integers.push(value.cast_signed()),
                Value::Number(value) => cells.numbers.push(value),
                Value::Missing => {}
            }
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<(), TabularError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let file =
            self.file.into_inner().map_err(|source| TabularError::Parquet { path: self.path.clone(), source })?;
        file.keep().map(drop).map_err(TabularError::io(&self.path))
    }

    fn write_group(&mut self) -> Result<(), TabularError> {
        self.rows = 0;
        let mut write = || {
            let mut group = self.file.next_row_group()?;
            for (column, cells) in self.columns.iter().zip(&mut self.cells) {
                let Cells { definition, texts, integers, numbers } = std::mem::take(cells);
                match column.kind {
                    Kind::Text => write_column::<ByteArrayType>(&mut group, &texts, &definition)?,
                    Kind::Integer => write_column::<Int64Type>(&mut group, &integers, &definition)?,
                    Kind::Number => write_column::<DoubleType>(&mut group, &numbers, &definition)?,
                }
            }
            group.close().map(drop)
        };
        write().map_err(|source| TabularError::Parquet { path: self.path.clone(), source })
    }
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, AsideFile>,
    values: &[T::T],
    definition: &[i16],
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has too few columns".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, Some(definition), None)?;
    column.close()
}

fn schema(columns: &[Column]) -> Result<TypePtr, ParquetError> {
    let field = |column: &Column| -> Result<TypePtr, ParquetError> {
        let (physical, logical) = match column.kind {
            Kind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Integer => (PhysicalType::INT64, None),
            Kind::Number => (PhysicalType::DOUBLE, None),
        };
        let field = Type::primitive_type_builder(&column.name, physical).with_repetition(Repetition::OPTIONAL);
        Ok(Arc::new(field.with_logical_type(logical).build()?))
    };
    let fields = columns.iter().map(field).collect::<Result<_, _>>()?;
    Ok(Arc::new(Type::group_type_builder("table").with_fields(fields).build()?))
}

fn properties(header: &Header) -> Result<WriterProperties, ParquetError> {
    let note = |(name, value): &(String, String)| KeyValue::new(format!("vqdna.{name}"), value.clone());
    Ok(WriterProperties::builder()
        .set_created_by("vqdna tables version 1".into())
        .set_key_value_metadata(Some(header.notes.iter().map(note).collect()))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .build())
}
