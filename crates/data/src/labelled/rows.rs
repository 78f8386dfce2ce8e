//! Sequences with their names, held compactly: a data set may have hundreds of thousands.

use std::{fmt, sync::Arc};

use super::{CellFault, TakenColumns};
use crate::{
    alphabet::{Letter, classify},
    fasta::LetterFault,
};

/// What a file is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines, of text.
    Line,
    /// Rows, of a table that has no lines.
    Row,
}

/// A row of a file, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is counted.
    pub unit: Unit,
    /// The line where the row starts, or the row, counted from 1.
    pub number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(f, "{unit} {}", self.number)
    }
}

/// One sequence, or a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Its name, or else its number among the rows of the file, counted from 1.
    pub id: &'a str,
    /// The letters as read: case kept, U and IUPAC codes too.
    pub sequence: &'a [u8],
    /// The other sequence of a pair.
    pub second: Option<&'a [u8]>,
}

/// Rows of one file, without labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The file, as messages name it.
    pub file: Arc<str>,
    /// The columns that they were read from.
    pub columns: Arc<TakenColumns>,
    unit: Unit,
    places: Vec<u64>,
    ids: Texts,
    sequences: Texts,
    seconds: Option<Texts>,
}

impl Rows {
    pub(super) fn new(file: Arc<str>, unit: Unit, columns: Arc<TakenColumns>) -> Self {
        let (places, ids, sequences) = (Vec::new(), Texts::default(), Texts::default());
        let seconds = columns.are_pairs().then(Texts::default);
        Self { file, columns, unit, places, ids, sequences, seconds }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether each row has two sequences.
    #[must_use]
    pub fn are_pairs(&self) -> bool {
        self.seconds.is_some()
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> Row<'_> {
        let second = self.seconds.as_ref().map(|seconds| seconds.get(row).as_bytes());
        Row { id: self.ids.get(row), sequence: self.sequences.get(row).as_bytes(), second }
    }

    /// All rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Where a row stands in its file.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn place(&self, row: usize) -> Place {
        Place { unit: self.unit, number: self.places[row] }
    }

    /// Letters of each row, those of a pair together.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.iter().map(|row| row.sequence.len() + row.second.map_or(0, <[u8]>::len)).collect()
    }

    /// Letters of all rows.
    #[must_use]
    pub fn bases(&self) -> usize {
        self.sequences.text.len() + self.seconds.as_ref().map_or(0, |seconds| seconds.text.len())
    }

    /// Some of the rows, in the order given.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let texts = |texts: &Texts| rows.iter().map(|&row| texts.get(row)).collect();
        Self {
            file: self.file.clone(),
            columns: self.columns.clone(),
            unit: self.unit,
            places: rows.iter().map(|&row| self.places[row]).collect(),
            ids: texts(&self.ids),
            sequences: texts(&self.sequences),
            seconds: self.seconds.as_ref().map(texts),
        }
    }

    /// Adds a row; its sequences must have been [checked](check_letters).
    pub(super) fn push(&mut self, number: u64, id: &str, sequence: &str, second: Option<&str>) {
        self.places.push(number);
        self.ids.push(id);
        self.sequences.push(sequence);
        if let (Some(seconds), Some(second)) = (&mut self.seconds, second) {
            seconds.push(second);
        }
    }
}

/// Checks that a sequence is one of nucleotides, and not empty.
pub(super) fn check_letters(sequence: &[u8]) -> Result<(), CellFault> {
    if sequence.is_empty() {
        return Err(CellFault::Empty);
    }
    match sequence.iter().position(|&letter| classify(letter) == Letter::Invalid) {
        Some(index) => {
            let letter = sequence[index];
            Err(CellFault::Letter { position: index + 1, letter, fault: LetterFault::of(letter) })
        }
        None => Ok(()),
    }
}

/// Many short texts, end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    pub(super) fn get(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[number]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|number| self.get(number))
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        texts.into_iter().fold(Self::default(), |mut all, text| {
            all.push(text);
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_and_selected() {
        let columns = TakenColumns { sequence: vec!["a".into(), "b".into()], ..TakenColumns::default() };
        let mut rows = Rows::new("x.csv".into(), Unit::Line, columns.into());
        rows.push(2, "a", "ACGT", Some("TT"));
        rows.push(3, "b", "nnR", Some("G"));
        rows.push(5, "c", "U", Some("CC"));
        assert_eq!(rows.get(1), Row { id: "b", sequence: b"nnR", second: Some(b"G") });
        assert_eq!((rows.lengths(), rows.bases()), (vec![6, 4, 3], 13));
        assert_eq!(rows.place(2).to_string(), "line 5");
        let some = rows.select(&[2, 0]);
        assert_eq!(some.iter().map(|row| row.id).collect::<Vec<_>>(), ["c", "a"]);
        assert_eq!((some.place(0).number, some.get(1)), (5, rows.get(0)));
        assert!(rows.select(&[]).is_empty());
    }

    #[test]
    fn only_nucleotides_are_sequences() {
        for good in ["A", "acgtuACGTU", "NRYSWKMBDHVnryswkmbdhv"] {
            assert_eq!(check_letters(good.as_bytes()), Ok(()));
        }
        let message = |text: &str| check_letters(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(message(""), "has no value");
        assert_eq!(message("ACGX"), "letter 4: `X` is no nucleotide; is this a protein?");
        assert_eq!(message("AC-GT"), "letter 3: `-` is a gap; remove gaps from aligned sequences");
        assert_eq!(message("AC GT"), "letter 3: ` ` is no nucleotide; is this a protein?");
    }
}
