//! One input, opened: its bytes counted and hashed, decompressed, and positioned at the first record.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use needletail::parser::{FastaReader, FastqReader, FastxReader};
use serde::{Deserialize, Serialize};

use super::{Compression, FastaError};

/// What was read from one input, for the record of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// The path as given; `-` for standard input.
    pub path: String,
    /// Number of bytes, compressed if the input is.
    pub bytes: u64,
    /// BLAKE3 digest of those bytes, in hexadecimal.
    pub blake3: String,
    /// Number of records.
    pub records: u64,
    /// Number of letters in all sequences.
    pub bases: u64,
}

/// The block that ends every whole bgzip file.
const BGZIP_END: [u8; 28] =
    *b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00BC\x02\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// An input, positioned at its first record.
pub(super) struct Source {
    pub(super) file: Arc<str>,
    pub(super) format: Format,
    pub(super) parser: Box<dyn FastxReader>,
    /// Lines before the first record, which the parser does not see.
    pub(super) lines_skipped: u64,
    path: String,
    compression: Compression,
    tally: Arc<Mutex<Tally>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Fasta,
    Fastq,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, FastaError> {
        let bytes: Box<dyn Read + Send> =
            if is_stdin(path) { Box::new(io::stdin()) } else { Box::new(open_file(path)?) };
        let tally = Arc::new(Mutex::new(Tally::default()));
        let file = label(path);
        Self::start(path, file.clone(), bytes, &tally).map_err(|error| match error {
            Start::Io(error, compression) => sort(error, file, compression),
            Start::Fasta(error) => error,
        })
    }

    fn start(
        path: &Path,
        file: Arc<str>,
        bytes: Box<dyn Read + Send>,
        tally: &Arc<Mutex<Tally>>,
    ) -> Result<Self, Start> {
        let mut bytes = BufReader::with_capacity(1 << 17, Counted { bytes, tally: tally.clone() });
        let head = peek(&mut bytes, Compression::HEAD).map_err(|error| Start::Io(error, Compression::Plain))?;
        let compression = Compression::detect(&head);
        let fail = |error| Start::Io(error, compression);

        let text = compression.decode(Cursor::new(head).chain(bytes)).map_err(fail)?;
        let mut text = BufReader::with_capacity(1 << 16, Watched { text, tally: tally.clone() });
        let mark = peek(&mut text, BYTE_ORDER_MARK.len()).map_err(fail)?;
        let mark = if mark == BYTE_ORDER_MARK { Vec::new() } else { mark };
        let mut text = Cursor::new(mark).chain(text);
        let (lines_skipped, first) = skip_blank_lines(&mut text).map_err(fail)?;

        let (format, parser): (_, Box<dyn FastxReader>) = match first {
            // The parser takes a header at the very end of its input for a cut record; with blank lines after it, it is what
            // it should be, a record without bases.
            Some(b'>') => (Format::Fasta, Box::new(FastaReader::new(text.chain(&b"\n\n"[..])))),
            Some(b'@') => (Format::Fastq, Box::new(FastqReader::new(text))),
            Some(found) => {
                return Err(Start::Fasta(FastaError::UnknownFormat { file, line: lines_skipped + 1, found }));
            }
            None => return Err(Start::Fasta(FastaError::Empty { file })),
        };
        let path = path.to_string_lossy().into_owned();
        Ok(Self { file, format, parser, lines_skipped, path, compression, tally: tally.clone() })
    }

    /// The error behind a parser's report that reading failed; the parser itself keeps only its text.
    pub(super) fn read_error(&self, message: &str) -> FastaError {
        let error = lock(&self.tally).error.take().unwrap_or_else(|| io::Error::other(message.to_owned()));
        sort(error, self.file.clone(), self.compression)
    }

    /// Checks that the input ended where it should and sums it up; to be called when the parser has reached the end.
    pub(super) fn finish(self, records: u64, bases: u64) -> Result<InputDigest, FastaError> {
        let tally = lock(&self.tally);
        if self.compression == Compression::Bgzip && tally.tail != BGZIP_END {
            return Err(FastaError::Truncated { file: self.file, compression: self.compression });
        }
        let blake3 = tally.hasher.finalize().to_hex().to_string();
        Ok(InputDigest { path: self.path, bytes: tally.bytes, blake3, records, bases })
    }
}

