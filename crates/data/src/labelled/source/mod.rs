//! The cells of a file, row by row, whatever its format.

mod delimited;
mod jsonl;
mod parquet;

use std::{path::Path, sync::Arc};

use super::{ColumnFault, Format, LabelledError, Unit, format::Content};
use crate::input::{InputDigest, InputError, Lines, Text, Watch};
use delimited::Delimited;
use jsonl::Jsonl;
use parquet::Parquet;

/// One row: the cells of the columns that were chosen.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// The line where the row starts, or the row, counted from 1.
    pub(super) number: u64,
    /// In the order chosen, without blanks around them; a missing cell is empty.
    pub(super) cells: Vec<Vec<u8>>,
}

impl Cells {
    /// Makes room for a row; the memory of the last is used again.
    fn begin(&mut self, number: u64, cells: usize) {
        self.number = number;
        self.cells.resize_with(cells, Vec::new);
    }

    fn set(&mut self, index: usize, text: &[u8]) {
        self.cells[index].clear();
        self.cells[index].extend_from_slice(text.trim_ascii());
    }
}

/// A file, opened.
pub(super) struct Source {
    pub(super) watch: Watch,
    rows: RowReader,
}

enum RowReader {
    Delimited(Box<Delimited>),
    Jsonl(Box<Jsonl>),
    Parquet(Box<Parquet>),
}

/// Most bytes of a cell, and of a row of text: the longest sequences that tables hold are windows of genomes, and this is a whole one of
/// a yeast twice over. What is read beside it, such as the places of its cells, takes several times as much.
pub(in crate::labelled) const MOST_CELL: usize = 1 << 25;
/// Most columns of a file.
const MOST_COLUMNS: usize = 1 << 16;
/// Longest first line that is looked at to tell a format.
pub(crate) const FIRST_LINE: usize = 1 << 16;

impl Source {
    /// Begins to read rows in the format that is given, or else in that which the text begins like.
    ///
    /// `choose` is told the names of all columns, and says which of them are read.
    pub(super) fn start(
        path: &Path,
        mut text: Text,
        watch: Watch,
        format: Option<Format>,
        choose: impl FnOnce(&Arc<str>, &[String]) -> Result<Vec<usize>, LabelledError>,
    ) -> Result<Self, LabelledError> {
        let file = &watch.file;
        let first_line = text.first_line(FIRST_LINE).map_err(|error| watch.explain(error))?;
        let content = format.map_or_else(|| Content::detect(first_line, path), Content::Table);
        if content != Content::Table(Format::Parquet) && first_line.iter().any(|byte| is_binary(*byte)) {
            return Err(LabelledError::Binary { file: file.clone() });
        }
        let choose = |names: &[String]| match names {
            [] => Err(LabelledError::Empty { file: file.clone() }),
            names if names.len() > MOST_COLUMNS => {
                let fault = ColumnFault::TooMany { found: names.len(), most: MOST_COLUMNS };
                Err(LabelledError::Columns { file: file.clone(), fault })
            }
            names => choose(file, names),
        };
        let format = match content {
            Content::JsonArray => return Err(LabelledError::JsonArray { file: file.clone() }),
            Content::Fasta | Content::Fastq => {
                return Err(LabelledError::NoTable { file: file.clone(), found: content.to_string() });
            }
            Content::Table(format) => format,
        };
        let rows = match format {
            Format::Csv => RowReader::Delimited(Box::new(Delimited::open(text, &watch, b',', choose)?)),
            Format::Tsv => RowReader::Delimited(Box::new(Delimited::open(text, &watch, b'\t', choose)?)),
            Format::Jsonl => RowReader::Jsonl(Box::new(Jsonl::open(Lines::new(text), &watch, choose)?)),
            Format::Parquet => RowReader::Parquet(Box::new(Parquet::open(path, text, &watch, choose)?)),
        };
        Ok(Self { watch, rows })
    }

    /// What the rows are counted in.
    pub(super) fn unit(&self) -> Unit {
        match &self.rows {
            RowReader::Delimited(_) | RowReader::Jsonl(_) => Unit::Line,
            RowReader::Parquet(_) => Unit::Row,
        }
    }

    /// Reads the next row; false if there is none.
    pub(super) fn read(&mut self, row: &mut Cells) -> Result<bool, LabelledError> {
        match &mut self.rows {
            RowReader::Delimited(rows) => rows.read(row, &self.watch),
            RowReader::Jsonl(rows) => rows.read(row, &self.watch),
            RowReader::Parquet(rows) => rows.read(row, &self.watch),
        }
    }

    /// Goes back to the first row, where that can be done; whether it was.
    pub(super) fn rewind(&mut self) -> Result<bool, LabelledError> {
        match &mut self.rows {
            RowReader::Delimited(_) | RowReader::Jsonl(_) => Ok(false),
            RowReader::Parquet(rows) => rows.rewind(&self.watch).map(|()| true),
        }
    }

    /// Checks that the input ended where it should and sums it up; to be called when all rows have been read.
    pub(super) fn finish(self, rows: u64, bases: u64) -> Result<InputDigest, InputError> {
        self.watch.finish(rows, bases)
    }
}

/// Whether no text has such a byte.
fn is_binary(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' | b'\x1b')
}
