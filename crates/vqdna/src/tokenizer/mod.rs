//! From bases to tokens. One file or folder per kind; today there is [`vqdna`], which learns its vocabulary.
//!
//! Every tokenizer turns a [`Batch`] into [`Tokens`], and the rest of the program sees nothing else of it. With a second kind
//! this file gets an enum of configs and an enum of modules, as `quantizer/mod.rs` has.

pub mod coded;
pub mod mxdna;
pub mod vqdna;

use burn::prelude::*;

pub use crate::batch::Batch;

/// The tokens of one batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, tokens, d]`.
    pub vectors: Tensor<3>,
    /// `[batch, tokens]`, true = padding.
    pub padding: Tensor<2, Bool>,
    /// Per level `[batch, tokens]`.
    pub codes: Vec<Tensor<2, Int>>,
}
