//! Genomes in, numbers out: reading sequences and what is known of them, cutting and splitting them, measuring what a model says;
//! without any tensor.
//!
//! The rooms, lowest floor first; a room imports only from lower floors:
//!
//! | floor | rooms |
//! | --- | --- |
//! | 0 | [`aside`], [`bounded`], [`lock`], [`random`], [`random_access`], [`words`], [`nearest`], [`number`], `pages` |
//! | 1 | [`alphabet`], [`span`], [`input`], [`output`], [`metric`], [`bucket`] |
//! | 2 | [`fasta`], [`codes`], [`synthetic`], [`shuffle`], [`markov`], [`vectors`], [`tabular`], [`tokens`] |
//! | 3 | [`segment`], [`window`], [`split`], [`bed`], [`vocab`] |
//! | 4 | [`corpus`], [`labelled`] |
//! | 5 | [`sampler`], [`sequences`] |
//!
//! Coordinates are 0-based and half-open everywhere; region strings (`chr1:1,000-2,000`) are 1-based and inclusive and are
//! converted where they are parsed and printed, in [`span`].
//!
//! ```
//! use vqdna_data::{fasta::Record, segment::{Counts, Policy, segments}, window::Windowing};
//!
//! let record = Record::in_memory("chr1", b"ACGTnnACGTACGT");
//! let mut counts = Counts::default();
//! let segments = segments(&record, Policy::default(), &mut counts)?;
//! let windowing = Windowing { length: 8, stride: 8, halo: 2 };
//! let cores: Vec<_> = windowing.windows(segments[0].bases.len()).map(|window| window.core).collect();
//! assert_eq!(cores, [0..8, 8..14]);
//! assert_eq!(counts.ambiguous, 2);
//! # Ok::<(), vqdna_data::fasta::FastaError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a wrong cast would corrupt coordinates or codes, so each one says why it is right"
)]

pub mod alphabet;
pub mod aside;
pub mod bed;
pub mod bounded;
pub mod bucket;
pub mod codes;
pub mod corpus;
pub mod fasta;
pub mod input;
pub mod labelled;
pub mod lock;
pub mod markov;
pub mod metric;
pub mod nearest;
pub mod number;
pub mod output;
mod pages;
pub mod random;
pub mod random_access;
pub mod sampler;
pub mod segment;
pub mod sequences;
pub mod shuffle;
pub mod span;
pub mod split;
pub mod synthetic;
pub mod tabular;
pub mod tokens;
pub mod vectors;
pub mod vocab;
pub mod window;
pub mod words;

pub use pages::panics_are_caught;
