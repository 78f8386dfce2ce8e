//! The columns of the table and the notes in its footer.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, KeyValue};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type, TypePtr};

use super::super::error::Fault;
use super::super::{FORMAT_VERSION, Header};

/// Columns before the codes, in order.
pub(super) const RECORD: usize = 0;
pub(super) const START: usize = 1;
pub(super) const END: usize = 2;
pub(super) const STRAND: usize = 3;
/// Column of the first level; the others follow.
pub(super) const FIRST_CODES: usize = 4;

/// Rows in a row group, the unit that readers hold in memory: a million codes per level.
pub(super) const GROUP_ROWS: usize = 64;

const VERSION_KEY: &str = "vqdna.format_version";
const MODEL_KEY: &str = "vqdna.model";
const CODEBOOK_SIZES_KEY: &str = "vqdna.codebook_sizes";
/// A note that whole files do not have.
const SHARD_KEY: &str = "vqdna.shard";
/// A note that files of older programs do not have: the digest of all rows.
const DIGEST_KEY: &str = "vqdna.blake3";

/// The schema for a number of levels.
///
/// Lists have the three nested fields of the Parquet specification, which pandas, polars and `DuckDB` know as a
/// list. Nothing is optional, so each repetition and definition level is 1 or the start of a list.
pub(super) fn schema(levels: usize) -> Result<TypePtr, ParquetError> {
    let mut columns = vec![
        column("record", PhysicalType::BYTE_ARRAY, Some(LogicalType::String))?,
        column("start", PhysicalType::INT64, None)?,
        column("end", PhysicalType::INT64, None)?,
        column("strand", PhysicalType::BYTE_ARRAY, Some(LogicalType::String))?,
    ];
    for level in 1..=levels {
        let element = column("element", PhysicalType::INT32, Some(LogicalType::integer(16, false)))?;
        let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]);
        let codes = Type::group_type_builder(&codes_column(level))
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list.build()?)])
            .build()?;
        columns.push(Arc::new(codes));
    }
    Ok(Arc::new(Type::group_type_builder("codes").with_fields(columns).build()?))
}

/// Name of the column of a level, counted from 1.
pub(super) fn codes_column(level: usize) -> String {
    format!("codes_{level}")
}

fn column(name: &str, physical: PhysicalType, logical: Option<LogicalType>) -> Result<TypePtr, ParquetError> {
    let column = Type::primitive_type_builder(name, physical);
    Ok(Arc::new(column.with_repetition(Repetition::REQUIRED).with_logical_type(logical).build()?))
}

/// The notes that carry a header.
pub(super) fn notes(header: &Header) -> Vec<KeyValue> {
    let sizes = serde_json::Value::from(header.codebook_sizes.clone());
    let mut notes = vec![
        KeyValue::new(VERSION_KEY.into(), FORMAT_VERSION.to_owned()),
        KeyValue::new(MODEL_KEY.into(), header.model.clone()),
        KeyValue::new(CODEBOOK_SIZES_KEY.into(), sizes.to_string()),
    ];
    notes.extend(header.shard.map(|shard| KeyValue::new(SHARD_KEY.into(), shard.to_string())));
    notes
}

/// The note that carries the digest of all rows.
pub(super) fn digest_note(digest: &str) -> KeyValue {
    KeyValue::new(DIGEST_KEY.into(), digest.to_owned())
}

/// The header and the digest in the notes of a file, whose columns must be those of [`schema`].
pub(super) fn head(file: &FileMetaData) -> Result<(Header, Option<String>), Fault> {
    let notes = file.key_value_metadata().map_or(&[][..], Vec::as_slice);
    let find = |key: &str| notes.iter().find(|note| note.key == key);
    let note =
        |key: &'static str| find(key).and_then(|note| note.value.as_deref()).ok_or(Fault::NotCodes { missing: key });
    let version = note(VERSION_KEY)?;
    if version != FORMAT_VERSION {
        return Err(Fault::Version { found: version.into() });
    }
    let model = note(MODEL_KEY)?.to_owned();
    let sizes = serde_json::from_str(note(CODEBOOK_SIZES_KEY)?);
    let codebook_sizes = sizes.map_err(|_| Fault::NotCodes { missing: CODEBOOK_SIZES_KEY })?;
    let shard = find(SHARD_KEY).map(|note| note.value.as_deref().unwrap_or_default().parse()).transpose()?;
    let header = Header { model, codebook_sizes, shard };
    header.check()?;
    if !has_columns(file.schema_descr(), header.levels()) {
        return Err(Fault::NotCodes { missing: "the expected set of columns" });
    }
    let digest = find(DIGEST_KEY).map(|note| note.value.clone().unwrap_or_default());
    Ok((header, digest))
}

fn has_columns(found: &SchemaDescriptor, levels: usize) -> bool {
    let Ok(expected) = schema(levels).map(SchemaDescriptor::new) else { return false };
    let is_same = |(found, expected): (&Arc<ColumnDescriptor>, &Arc<ColumnDescriptor>)| {
        found.path() == expected.path()
            && found.physical_type() == expected.physical_type()
            && found.max_rep_level() == expected.max_rep_level()
            && found.max_def_level() == expected.max_def_level()
    };
    found.num_columns() == expected.num_columns() && found.columns().iter().zip(expected.columns()).all(is_same)
}
