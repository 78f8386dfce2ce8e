//! Tells the codes of masked positions: a linear layer, GELU, norm, then one classifier for each code level.

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
    /// One classifier a level, `d_model` to its number of codes.
    pub heads: Vec<Linear>,
}

impl MaskedHeads {
    /// Fresh weights for hidden states `d_model` wide, a pure function of the seed.
    #[must_use]
    pub fn new(d_model: usize, codebook_sizes: &[usize], norm_eps: f64, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the masked heads", &[]);
        Self {
            dense: Linear::new(d_model, d_model, random, device),
            head_norm: LayerNorm::new(d_model, norm_eps, device),
            heads: codebook_sizes.iter().map(|&size| Linear::new(d_model, size, random, device)).collect(),
        }
    }

    /// What the classifiers see.
    ///
    /// # Shapes
    /// - `hidden`, output: `[rows, d_model]`
    fn features(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head_norm.forward(self.dense.forward_gelu(hidden.unsqueeze_dim(0))).squeeze_dim(0)
    }

    /// Logits of each level's codes.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_model]`
    /// - output: per level `[rows, codebook_size]`
    pub fn logits(&self, hidden: Tensor<2>) -> Vec<Tensor<2>> {
        let features = self.features(hidden).unsqueeze_dim::<3>(0);
        self.heads.iter().map(|head| head.forward(features.clone()).squeeze_dim(0)).collect()
    }

    /// Mean cross-entropy of each level in nats; 0 if there is no row.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_model]`
    /// - `codes`: per level `[rows]`
    /// - output: per level `[1]`
    ///
    /// # Panics
    /// If there are not as many levels of codes as heads.
    pub fn losses(&self, hidden: Tensor<2>, codes: &[Tensor<1, Int>]) -> Vec<Tensor<1>> {
        assert_eq!(codes.len(), self.heads.len(), "one level of codes a head");
        // Tensors without rows pass no further than the loss, which is 0.
        let features = if hidden.dims()[0] == 0 { hidden } else { self.features(hidden) };
        let loss = |(head, codes): (&Linear, &Tensor<1, Int>)| {
            ops::cross_entropy(features.clone(), head.weight.val(), head.bias.val(), codes.clone())
        };
        self.heads.iter().zip(codes).map(loss).collect()
    }
}
