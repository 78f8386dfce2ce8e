//! The formats of labelled sequences.

use std::path::Path;

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

/// Endings of compressed files, which are told by content.
const COMPRESSED: [&str; 5] = [".gz", ".bgz", ".bz2", ".xz", ".zst"];

impl Format {
    /// The format that the name of a file ends in, before the ending of a compression; `None` if it ends in no format.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let plain = COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        match plain.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The format that a text begins like; `None` for a JSON array, which is none of them.
    pub(super) fn of_text(first_line: &[u8]) -> Option<Self> {
        match first_line.trim_ascii_start() {
            [b'P', b'A', b'R', b'1', ..] => Some(Self::Parquet),
            [b'{', ..] => Some(Self::Jsonl),
            [b'[', ..] => None,
            header if header.contains(&b'\t') => Some(Self::Tsv),
            _ => Some(Self::Csv),
        }
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
        assert_eq!(Format::of_text(b"sequence,label"), Some(Format::Csv));
        assert_eq!(Format::of_text(b"sequence"), Some(Format::Csv));
        assert_eq!(Format::of_text(b""), Some(Format::Csv));
        assert_eq!(Format::of_text(b"sequence\tlabel"), Some(Format::Tsv));
        assert_eq!(Format::of_text(b" {\"sequence\":\t\"A\"}"), Some(Format::Jsonl));
        assert_eq!(Format::of_text(b"[{\"sequence\": \"A\"}]"), None);
        assert_eq!(Format::of_text(b"PAR1\x15\x04"), Some(Format::Parquet));
    }
}
