//! What labels mean: learned from the training set, kept with the model, applied to every other set.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{
    Inferred, LabelFault, LabelledError, LabellingFault, Set, Targets,
    labels::{class_numbers, classes, infer, values, yes_or_no},
    table::Table,
};
use crate::words::words;

/// What is to be told of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Which of two classes it belongs to.
    Binary,
    /// Which of several classes it belongs to.
    MultiClass,
    /// Which of several labels apply to it, any number of them.
    MultiLabel,
    /// One number, or several.
    Regression,
}

words!(Task, "a task", {
    Binary => "binary", MultiClass => "multi-class", MultiLabel => "multi-label", Regression => "regression",
});

/// What the labels of a training set mean.
///
/// One that is read, as from a model folder, is [checked](Labelling::check).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields, try_from = "Unchecked")]
pub enum Labelling {
    /// One class for each row; two make a binary task.
    Classes {
        /// The column of labels.
        column: String,
        /// The classes as written, in the order of the model's outputs: numbers by size, words by letter.
        classes: Vec<String>,
    },
    /// Any number of labels for each row, one column each.
    Labels {
        /// The columns, in the order of the model's outputs.
        columns: Vec<String>,
    },
    /// A number for each column and row.
    Values {
        /// The columns, in the order of the model's outputs.
        columns: Vec<String>,
        /// What brings the values of each column to mean 0 and standard deviation 1.
        standardization: Vec<Standardization>,
    },
}

/// A [`Labelling`] as it is written.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Unchecked {
    Classes { column: String, classes: Vec<String> },
    Labels { columns: Vec<String> },
    Values { columns: Vec<String>, standardization: Vec<Standardization> },
}

impl TryFrom<Unchecked> for Labelling {
    type Error = LabellingFault;

    fn try_from(labelling: Unchecked) -> Result<Self, LabellingFault> {
        let labelling = match labelling {
            Unchecked::Classes { column, classes } => Self::Classes { column, classes },
            Unchecked::Labels { columns } => Self::Labels { columns },
            Unchecked::Values { columns, standardization } => Self::Values { columns, standardization },
        };
        labelling.check().map(|()| labelling)
    }
}

/// Mean and spread of a target in the training set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standardization {
    /// The mean.
    pub mean: f64,
    /// The standard deviation, of all rows; 1 if they are equal.
    pub sd: f64,
}

impl Standardization {
    fn of(values: &[f64]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        // Equal values may have a mean that rounding moved, and so a tiny variance.
        if values.iter().all(|value| *value == values[0]) {
            return Self { mean, sd: 1.0 };
        }
        let variance = |unit: f64| values.iter().map(|value| ((value - mean) / unit).powi(2)).sum::<f64>() / count;
        let plain = variance(1.0);
        if plain > 1e-250 {
            return Self { mean, sd: plain.sqrt() };
        }
        // Squares of tiny deviations would be 0, so they are taken in units of the largest.
        let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
        Self { mean, sd: largest * variance(largest).sqrt() }
    }

    /// A value in standard deviations from the mean.
    #[must_use]
    pub fn apply(&self, value: f64) -> f64 {
        (value - self.mean) / self.sd
    }

    /// The value that [`apply`](Self::apply) came from.
    #[must_use]
    pub fn invert(&self, standardized: f64) -> f64 {
        standardized * self.sd + self.mean
    }
}

impl Labelling {
    /// Checks that it can be worked with.
    ///
    /// # Errors
    /// If it has no output, or but one class; if two outputs have one name, or a name holds a tab, a line end or another control
    /// character, which tables cannot hold; if a mean or a standard deviation is missing, no finite number, or not above 0.
    pub fn check(&self) -> Result<(), LabellingFault> {
        let outputs = self.outputs();
        let least = if matches!(self, Self::Classes { .. }) { 2 } else { 1 };
        if outputs.len() < least {
            return Err(LabellingFault::Few { found: outputs.len(), least });
        }
        let mut names = HashSet::new();
        if let Some(name) = outputs.iter().find(|name| !names.insert(name.as_str())) {
            return Err(LabellingFault::Twice { name: name.clone() });
        }
        if let Some(name) = outputs.iter().chain(self.columns()).find(|name| name.contains(char::is_control)) {
            return Err(LabellingFault::Control { name: name.clone() });
        }
        let Self::Values { columns, standardization } = self else { return Ok(()) };
        if columns.len() != standardization.len() {
            return Err(LabellingFault::Lengths { columns: columns.len(), found: standardization.len() });
        }
        let is_sound = |of: &Standardization| of.mean.is_finite() && of.sd.is_finite() && of.sd > 0.0;
        match columns.iter().zip(standardization).find(|(_, of)| !is_sound(of)) {
            Some((column, _)) => Err(LabellingFault::Standardization { column: column.clone() }),
            None => Ok(()),
        }
    }

