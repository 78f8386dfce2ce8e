//! Tables as text: separated by tabs or commas, or as JSON Lines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Format, Header, TabularError, Value, check};
use crate::number::Shortest;
use crate::output::TextOutput;

pub(super) struct Writer {
    path: PathBuf,
    output: TextOutput,
    format: Format,
    header: Header,
    /// What stands before a value in JSON Lines: of each column its name.
    keys: Vec<String>,
    has_begun: bool,
    rows: u64,
    line: String,
}

impl Writer {
    pub(super) fn create(path: &Path, format: Format, header: Header) -> Result<Self, TabularError> {
        let key = |name: &str| format!("{}:", serde_json::Value::from(name));
        let keys = header.columns.iter().map(|column| key(&column.name)).collect();
        if format == Format::Tsv
            && let Some(column) = header.columns.iter().find(|column| tears(&column.name))
        {
            return Err(TabularError::Torn { path: path.to_owned(), column: column.name.clone(), row: 0 });
        }
        let output = TextOutput::create(path).map_err(TabularError::io(path))?;
        let line = String::new();
        Ok(Self { path: path.to_owned(), output, format, header, keys, has_begun: false, rows: 0, line })
    }

    pub(super) fn write(&mut self, row: &[Value<'_>]) -> Result<(), TabularError> {
        check(&self.header.columns, row);
        self.begin()?;
        self.rows += 1;
        for (number, value) in row.iter().enumerate() {
            self.push(number, *value)?;
        }
        self.line.push_str(if self.format == Format::Jsonl { "}\n" } else { "\n" });
        self.write_line()
    }

    pub(super) fn flush(&mut self) -> Result<(), TabularError> {
        self.output.flush().map_err(TabularError::io(&self.path))
    }

    pub(super) fn finish(mut self) -> Result<(), TabularError> {
        self.begin()?;
        self.output.finish().map_err(TabularError::io(&self.path))
    }

    /// Writes what stands above the rows, once.
    fn begin(&mut self) -> Result<(), TabularError> {
        if std::mem::replace(&mut self.has_begun, true) || self.format == Format::Jsonl {
            return Ok(());
        }
        let notes = if self.format == Format::Tsv { &self.header.notes[..] } else { &[] };
        for (name, value) in notes {
            let _ = writeln!(self.line, "# {name}\t{value}");
        }
        let separator = if self.format == Format::Csv { ',' } else { '\t' };
        for (number, column) in self.header.columns.iter().enumerate() {
            if number > 0 {
                self.line.push(separator);
            }
            if self.format == Format::Csv {
                push_quoted(&mut self.line, &column.name);
            } else {
                self.line.push_str(&column.name);
            }
        }
        self.line.push('\n');
        self.write_line()
    }

    fn push(&mut self, number: usize, value: Value<'_>) -> Result<(), TabularError> {
        match self.format {
            Format::Jsonl => {
                self.line.push(if number == 0 { '{' } else { ',' });
                self.line.push_str(&self.keys[number]);
            }
            Format::Csv if number > 0 => self.line.push(','),
            _ if number > 0 => self.line.push('\t'),
            _ => {}
        }
        match value {
            Value::Text(text) => match self.format {
                Format::Jsonl => drop(write!(self.line, "{}", serde_json::Value::from(text))),
                Format::Csv => push_quoted(&mut self.line, text),
                _ if tears(text) => {
                    let column = self.header.columns[number].name.clone();
                    return Err(TabularError::Torn { path: self.path.clone(), column, row: self.rows });
                }
                _ => self.line.push_str(text),
            },
            Value::Integer(value) => drop(write!(self.line, "{value}")),
            Value::Number(value) if self.format != Format::Jsonl || value.is_finite() => {
                let _ = write!(self.line, "{}", Shortest(value));
            }
            Value::Number(_) | Value::Missing => {
                if self.format == Format::Jsonl {
                    self.line.push_str("null");
                }
            }
        }
        Ok(())
    }

    fn write_line(&mut self) -> Result<(), TabularError> {
        let written = self.output.write_all(self.line.as_bytes());
        self.line.clear();
        written.map_err(TabularError::io(&self.path))
    }
}

/// Whether a text cannot stand in a cell that nothing quotes.
fn tears(text: &str) -> bool {
    text.contains(['\t', '\n', '\r'])
}

/// Appends a cell of CSV, in quotes where it would be read as something else.
fn push_quoted(line: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}
