//! Opens what a path names, a file or standard input: decompressed, counted and hashed as it is read.
//!
//! Compression is told by content, never by the name. Reading and watching are apart, because parsers take the text and keep it.
//!
//! ```
//! use std::{io::Read, path::Path};
//! use vqdna_data::input;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("rows.csv");
//! std::fs::write(&path, "sequence,label\nACGT,1\n")?;
//! let (mut text, watch) = input::open(&path)?;
//! let mut all = String::new();
//! text.read_to_string(&mut all)?;
//! assert_eq!(watch.finish(1, 4)?.bytes, all.len() as u64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compression;
mod error;
mod lines;
mod readable;
mod text;
mod watch;

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use compression::Compression;
pub use error::InputError;
pub(crate) use error::{excerpt, sort};
pub use lines::Lines;
pub(crate) use readable::readable;
pub use text::Text;
pub use watch::Watch;

/// What was read from one input, for the record of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// The path as given; `-` for standard input.
    pub path: String,
    /// Number of bytes, compressed if the input is.
    pub bytes: u64,
    /// BLAKE3 digest of those bytes, in hexadecimal.
    pub blake3: String,
    /// Number of records, or of rows.
    pub records: u64,
    /// Number of letters in all sequences.
    pub bases: u64,
}

/// Opens a file, or standard input for `-`: its text, and what watches over it.
///
/// # Errors
/// If there is no such file or it cannot be read.
pub fn open(path: &Path) -> Result<(Text, Watch), InputError> {
    let bytes: Box<dyn Read + Send> = if is_stdin(path) { Box::new(io::stdin()) } else { Box::new(open_file(path)?) };
    start(path, bytes)
}

/// Begins to read `bytes`; `path` is where they come from.
pub(crate) fn start(path: &Path, bytes: Box<dyn Read + Send>) -> Result<(Text, Watch), InputError> {
    let mut watch = Watch::new(path);
    let mut bytes = BufReader::with_capacity(1 << 17, watch.over_bytes(bytes));
    let head = peek(&mut bytes, Compression::HEAD).map_err(|error| watch.explain(error))?;
    watch.compression = Compression::detect(&head);
    let text = watch.compression.decode(Cursor::new(head).chain(bytes)).map_err(|error| watch.explain(error))?;
    let text = Text::new(watch.over_text(text)).map_err(|error| watch.explain(error))?;
    if text.is_utf16() { Err(InputError::Utf16 { file: watch.file }) } else { Ok((text, watch)) }
}

/// Opens a file for reading, with errors in plain words.
pub(crate) fn open_file(path: &Path) -> Result<File, InputError> {
    check_exists(path)?;
    File::open(path).map_err(|source| InputError::Read { file: label(path), source })
}

/// Checks that a path names something that could be read; `-` always does.
pub(crate) fn check_exists(path: &Path) -> Result<(), InputError> {
    if is_stdin(path) {
        return Ok(());
    }
    let file = label(path);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(InputError::Folder { file }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(InputError::Missing { file }),
        Err(source) => Err(InputError::Read { file, source }),
    }
}

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages name it.
pub(crate) fn label(path: &Path) -> Arc<str> {
    if is_stdin(path) { "standard input".into() } else { path.to_string_lossy().into() }
}

/// Takes up to `count` bytes off a reader; fewer only at its end.
pub(crate) fn peek(reader: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(count);
    reader.take(count as u64).read_to_end(&mut head)?;
    Ok(head)
}
