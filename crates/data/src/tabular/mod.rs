//! Writes tables: one row after the other, as text or Parquet.
//!
//! | name ends in | holds |
//! | --- | --- |
//! | `.tsv`, `.txt`, no ending, or `-` for standard output | lines of notes that begin with `# `, a line of column names, then rows; cells are separated by tabs and never quoted |
//! | `.csv` | a line of column names, then rows; cells are quoted where they must be |
//! | `.jsonl`, `.ndjson`, `.json` | a JSON object a line, with the same fields |
//! | `.parquet` | typed columns; notes stand in the footer |
//!
//! Texts may also end in `.gz` or `.bgz` (bgzip) or `.zst`. Numbers are written as the shortest text that reads back as the same
//! number. A value that is missing is an empty cell, or null.
//!
//! ```
//! use vqdna_data::tabular::{Column, Format, Header, Kind, Value, Writer};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("x.tsv");
//! let columns = vec![Column::new("id", Kind::Text), Column::new("p", Kind::Number)];
//! let mut writer = Writer::create(&path, Format::of(&path)?, Header { columns, notes: vec![] })?;
//! writer.write(&[Value::Text("a"), Value::Number(1e-8)])?;
//! writer.write(&[Value::Text("b"), Value::Missing])?;
//! writer.finish()?;
//! assert_eq!(std::fs::read_to_string(path)?, "id\tp\na\t1e-8\nb\t\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod parquet;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use ::parquet::errors::ParquetError;

use crate::output::{self, Compression, UnknownEnding};
use crate::words::words;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Cells separated by tabs.
    Tsv,
    /// Cells separated by commas.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Columnar.
    Parquet,
}

words!(Format, "a format of tables", { Tsv => "tsv", Csv => "csv", Jsonl => "jsonl", Parquet => "parquet" });

impl Format {
    /// Endings of names, each with what is written under it.
    pub const ENDINGS: [(&'static str, Self); 7] = [
        (".tsv", Self::Tsv),
        (".csv", Self::Csv),
        (".jsonl", Self::Jsonl),
        (".parquet", Self::Parquet),
        (".json", Self::Jsonl),
        (".ndjson", Self::Jsonl),
        (".txt", Self::Tsv),
    ];

    /// The format that the name of a file asks for; tab-separated text for standard output and names without an ending.
    ///
    /// # Errors
    /// If it ends in something else, or in a compression of Parquet, which is compressed inside.
    pub fn of(path: &Path) -> Result<Self, UnknownEnding> {
        let known = Self::ENDINGS.map(|(ending, _)| ending);
        let found = output::ending(path, &known)?;
        let format = Self::ENDINGS.iter().find(|(ending, _)| Some(*ending) == found).map_or(Self::Tsv, |(_, of)| *of);
        if format == Self::Parquet && Compression::of(path).0.is_some() {
            return Err(UnknownEnding { path: path.to_owned(), known: vec![".parquet"], compressed: false });
        }
        Ok(format)
    }
}

/// What the cells of a column hold, where they hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole numbers from 0.
    Integer,
    /// Numbers.
    Number,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its cells hold.
    pub kind: Kind,
}

impl Column {
    /// A column of this name.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// What stands above the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// How the table came about, as names and values. CSV and JSON Lines have no place for them.
    pub notes: Vec<(String, String)>,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Integer(u64),
    /// A number; one that is not finite is missing in JSON, which has no word for it.
    Number(f64),
    /// Nothing.
    Missing,
}

/// A table that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TabularError {
    /// The system says no.
    #[error("{}: cannot write the table: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The format says no.
    #[error("{}: cannot write the table: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: ParquetError,
    },
    /// Text that would tear a row of tab-separated text apart.
    #[error("{}: column `{column}`, row {row}: a text with a tab or a line end has no place in tab-separated text; write .csv, .jsonl or .parquet", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// Name of the column.
        column: String,
        /// The row, counted from 1; 0 for the names of columns.
        row: u64,
    },
    /// Binary data for a terminal or a pipe.
    #[error("Parquet is no text for standard output; name a file with -o")]
    NoFile,
    /// Two columns that a reader could not tell apart.
    #[error("{}: two columns would be named `{column}`", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Their name.
        column: String,
    },
}

/// A table in the making; dropped before [`Writer::finish`], it leaves no trace.
pub struct Writer(Inner);

enum Inner {
    Text(text::Writer),
    Parquet(parquet::Writer),
}

impl Writer {
    /// Begins a file, or text on standard output for `-`. Nothing is on standard output before the first row, or the end.
    ///
    /// # Errors
    /// If the file cannot be written, or two columns have one name.
    pub fn create(path: &Path, format: Format, header: Header) -> Result<Self, TabularError> {
        let names = || header.columns.iter().map(|column| &column.name);
        let again = names().enumerate().find(|(place, name)| names().take(*place).any(|earlier| earlier == *name));
        if let Some((_, name)) = again {
            return Err(TabularError::Twice { path: path.to_owned(), column: name.clone() });
        }
        Ok(Self(match format {
            Format::Parquet => Inner::Parquet(parquet::Writer::create(path, header)?),
            Format::Tsv | Format::Csv | Format::Jsonl => Inner::Text(text::Writer::create(path, format, header)?),
        }))
    }

