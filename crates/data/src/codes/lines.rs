//! Reads text files of codes line by line, so that every error can name its line.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::error::{CodesError, Fault, Place};
use super::{Header, preamble};
use crate::span::Strand;

/// Longest line that is read, which bounds memory when the input is no text at all.
const LINE_BYTES: u64 = 1 << 20;

/// The lines of a file.
pub(super) struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Lines of `input`; `path` is what errors call it.
    pub(super) fn new(path: &Path, input: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.into(), input, line: Vec::new(), number: 0 }
    }

    /// The next line without its end, or `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, CodesError> {
        self.line.clear();
        self.number += 1;
        let mut input = (&mut self.input).take(LINE_BYTES);
        input.read_until(b'\n', &mut self.line).map_err(CodesError::io(&self.path, "read the file"))?;
        match self.line.split_last() {
            None => Ok(None),
            Some((b'\n', line)) => Ok(Some(line)),
            Some(_) => Err(self.fail(Fault::CutLine)),
        }
    }

    /// Reads the two lines that text files begin with: the header with the digest of all rows, if it is stated, and the names of
    /// the columns, which may depend on it.
    pub(super) fn begin(
        &mut self,
        column_names: impl FnOnce(&Header) -> String,
    ) -> Result<(Header, Option<String>), CodesError> {
        let (header, digest) = preamble::parse(self.next()?.unwrap_or_default()).map_err(|fault| self.fail(fault))?;
        // Older programs wrote a `#` before the names.
        let names = self.next()?.map(|line| line.strip_prefix(b"#").unwrap_or(line));
        if names != Some(column_names(&header).as_bytes()) {
            return Err(self.fail(Fault::NotCodes { missing: "the line of column names" }));
        }
        Ok((header, digest))
    }

    /// An error at the line that was read last.
    pub(super) fn fail(&self, fault: Fault) -> CodesError {
        CodesError::content(&self.path, Place::Line(self.number))(fault)
    }
}

/// The next of the fields of a line, which tabs separate.
pub(super) fn next_field<'line>(
    fields: &mut impl Iterator<Item = &'line [u8]>,
    expected: &'static str,
) -> Result<&'line [u8], Fault> {
    fields.next().ok_or(Fault::Unexpected { expected, found: "end of line".into() })
}

/// Reads a number made of decimal digits only.
pub(super) fn parse_number(field: &[u8], expected: &'static str) -> Result<u64, Fault> {
    let add = |number: u64, &digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    let number = if field.is_empty() { None } else { field.iter().try_fold(0, add) };
    number.ok_or_else(|| unexpected(expected, field))
}

/// Reads `+` or `-`.
pub(super) fn parse_strand(field: &[u8]) -> Result<Strand, Fault> {
    let strand = str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    strand.ok_or_else(|| unexpected("a strand, + or -", field))
}

/// Reads the name of a record.
pub(super) fn parse_record(field: &[u8]) -> Result<&str, Fault> {
    str::from_utf8(field).map_err(|_| unexpected("a record name in UTF-8", field))
}

fn unexpected(expected: &'static str, field: &[u8]) -> Fault {
    const SHOWN: usize = 40;
    let shown = field.get(..SHOWN).unwrap_or(field);
    Fault::Unexpected { expected, found: String::from_utf8_lossy(shown).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static [u8]) -> Lines {
        Lines::new(Path::new("x.tsv"), Box::new(text))
    }

    #[test]
    fn lines_are_counted_and_must_end() {
        let mut lines = lines(b"one\n\nthree");
        assert_eq!(lines.next().unwrap(), Some(&b"one"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b""[..]));
        assert_eq!(lines.next().unwrap_err().to_string(), "x.tsv:3: cut short: the line has no end");
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut lines = Lines::new(Path::new("x"), Box::new(std::io::BufReader::new(std::io::repeat(b'A'))));
        assert!(lines.next().is_err());
        assert_eq!(lines.line.len() as u64, LINE_BYTES);
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(parse_number(b"18446744073709551615", "a number"), Ok(u64::MAX));
        for field in ["", "+1", "-1", "1 ", "0x1", "1e3", "18446744073709551616"] {
            assert!(parse_number(field.as_bytes(), "a number").is_err(), "{field}");
        }
    }
}
