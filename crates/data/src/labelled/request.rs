//! The requested columns, and those that were taken.

use std::{fmt, ops::Add, sync::Arc};

use serde::{Deserialize, Serialize};

use super::ColumnFault;
use crate::words::words;

/// Columns requested by name; where none is, they are detected.
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
    /// Checks columns that were read, as from a model folder.
    ///
    /// # Errors
    /// What is wrong: neither one nor two columns of sequences, or a name with a tab, a line end or another control character.
    pub fn check(&self) -> Result<(), ColumnFault> {
        if !matches!(self.sequence.len(), 1 | 2) {
            return Err(ColumnFault::TooManySequences { count: self.sequence.len() });
        }
        let mut names = self.sequence.iter().chain(&self.label).chain(&self.id);
        match names.find(|name| name.contains(char::is_control)) {
            Some(name) => Err(ColumnFault::Control { name: name.clone() }),
            None => Ok(()),
        }
    }

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

/// What becomes of rows whose label says that there is none: `NA`, `N/A`, `None`, `null`, `nan`, `.` or no text at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// They are an error, which names the row.
    #[default]
    Error,
    /// They are left out, and counted.
    Drop,
    /// What stands there is a label like any other, unless nothing does.
    Keep,
}

words!(Missing, "what becomes of missing labels", { Error => "error", Drop => "drop", Keep => "keep" });

/// Rows of a file that are not in the set read from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Rows without a label, where those are [dropped](Missing::Drop).
    pub without_label: u64,
    /// Rows without a sequence, or without one of a pair.
    pub without_sequence: u64,
}

impl LeftOut {
    /// All rows that were left out.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.without_label + self.without_sequence
    }
}

impl Add for LeftOut {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            without_label: self.without_label + other.without_label,
            without_sequence: self.without_sequence + other.without_sequence,
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |count: u64| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
        match (self.without_label, self.without_sequence) {
            (labels, 0) => write!(f, "{} without a label", rows(labels)),
            (0, sequences) => write!(f, "{} without a sequence", rows(sequences)),
            (labels, sequences) => {
                write!(f, "{} without a label and {} without a sequence", rows(labels), rows(sequences))
            }
        }
    }
}

/// Columns that are carried along with each row, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Carry {
    /// None.
    #[default]
    None,
    /// Those with these names.
    Named(Vec<String>),
    /// All that are not read for themselves; of JSON Lines, those of the first row.
    Others,
}

/// What is looked for in a file: the requested columns, and what a model learned from.
///
/// Columns requested by name are taken. Where none of sequences is, those of the model are, if the file has them; or else
/// they are found as [`ColumnNames`] says. Whichever they are, a model that learned from pairs takes pairs alone, and one that
/// learned from single sequences those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnRequest {
    /// The requested columns.
    pub names: ColumnNames,
    /// The columns that the model, or the training set, has; `None` if there is no such thing, or it remembers none.
    pub model: Option<Arc<TakenColumns>>,
    /// What becomes of rows without a label, where labels are read.
    pub missing: Missing,
    /// Further columns that are wanted.
    pub carry: Carry,
}

impl ColumnRequest {
    /// The columns of sequences with these names, or else those of a model.
    #[must_use]
    pub fn of_model(sequence: &[String], model: Option<TakenColumns>) -> Self {
        let names = ColumnNames { sequence: sequence.to_vec(), label: Vec::new() };
        Self { names, model: model.map(Arc::new), ..Self::default() }
    }
}

impl From<ColumnNames> for ColumnRequest {
    fn from(names: ColumnNames) -> Self {
        Self { names, ..Self::default() }
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
    fn rows_left_out_are_counted_by_reason() {
        let left_out = |without_label, without_sequence| LeftOut { without_label, without_sequence };
        assert_eq!(left_out(1, 0).to_string(), "1 row without a label");
        assert_eq!(left_out(0, 2).to_string(), "2 rows without a sequence");
        let both = left_out(1, 0) + left_out(2, 1);
        assert_eq!(
            (both.to_string().as_str(), both.rows()),
            ("3 rows without a label and 1 row without a sequence", 4)
        );
    }

    #[test]
    fn what_a_model_remembers_survives_json() {
        let taken = taken(&["a", "b"], &["Label"], None);
        let json = serde_json::to_string(&taken).unwrap();
        assert_eq!(json, r#"{"sequence":["a","b"],"label":["Label"]}"#);
        assert_eq!(serde_json::from_str::<TakenColumns>(&json).unwrap(), taken);
        taken.check().unwrap();
        let broken = TakenColumns { label: vec!["a\tb".into()], ..taken.clone() };
        assert!(broken.check().unwrap_err().to_string().contains("column `a\\tb` holds a tab"));
        assert!(TakenColumns { sequence: Vec::new(), ..taken }.check().is_err());
    }
}
