//! Where a table goes: standard output, or a file that is there only once it is whole.

use anyhow::{Context, Result};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};
use vqdna_data::aside::AsideFile;

/// A table in the making.
pub enum Output {
    /// Standard output.
    Stdout(BufWriter<StdoutLock<'static>>),
    /// A file.
    File(AsideFile, PathBuf),
}

impl Output {
    /// Begins a file, or for `-` standard output.
    pub fn create(path: &Path) -> Result<Self> {
        note_stream(path);
        if path == Path::new("-") {
            return Ok(Self::Stdout(BufWriter::new(io::stdout().lock())));
        }
        let file = AsideFile::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self::File(file, path.to_owned()))
    }

    /// Makes it whole.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(Into::into),
            Self::File(file, path) => {
                file.keep().map(drop).with_context(|| format!("cannot write to {}", path.display()))
            }
        }
    }
}

/// Says what a program that is stopped leaves, if `path` is standard output, a pipe or a device: a part, where a file would be whole or
/// not there.
pub fn note_stream(path: &Path) {
    if path == Path::new("-") || (path.exists() && !path.is_file()) {
        crate::interrupt::leaves("the output is not whole");
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out, _) => out.flush(),
        }
    }
}
