//! The lines of a text, counted, so that every error can name its line.

use std::io::{self, BufRead};

use super::Text;

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

    /// The next line that is not blank, with its number, counted from 1; without its end, and without blanks around it.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn next_filled(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            if self.text.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
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
