//! Writes codes as text.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use super::super::error::CodesError;
use super::super::{Header, Row, is_standard_stream, preamble};
use super::column_names;
use crate::aside::AsideFile;

/// Writes one line per base to a file or to standard output.
pub(in super::super) struct Writer {
    out: Out,
    /// Lines that are about to be written: those above the rows, until there is one, then those of a row.
    lines: Vec<u8>,
    has_begun: bool,
    bytes: u64,
}

enum Out {
    File(AsideFile),
    /// Not the lock of standard output, which could not move to another thread with the writer.
    Pipe(BufWriter<Stdout>),
}

impl Writer {
    pub(in super::super) fn create(path: &Path, header: &Header) -> Result<Self, CodesError> {
        let out = if is_standard_stream(path) {
            Out::Pipe(BufWriter::with_capacity(1 << 16, io::stdout()))
        } else {
            Out::File(CodesError::creating(path)?)
        };
        let lines = format!("{}\n{}\n", preamble::format(header), column_names(header.levels()));
        Ok(Self { out, lines: lines.into(), has_begun: false, bytes: 0 })
    }

    pub(in super::super) fn write(&mut self, row: &Row) -> Result<(), CodesError> {
        self.begin()?;
        self.lines.clear();
        let strand = row.strand.to_string();
        for offset in 0..row.codes.first().map_or(0, Vec::len) {
            let position = row.position(offset);
            self.lines.extend_from_slice(row.record.as_bytes());
            push_number(&mut self.lines, position);
            push_number(&mut self.lines, position + 1);
            self.lines.push(b'\t');
            self.lines.extend_from_slice(strand.as_bytes());
            for codes in &row.codes {
                push_number(&mut self.lines, codes[offset].into());
            }
            self.lines.push(b'\n');
        }
        self.write_lines()
    }

    /// Writes what stands above the rows, once: standard output stays empty where the input turns out to have none.
    fn begin(&mut self) -> Result<(), CodesError> {
        if std::mem::replace(&mut self.has_begun, true) { Ok(()) } else { self.write_lines() }
    }

    fn write_lines(&mut self) -> Result<(), CodesError> {
        self.bytes += self.lines.len() as u64;
        match &mut self.out {
            Out::File(file) => file.write_all(&self.lines).map_err(CodesError::io(file.path(), "write to the file")),
            Out::Pipe(pipe) => pipe.write_all(&self.lines).map_err(standard_output),
        }
    }

    pub(in super::super) fn finish(mut self) -> Result<u64, CodesError> {
        self.begin()?;
        match self.out {
            Out::File(file) => CodesError::keeping(file),
            Out::Pipe(mut pipe) => pipe.flush().map(|()| self.bytes).map_err(standard_output),
        }
    }
}

fn standard_output(source: io::Error) -> CodesError {
    CodesError::io(Path::new("-"), "write to standard output")(source)
}

/// Appends a tab and the number in decimal. Several numbers per base make this the hot spot of the writer, where
/// the general formatting of the standard library costs more than the rest.
fn push_number(line: &mut Vec<u8>, mut number: u64) {
    const MOST_DIGITS: usize = 20;
    let mut text = [b'\t'; MOST_DIGITS + 1];
    let mut first = text.len();
    loop {
        first -= 1;
        text[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // The byte before the first digit is still a tab.
    line.extend_from_slice(&text[first - 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 65_535, u64::MAX] {
            let mut line = Vec::new();
            push_number(&mut line, number);
            assert_eq!(line, format!("\t{number}").as_bytes());
        }
    }
}