    /// Writes the next row.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If it has not a value for each column, or one of another kind.
    pub fn write(&mut self, row: &[Value<'_>]) -> Result<(), TabularError> {
        match &mut self.0 {
            Inner::Text(writer) => writer.write(row),
            Inner::Parquet(writer) => writer.write(row),
        }
    }

    /// Hands the rows so far on to standard output or a pipe; of a file nobody sees any before its end.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn flush(&mut self) -> Result<(), TabularError> {
        match &mut self.0 {
            Inner::Text(writer) => writer.flush(),
            Inner::Parquet(_) => Ok(()),
        }
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<(), TabularError> {
        match self.0 {
            Inner::Text(writer) => writer.finish(),
            Inner::Parquet(writer) => writer.finish(),
        }
    }
}

impl TabularError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// Refuses a row that is not one of the table.
fn check(columns: &[Column], row: &[Value<'_>]) {
    assert_eq!(row.len(), columns.len(), "cells of a row");
    for (column, value) in columns.iter().zip(row) {
        let fits = matches!(
            (column.kind, value),
            (_, Value::Missing)
                | (Kind::Text, Value::Text(_))
                | (Kind::Integer, Value::Integer(_))
                | (Kind::Number, Value::Number(_))
        );
        assert!(fits, "column `{}` holds {:?}, not {value:?}", column.name, column.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use std::fs::{self, File};

    fn header() -> Header {
        let columns =
            [("id", Kind::Text), ("start", Kind::Integer), ("p \"x\"", Kind::Number)].map(|(n, k)| Column::new(n, k));
        Header { columns: columns.into(), notes: vec![("model".into(), "abc".into())] }
    }

    fn write(name: &str, texts: &[&str]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let run = || {
            let mut writer = Writer::create(&path, Format::of(&path).map_err(|e| e.to_string())?, header())
                .map_err(|e| e.to_string())?;
            for (number, text) in (0..).zip(texts) {
                let value = if number == 1 { Value::Missing } else { Value::Number(1e-8) };
                writer.write(&[Value::Text(text), Value::Integer(number), value]).map_err(|e| e.to_string())?;
            }
            writer.finish().map_err(|e| e.to_string())
        };
        let ran = run().map_err(|message| message.replace(&*folder.path().to_string_lossy(), "x"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), usize::from(ran.is_ok()));
        ran.map(|()| fs::read(path).unwrap())
    }

    fn text(name: &str, texts: &[&str]) -> String {
        String::from_utf8(write(name, texts).unwrap()).unwrap()
    }

    #[test]
    fn texts_have_one_row_a_line() {
        let tsv = "# model\tabc\nid\tstart\tp \"x\"\na,\"b\t0\t1e-8\ncaf\u{e9}\t1\t\n";
        for name in ["x.tsv", "x.txt", "x"] {
            assert_eq!(text(name, &["a,\"b", "caf\u{e9}"]), tsv, "{name}");
        }
        let csv = "id,start,\"p \"\"x\"\"\"\n\"a,\"\"b\",0,1e-8\n\"c\nd\",1,\n";
        assert_eq!(text("x.csv", &["a,\"b", "c\nd"]), csv);
        let jsonl =
            "{\"id\":\"a\\tb\",\"start\":0,\"p \\\"x\\\"\":1e-8}\n{\"id\":\"b\",\"start\":1,\"p \\\"x\\\"\":null}\n";
        for name in ["x.jsonl", "x.json", "x.ndjson"] {
            assert_eq!(text(name, &["a\tb", "b"]), jsonl, "{name}");
        }
        assert_eq!(text("x.tsv", &[]), "# model\tabc\nid\tstart\tp \"x\"\n");
        let zst = write("x.tsv.zst", &["a,\"b", "caf\u{e9}"]).unwrap();
        assert_eq!(zstd::decode_all(&zst[..]).unwrap(), tsv.as_bytes());
    }

    #[test]
    fn parquet_has_typed_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let mut writer = Writer::create(&path, Format::Parquet, header()).unwrap();
        writer.write(&[Value::Text("a\tb"), Value::Integer(7), Value::Missing]).unwrap();
        writer.write(&[Value::Missing, Value::Missing, Value::Number(f64::MAX)]).unwrap();
        writer.finish().unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let notes = reader.metadata().file_metadata().key_value_metadata().unwrap();
        assert!(notes.iter().any(|note| note.key == "vqdna.model" && note.value.as_deref() == Some("abc")));
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows[0], "{id: \"a\tb\", start: 7, p \"x\": null}");
        assert!(rows[1].starts_with("{id: null, start: null, p \"x\": 1.79"), "{}", rows[1]);
        assert!(Writer::create(Path::new("-"), Format::Parquet, header()).is_err());
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused() {
        for torn in ["a\tb", "a\nb", "a\rb"] {
            let message = write("x.tsv", &["fine", torn]).unwrap_err();
            assert!(message.starts_with("x/x.tsv: column `id`, row 2: a text with a tab"), "{message}");
        }
        for name in ["x.xlsx", "x.tsv.xz", "x.parquet.gz", "x.bed"] {
            let message = write(name, &[]).unwrap_err();
            assert!(message.contains(".parquet"), "{message}");
        }
        let twice = Header { columns: vec![Column::new("a", Kind::Text); 2], notes: vec![] };
        let error = Writer::create(Path::new("-"), Format::Tsv, twice).err().unwrap();
        assert!(error.to_string().contains("named `a`"));
    }
}
