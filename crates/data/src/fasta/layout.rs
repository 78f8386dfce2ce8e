//! The text of a record against what an index says of its lines.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Range;

use super::{fai::Entry, reader::name_of, source::LONGEST_HEADER};

/// The uncompressed text of a file.
pub(super) struct Body {
    pub(super) text: Box<dyn Text>,
    /// Its bytes.
    pub(super) bytes: u64,
}

/// Sought only from its start, since bgzip knows no end.
pub(super) trait Text: BufRead + Seek + Send {}
impl<T: BufRead + Seek + Send> Text for T {}

/// Why a stretch could not be read.
pub(super) enum Trouble {
    /// The text is not what the index describes.
    Stale(&'static str),
    /// The text cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const NO_HEADER: &str = "no header of this name stands before the record";
const OTHER_LINES: &str = "the lines of the record have other lengths";
const TOO_SHORT: &str = "the file ends before";
const OTHER_END: &str = "the record does not end where it should";
const OVERLAP: &str = "two records overlap";
const MORE_BEFORE: &str = "the file begins with another record";
const MORE_BEHIND: &str = "the file goes on behind the last record";

/// Bytes before a stretch, within its line, and behind it, in which a line must not end: all of them for lines of usual length.
const AROUND: u64 = 1 << 12;

impl Body {
    /// The bytes of a range.
    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>, Trouble> {
        let wanted = range.end.saturating_sub(range.start);
        // So nothing is read that is not there: a stale index may name a range of any size.
        if range.end > self.bytes {
            return Err(Trouble::Stale(TOO_SHORT));
        }
        self.text.seek(SeekFrom::Start(range.start))?;
        let mut bytes = Vec::new();
        (&mut self.text).take(wanted).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
    }

    /// The first byte from `offset` on that is no blank; `None` at the end of the text.
    fn next_filled(&mut self, offset: u64) -> Result<Option<u8>, Trouble> {
        if offset > self.bytes {
            return Err(Trouble::Stale(TOO_SHORT));
        }
        self.text.seek(SeekFrom::Start(offset))?;
        loop {
            let chunk = self.text.fill_buf()?;
            let blank = chunk.len();
            match chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(&byte) => return Ok(Some(byte)),
                None if chunk.is_empty() => return Ok(None),
                None => self.text.consume(blank),
            }
        }
    }

    /// The header line that ends at `offset`, without its end, and where it begins.
    fn header_before(&mut self, offset: u64) -> Result<(Vec<u8>, u64), Trouble> {
        let mut bytes = 1 << 9;
        loop {
            let start = offset.saturating_sub(bytes);
            let mut found = self.bytes(start..offset)?;
            if found.pop() != Some(b'\n') {
                return Err(Trouble::Stale(NO_HEADER));
            }
            let begin = found.iter().rposition(|&byte| byte == b'\n').map(|before| before + 1);
            match begin {
                None if start > 0 && bytes <= LONGEST_HEADER => bytes *= 2,
                None if start > 0 => return Err(Trouble::Stale(NO_HEADER)),
                begin => {
                    let begin = begin.unwrap_or(0);
                    found.pop_if(|last| *last == b'\r');
                    return Ok((found.split_off(begin.min(found.len())), start + begin as u64));
                }
            }
        }
    }
}

/// Checks that the records of an index do not overlap, and that the text has none before the first and behind the last.
pub(super) fn check_ends(body: &mut Body, entries: &[Entry]) -> Result<(), Trouble> {
    let mut in_order: Vec<&Entry> = entries.iter().collect();
    in_order.sort_by_key(|entry| entry.offset);
    let (Some(first), Some(last)) = (in_order.first(), in_order.last()) else { return Ok(()) };
    let is_before = |pair: &[&Entry]| pair[0].end().is_some_and(|end| end < pair[1].offset);
    if !in_order.windows(2).all(is_before) {
        return Err(Trouble::Stale(OVERLAP));
    }
    if body.header_before(first.offset.min(body.bytes))?.1 > 0 {
        return Err(Trouble::Stale(MORE_BEFORE));
    }
    match body.next_filled(last.end().ok_or(Trouble::Stale(TOO_SHORT))?)? {
        Some(_) => Err(Trouble::Stale(MORE_BEHIND)),
        None => Ok(()),
    }
}

/// Checks that a record begins and ends where the index says.
pub(super) fn check_record(body: &mut Body, entry: &Entry) -> Result<(), Trouble> {
    if entry.bases > 0 && entry.line_end().is_none() {
        return Err(Trouble::Stale(OTHER_LINES));
    }
    let end = entry.end().ok_or(Trouble::Stale(TOO_SHORT))?;
    let header = match entry.offset {
        // A header without a line end closes the text.
        offset if offset == body.bytes && entry.bases == 0 => last_header(body, offset)?,
        offset => body.header_before(offset)?.0,
    };
    let name = header.strip_prefix(b">").and_then(|header| name_of(header).ok());
    if name.as_ref() != Some(&entry.name) {
        return Err(Trouble::Stale(NO_HEADER));
    }
    match body.next_filled(end)? {
        None => Ok(()),
        // The first letter of a line.
        Some(b'>') if end == entry.offset || body.bytes(end..end + 1)? != b">" => Ok(()),
        Some(_) => Err(Trouble::Stale(OTHER_END)),
    }
}

/// The header that the text ends with, with or without a line end.
fn last_header(body: &mut Body, offset: u64) -> Result<Vec<u8>, Trouble> {
    if body.bytes(offset.saturating_sub(1)..offset)? == b"\n" {
        return Ok(body.header_before(offset)?.0);
    }
    let mut bytes = body.bytes(offset.saturating_sub(LONGEST_HEADER)..offset)?;
    let begin = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |before| before + 1);
    Ok(bytes.split_off(begin))
}

