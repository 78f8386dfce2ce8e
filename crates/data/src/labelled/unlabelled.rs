//! Sequences to predict for, some at a time.

use std::{path::Path, sync::Arc};

use super::{ColumnRequest, Format, LabelledError, Rows, TakenColumns, reader::Reader, rows::Texts};
use crate::input::{InputDigest, Text, Watch};

/// The rows of a file in chunks, in order; ends after the first error.
pub struct Chunks {
    /// Until the end is reached.
    reader: Option<Reader>,
    columns: Arc<TakenColumns>,
    carried: Vec<String>,
    bases: usize,
    digest: Option<InputDigest>,
}

/// Opens a file of sequences, or standard input for `-`; labels are passed over.
///
/// A chunk ends with the row that brings it to `bases` letters, or to one row for each 64 of them, so that memory is bounded
/// however large the file is.
///
/// # Errors
/// If the file cannot be read, or nothing tells which column holds the sequences. The iterator yields the errors of its rows.
pub fn unlabelled(
    path: &Path,
    format: Option<Format>,
    request: &ColumnRequest,
    bases: usize,
) -> Result<Chunks, LabelledError> {
    Ok(Chunks::of(Reader::open(path, format, request, false)?, bases))
}

impl Chunks {
    fn of(reader: Reader, bases: usize) -> Self {
        let (columns, carried) = (reader.taken().clone(), reader.carried().to_vec());
        Self { reader: Some(reader), columns, carried, bases, digest: None }
    }

    /// The rows of an input that was opened, in the format that is given; see [`unlabelled`].
    pub(crate) fn start(
        path: &Path,
        text: Text,
        watch: Watch,
        format: Format,
        request: &ColumnRequest,
        bases: usize,
    ) -> Result<Self, LabelledError> {
        Ok(Self::of(Reader::start(path, text, watch, Some(format), request, false)?, bases))
    }

    /// The columns that are read; of labels none.
    #[must_use]
    pub fn columns(&self) -> &Arc<TakenColumns> {
        &self.columns
    }

    /// Names of the columns that are carried along, left to right.
    #[must_use]
    pub fn carried(&self) -> &[String] {
        &self.carried
    }

    /// What was read, once the end has been reached.
    #[must_use]
    pub fn digest(&self) -> Option<&InputDigest> {
        self.digest.as_ref()
    }

    fn read_chunk(&self, reader: &mut Reader) -> Result<Rows, LabelledError> {
        /// Letters that a row is worth even if it has fewer, for what is kept beside them.
        const LEAST: usize = 64;
        let mut rows = reader.no_rows();
        while (rows.bases() + rows.carried_bytes()).max(rows.len() * LEAST) < self.bases.max(1) {
            if !reader.read(&mut rows, &mut Texts::default())? {
                break;
            }
        }
        Ok(rows)
    }
}

