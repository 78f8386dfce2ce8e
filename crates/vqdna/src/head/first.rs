//! A sequence-level classification head over the first hidden state: norm, linear layer, hyperbolic tangent, linear layer, as MxDNA does.

use burn::prelude::*;

use crate::layers::{LayerNorm, Linear};
use crate::seed::stream;

/// The head of MxDNA for whole sequences.
#[derive(Module, Debug)]
pub struct FirstHead {
    /// Norm of the hidden state.
    pub head_norm: LayerNorm,
    /// The classifier.
    pub head: Classifier,
}

/// A hidden state to outputs.
#[derive(Module, Debug)]
pub struct Classifier {
    /// `d` to `d`, before the hyperbolic tangent.
    pub dense: Linear,
    /// `d` to the outputs.
    pub out: Linear,
}

impl FirstHead {
    /// Fresh weights for hidden states `d` wide, a pure function of the seed.
    #[must_use]
    pub fn new(d: usize, outputs: usize, norm_eps: f64, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the head of the first state", &[]);
        Self {
            head_norm: LayerNorm::new(d, norm_eps, device),
            head: Classifier { dense: Linear::new(d, d, random, device), out: Linear::new(d, outputs, random, device) },
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, units, d]`
    /// - output: `[batch, outputs]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<2> {
        let first = self.head_norm.forward(hidden.narrow(1, 0, 1));
        self.head.out.forward(self.head.dense.forward(first).tanh()).squeeze_dim(1)
    }
}
