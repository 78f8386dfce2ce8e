//! Stage 2 of VQDNA: the codes of masked positions, told from the vectors of all others. Loss: the mean over code levels of the
//! mean cross-entropy over masked positions.
//!
//! This file joins the parts; [`masking`] chooses what is masked, and [`pretrain`] is the task for the loop.
//!
//! Where the backbone pools adjacent bases, whole pools are masked, and the heads tell the codes of every base of a pool: one
//! classifier for each place in a pool and each level, in that order.

pub mod masking;
pub mod pretrain;

use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use super::sum;
use crate::backbone::transformer::{Transformer, TransformerConfig};
use crate::head::masked::MaskedHeads;
use crate::layers::Asked;
use crate::weights::{self, Arrays, WeightError};

/// What of a batch is masked, and what is to be told: drawn on the host, where the rows are known without asking the device.
#[derive(Clone, Debug)]
pub struct Masked {
    /// Where the mask vector stands, `[batch, pools]`.
    positions: Tensor<2, Bool>,
    /// Pools with a base to tell.
    asked: Asked,
    /// What is to be told of each place in a pool.
    targets: Vec<Targets>,
}

/// The bases at one place of their pools whose codes are to be told.
#[derive(Clone, Debug)]
struct Targets {
    /// Which of the pools asked for they belong to; none if to all, in order.
    among: Option<Tensor<1, Int>>,
    /// The bases, as places of the flattened batch.
    bases: Tensor<1, Int>,
    /// Their number.
    count: usize,
}

impl Masked {
    /// Positions that are masked, and all to be told; no pools.
    ///
    /// # Shapes
    /// - `masked`: `[batch, bases]`, in row-major order; padding must be false
    ///
    /// # Panics
    /// If `masked` has another length than its shape.
    #[must_use]
    pub fn new(masked: &[bool], shape: [usize; 2], device: &Device) -> Self {
        Self::with_targets(masked, masked, shape, 1, device)
    }

    /// Pools where the mask vector stands, and bases whose codes are to be told.
    ///
    /// # Shapes
    /// - `masked`: `[batch, pools]`, with pools of `pool` bases, the last one of a row maybe of fewer
    /// - `targets`: `[batch, bases]`, of this `shape`; padding must be false
    ///
    /// # Panics
    /// If `masked` or `targets` has another length than its shape.
    #[must_use]
    pub fn with_targets(
        masked: &[bool],
        targets: &[bool],
        [batch, bases]: [usize; 2],
        pool: usize,
        device: &Device,
    ) -> Self {
        assert_eq!(targets.len(), batch * bases, "a flag for each base");
        let pools = bases.div_ceil(pool);
        let places: Vec<usize> = (0..targets.len()).filter(|&i| targets[i]).collect();
        let pool_of = |place: usize| place / bases * pools + place % bases / pool;
        let mut rows: Vec<usize> = places.iter().map(|&place| pool_of(place)).collect();
        rows.dedup();
        let of_place = |within: usize| {
            let bases: Vec<usize> = places.iter().copied().filter(|place| place % bases % pool == within).collect();
            let among = bases.iter().filter_map(|&place| rows.binary_search(&pool_of(place)).ok()).collect();
            let is_all = bases.len() == rows.len();
            Targets { among: (!is_all).then(|| index(among, device)), count: bases.len(), bases: index(bases, device) }
        };
        let targets = (0..pool).map(of_place).collect();
        let mut mask = vec![0.0f32; batch * pools];
        for &row in &rows {
            mask[row] = 1.0;
        }
        let mask = Tensor::from_data(TensorData::new(mask, [batch, pools]), device);
        Self {
            positions: Tensor::from_data(TensorData::new(masked.to_vec(), [batch, pools]), device),
            asked: Asked { rows: index(rows, device), mask },
            targets,
        }
    }

    /// Number of bases whose codes are to be told.
    #[must_use]
    pub fn count(&self) -> usize {
        self.targets.iter().map(|targets| targets.count).sum()
    }
}

