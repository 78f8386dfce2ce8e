//! Where lines go: standard output, or a file that is there only once it is whole.

use anyhow::{Context, Result};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vqdna_data::output::{self, TextOutput};

/// A text in the making, compressed as its name says.
pub struct Output {
    text: TextOutput,
    path: PathBuf,
}

impl Output {
    /// Begins a file whose name has one of these endings, or for `-` standard output.
    pub fn create(path: &Path, endings: &[&'static str]) -> Result<Self> {
        output::ending(path, endings)?;
        note_stream(path);
        let text = TextOutput::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { text, path: path.to_owned() })
    }

    /// Makes it whole.
    pub fn finish(self) -> Result<()> {
        self.text.finish().with_context(|| format!("cannot write to {}", self.path.display()))
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
        self.text.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.text.flush()
    }
}
