//! The table of records beside an array: one line per stretch without a gap.

use crate::aside::AsideFile;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;

use super::super::error::{CodesError, Fault};
use super::super::lines::{Lines, next_field, parse_number, parse_record, parse_strand};
use super::super::{Header, Row, preamble};
use crate::span::Strand;

const COLUMN_NAMES: &str = "record\tstart\tend\tstrand\tfirst_row";

/// Adjacent bases of one record and strand, and where their codes stand in an array: a line of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Name of the record.
    pub record: Arc<str>,
    /// First base, 0-based on the forward strand.
    pub start: u64,
    /// One past the last base, on the forward strand.
    pub end: u64,
    /// Strand that was read; on the reverse strand the first row belongs to base `end - 1`.
    pub strand: Strand,
    /// Row of the array that holds its first codes.
    pub first_row: u64,
}

impl Stretch {
    fn is_continued_by(&self, row: &Row) -> bool {
        let (begins, _) = row.edges();
        let ended = match self.strand {
            Strand::Forward => self.end,
            Strand::Reverse => self.start,
        };
        self.record == row.record && self.strand == row.strand && ended == begins
    }
}

/// Writes the table, joining adjacent rows to one line.
pub(super) struct RecordsWriter {
    file: AsideFile,
    header: Header,
    stretch: Option<Stretch>,
    array_rows: u64,
}

impl RecordsWriter {
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, CodesError> {
        let file = CodesError::creating(path)?;
        let mut writer = Self { file, header: header.clone(), stretch: None, array_rows: 0 };
        writer.line(&preamble::format_with_digest(header, None))?;
        writer.line(COLUMN_NAMES)?;
        Ok(writer)
    }

    /// Adds the bases of a row that follows the one before.
    pub(super) fn write(&mut self, row: &Row) -> Result<(), CodesError> {
        match &mut self.stretch {
            Some(stretch) if stretch.is_continued_by(row) => {
                stretch.start = stretch.start.min(row.start);
                stretch.end = stretch.end.max(row.end);
            }
            _ => {
                self.end_stretch()?;
                let record = Arc::clone(&row.record);
                let Row { start, end, strand, .. } = *row;
                self.stretch = Some(Stretch { record, start, end, strand, first_row: self.array_rows });
            }
        }
        self.array_rows += row.end - row.start;
        Ok(())
    }

    /// Completes the table with the digest of all rows; it waits under its other name until it is kept.
    pub(super) fn finish(mut self, digest: &str) -> Result<AsideFile, CodesError> {
        self.end_stretch()?;
        self.file.rewind().map_err(CodesError::io(self.file.path(), "write to the file"))?;
        self.line(&preamble::format_with_digest(&self.header, Some(digest)))?;
        Ok(self.file)
    }

    /// Rows of the array so far.
    pub(super) fn array_rows(&self) -> u64 {
        self.array_rows
    }

