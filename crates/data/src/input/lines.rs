//! The lines of a text, counted, so that every error can name its line.

use std::io::{self, BufRead, Read};

use super::Text;

/// Most bytes of a line.
pub(super) const MOST: u64 = 1 << 25;

/// A line that is too long to be one.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is longer than {MOST} bytes")]
pub(super) struct LongLine {
    pub(super) line: u64,
}

/// The lines of a text, one in memory at a time.
pub struct Lines {
    text: Text,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// The lines of a text that has not been read.
    #[must_use]
    pub fn new(text: Text) -> Self {
        Self { text, line: Vec::new(), number: 0 }
    }

    /// Whether a tab stood before the last line.
    #[must_use]
    pub fn starts_with_tab(&self) -> bool {
        self.line.first() == Some(&b'\t')
    }

    /// The next line that is not blank, with its number, counted from 1; without its end, and without blanks around it.
    ///
    /// # Errors
    /// If the input cannot be read, or a line is longer than 32 MiB.
    pub fn next_filled(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let read = self.text.by_ref().take(MOST + 1).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 > MOST {
                return Err(io::Error::other(LongLine { line: self.number }));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some((self.number, self.line.trim_ascii())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::start;
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_that_does_not_end_is_an_error() {
        let gzip = {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::copy(&mut b"a\n".chain(io::repeat(b'A').take(MOST + 1)), &mut packed).unwrap();
            packed.finish().unwrap()
        };
        let plain: Box<dyn Read + Send> = Box::new(b"a\n".chain(io::repeat(b'A')));
        for bytes in [plain, Box::new(io::Cursor::new(gzip))] {
            let (text, watch) = start(Path::new("-"), bytes).unwrap();
            let mut lines = Lines::new(text);
            assert_eq!(lines.next_filled().unwrap(), Some((1, &b"a"[..])));
            let message = watch.explain(lines.next_filled().unwrap_err()).to_string();
            assert_eq!(
                message,
                "standard input, line 2: is longer than 33554432 bytes, which no line is that is read here"
            );
        }
    }

    #[test]
    fn blank_lines_count_but_are_left_out() {
        let (text, _) = start(Path::new("-"), Box::new(&b"\none\r\n \n\r\n two\n\nthree"[..])).unwrap();
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_filled().unwrap() {
            found.push((number, String::from_utf8_lossy(line).into_owned()));
        }
        assert_eq!(found, [(2, "one".to_owned()), (5, "two".to_owned()), (7, "three".to_owned())]);
    }
}
