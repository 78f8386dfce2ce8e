//! From bases to tokens. One file or folder per kind: [`vqdna`] learns a vocabulary of codes, which comes before any other model;
//! [`mxdna`] is part of the model that learns, and cuts sequences itself.
//!
//! [`sequences`] is where later stages meet them: a further kind is a variant there, and a section of
//! [`ModelConfig`](crate::folder::ModelConfig).

pub mod coded;
pub mod mxdna;
pub mod sequences;
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
