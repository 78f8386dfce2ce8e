//! A data set in its parts: read, compared, and given one meaning.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    ColumnNames, ColumnRequest, Format, Inferred, LabelledError, Labelling, LeftOut, Missing, Overlap, Parts, Set,
    Task,
    overlap::{assign, rows_of_its_own},
    table::Table,
};
use crate::{
    input::InputDigest,
    segment::PolicyChange,
    split::{Shares, Split},
};

/// How a data set is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Which columns are read.
    pub columns: ColumnNames,
    /// What becomes of letters, where it is another than in the model.
    #[serde(skip_serializing_if = "PolicyChange::is_none")]
    pub letters: PolicyChange,
    /// The task, if it is not to be told from the labels.
    pub task: Option<Task>,
    /// How much is held out where a part has no file of its own; `test` of a lone file only.
    pub held_out: Shares,
    /// Seed of what is held out.
    pub seed: u64,
    /// Whether rows leave the training set whose sequence stands in another part.
    pub dedup: bool,
    /// What becomes of rows without a label.
    pub missing_labels: Missing,
}

impl Default for Options {
    /// A tenth for each part.
    fn default() -> Self {
        let (columns, held_out) = (ColumnNames::default(), Shares { valid: 0.1, test: 0.1 });
        let letters = PolicyChange::default();
        Self { columns, letters, task: None, held_out, seed: 42, dedup: false, missing_labels: Missing::default() }
    }
}

/// A data set in its parts.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What the labels mean, learned from the training set.
    pub labelling: Labelling,
    /// What is learned from.
    pub train: Set,
    /// What is watched while learning; absent if nothing is held out, or no row fell to it.
    pub dev: Option<Set>,
    /// What is kept away until the end; absent as above, and for a folder without it.
    pub test: Option<Set>,
    /// What the parts share, before any row was removed.
    pub overlap: Overlap,
    /// Rows that left the training set because another part has their sequence.
    pub removed: usize,
    /// Rows that are in no part, because they lack a label or a sequence.
    pub left_out: LeftOut,
    /// What numbers were taken for, if the task was inferred from them and another could have been meant.
    pub inferred: Option<Inferred>,
    /// What was read from each file.
    pub digests: Vec<InputDigest>,
}

impl Splits {
    /// Reads the data set at a path: a folder with `train`, `dev` and `test`, a file, or `-` for standard input.
    ///
    /// # Errors
    /// As [`Parts::find`] and [`Splits::of`].
    pub fn read(path: &Path, options: &Options) -> Result<Self, LabelledError> {
        Self::of(&Parts::find(path)?, None, options)
    }

    /// Reads the data set in the given files, all of one format if it is given; if not, each is told by its name, or else by how
    /// it begins.
    ///
    /// # Errors
    /// If a file cannot be read, lacks a column, or holds a sequence or a label that cannot be used; if `dev` or `test` has a label
    /// that the training set does not, or pairs where that has none; if the training set has no rows, or one label only; if the
    /// shares to hold out are no shares.
    pub fn of(parts: &Parts, format: Option<Format>, options: &Options) -> Result<Self, LabelledError> {
        options.held_out.check()?;
        let (mut tables, left_out, digests) = Tables::read(parts, format, options)?;
        let overlap = Overlap::of(&tables.train, tables.dev.as_ref(), tables.test.as_ref());
        let removed = if options.dedup { tables.dedup() } else { 0 };
        if tables.train.rows.is_empty() {
            let file = tables.train.rows.file;
            return Err(match removed {
                0 => LabelledError::AllHeldOut { file },
                rows => LabelledError::AllRemoved { file, rows },
            });
        }
        let (labelling, inferred) = Labelling::learn(&tables.train, options.task)?;
        let apply = |table: Option<Table>| table.map(|table| labelling.apply(table)).transpose();
        let (train, dev, test) = (labelling.apply(tables.train)?, apply(tables.dev)?, apply(tables.test)?);
        Ok(Self { labelling, train, dev, test, overlap, removed, left_out, inferred, digests })
    }
}

