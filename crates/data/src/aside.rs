//! Files that are there whole or not at all: written under another name beside their place, then renamed.
//!
//! The file that will be `rows.tsv` is `.rows.tsv.XXXXXX.part` until it is whole, with six random letters or digits. Its writer
//! holds a lock of the operating system on it, which ends with the process however that ends. So a file without a lock has no
//! writer, and the next file of the same name removes it; and [`remove_unfinished`] knows all that this process is writing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, TempPath};

/// A file in the making. Dropped without [`AsideFile::keep`], it leaves no trace; what a killed process left of it, the next
/// [`AsideFile::create`] of the same path removes.
///
/// A device or a named pipe is written as it stands: no file may take its place. A symbolic link stays, and the file that it
/// names is replaced.
pub struct AsideFile {
    target: Target,
    path: PathBuf,
}

enum Target {
    Regular(BufWriter<Unfinished>),
    Special(BufWriter<File>),
}

/// Bytes gathered before they are handed to the system.
const BUFFER: usize = 1 << 16;
/// The end of the names of unfinished files, and the number of random letters and digits before it.
const SUFFIX: &str = ".part";
const RANDOM: usize = 6;

impl AsideFile {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    /// If the path is a folder, or its folder does not exist or cannot be written; [`ErrorKind::Interrupted`] after
    /// [`remove_unfinished`].
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
        remove_stale(folder, name);
        let file = Unfinished::create(folder, name)?;
        Ok(Self { target: Target::Regular(BufWriter::with_capacity(BUFFER, file)), path })
    }

    /// Gives the file its name, in place of any older file of that name; returns its size in bytes (0 for a device or pipe).
    ///
    /// # Errors
    /// If it cannot be completed; [`ErrorKind::Interrupted`] after [`remove_unfinished`].
    pub fn keep(self) -> io::Result<u64> {
        match self.target {
            Target::Regular(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.file.sync_all()?;
                let bytes = file.file.metadata()?.len();
                file.persist(&self.path)?;
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

/// Removes the unfinished files of this process, and lets it begin and complete no other: for the thread that is about to end the
/// process while others are still writing. Returns how many were removed.
pub fn remove_unfinished() -> usize {
    let mut registry = registry();
    registry.is_closed = true;
    std::mem::take(&mut registry.paths).into_iter().filter(|path| std::fs::remove_file(path).is_ok()).count()
}

/// The unfinished files of this process.
#[derive(Default)]
struct Registry {
    paths: BTreeSet<PathBuf>,
    is_closed: bool,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { paths: BTreeSet::new(), is_closed: false });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry, unless the process is about to end.
fn open_registry() -> io::Result<MutexGuard<'static, Registry>> {
    let registry = registry();
    if registry.is_closed { Err(ErrorKind::Interrupted.into()) } else { Ok(registry) }
}

/// A file under its temporary name, registered and locked; both end when it is dropped, which removes it.
struct Unfinished {
    file: File,
    /// Gone once the file has its name.
    path: Option<TempPath>,
}

impl Unfinished {
    fn create(folder: &Path, name: &OsStr) -> io::Result<Self> {
        let prefix = prefix_of(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
        share_with_others(&mut builder);
        loop {
            let mut registry = open_registry()?;
            // The kind alone: the text names the temporary file, which the user does not know.
            let file = builder.tempfile_in(folder).map_err(|error| io::Error::from(error.kind()))?;
            // File systems without locks have no stale files that can be distinguished from others, so none is needed there.
            let _ = file.as_file().lock();
            // Another process may have taken the file for a stale one, and its lock, before this one had it.
            if is_at(file.as_file(), file.path()) {
                registry.paths.insert(file.path().to_owned());
                let (file, path) = NamedTempFile::into_parts(file);
                return Ok(Self { file, path: Some(path) });
            }
        }
    }

    /// Gives the file its name.
    fn persist(mut self, target: &Path) -> io::Result<()> {
        let mut registry = open_registry()?;
        let Some(path) = self.path.take() else { return Ok(()) };
        registry.paths.remove(&*path);
        path.persist(target).map_err(|error| error.error)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            registry().paths.remove(&*path);
        }
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Unfinished {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// How the names of unfinished files of a name begin.
fn prefix_of(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Removes the unfinished files of a name whose writers are gone. What cannot be removed stays: it is in nobody's way.
fn remove_stale(folder: &Path, name: &OsStr) {
    let prefix = prefix_of(name);
    let is_ours = |found: &OsStr| {
        let random = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let random = random.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        random.is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric))
    };
    let Ok(found) = std::fs::read_dir(folder) else { return };
    for entry in found.flatten().filter(|entry| is_ours(&entry.file_name())) {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            remove_if_unlocked(&entry.path());
        }
    }
}

/// Removes a file that no process has locked.
fn remove_if_unlocked(path: &Path) {
    // For writing, which file systems that emulate these locks ask for.
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
    match file.try_lock() {
        // The writer may have given the file its name, and another one begun here, since it was opened.
        Ok(()) if is_at(&file, path) => drop(std::fs::remove_file(path)),
        Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, named) = (file.metadata().map(identity), std::fs::symlink_metadata(path).map(identity));
    matches!((opened, named), (Ok(opened), Ok(named)) if opened == named)
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
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

    /// Names of all files of a folder.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_without_a_writer_is_removed_by_the_next_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let others = [".x.tsv.notes.part", ".x.tsv.bak.AbCd12.part", ".y.tsv.AbCd12.part", "x.tsv.AbCd12.part"];
        for name in [".x.tsv.AbCd12.part"].iter().chain(&others) {
            std::fs::write(folder.path().join(name), "left").unwrap();
        }
        let path = folder.path().join("x.tsv");
        let alive = AsideFile::create(&path).unwrap();
        let second = AsideFile::create(&path).unwrap();
        let found = names(folder.path());
        assert_eq!(found.len(), others.len() + 2, "{found:?}");
        assert!(others.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
        alive.keep().unwrap();
        drop(second);
        assert_eq!(names(folder.path()).len(), others.len() + 1);
    }

    /// In a child process, named by this variable: begins files in a folder, says so, and does as it is told.
    const CHILD: &str = "VQDNA_TEST_ASIDE";

    #[test]
    fn child() {
        let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
        let mut files = ["a.npy", "b.npy"].map(|name| AsideFile::create(&folder.join(name)).unwrap());
        files[0].write_all(&vec![7; 1 << 20]).unwrap();
        std::fs::write(folder.join("ready"), "").unwrap();
        let mut order = String::new();
        io::stdin().read_line(&mut order).unwrap();
        assert_eq!(remove_unfinished(), 2);
        assert_eq!(AsideFile::create(&folder.join("c.npy")).err().unwrap().kind(), ErrorKind::Interrupted);
        let [first, _] = files;
        assert_eq!(first.keep().unwrap_err().kind(), ErrorKind::Interrupted);
    }

    /// Starts [`child`] in a folder, and waits until it has begun its files.
    fn start_child(folder: &Path) -> std::process::Child {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["aside::tests::child", "--exact"]).env(CHILD, folder);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        while !folder.join("ready").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child ended early");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        std::fs::remove_file(folder.join("ready")).unwrap();
        child
    }

    #[test]
    fn files_of_a_killed_process_are_removed_and_those_of_a_live_one_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start_child(folder.path());
        let path = folder.path().join("a.npy");
        write_aside(&path, b"mine").unwrap();
        assert_eq!(names(folder.path()).len(), 3, "the files of the live child, and this one");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names(folder.path()).len(), 3, "a killed process removes nothing");
        for name in ["a.npy", "b.npy"] {
            write_aside(&folder.path().join(name), b"mine").unwrap();
        }
        assert_eq!(names(folder.path()), ["a.npy", "b.npy"]);
    }

    #[test]
    fn all_unfinished_files_are_removed_at_once_and_none_appears_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start_child(folder.path());
        assert_eq!(names(folder.path()).len(), 2);
        child.stdin.take().unwrap().write_all(b"end\n").unwrap();
        assert!(child.wait().unwrap().success());
        assert!(names(folder.path()).is_empty());
    }
}
