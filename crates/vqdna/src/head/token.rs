//! Hidden states to the ids of tokens: a linear layer, GELU, norm, then a classifier for each level, or more where a position stands for
//! several tokens.

use burn::prelude::*;

use crate::layers::{LayerNorm, Linear};
use crate::ops;
use crate::seed::Stream;
use crate::weights::{constant, normal};

/// The head of a language model.
#[derive(Module, Debug)]
pub struct TokenHead {
    /// `d_model` to `d_model`, before GELU.
    pub dense: Linear,
    /// Norm after GELU.
    pub head_norm: LayerNorm,
    /// The classifiers, each from `d_model` to a number of ids.
    pub heads: Vec<Linear>,
}

impl TokenHead {
    /// Fresh weights for hidden states `d_model` wide and a classifier of each number of ids: of this standard deviation, with biases of 0,
    /// or as any linear layer.
    #[must_use]
    pub fn new(
        d_model: usize,
        classes: &[usize],
        norm_eps: f64,
        deviation: Option<f64>,
        random: &mut Stream,
        device: &Device,
    ) -> Self {
        let mut linear = |outputs: usize| match deviation {
            None => Linear::new(d_model, outputs, random, device),
            Some(deviation) => Linear {
                weight: normal([outputs, d_model], deviation, random, device),
                bias: constant([outputs], 0.0, device),
            },
        };
        Self {
            dense: linear(d_model),
            head_norm: LayerNorm::new(d_model, norm_eps, device),
            heads: classes.iter().map(|&classes| linear(classes)).collect(),
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
    /// - `features`: `[rows, d_model]`; `ids`: `[rows]`
    /// - output: `[1]`
    pub fn loss(&self, classifier: usize, features: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<1> {
        let head = &self.heads[classifier];
        ops::cross_entropy(features, head.weight.val(), head.bias.val(), ids)
    }
}
