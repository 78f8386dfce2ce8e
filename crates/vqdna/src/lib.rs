//! Learned vocabularies for genomes.
//!
//! The flow goes one way: FASTA → [`vqdna_data::corpus`] → [`batch`] → [`tokenizer`] → [`objective`] → [`train`] → a model
//! [`folder`], which then turns genomes into codes and back ([`transcode`]). A [`run`] joins these. Rooms import from lower floors
//! only:
//!
//! | floor | rooms |
//! | --- | --- |
//! | 0 | [`ops`], [`device`], [`seed`], [`batch`] |
//! | 1 | [`weights`] |
//! | 2 | [`layers`] |
//! | 3 | [`quantizer`], [`backbone`], [`head`] |
//! | 4 | [`tokenizer`] |
//! | 5 | [`objective`] |
//! | 6 | [`train`], [`folder`] |
//! | 7 | [`transcode`], [`infer`] |
//! | 8 | [`run`] |
//! | 9 | [`estimate`] |
//! | 10 | [`benchmark`] |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backbone;
pub mod batch;
pub mod benchmark;
pub mod device;
pub mod estimate;
pub mod folder;
pub mod head;
pub mod infer;
pub mod layers;
pub mod objective;
pub mod ops;
pub mod quantizer;
pub mod run;
pub mod seed;
pub mod tokenizer;
pub mod train;
pub mod transcode;
pub mod weights;
