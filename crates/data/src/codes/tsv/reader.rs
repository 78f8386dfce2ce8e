//! Reads codes from text.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use super::super::error::{CodesError, Fault};
use super::super::lines::{Lines, next_field, parse_number, parse_record, parse_strand};
use super::super::order::Step;
use super::super::{Header, ROW_BASES, Row, is_standard_stream};
use super::column_names;
use crate::span::Strand;

/// Reads a file or standard input.
pub(in super::super) struct Reader {
    lines: Lines,
    rows: Rows,
}

impl Reader {
    pub(in super::super) fn open(path: &Path) -> Result<(Header, Self), CodesError> {
        let input: Box<dyn BufRead + Send> = if is_standard_stream(path) {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).map_err(CodesError::io(path, "open the file"))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let mut lines = Lines::new(path, input);
        let (header, _) = lines.begin(|header| column_names(header.levels()))?;
        let rows = Rows { codebook_sizes: header.codebook_sizes.clone(), row: None };
        Ok((header, Self { lines, rows }))
    }

    pub(in super::super) fn read(&mut self) -> Result<Option<Row>, CodesError> {
        while let Some(line) = self.lines.next()? {
            match self.rows.add(line) {
                Ok(None) => {}
                Ok(complete) => return Ok(complete),
                Err(fault) => return Err(self.lines.fail(fault)),
            }
        }
        Ok(self.rows.row.take())
    }
}

/// Gathers the lines of adjacent bases into rows, cut as the writer of the file cut them.
struct Rows {
    codebook_sizes: Vec<usize>,
    /// The row that grows.
    row: Option<Row>,
}

impl Rows {
    /// Adds the base of one line; returns the row before it if that is now complete.
    fn add(&mut self, line: &[u8]) -> Result<Option<Row>, Fault> {
        let mut fields = line.split(|&byte| byte == b'\t');
        let base = Base::parse(&mut fields)?;
        let complete = if self.extend(&base)? {
            None
        } else {
            let codes = self.codebook_sizes.iter().map(|_| Vec::with_capacity(ROW_BASES)).collect();
            let record = match &self.row {
                Some(row) if *row.record == *base.record => Arc::clone(&row.record),
                _ => Arc::from(base.record),
            };
            self.row.replace(Row { record, start: base.start, end: base.end, strand: base.strand, codes })
        };
        if let Some(row) = &mut self.row {
            push_codes(row, &self.codebook_sizes, fields)?;
        }
        Ok(complete)
    }

    /// Lets the growing row include the base, if the base belongs to it and it has room.
    fn extend(&mut self, base: &Base<'_>) -> Result<bool, Fault> {
        let Some(row) = &mut self.row else { return Ok(false) };
        if *row.record != *base.record || row.strand != base.strand {
            return Ok(false);
        }
        let (_, ended) = row.edges();
        let begins = match base.strand {
            Strand::Forward => base.start,
            Strand::Reverse => base.end,
        };
        match Step::between(row.strand, ended, begins) {
            Step::Adjacent => {}
            Step::Gap => return Ok(false),
            Step::Back => return Err(Fault::Overlap { edge: ended }),
        }
        if row.end - row.start == ROW_BASES as u64 {
            return Ok(false);
        }
        row.start = row.start.min(base.start);
        row.end = row.end.max(base.end);
        Ok(true)
    }
}

/// The fields of a line before its codes.
struct Base<'line> {
    record: &'line str,
    start: u64,
    end: u64,
    strand: Strand,
}

impl<'line> Base<'line> {
    fn parse(fields: &mut impl Iterator<Item = &'line [u8]>) -> Result<Self, Fault> {
        let record = parse_record(next_field(fields, "a record name")?)?;
        let start = parse_number(next_field(fields, "a start")?, "a start")?;
        let end_field = next_field(fields, "an end")?;
        let end = parse_number(end_field, "an end")?;
        if start.checked_add(1) != Some(end) {
            return Err(Fault::Unexpected { expected: "an end one past the start", found: end.to_string() });
        }
        let strand = parse_strand(next_field(fields, "a strand")?)?;
        Ok(Self { record, start, end, strand })
    }
}

