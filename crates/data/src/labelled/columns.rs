//! Which columns hold sequences, labels and names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ColumnFault, LabelledError};
use crate::nearest::nearest;

/// The columns that are asked for by name; where none is, they are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// The column of sequences, or both columns of pairs.
    ///
    /// If empty: `sequence`; or else `sequence_1` and `sequence_2`; or else, where just two columns are neither labels nor names,
    /// those two, as in the pair files of GUE.
    pub sequence: Vec<String>,
    /// The columns of labels; `label` if empty.
    pub label: Vec<String>,
}

/// Names of rows stand in the first of these columns that exists.
const ID: [&str; 2] = ["id", "name"];
const LABEL: &str = "label";

/// Columns of one file, by their places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// One, or two for pairs.
    pub(super) sequences: Vec<usize>,
    pub(super) id: Option<usize>,
    /// Empty where labels are not wanted.
    pub(super) labels: Vec<usize>,
}

impl Columns {
    /// Finds the columns of a file with these names.
    pub(super) fn find(
        file: &Arc<str>,
        header: &[String],
        names: &ColumnNames,
        wants_labels: bool,
    ) -> Result<Self, LabelledError> {
        let find = || {
            let header = Header(header);
            let labels = header.labels(names, wants_labels)?;
            let sequences = header.sequences(names, &labels)?;
            let is_free = |column: &usize| !labels.contains(column) && !sequences.contains(column);
            let id = ID.iter().find_map(|name| header.first(name).filter(is_free));
            let columns = Self { sequences, id, labels: if wants_labels { labels } else { Vec::new() } };
            header.check_once(&columns)?;
            Ok(columns)
        };
        find().map_err(|fault| LabelledError::Columns { file: file.clone(), fault })
    }

    /// The places of all columns: sequences, the name if there is one, labels.
    pub(super) fn wanted(&self) -> Vec<usize> {
        self.sequences.iter().chain(&self.id).chain(&self.labels).copied().collect()
    }
}

/// The names of all columns of a file.
struct Header<'a>(&'a [String]);

