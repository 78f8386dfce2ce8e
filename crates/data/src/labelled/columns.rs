//! Which columns hold sequences, labels and names.

use std::sync::Arc;

use super::{Carry, ColumnFault, ColumnRequest, LabelledError, TakenColumns};
use crate::nearest::nearest;

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
    /// Those that are carried along.
    pub(super) carried: Vec<usize>,
}

impl Columns {
    /// Finds the columns of a file with these names.
    pub(super) fn find(
        file: &Arc<str>,
        header: &[String],
        request: &ColumnRequest,
        wants_labels: bool,
    ) -> Result<Self, LabelledError> {
        let find = || {
            let header = Header(header);
            let labels = header.labels(request, wants_labels)?;
            let sequences = header.sequences(request)?;
            let is_free = |column: &usize| !labels.contains(column) && !sequences.contains(column);
            let id = ID.iter().find_map(|name| header.first(name).filter(is_free));
            let labels = if wants_labels { labels } else { Vec::new() };
            let read = Self { sequences, id, labels, carried: Vec::new() };
            let columns = Self { carried: header.carried(&request.carry, &read)?, ..read };
            header.check_once(&columns)?;
            header.check_names(&columns)?;
            header.check_arity(&columns, request)?;
            Ok(columns)
        };
        find().map_err(|fault| LabelledError::Columns { file: file.clone(), fault })
    }

    /// The places of all columns: sequences, the name if there is one, labels, those that are carried along.
    pub(super) fn wanted(&self) -> Vec<usize> {
        self.sequences.iter().chain(&self.id).chain(&self.labels).chain(&self.carried).copied().collect()
    }

    /// The names of the columns in a file with such a header.
    pub(super) fn taken(&self, header: &[String]) -> TakenColumns {
        let names = |columns: &[usize]| columns.iter().map(|&column| header[column].clone()).collect();
        let id = self.id.map(|column| header[column].clone());
        TakenColumns { sequence: names(&self.sequences), label: names(&self.labels), id }
    }
}

/// The names of all columns of a file.
struct Header<'a>(&'a [String]);

