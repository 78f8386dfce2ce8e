//! A file that is written under another name and takes its own only when it is complete.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::CodesError;

/// A file in the making, beside the path it will have; dropped, it leaves no trace.
pub(super) struct Aside {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl Aside {
    /// Begins the file that will be `path`.
    pub(super) fn create(path: &Path) -> Result<Self, CodesError> {
        if path.is_dir() {
            return Err(CodesError::io(path, "write codes here")(io::ErrorKind::IsADirectory.into()));
        }
        // A path without a folder lies in the current one, which an empty path would not name.
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&name).suffix(".part");
        share_with_others(&mut builder);
        let file = builder.tempfile_in(folder).map_err(CodesError::io(path, "create the file in this folder"))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 16, file), path: path.into() })
    }

    /// Gives the file its name, in place of any older file of that name; returns its size in bytes.
    pub(super) fn keep(self) -> Result<u64, CodesError> {
        let fail = |source| CodesError::io(&self.path, "complete the file")(source);
        let file = self.file.into_inner().map_err(|error| fail(error.into_error()))?;
        let bytes = file.as_file().metadata().map_err(fail)?.len();
        file.persist(&self.path).map_err(|error| fail(error.error))?;
        Ok(bytes)
    }

    /// Path that the file will have.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Aside {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
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

        let mut dropped = Aside::create(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");

        let mut kept = Aside::create(&path).unwrap();
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
        Aside::create(&kept).unwrap().keep().unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&kept), mode(&plain));
    }

    #[test]
    fn a_missing_folder_and_a_folder_as_target_are_errors_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/x.tsv");
        let message = Aside::create(&missing).err().unwrap().to_string();
        assert!(message.contains("none/x.tsv: cannot create"), "{message}");
        assert!(Aside::create(folder.path()).is_err());
    }
}