impl Header<'_> {
    fn first(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column == name)
    }

    /// The one column of a name that was asked for.
    fn only(&self, name: &str) -> Result<usize, ColumnFault> {
        let mut columns = (0..).zip(self.0).filter(|(_, column)| *column == name);
        match (columns.next(), columns.next()) {
            (Some((place, _)), None) => Ok(place),
            (Some(_), Some(_)) => Err(ColumnFault::Ambiguous { name: name.to_owned() }),
            (None, _) => Err(ColumnFault::Missing {
                name: name.to_owned(),
                columns: self.0.to_vec(),
                suggestion: nearest(name, self.0.iter().map(String::as_str)).map(str::to_owned),
            }),
        }
    }

    /// The columns of labels. Where labels are not wanted, those that are there, which are then no sequences.
    fn labels(&self, names: &ColumnNames, wants_labels: bool) -> Result<Vec<usize>, ColumnFault> {
        let default = [LABEL.to_owned()];
        let names = if names.label.is_empty() { &default[..] } else { &names.label };
        if wants_labels {
            names.iter().map(|name| self.only(name)).collect()
        } else {
            Ok(names.iter().filter_map(|name| self.first(name)).collect())
        }
    }

    fn sequences(&self, names: &ColumnNames, labels: &[usize]) -> Result<Vec<usize>, ColumnFault> {
        match &names.sequence[..] {
            [] => self.usual_sequences(labels),
            names @ ([_] | [_, _]) => names.iter().map(|name| self.only(name)).collect(),
            names => Err(ColumnFault::TooManySequences { count: names.len() }),
        }
    }

    /// The columns of sequences, where none is asked for.
    fn usual_sequences(&self, labels: &[usize]) -> Result<Vec<usize>, ColumnFault> {
        if self.first("sequence").is_some() {
            return Ok(vec![self.only("sequence")?]);
        }
        if let (Some(first), Some(second)) = (self.first("sequence_1"), self.first("sequence_2")) {
            return Ok(vec![first, second]);
        }
        let is_other = |column: &usize| !labels.contains(column) && !ID.contains(&self.0[*column].as_str());
        let others: Vec<usize> = (0..self.0.len()).filter(is_other).collect();
        if others.len() == 2 { Ok(others) } else { Err(ColumnFault::NoSequence { columns: self.0.to_vec() }) }
    }

    fn check_once(&self, columns: &Columns) -> Result<(), ColumnFault> {
        let wanted = columns.wanted();
        let repeated = wanted.iter().enumerate().find(|(number, column)| wanted[..*number].contains(column));
        match repeated {
            Some((_, &column)) => Err(ColumnFault::Twice { name: self.0[column].clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &str, sequence: &[&str], label: &[&str], wants_labels: bool) -> Result<Columns, String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let header: Vec<String> = header.split(',').map(str::to_owned).collect();
        let asked = ColumnNames { sequence: names(sequence), label: names(label) };
        Columns::find(&"x.csv".into(), &header, &asked, wants_labels).map_err(|error| error.to_string())
    }

    fn columns(sequences: &[usize], id: Option<usize>, labels: &[usize]) -> Columns {
        Columns { sequences: sequences.into(), id, labels: labels.into() }
    }

    #[test]
    fn usual_headers_are_understood() {
        for (header, expected) in [
            ("sequence,label", columns(&[0], None, &[1])),
            ("name,label,sequence,id,gc", columns(&[2], Some(3), &[1])),
            ("sequence_1,sequence_2,label", columns(&[0, 1], None, &[2])),
            ("enhancer,promoter,label", columns(&[0, 1], None, &[2])),
            ("id,seq1,seq2,label", columns(&[1, 2], Some(0), &[3])),
        ] {
            assert_eq!(find(header, &[], &[], true), Ok(expected), "{header}");
        }
    }

    #[test]
    fn columns_are_taken_as_asked() {
        assert_eq!(find("sgRNA,indel", &["sgRNA"], &["indel"], true), Ok(columns(&[0], None, &[1])));
        assert_eq!(find("x,sequence,y", &["x", "y"], &["sequence"], true), Ok(columns(&[0, 2], None, &[1])));
        assert_eq!(find("b,sequence,a", &[], &["a", "b"], true), Ok(columns(&[1], None, &[2, 0])));
        assert_eq!(find("id,sequence,x", &["id"], &["x"], true), Ok(columns(&[0], None, &[2])));
    }

    #[test]
    fn without_labels_those_columns_are_still_none_of_sequences() {
        assert_eq!(find("sequence", &[], &[], false), Ok(columns(&[0], None, &[])));
        assert_eq!(find("left,right,label", &[], &[], false), Ok(columns(&[0, 1], None, &[])));
        assert_eq!(find("left,right", &[], &[], false), Ok(columns(&[0, 1], None, &[])));
        assert_eq!(find("id,sequence", &[], &["activity"], false), Ok(columns(&[1], Some(0), &[])));
    }

    #[test]
    fn what_is_missing_is_named_beside_what_is_there() {
        let message = |header, sequence: &[&str], label: &[&str]| find(header, sequence, label, true).unwrap_err();
        assert_eq!(
            message("sequence,labels", &[], &[]),
            "x.csv: no column `label`; the columns are sequence, labels; did you mean `labels`?"
        );
        assert_eq!(message("sequence", &[], &[]), "x.csv: no column `label`; the only column is `sequence`");
        let no_sequence = message("seq,label,gc,length", &[], &[]);
        assert!(
            no_sequence.contains("no column `sequence`") && no_sequence.contains("are seq, label, gc, length; say")
        );
        assert!(message("a,b,label", &["dna"], &[]).starts_with("x.csv: no column `dna`"));
        assert_eq!(message("sequence,label,label", &[], &[]), "x.csv: two columns are named `label`");
        assert_eq!(message("sequence,label", &["label"], &[]), "x.csv: column `label` is asked for twice");
        assert!(message("a,b,c,label", &["a", "b", "c"], &[]).ends_with("one column or two, not in 3"));
        // A file without a header shows its first row, cut short.
        let headless = message(&format!("{},1", "ACGT".repeat(100)), &[], &[]);
        assert!(headless.contains("ACGTACGT…, 1") && headless.len() < 200, "{headless}");
    }
}