    /// The task that it is for.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::Classes { classes, .. } if classes.len() == 2 => Task::Binary,
            Self::Classes { .. } => Task::MultiClass,
            Self::Labels { .. } => Task::MultiLabel,
            Self::Values { .. } => Task::Regression,
        }
    }

    /// What the model's outputs stand for: classes, labels or targets.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        match self {
            Self::Classes { classes, .. } => classes,
            Self::Labels { columns } | Self::Values { columns, .. } => columns,
        }
    }

    /// The columns that labels are read from.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        match self {
            Self::Classes { column, .. } => std::slice::from_ref(column),
            Self::Labels { columns } | Self::Values { columns, .. } => columns,
        }
    }

    /// Learns from a training set; the task is inferred from the labels unless it is given, and then with a note for the user.
    pub(super) fn learn(table: &Table, task: Option<Task>) -> Result<(Self, Option<Inferred>), LabelledError> {
        let (task, inferred) = task.map_or_else(|| infer(table), |task| (task, None));
        Ok((Self::of_task(table, task)?, inferred))
    }

    fn of_task(table: &Table, task: Task) -> Result<Self, LabelledError> {
        let fail = |fault| LabelledError::Labels { file: table.rows.file.clone(), fault };
        let columns = table.columns.clone();
        match (task, &columns[..]) {
            (Task::Binary | Task::MultiClass, [column]) => {
                let classes = classes(table);
                match &classes[..] {
                    [label] => Err(fail(LabelFault::OneLabel { label: label.clone() })),
                    [_, _, _, ..] if task == Task::Binary => Err(fail(LabelFault::NotBinary { found: classes.len() })),
                    _ => Ok(Self::Classes { column: column.clone(), classes }),
                }
            }
            (Task::Binary | Task::MultiClass, _) => Err(fail(LabelFault::OneColumn { task, found: columns.len() })),
            (Task::MultiLabel, _) => Ok(Self::Labels { columns }),
            (Task::Regression, _) => {
                let values = values(table)?;
                let of = |column| {
                    let values: Vec<f64> = values.iter().skip(column).step_by(columns.len()).copied().collect();
                    Standardization::of(&values)
                };
                Ok(Self::Values { standardization: (0..columns.len()).map(of).collect(), columns })
            }
        }
    }

    /// Gives the labels of a table, which has this labelling's columns, their meaning.
    pub(super) fn apply(&self, table: Table) -> Result<Set, LabelledError> {
        let targets = match self {
            Self::Classes { classes, .. } => Targets::Classes(class_numbers(&table, classes)?),
            Self::Labels { columns } => Targets::Labels { labels: columns.len(), values: yes_or_no(&table)? },
            Self::Values { columns, .. } => Targets::Values { targets: columns.len(), values: values(&table)? },
        };
        Ok(Set { rows: table.rows, targets })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ColumnNames;
    use super::*;
    use std::fs;

    /// A table of the given labels, in the columns `a`, `b` and so on.
    fn table(rows: &[&str]) -> Table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let count = rows[0].split(',').count();
        let names: Vec<String> = ["a", "b", "c"].iter().take(count).map(ToString::to_string).collect();
        let lines: Vec<String> = rows.iter().map(|row| format!("ACGT,{row}\n")).collect();
        fs::write(&path, format!("sequence,{}\n{}", names.join(","), lines.concat())).unwrap();
        let columns = ColumnNames { label: names, ..ColumnNames::default() };
        let mut table = Table::read(&path, None, &columns.into()).unwrap().0;
        table.rows.file = "x.csv".into();
        table
    }

    fn learn(rows: &[&str], task: Option<Task>) -> Result<Labelling, String> {
        Labelling::learn(&table(rows), task).map(|(labelling, _)| labelling).map_err(|error| error.to_string())
    }

    fn classes_of(rows: &[&str]) -> Vec<String> {
        match learn(rows, None) {
            Ok(Labelling::Classes { classes, .. }) => classes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_task_is_told_from_the_labels() {
        let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (rows, task) in [
            (&["0", "1", "0"][..], Task::Binary),
            (&["yes", "no"], Task::Binary),
            (&["0.5", "0.7"], Task::Binary),
            (&["0", "1", "2"], Task::MultiClass),
            (&["0.0", "1.0", "2.0"], Task::MultiClass),
            (&["Alpha", "Beta", "1"], Task::MultiClass),
            (&many[..100], Task::MultiClass),
            (&many, Task::Regression),
            (&["0", "1", "1.5"], Task::Regression),
            (&["-1e3", "2", "3"], Task::Regression),
            (&["0", "1", "10", "5000"], Task::Regression),
            (&["-1", "1", "+1"], Task::Binary),
            (&["True", "true", "FALSE"], Task::Binary),
            (&["1", "1.0", "2"], Task::Binary),
            (&["0,1", "1,1"], Task::MultiLabel),
            (&["0.0,True", "1.0,False"], Task::MultiLabel),
            (&["0,1", "1,2"], Task::Regression),
        ] {
            assert_eq!(learn(rows, None).unwrap().task(), task, "{rows:?}");
        }
    }

    #[test]
    fn classes_are_in_the_order_of_numbers_or_letters() {
        assert_eq!(classes_of(&["10", "9", "8", "11", "9"]), ["8", "9", "10", "11"]);
        assert_eq!(classes_of(&["b", "B", "a", "10", "9"]), ["10", "9", "B", "a", "b"]);
        assert_eq!(classes_of(&["1.0", "+1", "0", "-0.0", "01"]), ["0", "1"]);
        assert_eq!(classes_of(&["True", "true", "FALSE"]), ["false", "true"]);
        let table = table(&["10", "9", "10"]);
        let (labelling, _) = Labelling::learn(&table, None).unwrap();
        assert_eq!(labelling.apply(table).unwrap().targets, Targets::Classes(vec![1, 0, 1]));
    }

    #[test]
    fn what_was_told_from_numbers_is_said() {
        let inferred =
            |rows: &[&str], task| Labelling::learn(&table(rows), task).unwrap().1.map(|said| said.to_string());
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(
            inferred(&["0", "2", "1"], None),
            said("3 different whole numbers are taken for 3 classes; for a regression say --task regression")
        );
        assert_eq!(
            inferred(&["7", "40", "5000"], None),
            said("3 different whole numbers are taken for values of a regression; for classes say --task multi-class")
        );
        assert_eq!(
            inferred(&["0.5", "7"], None),
            said("two different numbers are taken for two classes; for a regression say --task regression")
        );
        for (rows, task) in [
            (&["0", "1"][..], None),
            (&["0.5", "1", "2"], None),
            (&["a", "1", "2"], None),
            (&["0", "1", "2"], Some(Task::MultiClass)),
        ] {
            assert_eq!(inferred(rows, task), None, "{rows:?}");
        }
    }

    #[test]
    fn classes_of_a_model_are_values_too() {
        // A model may have spelled its classes as a program wrote them.
        let classes = ["False", "True"].map(str::to_owned).to_vec();
        let labelling = Labelling::Classes { column: "a".into(), classes };
        let targets = labelling.apply(table(&["true", "FALSE", "True"])).unwrap().targets;
        assert_eq!(targets, Targets::Classes(vec![1, 0, 1]));
    }

    #[test]
    fn the_spread_of_small_and_large_values_is_a_number() {
        for scale in [1e-200, 1e-8, 1.0, 1e100] {
            let Standardization { mean, sd } = Standardization::of(&[-scale, scale]);
            assert!(mean == 0.0 && (sd / scale - 1.0).abs() < 1e-12, "{scale}: {mean}, {sd}");
        }
    }

    #[test]
    fn the_task_may_be_given() {
        assert_eq!(learn(&["0", "1", "2"], Some(Task::Regression)).unwrap().task(), Task::Regression);
        assert_eq!(learn(&["0.5", "1.5", "2"], Some(Task::MultiClass)).unwrap().task(), Task::MultiClass);
        assert_eq!(learn(&["0", "1"], Some(Task::MultiLabel)).unwrap().outputs(), ["a"]);
        assert_eq!(
            learn(&["0", "1", "2"], Some(Task::Binary)),
            Err("x.csv: has 3 different labels, but a binary task has two".into())
        );
        assert_eq!(
            learn(&["0,1", "1,0"], Some(Task::MultiClass)),
            Err("x.csv: a multi-class task has one label column, not 2".into())
        );
    }

    #[test]
    fn values_are_brought_to_mean_0_and_deviation_1() {
        let table = table(&["1,5", "2.5,5", "5.5,5"]);
        let (labelling, _) = Labelling::learn(&table, None).unwrap();
        let Labelling::Values { standardization, .. } = &labelling else { panic!("{labelling:?}") };
        // Around the mean of 3: -2, -0.5 and 2.5, squares 10.5.
        assert_eq!(
            standardization[..],
            [Standardization { mean: 3.0, sd: 3.5f64.sqrt() }, Standardization { mean: 5.0, sd: 1.0 }]
        );
        let standardized = standardization[0].apply(5.5);
        assert!((standardized - 2.5 / 3.5f64.sqrt()).abs() < 1e-12);
        assert!((standardization[0].invert(standardized) - 5.5).abs() < 1e-12);
        assert_eq!(Standardization::of(&[0.1; 3]).sd, 1.0);
        let values = vec![1.0, 5.0, 2.5, 5.0, 5.5, 5.0];
        assert_eq!(labelling.apply(table).unwrap().targets, Targets::Values { targets: 2, values });
    }

    #[test]
    fn what_cannot_be_learned_or_applied_says_where() {
        assert_eq!(
            learn(&["1", "1"], None),
            Err("x.csv: all rows have the label `1`, so there is nothing to learn".into())
        );
        assert_eq!(
            learn(&["1.5", "2", "3", "x"], Some(Task::Regression)),
            Err("x.csv, line 5, column `a`: `x` is not a finite number".into())
        );
        let regression = Some(Task::Regression);
        assert_eq!(learn(&["1", "x"], regression), Err("x.csv, line 3, column `a`: `x` is not a finite number".into()));
        let apply = |labelling: &Labelling, rows| labelling.apply(table(rows)).unwrap_err().to_string();
        let classes = learn(&["0", "1", "2"], None).unwrap();
        assert_eq!(
            apply(&classes, &["1", "3"]),
            "x.csv, line 3, column `a`: `3` is not among the labels of the training set: 0, 1, 2"
        );
        let labels = learn(&["0,1", "1,0"], None).unwrap();
        assert_eq!(apply(&labels, &["0,1", "1,2"]), "x.csv, line 3, column `b`: `2` is neither 0 nor 1");
    }

    #[test]
    fn labellings_that_are_read_are_checked() {
        let read = |json: &str| serde_json::from_str::<Labelling>(json).map_err(|error| error.to_string());
        for (json, message) in [
            (r#"{"kind":"classes","column":"a","classes":["x"]}"#, "has 1 outputs, but needs at least 2"),
            (r#"{"kind":"labels","columns":[]}"#, "has 0 outputs, but needs at least 1"),
            (r#"{"kind":"classes","column":"a","classes":["x","x"]}"#, "two outputs have the name `x`"),
            (
                r#"{"kind":"classes","column":"a","classes":["x","\t\u001b[31m"]}"#,
                "the name `\\t\\u{1b}[31m` holds a tab, a line end or another control character, which tables cannot hold",
            ),
            (r#"{"kind":"values","columns":["a"],"standardization":[]}"#, "has 1 columns, but 0 means and deviations"),
            (
                r#"{"kind":"values","columns":["a"],"standardization":[{"mean":0,"sd":0}]}"#,
                "mean and standard deviation of `a` must be finite numbers, and the deviation above 0",
            ),
        ] {
            assert_eq!(read(json), Err(message.to_owned()));
        }
        assert!(read(r#"{"kind":"values","columns":["a"],"standardization":[{"mean":0,"sd":null}]}"#).is_err());
        assert!(read(r#"{"kind":"classes","column":"a","classes":["x","y"],"more":1}"#).is_err());
    }

    #[test]
    fn labellings_survive_json() {
        for rows in [&["a", "b"][..], &["0,1", "1,0"], &["0.25", "1.5", "7"]] {
            let labelling = learn(rows, None).unwrap();
            let json = serde_json::to_string(&labelling).unwrap();
            assert_eq!(serde_json::from_str::<Labelling>(&json).unwrap(), labelling, "{json}");
        }
    }
}
