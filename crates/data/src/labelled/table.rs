//! A whole file of sequences with labels as written: what is compared, divided and learned from before labels have a meaning.

use std::path::Path;

use super::{ColumnRequest, Format, LabelledError, Place, Rows, reader::Reader, rows::Texts};
use crate::input::InputDigest;

/// Sequences with labels as written.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) rows: Rows,
    /// Names of the columns of labels.
    pub(super) columns: Vec<String>,
    /// `[rows, columns]`.
    labels: Texts,
}

impl Table {
    /// Reads a file, or standard input for `-`.
    pub(super) fn read(
        path: &Path,
        format: Option<Format>,
        request: &ColumnRequest,
    ) -> Result<(Self, InputDigest), LabelledError> {
        let mut reader = Reader::open(path, format, request, true)?;
        let mut table =
            Self { rows: reader.no_rows(), columns: reader.taken().label.clone(), labels: Texts::default() };
        while reader.read(&mut table.rows, &mut table.labels)? {}
        let digest = reader.finish()?;
        if table.rows.is_empty() {
            let Rows { file, left_out, .. } = table.rows;
            return Err(match left_out.rows() {
                0 => LabelledError::Empty { file },
                _ => LabelledError::AllLeftOut { file, left_out },
            });
        }
        Ok((table, digest))
    }

    /// The labels of one row, one per column.
    pub(super) fn labels(&self, row: usize) -> impl Iterator<Item = &str> {
        let columns = self.columns.len();
        (row * columns..(row + 1) * columns).map(|number| self.labels.get(number))
    }

    /// Every label, row by row, with its row and column.
    pub(super) fn cells(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        let columns = self.columns.len();
        self.labels.iter().enumerate().map(move |(number, label)| (number / columns, number % columns, label))
    }

    /// Where a row stands in its file.
    pub(super) fn place(&self, row: usize) -> Place {
        self.rows.place(row)
    }

    /// Some of the rows, in the order given.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        let labels = rows.iter().flat_map(|&row| self.labels(row)).collect();
        Self { rows: self.rows.select(rows), columns: self.columns.clone(), labels }
    }
}
