//! The formats of labelled sequences.

use std::{fmt, path::Path};

use crate::words::words;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Cells separated by commas.
    Csv,
    /// Cells separated by tabs.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// Columnar.
    Parquet,
}

words!(Format, "a format of labelled sequences", { Csv => "csv", Tsv => "tsv", Jsonl => "jsonl", Parquet => "parquet" });

impl Format {
    /// Endings of compressed files, which are detected from content.
    pub(crate) const COMPRESSED: [&str; 5] = [".gz", ".bgz", ".bz2", ".xz", ".zst"];

    /// The format that the name of a file ends in, before the ending of a compression; `None` if it ends in no format.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let plain = Self::COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        match plain.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// What a text is, by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Records that begin with `>`.
    Fasta,
    /// Records that begin with `@`.
    Fastq,
    /// A JSON array, which is no format of rows.
    JsonArray,
    /// Rows.
    Table(Format),
}

impl Content {
    /// What begins with `first_line`, which is the first line that is not blank; `path` is asked only where that line leaves open what
    /// it is.
    pub(crate) fn detect(first_line: &[u8], path: &Path) -> Self {
        let named = Format::of(path);
        let delimited = |header: &[u8]| {
            let is_binary = str::from_utf8(header).is_err_and(|error| error.error_len().is_some());
            match (header.contains(&b'\t'), header.contains(&b','), named) {
                // A damaged file is reported by the reader that knows what it should be.
                (_, _, Some(Format::Parquet)) if is_binary || header.is_empty() => Format::Parquet,
                (true, false, _) => Format::Tsv,
                (false, true, _) => Format::Csv,
                (_, _, Some(named @ (Format::Csv | Format::Tsv))) => named,
                (true, true, _) => Format::Tsv,
                (false, false, _) => Format::Csv,
            }
        };
        match first_line.trim_ascii_start() {
            [b'P', b'A', b'R', b'1', ..] => Self::Table(Format::Parquet),
            [b'>', ..] => Self::Fasta,
            [b'@', ..] => Self::Fastq,
            [b'{', ..] => Self::Table(Format::Jsonl),
            [b'[', ..] => Self::JsonArray,
            header => Self::Table(delimited(header)),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fasta => "FASTA",
            Self::Fastq => "FASTQ",
            Self::JsonArray => "a JSON array",
            Self::Table(Format::Csv) => "CSV",
            Self::Table(Format::Tsv) => "TSV",
            Self::Table(Format::Jsonl) => "JSON Lines",
            Self::Table(Format::Parquet) => "Parquet",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_before_a_compression_names_the_format() {
        for (name, format) in [
            ("a.b/train.csv", Some(Format::Csv)),
            ("TRAIN.CSV.GZ", Some(Format::Csv)),
            ("x.tsv.zst", Some(Format::Tsv)),
            ("x.jsonl.xz", Some(Format::Jsonl)),
            ("x.ndjson.bz2", Some(Format::Jsonl)),
            ("x.parquet", Some(Format::Parquet)),
            ("x.csv.txt", None),
            ("x.gz", None),
            ("csv", None),
            ("-", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn texts_are_told_by_how_they_begin() {
        let of = |text: &[u8], name: &str| Content::detect(text, Path::new(name));
        let table = Content::Table;
        for (text, name, expected) in [
            (&b"sequence,label"[..], "-", table(Format::Csv)),
            (b"sequence", "-", table(Format::Csv)),
            (b"", "-", table(Format::Csv)),
            (b"sequence\tlabel", "-", table(Format::Tsv)),
            (b" {\"sequence\":\t\"A\"}", "-", table(Format::Jsonl)),
            (b"[{\"sequence\": \"A\"}]", "x.jsonl", Content::JsonArray),
            (b"PAR1\x15\x04", "-", table(Format::Parquet)),
            (b">chr1 the first, of two", "-", Content::Fasta),
            (b"@read/1\tx", "-", Content::Fastq),
            // The name decides where the text does not.
            (b"sequence", "x.tsv", table(Format::Tsv)),
            (b"a,b\tc", "x.tsv", table(Format::Tsv)),
            (b"a,b\tc", "x.csv", table(Format::Csv)),
            (b"", "x.parquet", table(Format::Parquet)),
            (b"\x00\xff\xfe", "x.parquet", table(Format::Parquet)),
            // Where it does, a name does not.
            (b"sequence\tlabel", "x.csv", table(Format::Tsv)),
            (b"sequence,label", "x.fa", table(Format::Csv)),
            (b"sequence,label", "x.parquet", table(Format::Csv)),
            (b">chr1", "x.csv", Content::Fasta),
        ] {
            assert_eq!(of(text, name), expected, "{} in {name}", String::from_utf8_lossy(text));
        }
    }
}