impl Iterator for Chunks {
    type Item = Result<Rows, LabelledError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader.take()?;
        match self.read_chunk(&mut reader) {
            Ok(rows) if rows.is_empty() => match reader.finish() {
                Ok(digest) => {
                    self.digest = Some(digest);
                    None
                }
                Err(error) => Some(Err(error)),
            },
            Ok(rows) => {
                self.reader = Some(reader);
                Some(Ok(rows))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Carry;
    use super::*;
    use std::fs;

    fn chunks(name: &str, text: &str, bases: usize) -> Result<Vec<Vec<String>>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let mut chunks =
            unlabelled(&path, None, &ColumnRequest::default(), bases).map_err(|error| error.to_string())?;
        let found: Result<Vec<Rows>, _> = chunks.by_ref().collect();
        let found = found.map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "x"))?;
        assert_eq!(chunks.digest().unwrap().records, found.iter().map(|rows| rows.len() as u64).sum::<u64>());
        let row = |row: super::super::Row<'_>| {
            let second = row.second.map(|second| format!("+{}", String::from_utf8_lossy(second))).unwrap_or_default();
            format!("{} {}{second}", row.id, String::from_utf8_lossy(row.sequence))
        };
        Ok(found.iter().map(|rows| rows.iter().map(row).collect()).collect())
    }

    #[test]
    fn rows_come_in_chunks_with_their_names() {
        let text = "id,sequence,label\na,ACGT,\n,NN,x\nc,U,\n";
        assert_eq!(chunks("x.csv", text, 1000).unwrap(), [["a ACGT", "2 NN", "c U"]]);
        assert_eq!(chunks("x.csv", text, 128).unwrap(), [vec!["a ACGT", "2 NN"], vec!["c U"]]);
        assert_eq!(chunks("x.csv", text, 0).unwrap(), [["a ACGT"], ["2 NN"], ["c U"]]);
        assert_eq!(chunks("x.csv", "sequence\n", 10).unwrap(), Vec::<Vec<String>>::new());
    }

    #[test]
    fn names_that_are_not_utf8_stay_different() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        fs::write(&path, b"id,sequence\ncaf\xe9,A\ncaf\xe8,A\n").unwrap();
        let rows = unlabelled(&path, None, &ColumnRequest::default(), 1000).unwrap().next().unwrap().unwrap();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), ["caf\\xE9", "caf\\xE8"]);
    }

    #[test]
    fn every_format_and_pairs_are_read() {
        let jsonl = "{\"sequence\": \"AC\", \"id\": 7}\n\n{\"id\": null, \"x\": [1], \"sequence\": \"gt\"}\n";
        assert_eq!(chunks("x.jsonl", jsonl, 1000).unwrap(), [["7 AC", "2 gt"]]);
        assert_eq!(chunks("x", jsonl, 1000).unwrap(), [["7 AC", "2 gt"]]);
        assert_eq!(chunks("x", "sequence_1\tsequence_2\nAC\tGT\n", 1000).unwrap(), [["1 AC+GT"]]);
    }

    #[test]
    fn columns_are_carried_along() {
        const CSV: &str = "gene,sequence,id,score\n lacZ ,AC,a,1.50\n,GT,b,\n";
        const JSONL: &str = concat!(
            "{\"gene\": \"lacZ\", \"sequence\": \"AC\", \"id\": \"a\", \"score\": \"1.50\"}\n",
            "{\"sequence\": \"GT\", \"id\": \"b\", \"new\": 1}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let carried = |name: &str, text: &str, carry: Carry| -> Result<(Vec<String>, Vec<String>), String> {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let request = ColumnRequest { carry, ..ColumnRequest::default() };
            let message = |error: LabelledError| error.to_string().replace(&*path.to_string_lossy(), "x");
            let mut chunks = unlabelled(&path, None, &request, 1000).map_err(message)?;
            let names = chunks.carried().to_vec();
            let rows = chunks.next().unwrap().map_err(message)?;
            let row = |row| [rows.get(row).id].into_iter().chain(rows.carried(row)).collect::<Vec<_>>().join("|");
            assert_eq!(rows.select(&[1]).carried(0).collect::<Vec<_>>(), rows.carried(1).collect::<Vec<_>>());
            Ok((names, (0..rows.len()).map(row).collect()))
        };
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let named = |names: &[&str]| Carry::Named(strings(names));
        for (name, text) in [("x.csv", CSV), ("x.jsonl", JSONL)] {
            let expected = (strings(&["gene", "score"]), strings(&["a|lacZ|1.50", "b||"]));
            assert_eq!(carried(name, text, Carry::Others), Ok(expected));
            let expected = (strings(&["score"]), strings(&["a|1.50", "b|"]));
            assert_eq!(carried(name, text, named(&["Score"])), Ok(expected));
            assert_eq!(carried(name, text, Carry::None), Ok((Vec::new(), strings(&["a", "b"]))));
        }
        let refused = |text, names: &[&str]| carried("x.csv", text, named(names)).unwrap_err();
        assert!(refused(CSV, &["genes"]).contains("no column `genes`") && refused(CSV, &["genes"]).contains("`gene`?"));
        assert_eq!(refused(CSV, &["sequence"]), "x: column `sequence` is requested twice");
        assert!(refused("sequence,y\nAC,\"a\tb\"\n", &["y"]).starts_with("x, line 2, column `y`: `a\\tb` holds a tab"));
    }

    #[test]
    fn rows_without_a_sequence_are_rows() {
        assert_eq!(chunks("x.csv", "sequence,y\n,1\nA,2\n", 1000).unwrap(), [["1 ", "2 A"]]);
        assert_eq!(chunks("x.jsonl", "{\"sequence\": \"A\"}\n{}\n", 1000).unwrap(), [["1 A", "2 "]]);
    }

    #[test]
    fn errors_name_file_place_and_column() {
        let message = |name: &str, text: &str| chunks(name, text, 1000).unwrap_err();
        assert_eq!(
            message("x.csv", "sequence\nAC\nAXC\n"),
            "x, line 3, column `sequence`: letter 2: `X` is not a nucleotide code; is this a protein?"
        );
        assert_eq!(
            message("x.csv", "id,sequence\n\"a\tb\",A\n"),
            "x, line 2, column `id`: `a\\tb` holds a tab, a line end or another control character, which tables cannot hold"
        );
        assert_eq!(
            message("x.jsonl", "{\"sequence\": \"A\"}\n{\"sequence\": [1]}\n"),
            "x, line 2, column `sequence`: holds neither text nor a number"
        );
        assert_eq!(
            message("x.jsonl", "{\"sequence\": \"A\"}\n{\"sequence\": \"A\", \"sequence\": \"C\"}\n"),
            "x, line 2, column `sequence`: stands twice in the line"
        );
        assert_eq!(
            message("x.jsonl", "{\"sequence\": \"A\", \"sequence\": \"C\"}\n").split(": ").nth(1),
            Some("two columns are named `sequence`")
        );
        assert!(
            message("x.jsonl", "{\"sequence\": \"A\"}\n{\"sequence\"\n").starts_with("x, line 2: is no JSON object")
        );
        assert!(message("x", "[{\"sequence\": \"A\"}]").contains("is a JSON array; write one object a line"));
        assert!(message("x.csv", "").ends_with("has no rows"));
    }

    #[test]
    fn nothing_follows_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        fs::write(&path, "sequence\nA\n-\nA\n").unwrap();
        let ends: Vec<_> =
            unlabelled(&path, None, &ColumnRequest::default(), 1).unwrap().map(|rows| rows.is_ok()).collect();
        assert_eq!(ends, [true, false]);
    }

    #[test]
    fn chunks_may_be_read_on_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Chunks>();
    }
}
