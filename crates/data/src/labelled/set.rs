//! Sequences with what is true of them.

use std::path::Path;

use super::{ColumnNames, ColumnRequest, Format, LabelledError, Labelling, Rows, table::Table};
use crate::input::InputDigest;

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
    fn targets_are_found_by_row() {
        let labels = Targets::Labels { labels: 2, values: vec![true, false, false, true] };
        assert_eq!(labels.get(1), Target::Labels(&[false, true]));
        let values = Targets::Values { targets: 1, values: vec![0.5, 2.0] };
        assert_eq!(values.get(1), Target::Values(&[2.0]));
    }
}
