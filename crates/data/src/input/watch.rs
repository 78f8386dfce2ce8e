//! What passes through an input is counted and hashed, and its errors are kept.

use std::{
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Compression, InputDigest, InputError, label, sort};

/// Knows what has been read from an input, while a parser holds the text itself.
pub struct Watch {
    /// The input as messages name it.
    pub file: Arc<str>,
    pub(super) compression: Compression,
    path: String,
    tally: Arc<Mutex<Tally>>,
}

/// What passed through an input.
#[derive(Default)]
struct Tally {
    hasher: blake3::Hasher,
    bytes: u64,
    error: Option<io::Error>,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        let (file, path) = (label(path), path.to_string_lossy().into_owned());
        Self { file, compression: Compression::Plain, path, tally: Arc::default() }
    }

    /// How the input is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Bytes read so far, compressed if the input is; more than the text that was taken stands for, by what waits in between.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        lock(&self.tally).bytes
    }

    /// The error that ended the text; `error` is what a parser passed on of it, often no more than its message.
    #[must_use]
    pub fn explain(&self, error: io::Error) -> InputError {
        let error = lock(&self.tally).error.take().unwrap_or(error);
        sort(error, self.file.clone(), self.compression)
    }

    /// Sums the input up; to be called when its text has been read to the end.
    ///
    /// # Errors
    /// If an error ended the text, and the parser that met it took it for the end.
    pub fn finish(self, records: u64, bases: u64) -> Result<InputDigest, InputError> {
        let mut tally = lock(&self.tally);
        if let Some(error) = tally.error.take() {
            return Err(sort(error, self.file, self.compression));
        }
        let blake3 = tally.hasher.finalize().to_hex().to_string();
        Ok(InputDigest { path: self.path, bytes: tally.bytes, blake3, records, bases })
    }

    /// Counts and hashes bytes as they are read.
    pub(super) fn over_bytes(&self, bytes: Box<dyn Read + Send>) -> Counted {
        Counted { bytes, tally: self.tally.clone() }
    }

    /// Keeps the error that ends the text.
    pub(super) fn over_text(&self, text: Box<dyn Read + Send>) -> Watched {
        Watched { text, tally: self.tally.clone() }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of an input.
pub(super) struct Counted {
    bytes: Box<dyn Read + Send>,
    tally: Arc<Mutex<Tally>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        let mut tally = lock(&self.tally);
        tally.hasher.update(&buffer[..count]);
        tally.bytes += count as u64;
        Ok(count)
    }
}

/// The text of an input.
pub(super) struct Watched {
    text: Box<dyn Read + Send>,
    tally: Arc<Mutex<Tally>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                lock(&self.tally).error = Some(error);
            }
            kind.into()
        })
    }
}
