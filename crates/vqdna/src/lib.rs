//! Learned vocabularies for genomes.
//!
//! The flow goes one way: FASTA → [`vqdna_data::corpus`] → [`batch`] → [`tokenizer`] → [`model`] → [`objective`] → [`train`] → a
//! [folder](model_dir), whose model then turns genomes into codes and back ([`transcode`]). A [`run`] joins these. Any
//! [`tokenizer`] meets any [`backbone`] in a [`model`], and any [`objective`] trains it. Rooms import from lower floors only:
//!
//! | floor | rooms |
//! | --- | --- |
//! | 0 | [`ops`], [`device`], [`seed`], [`batch`] |
//! | 1 | [`weights`], [`memory`] |
//! | 2 | [`layers`] |
//! | 3 | [`quantizer`], [`backbone`], [`head`] |
//! | 4 | [`tokenizer`] |
//! | 5 | [`model`] |
//! | 6 | [`objective`] |
//! | 7 | [`train`], [`model_dir`] |
//! | 8 | [`transcode`], [`infer`] |
//! | 9 | [`run`] |
//! | 10 | [`estimate`] |
//! | 11 | [`benchmark`] |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backbone;
pub mod batch;
pub mod benchmark;
pub mod device;
pub mod estimate;
pub mod head;
pub mod infer;
pub mod layers;
pub mod memory;
pub mod model;
pub mod model_dir;
pub mod objective;
pub mod ops;
pub mod quantizer;
pub mod run;
pub mod seed;
pub mod tokenizer;
pub mod train;
pub mod transcode;
pub mod weights;