/// Appends the last fields of a line, one code per level.
fn push_codes<'line>(
    row: &mut Row,
    codebook_sizes: &[usize],
    fields: impl Iterator<Item = &'line [u8]>,
) -> Result<(), Fault> {
    let levels = codebook_sizes.len();
    let mut found = 0;
    for field in fields {
        if let (Some(codes), Some(&codebook_size)) = (row.codes.get_mut(found), codebook_sizes.get(found)) {
            let code = parse_number(field, "a code")?;
            let outside = Fault::Code { level: found + 1, code, codebook_size };
            let is_inside = usize::try_from(code).is_ok_and(|code| code < codebook_size);
            codes.push(u16::try_from(code).ok().filter(|_| is_inside).ok_or(outside)?);
        }
        found += 1;
    }
    if found == levels { Ok(()) } else { Err(Fault::Levels { expected: levels, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# vqdna codes v1 model=m codebook_sizes=8,4\nrecord\tstart\tend\tstrand\tcode_1\tcode_2\n";

    /// The spans of the rows of a text, or its error, with the path left out.
    fn read(text: &str) -> Result<Vec<(u64, u64)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        std::fs::write(&path, text).unwrap();
        let rows = super::super::super::Reader::open(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let short = |error: CodesError| error.to_string().replace(&path.display().to_string(), "x");
        Ok(rows.map_err(short)?.iter().map(|row| (row.start, row.end)).collect())
    }

    fn read_lines(lines: &str) -> Result<Vec<(u64, u64)>, String> {
        read(&format!("{HEAD}{lines}"))
    }

    #[test]
    fn adjacent_bases_form_rows() {
        let lines = "a\t3\t4\t+\t7\t0\na\t4\t5\t+\t7\t3\na\t4\t5\t-\t0\t0\na\t3\t4\t-\t0\t0\nb\t0\t1\t+\t1\t1\nb\t9\t10\t+\t1\t1\n";
        assert_eq!(read_lines(lines), Ok(vec![(3, 5), (3, 5), (0, 1), (9, 10)]));
        assert_eq!(read_lines(""), Ok(vec![]));
        let old = HEAD.replace("# vqdna", "#vqdna").replace("record", "#record");
        assert_eq!(read(&format!("{old}{lines}")), read_lines(lines), "a file of an older program");
    }

    #[test]
    fn errors_name_file_and_line() {
        let fails = |lines: &str, message: &str| assert_eq!(read_lines(lines), Err(message.to_owned()));
        let first = "a\t3\t4\t+\t7\t0\n";
        let overlap = "x:4: overlaps or precedes the bases before it, which ended at 4";
        fails(&format!("{first}a\t3\t4\t+\t7\t0\n"), overlap);
        fails(&format!("{first}a\t4\t5\t+\t8\t0\n"), "x:4: level 1: code 8 is outside the codebook of 8");
        fails(&format!("{first}a\t4\t5\t+\t7\t70000\n"), "x:4: level 2: code 70000 is outside the codebook of 4");
        fails("a\t3\t4\t+\t7\n", "x:3: expected codes of 2 levels, found 1");
        fails("a\t3\t4\t+\t7\t0\t0\n", "x:3: expected codes of 2 levels, found 3");
        fails("a\t3\t5\t+\t7\t0\n", "x:3: expected an end one past the start, found \"5\"");
        fails("a\t3\t4\t.\t7\t0\n", "x:3: expected a strand, + or -, found \".\"");
        fails("a\tthree\t4\t+\t7\t0\n", "x:3: expected a start, found \"three\"");
        fails("a\t3\n", "x:3: expected an end, found \"end of line\"");
        fails("\n", "x:3: expected a start, found \"end of line\"");
        fails("a\t3\t4\t+\t7\t0", "x:3: cut short: the line has no end");
        let returns = read_lines(&format!("{first}b\t0\t1\t+\t0\t0\na\t9\t10\t+\t0\t0\n")).unwrap_err();
        assert!(returns.starts_with("x: record a, strand +, base 9: out of order"), "{returns}");
    }

    #[test]
    fn another_beginning_is_refused() {
        assert!(read("").unwrap_err().starts_with("x:1: not a codes file"));
        assert!(read(">chr1\nACGT\n").unwrap_err().starts_with("x:1: not a codes file"));
        let other = HEAD.replace("\tcode_2", "");
        assert!(read(&other).unwrap_err().starts_with("x:2: not a codes file: the line of column names"));
    }
}
