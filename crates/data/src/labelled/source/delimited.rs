//! Cells separated by commas or tabs, quoted where they must be.

use std::io::{self, BufRead, Read};

use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::super::LabelledError;
use super::Cells;
use crate::input::{Text, Watch};

/// A text of rows, below a line of names.
pub(super) struct Delimited {
    reader: csv::Reader<UnixLines<Text>>,
    record: ByteRecord,
    /// Number of columns.
    width: usize,
    /// The columns that are read.
    chosen: Vec<usize>,
}

impl Delimited {
    pub(super) fn open(
        text: Text,
        watch: &Watch,
        delimiter: u8,
        choose: impl FnOnce(&[String]) -> Result<Vec<usize>, LabelledError>,
    ) -> Result<Self, LabelledError> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .terminator(Terminator::Any(b'\n'))
            .flexible(true)
            .from_reader(UnixLines { text, last: b'\n' });
        let header = reader.byte_headers().map_err(|error| watch.explain(error.into()))?;
        let name = |name: &[u8]| String::from_utf8_lossy(name.trim_ascii()).into_owned();
        let names: Vec<String> = header.iter().map(name).collect();
        let chosen = choose(&names)?;
        Ok(Self { reader, record: ByteRecord::new(), width: names.len(), chosen })
    }

    pub(super) fn read(&mut self, row: &mut Cells, watch: &Watch) -> Result<bool, LabelledError> {
        loop {
            let is_row = self.reader.read_byte_record(&mut self.record).map_err(|error| watch.explain(error.into()))?;
            if !is_row {
                return Ok(false);
            }
            let is_blank = self.record.len() == 1 && self.record[0].trim_ascii().is_empty();
            if !is_blank {
                break;
            }
        }
        let line = self.line();
        if self.record.len() != self.width {
            let (file, found) = (watch.file.clone(), self.record.len());
            return Err(LabelledError::Width { file, line, expected: self.width, found });
        }
        row.begin(line, self.chosen.len());
        for (index, &column) in self.chosen.iter().enumerate() {
            row.set(index, &self.record[column]);
        }
        Ok(true)
    }

    /// The line where the last record starts. The reader's own answer is the line after the record before, which is another
    /// where blank lines follow that.
    fn line(&self) -> u64 {
        let lines = self.record.as_slice().split(|&byte| byte == b'\n').count() as u64;
        self.reader.position().line().saturating_sub(lines)
    }
}

/// A text with `\n` at the end of every line, the last one too: what the reader counts lines by.
struct UnixLines<T> {
    text: T,
    /// The last byte that was passed on.
    last: u8,
}

impl<T: BufRead> Read for UnixLines<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = loop {
            let bytes = self.text.fill_buf()?;
            match bytes.first() {
                None if self.last == b'\n' => return Ok(0),
                None => {
                    buffer[0] = b'\n';
                    break 1;
                }
                Some(b'\r') => {
                    self.text.consume(1);
                    if self.text.fill_buf()?.first() != Some(&b'\n') {
                        buffer[0] = b'\r';
                        break 1;
                    }
                }
                Some(_) => {
                    let end = bytes.iter().position(|&byte| byte == b'\r').unwrap_or(bytes.len());
                    let count = end.min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    self.text.consume(count);
                    break count;
                }
            }
        };
        self.last = buffer[count - 1];
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;
    use std::io::BufReader;
    use std::path::Path;

    #[test]
    fn line_ends_become_those_of_unix() {
        for (text, expected) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("a\r\nb", "a\nb\n"),
            ("a\rb\r\r\n", "a\rb\r\n"),
            ("a\r", "a\r\n"),
            ("", ""),
            ("\r\n", "\n"),
        ] {
            for room in [1, 2, 64] {
                let text = BufReader::with_capacity(room, text.as_bytes());
                let mut all = String::new();
                UnixLines { text, last: b'\n' }.read_to_string(&mut all).unwrap();
                assert_eq!(all, expected);
            }
        }
    }

    /// The rows of a text, with their lines, or the message.
    fn rows(text: &'static str, delimiter: u8) -> Result<Vec<(u64, String)>, String> {
        let (text, watch) = input::start(Path::new("-"), Box::new(text.as_bytes())).unwrap();
        let read = || {
            let all = |names: &[String]| Ok((0..names.len()).collect());
            let mut reader = Delimited::open(text, &watch, delimiter, all)?;
            let (mut rows, mut row) = (Vec::new(), Cells::default());
            while reader.read(&mut row, &watch)? {
                let cells: Vec<_> = row.cells.iter().map(|cell| String::from_utf8_lossy(cell)).collect();
                rows.push((row.number, cells.join("|")));
            }
            Ok(rows)
        };
        read().map_err(|error: LabelledError| error.to_string())
    }

    #[test]
    fn rows_know_their_lines() {
        let expected =
            Ok(vec![(2, "AC|1".to_owned()), (5, "GG|2".to_owned()), (6, "T\nT|3".to_owned()), (8, "A|4".to_owned())]);
        assert_eq!(rows("s,l\nAC,1\n\n  \nGG, 2 \n\"T\nT\",3\nA,4", b','), expected);
        assert_eq!(rows("s,l\r\nAC,1\r\n\r\n  \r\nGG, 2 \r\n\"T\r\nT\",3\r\nA,4\r\n\r\n", b','), expected);
        assert_eq!(rows("\u{feff}s\tl\nA,C\t\"x\ty\"\n", b'\t'), Ok(vec![(2, "A,C|x\ty".to_owned())]));
    }

    #[test]
    fn rows_are_as_wide_as_the_header() {
        let message = rows("s,l\nAC,1\n\nGG\n", b',').unwrap_err();
        assert_eq!(message, "standard input, line 4: has 1 columns, but the header has 2");
        assert!(rows("s,l\nAC,1,2\n", b',').unwrap_err().contains("line 2: has 3 columns"));
    }
}
