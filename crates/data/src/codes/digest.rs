//! What a file of codes says of its own rows, so that damage is found that leaves every number in its range.

use super::Row;

/// The digest of rows in their order: BLAKE3 over names, places and codes, the same in every format.
#[derive(Default)]
pub(super) struct Digest {
    hasher: blake3::Hasher,
    /// Bytes of one row; kept for its memory.
    bytes: Vec<u8>,
}

impl Digest {
    /// Takes in the next row.
    pub(super) fn add(&mut self, row: &Row) {
        self.bytes.clear();
        for number in [row.record.len() as u64, row.start, row.end] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.extend_from_slice(row.record.as_bytes());
        self.bytes.extend_from_slice(row.strand.to_string().as_bytes());
        for codes in &row.codes {
            self.bytes.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
        }
        self.hasher.update(&self.bytes);
    }

    /// The digest of the rows so far, in hexadecimal.
    pub(super) fn text(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}
