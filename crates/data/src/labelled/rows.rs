//! Sequences with their names, held compactly: a data set may have hundreds of thousands.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use super::{CellFault, LabelledError, LeftOut, TakenColumns};
use crate::{
    alphabet::{Letter, classify},
    fasta::LetterFault,
    segment::{self, Counts, Policy, Unusable},
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
    /// The letters as read: case kept, U and IUPAC codes too. Never empty in a labelled set; elsewhere a row may have none.
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
    /// Rows of the file that were passed over while these were read.
    pub left_out: LeftOut,
    unit: Unit,
    places: Vec<u64>,
    ids: Texts,
    sequences: Texts,
    seconds: Option<Texts>,
    /// The cells of each column that is carried along.
    carried: Vec<Texts>,
}

impl Rows {
    pub(super) fn new(file: Arc<str>, unit: Unit, columns: Arc<TakenColumns>) -> Self {
        let (places, ids, sequences) = (Vec::new(), Texts::default(), Texts::default());
        let seconds = columns.are_pairs().then(Texts::default);
        let (left_out, carried) = (LeftOut::default(), Vec::new());
        Self { file, columns, left_out, unit, places, ids, sequences, seconds, carried }
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

    /// The cells of a row that are [carried along](super::Carry), left to right; empty where there is nothing.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn carried(&self, row: usize) -> impl Iterator<Item = &str> {
        self.carried.iter().map(move |texts| texts.get(row))
    }

    /// Bytes of all cells that are carried along.
    pub(super) fn carried_bytes(&self) -> usize {
        self.carried.iter().map(|texts| texts.text.len()).sum()
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
            left_out: LeftOut::default(),
            unit: self.unit,
            places: rows.iter().map(|&row| self.places[row]).collect(),
            ids: texts(&self.ids),
            sequences: texts(&self.sequences),
            seconds: self.seconds.as_ref().map(texts),
            carried: self.carried.iter().map(texts).collect(),
        }
    }

    /// Parts of rows as rows of their own, in the order given; a pair is taken whole.
    ///
    /// # Panics
    /// If there is no such row, or no such part of it.
    #[must_use]
    pub(super) fn parts(&self, parts: &[(usize, Range<usize>)]) -> Self {
        let rows: Vec<usize> = parts.iter().map(|(row, _)| *row).collect();
        let sequences = parts.iter().map(|(row, part)| &self.sequences.get(*row)[part.clone()]).collect();
        Self { sequences, ..self.select(&rows) }
    }

    /// What letter policies keep of a row's sequence, as sorted parts of it, none of a row without letters; adds what they saw to
    /// `counts`. A pair is kept whole or not at all.
    ///
    /// # Errors
    /// If a letter is ambiguous where the policy forbids it, or a pair would be cut.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn kept(&self, row: usize, letters: Policy, counts: &mut Counts) -> Result<Vec<Range<usize>>, LabelledError> {
        let at_cell = |index: usize, fault| LabelledError::Cell {
            file: self.file.clone(),
            place: self.place(row),
            column: self.columns.sequence.get(index).cloned().unwrap_or_default(),
            fault,
        };
        let seen = |index, sequence: &[u8], counts: &mut Counts| {
            segment::kept(sequence, letters, counts).map_err(|Unusable { position, letter, fault }| {
                at_cell(index, CellFault::Letter { position: position + 1, letter, fault })
            })
        };
        let Row { sequence, second, .. } = self.get(row);
        let mut found = Counts::default();
        let mut parts = seen(0, sequence, &mut found)?;
        if let Some(second) = second {
            let other = seen(1, second, &mut found)?;
            for (index, (parts, sequence)) in [(&parts, sequence), (&other, second)].into_iter().enumerate() {
                if parts.iter().map(Range::len).sum::<usize>() != sequence.len() {
                    return Err(at_cell(index, CellFault::CutPair));
                }
            }
            if other.is_empty() {
                parts.clear();
            }
            (found.records, found.empty_records) = (1, found.empty_records.min(1));
        }
        *counts += found;
        Ok(parts)
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

    /// Adds the cells that are carried along with the row that was added last.
    pub(super) fn carry(&mut self, cells: &[Cow<'_, str>]) {
        self.carried.resize_with(cells.len(), Texts::default);
        self.carried.iter_mut().zip(cells).for_each(|(texts, cell)| texts.push(cell));
    }
}

/// Checks that a sequence is one of nucleotides; one without letters is.
pub(super) fn check_letters(sequence: &[u8]) -> Result<(), CellFault> {
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
    fn policies_keep_parts_of_rows_and_never_of_pairs() {
        use crate::alphabet::{AmbiguousPolicy, SoftMaskPolicy};
        let rows = |pairs: &[(&str, &str)]| {
            let names = ["first", "second"].map(str::to_owned).to_vec();
            let columns = TakenColumns { sequence: names, ..TakenColumns::default() };
            let mut rows = Rows::new("x.csv".into(), Unit::Line, columns.into());
            (2..).zip(pairs).for_each(|(line, (first, second))| rows.push(line, "a", first, Some(second)));
            rows
        };
        let split = Policy { ambiguous: AmbiguousPolicy::Split, soft_mask: SoftMaskPolicy::Keep };
        let (mut counts, all) = (Counts::default(), rows(&[("ACNGT", "TT"), ("AC", "nGn"), ("", "A"), ("A", "C")]));
        let message = |row, letters| all.kept(row, letters, &mut Counts::default()).unwrap_err().to_string();
        assert!(message(0, split).starts_with("x.csv, line 2, column `first`: holds letters that a policy cuts out"));
        assert!(message(1, split).starts_with("x.csv, line 3, column `second`: holds letters"));
        let error = Policy { ambiguous: AmbiguousPolicy::Error, ..split };
        assert!(message(1, error).starts_with("x.csv, line 3, column `second`: letter 1: `n` is ambiguous"));
        for (row, expected) in [(0, Some(0..5)), (1, Some(0..2)), (2, None), (3, Some(0..1))] {
            let kept = all.kept(row, Policy::default(), &mut counts).unwrap();
            assert!(kept.into_iter().eq(expected));
        }
        let expected = Counts {
            records: 4,
            empty_records: 1,
            bases: 15,
            ambiguous: 3,
            soft_masked: 2,
            segments: 7,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
        let single = Rows { columns: TakenColumns::default().into(), seconds: None, ..all };
        assert_eq!(single.kept(0, split, &mut counts).unwrap(), [0..2, 3..5]);
    }

    #[test]
    fn only_nucleotides_are_sequences() {
        for good in ["", "A", "acgtuACGTU", "NRYSWKMBDHVnryswkmbdhv"] {
            assert_eq!(check_letters(good.as_bytes()), Ok(()));
        }
        let message = |text: &str| check_letters(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(message("ACGX"), "letter 4: `X` is not a nucleotide code; is this a protein?");
        assert_eq!(message("AC-GT"), "letter 3: `-` is a gap; remove gaps from aligned sequences");
        assert_eq!(message("AC GT"), "letter 3: ` ` is not a nucleotide code; is this a protein?");
    }
}
