//! Bytes end to end, in memory or, beyond a limit, in a temporary file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use crate::random_access::RandomAccess;

/// The bytes, ready to be read from anywhere.
pub(super) enum Store {
    Memory(Vec<u8>),
    Spooled(RandomAccess),
}

impl Store {
    /// Fills `buffer` with the bytes from `offset` on; all of them must exist.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
                let found = rest.and_then(|rest| rest.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(found);
                Ok(())
            }
            Self::Spooled(file) => file.read(offset, buffer),
        }
    }
}

/// A store that still grows.
pub(super) struct Builder {
    limit: u64,
    bytes: u64,
    place: Place,
}

enum Place {
    Memory(Vec<u8>),
    File(BufWriter<File>),
}

impl Builder {
    /// An empty store that keeps at most `limit` bytes in memory.
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, place: Place::Memory(Vec::new()) }
    }

    /// Adds bytes at the end; returns the offset of the first.
    pub(super) fn push(&mut self, added: &[u8]) -> io::Result<u64> {
        let offset = self.bytes;
        self.bytes += added.len() as u64;
        if let Place::Memory(kept) = &mut self.place {
            if self.bytes <= self.limit {
                reserve(kept, added.len(), self.limit);
                kept.extend_from_slice(added);
                return Ok(offset);
            }
            let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
            file.write_all(kept)?;
            self.place = Place::File(file);
        }
        if let Place::File(file) = &mut self.place {
            file.write_all(added)?;
        }
        Ok(offset)
    }

    /// Ends the growth.
    pub(super) fn finish(self) -> io::Result<Store> {
        Ok(match self.place {
            Place::Memory(bytes) => Store::Memory(bytes),
            Place::File(file) => {
                Store::Spooled(RandomAccess::new(file.into_inner().map_err(io::IntoInnerError::into_error)?))
            }
        })
    }
}

/// Grows by doubling, but never beyond the limit: a plain `Vec` could take twice what it holds.
fn reserve(kept: &mut Vec<u8>, added: usize, limit: u64) {
    let needed = kept.len() + added;
    if needed > kept.capacity() {
        let doubled = needed.max(2 * kept.capacity()).min(usize::try_from(limit).unwrap_or(usize::MAX));
        kept.reserve_exact(doubled - kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_read_back_from_either_place() {
        for limit in 0..8 {
            let mut builder = Builder::new(limit);
            assert_eq!([b"ab".as_slice(), b"", b"cdef"].map(|bytes| builder.push(bytes).unwrap()), [0, 2, 2]);
            let store = builder.finish().unwrap();
            assert_eq!(matches!(store, Store::Memory(_)), limit >= 6);
            let mut buffer = [0; 3];
            store.read(1, &mut buffer).unwrap();
            assert_eq!(&buffer, b"bcd");
            assert!(store.read(4, &mut buffer).is_err());
        }
    }

    #[test]
    fn memory_stays_within_the_limit() {
        let mut kept = Vec::new();
        for _ in 0..100 {
            reserve(&mut kept, 10, 1000);
            kept.extend_from_slice(&[0; 10]);
            assert!(kept.capacity() <= 1000);
        }
    }
}
