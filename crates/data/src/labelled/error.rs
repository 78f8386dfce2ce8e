//! What can be wrong with labelled sequences, and where.

use std::{io, sync::Arc};

use parquet::errors::ParquetError;

use super::{LeftOut, Place, Task, request::columns as columns_of, rows::check_letters};
use crate::{fasta::LetterFault, input::InputError, nearest::did_you_mean, split::SplitError};

/// Why labelled sequences could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelledError {
    /// The file cannot be read at all.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The Parquet library refused.
    #[error("{file}: cannot be read as Parquet")]
    Parquet {
        /// The file.
        file: Arc<str>,
        /// What the library said.
        source: ParquetError,
    },
    /// A line is no JSON object.
    #[error("{file}, line {line}: is no JSON object; JSON Lines has one in each line")]
    Json {
        /// The file.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The file is a single JSON array.
    #[error("{file}: is a JSON array; write one object a line instead (JSON Lines)")]
    JsonArray {
        /// The file.
        file: Arc<str>,
    },
    /// The file holds records, and no table.
    #[error("{file}: is {found}, which has no labels; labelled sequences are CSV, TSV, JSON Lines or Parquet")]
    NoTable {
        /// The file.
        file: Arc<str>,
        /// What it is.
        found: String,
    },
    /// The file is no text.
    #[error("{file}: is neither text nor Parquet: it holds control characters in its first line")]
    Binary {
        /// The file.
        file: Arc<str>,
    },
    /// A page of a Parquet file would take too much memory.
    #[error("{file}, column `{}`: {fault}; is the file damaged?", shown(column))]
    Page {
        /// The file.
        file: Arc<str>,
        /// Name of the column.
        column: String,
        /// What is too much.
        fault: String,
    },
    /// The rows take far more memory than the file could honestly hold.
    #[error(
        "{file}, {place}: the rows so far take {} times the bytes of the file; is it damaged, or made to fill memory?",
        times
    )]
    Swollen {
        /// The file.
        file: Arc<str>,
        /// The last row that was read.
        place: Place,
        /// Bytes in memory for each of the file.
        times: u64,
    },
    /// A row of text does not end.
    #[error("{file}, line {line}: the row has more than {most} bytes; does it have a quote that never closes?")]
    LongRow {
        /// The file.
        file: Arc<str>,
        /// Line where the row starts, counted from 1.
        line: u64,
        /// Bytes that a row may have.
        most: usize,
    },
    /// A quote is open at the end of the file.
    #[error("{file}, line {line}: a quote opens here and never closes")]
    OpenQuote {
        /// The file.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u64,
    },
    /// The file has no rows.
    #[error("{file}: has no rows")]
    Empty {
        /// The file.
        file: Arc<str>,
    },
    /// The file has rows, but all are in other parts.
    #[error("{file}: there is no row to train on: all are held out; lower `data.held_out`, or add rows")]
    AllHeldOut {
        /// The file.
        file: Arc<str>,
    },
    /// Every training row stands in another part, too.
    #[error(
        "{file}: there is no row to train on: dev and test have the sequences of all of them ({rows}), and `data.dedup` leaves such rows out"
    )]
    AllRemoved {
        /// The file.
        file: Arc<str>,
        /// The rows that are left out.
        rows: usize,
    },
    /// Every row lacks a label or a sequence.
    #[error("{file}: has nothing but {left_out}")]
    AllLeftOut {
        /// The file.
        file: Arc<str>,
        /// The rows by what they lack.
        left_out: LeftOut,
    },
    /// The letter policies keep nothing of any sequence.
    #[error("{file}: the letter policies keep nothing of any sequence")]
    NothingKept {
        /// The file.
        file: Arc<str>,
    },
    /// The columns are not those that were asked for.
    #[error("{file}: {fault}")]
    Columns {
        /// The file.
        file: Arc<str>,
        /// What is wrong with them.
        fault: ColumnFault,
    },
    /// A row has more or fewer cells than the header.
    #[error("{file}, line {line}: has {found} columns, but the header has {expected}")]
    Width {
        /// The file.
        file: Arc<str>,
        /// Line where the row starts, counted from 1.
        line: u64,
        /// Columns of the header.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// A cell cannot be used.
    #[error("{file}, {place}, column `{}`: {fault}", shown(column))]
    Cell {
        /// The file.
        file: Arc<str>,
        /// The row.
        place: Place,
        /// Name of the column.
        column: String,
        /// What is wrong with the cell.
        fault: CellFault,
    },
    /// The labels as a whole cannot be learned.
    #[error("{file}: {fault}")]
    Labels {
        /// The file.
        file: Arc<str>,
        /// What is wrong with them.
        fault: LabelFault,
    },
    /// A folder does not hold the parts of a data set.
    #[error("{folder}: {fault}")]
    Parts {
        /// The folder.
        folder: Arc<str>,
        /// What is wrong with it.
        fault: PartFault,
    },
    /// The shares to hold out are no shares.
    #[error(transparent)]
    Shares(#[from] SplitError),
    /// The temporary file for a Parquet file from a pipe failed.
    #[error("{folder}: cannot hold the temporary copy of the input; set TMPDIR to another folder")]
    Spool {
        /// The folder of temporary files.
        folder: Arc<str>,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What is wrong with the columns of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnFault {
    /// No column has the name that was asked for.
    #[error("no column `{}`; {}{}", shown(name), listed(columns), did_you_mean(suggestion.as_deref().map(shown).as_deref()))]
    Missing {
        /// The name.
        name: String,
        /// The columns of the file.
        columns: Vec<String>,
        /// The one that was probably meant.
        suggestion: Option<String>,
    },
    /// Nothing tells which column holds the sequences.
    #[error(
        "no {}column `sequence`, nor `sequence_1` and `sequence_2`; {}; \
         {}",
        if model.is_empty() { String::new() } else { format!("sequence {}, as in training; no ", columns_of(model)) },
        listed(columns),
        if looks_like_bed(columns) {
            "a BED file needs its genome, with --fasta"
        } else {
            "name the column of sequences with --sequence, twice for pairs"
        }
    )]
    NoSequence {
        /// The columns of sequences of a model; empty if there is none.
        model: Vec<String>,
        /// The columns of the file.
        columns: Vec<String>,
    },
    /// Two columns could be meant by one name.
    #[error(
        "{}",
        if columns[0] == columns[1] { format!("two columns are named `{}`", shown(&columns[0])) } else {
            format!("columns `{}` and `{}` differ in upper and lower case alone, and neither is `{}`",
                shown(&columns[0]), shown(&columns[1]), shown(name))
        }
    )]
    Ambiguous {
        /// The name that was looked for.
        name: String,
        /// Two columns that it could mean.
        columns: [String; 2],
    },
    /// The name of a column holds a tab, a line end or another control character.
    #[error(
        "the name of column `{}` holds a tab, a line end or another control character, which tables cannot hold; rename it",
        shown(name)
    )]
    Control {
        /// The name.
        name: String,
    },
    /// One column was asked for in two roles.
    #[error("column `{}` is requested twice", shown(name))]
    Twice {
        /// The name.
        name: String,
    },
    /// Single sequences where a model, or the other parts of a data set, have pairs; or pairs where those have single sequences.
    #[error(
        "has {} ({}), but the model learns from {} ({}); name {} of sequences with --sequence",
        arity(found), columns_of(found), arity(expected), columns_of(expected),
        if expected.len() == 2 { "both columns" } else { "one column" }
    )]
    OtherArity {
        /// The columns of sequences in this file.
        found: Vec<String>,
        /// Those in the training set.
        expected: Vec<String>,
    },
    /// There are too many columns.
    #[error("has {found} columns, more than the {most} that are read")]
    TooMany {
        /// Columns of the file.
        found: usize,
        /// Columns that are read.
        most: usize,
    },
    /// More than two columns of sequences were asked for.
    #[error("sequences stand in one column or two, not in {count}")]
    TooManySequences {
        /// Columns that were asked for.
        count: usize,
    },
}

