//! The columns that are asked for, and those that were taken.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The columns that are asked for by name; where none is, they are found.
///
/// Names are matched exactly, or else without regard to upper and lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// The column of sequences, or both columns of pairs.
    ///
    /// If empty: `sequence`; or else `sequence_1` and `sequence_2`, or `sequence1` and `sequence2`.
    pub sequence: Vec<String>,
    /// The columns of labels; `label` if empty.
    pub label: Vec<String>,
}

/// The columns that were taken from a file, by their names there; a fine-tuned model remembers those of its training set.
///
/// It displays as they are reported: ``sequence column `Sequence`, label column `Label` ``.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenColumns {
    /// The column of sequences, or both columns of pairs.
    pub sequence: Vec<String>,
    /// The columns of labels; empty where labels were not read.
    #[serde(default)]
    pub label: Vec<String>,
    /// The column of the names of rows, which is `id`, or else `name`; none if the file has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl TakenColumns {
    /// Whether each row has two sequences.
    #[must_use]
    pub fn are_pairs(&self) -> bool {
        self.sequence.len() == 2
    }
}

impl fmt::Display for TakenColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", columns(&self.sequence))?;
        if !self.label.is_empty() {
            write!(f, ", label {}", columns(&self.label))?;
        }
        match &self.id {
            Some(id) => write!(f, ", names of rows from {}", columns(std::slice::from_ref(id))),
            None => Ok(()),
        }
    }
}

/// Columns by name: ``column `a` ``, ``columns `a` and `b` ``.
pub(super) fn columns(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", super::error::shown(name))).collect();
    match &quoted[..] {
        [one] => format!("column {one}"),
        some if names.len() > SHOWN => format!("columns {} and {} more", some.join(", "), names.len() - SHOWN),
        [some @ .., last] => format!("columns {} and {last}", some.join(", ")),
        [] => "no column".to_owned(),
    }
}

/// What is looked for in a file: the columns that are asked for, and what a model learned from.
///
/// Columns that are asked for by name are taken. Where none of sequences is, those of the model are, if the file has them; or else
/// they are found as [`ColumnNames`] says. Whichever they are, a model that learned from pairs takes pairs alone, and one that
/// learned from single sequences those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnRequest {
    /// The columns that are asked for.
    pub names: ColumnNames,
    /// The columns that the model, or the training set, has; `None` if there is no such thing, or it remembers none.
    pub model: Option<Arc<TakenColumns>>,
}

impl ColumnRequest {
    /// The columns of sequences with these names, or else those of a model.
    #[must_use]
    pub fn of_model(sequence: &[String], model: Option<TakenColumns>) -> Self {
        Self { names: ColumnNames { sequence: sequence.to_vec(), label: Vec::new() }, model: model.map(Arc::new) }
    }
}

impl From<ColumnNames> for ColumnRequest {
    fn from(names: ColumnNames) -> Self {
        Self { names, model: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sequence: &[&str], label: &[&str], id: Option<&str>) -> TakenColumns {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        TakenColumns { sequence: names(sequence), label: names(label), id: id.map(str::to_owned) }
    }

    #[test]
    fn taken_columns_are_reported_by_name() {
        for (taken, expected) in [
            (taken(&["Sequence"], &["Label"], None), "sequence column `Sequence`, label column `Label`"),
            (taken(&["a", "b"], &[], Some("ID")), "sequence columns `a` and `b`, names of rows from column `ID`"),
            (taken(&["s"], &["x", "y", "z"], None), "sequence column `s`, label columns `x`, `y` and `z`"),
        ] {
            assert_eq!(taken.to_string(), expected);
        }
        let many: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert!(columns(&many).ends_with("`10`, `11` and 8 more"));
    }

    #[test]
    fn what_a_model_remembers_survives_json() {
        let taken = taken(&["a", "b"], &["Label"], None);
        let json = serde_json::to_string(&taken).unwrap();
        assert_eq!(json, r#"{"sequence":["a","b"],"label":["Label"]}"#);
        assert_eq!(serde_json::from_str::<TakenColumns>(&json).unwrap(), taken);
    }
}
