//! The `.fai` index of samtools: where each sequence lies in the text, and how long its lines are.
//!
//! Written out here because an index must describe records without bases too, which the common reader and indexer refuse.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, Read},
};

use super::{
    IndexFault,
    reader::{first_word, name_of},
    source::LONGEST_HEADER,
};
use crate::input::readable;

/// Where one sequence lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name as [`readable`] gives it.
    pub(super) name: String,
    /// The bytes of the name.
    raw: Vec<u8>,
    /// Number of bases.
    pub(super) bases: u64,
    /// Offset of the first base in the uncompressed text, in bytes.
    pub(super) offset: u64,
    /// Bases of a full line; 0 if there are no bases.
    pub(super) line_bases: u64,
    /// Bytes of a full line, with its end.
    pub(super) line_width: u64,
}

impl Entry {
    /// Offset of a base in the text, in bytes; `None` if it exceeds all files.
    pub(super) fn offset_of(&self, base: u64) -> Option<u64> {
        let lines = base.checked_div(self.line_bases)?;
        let within = base % self.line_bases;
        lines.checked_mul(self.line_width)?.checked_add(within)?.checked_add(self.offset)
    }

    /// Offset behind the last base, in bytes; `None` if it exceeds all files.
    pub(super) fn end(&self) -> Option<u64> {
        self.bases.checked_sub(1).map_or(Some(self.offset), |last| self.offset_of(last)?.checked_add(1))
    }

    /// What ends a full line; `None` if no text has such lines.
    pub(super) fn line_end(&self) -> Option<&'static [u8]> {
        match self.line_width.checked_sub(self.line_bases)? {
            // The only line of a record that ends the text.
            0 => Some(b""),
            1 => Some(b"\n"),
            2 => Some(b"\r\n"),
            _ => None,
        }
    }
}

/// Reads an index.
///
/// # Errors
/// If it lists nothing, a line is malformed, or a name is listed twice.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Entry>, IndexFault> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut first_lines = HashMap::new();
    for (line, bytes) in (1..).zip(text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n')) {
        if text.is_empty() {
            return Err(IndexFault::Empty);
        }
        let entry = parse_line(bytes.strip_suffix(b"\r").unwrap_or(bytes)).ok_or(IndexFault::Line { line })?;
        if let Some(first) = first_lines.insert(entry.name.clone(), line) {
            return Err(IndexFault::Twice { name: entry.name, first, line });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b'\t');
    let raw = fields.next()?.to_vec();
    let mut number = || {
        let digits = fields.next().filter(|field| field.iter().all(u8::is_ascii_digit))?;
        str::from_utf8(digits).ok()?.parse::<u64>().ok()
    };
    let (bases, offset, line_bases, line_width) = (number()?, number()?, number()?, number()?);
    let entry = Entry { name: readable(&raw).into_owned(), raw, bases, offset, line_bases, line_width };
    let has_lines = entry.line_bases > 0 && entry.line_width >= entry.line_bases;
    (fields.next().is_none() && (has_lines || entry.bases == 0)).then_some(entry)
}

/// Writes an index.
pub(super) fn print(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for Entry { raw, bases, offset, line_bases, line_width, .. } in entries {
        text.extend_from_slice(raw);
        text.extend_from_slice(format!("\t{bases}\t{offset}\t{line_bases}\t{line_width}\n").as_bytes());
    }
    text
}

/// Makes the index of a FASTA text.
///
/// `None` if the text is not one an index can describe: lines of different lengths within a record, blanks within lines,
/// repeated or malformed names, endless headers, no FASTA at all.
pub(super) fn build(text: &mut impl BufRead) -> io::Result<Option<Vec<Entry>>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut names = HashSet::new();
    let mut offset = 0;
    // Whether the current record can have no further line, because one was shorter than the others.
    let mut is_complete = false;
    while let Some(line) = next_line(text)? {
        offset += line.width;
        match (line.header, entries.last_mut()) {
            (Some(header), _) => {
                let header = header.strip_suffix(b"\r").unwrap_or(&header);
                let name = name_of(header).ok().filter(|name| names.insert(name.clone()));
                let Some(name) = name else { return Ok(None) };
                let raw = first_word(header).to_vec();
                entries.push(Entry { name, raw, bases: 0, offset, line_bases: 0, line_width: 0 });
                is_complete = false;
            }
            (None, Some(_)) if line.bases == 0 => is_complete = true,
            (None, Some(entry)) => {
                if entry.line_bases == 0 {
                    (entry.line_bases, entry.line_width) = (line.bases, line.width);
                }
                if is_complete || line.has_blank || line.bases > entry.line_bases {
                    return Ok(None);
                }
                is_complete = (line.bases, line.width) != (entry.line_bases, entry.line_width);
                entry.bases += line.bases;
            }
            (None, None) => return Ok(None),
        }
    }
    Ok(Some(entries))
}

/// The shape of one line.
#[derive(Default)]
struct Line {
    /// Bytes, with the line's end.
    width: u64,
    /// Bytes, without the line's end.
    bases: u64,
    has_blank: bool,
    /// What follows the `>`, without the line feed, if it is a header.
    header: Option<Vec<u8>>,
}