    fn end_stretch(&mut self) -> Result<(), CodesError> {
        match self.stretch.take() {
            Some(Stretch { record, start, end, strand, first_row }) => {
                self.line(&format!("{record}\t{start}\t{end}\t{strand}\t{first_row}"))
            }
            None => Ok(()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), CodesError> {
        writeln!(self.file, "{line}").map_err(CodesError::io(self.file.path(), "write to the file"))
    }
}

/// Reads the table line by line.
pub(super) struct RecordsReader {
    lines: Lines,
    array_rows: u64,
}

impl RecordsReader {
    /// Begins to read the table; `lines` are its lines from the first.
    pub(super) fn new(mut lines: Lines) -> Result<((Header, Option<String>), Self), CodesError> {
        let head = lines.begin(|_| COLUMN_NAMES.into())?;
        Ok((head, Self { lines, array_rows: 0 }))
    }

    /// Rows of the array that the lines so far account for.
    pub(super) fn array_rows(&self) -> u64 {
        self.array_rows
    }

    /// The next line, or `None` after the last.
    pub(super) fn read(&mut self) -> Result<Option<Stretch>, CodesError> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let stretch = parse_stretch(line).and_then(|stretch| check_stretch(stretch, self.array_rows));
        let stretch = stretch.map_err(|fault| self.lines.fail(fault))?;
        // No overflow: `check_stretch` has tried this sum.
        self.array_rows += stretch.end - stretch.start;
        Ok(Some(stretch))
    }
}

fn parse_stretch(line: &[u8]) -> Result<Stretch, Fault> {
    let fields = &mut line.split(|&byte| byte == b'\t');
    let record = parse_record(next_field(fields, "a record name")?)?.into();
    let start = parse_number(next_field(fields, "a start")?, "a start")?;
    let end = parse_number(next_field(fields, "an end")?, "an end")?;
    let strand = parse_strand(next_field(fields, "a strand")?)?;
    let first_row = parse_number(next_field(fields, "a first row")?, "a first row")?;
    match fields.next() {
        Some(more) => {
            let found = String::from_utf8_lossy(more).into_owned();
            Err(Fault::Unexpected { expected: "the end of the line", found })
        }
        None => Ok(Stretch { record, start, end, strand, first_row }),
    }
}

/// Refuses a line that is empty, or does not begin at the row of the array where the line before ended.
fn check_stretch(stretch: Stretch, array_rows: u64) -> Result<Stretch, Fault> {
    let bases = stretch.end.checked_sub(stretch.start).filter(|&bases| bases > 0);
    let after = bases.and_then(|bases| array_rows.checked_add(bases));
    if after.is_none() {
        let found = format!("{}..{}", stretch.start, stretch.end);
        return Err(Fault::Unexpected { expected: "a start before the end", found });
    }
    if stretch.first_row != array_rows {
        let found = stretch.first_row.to_string();
        return Err(Fault::Unexpected { expected: "the first row to follow the lines before", found });
    }
    Ok(stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Vec<Stretch>, String> {
        let lines = Lines::new(Path::new("x"), Box::new(text.as_bytes()));
        let read_all = || {
            let (_, mut reader) = RecordsReader::new(lines)?;
            let mut stretches = Vec::new();
            while let Some(stretch) = reader.read()? {
                stretches.push(stretch);
            }
            Ok(stretches)
        };
        read_all().map_err(|error: CodesError| error.to_string())
    }

    #[test]
    fn adjacent_rows_share_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        let header = Header { model: "m".into(), codebook_sizes: vec![4], shard: None };
        let mut writer = RecordsWriter::create(&path, &header).unwrap();
        let row = |record: &str, start, end, strand| Row { record: record.into(), start, end, strand, codes: vec![] };
        writer.write(&row("a", 2, 7, Strand::Forward)).unwrap();
        writer.write(&row("a", 7, 9, Strand::Forward)).unwrap();
        writer.write(&row("a", 5, 9, Strand::Reverse)).unwrap();
        writer.write(&row("a", 4, 5, Strand::Reverse)).unwrap();
        writer.write(&row("a", 0, 1, Strand::Reverse)).unwrap();
        writer.write(&row("b", 0, 1, Strand::Reverse)).unwrap();
        assert_eq!(writer.array_rows(), 14);
        writer.finish(&"0".repeat(64)).unwrap().keep().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines, ["a\t2\t9\t+\t0", "a\t4\t9\t-\t7", "a\t0\t1\t-\t12", "b\t0\t1\t-\t13"]);
    }

    #[test]
    fn errors_name_file_and_line() {
        const HEAD: &str = "# vqdna codes v1 model=m codebook_sizes=4\nrecord\tstart\tend\tstrand\tfirst_row\n";
        for (lines, place) in [
            ("a\t5\t5\t+\t0\n", "x:3: expected a start before the end"),
            ("a\t5\t6\t+\t1\n", "x:3: expected the first row"),
            ("a\t5\t6\t+\t0\nb\t0\t1\t+\t2\n", "x:4: expected the first row"),
            ("a\t5\t6\t+\t0\t0\n", "x:3: expected the end of the line"),
            ("a\t5\t6\t+\n", "x:3: expected a first row"),
            ("a\t0\t18446744073709551615\t+\t0\nb\t0\t1\t+\t18446744073709551615\n", "x:4: expected a start"),
        ] {
            let message = read(format!("{HEAD}{lines}").leak()).unwrap_err();
            assert!(message.starts_with(place), "{message}");
        }
    }
}
