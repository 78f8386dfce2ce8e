//! A FASTA file opened for random access: its index is read, or made and left beside the file for the next time.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, Seek, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use noodles_bgzf::{self as bgzf, gzi::io::Writer as GziWriter};

use super::{
    FastaError, IndexFault,
    fai::{self, Entry},
    gzi::{self, Blocks},
    layout::{self, Body, Trouble},
};
use crate::{
    aside::AsideFile,
    input::{Compression, InputError, is_stdin, label, open_file, peek, sort},
};

/// A plain or bgzipped FASTA file with its index.
pub(super) struct Indexed {
    path: PathBuf,
    compression: Compression,
    body: Body,
    entries: Vec<Entry>,
    /// Which entries were found to fit the text.
    is_checked: Vec<bool>,
    /// The number of each entry, by name.
    numbers: HashMap<String, usize>,
    index: Found,
    /// The list of blocks, if it was found beside the file.
    blocks: Option<(PathBuf, bgzf::gzi::Index)>,
}

/// An index beside a file.
struct Found {
    path: PathBuf,
    /// Whether it was there before.
    is_read: bool,
    /// Whether the file may have been written after it.
    may_be_stale: bool,
}

const OTHER_BLOCKS: &str = "its blocks are not those of the file";

impl Indexed {
    /// Opens a file; `None` if it can only be read as a stream, for its compression or the shape of its text.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, FastaError> {
        if is_stdin(path) {
            return Ok(None);
        }
        let file = open_file(path)?;
        let unreadable = |source| InputError::Read { file: label(path), source };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut file = BufReader::with_capacity(1 << 16, file);
        let compression = Compression::detect(&peek(&mut file, Compression::HEAD).map_err(unreadable)?);
        file.rewind().map_err(unreadable)?;
        let mut blocks = None;
        let mut body = match compression {
            Compression::Plain => Body { text: Box::new(file), bytes: metadata.len() },
            Compression::Bgzip => {
                let Some((found, Blocks { index, text })) = list_blocks(path, &mut file)? else { return Ok(None) };
                blocks = found.map(|found| (found, index.clone()));
                file.rewind().map_err(unreadable)?;
                Body { text: Box::new(bgzf::io::IndexedReader::new(file, index)), bytes: text }
            }
            _ => return Ok(None),
        };
        let damaged = |error| sort(error, label(path), compression);
        if body.text.fill_buf().map_err(damaged)?.first() != Some(&b'>') {
            return Ok(None);
        }
        let mut index = Found::beside(path, ".fai");
        let entries = match index.read()? {
            Some(bytes) => fai::parse(&bytes).map_err(|fault| index.fault(fault))?,
            None => match fai::build(&mut body.text).map_err(damaged)? {
                Some(entries) => {
                    index.write(|file| file.write_all(&fai::print(&entries)));
                    entries
                }
                None => return Ok(None),
            },
        };
        let is_checked = vec![false; entries.len()];
        let numbers = entries.iter().enumerate().map(|(number, entry)| (entry.name.clone(), number)).collect();
        let mut indexed = Self { path: path.into(), compression, body, entries, is_checked, numbers, index, blocks };
        layout::check_ends(&mut indexed.body, &indexed.entries).map_err(|trouble| indexed.explain(trouble))?;
        Ok(Some(indexed))
    }

    /// The names of all records.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Number of bases of a record.
    pub(super) fn bases(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).map(|&number| self.entries[number].bases)
    }

    /// The index that was found beside the file, as messages name it; `None` if it was made from the file.
    pub(super) fn found(&self) -> Option<Arc<str>> {
        self.index.is_read.then(|| label(&self.index.path))
    }

    /// Reads a stretch of a record that exists. The index is checked against the text around the record when that is first read,
    /// and against all of its text if the file may be newer.
    pub(super) fn read(&mut self, name: &str, range: Range<u64>) -> Result<Vec<u8>, FastaError> {
        let letters = match self.numbers.get(name) {
            Some(&number) => self.read_entry(number, range),
            None => Err(Trouble::Stale("it does not list the record")),
        };
        letters.map_err(|trouble| self.explain(trouble))
    }

    fn read_entry(&mut self, number: usize, range: Range<u64>) -> Result<Vec<u8>, Trouble> {
        let entry = &self.entries[number];
        if !self.is_checked[number] {
            layout::check_record(&mut self.body, entry)?;
            if self.index.is_read && self.index.may_be_stale {
                layout::check_lines(&mut self.body, entry)?;
            }
            self.is_checked[number] = true;
        }
        layout::letters(&mut self.body, entry, range)
    }

    /// What to say of trouble with the text: which file is at fault.
    fn explain(&self, trouble: Trouble) -> FastaError {
        // A wrong list of blocks leads everything else astray.
        if let Some((path, listed)) = &self.blocks
            && let Ok(mut file) = File::open(&self.path).map(BufReader::new)
            && let Ok(Some(blocks)) = gzi::build(&mut file)
            && !gzi::lists(listed, &blocks)
        {
            return FastaError::Index { index: label(path), fault: IndexFault::Stale(OTHER_BLOCKS) };
        }
        match trouble {
            Trouble::Stale(what) => self.index.fault(IndexFault::Stale(what)),
            Trouble::Io(error) => sort(error, label(&self.path), self.compression).into(),
        }
    }
}

