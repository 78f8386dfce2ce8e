//! The labels of a table: the task they are most likely for, and what each of them says.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    fmt,
};

use super::{CellFault, LabelledError, Task, label::plain, table::Table};

/// Most classes that whole numbers are taken for; more of them are counts or measurements.
const MOST_NUMBERED_CLASSES: usize = 100;

/// What numbers were taken for where the user may have meant another task; to be printed for whoever started the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inferred {
    /// Whole numbers are the names of classes.
    NumberedClasses {
        /// How many.
        classes: usize,
    },
    /// Two numbers, not both of them whole, are two classes.
    TwoNumbers,
    /// Whole numbers are values.
    WholeValues {
        /// Different numbers.
        different: usize,
    },
}

impl fmt::Display for Inferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumberedClasses { classes } => {
                write!(
                    f,
                    "{classes} different whole numbers are taken for {classes} classes; for a regression say --task regression"
                )
            }
            Self::TwoNumbers => {
                write!(f, "two different numbers are taken for two classes; for a regression say --task regression")
            }
            Self::WholeValues { different } => write!(
                f,
                "{different} different whole numbers are taken for values of a regression; for classes say --task multi-class"
            ),
        }
    }
}

/// The task inferred from labels, and a note for the user.
pub(super) fn infer(table: &Table) -> (Task, Option<Inferred>) {
    if table.columns.len() > 1 {
        let is_yes_or_no = table.cells().all(|(_, _, label)| as_yes_or_no(label).is_some());
        return (if is_yes_or_no { Task::MultiLabel } else { Task::Regression }, None);
    }
    let labels: HashSet<&str> = table.cells().map(|(_, _, label)| label).collect();
    let numbers: Option<Vec<f64>> = labels.iter().map(|label| as_number(label)).collect();
    let Some(numbers) = numbers else {
        return (if labels.len() <= 2 { Task::Binary } else { Task::MultiClass }, None);
    };
    let are_whole = numbers.iter().all(|number| number.fract() == 0.0);
    match (numbers.len(), are_whole) {
        (0..=2, true) => (Task::Binary, None),
        (0..=2, false) => (Task::Binary, Some(Inferred::TwoNumbers)),
        (classes, true) if are_codes(&numbers) => (Task::MultiClass, Some(Inferred::NumberedClasses { classes })),
        (different, true) => (Task::Regression, Some(Inferred::WholeValues { different })),
        (_, false) => (Task::Regression, None),
    }
}

/// Whether different whole numbers look like numbers of classes: not many, and most of those between the smallest and the largest.
fn are_codes(numbers: &[f64]) -> bool {
    let [least, most] = [f64::min, f64::max].map(|end| numbers.iter().copied().reduce(end).unwrap_or_default());
    #[expect(clippy::cast_precision_loss, reason = "a number of classes")]
    let count = numbers.len() as f64;
    numbers.len() <= MOST_NUMBERED_CLASSES && most - least < 2.0 * count
}

/// The different labels of a table of one column: numbers by size, words by letter.
pub(super) fn classes(table: &Table) -> Vec<String> {
    let labels: HashSet<&str> = table.cells().map(|(_, _, label)| label).collect();
    let mut classes: Vec<(Option<f64>, String)> =
        labels.into_iter().map(|label| (as_number(label), label.to_owned())).collect();
    let are_numbers = classes.iter().all(|(number, _)| number.is_some());
    classes.sort_by(|(number, label), (other_number, other)| {
        let by_size = match (number, other_number) {
            (Some(a), Some(b)) if are_numbers => a.total_cmp(b),
            _ => Ordering::Equal,
        };
        by_size.then_with(|| label.cmp(other))
    });
    classes.into_iter().map(|(_, label)| label).collect()
}

/// The class of each row. Classes may be spelled otherwise than [`plain`] does it.
pub(super) fn class_numbers(table: &Table, classes: &[String]) -> Result<Vec<u32>, LabelledError> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let spelled: Vec<_> = classes.iter().map(|class| plain(class).unwrap_or(class.into())).collect();
    for (number, class) in (0..).zip(&spelled) {
        numbers.entry(class).or_insert(number);
    }
    read_cells(table, |label| {
        let unseen = || CellFault::Unseen { found: label.to_owned(), known: classes.to_vec() };
        numbers.get(label).copied().ok_or_else(unseen)
    })
}

/// Whether each label of each row applies.
pub(super) fn yes_or_no(table: &Table) -> Result<Vec<bool>, LabelledError> {
    read_cells(table, |label| as_yes_or_no(label).ok_or_else(|| CellFault::YesOrNo { found: label.to_owned() }))
}

/// The values of each row.
pub(super) fn values(table: &Table) -> Result<Vec<f64>, LabelledError> {
    read_cells(table, |label| as_number(label).ok_or_else(|| CellFault::Number { found: label.to_owned() }))
}

/// Reads every label; an error names its place.
fn read_cells<T>(table: &Table, read: impl Fn(&str) -> Result<T, CellFault>) -> Result<Vec<T>, LabelledError> {
    let at_cell = |row, column: usize, fault| {
        let (file, place) = (table.rows.file.clone(), table.place(row));
        LabelledError::Cell { file, place, column: table.columns[column].clone(), fault }
    };
    table.cells().map(|(row, column, label)| read(label).map_err(|fault| at_cell(row, column, fault))).collect()
}

fn as_number(label: &str) -> Option<f64> {
    label.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A [plain] label that says yes or no.
fn as_yes_or_no(label: &str) -> Option<bool> {
    match label {
        "0" | "false" => Some(false),
        "1" | "true" => Some(true),
        _ => None,
    }
}
