//! Rows of a file, checked: sequences of nucleotides, and labels as written.

use std::{path::Path, sync::Arc};

use super::{
    CellFault, ColumnRequest, Format, LabelledError, Place, Rows, TakenColumns,
    columns::Columns,
    rows::{Texts, check_letters},
    source::{Cells, Source},
};
use crate::input::{self, InputDigest, Text, Watch};

/// Reads the rows of one file.
pub(super) struct Reader {
    source: Source,
    columns: Columns,
    taken: Arc<TakenColumns>,
    /// Names of the columns that are read, in the order of the cells.
    names: Vec<String>,
    cells: Cells,
    rows: u64,
    bases: u64,
}

impl Reader {
    pub(super) fn open(
        path: &Path,
        format: Option<Format>,
        request: &ColumnRequest,
        wants_labels: bool,
    ) -> Result<Self, LabelledError> {
        let (text, watch) = input::open(path)?;
        Self::start(path, text, watch, format, request, wants_labels)
    }

    /// The same of an input that was opened.
    pub(super) fn start(
        path: &Path,
        text: Text,
        watch: Watch,
        format: Option<Format>,
        request: &ColumnRequest,
        wants_labels: bool,
    ) -> Result<Self, LabelledError> {
        let mut found = None;
        let source = Source::start(path, text, watch, format, |file, header| {
            let columns = Columns::find(file, header, request, wants_labels)?;
            let wanted = columns.wanted();
            let names = wanted.iter().map(|&column| header[column].clone()).collect();
            let taken = Arc::new(columns.taken(header));
            found = Some((columns, taken, names));
            Ok(wanted)
        })?;
        // A source that opens has chosen its columns.
        let (columns, taken, names) = found.ok_or_else(|| LabelledError::Empty { file: source.watch.file.clone() })?;
        Ok(Self { source, columns, taken, names, cells: Cells::default(), rows: 0, bases: 0 })
    }

    /// The columns that are read.
    pub(super) fn taken(&self) -> &Arc<TakenColumns> {
        &self.taken
    }

    /// Rows to read into.
    pub(super) fn no_rows(&self) -> Rows {
        Rows::new(self.source.watch.file.clone(), self.source.unit(), self.taken.clone())
    }

    /// Reads the next row and adds it to `rows`, its labels to `labels`; false if there is none.
    pub(super) fn read(&mut self, rows: &mut Rows, labels: &mut Texts) -> Result<bool, LabelledError> {
        if !self.source.read(&mut self.cells)? {
            return Ok(false);
        }
        self.rows += 1;
        let number = self.rows.to_string();
        let (mut sequences, mut id) = ([""; 2], number.as_str());
        let (sequence_count, has_id) = (self.columns.sequences.len(), self.columns.id.is_some());
        for (index, cell) in self.cells.cells.iter().enumerate() {
            let at_cell = |fault| {
                let place = Place { unit: self.source.unit(), number: self.cells.number };
                let file = self.source.watch.file.clone();
                LabelledError::Cell { file, place, column: self.names[index].clone(), fault }
            };
            if index < sequence_count {
                check_letters(cell).map_err(at_cell)?;
            }
            let text = str::from_utf8(cell).map_err(|_| at_cell(CellFault::NotText))?;
            if index < sequence_count {
                sequences[index] = text;
                self.bases += text.len() as u64;
            } else if index == sequence_count && has_id {
                id = if text.is_empty() { id } else { text };
            } else if text.is_empty() || text.eq_ignore_ascii_case("nan") {
                return Err(at_cell(CellFault::Empty));
            } else {
                labels.push(text);
            }
        }
        rows.push(self.cells.number, id, sequences[0], Some(sequences[1]));
        Ok(true)
    }

    /// Sums up what was read; to be called when all rows have been read.
    pub(super) fn finish(self) -> Result<InputDigest, LabelledError> {
        Ok(self.source.finish(self.rows, self.bases)?)
    }
}
