//! Rows of a file, checked: sequences of nucleotides, and labels as written.

use std::{borrow::Cow, path::Path, sync::Arc};

use super::{
    CellFault, ColumnRequest, Format, LabelledError, Missing, Place, Rows, TakenColumns,
    columns::Columns,
    label::{is_missing, plain},
    rows::{Texts, check_letters},
    source::{Cells, Source},
};
use crate::input::{self, InputDigest, Text, Watch, readable};

/// Most bytes of a name or a label, which stand in every table about the row.
const MOST_NAME: usize = 1 << 12;
/// From so many bytes on, a file must be worth them.
const MUCH: u64 = 1 << 28;
/// Bytes for each of the file; even sequences that are nearly alike are packed less.
const TIMES: u64 = 200;

/// Reads the rows of one file.
pub(super) struct Reader {
    source: Source,
    columns: Columns,
    taken: Arc<TakenColumns>,
    /// Names of the columns that are read, in the order of the cells.
    names: Vec<String>,
    wants_labels: bool,
    missing: Missing,
    cells: Cells,
    rows: u64,
    bases: u64,
    /// What the rows so far would take in memory.
    bytes: u64,
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
        let missing = request.missing;
        let mut reader = Self {
            source,
            columns,
            taken,
            names,
            wants_labels,
            missing,
            cells: Cells::default(),
            rows: 0,
            bases: 0,
            bytes: 0,
        };
        if !wants_labels {
            reader.check_beforehand()?;
        }
        Ok(reader)
    }

    /// The columns that are read.
    pub(super) fn taken(&self) -> &Arc<TakenColumns> {
        &self.taken
    }

    /// Names of the columns that are carried along.
    pub(super) fn carried(&self) -> &[String] {
        &self.names[self.names.len() - self.columns.carried.len()..]
    }

    /// Rows to read into.
    pub(super) fn no_rows(&self) -> Rows {
        Rows::new(self.source.watch.file.clone(), self.source.unit(), self.taken.clone())
    }

    /// Reads the next row that is of use and adds it to `rows`, its labels to `labels`; false if there is none.
    ///
    /// Rows that are left out are counted in `rows`.
    pub(super) fn read(&mut self, rows: &mut Rows, labels: &mut Texts) -> Result<bool, LabelledError> {
        while self.source.read(&mut self.cells)? {
            self.rows += 1;
            self.check_swollen()?;
            if self.add(rows, labels)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds the row of the cells, unless it is left out.
    fn add(&mut self, rows: &mut Rows, labels: &mut Texts) -> Result<bool, LabelledError> {
        let number = self.rows.to_string();
        let (mut sequences, mut id) = ([""; 2], Cow::Borrowed(number.as_str()));
        let mut found: Vec<Cow<'_, str>> = Vec::with_capacity(self.columns.labels.len());
        let mut carried: Vec<Cow<'_, str>> = Vec::with_capacity(self.columns.carried.len());
        let mut has_labels = true;
        let (sequence_count, has_id) = (self.columns.sequences.len(), self.columns.id.is_some());
        let first_carried = self.names.len() - self.columns.carried.len();
        for (index, cell) in self.cells.cells.iter().enumerate() {
            let at_cell = |fault| {
                let place = Place { unit: self.source.unit(), number: self.cells.number };
                let file = self.source.watch.file.clone();
                LabelledError::Cell { file, place, column: self.names[index].clone(), fault }
            };
            if index < sequence_count {
                check_letters(cell).map_err(at_cell)?;
                sequences[index] = text(cell).map_err(at_cell)?;
            } else if cell.len() > MOST_NAME {
                return Err(at_cell(CellFault::TooLong { length: cell.len(), most: MOST_NAME }));
            } else if index >= first_carried || (index == sequence_count && has_id) {
                let name = readable(cell);
                if name.contains(char::is_control) {
                    return Err(at_cell(CellFault::Control { found: name.into_owned() }));
                }
                if index >= first_carried {
                    carried.push(name);
                } else if !name.is_empty() {
                    id = name;
                }
            } else {
                let label = text(cell).map_err(at_cell)?;
                match self.missing {
                    Missing::Drop if is_missing(label) => has_labels = false,
                    Missing::Keep if !label.is_empty() && is_missing(label) => found.push(label.into()),
                    _ if is_missing(label) => return Err(at_cell(CellFault::Missing { found: label.to_owned() })),
                    _ => found.push(plain(label).map_err(at_cell)?),
                }
            }
        }
        let has_sequences = sequences[..sequence_count].iter().all(|sequence| !sequence.is_empty());
        if self.wants_labels && !has_sequences {
            rows.left_out.without_sequence += 1;
            return Ok(false);
        }
        if !has_labels {
            rows.left_out.without_label += 1;
            return Ok(false);
        }
        for label in &found {
            labels.push(label);
        }
        self.bases += sequences.iter().map(|sequence| sequence.len() as u64).sum::<u64>();
        rows.push(self.cells.number, &id, sequences[0], Some(sequences[1]));
        rows.carry(&carried);
        Ok(true)
    }

    /// Reads a small file once before its rows are used, where it can be read again: a model that works on them row by row would take hours
    /// to meet the one that is too much.
    fn check_beforehand(&mut self) -> Result<(), LabelledError> {
        if self.source.watch.bytes() > MUCH / TIMES || !self.source.rewind()? {
            return Ok(());
        }
        while self.source.read(&mut self.cells)? {
            self.check_swollen()?;
        }
        self.bytes = 0;
        self.source.rewind().map(drop)
    }

    /// Refuses a small file that unpacks to no end: one repeated text may fill any memory.
    fn check_swollen(&mut self) -> Result<(), LabelledError> {
        /// What a row takes beside its text.
        const ROW: u64 = 48;
        self.bytes += ROW + self.cells.cells.iter().map(|cell| cell.len() as u64).sum::<u64>();
        if self.bytes < MUCH {
            return Ok(());
        }
        let times = self.bytes / self.source.watch.bytes().max(1);
        if times <= TIMES {
            return Ok(());
        }
        let place = Place { unit: self.source.unit(), number: self.cells.number };
        Err(LabelledError::Swollen { file: self.source.watch.file.clone(), place, times })
    }

    /// Sums up what was read; to be called when all rows have been read.
    pub(super) fn finish(self) -> Result<InputDigest, LabelledError> {
        Ok(self.source.finish(self.rows, self.bases)?)
    }
}

fn text(cell: &[u8]) -> Result<&str, CellFault> {
    str::from_utf8(cell).map_err(|error| {
        let position = error.valid_up_to();
        CellFault::NotText { position: position + 1, byte: cell[position] }
    })
}
