//! Files that are there whole or not at all: written beside their place, then renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file in the making. Dropped without [`AsideFile::keep`], it leaves no trace.
///
/// A device or a named pipe is written as it stands: a file must not take its place.
pub struct AsideFile {
    file: File,
    aside: Option<PathBuf>,
    path: PathBuf,
    kept: bool,
}

impl AsideFile {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if path.exists() && !path.is_file() {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { file, aside: None, path: path.to_owned(), kept: false });
        }
        let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
        let aside = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        Ok(Self { file: File::create(&aside)?, aside: Some(aside), path: path.to_owned(), kept: false })
    }

    /// Gives the file its name, in place of any older one.
    ///
    /// # Errors
    /// If it cannot be completed.
    pub fn keep(mut self) -> io::Result<()> {
        if let Some(aside) = &self.aside {
            self.file.sync_all()?;
            std::fs::rename(aside, &self.path)?;
        }
        self.kept = true;
        Ok(())
    }
}

impl Write for AsideFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AsideFile {
    fn drop(&mut self) {
        if let (false, Some(aside)) = (self.kept, &self.aside) {
            let _ = std::fs::remove_file(aside);
        }
    }
}

/// Writes a whole file this way.
///
/// # Errors
/// If the folder does not exist or cannot be written.
pub fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AsideFile::create(path)?;
    file.write_all(bytes)?;
    file.keep()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let mut file = AsideFile::create(&path).expect("created");
        file.write_all(b"half").expect("written");
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
        write_aside(&path, b"whole").expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"whole");
        assert!(AsideFile::create(folder.path()).is_err(), "a folder is no file");
    }
}
