//! The stream of records of one or several inputs.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use needletail::{
    errors::{ParseError, ParseErrorKind},
    parser::SequenceRecord,
};

use super::{
    FastaError, Record, RecordFault,
    source::{Format, LONGEST_HEADER, Source},
};
use crate::input::{InputDigest, Text, Watch, check_exists, readable};

/// The records of one or several inputs, in order, one in memory at a time.
///
/// Ends after the first error. Two records of one name are an error, within a file and across files; for that, the names of
/// all records so far are kept, unless [names may repeat](Records::with_repeated_names).
pub struct Records {
    waiting: VecDeque<PathBuf>,
    current: Option<Current>,
    /// File and line of every record so far, by name; `None` if names may repeat.
    names: Option<HashMap<String, (Arc<str>, u64)>>,
    digests: Vec<InputDigest>,
}

/// The input being read, and what came from it so far.
struct Current {
    source: Source,
    records: u64,
    bases: u64,
}

/// Opens one input; `-` is standard input.
///
/// # Errors
/// If the input cannot be opened, is empty, or does not start like FASTA or FASTQ. The iterator yields the errors of its records.
pub fn read(path: &Path) -> Result<Records, FastaError> {
    read_all(&[path])
}

/// Opens several inputs, to be read one after the other; `-` is standard input.
///
/// # Errors
/// As [`read`] for the first input; for the others, if they do not exist.
pub fn read_all<P: AsRef<Path>>(paths: &[P]) -> Result<Records, FastaError> {
    // A mistyped third name should not show only after the first two genomes are read.
    paths.iter().try_for_each(|path| check_exists(path.as_ref()))?;
    let waiting = paths.iter().map(|path| path.as_ref().to_owned()).collect();
    let mut records = Records { waiting, current: None, names: Some(HashMap::new()), digests: Vec::new() };
    records.open_next()?;
    Ok(records)
}

/// The records of an input that was opened and not read from; see [`read`].
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(text: Text, watch: Watch) -> Result<Records, FastaError> {
    let source = Source::start(text, watch)?;
    let mut records = read_all::<&Path>(&[])?;
    records.current = Some(Current { source, records: 0, bases: 0 });
    Ok(records)
}

impl Iterator for Records {
    type Item = Result<Record, FastaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record().transpose();
        if matches!(next, Some(Err(_))) {
            self.waiting.clear();
            self.current = None;
        }
        next
    }
}

impl Records {
    /// Lets several records have one name, as the two reads of a pair do; then no name is kept, however many records there are.
    /// For work that does not file its results under names.
    #[must_use]
    pub fn with_repeated_names(mut self) -> Self {
        self.names = None;
        self
    }

    /// Whether the record that was returned last stands in FASTQ, so that it is a read and not a contig.
    #[must_use]
    pub fn is_fastq(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.source.format == Format::Fastq)
    }

    /// What was read from each input, in order; an input is added when its last record has been read.
    #[must_use]
    pub fn digests(&self) -> &[InputDigest] {
        &self.digests
    }

    fn open_next(&mut self) -> Result<(), FastaError> {
        self.current = match self.waiting.pop_front() {
            Some(path) => Some(Current { source: Source::open(&path)?, records: 0, bases: 0 }),
            None => None,
        };
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<Record>, FastaError> {
        while let Some(current) = &mut self.current {
            if let Some((line, record)) = current.next_record()? {
                self.check_name(&record, line)?;
                return Ok(Some(record));
            }
            if let Some(Current { source, records, bases }) = self.current.take() {
                self.digests.push(source.finish(records, bases)?);
            }
            self.open_next()?;
        }
        Ok(None)
    }

    fn check_name(&mut self, record: &Record, line: u64) -> Result<(), FastaError> {
        let Some(names) = &mut self.names else { return Ok(()) };
        match names.entry(record.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert((record.file.clone(), line));
                Ok(())
            }
            Entry::Occupied(entry) => {
                let (record, file) = (record.name.clone(), record.file.clone());
                let (first_file, first_line) = entry.get().clone();
                Err(FastaError::Duplicate { record, file, line, first_file, first_line })
            }
        }
    }
}