fn index(places: Vec<usize>, device: &Device) -> Tensor<1, Int> {
    let count = places.len();
    let places: Vec<i32> = places.into_iter().map(|place| place as i32).collect();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

/// Backbone and masked heads.
#[derive(Module, Debug)]
pub struct MaskedModel {
    /// Code vectors to hidden states.
    pub backbone: Transformer,
    /// Hidden states to codes.
    pub head: MaskedHeads,
}

/// How well the codes of one level were told: sums over bases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// Cross-entropy in nats.
    pub nats: f64,
    /// Bases whose most likely code is theirs.
    pub right: u64,
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
        let classes = codebook_sizes.repeat(config.pool);
        Self {
            backbone: config.init(d_input, seed, device),
            head: MaskedHeads::new(config.d_model, &classes, config.norm_eps, seed, device),
        }
    }

    /// The hidden states of a batch; those at padding mean nothing.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, bases, d_input]`; `masked`: of the same batch, none to see everything
    /// - `real`: `[batch, bases]`, 1 for a real base, 0 for padding
    /// - output: `[batch, pools, d_model]`
    pub fn hidden(&self, vectors: Tensor<3>, masked: Option<&Masked>, real: &Tensor<2>) -> Tensor<3> {
        self.backbone.hidden(vectors, masked.map(|masked| masked.positions.clone()), real)
    }

    /// Mean cross-entropy of each level over the bases to tell, in nats; 0 if there are none. The heads run on their positions
    /// only.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, bases, d_input]`; `real`: `[batch, bases]`
    /// - `codes`: per level `[batch, bases]`
    /// - output: per level `[1]`
    ///
    /// # Panics
    /// If there is no classifier for each place of a pool and each level.
    pub fn losses(
        &self,
        vectors: Tensor<3>,
        masked: &Masked,
        real: &Tensor<2>,
        codes: &[Tensor<2, Int>],
    ) -> Vec<Tensor<1>> {
        let all = masked.count().max(1) as f64;
        let mut losses: Vec<Tensor<1>> = Vec::new();
        self.tell(vectors, masked, real, codes, |level, classifier, features, codes| {
            let share = codes.dims()[0] as f64 / all;
            let loss = self.head.loss(classifier, features, codes);
            match losses.get_mut(level) {
                // Of one place there is only the mean itself.
                None if masked.targets.len() == 1 => losses.push(loss),
                None => losses.push(loss.mul_scalar(share)),
                Some(sum) => *sum = sum.clone() + loss.mul_scalar(share),
            }
        });
        losses
    }

    /// The mean of [`MaskedModel::losses`] over levels, `[1]`; what is minimised.
    pub fn loss(&self, vectors: Tensor<3>, masked: &Masked, real: &Tensor<2>, codes: &[Tensor<2, Int>]) -> Tensor<1> {
        Tensor::cat(self.losses(vectors, masked, real, codes), 0).mean()
    }

    /// How well each level is told. Shapes are those of [`MaskedModel::losses`].
    pub fn told(&self, vectors: Tensor<3>, masked: &Masked, real: &Tensor<2>, codes: &[Tensor<2, Int>]) -> Vec<Told> {
        let mut told = vec![Told::default(); codes.len()];
        if masked.count() == 0 {
            return told;
        }
        self.tell(vectors, masked, real, codes, |level, classifier, features, codes| {
            if codes.dims()[0] > 0 {
                let logits = self.head.logits(classifier, features);
                let right = logits.clone().argmax(1).squeeze_dim::<1>(1).equal(codes.clone()).float();
                let log_p = log_softmax(logits, 1).gather(1, codes.unsqueeze_dim(1)).squeeze_dim::<1>(1);
                told[level].right += sum(right) as u64;
                told[level].nats -= sum(log_p);
            }
        });
        told
    }

    /// Shows each level and classifier the features of the pools that it tells codes of, and those codes.
    fn tell(
        &self,
        vectors: Tensor<3>,
        masked: &Masked,
        real: &Tensor<2>,
        codes: &[Tensor<2, Int>],
        mut show: impl FnMut(usize, usize, Tensor<2>, Tensor<1, Int>),
    ) {
        assert_eq!(self.head.heads.len(), masked.targets.len() * codes.len(), "a classifier for each place and level");
        let levels = codes.len();
        let hidden = self.backbone.hidden_at(vectors, Some(masked.positions.clone()), real, &masked.asked);
        let features = self.head.features(hidden);
        for (place, targets) in masked.targets.iter().enumerate() {
            let features = match &targets.among {
                Some(among) => features.clone().select(0, among.clone()),
                None => features.clone(),
            };
            for (level, codes) in codes.iter().enumerate() {
                let [batch, bases] = codes.dims();
                let codes = codes.clone().reshape([batch * bases]).select(0, targets.bases.clone());
                show(level, place * levels + level, features.clone(), codes);
            }
        }
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
