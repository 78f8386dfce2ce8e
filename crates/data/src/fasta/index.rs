//! A FASTA file opened for random access: its index is read, or made and left beside the file for the next time.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use noodles_bgzf::{self as bgzf, gzi::io::Reader as GziReader, gzi::io::Writer as GziWriter};

use super::{
    FastaError,
    fai::{self, Entry},
    gzi,
    reader::name_of,
};
use crate::input::{Compression, InputError, is_stdin, label, open_file, peek, sort};

/// A plain or bgzipped FASTA file with its index.
pub(super) struct Indexed {
    text: Box<dyn Text>,
    entries: Vec<Entry>,
    /// Which entries were found to fit the text.
    is_checked: Vec<bool>,
    /// The number of each entry, by name.
    numbers: HashMap<String, usize>,
    index: PathBuf,
}

/// The uncompressed text of a file; seek only from its start, since bgzip knows no end.
trait Text: BufRead + Seek + Send {}
impl<T: BufRead + Seek + Send> Text for T {}

const STALE: &str = "the index does not fit the sequence file";
const MALFORMED: &str = "is not a valid index";

impl Indexed {
    /// Opens a file; `None` if it can only be read as a stream, for its compression or the shape of its text.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, FastaError> {
        if is_stdin(path) {
            return Ok(None);
        }
        let file = open_file(path)?;
        let unreadable = |source| InputError::Read { file: label(path), source };
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Ok(None);
        }
        let mut file = BufReader::with_capacity(1 << 16, file);
        let compression = Compression::detect(&peek(&mut file, Compression::HEAD).map_err(unreadable)?);
        file.rewind().map_err(unreadable)?;
        let mut text: Box<dyn Text> = match compression {
            Compression::Plain => Box::new(file),
            Compression::Bgzip => {
                let blocks = blocks(path, &mut file)?;
                file.rewind().map_err(unreadable)?;
                Box::new(bgzf::io::IndexedReader::new(file, blocks))
            }
            _ => return Ok(None),
        };
        let damaged = |error| sort(error, label(path), compression);
        if text.fill_buf().map_err(damaged)?.first() != Some(&b'>') {
            return Ok(None);
        }
        let index = beside(path, ".fai");
        let entries = match read_beside(&index)? {
            Some(bytes) => Some(parse_fai(&index, bytes)?),
            None => fai::build(&mut text).map_err(damaged)?.inspect(|entries| {
                write_beside(&index, |file| file.write_all(fai::print(entries).as_bytes()));
            }),
        };
        Ok(entries.map(|entries| Self::new(text, entries, index)))
    }

    fn new(text: Box<dyn Text>, entries: Vec<Entry>, index: PathBuf) -> Self {
        let is_checked = vec![false; entries.len()];
        // Of two entries of one name the first counts.
        let numbers = entries.iter().enumerate().rev().map(|(number, entry)| (entry.name.clone(), number)).collect();
        Self { text, entries, is_checked, numbers, index }
    }

    /// The names of all records.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Number of bases of a record.
    pub(super) fn bases(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).map(|&number| self.entries[number].bases)
    }

    /// Reads a stretch of a record; the index is checked against the text around the record when that is first read.
    pub(super) fn read(&mut self, name: &str, range: Range<u64>) -> Result<Vec<u8>, FastaError> {
        let bases = self.numbers.get(name).copied().and_then(|number| self.read_entry(number, range).ok());
        // Whatever fails here, the index led to it.
        bases.ok_or_else(|| FastaError::Index { index: label(&self.index), fault: STALE })
    }

    fn read_entry(&mut self, number: usize, range: Range<u64>) -> io::Result<Vec<u8>> {
        let entry = &self.entries[number];
        if !self.is_checked[number] {
            check(&mut self.text, entry)?;
            self.is_checked[number] = true;
        }
        bases(&mut self.text, entry, range)
    }
}

/// The blocks of a bgzip file, from its `.gzi` or listed anew.
fn blocks(path: &Path, file: &mut (impl Read + Seek)) -> Result<bgzf::gzi::Index, FastaError> {
    let index = beside(path, ".gzi");
    if let Some(bytes) = read_beside(&index)? {
        let fault = MALFORMED;
        return GziReader::new(&bytes[..]).read_index().map_err(|_| FastaError::Index { index: label(&index), fault });
    }
    let blocks = gzi::build(file).map_err(|error| sort(error, label(path), Compression::Bgzip))?;
    write_beside(&index, |file| GziWriter::new(file).write_index(&blocks));
    Ok(blocks)
}

