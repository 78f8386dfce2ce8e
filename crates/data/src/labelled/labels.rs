//! Labels as written: the task they are most likely for, and what each of them says.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use super::{CellFault, LabelledError, Task, table::Table};

/// Most classes that whole numbers are taken for; more of them are counts or measurements.
const MOST_NUMBERED_CLASSES: usize = 100;

/// The task that labels are most likely for.
pub(super) fn infer(table: &Table) -> Task {
    if table.columns.len() > 1 {
        let is_yes_or_no = table.cells().all(|(_, _, label)| as_yes_or_no(label).is_some());
        return if is_yes_or_no { Task::MultiLabel } else { Task::Regression };
    }
    let labels: HashSet<&str> = table.cells().map(|(_, _, label)| label).collect();
    let is_number = |label: &&str| label.parse::<f64>().is_ok();
    let is_whole = |label: &&str| label.parse::<f64>().is_ok_and(|number| number.fract() == 0.0);
    match labels.len() {
        0..=2 => Task::Binary,
        count if labels.iter().all(is_whole) && count <= MOST_NUMBERED_CLASSES => Task::MultiClass,
        _ if labels.iter().all(is_number) => Task::Regression,
        _ => Task::MultiClass,
    }
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

/// The class of each row.
pub(super) fn class_numbers(table: &Table, classes: &[String]) -> Result<Vec<u32>, LabelledError> {
    let numbers: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
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

/// A label as programs write yes and no.
fn as_yes_or_no(label: &str) -> Option<bool> {
    match label {
        "0" | "0.0" | "false" | "False" | "FALSE" => Some(false),
        "1" | "1.0" | "true" | "True" | "TRUE" => Some(true),
        _ => None,
    }
}