/// Whether a first line has the fields of BED.
fn looks_like_bed(columns: &[String]) -> bool {
    columns.len() >= 3 && columns[1..3].iter().all(|field| field.parse::<u64>().is_ok())
}

/// What is wrong with a cell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellFault {
    /// There is nothing in it.
    #[error("has no value")]
    Empty,
    /// It holds something else than a text or a number.
    #[error("holds neither text nor a number")]
    Nested,
    /// The line has it twice.
    #[error("stands twice in the line")]
    Twice,
    /// It is no text.
    #[error(
        "is not UTF-8 text: byte {position} is 0x{byte:02X}; if it is Latin-1, `iconv -f LATIN1 -t UTF-8` converts the file"
    )]
    NotText {
        /// Place of the first byte that does not fit, counted from 1.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// A letter of a sequence cannot be used.
    #[error("letter {position}: `{}` {fault}", .letter.escape_ascii())]
    Letter {
        /// Place of the letter, counted from 1.
        position: usize,
        /// The letter.
        letter: u8,
        /// Why it cannot be used.
        fault: LetterFault,
    },
    /// A letter policy would cut a sequence of a pair.
    #[error("holds letters that a policy cuts out, and a pair cannot be cut; use --ambiguous n and --soft-mask keep")]
    CutPair,
    /// A label says that there is none.
    #[error(
        "{}; correct it, remove the row, or say --missing-labels drop to leave such rows out",
        if found.is_empty() { "has no label".to_owned() } else { format!("`{}` is no label", shown(found)) }
    )]
    Missing {
        /// What stands there.
        found: String,
    },
    /// A name or a label that would break the tables in which it is written.
    #[error("`{}` holds a tab, a line end or another control character, which tables cannot hold", shown(found))]
    Control {
        /// What stands there.
        found: String,
    },
    /// It is longer than any that are read.
    #[error("has {length} bytes, more than the {most} that a cell of its kind may have")]
    TooLong {
        /// Bytes of the cell.
        length: usize,
        /// Bytes that a cell may have.
        most: usize,
    },
    /// A label so large that its square is none.
    #[error(
        "`{}` is too large for a label: statistics need its squares; at most 1e100, on either side of 0",
        shown(found)
    )]
    TooLarge {
        /// What stands there.
        found: String,
    },
    /// The value of a target is no number.
    #[error("`{}` is not a finite number", shown(found))]
    Number {
        /// What stands there.
        found: String,
    },
    /// The value of one of several labels is neither yes nor no.
    #[error("`{}` is neither 0 nor 1", shown(found))]
    YesOrNo {
        /// What stands there.
        found: String,
    },
    /// A label that the training set does not have.
    #[error("`{}` is not among the labels of the training set: {}", shown(found), few(known))]
    Unseen {
        /// The label.
        found: String,
        /// The labels of the training set.
        known: Vec<String>,
    },
}