fn parse_fai(index: &Path, bytes: Vec<u8>) -> Result<Vec<Entry>, FastaError> {
    let entries = String::from_utf8(bytes).ok().and_then(|text| fai::parse(&text));
    entries.ok_or_else(|| FastaError::Index { index: label(index), fault: MALFORMED })
}

fn mismatch() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Checks that the text around a record is what the index describes.
///
/// This is surer than comparing the dates of the two files, which copying and unpacking change.
fn check(text: &mut (impl Text + ?Sized), entry: &Entry) -> io::Result<()> {
    if header_before(text, entry.offset)? != entry.name {
        return Err(mismatch());
    }
    let end = match entry.bases {
        0 => entry.offset,
        bases => entry.offset_of(bases - 1).ok_or_else(mismatch)? + 1,
    };
    let line_end = bytes(text, entry.first_line_end().unwrap_or(0..0))?;
    let has_lines = matches!(&line_end[..], b"\n" | b"\r\n" | b"");
    if has_lines && ends_at(text, end)? { Ok(()) } else { Err(mismatch()) }
}

/// Reads the bases of `range`.
fn bases(text: &mut (impl Text + ?Sized), entry: &Entry, range: Range<u64>) -> io::Result<Vec<u8>> {
    if range.start > range.end || range.end > entry.bases {
        return Err(mismatch());
    }
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let offset_of = |base| entry.offset_of(base).ok_or_else(mismatch);
    let (first, last) = (offset_of(range.start)?, offset_of(range.end - 1)?);
    let mut bases = bytes(text, first..last + 1)?;
    bases.retain(|byte| !matches!(byte, b'\n' | b'\r'));
    if bases.len() as u64 == range.end - range.start && !bases.contains(&b'>') { Ok(bases) } else { Err(mismatch()) }
}

/// The name in the header line that ends at `offset`; empty if there is none.
fn header_before(text: &mut (impl Text + ?Sized), offset: u64) -> io::Result<String> {
    const LONGEST_HEADER: u64 = 1 << 16;
    let lines = bytes(text, offset.saturating_sub(LONGEST_HEADER)..offset)?;
    let Some(lines) = lines.strip_suffix(b"\n") else { return Ok(String::new()) };
    let line = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let header = line.strip_suffix(b"\r").unwrap_or(line).strip_prefix(b">").unwrap_or_default();
    Ok(name_of(header).unwrap_or_default())
}

/// Whether nothing but line ends lies between `offset` and the next record or the end of the text.
fn ends_at(text: &mut (impl Text + ?Sized), offset: u64) -> io::Result<bool> {
    text.seek(SeekFrom::Start(offset))?;
    loop {
        let chunk = text.fill_buf()?;
        match chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(&byte) => return Ok(byte == b'>'),
            None if chunk.is_empty() => return Ok(true),
            None => {
                let blank = chunk.len();
                text.consume(blank);
            }
        }
    }
}

fn bytes(text: &mut (impl Text + ?Sized), range: Range<u64>) -> io::Result<Vec<u8>> {
    text.seek(SeekFrom::Start(range.start))?;
    // Nothing is allocated ahead: a stale index may name a range of any size.
    let mut bytes = Vec::new();
    text.take(range.end - range.start).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == range.end - range.start { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The file of the same name with an ending added: `genome.fa.fai`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn read_beside(index: &Path) -> Result<Option<Vec<u8>>, FastaError> {
    match fs::read(index) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InputError::Read { file: label(index), source }.into()),
    }
}

/// Leaves an index for the next time: written aside and renamed, so that nobody reads half of it.
///
/// Failure is no error, since the index at hand is whole: the folder of a shared genome is often read-only.
fn write_beside(index: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) {
    let folder = index.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut aside = tempfile::Builder::new();
    // Temporary files are private by default; an index is for whoever may read the folder, within the umask.
    #[cfg(unix)]
    aside.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let Ok(mut aside) = aside.tempfile_in(folder) else { return };
    if write(aside.as_file_mut()).is_ok() {
        let _ = aside.persist(index);
    }
}
