//! Files that are read from any place, by several threads at once.

use std::{fs::File, io};

/// A file that is read from any place, by several threads at once.
#[cfg(unix)]
pub struct RandomAccess(File);

#[cfg(unix)]
impl RandomAccess {
    /// A file that was opened for reading.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self(file)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If they cannot be read, or the file ends before.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
    }
}

/// A file that is read from any place, by one thread at a time.
#[cfg(not(unix))]
pub struct RandomAccess(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl RandomAccess {
    /// A file that was opened for reading.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If they cannot be read, or the file ends before.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};

        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}
