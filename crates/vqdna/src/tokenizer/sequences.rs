//! Many sequences on the host in the form that a model takes them, and batches of them. The one place that knows which models take
//! codes and which take letters.

use burn::prelude::*;
use std::ops::ControlFlow;
use vqdna_data::alphabet::BaseId;

use super::coded::{Coded, CodedRows};
use super::mxdna::{LetterBatch, LetterRows};
use super::vqdna::Vqdna;
use crate::quantizer::Quantizer;

/// Sequences, or pairs of them.
#[derive(Clone, Debug)]
pub enum SequenceRows {
    /// As codes of a vocabulary, and what they stand for.
    Codes(CodedRows, Box<Quantizer>),
    /// As letters, for a model that cuts them itself.
    Letters(LetterRows),
}

/// Some of them side by side on a device.
#[derive(Clone, Debug)]
pub enum SequenceBatch {
    /// Vectors of codes.
    Vectors {
        /// `[batch, bases, d_code]`; 0 where there is no code.
        vectors: Tensor<3>,
        /// `[batch, bases]`: 1 for a position of a sequence, 0 for padding.
        real: Tensor<2>,
    },
    /// Letters.
    Letters(LetterBatch),
}

impl SequenceRows {
    /// Sequences, each on its own, as codes of `vocabulary`, which is without autodiff, or as letters without one; with `second`, as
    /// many pairs.
    ///
    /// # Panics
    /// If there are not as many second sequences as first ones.
    #[must_use]
    pub fn new(
        vocabulary: Option<&Vqdna>,
        first: Vec<Vec<BaseId>>,
        second: Option<Vec<Vec<BaseId>>>,
        device: &Device,
    ) -> Self {
        let never = || ControlFlow::Continue(());
        Self::polled(vocabulary, first, second, device, &never).expect("nobody stops it")
    }

    /// The same, where `poll` is asked now and then whether to go on; none if not.
    ///
    /// # Panics
    /// If there are not as many second sequences as first ones.
    #[must_use]
    pub fn polled(
        vocabulary: Option<&Vqdna>,
        first: Vec<Vec<BaseId>>,
        second: Option<Vec<Vec<BaseId>>>,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Self> {
        let Some(vocabulary) = vocabulary else { return Some(Self::Letters(LetterRows::new(first, second))) };
        let coded = |sequences: Vec<Vec<BaseId>>| Coded::polled(vocabulary, &sequences, device, poll);
        let (first, second) = (coded(first)?, second.map(coded));
        let rows = match second {
            Some(second) => CodedRows::new(first, Some(second?)),
            None => CodedRows::new(first, None),
        };
        Some(Self::Codes(rows, Box::new(vocabulary.quantizer.clone())))
    }

    /// Positions of each row: bases, one more between those of a pair, and of letters one before and one after them.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        match self {
            Self::Codes(rows, _) => rows.lengths(),
            Self::Letters(rows) => rows.lengths(),
        }
    }

    /// Some rows side by side, the shorter ones padded at the end; `device` is without autodiff.
    ///
    /// # Panics
    /// If a row does not exist.
    #[must_use]
    pub fn batch(&self, rows: &[u32], device: &Device) -> SequenceBatch {
        match self {
            Self::Codes(known, quantizer) => {
                let batch = known.batch(rows, device);
                SequenceBatch::Vectors { vectors: batch.vectors(quantizer), real: batch.real }
            }
            Self::Letters(known) => SequenceBatch::Letters(known.batch(rows, device)),
        }
    }
}

impl SequenceBatch {
    /// The same for a model with autodiff.
    #[must_use]
    pub fn autodiff(self) -> Self {
        match self {
            Self::Vectors { vectors, real } => {
                Self::Vectors { vectors: Tensor::from_inner(vectors), real: Tensor::from_inner(real) }
            }
            Self::Letters(batch) => Self::Letters(batch.autodiff()),
        }
    }
}