/// Checks all lines of a record: one more or less before a stretch would shift all that follows.
pub(super) fn check_lines(body: &mut Body, entry: &Entry) -> Result<(), Trouble> {
    let mut lines = Lines::of(entry, 0)?;
    body.text.seek(SeekFrom::Start(entry.offset))?;
    while lines.bases_left > 0 {
        let chunk = body.text.fill_buf()?;
        if chunk.is_empty() {
            return Err(Trouble::Stale(TOO_SHORT));
        }
        let count = chunk.len();
        lines.check(chunk, |_| {})?;
        body.text.consume(count);
    }
    Ok(())
}

/// Reads the letters of a range of a record, and checks the lines they stand in.
pub(super) fn letters(body: &mut Body, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>, Trouble> {
    if range.start > range.end || range.end > entry.bases {
        return Err(Trouble::Stale(OTHER_LINES));
    }
    if range.is_empty() {
        return Ok(Vec::new());
    }
    // From the start of its first line to the end of its last, so that a line of another length shows.
    let first = range.start - (range.start % entry.line_bases).min(AROUND);
    let rest = (entry.line_bases - range.end % entry.line_bases) % entry.line_bases;
    let last = range.end.saturating_add(rest.min(AROUND)).min(entry.bases) - 1;
    let offset_of = |base| entry.offset_of(base).ok_or(Trouble::Stale(TOO_SHORT));
    let end = offset_of(last)?.saturating_add(1).saturating_add(entry.line_width - entry.line_bases);
    let found = body.bytes(offset_of(first)?..end.min(body.bytes))?;
    let mut lines = Lines::of(entry, first)?;
    let mut letters = Vec::with_capacity(found.len());
    lines.check(&found, |part| letters.extend_from_slice(part))?;
    let before = usize::try_from(range.start - first).map_err(io::Error::other)?;
    let wanted = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    if letters.len() < before + wanted {
        return Err(Trouble::Stale(TOO_SHORT));
    }
    letters.drain(..before);
    letters.truncate(wanted);
    Ok(letters)
}

/// Goes along the lines of a record as the index describes them.
struct Lines {
    line_bases: u64,
    line_end: &'static [u8],
    bases_left: u64,
    /// Bases that are left of this line.
    in_line: u64,
    /// Bytes of the line's end that have been met.
    in_end: usize,
}

impl Lines {
    /// The lines from a base on.
    fn of(entry: &Entry, base: u64) -> Result<Self, Trouble> {
        let line_end = entry.line_end().unwrap_or_default();
        let bases_left = entry.bases - base;
        let in_line = base.checked_rem(entry.line_bases).map_or(0, |within| entry.line_bases - within);
        let lines = Self { line_bases: entry.line_bases, line_end, bases_left, in_line, in_end: 0 };
        // A line without an end can have none behind it.
        if line_end.is_empty() && bases_left > in_line { Err(Trouble::Stale(OTHER_LINES)) } else { Ok(lines) }
    }

    /// Goes on over the next bytes of the text, up to the last base, and hands out the letters among them.
    fn check(&mut self, mut bytes: &[u8], mut letters: impl FnMut(&[u8])) -> Result<(), Trouble> {
        while self.bases_left > 0 && !bytes.is_empty() {
            let count = self.in_line.min(self.bases_left).min(bytes.len() as u64);
            if count == 0 {
                if bytes[0] != self.line_end[self.in_end] {
                    return Err(Trouble::Stale(OTHER_LINES));
                }
                bytes = &bytes[1..];
                self.in_end += 1;
                if self.in_end == self.line_end.len() {
                    (self.in_end, self.in_line) = (0, self.line_bases);
                }
                continue;
            }
            // At most the length of a slice.
            let (line, rest) = bytes.split_at(usize::try_from(count).unwrap_or(bytes.len()));
            // All in one pass without a branch, as this reads whole chromosomes.
            if line.iter().fold(0, |found, &byte| found | u8::from(byte <= b' ') | u8::from(byte == b'>')) > 0 {
                return Err(Trouble::Stale(OTHER_LINES));
            }
            letters(line);
            self.bases_left -= count;
            self.in_line -= count;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fai;
    use super::*;

    /// A text whose disk fails.
    struct Failing;

    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }

    impl BufRead for Failing {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Err(io::Error::from_raw_os_error(5))
        }

        fn consume(&mut self, _: usize) {}
    }

    impl Seek for Failing {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn a_failing_disk_is_no_stale_index() {
        let entry = fai::parse(b"a\t100\t3\t60\t61\n").unwrap().remove(0);
        let mut body = Body { text: Box::new(Failing), bytes: 1000 };
        let is_disk = |trouble| matches!(trouble, Trouble::Io(error) if error.raw_os_error() == Some(5));
        assert!(check_record(&mut body, &entry).is_err_and(is_disk));
        assert!(check_lines(&mut body, &entry).is_err_and(is_disk));
        assert!(letters(&mut body, &entry, 10..90).is_err_and(is_disk));
    }

    #[test]
    fn lines_are_followed_from_any_base_and_in_any_pieces() {
        let text = b"ACGT\r\nTTGG\r\nCA\r\n";
        let entry = fai::parse(b"a\t10\t0\t4\t6\n").unwrap().remove(0);
        for (base, offset) in [(0, 0), (3, 3), (4, 6), (9, 13)] {
            for step in [1, 2, 5, 20] {
                let mut lines = Lines::of(&entry, base).ok().unwrap();
                let mut found = Vec::new();
                for chunk in text[offset..].chunks(step) {
                    assert!(lines.check(chunk, |part| found.extend_from_slice(part)).is_ok());
                }
                assert_eq!(found, b"ACGTTTGGCA"[usize::try_from(base).unwrap()..]);
            }
        }
        let mut lines = Lines::of(&entry, 0).ok().unwrap();
        assert!(lines.check(b"ACGT\nTTGG\r\n", |_| {}).is_err());
    }
}
