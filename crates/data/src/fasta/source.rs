//! One input, opened and positioned at the first record.

use std::{
    io::{self, BufRead, Read},
    path::Path,
    sync::{Arc, OnceLock},
};

use needletail::parser::{FastaReader, FastqReader, FastxReader};

use super::FastaError;
use crate::input::{self, InputDigest, InputError, Text, Watch};

/// Bytes of the longest header line that is read. The parser holds a whole header, so one without end would fill the memory.
pub(super) const LONGEST_HEADER: u64 = 1 << 20;

/// An input, positioned at its first record.
pub(super) struct Source {
    pub(super) file: Arc<str>,
    pub(super) format: Format,
    pub(super) parser: Box<dyn FastxReader>,
    /// Lines before the first record, which the parser does not see.
    pub(super) lines_skipped: u64,
    /// The line of a header that is too long, counted from 0 at the first record; the parser gets no more text then.
    long_header: Arc<OnceLock<u64>>,
    watch: Watch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Fasta,
    Fastq,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, FastaError> {
        let (text, watch) = input::open(path)?;
        Self::start(text, watch)
    }

    /// The same of an input that was opened.
    pub(super) fn start(mut text: Text, watch: Watch) -> Result<Self, FastaError> {
        let file = watch.file.clone();
        let (lines_skipped, first) = skip_blank_lines(&mut text).map_err(|error| watch.explain(error))?;
        let long_header = Arc::default();
        let text =
            |format| Bounded { text, format, line: 0, in_line: Line::Next, long_header: Arc::clone(&long_header) };
        let (format, parser): (_, Box<dyn FastxReader>) = match first {
            // The parser takes a header at the very end of its input for a cut record; with blank lines after it, it is what
            // it should be, a record without bases.
            Some(b'>') => {
                let text = text(Format::Fasta).chain(&b"\n\n"[..]);
                (Format::Fasta, Box::new(FastaReader::new(text)))
            }
            Some(b'@') => (Format::Fastq, Box::new(FastqReader::new(text(Format::Fastq)))),
            Some(found) => return Err(FastaError::UnknownFormat { file, line: lines_skipped + 1, found }),
            None => return Err(FastaError::Empty { file }),
        };
        Ok(Self { file, format, parser, lines_skipped, long_header, watch })
    }

    /// The line of the header that ended the text because it is too long, counted from 1.
    pub(super) fn long_header(&self) -> Option<u64> {
        self.long_header.get().map(|line| self.lines_skipped + line + 1)
    }

    /// The error behind a parser's report that reading failed; the parser itself keeps only its text.
    pub(super) fn read_error(&self, message: &str) -> InputError {
        self.watch.explain(io::Error::other(message.to_owned()))
    }

    /// Checks that the input ended where it should and sums it up; to be called when the parser has reached the end.
    pub(super) fn finish(self, records: u64, bases: u64) -> Result<InputDigest, InputError> {
        self.watch.finish(records, bases)
    }
}

/// A text that ends in an error where a header line is longer than [`LONGEST_HEADER`].
struct Bounded {
    text: Text,
    format: Format,
    /// The line that is being read, counted from 0.
    line: u64,
    in_line: Line,
    long_header: Arc<OnceLock<u64>>,
}

/// What is known of the line that is being read.
#[derive(Clone, Copy)]
enum Line {
    /// It has not begun.
    Next,
    /// It is a header with so many bytes so far.
    Header(u64),
    Other,
}

impl Bounded {
    /// Counts the bytes of header lines; whether none is too long.
    fn admits(&mut self, mut read: &[u8]) -> bool {
        while let Some(&first) = read.first() {
            if matches!(self.in_line, Line::Next) {
                let is_header = match self.format {
                    Format::Fasta => first == b'>',
                    // The name may be repeated in the third of four lines.
                    Format::Fastq => self.line.is_multiple_of(2),
                };
                self.in_line = if is_header { Line::Header(0) } else { Line::Other };
            }
            let end = memchr::memchr(b'\n', read);
            let bytes = end.unwrap_or(read.len());
            if let Line::Header(before) = &mut self.in_line {
                *before += bytes as u64;
                if *before > LONGEST_HEADER {
                    return false;
                }
            }
            if end.is_some() {
                self.line += 1;
                self.in_line = Line::Next;
            }
            read = &read[bytes + usize::from(end.is_some())..];
        }
        true
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.text.read(buffer)?;
        if self.admits(&buffer[..count]) {
            return Ok(count);
        }
        let _ = self.long_header.set(self.line);
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Skips blanks and line ends; returns how many lines that were, and the byte that follows.
fn skip_blank_lines(text: &mut impl BufRead) -> io::Result<(u64, Option<u8>)> {
    let mut lines = 0;
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            return Ok((lines, None));
        }
        let first = buffer.iter().position(|byte| !byte.is_ascii_whitespace());
        let blank = first.unwrap_or(buffer.len());
        lines += buffer[..blank].iter().map(|&byte| u64::from(byte == b'\n')).sum::<u64>();
        let found = first.map(|index| buffer[index]);
        text.consume(blank);
        if found.is_some() {
            return Ok((lines, found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(bytes: &'static [u8]) -> Result<Source, String> {
        let (text, watch) = input::start(Path::new("-"), Box::new(bytes)).map_err(|error| error.to_string())?;
        Source::start(text, watch).map_err(|error| error.to_string())
    }

    #[test]
    fn the_parser_begins_at_the_first_record() {
        let mut source = start(b"\xef\xbb\xbf\n>a\nACGT").unwrap_or_else(|message| panic!("{message}"));
        assert_eq!(source.lines_skipped, 1);
        assert_eq!(source.parser.next().unwrap().unwrap().raw_seq().trim_ascii(), b"ACGT");
        assert!(source.parser.next().is_none());
    }

    #[test]
    fn inputs_of_few_bytes_are_told_apart() {
        assert!(start(b"").is_err_and(|message| message == "standard input: is empty"));
        assert!(start(b"\n").is_err_and(|message| message == "standard input: is empty"));
        assert!(start(b"A").is_err_and(|message| message.contains("neither FASTA nor FASTQ")));
        assert!(start(b"\x1f").is_err_and(|message| message.contains("found `\\x1f`")));
        assert!(start(b">").is_ok_and(|source| source.format == Format::Fasta));
        assert!(start(b"@").is_ok_and(|source| source.format == Format::Fastq));
    }
}
