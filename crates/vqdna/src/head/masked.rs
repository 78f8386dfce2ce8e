//! Tells the codes of masked positions: a linear layer, GELU, norm, then a classifier for each code level, or more where a
//! position stands for several bases.

use burn::prelude::*;

use crate::layers::{LayerNorm, Linear};
use crate::ops;
use crate::seed::stream;

/// The heads of masked modelling.
#[derive(Module, Debug)]
pub struct MaskedHeads {
    /// `d_model` to `d_model`, before GELU.
    pub dense: Linear,
    /// Norm after GELU.
    pub head_norm: LayerNorm,
    /// The classifiers, each from `d_model` to a number of codes.
    pub heads: Vec<Linear>,
}

impl MaskedHeads {
    /// Fresh weights for hidden states `d_model` wide and a classifier of each number of codes, a pure function of the seed.
    #[must_use]
    pub fn new(d_model: usize, classes: &[usize], norm_eps: f64, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the masked heads", &[]);
        Self {
            dense: Linear::new(d_model, d_model, random, device),
            head_norm: LayerNorm::new(d_model, norm_eps, device),
            heads: classes.iter().map(|&classes| Linear::new(d_model, classes, random, device)).collect(),
        }
    }

    /// What the classifiers see.
    ///
    /// # Shapes
    /// - `hidden`, output: `[rows, d_model]`
    pub fn features(&self, hidden: Tensor<2>) -> Tensor<2> {
        if hidden.dims()[0] == 0 {
            // Tensors without rows pass no further than the loss, which is 0.
            return hidden;
        }
        self.head_norm.forward(self.dense.forward_gelu(hidden.unsqueeze_dim(0))).squeeze_dim(0)
    }

    /// Logits of one classifier.
    ///
    /// # Shapes
    /// - `features`: `[rows, d_model]`, at least one row
    /// - output: `[rows, classes]`
    pub fn logits(&self, classifier: usize, features: Tensor<2>) -> Tensor<2> {
        self.heads[classifier].forward(features.unsqueeze_dim(0)).squeeze_dim(0)
    }

    /// Mean cross-entropy of one classifier in nats; 0 if there is no row.
    ///
    /// # Shapes
    /// - `features`: `[rows, d_model]`; `codes`: `[rows]`
    /// - output: `[1]`
    pub fn loss(&self, classifier: usize, features: Tensor<2>, codes: Tensor<1, Int>) -> Tensor<1> {
        let head = &self.heads[classifier];
        ops::cross_entropy(features, head.weight.val(), head.bias.val(), codes)
    }
}