/// The blocks of a bgzip file, from its `.gzi`, whose path is given too, or listed anew; `None` if the file has others too.
fn list_blocks(path: &Path, file: &mut BufReader<File>) -> Result<Option<(Option<PathBuf>, Blocks)>, FastaError> {
    let mut index = Found::beside(path, ".gzi");
    let listed = match index.read()? {
        Some(bytes) => Some(gzi::parse(&bytes).ok_or_else(|| index.fault(IndexFault::Blocks))?),
        None => None,
    };
    if let Some(listed) = &listed
        && !index.may_be_stale
        && let Ok(Some(blocks)) = gzi::continued(file, listed.clone())
    {
        return Ok(Some((Some(index.path), blocks)));
    }
    let Some(blocks) = gzi::build(file).map_err(|error| sort(error, label(path), Compression::Bgzip))? else {
        return Ok(None);
    };
    match listed {
        Some(listed) if !gzi::lists(&listed, &blocks) => Err(index.fault(IndexFault::Stale(OTHER_BLOCKS))),
        Some(_) => Ok(Some((None, blocks))),
        None => {
            index.write(|file| GziWriter::new(file).write_index(&blocks.index));
            Ok(Some((None, blocks)))
        }
    }
}

impl Found {
    /// The file of the same name with an ending added: `genome.fa.fai`.
    fn beside(path: &Path, ending: &str) -> Self {
        let mut name = OsString::from(path);
        name.push(ending);
        let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let written: (Option<SystemTime>, _) = (written(path), written(Path::new(&name)));
        // Clocks of files tick slowly, so one tick may hold both.
        let may_be_stale = written.0.zip(written.1).is_none_or(|(file, index)| index <= file);
        Self { path: name.into(), is_read: false, may_be_stale }
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, FastaError> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                self.is_read = true;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(InputError::Read { file: label(&self.path), source }.into()),
        }
    }

    /// Leaves an index for the next time.
    ///
    /// Failure is no error, since the index at hand is whole: the folder of a shared genome is often read-only.
    fn write(&self, write: impl FnOnce(&mut AsideFile) -> io::Result<()>) {
        let Ok(mut file) = AsideFile::create(&self.path) else { return };
        if write(&mut file).is_ok() {
            let _ = file.keep();
        }
    }

    fn fault(&self, fault: IndexFault) -> FastaError {
        FastaError::Index { index: label(&self.path), fault }
    }
}
