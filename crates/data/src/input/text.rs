//! The text of an input, without the mark some editors put before it.

use std::io::{self, BufRead, BufReader, Read};

use super::{peek, watch::Watched};

/// The three bytes some editors put before UTF-8 text.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The decompressed text of an input.
pub struct Text {
    /// What was looked at before its turn.
    head: Vec<u8>,
    /// How much of the head has been read.
    read: usize,
    rest: BufReader<Watched>,
}

impl Text {
    pub(super) fn new(text: Watched) -> io::Result<Self> {
        let mut rest = BufReader::with_capacity(1 << 16, text);
        let mark = peek(&mut rest, BYTE_ORDER_MARK.len())?;
        Ok(Self { head: if mark == BYTE_ORDER_MARK { Vec::new() } else { mark }, read: 0, rest })
    }

    /// Whether the text is UTF-16, which some editors and spreadsheets save; for a text that has not been read.
    pub(super) fn is_utf16(&self) -> bool {
        match self.head[..] {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
            // Without a mark, every other byte of a letter is zero.
            [first, 0, second] => {
                first.is_ascii_graphic() && (second.is_ascii_graphic() || second.is_ascii_whitespace())
            }
            [0, first, 0] => first.is_ascii_graphic(),
            _ => false,
        }
    }

    /// The first line that is not blank, without its end and what is blank before it, of no more than the first `most` bytes of the
    /// text, which all stay in it; for a text that has not been read.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn first_line(&mut self, most: usize) -> io::Result<&[u8]> {
        let blank = |head: &[u8]| head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(head.len());
        while self.head.len() < most && !self.head[blank(&self.head)..].contains(&b'\n') {
            let bytes = self.rest.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(most - self.head.len());
            self.head.extend_from_slice(&bytes[..count]);
            self.rest.consume(count);
        }
        let head = &self.head[..most.min(self.head.len())];
        let line = &head[blank(head)..];
        let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
        Ok(&line[..end])
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.head[self.read..] {
            [] => self.rest.read(buffer),
            head => {
                let count = head.len().min(buffer.len());
                buffer[..count].copy_from_slice(&head[..count]);
                self.read += count;
                Ok(count)
            }
        }
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read < self.head.len() { Ok(&self.head[self.read..]) } else { self.rest.fill_buf() }
    }

    fn consume(&mut self, count: usize) {
        if self.read < self.head.len() {
            self.read += count;
        } else {
            self.rest.consume(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::start;
    use super::*;
    use std::path::Path;

    /// Gives one byte at a time, as a slow pipe may.
    struct Trickle(&'static [u8]);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (head, rest) = self.0.split_at(self.0.len().min(1));
            self.0 = rest;
            buffer[..head.len()].copy_from_slice(head);
            Ok(head.len())
        }
    }

    #[test]
    fn a_slow_pipe_is_read_as_a_file() {
        // `printf '\n>a\nACGT\n' | gzip`.
        const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xe3\xb2\x4b\xe4\x72\x74\x76\x0f\xe1\x02\x00\x69\xd7\xdf\xc8\x09\x00\x00\x00";
        for (bytes, expected) in [
            (&b"\n>a\nACGT\n"[..], "\n>a\nACGT\n"),
            (b"\xef\xbb\xbf\n>a\nACGT", "\n>a\nACGT"),
            (GZIP, "\n>a\nACGT\n"),
            (b"", ""),
            (b"\xef\xbb", "\u{fffd}"),
        ] {
            let (mut text, watch) = start(Path::new("-"), Box::new(Trickle(bytes))).unwrap();
            let mut all = Vec::new();
            text.read_to_end(&mut all).unwrap();
            assert_eq!(String::from_utf8_lossy(&all), expected);
            let digest = watch.finish(1, 4).unwrap();
            assert_eq!((digest.bytes, digest.blake3), (bytes.len() as u64, blake3::hash(bytes).to_string()));
        }
    }

    #[test]
    fn the_first_line_stays_in_the_text() {
        for bytes in [&b"sequence,label\nACGT,1\n"[..], b"sequence,label", b"\xef\xbb\xbfsequence,label\nACGT,1"] {
            let (mut text, _) = start(Path::new("-"), Box::new(Trickle(bytes))).unwrap();
            assert_eq!(text.first_line(100).unwrap(), b"sequence,label");
            assert_eq!(text.first_line(5).unwrap(), b"seque");
            let mut line = Vec::new();
            text.read_until(b'\n', &mut line).unwrap();
            assert_eq!(line.trim_ascii_end(), b"sequence,label");
        }
        let (mut text, _) = start(Path::new("-"), Box::new(Trickle(b"\n \r\n>a\nACGT\n"))).unwrap();
        assert_eq!(text.first_line(100).unwrap(), b">a");
        let mut all = String::new();
        text.read_to_string(&mut all).unwrap();
        assert_eq!(all, "\n \r\n>a\nACGT\n");
    }
}
