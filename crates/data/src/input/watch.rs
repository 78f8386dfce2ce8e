//! What passes through an input is counted and hashed, and its errors are kept.

use std::{
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Compression, InputDigest, InputError, label, sort};

/// The block that ends every whole bgzip file.
const BGZIP_END: [u8; 28] =
    *b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00BC\x02\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";

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
    /// The last bytes of the input, as many as the bgzip end block has.
    tail: Vec<u8>,
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

    /// Checks that the input ended where it should and sums it up; to be called when its text has been read to the end.
    ///
    /// # Errors
    /// If the end of a bgzip file is missing.
    pub fn finish(self, records: u64, bases: u64) -> Result<InputDigest, InputError> {
        let tally = lock(&self.tally);
        if self.compression == Compression::Bgzip && tally.tail != BGZIP_END {
            return Err(InputError::Truncated { file: self.file, compression: self.compression });
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
        let read = &buffer[..count];
        tally.hasher.update(read);
        tally.bytes += count as u64;
        tally.tail.extend_from_slice(&read[count.saturating_sub(BGZIP_END.len())..]);
        let surplus = tally.tail.len().saturating_sub(BGZIP_END.len());
        tally.tail.drain(..surplus);
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
