//! Files that are there whole or not at all: written under another name beside their place, then renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file in the making. Dropped without [`AsideFile::keep`], it leaves no trace.
///
/// A device or a named pipe is written as it stands: no file may take its place. A symbolic link stays, and the file that it
/// names is replaced.
pub struct AsideFile {
    target: Target,
    path: PathBuf,
}

enum Target {
    Regular(BufWriter<NamedTempFile>),
    Special(BufWriter<File>),
}

/// Bytes gathered before they are handed to the system.
const BUFFER: usize = 1 << 16;

impl AsideFile {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    /// If the path is a folder, or its folder does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if path.exists() && !path.is_file() {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { target: Target::Special(BufWriter::with_capacity(BUFFER, file)), path: path.into() });
        }
        // A link that leads nowhere yet is replaced like a file.
        let path = if path.is_symlink() { path.canonicalize().unwrap_or_else(|_| path.into()) } else { path.into() };
        let name = path.file_name().ok_or_else(|| io::Error::other("not the name of a file"))?;
        // A path without a folder lies in the current one, which an empty path would not name.
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.exists() {
            return Err(io::Error::new(ErrorKind::NotFound, "its folder does not exist"));
        }
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        share_with_others(&mut builder);
        // The kind alone: the text names the file aside, which nobody asked for.
        let file = builder.tempfile_in(folder).map_err(|error| io::Error::from(error.kind()))?;
        Ok(Self { target: Target::Regular(BufWriter::with_capacity(BUFFER, file)), path })
    }

    /// Gives the file its name, in place of any older file of that name; returns its size in bytes (0 for a device or pipe).
    ///
    /// # Errors
    /// If it cannot be completed.
    pub fn keep(self) -> io::Result<u64> {
        match self.target {
            Target::Regular(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                let bytes = file.as_file().metadata()?.len();
                file.persist(&self.path).map_err(|error| error.error)?;
                Ok(bytes)
            }
            Target::Special(mut file) => file.flush().map(|()| 0),
        }
    }

    /// Path that the file will have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for AsideFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Regular(file) => file.write(bytes),
            Target::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Regular(file) => file.flush(),
            Target::Special(file) => file.flush(),
        }
    }
}

impl Seek for AsideFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.target {
            Target::Regular(file) => file.seek(to),
            Target::Special(file) => file.seek(to),
        }
    }
}

/// Writes a whole file this way.
///
/// # Errors
/// If its folder does not exist or cannot be written.
pub fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AsideFile::create(path)?;
    file.write_all(bytes)?;
    file.keep().map(drop)
}

/// Lets the umask decide who may read the file: temporary files are private by default, results are not.
#[cfg(unix)]
fn share_with_others(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn share_with_others(_: &mut tempfile::Builder<'_, '_>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_file_replaces_the_older_and_a_dropped_one_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        std::fs::write(&path, "old").unwrap();

        let mut dropped = AsideFile::create(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");

        let mut kept = AsideFile::create(&path).unwrap();
        kept.write_all(b"whole").unwrap();
        assert_eq!(kept.keep().unwrap(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_kept_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [plain, kept] = ["plain", "kept"].map(|name| folder.path().join(name));
        std::fs::write(&plain, "").unwrap();
        write_aside(&kept, b"").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&kept), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| folder.path().join(name));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_aside(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_missing_folder_and_a_folder_as_target_are_errors_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let message = AsideFile::create(&folder.path().join("none/x.tsv")).err().unwrap().to_string();
        assert!(message.contains("folder does not exist"), "{message}");
        assert!(AsideFile::create(folder.path()).is_err());
    }
}
