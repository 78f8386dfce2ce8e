//! Genomes to codes and back, of any size, in bounded memory.
//!
//! A genome is cut into pieces with exactly the context that a code can see ([`encode`]), and decoded likewise ([`decode`]).
//! Codes are those of the whole sequence in one piece, bit for bit, whatever the piece, batch, shard and number of threads:
//! a position sees all it would see in the whole, and the kernels sum it in the same order wherever it stands. The same holds for the
//! ids of tokenizers that were not learned ([`fixed`]).

pub mod decode;
pub mod encode;
pub mod fixed;
mod pieces;
mod rows;

use std::path::PathBuf;
use vqdna_data::codes::{CodesError, ShardNumber};
use vqdna_data::fasta::FastaError;

/// Why a genome was not transcoded.
#[derive(Debug, thiserror::Error)]
pub enum TranscodeError {
    /// See [`FastaError`].
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// See [`CodesError`].
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Interrupted,
    /// A shard of standard input, which cannot be read twice.
    #[error("--shard reads its input twice, to find its share of the bases; standard input cannot be read twice")]
    ShardOfStdin,
    /// A region of several files.
    #[error("--region needs exactly one FASTA file, not {0}")]
    RegionOfMany(usize),
    /// A shard of a region.
    #[error("--region and --shard cannot be combined")]
    ShardOfRegion,
    /// Codes of another vocabulary.
    #[error("{} was written with another vocabulary (its {what} is {found}, this one's is {expected})", path.display())]
    OtherVocabulary {
        /// The file of codes.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the file.
        found: String,
        /// In the model.
        expected: String,
    },
    /// The original does not hold what was decoded.
    #[error("the original has no bases {start}..{end} of `{record}` (0-based), so accuracy cannot be measured")]
    NotInOriginal {
        /// Name of the record.
        record: String,
        /// First base.
        start: u64,
        /// Behind the last base.
        end: u64,
    },
    /// A spooled original cannot be read, or output cannot be written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// Whether a row that starts at `offset` of `total` bases belongs to a shard: one of equal shares, by bases.
fn holds(shard: ShardNumber, offset: u64, total: u64) -> bool {
    let place = u128::from(offset) * u128::from(shard.count) / u128::from(total.max(1));
    place + 1 == u128::from(shard.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_every_row_once() {
        for count in [1, 3, 7] {
            let total = 100_000;
            for offset in (0..total).step_by(16_384) {
                let holders = (1..=count).filter(|&index| holds(ShardNumber { index, count }, offset, total));
                assert_eq!(holders.count(), 1);
            }
        }
    }
}
