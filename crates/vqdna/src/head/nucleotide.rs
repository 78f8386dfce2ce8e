//! Tells the bases of masked positions from hidden states of units: a layer that goes back from units to bases, then a linear layer,
//! GELU, norm and a classifier.

use burn::prelude::*;

use crate::layers::{GatedLayer, GatedShape, LayerNorm, Linear, Rows};
use crate::seed::stream;
use crate::weights::{constant, normal};

/// The decoder and head of MxDNA for masked modelling.
#[derive(Module, Debug)]
pub struct NucleotideHead {
    /// Attention of bases to units.
    pub decoder: GatedLayer,
    /// Norm after it.
    pub head_norm: LayerNorm,
    /// The classifier.
    pub head: LetterHead,
}

/// Hidden states of bases to letters.
#[derive(Module, Debug)]
pub struct LetterHead {
    /// `d` to `d`, before GELU.
    pub dense: Linear,
    /// Norm after GELU.
    pub norm: LayerNorm,
    /// `d` to letters.
    pub out: Linear,
}

impl NucleotideHead {
    /// Fresh weights, a pure function of the seed.
    #[must_use]
    pub fn new(shape: &GatedShape, letters: usize, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the nucleotide head", &[]);
        let GatedShape { d, eps, deviation, .. } = *shape;
        let mut linear = |d_out| Linear {
            weight: normal([d_out, d], deviation, random, device),
            bias: constant([d_out], 0.0, device),
        };
        let (dense, out) = (linear(d), linear(letters));
        Self {
            decoder: GatedLayer::new(*shape, random, device),
            head_norm: LayerNorm::new(d, eps, device),
            head: LetterHead { dense, norm: LayerNorm::new(d, eps, device), out },
        }
    }

    /// Logits of the letter at each position.
    ///
    /// # Shapes
    /// - output: `[batch, positions, letters]`
    pub fn forward(&self, bases: Rows, units: Rows) -> Tensor<3> {
        self.head.out.forward(self.features(bases, units))
    }

    /// What the classifier sees.
    ///
    /// # Shapes
    /// - output: `[batch, positions, d]`
    pub fn features(&self, bases: Rows, units: Rows) -> Tensor<3> {
        let hidden = self.head_norm.forward(self.decoder.across(bases, units));
        self.head.norm.forward(self.head.dense.forward_gelu(hidden))
    }
}
