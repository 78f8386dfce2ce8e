//! Sequences with what is true of them.

use std::path::Path;

use super::{ColumnNames, ColumnRequest, Format, LabelledError, Labelling, Rows, table::Table};
use crate::{
    input::InputDigest,
    segment::{Counts, Policy},
};

/// Sequences with what is true of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The sequences.
    pub rows: Rows,
    /// What is true of each, in the same order.
    pub targets: Targets,
}

impl Set {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Some of the rows, in the order given.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { rows: self.rows.select(rows), targets: self.targets.select(rows) }
    }

    /// The parts of the sequences that letter policies keep as rows of their own, which have the name, the place and the target of
    /// their sequence; and for each part the number of that row. Rows of which nothing is kept are left out. What the policies saw is
    /// added to `counts`.
    ///
    /// # Errors
    /// As [`Rows::kept`].
    pub fn cut(self, letters: Policy, counts: &mut Counts) -> Result<(Self, Vec<usize>), LabelledError> {
        let (mut parts, mut is_whole) = (Vec::with_capacity(self.len()), true);
        for row in 0..self.len() {
            let kept = self.rows.kept(row, letters, counts)?;
            is_whole &= matches!(&kept[..], [part] if part.len() == self.rows.get(row).sequence.len());
            parts.extend(kept.into_iter().map(|part| (row, part)));
        }
        let of: Vec<usize> = parts.iter().map(|(row, _)| *row).collect();
        if is_whole {
            return Ok((self, of));
        }
        Ok((Self { rows: self.rows.parts(&parts), targets: self.targets.select(&of) }, of))
    }
}

/// What is true of the rows of a set.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The number of each row's class.
    Classes(Vec<u32>),
    /// Whether each label applies.
    Labels {
        /// Number of labels.
        labels: usize,
        /// `[rows, labels]`.
        values: Vec<bool>,
    },
    /// Numbers as read, not standardized.
    Values {
        /// Number of targets.
        targets: usize,
        /// `[rows, targets]`.
        values: Vec<f64>,
    },
}

/// What is true of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// The number of its class.
    Class(u32),
    /// Whether each label applies.
    Labels(&'a [bool]),
    /// A number for each target, as read.
    Values(&'a [f64]),
}

impl Targets {
    /// What is true of one row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> Target<'_> {
        match self {
            Self::Classes(classes) => Target::Class(classes[row]),
            Self::Labels { labels, values } => Target::Labels(&values[row * labels..][..*labels]),
            Self::Values { targets, values } => Target::Values(&values[row * targets..][..*targets]),
        }
    }

    /// What is true of some of the rows, in the order given.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        fn of<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
        }
        match self {
            Self::Classes(classes) => Self::Classes(of(classes, 1, rows)),
            Self::Labels { labels, values } => Self::Labels { labels: *labels, values: of(values, *labels, rows) },
            Self::Values { targets, values } => Self::Values { targets: *targets, values: of(values, *targets, rows) },
        }
    }
}

/// Reads a file, or standard input for `-`, whose labels mean what they mean in the training set.
///
/// The labels are read from the columns of the training set, the sequences from those of `request`.
///
/// # Errors
/// If the file cannot be read, lacks a column, or holds a sequence or a label that cannot be used.
pub fn read(
    path: &Path,
    format: Option<Format>,
    request: &ColumnRequest,
    labelling: &Labelling,
) -> Result<(Set, InputDigest), LabelledError> {
    let names = ColumnNames { sequence: request.names.sequence.clone(), label: labelling.columns().to_vec() };
    let request = ColumnRequest { names, ..request.clone() };
    let (table, digest) = Table::read(path, format, &request)?;
    Ok((labelling.apply(table)?, digest))
}

/// Weights that make all classes count alike in a loss: `n / (k nₖ)` for k classes, of which this one has nₖ of n rows. A class
/// without rows has weight 0.
///
/// # Panics
/// If a class is not below `count`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers of rows")]
pub fn class_weights(classes: &[u32], count: usize) -> Vec<f64> {
    let mut rows = vec![0_usize; count];
    for &class in classes {
        rows[class as usize] += 1;
    }
    let weight = |rows: usize| if rows == 0 { 0.0 } else { classes.len() as f64 / (count as f64 * rows as f64) };
    rows.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn weights_make_classes_count_alike() {
        let weights = class_weights(&[0, 0, 0, 1, 1, 2], 3);
        assert_eq!(weights, [2.0 / 3.0, 1.0, 2.0]);
        assert_eq!(class_weights(&[1, 1], 2), [0.0, 0.5]);
        assert!(class_weights(&[], 0).is_empty());
    }

    #[test]
    fn a_set_is_read_by_the_labelling_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        fs::write(&path, "name\tguide\ty\tother\nfirst\tACGT\thigh\t1\nsecond\tnnAC\tlow\t2\n").unwrap();
        let classes = ["low", "high"].map(str::to_owned).to_vec();
        let labelling = Labelling::Classes { column: "y".into(), classes };
        let names = ColumnNames { sequence: vec!["guide".into()], ..ColumnNames::default() };
        let (set, digest) = read(&path, None, &names.into(), &labelling).unwrap();
        assert_eq!(set.targets, Targets::Classes(vec![1, 0]));
        assert_eq!((set.len(), set.rows.get(1).id, set.rows.get(1).sequence), (2, "second", &b"nnAC"[..]));
        assert_eq!((digest.records, digest.bases), (2, 8));
    }

    #[test]
    fn parts_are_rows_with_the_target_of_their_sequence() {
        use crate::alphabet::AmbiguousPolicy;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        fs::write(&path, "id,sequence,label\na,ACNNGT,x\nb,NN,y\nc,TT,y\n").unwrap();
        let classes = ["x", "y"].map(str::to_owned).to_vec();
        let labelling = Labelling::Classes { column: "label".into(), classes };
        let set = || read(&path, None, &ColumnRequest::default(), &labelling).unwrap().0;
        let mut counts = Counts::default();
        let (whole, of) = set().cut(Policy::default(), &mut counts).unwrap();
        assert_eq!((whole, of, counts.records, counts.ambiguous), (set(), vec![0, 1, 2], 3, 4));
        let split = Policy { ambiguous: AmbiguousPolicy::Split, ..Policy::default() };
        let (parts, of) = set().cut(split, &mut counts).unwrap();
        let rows: Vec<_> = parts.rows.iter().map(|row| (row.id, row.sequence)).collect();
        assert_eq!(rows, [("a", &b"AC"[..]), ("a", b"GT"), ("c", b"TT")]);
        assert_eq!((of, parts.targets), (vec![0, 0, 2], Targets::Classes(vec![0, 0, 1])));
        assert_eq!(parts.rows.place(1).number, 2);
        let error = Policy { ambiguous: AmbiguousPolicy::Error, ..split };
        let message = set().cut(error, &mut counts).unwrap_err().to_string();
        assert!(message.contains("x.csv, line 2, column `sequence`: letter 3: `N` is ambiguous"), "{message}");
    }

    #[test]
    fn targets_are_found_by_row() {
        let labels = Targets::Labels { labels: 2, values: vec![true, false, false, true] };
        assert_eq!(labels.get(1), Target::Labels(&[false, true]));
        let values = Targets::Values { targets: 1, values: vec![0.5, 2.0] };
        assert_eq!(values.get(1), Target::Values(&[2.0]));
    }
}