impl Header<'_> {
    /// The columns of a name: those that are written so; or else those that differ in upper and lower case.
    fn all(&self, name: &str) -> Vec<usize> {
        let places = |is_one: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..).zip(self.0).filter(|(_, column)| is_one(column)).map(|(place, _)| place).collect()
        };
        match places(&|column| column == name) {
            none if none.is_empty() => places(&|column| column.eq_ignore_ascii_case(name)),
            exact => exact,
        }
    }

    fn first(&self, name: &str) -> Option<usize> {
        self.all(name).first().copied()
    }

    /// The one column of a name that was asked for.
    fn only(&self, name: &str) -> Result<usize, ColumnFault> {
        match self.all(name)[..] {
            [place] => Ok(place),
            [] => Err(ColumnFault::Missing {
                name: name.to_owned(),
                columns: self.0.to_vec(),
                suggestion: nearest(name, self.0.iter().map(String::as_str)).map(str::to_owned),
            }),
            [first, second, ..] => Err(ColumnFault::Ambiguous {
                name: name.to_owned(),
                columns: [first, second].map(|place| self.0[place].clone()),
            }),
        }
    }

    /// The columns of labels. Where labels are not wanted, those that are there, which are then no names of rows.
    fn labels(&self, request: &ColumnRequest, wants_labels: bool) -> Result<Vec<usize>, ColumnFault> {
        let default = [LABEL.to_owned()];
        let of_model = request.model.as_ref().map_or(&[][..], |model| &model.label[..]);
        let names = [&request.names.label[..], of_model, &default].into_iter().find(|names| !names.is_empty());
        let names = names.unwrap_or(&default);
        if wants_labels {
            names.iter().map(|name| self.only(name)).collect()
        } else {
            Ok(names.iter().filter_map(|name| self.first(name)).collect())
        }
    }

    fn sequences(&self, request: &ColumnRequest) -> Result<Vec<usize>, ColumnFault> {
        match &request.names.sequence[..] {
            [] => {}
            names @ ([_] | [_, _]) => return names.iter().map(|name| self.only(name)).collect(),
            names => return Err(ColumnFault::TooManySequences { count: names.len() }),
        }
        let of_model = request.model.as_ref().map_or(&[][..], |model| &model.sequence[..]);
        let remembered: Option<Vec<usize>> = of_model.iter().map(|name| self.only(name).ok()).collect();
        match remembered {
            Some(columns) if !columns.is_empty() => Ok(columns),
            _ => self.usual_sequences(of_model),
        }
    }

    /// The columns of sequences, where none is requested. They are detected by their names alone: neither their number nor their letters
    /// tell a sequence from a label, since `Y` and `N` are nucleotides too.
    fn usual_sequences(&self, of_model: &[String]) -> Result<Vec<usize>, ColumnFault> {
        let [single, pairs @ ..] = [&["sequence"][..], &["sequence_1", "sequence_2"], &["sequence1", "sequence2"]];
        if self.first(single[0]).is_some() {
            return Ok(vec![self.only(single[0])?]);
        }
        let pair = pairs.into_iter().find(|pair| pair.iter().all(|name| self.first(name).is_some()));
        match pair {
            Some(pair) => pair.iter().map(|name| self.only(name)).collect(),
            None => Err(ColumnFault::NoSequence { model: of_model.to_vec(), columns: self.0.to_vec() }),
        }
    }

    /// The columns that are carried along beside those that are read.
    fn carried(&self, carry: &Carry, read: &Columns) -> Result<Vec<usize>, ColumnFault> {
        match carry {
            Carry::None => Ok(Vec::new()),
            Carry::Named(names) => names.iter().map(|name| self.only(name)).collect(),
            Carry::Others => {
                let read = read.wanted();
                Ok((0..self.0.len()).filter(|column| !read.contains(column)).collect())
            }
        }
    }

    /// Refuses names that would break the tables in which they are written.
    fn check_names(&self, columns: &Columns) -> Result<(), ColumnFault> {
        let broken = columns.wanted().into_iter().find(|&column| self.0[column].contains(char::is_control));
        match broken {
            Some(column) => Err(ColumnFault::Control { name: self.0[column].clone() }),
            None => Ok(()),
        }
    }

    /// Refuses single sequences where pairs are expected, and pairs where single sequences are.
    fn check_arity(&self, columns: &Columns, request: &ColumnRequest) -> Result<(), ColumnFault> {
        let Some(model) = &request.model else { return Ok(()) };
        let found = columns.taken(self.0).sequence;
        if found.len() == model.sequence.len() || model.sequence.is_empty() {
            return Ok(());
        }
        Err(ColumnFault::OtherArity { found, expected: model.sequence.clone() })
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
    use super::super::ColumnNames;
    use super::*;

    fn find(header: &str, sequence: &[&str], label: &[&str], wants_labels: bool) -> Result<Columns, String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let header: Vec<String> = header.split(',').map(str::to_owned).collect();
        let asked = ColumnNames { sequence: names(sequence), label: names(label) };
        Columns::find(&"x.csv".into(), &header, &asked.into(), wants_labels).map_err(|error| error.to_string())
    }

    fn columns(sequences: &[usize], id: Option<usize>, labels: &[usize]) -> Columns {
        Columns { sequences: sequences.into(), id, labels: labels.into(), carried: Vec::new() }
    }

    #[test]
    fn usual_headers_are_understood() {
        for (header, expected) in [
            ("sequence,label", columns(&[0], None, &[1])),
            ("name,label,sequence,id,gc", columns(&[2], Some(3), &[1])),
            ("sequence_1,sequence_2,label", columns(&[0, 1], None, &[2])),
            ("id,sequence1,sequence2,label", columns(&[1, 2], Some(0), &[3])),
            ("Sequence,Label", columns(&[0], None, &[1])),
            ("ID,SEQUENCE_2,label,Sequence_1", columns(&[3, 1], Some(0), &[2])),
            ("Sequence,sequence,LABEL,label", columns(&[1], None, &[3])),
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
    fn labels_are_no_sequences_though_y_and_n_are_letters() {
        assert_eq!(find("sequence", &[], &[], false), Ok(columns(&[0], None, &[])));
        assert_eq!(find("Sequence,Label", &[], &[], false), Ok(columns(&[0], None, &[])));
        assert_eq!(find("id,sequence", &[], &["activity"], false), Ok(columns(&[1], Some(0), &[])));
        // Two columns beside the labels may be anything.
        for header in ["left,right,label", "left,right", "seq,outcome", "sequence_1,outcome"] {
            let error = find(header, &[], &[], false).unwrap_err();
            assert!(
                error.starts_with("x.csv: no column `sequence`, nor `sequence_1` and `sequence_2`; the"),
                "{error}"
            );
            assert!(error.ends_with("; name the column of sequences with --sequence, twice for pairs"), "{error}");
        }
    }

    #[test]
    fn a_model_asks_for_its_columns_again() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let find = |header: &str, asked: &[&str], model: &[&str], label: &[&str]| {
            let model = TakenColumns { sequence: names(model), label: names(label), id: None };
            let request = ColumnRequest::of_model(&names(asked), Some(model));
            let header: Vec<String> = header.split(',').map(str::to_owned).collect();
            let found = Columns::find(&"x.csv".into(), &header, &request, false).map_err(|error| error.to_string())?;
            Ok::<_, String>((found.taken(&header).sequence, found.id))
        };
        let taken = |sequence: &[&str], id: Option<usize>| Ok((names(sequence), id));
        assert_eq!(find("sequence,Guide", &[], &["guide"], &[]), taken(&["Guide"], None));
        assert_eq!(find("b,a,sequence", &[], &["a", "b"], &[]), taken(&["a", "b"], None));
        assert_eq!(find("sequence,guide", &["sequence"], &["guide"], &[]), taken(&["sequence"], None));
        // The usual columns are found where the model's are not there.
        assert_eq!(find("Sequence,x", &[], &["guide"], &[]), taken(&["Sequence"], None));
        assert_eq!(find("sequence_1,sequence_2", &[], &["a", "b"], &[]), taken(&["sequence_1", "sequence_2"], None));
        assert_eq!(find("a,sequence_1,sequence_2", &[], &["a", "b"], &[]), taken(&["sequence_1", "sequence_2"], None));
        // A model that remembers nothing takes what is there; its labels are no names of rows.
        assert_eq!(find("sequence,id,name", &[], &[], &["id"]), taken(&["sequence"], Some(2)));

        assert_eq!(
            find("sequence", &[], &["a", "b"], &[]).unwrap_err(),
            "x.csv: has single sequences (column `sequence`), but the model learns from pairs of sequences (columns `a` and `b`); name \
             both columns of sequences with --sequence"
        );
        assert_eq!(
            find("x,y", &["x", "y"], &["sequence"], &[]).unwrap_err(),
            "x.csv: has pairs of sequences (columns `x` and `y`), but the model learns from single sequences (column `sequence`); name \
             one column of sequences with --sequence"
        );
        assert_eq!(
            find("x,y", &[], &["guide"], &[]).unwrap_err(),
            "x.csv: no sequence column `guide`, as in training; no column `sequence`, nor `sequence_1` and `sequence_2`; the columns are \
             x, y; name the column of sequences with --sequence, twice for pairs"
        );
    }

    #[test]
    fn names_that_tables_cannot_hold_are_refused() {
        let message = find("sequence,a\tb", &[], &["a\tb"], true).unwrap_err();
        assert!(message.starts_with("x.csv: the name of column `a\\tb` holds a tab, a line end or"), "{message}");
        assert!(find("sequence,label,a\tb", &[], &[], true).is_ok());
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
            no_sequence.contains("no column `sequence`") && no_sequence.contains("are seq, label, gc, length; name")
        );
        assert!(message("a,b,label", &["dna"], &[]).starts_with("x.csv: no column `dna`"));
        assert_eq!(message("sequence,label,label", &[], &[]), "x.csv: two columns are named `label`");
        assert_eq!(
            message("sequence,Label,LABEL", &[], &[]),
            "x.csv: columns `Label` and `LABEL` differ in upper and lower case alone, and neither is `label`"
        );
        assert_eq!(message("sequence,label", &["label"], &[]), "x.csv: column `label` is requested twice");
        assert!(message("a,b,c,label", &["a", "b", "c"], &[]).ends_with("one column or two, not in 3"));
        // A file without a header shows its first row, cut short.
        let headless = message(&format!("{},1", "ACGT".repeat(100)), &[], &[]);
        assert!(headless.contains("ACGTACGT…, 1") && headless.len() < 200, "{headless}");
    }
}
