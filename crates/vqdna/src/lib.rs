//! Learned vocabularies for genomes.
//!
//! The flow goes one way: FASTA → [`vqdna_data::corpus`] → [`batch`] → [`tokenizer`] → [`objective`] → [`train`] → a model
//! folder ([`run`]), which then turns genomes into codes and back ([`transcode`]). Rooms import from lower floors only:
//!
//! | floor | rooms |
//! | --- | --- |
//! | 0 | [`aside`], [`ops`], [`device`], [`seed`], [`batch`], [`weights`] |
//! | 1 | [`layers`] |
//! | 2 | [`quantizer`] |
//! | 3 | [`tokenizer`] |
//! | 4 | [`objective`] |
//! | 5 | [`train`] |
//! | 6 | [`run`] |
//! | 7 | [`transcode`], [`benchmark`] |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod aside;
pub mod batch;
pub mod device;
pub mod layers;
pub mod objective;
pub mod ops;
pub mod quantizer;
pub mod run;
pub mod seed;
pub mod tokenizer;
pub mod train;
pub mod weights;
