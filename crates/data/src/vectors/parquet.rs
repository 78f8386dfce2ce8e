//! Vectors as a table with a column of lists.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use super::{Header, VectorsError};
use crate::aside::AsideFile;

/// Numbers in a row group, the unit that readers hold in memory.
const GROUP_NUMBERS: usize = 1 << 22;

pub(super) struct Writer {
    path: PathBuf,
    file: SerializedFileWriter<AsideFile>,
    width: usize,
    group: Group,
}

/// Rows of the next group, column by column.
#[derive(Default)]
struct Group {
    ids: Vec<ByteArray>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    vectors: Vec<f32>,
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, VectorsError> {
        let aside = AsideFile::create(path).map_err(VectorsError::io(path))?;
        let begin = || SerializedFileWriter::new(aside, schema()?, Arc::new(properties(header)?));
        let file = begin().map_err(|source| VectorsError::Parquet { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, width: header.width, group: Group::default() })
    }

    pub(super) fn write(&mut self, id: &str, bases: Range<u64>, vector: &[f32]) -> Result<(), VectorsError> {
        self.group.ids.push(id.as_bytes().to_vec().into());
        self.group.starts.push(bases.start.cast_signed());
        self.group.ends.push(bases.end.cast_signed());
        self.group.vectors.extend_from_slice(vector);
        if self.group.vectors.len() >= GROUP_NUMBERS { self.write_group() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<(), VectorsError> {
        if !self.group.ids.is_empty() {
            self.write_group()?;
        }
        let file =
            self.file.into_inner().map_err(|source| VectorsError::Parquet { path: self.path.clone(), source })?;
        file.keep().map(drop).map_err(VectorsError::io(&self.path))
    }

    fn write_group(&mut self) -> Result<(), VectorsError> {
        let (group, width) = (std::mem::take(&mut self.group), self.width);
        let mut write = || {
            let mut columns = self.file.next_row_group()?;
            column::<ByteArrayType>(&mut columns, &group.ids, None, None)?;
            column::<Int64Type>(&mut columns, &group.starts, None, None)?;
            column::<Int64Type>(&mut columns, &group.ends, None, None)?;
            // The first number begins a list, the others go on with it.
            let definition = vec![1; group.vectors.len()];
            let repetition: Vec<i16> = (0..group.vectors.len()).map(|at| i16::from(at % width > 0)).collect();
            column::<FloatType>(&mut columns, &group.vectors, Some(&definition), Some(&repetition))?;
            columns.close().map(drop)
        };
        write().map_err(|source| VectorsError::Parquet { path: self.path.clone(), source })
    }
}

fn column<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, AsideFile>,
    values: &[T::T],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has too few columns".into());
    let mut column = columns.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, definition, repetition)?;
    column.close()
}

/// Nothing is optional. The list has the three nested fields of the specification, which pandas and polars know.
fn schema() -> Result<TypePtr, ParquetError> {
    let plain = |name: &str, physical, logical| -> Result<TypePtr, ParquetError> {
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        Ok(Arc::new(column.with_logical_type(logical).build()?))
    };
    let element = plain("element", PhysicalType::FLOAT, None)?;
    let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]);
    let vector = Type::group_type_builder("vector")
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list.build()?)])
        .build()?;
    let fields = vec![
        plain("id", PhysicalType::BYTE_ARRAY, Some(LogicalType::String))?,
        plain("start", PhysicalType::INT64, None)?,
        plain("end", PhysicalType::INT64, None)?,
        Arc::new(vector),
    ];
    Ok(Arc::new(Type::group_type_builder("vectors").with_fields(fields).build()?))
}

fn properties(header: &Header) -> Result<WriterProperties, ParquetError> {
    let note = |(name, value): &(String, String)| KeyValue::new(format!("vqdna.{name}"), value.clone());
    Ok(WriterProperties::builder()
        .set_created_by("vqdna vectors version 1".into())
        .set_key_value_metadata(Some(header.notes.iter().map(note).collect()))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        // Floats hardly repeat.
        .set_column_dictionary_enabled(ColumnPath::from("vector.list.element"), false)
        .build())
}