/// Measures the next line without holding it: a chromosome may be written on one.
fn next_line(text: &mut impl BufRead) -> io::Result<Option<Line>> {
    if text.fill_buf()?.first() == Some(&b'>') {
        let mut header = Vec::new();
        // A header that is longer loses its end here, so that no name is found in it.
        let width = Read::take(&mut *text, LONGEST_HEADER + 2).read_until(b'\n', &mut header)? as u64;
        if width > LONGEST_HEADER + 1 {
            header.clear();
            header.push(b'>');
        }
        header.remove(0);
        header.pop_if(|last| *last == b'\n');
        return Ok(Some(Line { width, header: Some(header), ..Line::default() }));
    }
    let mut line = Line::default();
    let mut last = 0;
    loop {
        let chunk = text.fill_buf()?;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let bytes = &chunk[..end.unwrap_or(chunk.len())];
        line.has_blank |= bytes.iter().any(|byte| matches!(byte, b' ' | b'\t'));
        line.bases += bytes.len() as u64;
        last = bytes.last().copied().unwrap_or(last);
        let read = bytes.len() + usize::from(end.is_some());
        line.width += read as u64;
        text.consume(read);
        if end.is_some() || read == 0 {
            line.bases -= u64::from(last == b'\r');
            return Ok((line.width > 0).then_some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::io::BufReader;

    fn index(text: &[u8]) -> Option<String> {
        // A tiny buffer, so that lines lie across its ends.
        let entries = build(&mut BufReader::with_capacity(3, text)).unwrap();
        entries.map(|entries| String::from_utf8(print(&entries)).unwrap())
    }

    #[test]
    fn lines_are_measured() {
        let text = b">a b\nACGT\nACGT\nAC\n>none\n>crlf\r\nACG\r\nA\r\n\r\n>end\nAC";
        let expected = "a\t10\t5\t4\t5\nnone\t0\t24\t0\t0\ncrlf\t4\t31\t3\t5\nend\t2\t46\t2\t2\n";
        assert_eq!(index(text).as_deref(), Some(expected));
        assert_eq!(print(&parse(expected.as_bytes()).unwrap()), expected.as_bytes());
    }

    #[test]
    fn it_is_the_index_others_make() {
        let text = b">sq0\nACGT\n>sq1 x\nNNNN\nNNNN\nNN\n>sq2\r\nAC\r\nG\r\n";
        let mut other = noodles_fasta::io::Indexer::new(&text[..]);
        let mut expected = String::new();
        while let Some(record) = other.index_record().unwrap() {
            let (line_bases, line_width) = (record.line_base_count(), record.line_width());
            writeln!(
                expected,
                "{}\t{}\t{}\t{line_bases}\t{line_width}",
                record.name(),
                record.length(),
                record.position()
            )
            .unwrap();
        }
        assert_eq!(index(text), Some(expected));
    }

    #[test]
    fn uneven_texts_have_no_index() {
        for text in [
            &b">a\nAC\nACG\n"[..],
            b">a\nACG\nAC\nACG\n",
            b">a\nAC\n\nAC\n",
            b">a\nAC GT\n",
            b"ACGT\n",
            b">\nA\n",
            b">a\n>a\n",
        ] {
            assert_eq!(index(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn names_that_are_not_utf8_stay_as_they_are() {
        let text = b">caf\xe9\nACGT\n>caf\xe8 x\nAC\n";
        let printed = print(&build(&mut &text[..]).unwrap().unwrap());
        assert_eq!(printed, b"caf\xe9\t4\t6\t4\t5\ncaf\xe8\t2\t19\t2\t3\n");
        let names: Vec<_> = parse(&printed).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["caf\\xE9", "caf\\xE8"]);
    }

    #[test]
    fn malformed_indexes_are_refused() {
        let good = "a\t1\t2\t60\t61";
        for line in [
            "a",
            "a\t1\t2\t3",
            "a\t1\t2\t0\t0",
            "a\t1\t2\t60\t59",
            "a\t1\t2\tx\t61",
            "a\t1\t2\t60\t61\t9",
            "",
            "a\t+1\t2\t60\t61",
        ] {
            assert_eq!(parse(format!("{good}\n{line}\n").as_bytes()), Err(IndexFault::Line { line: 2 }), "{line}");
        }
        assert_eq!(parse(b""), Err(IndexFault::Empty));
        let twice = format!("{good}\nb\t1\t9\t60\t61\n{good}\n");
        assert_eq!(parse(twice.as_bytes()), Err(IndexFault::Twice { name: "a".into(), first: 1, line: 3 }));
        assert_eq!(parse(good.as_bytes()).unwrap().len(), 1, "a last line needs no end");
    }

    #[test]
    fn bases_are_found_across_line_ends() {
        let entry =
            Entry { name: String::new(), raw: Vec::new(), bases: 100, offset: 7, line_bases: 10, line_width: 12 };
        assert_eq!([0, 9, 10, 25].map(|base| entry.offset_of(base)), [Some(7), Some(16), Some(19), Some(36)]);
        assert_eq!(Entry { line_width: u64::MAX, ..entry }.offset_of(50), None);
    }
}
