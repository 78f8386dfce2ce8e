//! Sequences out of a file of any format: FASTA, FASTQ, CSV, TSV, JSON Lines or Parquet, compressed or not.
//!
//! The format is detected from the content alone, so that standard input, pipes and any name of a file will do. The input is opened and
//! read once.
//!
//! ```
//! use vqdna_data::{labelled::ColumnRequest, sequences::{self, Found}};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("genes.csv");
//! std::fs::write(&path, ">a\nACGT\n")?;
//! let opened = sequences::open(&path, &ColumnRequest::default(), 1 << 20)?;
//! assert!(opened.remark.is_some_and(|remark| remark.ends_with("is FASTA, whatever its name says")));
//! let Found::Records(mut records) = opened.found else { panic!("no records") };
//! assert_eq!(records.next().expect("a record")?.bases, b"ACGT");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{path::Path, sync::Arc};

use crate::{
    fasta::{self, FastaError, Records},
    input::{self, InputError},
    labelled::{Chunks, ColumnRequest, Content, FIRST_LINE, Format, LabelledError},
};

/// An input of sequences, opened.
pub struct Sequences {
    /// The input as messages name it.
    pub file: Arc<str>,
    /// What it is, where its name says something else.
    pub remark: Option<String>,
    /// What it holds.
    pub found: Found,
}

/// What an input holds.
pub enum Found {
    /// FASTA or FASTQ, whose records may have equal names.
    Records(Records),
    /// The rows of a table.
    Rows(Chunks),
}

/// Why sequences could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SequencesError {
    /// The file cannot be read at all.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Records are at fault.
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// Rows are at fault.
    #[error(transparent)]
    Labelled(#[from] LabelledError),
}

/// Endings of FASTA and FASTQ.
const ENDINGS: [&str; 12] = ["fa", "fasta", "fna", "ffn", "faa", "frn", "fsa", "fas", "mfa", "fq", "fastq", "seq"];

/// Opens a file, or standard input for `-`. Of a table, the columns of `request` are read, and the rows come in chunks of about so many
/// letters.
///
/// # Errors
/// If the input cannot be read, or is neither FASTA nor FASTQ nor a table of sequences. The iterators yield the errors of what they read.
pub fn open(path: &Path, request: &ColumnRequest, letters: usize) -> Result<Sequences, SequencesError> {
    let (mut text, watch) = input::open(path)?;
    let first_line = text.first_line(FIRST_LINE).map_err(|error| watch.explain(error))?;
    let (content, is_one_word) =
        (Content::detect(first_line, path), !first_line.iter().any(|byte| b",\t".contains(byte)));
    let (file, named) = (watch.file.clone(), is_named_fasta(path));
    let found = match content {
        Content::JsonArray => return Err(LabelledError::JsonArray { file }.into()),
        // What has the name of FASTA, and nothing of a table, is told what FASTA begins with.
        Content::Table(Format::Csv) if named && is_one_word => {
            Found::Records(fasta::read_text(text, watch)?.with_repeated_names())
        }
        Content::Fasta | Content::Fastq => Found::Records(fasta::read_text(text, watch)?.with_repeated_names()),
        Content::Table(format) => Found::Rows(Chunks::start(path, text, watch, format, request, letters)?),
    };
    let is_unlike = match content {
        Content::Fasta | Content::Fastq => Format::of(path).is_some(),
        Content::Table(format) => named || Format::of(path).is_some_and(|named| named != format),
        Content::JsonArray => false,
    };
    let remark = is_unlike.then(|| format!("{file}: is {content}, whatever its name says"));
    Ok(Sequences { file, remark, found })
}

/// Whether a file has the name of FASTA or FASTQ.
fn is_named_fasta(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain = Format::COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    plain.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{error::Error, fs, io::Write};

    fn message(error: &dyn Error, path: &Path) -> String {
        error.to_string().replace(&*path.to_string_lossy(), "x")
    }

    /// What an input holds, as `id letters`, and what is remarked on it.
    fn read(name: &str, bytes: &[u8]) -> Result<(Vec<String>, Option<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let opened = open(&path, &ColumnRequest::default(), 1000).map_err(|error| message(&error, &path))?;
        let mut all = Vec::new();
        match opened.found {
            Found::Records(records) => {
                for record in records {
                    let record = record.map_err(|error| message(&error, &path))?;
                    all.push(format!("{} {}", record.name, String::from_utf8_lossy(&record.bases)));
                }
            }
            Found::Rows(chunks) => {
                for rows in chunks {
                    let rows = rows.map_err(|error| message(&error, &path))?;
                    all.extend(rows.iter().map(|row| format!("{} {}", row.id, String::from_utf8_lossy(row.sequence))));
                }
            }
        }
        Ok((all, opened.remark.map(|remark| remark.replace(&*path.to_string_lossy(), "x"))))
    }

    #[test]
    fn any_name_and_compression_will_do() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"\n>a\nAC\nGT\n>b\n").unwrap();
        let gzip = gzip.finish().unwrap();
        let fasta = vec!["a ACGT".to_owned(), "b ".to_owned()];
        for name in ["x.fsa", "x.fas", "x.txt", "x", "x.fa.gz", "x.seq"] {
            assert_eq!(read(name, b"\n>a\nAC\nGT\n>b\n"), Ok((fasta.clone(), None)), "{name}");
            assert_eq!(read(name, &gzip), Ok((fasta.clone(), None)), "{name}");
        }
        let unlike = "x: is FASTA, whatever its name says".to_owned();
        assert_eq!(read("x.csv", &gzip), Ok((fasta, Some(unlike))));
        let reads = b"@r 1\nACG\n+\nIII\n";
        assert_eq!(read("reads.txt", reads), Ok((vec!["r ACG".to_owned()], None)));
        let rows = vec!["1 ACGT".to_owned()];
        assert_eq!(read("x.csv", b"sequence,y\nACGT,1\n"), Ok((rows.clone(), None)));
        assert_eq!(read("x.txt", b"sequence\nACGT\n"), Ok((rows.clone(), None)));
        let unlike = |format: &str| Some(format!("x: is {format}, whatever its name says"));
        assert_eq!(read("x.fa", b"y,sequence\n1,ACGT\n"), Ok((rows.clone(), unlike("CSV"))));
        assert_eq!(read("x.csv", b"y\tsequence\n1\tACGT\n"), Ok((rows.clone(), unlike("TSV"))));
        assert_eq!(read("x.fastq", b"{\"sequence\": \"ACGT\"}\n"), Ok((rows, unlike("JSON Lines"))));
    }

    #[test]
    fn what_is_nothing_of_all_this_is_said() {
        assert_eq!(read("x.fa", b""), Err("x: is empty".to_owned()));
        assert!(read("x.fa", b"ACGT\n").unwrap_err().contains("neither FASTA nor FASTQ"));
        assert!(read("x.txt", b"ACGT\n").unwrap_err().contains("no column `sequence`"));
        assert!(read("x.txt", b"[{}]").unwrap_err().contains("is a JSON array"));
    }
}