/// What is wrong with the labels of a training set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// All rows have one label.
    #[error("all rows have the label `{}`, so there is nothing to learn", shown(label))]
    OneLabel {
        /// The label.
        label: String,
    },
    /// A task of two classes was asked for.
    #[error("has {found} different labels, but a binary task has two")]
    NotBinary {
        /// Different labels in the file.
        found: usize,
    },
    /// The task that was asked for reads labels from one column.
    #[error("a {task} task has one label column, not {found}")]
    OneColumn {
        /// The task.
        task: Task,
        /// Label columns that were asked for.
        found: usize,
    },
}

/// What is wrong with a [`Labelling`](super::Labelling) that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabellingFault {
    /// There are too few outputs.
    #[error("has {found} outputs, but needs at least {least}")]
    Few {
        /// Outputs that are there.
        found: usize,
        /// Outputs that are needed.
        least: usize,
    },
    /// Two outputs have one name.
    #[error("two outputs have the name `{}`", shown(name))]
    Twice {
        /// The name.
        name: String,
    },
    /// The name of an output or a column would break the tables in which it is written.
    #[error(
        "the name `{}` holds a tab, a line end or another control character, which tables cannot hold",
        shown(name)
    )]
    Control {
        /// The name.
        name: String,
    },
    /// Not every column has a mean and a deviation.
    #[error("has {columns} columns, but {found} means and deviations")]
    Lengths {
        /// Columns.
        columns: usize,
        /// Means and deviations.
        found: usize,
    },
    /// A mean or a deviation cannot be calculated with.
    #[error("mean and standard deviation of `{}` must be finite numbers, and the deviation above 0", shown(column))]
    Standardization {
        /// The column.
        column: String,
    },
}

/// What is wrong with a folder of parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// There is no training set.
    #[error("holds no training set; expected train.csv, .tsv, .jsonl or .parquet (or compressed, as train.csv.gz)")]
    NoTrain,
    /// Two files claim to be one part.
    #[error("both {first} and {second} claim to be one part")]
    Two {
        /// Name of one file.
        first: String,
        /// Name of the other.
        second: String,
    },
}

fn arity(columns: &[String]) -> &'static str {
    if columns.len() == 2 { "pairs of sequences" } else { "single sequences" }
}

/// Names of columns, for the end of a message.
fn listed(columns: &[String]) -> String {
    let hint = match columns {
        [one] if one.contains(';') => "; separate cells by commas or tabs instead of semicolons",
        [one] if one.contains('\t') => "; name a file of tabs .tsv",
        columns if columns.iter().any(|name| is_sequence(name)) => "; the file seems to lack a line of column names",
        _ => "",
    };
    match columns {
        [one] => format!("the only column is `{}`{hint}", shown(one)),
        columns => format!("the columns are {}{hint}", few(columns)),
    }
}

/// Whether the name of a column is rather a sequence.
fn is_sequence(name: &str) -> bool {
    name.len() >= 20 && check_letters(name.as_bytes()).is_ok()
}

/// The first of many names.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let list = names.iter().take(SHOWN).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{list}, … ({} in all)", names.len()) } else { list }
}

/// A text from a file, fit for a message: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown = String::new();
    for letter in text.chars() {
        let escaped = letter.escape_debug().to_string();
        if shown.chars().count() + escaped.len() > SHOWN {
            shown.push('…');
            break;
        }
        // Quotes need no escape.
        if matches!(letter, '\'' | '"') { shown.push(letter) } else { shown.push_str(&escaped) }
    }
    shown
}
