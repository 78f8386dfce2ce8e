//! Fixed tokenizers: those of published models, and byte-pair encoding that is trained here. On the host, without any tensor.
//!
//! | kind | tokens | ids of | context of a piece |
//! | --- | --- | --- | --- |
//! | [`Character`] | single bases | HyenaDNA or MxDNA | none |
//! | [`Kmer`] | overlapping k-mers | DNABERT | k − 1 bases after it |
//! | [`Blocks`] | non-overlapping k-mers | Nucleotide Transformer | ends on the grid of its run of bases without N |
//! | [`Bpe`] | byte-pair encoding | DNABERT-2, any like file, or trained | its run of bases without N |
//!
//! All of them turn base ids, to which letters were folded before, into [`Tokens`] without special ids; the ids that a published
//! model puts around a sequence are said by `special()`. All have the same methods: `size`, `special`, `ordinary`, `context`,
//! `encode`, `decode`, `token` and `hugging_face`. The last gives a `tokenizer.json` with which the Python library `tokenizers`
//! arrives at the same ids from raw letters: lower case counts as upper case, U as T, and other IUPAC codes as N.
//!
//! Sequences have fewer than 2³² bases.
//!
//! ```
//! use vqdna_data::vocab::{Kmer, KmerConfig};
//!
//! let kmers = Kmer::new(KmerConfig { k: 3 })?;
//! let tokens = kmers.encode(&[0, 1, 2, 3]); // ACGT
//! let names: Vec<_> = tokens.levels[0].iter().filter_map(|&id| kmers.token(id)).collect();
//! assert_eq!(names, ["ACG", "CGT"]);
//! # Ok::<(), vqdna_data::vocab::ConfigError>(())
//! ```

use std::ops::RangeInclusive;

use crate::alphabet::{BaseId, N, letter};

pub mod blocks;
pub mod bpe;
pub mod character;
mod hugging_face;
pub mod kmer;

pub use blocks::{Blocks, BlocksConfig, BlocksLayout};
pub use bpe::{Bpe, BpeConfig};
pub use character::{Character, CharacterConfig, CharacterIds};
pub use kmer::{Kmer, KmerConfig};

#[cfg(doc)]
use crate::tokens::Tokens;

/// Ids that stand for no bases, as the published model of a vocabulary uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Fills up the shorter sequences of a batch.
    pub padding: u32,
    /// A token that is not in the vocabulary, such as a k-mer with N.
    pub unknown: u32,
    /// A position to predict.
    pub mask: u32,
    /// Put before each sequence.
    pub first: Option<u32>,
    /// Put after each sequence.
    pub last: Option<u32>,
}

/// A field of a configuration that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {given}; it must be between {} and {}", .range.start(), .range.end())]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub given: usize,
    /// The values that it may have.
    pub range: RangeInclusive<usize>,
}

/// Checks that a field lies in its range.
fn within(field: &'static str, given: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    if range.contains(&given) { Ok(()) } else { Err(ConfigError { field, given, range }) }
}

/// The place of A, C, G and T in the order of DNABERT and the Nucleotide Transformer, which is A, T, C, G.
const DIGITS: [u32; 4] = [0, 2, 3, 1];

/// The bases in that order.
const IN_ORDER: [BaseId; 4] = [0, 3, 1, 2];

/// The bases of a k-mer by its number: the most significant base comes first.
fn kmer(number: u32, k: usize) -> impl Iterator<Item = BaseId> {
    (0..k).rev().map(move |place| IN_ORDER[(number >> (2 * place)) as usize & 3])
}

/// Number of k-mers.
const fn kmers(k: usize) -> u32 {
    1 << (2 * k)
}

/// Bases as upper-case letters.
fn text(bases: impl IntoIterator<Item = BaseId>) -> String {
    bases.into_iter().map(|base| char::from(letter(base))).collect()
}

/// Base ids of upper-case letters over ACGTN.
fn bases_of(text: &str) -> Option<Vec<BaseId>> {
    text.bytes().map(|byte| (0..=N).find(|&base| letter(base) == byte)).collect()
}

#[cfg(test)]
mod laws;