impl Current {
    /// The next record and the line it starts on, counted from 1.
    fn next_record(&mut self) -> Result<Option<(u64, Record)>, FastaError> {
        let Source { file, format, parser, lines_skipped, .. } = &mut self.source;
        let parsed = match parser.next() {
            None => return Ok(None),
            Some(Ok(parsed)) => parsed,
            Some(Err(error)) => return Err(self.explain(&error)),
        };
        let line = *lines_skipped + parsed.start_line_number();
        let (name, bases) = match format {
            Format::Fasta => name_of(parsed.id()).map(|name| (name, without_blanks(parsed.raw_seq()))),
            Format::Fastq => name_of(parsed.id()).and_then(|name| {
                check_fastq(&parsed).map_err(|fault| (Some(name.clone()), fault))?;
                Ok((name, parsed.raw_seq().to_vec()))
            }),
        }
        .map_err(|(record, fault)| FastaError::Record { file: file.clone(), line, record, fault })?;
        self.records += 1;
        self.bases += bases.len() as u64;
        Ok(Some((line, Record { name, bases, start: 0, file: file.clone() })))
    }

    /// The parser's error in our words.
    fn explain(&self, error: &ParseError) -> FastaError {
        // The parser gives the bytes and counts of an error in its message only.
        let found = || error.msg.split_once("found '").map(|(_, found)| found.to_owned()).unwrap_or_default();
        let number = |word: usize| error.msg.split(' ').filter_map(|word| word.parse().ok()).nth(word).unwrap_or(0);
        let fault = match error.kind {
            ParseErrorKind::Io if let Some(line) = self.source.long_header() => {
                let (file, fault) = (self.source.file.clone(), RecordFault::LongHeader(LONGEST_HEADER));
                return FastaError::Record { file, line, record: None, fault };
            }
            ParseErrorKind::Io | ParseErrorKind::EmptyFile | ParseErrorKind::UnknownFormat => {
                return self.source.read_error(&error.msg).into();
            }
            ParseErrorKind::InvalidStart => RecordFault::Start(found()),
            ParseErrorKind::InvalidSeparator => RecordFault::Separator(found()),
            ParseErrorKind::UnequalLengths => RecordFault::QualityCount { bases: number(0), qualities: number(1) },
            ParseErrorKind::UnexpectedEnd => RecordFault::CutOff,
        };
        let line = self.source.lines_skipped + error.position.line;
        let record =
            error.position.id.as_deref().and_then(|header| header.split_whitespace().next()).map(str::to_owned);
        FastaError::Record { file: self.source.file.clone(), line, record, fault }
    }
}

/// The name that a header gives, its first word, or what is wrong with it.
pub(super) fn name_of(header: &[u8]) -> Result<String, (Option<String>, RecordFault)> {
    if header.contains(&b'\r') {
        return Err((None, RecordFault::CarriageReturn));
    }
    let name = first_word(header);
    if name.is_empty() {
        return Err((None, RecordFault::NoName));
    }
    let name = readable(name).into_owned();
    if name.contains(char::is_control) { Err((None, RecordFault::NotText)) } else { Ok(name) }
}

/// The first word of a header; empty if it holds none.
pub(super) fn first_word(header: &[u8]) -> &[u8] {
    header.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty()).unwrap_or_default()
}

/// A FASTA sequence without line ends, and without the blanks some programs write every ten bases.
fn without_blanks(lines: &[u8]) -> Vec<u8> {
    let mut bases = Vec::with_capacity(lines.len());
    for line in lines.split(|&byte| byte == b'\n') {
        for word in line.trim_ascii().split(|byte| matches!(byte, b' ' | b'\t')) {
            bases.extend_from_slice(word);
        }
    }
    bases
}

/// Checks what the parser leaves out, for speed: the name after the `+`, and that qualities are printable.
fn check_fastq(record: &SequenceRecord<'_>) -> Result<(), RecordFault> {
    let separator = record.all().splitn(4, |&byte| byte == b'\n').nth(2).unwrap_or_default().trim_ascii_end();
    match separator {
        [b'+'] => {}
        [b'+', name @ ..] if name == record.id().trim_ascii_end() => {}
        _ => return Err(RecordFault::SeparatorName),
    }
    match record.qual().unwrap_or_default().iter().find(|quality| !quality.is_ascii_graphic()) {
        Some(&quality) => Err(RecordFault::Quality(quality)),
        None => Ok(()),
    }
}