/// Opens a file for reading, with errors in plain words.
pub(super) fn open_file(path: &Path) -> Result<File, FastaError> {
    check_exists(path)?;
    File::open(path).map_err(|source| FastaError::Read { file: label(path), source })
}

/// Checks that a path names something that could be read; `-` always does.
pub(super) fn check_exists(path: &Path) -> Result<(), FastaError> {
    if is_stdin(path) {
        return Ok(());
    }
    let file = label(path);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(FastaError::Folder { file }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FastaError::Missing { file }),
        Err(source) => Err(FastaError::Read { file, source }),
    }
}

/// Whether a path stands for standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages name it.
pub(super) fn label(path: &Path) -> Arc<str> {
    if is_stdin(path) { "standard input".into() } else { path.to_string_lossy().into() }
}

/// Takes up to `count` bytes off a reader; fewer only at its end.
pub(super) fn peek(reader: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(count);
    reader.take(count as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The three bytes some editors put before UTF-8 text.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

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

/// An error while opening.
enum Start {
    Io(io::Error, Compression),
    Fasta(FastaError),
}

/// Tells a cut or damaged input from a failing disk.
pub(super) fn sort(error: io::Error, file: Arc<str>, compression: Compression) -> FastaError {
    match error.kind() {
        _ if compression == Compression::Plain || error.raw_os_error().is_some() => {
            FastaError::Read { file, source: error }
        }
        io::ErrorKind::UnexpectedEof => FastaError::Truncated { file, compression },
        _ => FastaError::Corrupt { file, compression, source: error },
    }
}

/// What passed through a source, shared between the readers inside the parser and the [`Source`] that owns the parser.
#[derive(Default)]
struct Tally {
    hasher: blake3::Hasher,
    bytes: u64,
    /// The last bytes of the input, as many as the bgzip end block has.
    tail: Vec<u8>,
    error: Option<io::Error>,
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts and hashes the bytes of an input as they are read.
struct Counted<R> {
    bytes: R,
    tally: Arc<Mutex<Tally>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        let mut tally = lock(&self.tally);
        let read = &buffer[..count];
        tally.hasher.update(read);
        tally.bytes += count as u64;
        tally.tail.extend_from_slice(&read[count.saturating_sub(BGZIP_END.len())..]);
        let surplus = tally.tail.len().saturating_sub(BGZIP_END.len());
        tally.tail.drain(..surplus);
        Ok(count)
    }
}

/// Keeps the error that ends the text, because the parser passes on only its message.
struct Watched<R> {
    text: R,
    tally: Arc<Mutex<Tally>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                lock(&self.tally).error = Some(error);
            }
            kind.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn start(bytes: &'static [u8]) -> Result<Source, String> {
        let tally = Arc::default();
        let source = Source::start(Path::new("-"), "standard input".into(), Box::new(Trickle(bytes)), &tally);
        source.map_err(|error| match error {
            Start::Io(error, _) => error.to_string(),
            Start::Fasta(error) => error.to_string(),
        })
    }

    #[test]
    fn a_slow_pipe_is_read_as_a_file() {
        // `printf '\n>a\nACGT\n' | gzip`.
        const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xe3\xb2\x4b\xe4\x72\x74\x76\x0f\xe1\x02\x00\x69\xd7\xdf\xc8\x09\x00\x00\x00";
        for bytes in [&b"\n>a\nACGT\n"[..], b"\xef\xbb\xbf\n>a\nACGT", GZIP] {
            let mut source = start(bytes).unwrap_or_else(|message| panic!("{message}"));
            assert_eq!(source.lines_skipped, 1);
            assert_eq!(source.parser.next().unwrap().unwrap().raw_seq().trim_ascii(), b"ACGT");
            assert!(source.parser.next().is_none());
            let digest = source.finish(1, 4).unwrap();
            assert_eq!((digest.bytes, digest.blake3), (bytes.len() as u64, blake3::hash(bytes).to_string()));
        }
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
