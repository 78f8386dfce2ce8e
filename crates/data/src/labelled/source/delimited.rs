//! Cells separated by commas or tabs, quoted where they must be.

use std::io::{self, BufRead, Chain, Cursor, Read};

use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::super::LabelledError;
use super::{Cells, MOST_CELL};
use crate::input::{Text, Watch, readable};

/// A text of rows, below a line of names, before which there may be notes: lines that begin with `# `.
pub(super) struct Delimited {
    reader: csv::Reader<UnixLines<Below>>,
    record: ByteRecord,
    /// A row that was read ahead, and its line.
    ahead: Option<(u64, ByteRecord)>,
    /// Lines of notes.
    notes: u64,
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
        let (notes, text) = below_notes(text).map_err(|error| watch.explain(error))?;
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .terminator(Terminator::Any(b'\n'))
            .flexible(true)
            .has_headers(false)
            .from_reader(UnixLines::new(text));
        let (record, chosen) = (ByteRecord::new(), Vec::new());
        let mut rows = Self { reader, record, ahead: None, notes, width: 0, chosen };
        let names: Vec<String> = match rows.next(watch)? {
            Some(_) => rows.record.iter().map(|name| readable(name.trim_ascii()).into_owned()).collect(),
            None => Vec::new(),
        };
        rows.chosen = choose(&names)?;
        rows.width = names.len();
        Ok(rows)
    }

    pub(super) fn read(&mut self, row: &mut Cells, watch: &Watch) -> Result<bool, LabelledError> {
        let Some(line) = self.next(watch)? else { return Ok(false) };
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

    /// Reads the next record that is not blank; the line where it starts, or `None` if there is none.
    fn next(&mut self, watch: &Watch) -> Result<Option<u64>, LabelledError> {
        let line = match self.ahead.take() {
            Some((line, record)) => {
                self.record = record;
                line
            }
            None => match self.next_record(watch)? {
                Some(line) => line,
                None => return Ok(None),
            },
        };
        // The reader closes a quote at the end of the text. The cell then ends with the last line end, as hardly any other does.
        if self.record.iter().next_back().is_some_and(|cell| cell.ends_with(b"\n")) {
            let record = self.record.clone();
            match self.next_record(watch)? {
                None if self.reader.get_ref().has_odd_quotes => {
                    let before = record.iter().rev().skip(1).flatten().filter(|byte| **byte == b'\n').count();
                    return Err(LabelledError::OpenQuote { file: watch.file.clone(), line: line + before as u64 });
                }
                None => {}
                Some(line) => self.ahead = Some((line, self.record.clone())),
            }
            self.record = record;
        }
        Ok(Some(line))
    }

    fn next_record(&mut self, watch: &Watch) -> Result<Option<u64>, LabelledError> {
        loop {
            self.reader.get_mut().room = MOST_CELL;
            let line = self.reader.position().line() + self.notes;
            if let Err(error) = self.reader.read_byte_record(&mut self.record) {
                if self.reader.get_ref().room == 0 {
                    return Err(LabelledError::LongRow { file: watch.file.clone(), line, most: MOST_CELL });
                }
                return Err(watch.explain(error.into()).into());
            }
            match self.record.len() {
                0 => return Ok(None),
                1 if self.record[0].trim_ascii().is_empty() => {}
                _ => return Ok(Some(self.line())),
            }
        }
    }

    /// The line where the last record starts. The reader's own answer is the line after the record before, which is another
    /// where blank lines follow that.
    fn line(&self) -> u64 {
        let ends = self.record.as_slice().split(|byte| *byte == b'\n').count() as u64 - 1;
        // A quote that the end of the text closed has taken the last line end too.
        let is_open = self.record.as_slice().ends_with(b"\n") && self.reader.get_ref().has_odd_quotes;
        let lines = if is_open { ends } else { ends + 1 };
        self.notes + self.reader.position().line().saturating_sub(lines)
    }
}

/// A text without its notes.
type Below = Chain<Cursor<Vec<u8>>, Text>;

/// Takes the lines off that begin with `# ` and come before all others, and counts them.
fn below_notes(mut text: Text) -> io::Result<(u64, Below)> {
    let mut notes = 0;
    loop {
        let mut line = Vec::new();
        text.by_ref().take(MOST_CELL as u64).read_until(b'\n', &mut line)?;
        if !line.starts_with(b"# ") {
            return Ok((notes, Cursor::new(line).chain(text)));
        }
        notes += 1;
    }
}

/// A text with `\n` at the end of every line, the last one too: what the reader counts lines by.
struct UnixLines<T> {
    text: T,
    /// The last byte that was passed on.
    last: u8,
    /// Bytes that may still be passed on; at 0 there is an error.
    room: usize,
    /// Whether the number of quotes so far is odd.
    has_odd_quotes: bool,
}

impl<T> UnixLines<T> {
    fn new(text: T) -> Self {
        Self { text, last: b'\n', room: usize::MAX, has_odd_quotes: false }
    }
}

impl<T: BufRead> Read for UnixLines<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.room == 0 {
            return Err(io::Error::other("a row that does not end"));
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
        self.room = self.room.saturating_sub(count);
        self.has_odd_quotes ^= buffer[..count].iter().fold(false, |is_odd, byte| is_odd ^ (*byte == b'"'));
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
                UnixLines::new(text).read_to_string(&mut all).unwrap();
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
    fn notes_may_stand_above_the_names() {
        let expected = Ok(vec![(4, "AC|1".to_owned()), (5, "# x|2".to_owned())]);
        assert_eq!(rows("# made by\tx\n# 2\ns,l\nAC,1\n# x,2\n", b','), expected);
        assert_eq!(rows("#s\tl\nAC\t1\n", b'\t'), Ok(vec![(2, "AC|1".to_owned())]));
        assert_eq!(rows("# a\n", b','), Ok(vec![]));
    }

    #[test]
    fn an_open_quote_is_told_by_its_line() {
        for (text, line) in [
            ("s,l\nAC,1\n\"GG,2\nTT,3\n", 3),
            ("s,l\nAC,1\nGG,\"2\nTT,3\nAC,1", 3),
            ("s,l\n\n\"A\nC\",\"1\nGG,2\n", 4),
            ("# note\n\"s,l\nAC,1\n", 2),
        ] {
            let expected = format!("standard input, line {line}: a quote opens here and never closes");
            assert_eq!(rows(text, b','), Err(expected), "{text:?}");
        }
        // Quotes that close, around line ends too, and quotes within words.
        let expected = Ok(vec![(2, "A|1".to_owned()), (4, "C|x".to_owned())]);
        assert_eq!(rows("s,l\nA,\"1\n\"\nC,\"x\n\"\n", b','), expected);
        assert_eq!(rows("s,l\nA,5\"\n", b','), Ok(vec![(2, "A|5\"".to_owned())]));
    }

    #[test]
    fn a_row_that_does_not_end_is_an_error() {
        let text = Box::leak(format!("s,l\nAC,1\n\"{}", "A,C\n".repeat(MOST_CELL / 3)).into_boxed_str());
        let message = rows(text, b',').unwrap_err();
        assert!(message.starts_with("standard input, line 3: the row has more than 33554432 bytes"), "{message}");
    }

    #[test]
    fn rows_are_as_wide_as_the_header() {
        let message = rows("s,l\nAC,1\n\nGG\n", b',').unwrap_err();
        assert_eq!(message, "standard input, line 4: has 1 columns, but the header has 2");
        assert!(rows("s,l\nAC,1,2\n", b',').unwrap_err().contains("line 2: has 3 columns"));
    }
}
