//! Stage 2 of VQDNA: the codes of masked positions, told from the vectors of all others. Loss: the mean over code levels of the
//! mean cross-entropy over masked positions.

use burn::prelude::*;

use crate::backbone::transformer::{Transformer, TransformerConfig};
use crate::head::masked::MaskedHeads;
use crate::weights::{self, Arrays, WeightError};

/// The positions of a batch that are masked: drawn on the host, where their rows are known without asking the device.
#[derive(Clone, Debug)]
pub struct Masked {
    positions: Tensor<2, Bool>,
    /// Places of the masked positions in the flattened batch.
    rows: Tensor<1, Int>,
}

impl Masked {
    /// # Shapes
    /// - `masked`: `[batch, bases]`, in row-major order; padding must be false
    ///
    /// # Panics
    /// If `masked` has another length than its shape.
    #[must_use]
    pub fn new(masked: &[bool], shape: [usize; 2], device: &Device) -> Self {
        let rows: Vec<i32> = (0..masked.len()).filter(|&i| masked[i]).map(|i| i as i32).collect();
        let count = rows.len();
        Self {
            positions: Tensor::from_data(TensorData::new(masked.to_vec(), shape), device),
            rows: Tensor::from_data(TensorData::new(rows, [count]), device),
        }
    }

    /// Number of masked positions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.dims()[0]
    }
}

/// Backbone and masked heads.
#[derive(Module, Debug)]
pub struct MaskedModel {
    /// Code vectors to hidden states.
    pub backbone: Transformer,
    /// Hidden states to codes.
    pub head: MaskedHeads,
}

impl MaskedModel {
    /// Fresh weights for code vectors `d_input` wide, a pure function of the seed.
    #[must_use]
    pub fn new(
        config: &TransformerConfig,
        d_input: usize,
        codebook_sizes: &[usize],
        seed: u64,
        device: &Device,
    ) -> Self {
        Self {
            backbone: config.init(d_input, seed, device),
            head: MaskedHeads::new(config.d_model, codebook_sizes, config.norm_eps, seed, device),
        }
    }

    /// The hidden states of a batch; those at padding mean nothing.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, bases, d_input]`; `masked`: of the same batch, none to see everything
    /// - `real`: `[batch, bases]`, 1 for a real base, 0 for padding
    /// - output: `[batch, bases, d_model]`
    pub fn hidden(&self, vectors: Tensor<3>, masked: Option<&Masked>, real: &Tensor<2>) -> Tensor<3> {
        self.backbone.hidden(vectors, masked.map(|masked| masked.positions.clone()), real)
    }

    /// Mean cross-entropy of each level over the masked positions, in nats; 0 if none is masked. The heads run on those
    /// positions only.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, bases, d_input]`; `real`: `[batch, bases]`
    /// - `codes`: per level `[batch, bases]`
    /// - output: per level `[1]`
    pub fn losses(
        &self,
        vectors: Tensor<3>,
        masked: &Masked,
        real: &Tensor<2>,
        codes: &[Tensor<2, Int>],
    ) -> Vec<Tensor<1>> {
        let hidden = self.hidden(vectors, Some(masked), real);
        let [batch, bases, d] = hidden.dims();
        let rows = hidden.reshape([batch * bases, d]).select(0, masked.rows.clone());
        let codes: Vec<_> =
            codes.iter().map(|codes| codes.clone().reshape([batch * bases]).select(0, masked.rows.clone())).collect();
        self.head.losses(rows, &codes)
    }

    /// The mean of [`MaskedModel::losses`] over levels, `[1]`; what is minimised.
    pub fn loss(&self, vectors: Tensor<3>, masked: &Masked, real: &Tensor<2>, codes: &[Tensor<2, Int>]) -> Tensor<1> {
        Tensor::cat(self.losses(vectors, masked, real, codes), 0).mean()
    }
}

/// Names of the heads; all others belong to the backbone.
const HEAD_NAMES: [&str; 3] = ["dense.", "head_norm.", "heads."];

/// Weights under their published names: those of the PyTorch definition of the network.
#[must_use]
pub fn publish(model: &MaskedModel) -> Arrays {
    weights::collect(model).into_iter().map(|(name, array)| (published_name(&name).to_owned(), array)).collect()
}

/// The model with weights that carry published names.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn load_published(model: MaskedModel, arrays: Arrays) -> Result<MaskedModel, WeightError> {
    let part = |name: &str| if HEAD_NAMES.iter().any(|head| name.starts_with(head)) { "head" } else { "backbone" };
    let arrays = arrays.into_iter().map(|(name, array)| (format!("{}.{name}", part(&name)), array)).collect();
    weights::assign(model, &arrays).map_err(|error| error.rename(|name| published_name(&name).to_owned()))
}

/// The published name of a parameter of a [`MaskedModel`].
#[must_use]
pub fn published_name(name: &str) -> &str {
    name.strip_prefix("backbone.").or_else(|| name.strip_prefix("head.")).unwrap_or(name)
}
