//! Where lines go: standard output, or a file that is there only once it is whole.

use anyhow::{Context, Result};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vqdna_data::output::{self, TextOutput};

/// Endings of FASTA files.
pub const FASTA: [&str; 8] = [".fa", ".fasta", ".fna", ".ffn", ".frn", ".fas", ".fsa", ".txt"];

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
    if is_stream(path) {
        crate::interrupt::leaves("the output is not whole");
    }
}

/// Whether what is written to a path is seen before the end: on standard output, a pipe or a device.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || (path.exists() && !path.is_file())
}

/// Counts the rows that others see already, so that a program that is stopped can say how many there are.
pub struct RowsSeen {
    is_stream: bool,
    rows: u64,
}

impl RowsSeen {
    /// Of the output at a path.
    pub fn of(path: &Path) -> Self {
        note_stream(path);
        Self { is_stream: is_stream(path), rows: 0 }
    }

    /// A row was written, which `flush` hands on.
    pub fn add(&mut self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_stream {
            flush()?;
            self.rows += 1;
            let rows = crate::words::counted(self.rows, "row");
            crate::interrupt::leaves(format!("{rows} written; the output is not whole"));
        }
        Ok(())
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
