//! Codes as a Parquet table: one row per [`Row`](super::Row), one list column per level.

mod reader;
mod schema;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;