/// The parts before their labels have a meaning.
struct Tables {
    train: Table,
    dev: Option<Table>,
    test: Option<Table>,
}

impl Tables {
    fn read(
        parts: &Parts,
        format: Option<Format>,
        options: &Options,
    ) -> Result<(Self, LeftOut, Vec<InputDigest>), LabelledError> {
        let (mut digests, mut left_out) = (Vec::new(), LeftOut::default());
        let mut read = |path: &Path, request: &ColumnRequest| {
            let (table, digest) = Table::read(path, format, request)?;
            digests.push(digest);
            left_out = left_out + table.rows.left_out;
            Ok::<_, LabelledError>(table)
        };
        let filled = |table: Table| {
            if table.rows.is_empty() { Err(LabelledError::Empty { file: table.rows.file }) } else { Ok(table) }
        };
        let mut request = ColumnRequest { missing: options.missing_labels, ..options.columns.clone().into() };
        let tables = match parts {
            Parts::One(path) => Self::cut(&filled(read(path, &request)?)?, options.held_out, options.seed),
            Parts::Files { train, dev, test } => {
                let train = filled(read(train, &request)?)?;
                request.model = Some(train.rows.columns.clone());
                let dev = dev.as_deref().map(|path| read(path, &request)).transpose()?;
                let test = test.as_deref().map(|path| read(path, &request)).transpose()?;
                match dev {
                    Some(_) => Self { train, dev, test },
                    None => Self { test, ..Self::cut(&train, Shares { test: 0.0, ..options.held_out }, options.seed) },
                }
            }
        };
        Ok((tables, left_out, digests))
    }

    /// Cuts a table by the hash of its sequences.
    fn cut(table: &Table, shares: Shares, seed: u64) -> Self {
        let splits: Vec<Split> = table.rows.iter().map(|row| assign(row, seed, shares)).collect();
        let part = |part| {
            let rows: Vec<usize> =
                (0..).zip(&splits).filter(|(_, split)| **split == part).map(|(row, _)| row).collect();
            table.select(&rows)
        };
        let filled = |table: Table| Some(table).filter(|table| !table.rows.is_empty());
        Self { train: part(Split::Train), dev: filled(part(Split::Valid)), test: filled(part(Split::Test)) }
    }

