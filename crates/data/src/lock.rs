//! Folders that one process writes to at a time.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use same_file::Handle;

/// Name of the file that is locked, in the folder.
pub const NAME: &str = ".lock";

/// Bytes of a lock file that are looked at: it holds a process id.
const MOST: u64 = 32;

/// A folder that this process alone writes to, until this is dropped.
///
/// The lock is the operating system's, on a file `.lock` in the folder. It ends with the process, however that ends: a `.lock` that a
/// killed process left behind holds nobody up, and the next one removes it. On a file system without locks (some network file systems)
/// the folder is taken without one, see [`FolderLock::is_held`].
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    file: Option<File>,
    /// Folders that were made for it, innermost first.
    made: Vec<PathBuf>,
}

/// A folder that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use: another run{} is writing to it; wait until it ends, or choose another folder",
        folder.display(),
        process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process, if it is known.
        process: Option<u32>,
    },
    /// The folder cannot be made or written.
    #[error("cannot write to {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl FolderLock {
    /// Takes a folder, which is made if it is missing.
    ///
    /// # Errors
    /// If another process has it, or it cannot be made or written. Nothing is left behind then.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { folder: folder.to_owned(), source };
        let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = folder.ancestors().take_while(missing).map(Path::to_owned).collect();
        let mut lock = Self { path: folder.join(NAME), file: None, made };
        std::fs::create_dir_all(folder).map_err(failed)?;
        loop {
            // A link or a pipe of that name would lock something elsewhere, or wait for ever.
            if lock.path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(failed(io::Error::other(format!("`{NAME}` is no plain file"))));
            }
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock.path);
            let mut file = open.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // The folders are those of whoever has it.
                    lock.made.clear();
                    return Err(LockError::Held { folder: folder.to_owned(), process: process(&mut file) });
                }
                Err(TryLockError::Error(_)) => {
                    drop(file);
                    let _ = std::fs::remove_file(&lock.path);
                    return Ok(lock);
                }
            }
            // Whoever had it may have removed the file between the two calls above: another process may lock a new one.
            let same = || Ok::<_, io::Error>(Handle::from_file(file.try_clone()?)? == Handle::from_path(&lock.path)?);
            if same().unwrap_or(false) {
                let text = format!("{}\n", std::process::id());
                file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
                file.write_all(text.as_bytes()).map_err(failed)?;
                lock.file = Some(file);
                held().insert(lock.path.clone());
                return Ok(lock);
            }
        }
    }

    /// Whether the operating system holds a lock; not on a file system that knows none.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // While it is locked, so that nobody else has it open and locked.
            let _ = std::fs::remove_file(&self.path);
            held().remove(&self.path);
            drop(file);
        }
        for folder in &self.made {
            // Fails if something is in it by now, which is then not ours to remove.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Removes the lock files of this process: for the thread that is about to end the process while runs go on. The locks end with it.
pub fn remove_all() {
    for path in std::mem::take(&mut *held()) {
        let _ = std::fs::remove_file(path);
    }
}

/// The lock files of this process.
fn held() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process that a lock file names.
fn process(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_has_one_owner_at_a_time_and_no_trace_of_it_afterwards() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let first = FolderLock::take(&folder).unwrap();
        assert!(first.is_held());
        let message = FolderLock::take(&folder).unwrap_err().to_string();
        for part in [folder.display().to_string(), "in use".to_owned(), format!("process {}", std::process::id())] {
            assert!(message.contains(&part), "{message}");
        }
        assert_eq!(names(&folder), [NAME], "a refused one leaves all as it was");
        std::fs::write(folder.join("log"), "").unwrap();
        drop(first);
        assert_eq!(names(&folder), ["log"]);
        std::fs::remove_file(folder.join("log")).unwrap();
        drop(FolderLock::take(&folder).unwrap());
        assert!(folder.exists(), "it was there before");
        assert_eq!(names(&folder), Vec::<String>::new());
    }

    #[test]
    fn folders_that_were_made_and_stay_empty_go_again() {
        let place = tempfile::tempdir().unwrap();
        drop(FolderLock::take(&place.path().join("a/b")).unwrap());
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn a_lock_that_a_dead_process_left_holds_nobody_up() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(NAME), "a longer text than a process id\n".repeat(9)).unwrap();
        let lock = FolderLock::take(place.path()).unwrap();
        assert_eq!(std::fs::read_to_string(place.path().join(NAME)).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn of_many_at_once_one_has_it() {
        let place = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Ok(_lock) = FolderLock::take(place.path()) {
                            let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert_eq!(before, 0, "two have it");
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("x"), "").unwrap();
        for path in ["x", "x/y"] {
            let error = FolderLock::take(&place.path().join(path)).unwrap_err();
            assert!(matches!(error, LockError::Io { .. }), "{error}");
        }
        assert_eq!(names(place.path()), ["x"]);
    }
}