    /// Removes rows from the training set whose sequence stands in another part; says how many.
    fn dedup(&mut self) -> usize {
        let others: Vec<&Table> = self.dev.iter().chain(&self.test).collect();
        let kept = rows_of_its_own(&self.train, &others);
        let removed = self.train.rows.len() - kept.len();
        if removed > 0 {
            self.train = self.train.select(&kept);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Target, Targets};
    use super::*;
    use std::fmt::Write;
    use std::fs;

    fn message(folder: &Path, options: &Options) -> String {
        let message = Splits::read(folder, options).unwrap_err().to_string();
        message.replace(&*folder.to_string_lossy(), "x")
    }

    #[test]
    fn a_folder_without_dev_holds_some_out() {
        let folder = tempfile::tempdir().unwrap();
        let rows = (0..1000).fold(String::from("sequence,label\n"), |mut text, number| {
            let sequence = crate::synthetic::genome(number, 20, 0.5);
            let _ = writeln!(text, "{},{}", String::from_utf8(sequence).unwrap(), number % 2);
            text
        });
        fs::write(folder.path().join("train.csv"), &rows).unwrap();
        let splits = Splits::read(folder.path(), &Options::default()).unwrap();
        let dev = splits.dev.unwrap();
        assert!((70..130).contains(&dev.len()), "{}", dev.len());
        assert_eq!((splits.train.len() + dev.len(), splits.test), (1000, None));
        // A row keeps its name and its line.
        let place = dev.rows.place(0).number;
        assert_eq!(dev.rows.get(0).id, (place - 1).to_string());
        assert_eq!(dev.targets.get(0), Target::Class(u32::try_from(place % 2).unwrap()));

        let one = Splits::read(&folder.path().join("train.csv"), &Options::default()).unwrap();
        let sizes = [one.train.len(), one.dev.unwrap().len(), one.test.unwrap().len()];
        assert!(
            sizes.iter().sum::<usize>() == 1000 && sizes[1..].iter().all(|size| (70..130).contains(size)),
            "{sizes:?}"
        );
        // What dev holds does not depend on whether there is a test.
        assert_eq!(sizes[1], dev.len());
        let other = Splits::read(folder.path(), &Options { seed: 1, ..Options::default() }).unwrap();
        assert_ne!(other.dev.unwrap().rows, dev.rows);

        let none = Options { held_out: Shares { valid: 0.0, test: 0.0 }, ..Options::default() };
        let whole = Splits::read(folder.path(), &none).unwrap();
        assert_eq!((whole.train.len(), whole.dev, whole.test), (1000, None, None));
    }

    #[test]
    fn the_training_set_alone_says_what_labels_mean() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("train.csv", "sequence,label\nAC,0\nGG,1\nTTTT,2\n");
        write("dev.csv", "sequence,label\nGG,1\n");
        write("test.csv", "sequence,label\nGG,1\nTT,3\n");
        let unseen = message(folder.path(), &Options::default());
        assert_eq!(
            unseen,
            "x/test.csv, line 3, column `label`: `3` is not among the labels of the training set: 0, 1, 2"
        );

        write("test.csv", "sequence,label\nGG,1\nTT,0\n");
        let splits = Splits::read(folder.path(), &Options::default()).unwrap();
        assert_eq!((splits.removed, splits.train.len(), splits.overlap.train_test.rows), (0, 3, 1));
        assert_eq!(splits.digests.iter().map(|digest| digest.records).collect::<Vec<_>>(), [3, 1, 2]);

        // Without the row that dev and test have too, class 1 is unknown.
        let dedup = Options { dedup: true, ..Options::default() };
        assert!(
            message(folder.path(), &dedup).contains("dev.csv, line 2, column `label`: `1` is not among the labels")
        );
        write("train.csv", "sequence,label\nAC,0\nGG,1\nTTTT,1\n");
        let splits = Splits::read(folder.path(), &dedup).unwrap();
        assert_eq!((splits.removed, splits.train.targets), (1, Targets::Classes(vec![0, 1])));
        assert_eq!(splits.overlap.train_test.rows, 1);
    }

    #[test]
    fn all_parts_have_pairs_or_none_has() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.csv"), "sequence1,Sequence2,label\nAC,GT,0\nGG,A,1\n").unwrap();
        fs::write(folder.path().join("test.csv"), "sequence,label\nAC,0\n").unwrap();
        let unlike = message(folder.path(), &Options::default());
        assert_eq!(
            unlike,
            "x/test.csv: has single sequences (column `sequence`), but the model learns from pairs of sequences (columns `sequence1` \
             and `Sequence2`); name both columns of sequences with --sequence"
        );
    }

    #[test]
    fn shares_and_empty_sets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.csv"), "sequence,label\n").unwrap();
        assert_eq!(message(folder.path(), &Options::default()), "x/train.csv: has no rows");
        let all = Options { held_out: Shares { valid: 0.5, test: 0.5 }, ..Options::default() };
        assert!(message(folder.path(), &all).contains("add up to 1"));
        let row = "sequence,label\nACGTACGTAC,1\n";
        fs::write(folder.path().join("train.csv"), row).unwrap();
        let most = Options { held_out: Shares { valid: 0.999_999, test: 0.0 }, ..Options::default() };
        let held_out = message(folder.path(), &most);
        assert!(held_out.starts_with("x/train.csv: there is no row to train on: all are held out"), "{held_out}");
        fs::write(folder.path().join("dev.csv"), row).unwrap();
        let removed = message(folder.path(), &Options { dedup: true, ..Options::default() });
        assert!(removed.contains("sequences of all of them (1), and `data.dedup`"), "{removed}");
    }
}
